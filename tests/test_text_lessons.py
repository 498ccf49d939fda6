"""The adapter for text: what it asks, and what it lets become a lesson."""

import dataclasses
import json
import pathlib

import pytest

from ioa_jax.adapter import (
  Amounts,
  Level,
  examiner,
  levels,
  practice,
  prompts,
  rejections,
  text_lessons,
)
from ioa_jax.domains import text
from ioa_jax.evaluation import final_answers, judging, sandbox
from ioa_jax.identifier.decomposition import Asking
from ioa_jax.records import DIFFICULTIES, KnowledgeModule, Rejected, Seed
from ioa_jax.teachers.requests import Completion, schema_text
from tests import word_problem_teacher
from tests.test_text_domain import COLUMNS, rows

GOLDEN = pathlib.Path(__file__).parent / 'golden'
MODULE = KnowledgeModule('algebra/linear', 'ax + b = c', ('algebra/sums',), 1)
SEED = Seed('algebra/linear', 'Solve 2x + 1 = 7.', '3')
WRONG = [{'prompt': 'Solve 3x = 9.', 'answer': '3', 'student': 'x\n' * 400}]


AMOUNTS = Amounts(
  seeds_per_module=4,
  items_per_seed=3,
  rehearsal_items_per_seed=1,
  remedial_items_per_seed=1,
)


class Characters:
  """A codec with one token for each character."""

  stop_tokens = (0,)
  prompt_bucket = 16
  control_texts = ('<|end|>',)

  def prompt(self, text, system=''):
    return [ord(c) for c in text]

  answer = prompt


def adapter(domain=None, grader=None, judge=None, **changes):
  grader = grader or final_answers.Number()
  domain = domain or text.TextDomain(
    rows(50), None, columns=COLUMNS, grader=grader, min_probes=2, max_probes=9
  )
  settings = {
    'description': 'to add',
    'strategies': tuple(prompts.STRATEGIES),
    'personas': ('a clown', 'a judge'),
    'confirm_samples': 3,
    'near_duplicate': 0.8,
    'contamination': 'wording',
    'benchmarks': {},
    'row_length': 200,
  } | changes
  of = lambda kind: kind(
    **{f.name: settings[f.name] for f in dataclasses.fields(kind)}
  )
  return text_lessons.TextAdapter(
    domain,
    examiner.Examiner(
      domain,
      grader,
      Characters(),
      Asking('t', 50, 0.7),
      of(examiner.Checks),
      judge,
    ),
    style=of(prompts.Style),
    amounts=AMOUNTS,
  )


def draft(**changes):
  value = word_problem_teacher.draft(
    'a/b',
    'Tim has 4 red cars and 5 blue ones. How many?',
    ['First, add 4 and 5.'],
    '9',
  )
  return value | changes


def rendered(kind):
  style = prompts.Style(
    description='algebra',
    strategies=tuple(prompts.STRATEGIES),
    personas=('a coach',),
  )
  user = prompts.lesson(
    MODULE,
    SEED,
    kind=kind,
    form='value',
    difficulty=levels.Scale((1, 9, 40, 1234567)).difficulty('advanced'),
    stage=1,
    variant=3,
    level=Level(0.25, WRONG),
  )
  return f'{style.system(3)}\n=====\n{user}\n'


@pytest.mark.parametrize('kind', ['stage', 'remedial', 'bridging'])
def test_prompts_are_what_the_golden_files_say(kind):
  assert rendered(kind) == (GOLDEN / f'{kind}.txt').read_text(), (
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
    ('stage', 0.49, 0),
    ('stage', 0.5, 1),
    ('stage', 0.8, 2),
    ('stage', 1.0, 2),
    ('bridging', 0.49, 0),
    ('bridging', 0.5, 1),
    ('bridging', 0.9, 2),
    ('rehearsal', 0.9, 0),
    ('remedial', 0.9, 2),
  ],
)
def test_requests_begin_at_the_level_of_the_student(kind, score, first):
  items = adapter().plan('a/b', kind, stage=0, round=0, level=Level(score))
  assert f'Difficulty: {DIFFICULTIES[first]}' in items[0].request.prompt
  # A bridge is one notch; all others reach what is examined.
  last = DIFFICULTIES[first] if kind == 'bridging' else 'advanced'
  assert f'Difficulty: {last}' in items[-1].request.prompt
  assert len({i.request.key() for i in items}) == len(items)


