"""The table of a plan: by hand, from files, escaped."""

import dataclasses
import itertools
import json

import numpy as np
import pytest

from ioa_jax.evaluation import intervals
from ioa_jax.report import comparison


def module(teacher, student, status):
  score = lambda correct: {'correct': correct, 'n': 10}
  return {
    'teacher': score(teacher), 'student': score(student), 'status': status
  }  # fmt: skip


def probe(**correct):
  scores = {k: {'correct': c, 'n': 10} for k, c in correct.items()}
  return {'event': 'probe', 'scores': scores}


def write_run(directory, seed, after, retention, events):
  directory.mkdir()
  files = {
    'results.json': {
      'seed': seed, 'retention': retention,
      'modules': {
        'a': {'after': after[0], 'teacher': 1.0, 'loss_after': 0.5},
        'b': {'after': after[1], 'teacher': 0.8, 'loss_after': 1 - after[1]},
      },
      'stages': [
        {'kind': 'teach', 'outcome': 'mastered', 'remedial_rounds': 1},
        {'kind': 'consolidate', 'outcome': 'pending', 'remedial_rounds': 0},
      ],
      'forgetting': [
        {'scores': {'a': 1.0, 'b': 0.2}}, {'scores': {'a': 0.6, 'b': 0.8}},
      ],
      'tokens': {
        'student_train': 1000, 'teacher_generated': 50,
        'student_inferred': 300, 'panel': 20,
      },
      'seconds': {'train': 1.5, 'evaluate': 0.5}, 'compilations': 1,
    },
    'diagnosis.json': {
      'modules': {
        'a': module(10, 10, 'known'), 'b': module(8, 0, 'target'),
        'c': module(0, 0, 'unteachable'),
      }
    },
    'config.json': {'gate': {'tau_mastery': 0.9}},
  }  # fmt: skip
  for name, content in files.items():
    (directory / name).write_text(json.dumps(content))
  lines = '\n'.join(map(json.dumps, events))
  (directory / 'metrics.jsonl').write_text(lines + '\n')


def train(tokens):
  return {'event': 'train', 'train/tokens': tokens}


EVENTS = [
  train(400), probe(b=4), train(700), probe(b=8), train(1000), probe(a=9, b=6)
]  # fmt: skip


def test_a_curve_keeps_what_was_not_probed(tmp_path):
  write_run(tmp_path / 'r', 0, (1.0, 0.6), 0.9, EVENTS)
  run = comparison.read(tmp_path / 'r')
  # The module that cannot be taught is no part of the mean.
  assert run.curve == [(0, 0.5), (400, 0.75), (700, 1.0), (1000, 0.825)]
  assert run.mastered_at == 700
  assert comparison.forgotten(dataclasses.replace(
    run, results=run.results | {'forgetting': run.results['forgetting'][:1]}
  )) is None  # fmt: skip
  assert comparison.group_score(run, ['b']) == pytest.approx(0.75)
  # From the best to the last: 0.4 of a, nothing of b.
  assert comparison.forgotten(run) == pytest.approx(0.2)
  grid = dict(comparison.curve([run]))
  at = lambda t: grid[max(g for g in grid if g <= t)]
  assert (at(399), at(500), at(1000)) == (0.5, 0.75, pytest.approx(0.825))


def test_catching_up_is_in_tokens_of_the_other():
  run = lambda *curve: comparison.Run(0, {}, list(curve), None)
  other = run((0, 0.1), (500, 0.7), (1000, 0.6))
  fast = run((0, 0.1), (250, 0.6), (1000, 0.5))
  assert comparison.caught_up_after(fast, other) == 0.25
  assert comparison.caught_up_after(run((0, 0.1), (9, 0.5)), other) is None


def test_paired_differences_and_gains(tmp_path):
  for seed, (mine, theirs) in enumerate([(0.9, 0.6), (0.8, 0.6), (1.0, 0.5)]):
    write_run(tmp_path / f'x-{seed}', seed, (1, 0.8), mine, EVENTS)
    write_run(tmp_path / f'y-{seed}', seed, (1, 0.4), theirs, EVENTS[:2])
  found = comparison.write(
    tmp_path,
    [(n, tmp_path / f'{n}-{s}') for s in range(3) for n in 'xy'],
    title='t', says='<script>', untried=['<b>'], groups={'deep': ['b']},
    provenance={'commit': 'abc'},
  )  # fmt: skip
  y = found['summary']['y']
  behind = y['scores']['retention']['behind_first']
  assert behind['mean'] == pytest.approx(1 / 3)
  assert behind['ci95'][0] == pytest.approx(0.2)
  assert behind['ci95'][1] == pytest.approx(0.5)
  # All three in one direction: 2 of the 8 ways to turn signs are as far.
  assert y['scores']['retention']['p'] == 0.25
  gain = y['scores']['deep']['relative_gain_of_first']
  assert gain['mean'] == pytest.approx(1.0)
  assert y['all_mastered_at'] == [None] * 3
  assert y['held_out_loss']['mean'] == pytest.approx((0.5 + 0.6) / 2)
  assert (tmp_path / 'table.json').exists()
  text = (tmp_path / 'table.md').read_text()
  (row,) = [x for x in text.splitlines() if x.startswith('| y |')]
  assert 'never (0 of 3)' in row and '+100.0%' in row
  # It stands at 0.75 after 400 tokens, where x is by then as well.
  assert y['caught_up_after'] == [1.0] * 3 and '100% of its tokens' in row
  assert '- commit: abc' in text and '- <b>' in text
  with pytest.raises(ValueError, match=r"names \['z'\]"):
    comparison.group_score(comparison.read(tmp_path / 'x-0'), ['z'])
  page = (tmp_path / 'comparison.html').read_text()
  assert '<script>' not in page and '&lt;script&gt;' in page
  assert '&lt;b&gt;' in page and 'abc' in page


def test_a_run_that_is_not_finished_is_said(tmp_path):
  with pytest.raises(ValueError, match='not a finished run'):
    comparison.read(tmp_path)


def test_sign_flip_counts_every_way_to_turn_the_signs():
  rng = np.random.default_rng(0)
  for n in (1, 4, 7):
    values = rng.normal(0.5, 1, n)
    as_far = [
      abs(np.dot(signs, values)) >= abs(values.sum()) - 1e-12
      for signs in itertools.product((1, -1), repeat=n)
    ]
    assert intervals.sign_flip(values) == np.mean(as_far)
  assert intervals.sign_flip([0.1] * 5) == 2 / 32
  with pytest.raises(ValueError, match='0 pairs'):
    intervals.sign_flip([])
