"""The table of a plan: by hand, from files, escaped."""

import dataclasses
import json

import pytest

from ioa_jax import records
from ioa_jax.experiments import comparison, comparison_page


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
    teacher_grades={},
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
    grades={
      f'held_out/{name}/{i}': records.Grades(
        float(i < round(10 * teacher)), 0.0, float(i < round(10 * share))
      )
      for name, teacher, share in (('a', 1.0, after[0]), ('b', 0.8, after[1]))
      for i in range(10)
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


def test_a_curve_is_of_whole_rounds_and_never_of_an_older_student(tmp_path):
  modules = MODULES | {'d': module(10, 2, 'deficient')}
  events = [
    train(400),
    probe(b=4, d=10),
    train(700),
    # d was not asked: its 1.0 is of the student of 400 tokens.
    probe(b=8),
    train(1000),
    probe(a=9, b=6, d=5),
  ]
  write_run(tmp_path / 'r', 0, (1.0, 0.6), 0.9, events, modules)
  run = comparison.read(tmp_path / 'r')
  # What was known, or cannot be taught, is no part of the mean.
  want = [(0, 0.1), (400, 0.75), (1000, (0.75 + 0.5) / 2)]
  assert [t for t, _ in run.curve] == [t for t, _ in want]
  assert [v for _, v in run.curve] == pytest.approx([v for _, v in want])
  assert run.mastered_at is None
  first = run.results.forgetting[:1]
  once = dataclasses.replace(run.results, forgetting=first)
  assert comparison.forgotten(dataclasses.replace(run, results=once)) is None
  # From the best to the last: 0.4 of a, nothing of b.
  assert comparison.forgotten(run) == pytest.approx(0.2)
  grid = dict(comparison.curve([run]))
  at = lambda t: grid[max(g for g in grid if g <= t)]
  assert (at(399), at(900)) == pytest.approx((0.1, 0.75))


def test_catching_up_is_in_tokens_of_the_other():
  run = lambda *curve: comparison.Run(0, {}, list(curve), None)
  other = run((0, 0.1), (500, 0.7), (1000, 0.6))
  fast = run((0, 0.1), (250, 0.6), (1000, 0.5))
  assert comparison.caught_up_after(fast, other) == 0.25
  assert comparison.caught_up_after(run((0, 0.1), (9, 0.5)), other) is None


def test_paired_differences_and_gains(tmp_path):
  for seed, (mine, theirs) in enumerate([(0.8, 0.4), (0.7, 0.4), (0.8, 0.3)]):
    write_run(tmp_path / f'x-{seed}', seed, (1, mine), 0.9, EVENTS)
    write_run(tmp_path / f'y-{seed}', seed, (1, theirs), 0.6, EVENTS[:2])
  found = comparison.write(
    tmp_path,
    [(n, tmp_path / f'{n}-{s}') for s in range(3) for n in 'xy'],
    comparison.About(
      title='t',
      says='<script>',
      rivals=(),
      untried=['<b>'],
      groups={'deep': ['b']},
      provenance={'commit': 'abc'},
    ),
  )
  y = found['summary']['y']
  behind = y['scores']['retention']['behind_first']
  # Of b alone, beside a teacher of (1.0 + 0.8) / 2.
  assert behind['by_seed'] == pytest.approx([0.4 / 1.8, 0.3 / 1.8, 0.5 / 1.8])
  assert behind['mean'] == pytest.approx(0.4 / 1.8)
  assert 0 < behind['ci95'][0] < 0.4 / 1.8 < behind['ci95'][1]
  # All three in one direction: 2 of the 8 ways to swap are as far.
  assert y['scores']['retention']['p'] == 0.25
  gain = y['scores']['deep']['relative_gain_of_first']
  assert gain['mean'] == pytest.approx((2.3 - 1.1) / 1.1)
  assert y['all_mastered_at'] == [None] * 3
  assert y['held_out_loss']['mean'] == pytest.approx(
    (0.5 + (0.6 + 0.6 + 0.7) / 3) / 2
  )
  assert (tmp_path / 'table.json').exists()
  text = (tmp_path / 'table.md').read_text()
  rows = ''.join(x for x in text.splitlines() if x.startswith('| y |'))
  assert 'never (0 of 3)' in rows and '+109.1%' in rows
  # It stands at 0.5 after 400 tokens, where x is by then as well.
  assert y['caught_up_after'] == [1.0] * 3 and '100% of its tokens' in rows
  # The interval leaves out 0, and three seeds cannot say more than p = 0.25.
  assert 'x is not told apart from y, the best of y, on the deep' in text
  assert '- commit: abc' in text and '- <b>' in text
  with pytest.raises(ValueError, match=r"names \['z'\]"):
    comparison.scores_of([comparison.read(tmp_path / 'x-0')], ['z'])
  page = (tmp_path / 'comparison.html').read_text()
  assert '<script>' not in page and '&lt;script&gt;' in page
  assert '&lt;b&gt;' in page and 'abc' in page


def test_the_page_says_first_that_its_runs_are_older(tmp_path):
  for name in 'xyz':
    write_run(tmp_path / name, 0, (1, {'z': 0.8}.get(name, 0.4)), 0.9, EVENTS)
  about = comparison.About(
    title='t',
    says='?',
    rivals=('y', 'not run'),
    untried=(),
    groups={},
    provenance={'commit of the runs': 'abc', 'commit of this page': 'def'},
  )
  comparison.write(tmp_path, [(n, tmp_path / n) for n in 'xyz'], about)
  lines = (tmp_path / 'table.md').read_text().splitlines()
  assert lines[2] == 'The runs are of commit abc, this page of def.'
  # z scores higher and is no rival; with one seed nothing is shown.
  assert lines[4].startswith('x is not told apart from y, the best of y, on')
  found = {'provenance': about.provenance | {'commit of the runs': 'def'}}
  assert comparison_page.stale(found) == ''


def test_runs_that_were_asked_other_probes_are_not_compared(tmp_path):
  write_run(tmp_path / 'x', 0, (1, 0.8), 0.9, EVENTS)
  run = comparison.read(tmp_path / 'x')
  grades = {
    k.replace('held_out', 'development'): v
    for k, v in run.results.grades.items()
  }
  other = dataclasses.replace(
    run, results=dataclasses.replace(run.results, grades=grades)
  )
  with pytest.raises(ValueError, match='were asked other probes'):
    comparison.scores_of([run, other], ['a'])


def test_a_run_that_is_not_finished_is_said(tmp_path):
  with pytest.raises(ValueError, match='none of config.json'):
    comparison.read(tmp_path)
  (tmp_path / 'config.json').write_text('{}')
  with pytest.raises(ValueError, match='not a finished run'):
    comparison.read(tmp_path)