def write(answers, solutions, earlier=(), **changes):
  """Lessons from scripted answers; `solutions` are those of each draft."""
  a = adapter(**changes)
  items = a.plan('a/b', 'stage', stage=0, round=0, level=Level())
  done = lambda text: Completion(text, 'stop', 1, 1)

  def ask(requests, response_model=None):
    if response_model:
      return [x if isinstance(x, Completion) else done(x) for x in answers]
    assert all(not r.response_schema for r in requests)
    return [done(s) for group in solutions for s in group]

  lessons, rejected = a.write(items[: len(answers)], ask, earlier)
  return lessons, rejections.count(rejected)


RIGHT, FALSE = 'The answer is 9.', 'The answer is 8.'


def test_a_majority_of_independent_solutions_confirms():
  good = json.dumps(draft())
  for solutions, kept in (
    ([RIGHT, RIGHT, FALSE], 1),
    ([RIGHT, FALSE, FALSE], 0),
    ([FALSE] * 3, 0),
    (['no idea'] * 3, 0),
  ):
    lessons, rejected = write([good], [solutions])
    assert len(lessons) == kept
    assert dict(rejected) == ({} if kept else {'unconfirmed': 1})
  lesson = write([good], [[RIGHT] * 3])[0][0]
  assert lesson.completion == 'First, add 4 and 5.\nThe answer is 9.'
  assert lesson.solution['verification'] == (
    '3 of 3 independent solutions agree'
  )


class Knowing(judging.Judge):
  """A judge that prefers what it knows to be right."""

  name = 'knowing'

  def __init__(self, *right):
    self._right = right

  def compare(self, pairs):
    places = [
      (1 + (p.candidate in self._right) - (p.reference in self._right)) / 2
      for p in pairs
    ]
    return [judging.Judgement(x, x) for x in places]


def test_overlap_confirms_no_open_lesson_where_there_is_a_judge():
  pytest.importorskip('rouge_score', reason='needs the extra "eval"')
  true = 'The sky is blue because air scatters blue light more than red.'
  false = 'The sky is blue because air scatters red light more than blue.'
  other = 'Short waves are deflected by molecules, and long ones pass.'
  grader = final_answers.RougeL()
  assert grader.is_correct(false, true) and not grader.is_correct(other, true)
  judge = Knowing(true, other)
  for answer, by_overlap, by_judge in (
    (true, 1, 1),
    (false, 1, 0),
    (other, 0, 1),
  ):
    value = draft()
    value['solution']['final_answer'] = answer
    for who, kept in ((None, by_overlap), (judge, by_judge)):
      lessons, _ = write(
        [json.dumps(value)], [[true] * 3], grader=grader, judge=who
      )
      assert len(lessons) == kept, (answer, who)
      if who:
        said = [x.solution['verification'] for x in lessons]
        assert (
          said
          == ['knowing prefers it or a tie to 3 of 3 independent solutions']
          * kept
        )


def test_a_code_lesson_needs_tests_that_prove_and_code_that_passes_them():
  try:
    grader = final_answers.Code()
  except sandbox.SandboxUnavailable as e:
    pytest.skip(str(e))
  seeds = [
    (
      f'f:{n}',
      {
        'module': 'a/b',
        'problem': f'Write g{n}(x): x times {n + 2}.',
        'solution': 'code',
        'answer': f'assert g{n}(1) == {n + 2}',
      },
    )
    for n in range(50)
  ]
  domain = text.TextDomain(
    seeds,
    None,
    grader=grader,
    min_probes=2,
    max_probes=9,
    columns={k: k for k in text.COLUMNS},
  )
  tests = 'assert double(2) == 4\nassert double(-3) == -6'

  def lesson(code, tests):
    return json.dumps(
      draft(
        problem='Write double(x): double(2) is 4 and double(-3) is -6.',
        solution={
          'steps': ['First, multiply.'],
          'final_answer': code,
          'verification': tests,
        },
      )
    )

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
      [lesson(code, checks)],
      [[fenced(independent)]],
      domain=domain,
      grader=grader,
      confirm_samples=1,
      row_length=2000,
    )
    assert dict(rejected) == outcome, (code, checks)
  (kept,) = write(
    [lesson(right, tests)],
    [[fenced(right)]],
    domain=domain,
    grader=grader,
    confirm_samples=1,
    row_length=2000,
  )[0]
  assert kept.completion == f'First, multiply.\n{fenced(right)}'
  assert kept.solution['verification'] == (
    '1 of 1 independent solutions agree with tests that trivial functions '
    f'fail:\n{tests}'
  )


