"""The adapter for text: what it asks, and what it lets become a lesson."""

import json
import pathlib

import pytest

from ioa_jax.adapter import Level, prompts, text_lessons
from ioa_jax.domains import text
from ioa_jax.evaluation import final_answers, sandbox
from ioa_jax.records import DIFFICULTIES, KnowledgeModule, Seed
from ioa_jax.teachers.requests import Completion, schema_text
from tests import word_problem_teacher
from tests.test_text_domain import COLUMNS, rows

GOLDEN = pathlib.Path(__file__).parent / 'golden'
MODULE = KnowledgeModule('algebra/linear', 'ax + b = c', ('algebra/sums',), 1)
SEED = Seed('algebra/linear', 'Solve 2x + 1 = 7.', '3')
WRONG = [{'prompt': 'Solve 3x = 9.', 'answer': '3', 'student': 'x\n' * 400}]


class Characters:
  """A codec with one token for each character."""

  stop_tokens = (0,)
  prompt_bucket = 16
  control_texts = ('<|end|>',)

  def prompt(self, text, system=''):
    return [ord(c) for c in text]

  answer = prompt


def adapter(domain=None, grader=None, **changes):
  grader = grader or final_answers.Number()
  domain = domain or text.TextDomain(
    rows(50), None, columns=COLUMNS, grader=grader, min_probes=2, max_probes=9
  )
  settings = dict(
    description='to add', teacher='t', max_tokens=50, temperature=0.7,
    strategies=tuple(prompts.STRATEGIES), confirm_samples=3, seeds_per_module=4,
    per_seed={'stage': 3, 'remedial': 1, 'bridging': 3, 'rehearsal': 1},
    row_length=200, near_duplicate=0.8, benchmarks={},
    personas=('a clown', 'a judge'),
  )  # fmt: skip
  return text_lessons.TextAdapter(
    domain, grader, Characters(), **(settings | changes)
  )


def draft(**changes):
  value = word_problem_teacher.draft(
    'a/b', 'Tim has 4 red cars and 5 blue ones. How many?',
    ['First, add 4 and 5.'], '9',
  )  # fmt: skip
  return value | changes


@pytest.mark.parametrize('kind', ['stage', 'remedial', 'bridging'])
def test_prompts_are_what_the_golden_files_say(kind):
  system, user = prompts.lesson(
    MODULE, SEED, domain='algebra', kind=kind, form='value',
    difficulty='intermediate', persona='a coach',
    strategies=tuple(prompts.STRATEGIES), stage=1, variant=3,
    level=Level(0.25, WRONG),
  )  # fmt: skip
  got = f'{system}\n=====\n{user}\n'
  assert got == (GOLDEN / f'{kind}.txt').read_text(), (
    'the prompt changed: if it should, python -m tests.test_text_lessons'
  )


def test_each_strategy_has_its_own_switch():
  for off in prompts.STRATEGIES:
    on = [s for s in prompts.STRATEGIES if s != off]
    (item, *_) = adapter(strategies=on).plan(
      'a/b', 'stage', stage=0, round=0, level=Level()
    )
    for strategy, sentence in prompts.STRATEGIES.items():
      assert (sentence in item.request.system) == (strategy != off)


def test_requests_climb_in_difficulty_and_never_repeat():
  items = adapter().plan('a/b', 'stage', stage=0, round=0, level=Level())
  assert len({i.request.key() for i in items}) == len(items) == 12
  levels = [
    next(d for d in DIFFICULTIES if f'Difficulty: {d}' in i.request.prompt)
    for i in items
  ]
  assert levels == sorted(levels, key=DIFFICULTIES.index)
  assert len(set(levels)) == 3
  again = adapter().plan('a/b', 'remedial', stage=0, round=1, level=Level())
  later = adapter().plan('a/b', 'remedial', stage=0, round=2, level=Level())
  assert not {i.request.key() for i in again} & {i.request.key() for i in later}


