"""The table of a plan: by hand, from files, escaped."""

import dataclasses
import itertools
import json

import numpy as np
import pytest

from ioa_jax import records
from ioa_jax.evaluation import intervals
from ioa_jax.experiments import comparison


def module(teacher, student, status):
  return records.ModuleDiagnosis(
    description='',
    prerequisites=(),
    level=0,
    teacher=records.Score(teacher, 10),
    student=records.Score(student, 10),
    student_loss=None,
    teacher_loss=None,
    teacher_ci95=None,
    student_ci95=None,
    gap=None,
    severity=None,
    status=status,
  )


def probe(**correct):
  return records.Probing(
    event='probe',
    step=1,
    stage=0,
    round=0,
    decision='stay',
    scores={k: records.Score(c, 10) for k, c in correct.items()},
    reopened=(),
  )


def train(tokens):
  return records.Training('train', 1, 0, 0.5, 0.1, 0.01, tokens)


def result(after, teacher, loss):
  return records.ModuleResult(teacher, 0.0, after, (0.0, 1.0), 10, None, loss)


def stage(kind, outcome, rounds):
  return records.StageResult(('b',), (), kind, 10, rounds, outcome)


MODULES = {
  'a': module(10, 10, 'known'),
  'b': module(8, 0, 'target'),
  'c': module(0, 0, 'unteachable'),
}


def write_run(directory, seed, after, retention, events, modules=MODULES):
  diagnosis = records.Diagnosis(
    domain='test',
    modules=modules,
    dependency=records.Dependency('given', '', (), (), {}, ()),
    thresholds=records.Thresholds(0.3, 0.7, 1.0),
    wrong_answers={},
    difficulty=None,
    teacher_held_out={},
    tokens={},
    seconds=1.0,
  )
  results = records.Results(
    domain='test',
    method='ioa',
    answer_format='steps',
    teacher=records.TeacherResult('t', 10, 0.9),
    student=records.StudentResult('s', 1, 0.1, 0.8),
    retention=retention,
    verdict=records.Verdict('better', 0.5, (0.4, 0.6), ()),
    modules={
      'a': result(after[0], 1.0, 0.5),
      'b': result(after[1], 0.8, 1 - after[1]),
    },
    stages=(
      stage('teach', 'mastered', 1),
      stage('consolidate', 'not_reached', 0),
    ),
    reopened={},
    forgetting=(
      records.Recall(0, 1, {'a': 1.0, 'b': 0.2}),
      records.Recall(1, 2, {'a': 0.6, 'b': 0.8}),
    ),
    tokens=records.TokenCounts(1000, 50, 0, 0, 300, 20),
    lessons=5,
    steps=records.Steps(planned=1000, taken=1000, exported=1000),
    compilations=1,
    seconds={'train': 1.5, 'evaluate': 0.5},
    config_sha256='',
    seed=seed,
  )
  directory.mkdir()
  (directory / 'diagnosis.json').write_text(diagnosis.to_json())
  (directory / 'results.json').write_text(results.to_json())
  config = {'gate': {'tau_mastery': 0.9}}
  (directory / 'config.json').write_text(json.dumps(config))
  lines = ''.join(e.to_json() + '\n' for e in events)
  (directory / 'metrics.jsonl').write_text(lines)


EVENTS = [
  train(400),
  probe(b=4),
  train(700),
  probe(b=8),
  train(1000),
  probe(a=9, b=6),
]


@pytest.mark.parametrize(
  'events,at',
  [
    # One round must find all of them: b alone, then d alone, is not that.
    ([train(10), probe(b=8), train(20), probe(d=10)], None),
    ([train(10), probe(b=8, d=8), train(20), probe(b=7, d=10)], None),
    ([train(10), probe(b=7, d=10), train(20), probe(b=8, d=9)], 20),
    # It stays where it was first seen, whatever falls later.
    ([train(10), probe(b=8, d=9), train(20), probe(b=0, d=0)], 10),
    ([], None),
  ],
)
def test_all_is_mastered_when_one_round_finds_all_of_it(tmp_path, events, at):
  modules = MODULES | {'d': module(10, 2, 'deficient')}
  write_run(tmp_path / 'r', 0, (1.0, 0.6), 0.9, events, modules)
  assert comparison.read(tmp_path / 'r').mastered_at == at


def test_where_nothing_was_deficient_nothing_is_mastered(tmp_path):
  modules = {'a': MODULES['a']}
  events = [train(10), probe(a=10)]
  write_run(tmp_path / 'r', 0, (1.0, 0.6), 0.9, events, modules)
  assert comparison.read(tmp_path / 'r').mastered_at is None


def test_a_curve_keeps_what_was_not_probed(tmp_path):
  write_run(tmp_path / 'r', 0, (1.0, 0.6), 0.9, EVENTS)
  run = comparison.read(tmp_path / 'r')
  # The module that cannot be taught is no part of the mean.
  assert run.curve == [(0, 0.5), (400, 0.75), (700, 1.0), (1000, 0.825)]
  assert run.mastered_at == 700
  first = run.results.forgetting[:1]
  once = dataclasses.replace(run.results, forgetting=first)
  assert comparison.forgotten(dataclasses.replace(run, results=once)) is None
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
    title='t',
    says='<script>',
    untried=['<b>'],
    groups={'deep': ['b']},
    provenance={'commit': 'abc'},
  )
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
  with pytest.raises(ValueError, match='none of config.json'):
    comparison.read(tmp_path)
  (tmp_path / 'config.json').write_text('{}')
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