def test_an_item_of_a_benchmark_is_no_lesson():
  leak = 'Ben has twelve old books and sells four of them today.'
  lessons, rejected = write(
    [json.dumps(draft(problem=f'{leak} How many are left?'))],
    [[RIGHT] * 3],
    benchmarks={'gsm8k': [leak]},
  )
  assert not lessons and rejected == {'contaminated': 1}


def test_personas_write_in_turn():
  items = adapter().plan('a/b', 'stage', stage=0, round=0, level=Level())
  assert [
    ('clown' in i.request.system, 'judge' in i.request.system)
    for i in items[:3]
  ] == [(1, 0), (0, 1), (1, 0)]
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
    (
      json.dumps(draft(solution=draft()['solution'] | {'final_answer': 'x'})),
      'no_answer',
    ),
    (json.dumps(draft(problem='Say <|end|> to 4 and 5.')), 'control_token'),
    (
      json.dumps(draft(solution=draft()['solution'] | {'steps': ['#### 8']})),
      'no_answer',
    ),
    (json.dumps(draft(prereq=['\ud800'])), 'schema'),
    (Completion('', 'length', 1, 9), 'length'),
    (Completion('', 'content_filter', 1, 9), 'content_filter'),
  ],
)
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


def scripted(drafts, solution=RIGHT):
  """An `ask` of one teacher: its lessons in turn, and one solution for all."""
  done = lambda text: Completion(text, 'stop', 1, 1)

  def ask(requests, response_model=None):
    if response_model is None:
      return [done(solution)] * len(requests)
    return list(map(done, drafts))

  return ask


def different(count):
  things = ('cars', 'hats', 'dogs', 'keys', 'jars', 'maps')
  return [
    json.dumps(draft(problem=f'Tim has 4 red {x} and 5 blue {x}. How many?'))
    for x in things[:count]
  ]


def test_what_is_kept_depends_on_the_lessons_handed_in_alone():
  """Not on what the adapter wrote before, for a panel or before a restart."""
  a = adapter()
  items = a.plan('a/b', 'rehearsal', stage=0, round=0, level=Level())
  ask = scripted(different(4))
  panel, _ = a.write(items, ask, [])
  assert len(panel) == 4
  student, _ = a.write(items, ask, [])
  assert student == panel
  # And whatever comes between, the same record has the same outcome.
  for earlier in (panel[:2], panel, [], panel[2:], panel[:1]):
    kept, left_out = a.write(items, ask, earlier)
    fresh, fresh_left_out = adapter().write(items, ask, earlier)
    assert kept == fresh and left_out == fresh_left_out
    assert len(kept) == 4 - len(earlier)


def test_rehearsals_are_the_same_requests_for_every_student():
  """What the learner panel paid for, the run does not pay for again."""
  keys = [
    {
      item.request.key()
      for item in adapter().plan(
        'a/b', 'rehearsal', stage=0, round=0, level=level
      )
    }
    for level in (Level(), Level(0.25), Level(0.9, WRONG))
  ]
  assert keys[0] == keys[1] == keys[2] and len(keys[0]) == 4