@pytest.mark.parametrize(
  'kind,score,first',
  [
    ('stage', 0.49, 0), ('stage', 0.5, 1), ('stage', 0.8, 2), ('stage', 1.0, 2),
    ('bridging', 0.9, 0), ('rehearsal', 0.9, 0), ('remedial', 0.9, 0),
  ],
)  # fmt: skip
def test_requests_begin_at_the_level_of_the_student(kind, score, first):
  items = adapter().plan('a/b', kind, stage=0, round=0, level=Level(score))
  assert f'Difficulty: {DIFFICULTIES[first]}' in items[0].request.prompt
  last = 'introductory' if kind in ('remedial', 'rehearsal') else 'advanced'
  assert f'Difficulty: {last}' in items[-1].request.prompt
  assert len({i.request.key() for i in items}) == len(items)


def write(answers, solutions, earlier=(), **changes):
  """Lessons from scripted answers; `solutions` are those of each draft."""
  a = adapter(**changes)
  items = a.plan('a/b', 'stage', stage=0, round=0, level=Level())
  done = lambda text: Completion(text, 'stop', 1, 1)

  def ask(requests, response_model=None):
    if response_model:
      return [
        x if isinstance(x, Completion) else done(x) for x in answers
      ]  # fmt: skip
    assert all(not r.response_schema for r in requests)
    return [done(s) for group in solutions for s in group]

  return a.write(items[: len(answers)], ask, earlier)


RIGHT, FALSE = 'The answer is 9.', 'The answer is 8.'


def test_a_majority_of_independent_solutions_confirms():
  good = json.dumps(draft())
  for solutions, kept in (
    ([RIGHT, RIGHT, FALSE], 1), ([RIGHT, FALSE, FALSE], 0),
    ([FALSE] * 3, 0), (['no idea'] * 3, 0),
  ):  # fmt: skip
    lessons, rejected = write([good], [solutions])
    assert len(lessons) == kept
    assert dict(rejected) == ({} if kept else {'unconfirmed': 1})
  lesson = write([good], [[RIGHT] * 3])[0][0]
  assert lesson.completion == 'First, add 4 and 5.\nThe answer is 9.'
  assert lesson.solution['verification'] == (
    '3 of 3 independent solutions agree'
  )


def test_a_code_lesson_needs_tests_that_prove_and_code_that_passes_them():
  try:
    grader = final_answers.Code()
  except sandbox.SandboxUnavailable as e:
    pytest.skip(str(e))
  seeds = [
    (f'f:{n}', {'module': 'a/b', 'problem': f'Write g{n}(x): x times {n + 2}.',
                'solution': 'code', 'answer': f'assert g{n}(1) == {n + 2}'})
    for n in range(50)
  ]  # fmt: skip
  domain = text.TextDomain(
    seeds, None, grader=grader, min_probes=2, max_probes=9,
    columns={k: k for k in text.COLUMNS},
  )  # fmt: skip
  tests = 'assert double(2) == 4\nassert double(-3) == -6'

  def lesson(code, tests):
    return json.dumps(draft(
      problem='Write double(x): double(2) is 4 and double(-3) is -6.',
      solution={'steps': ['First, multiply.'], 'final_answer': code,
                'verification': tests},
    ))  # fmt: skip

  right = 'def double(x):\n  return 2 * x'
  fenced = '```python\n{}\n```'.format
  for code, checks, independent, outcome in (
    (right, tests, right, {}),
    (right, fenced(tests), right, {}),
    (right, tests, 'def double(x):\n  return 4', {'unconfirmed': 1}),
    ('def double(x):\n  return 4', tests, right, {'no_answer': 1}),
    (right, 'assert double(0) == 0', right, {'proves_nothing': 1}),
    (right, 'I ran it.', right, {'no_answer': 1}),
  ):
    _, rejected = write(
      [lesson(code, checks)], [[fenced(independent)]], domain=domain,
      grader=grader, confirm_samples=1, row_length=2000,
    )  # fmt: skip
    assert dict(rejected) == outcome, (code, checks)
  (kept,) = write(
    [lesson(right, tests)], [[fenced(right)]], domain=domain, grader=grader,
    confirm_samples=1, row_length=2000,
  )[0]  # fmt: skip
  assert kept.completion == f'First, multiply.\n{fenced(right)}'
  assert kept.solution['verification'] == (
    '1 of 1 independent solutions agree with tests that trivial functions '
    f'fail:\n{tests}'
  )


def test_an_item_of_a_benchmark_is_no_lesson():
  leak = 'Ben has twelve old books and sells four of them today.'
  lessons, rejected = write(
    [json.dumps(draft(problem=f'{leak} How many are left?'))], [[RIGHT] * 3],
    benchmarks={'gsm8k': [leak]},
  )  # fmt: skip
  assert not lessons and rejected == {'contaminated': 1}


def test_personas_write_in_turn():
  items = adapter().plan('a/b', 'stage', stage=0, round=0, level=Level())
  assert [('clown' in i.request.system, 'judge' in i.request.system)
          for i in items[:3]] == [(1, 0), (0, 1), (1, 0)]  # fmt: skip
  (item, *_) = adapter(personas=()).plan(
    'a/b', 'stage', stage=0, round=0, level=Level()
  )
  assert 'Write as' not in item.request.system


def test_half_of_the_solutions_is_no_majority():
  lessons, rejected = write(
    [json.dumps(draft())], [[RIGHT, FALSE]], confirm_samples=2
  )
  assert not lessons and rejected == {'unconfirmed': 1}


@pytest.mark.parametrize(
  ('answer', 'reason'),
  [
    ('no', 'schema'),
    ('[' * 5000, 'schema'),
    (json.dumps(draft(difficulty_tag='hard')), 'schema'),
    (json.dumps({k: v for k, v in draft().items() if k != 'prereq'}), 'schema'),
    (json.dumps(draft(module='a/c')), 'off_stage'),
    (json.dumps(draft(solution=draft()['solution'] | {'final_answer': 'x'})),
     'no_answer'),
    (json.dumps(draft(problem='Say <|end|> to 4 and 5.')), 'control_token'),
    (json.dumps(draft(solution=draft()['solution'] | {'steps': ['#### 8']})),
     'no_answer'),
    (json.dumps(draft(prereq=['\ud800'])), 'schema'),
    (Completion('', 'length', 1, 9), 'length'),
    (Completion('', 'content_filter', 1, 9), 'content_filter'),
  ],
)  # fmt: skip
def test_unusable_answers_are_counted_by_reason(answer, reason):
  lessons, rejected = write([answer], [])
  assert not lessons and rejected == {reason: 1}


def test_nearly_json_is_repaired():
  text = '```json\n' + json.dumps(draft())[:-1] + ',}\n```'
  lessons, _ = write([text], [[RIGHT] * 3])
  assert len(lessons) == 1
  # Also what a server's answer was discarded for.
  served = Completion('', 'schema', 1, 1, discarded=text)
  assert len(write([served], [[RIGHT] * 3])[0]) == 1


def test_the_schema_is_pinned():
  """It is part of every request's key: a change pays for all lessons again."""
  assert schema_text(text_lessons.Draft) == (GOLDEN / 'schema.json').read_text()


def test_repetitions_probes_and_long_lessons_are_left_out():
  good = json.dumps(draft())
  probe = adapter()._domain.probes('gate', '')[0].prompt
  shown = json.dumps(draft(problem=probe))
  long = json.dumps(draft(problem='How many? ' * 30))
  lessons, rejected = write([good, good, shown, long], [[RIGHT] * 3] * 4)
  assert len(lessons) == 1
  assert rejected == {'near_duplicate': 1, 'contaminated': 1, 'too_long': 1}
  # Also against what earlier calls kept.
  _, rejected = write([good], [[RIGHT] * 3], earlier=lessons)
  assert rejected == {'near_duplicate': 1}


if (
  __name__ == '__main__'
):  # Writes the golden files anew, to be read in a diff.
  GOLDEN.mkdir(exist_ok=True)
  for kind in ('stage', 'remedial', 'bridging'):
    system, user = prompts.lesson(
      MODULE, SEED, domain='algebra', kind=kind, form='value',
    difficulty='intermediate', persona='a coach',
      strategies=tuple(prompts.STRATEGIES), stage=1, variant=3,
      level=Level(0.25, WRONG),
    )  # fmt: skip
    (GOLDEN / f'{kind}.txt').write_text(f'{system}\n=====\n{user}\n')
  (GOLDEN / 'schema.json').write_text(schema_text(text_lessons.Draft))