def test_a_remedial_request_never_shows_a_probe():
  a = adapter()
  probes = [p for s in ('gate', 'held_out') for p in a._domain.probes(s, '')]
  practised = practice.items(a._domain, 'a/b', round=1, count=3)
  wrong = [
    {'prompt': p.prompt, 'answer': p.answer, 'student': 'I think 0.'}
    for p in [*probes, *practised]
  ]
  items = a.plan('a/b', 'remedial', stage=0, round=1, level=Level(0.1, wrong))
  for item in items:
    lines = item.request.prompt.splitlines()
    assert not {f'- Problem: {p.prompt}' for p in probes} & set(lines)
    assert {f'- Problem: {p.prompt}' for p in practised} <= set(lines)


def test_practice_is_of_training_seeds_and_others_in_each_round():
  domain = adapter()._domain
  seeds = {s.problem: s.answer for s in domain.seeds('a/b', 999)}
  rounds = [practice.items(domain, 'a/b', round=r, count=8) for r in range(5)]
  shown = [p.prompt for items in rounds for p in items]
  assert len(set(shown)) == len(shown) == 40 == len(seeds)
  assert all(seeds[p.prompt] == p.answer for items in rounds for p in items)
  assert practice.items(domain, 'a/b', round=5, count=8) == rounds[0]
  assert len(practice.items(domain, 'a/b', round=0, count=99)) == 40


def test_a_remedial_lesson_that_repeats_what_was_practised_is_left_out():
  wrong = [
    {
      'prompt': 'Ann has 4 old cups and 5 new cups. How many?',
      'answer': '9',
      'student': '8',
    }
  ]
  a = adapter()
  items = a.plan('a/b', 'remedial', stage=0, round=1, level=Level(0, wrong))
  texts = [
    'Tom has 4 old pens and 5 new pens. How many?',
    'Tom has 4 red cars and gives away none, then finds 5. How many are his?',
  ]
  drafts = [json.dumps(draft(problem=text)) for text in texts]
  kept, left_out = a.write(items[:2], scripted(drafts), [])
  assert [x.problem for x in kept] == texts[1:]
  assert rejections.count(left_out) == {'repeats_practice': 1}


def test_a_control_character_is_in_no_kept_lesson():
  for character, outcome in (('\x0c', 1), ('\x1b', 1), ('\n', 0), ('\t', 0)):
    text = f'Tim has 4 red cars {character} and 5 blue ones. How many?'
    _, rejected = write([json.dumps(draft(problem=text))], [[RIGHT] * 3])
    assert rejected == ({'schema': 1} if outcome else {})


def test_rejections_are_kept_with_their_text_and_counted_by_module():
  a = adapter()
  items = a.plan('a/b', 'stage', stage=2, round=1, level=Level())[:4]
  good = draft()
  drafts = [
    'I would rather not.',
    json.dumps(good),
    json.dumps(good),
    json.dumps(draft(prereq=['\ud800'])),
  ]
  kept, left_out = a.write(items, scripted(drafts), [])
  assert len(kept) == 1
  first, repeated = left_out[0], left_out[-1]
  assert (first.reason, first.text) == ('schema', drafts[0])
  assert (first.module, first.kind, first.stage, first.round) == (
    'a/b',
    'stage',
    2,
    1,
  )
  assert first.request == items[0].request.key()
  assert repeated.reason == 'near_duplicate'
  assert repeated.evidence == items[1].request.key()
  assert repeated.text.startswith(good['problem'])
  for record in left_out:  # Lines of a file, whatever is in them.
    line = record.to_json()
    assert '\n' not in line and line.encode()
    assert Rejected.from_json(line) == record
  assert rejections.by_module(left_out) == {
    'a/b': {'schema': 2, 'near_duplicate': 1}
  }
  (line,) = rejections.shortfalls(items, kept, left_out, least_share=0.5)
  assert line == (
    'a/b: 1 of 4 lessons could be kept (2 schema, 1 near_duplicate).'
  )
  assert not rejections.shortfalls(items, kept, left_out, least_share=0.25)


if __name__ == '__main__':  # Writes the golden files anew, to be read.
  GOLDEN.mkdir(exist_ok=True)
  for kind in ('stage', 'remedial', 'bridging'):
    (GOLDEN / f'{kind}.txt').write_text(rendered(kind))
  (GOLDEN / 'schema.json').write_text(schema_text(text_lessons.Draft))
