"""Published methods on a domain of text, against a scripted teacher."""

from collections import Counter
import io
import json
import pathlib
import re
import shutil
import sqlite3
import types

import jax
from jax.experimental.compilation_cache import compilation_cache
import numpy as np
import pytest
import rich.console

from ioa_jax import config as config_lib
from ioa_jax import pipeline, student
from ioa_jax.adapter import (
  Amounts,
  Level,
  examiner,
  plain_lessons,
  plain_prompts,
  prompts,
  referee,
  rejections,
)
from ioa_jax.baselines import answers, cascod, dss, lion, star_agents
from ioa_jax.baselines.method import Evidence
from ioa_jax.domains import text
from ioa_jax.evaluation import final_answers
from ioa_jax.experiments import plans
from ioa_jax.identifier.decomposition import Asking
from ioa_jax.phases import judging
from ioa_jax.runtime import display
from ioa_jax.student import Written
from ioa_jax.teachers.requests import Completion
from ioa_jax.training import packing
from tests import faulty_server, lessons, word_problem_teacher
from tests.test_pipeline import assert_same_run, events, run_config
from tests.test_text_domain import COLUMNS, rows
from tests.test_text_lessons import GOLDEN, Characters
from tests.test_text_pipeline import config, files  # noqa: F401

ROOT = pathlib.Path(__file__).parents[1]
EXAMPLES = ['Solve 2x = 6.', 'Solve x + 1 = 7.']
NOWHERE = Level()
PROMPTS = {
  'like': plain_prompts.like(EXAMPLES, 'value'),
  'topic': plain_prompts.like(EXAMPLES, 'code', 'a library'),
  'hard': plain_prompts.after(EXAMPLES[0], 'choice', 'hard'),
  'easy': plain_prompts.after(EXAMPLES[0], 'open', 'easy'),
  'compare': plain_prompts.compare(EXAMPLES[0], 'x = 3\nso 3', ' '),
  'mark': plain_prompts.mark(EXAMPLES[0], 'x' * 3000),
}


def said(value):
  return Completion(value, 'stop', 1, 1)


def adapter(way='examples', *, confirmed=False, grader=None, count=50):
  grader = grader or final_answers.Number()
  domain = text.TextDomain(
    rows(count),
    None,
    columns=COLUMNS,
    grader=grader,
    min_probes=2,
    max_probes=9,
  )
  checks = examiner.Checks(
    confirm_samples=3,
    near_duplicate=0.8,
    contamination='wording',
    benchmarks={},
    row_length=200,
  )
  return plain_lessons.PlainAdapter(
    domain,
    examiner.Examiner(
      domain, grader, Characters(), Asking('t', 50, 0.7), checks
    ),
    way=way,
    amounts=Amounts(
      seeds_per_module=4,
      items_per_seed=3,
      rehearsal_items_per_seed=1,
      remedial_items_per_seed=2,
    ),
    confirmed=confirmed,
    judged=0,
  )


def plan(a, kind='stage', round=0, level=NOWHERE):
  return a.plan('a/b', kind, stage=0, round=round, level=level)


@pytest.mark.parametrize('name', PROMPTS)
def test_prompts_are_what_the_golden_files_say(name):
  assert PROMPTS[name] + '\n' == (GOLDEN / f'plain_{name}.txt').read_text(), (
    'the prompt changed: if it should, python -m tests.test_text_baselines'
  )


@pytest.mark.parametrize('way', plain_lessons.WAYS)
def test_every_way_asks_for_as_many_problems_as_ioa_does(way):
  """And never twice the same; the rounds together are the stage's."""
  a = adapter(way)
  rounds = plain_lessons.WAYS[way].rounds
  items = [
    item
    for r in range(rounds)
    for item in plan(a, 'remedial' if r else 'stage', r)
  ]
  assert len(items) == 12 == len({i.request.key() for i in items})
  assert len(plan(a, 'rehearsal')) == 4
  # Each seed as often as any other.
  assert set(Counter(i.seed.problem for i in items).values()) == {3}


def test_half_of_lamini_names_a_topic_and_self_instruct_none():
  about = lambda way: [
    any(f'about {s}' in i.request.prompt for s in prompts.SETTINGS)
    for i in plan(adapter(way))
  ]
  assert sum(about('topics')) == 6 and not any(about('examples'))


def test_a_request_shows_seeds_and_never_a_probe():
  a = adapter()
  probes = [p.prompt for s in examiner.SPLITS for p in a._domain.probes(s, '')]
  seeds = [s.problem for s in a._domain.seeds('a/b', 4)]
  for item in plan(a):
    shown = re.findall(r'^\d+\. (.*)$', item.request.prompt, re.M)
    assert sorted(shown) == sorted(seeds)
    assert not set(shown) & set(probes)


def test_lion_follows_hard_and_easy_problems_alike():
  a = adapter('rounds')
  level = Level(hard=('Hard 1?', 'Hard 2?'), easy=('Easy?',))
  asked = [i.request.prompt for i in plan(a, 'remedial', 1, level)]
  assert sum('failed at' in p for p in asked) == 2
  assert sum('did well at' in p and 'Easy?' in p for p in asked) == 2
  assert sum('Hard 1?' in p for p in asked) == 1
  # What there is none of is made up for by the other.
  level = Level(easy=('Easy?',))
  assert all('Easy?' in i.request.prompt for i in plan(a, 'remedial', 1, level))


def write(a, problems, solved, confirmations=()):
  """Lessons from scripted problems, answers, and confirmations."""
  items = plan(a)[: len(problems)]
  queue = [solved, *confirmations]

  def ask(requests, response_model=None):
    if response_model is plain_lessons.Written:
      return [
        said(x if x.startswith('!') else json.dumps({'problem': x}))
        for x in problems
      ]
    batch = queue.pop(0)
    assert len(batch) == len(requests)
    return [x if isinstance(x, Completion) else said(x) for x in batch]

  kept, dropped = a.write(items, ask, [])
  return kept, dict(rejections.count(dropped))


NEW = 'Tim has 4 red cars and 5 blue ones. How many?'
OTHER = 'A train of 12 waggons loses half of them. How many are left?'


def test_answers_are_taught_as_they_come_and_the_rest_has_a_reason():
  a = adapter()
  probe = a._domain.probes('gate', '')[0].prompt
  kept, dropped = write(
    a,
    [NEW, NEW, probe, '!no', OTHER],
    ['Add.\nThe answer is 9.', Completion('6 ...', 'length', 1, 1)],
  )
  (lesson,) = kept
  assert (lesson.problem, lesson.completion) == (NEW, 'Add.\nThe answer is 9.')
  assert lesson.solution['final_answer'] == '9'
  assert dropped == {
    'near_duplicate': 1,
    'contaminated': 1,
    'schema': 1,
    'length': 1,
  }
  # It is not confirmed, right or wrong, and must state an answer.
  kept, dropped = write(
    adapter(), [NEW, OTHER], ['The answer is 8.', 'I do not know.']
  )
  assert len(kept) == 1 and dropped == {'no_answer': 1}


def test_what_is_kept_depends_on_the_lessons_handed_in_alone():
  """A dropped problem stands in nobody's way when a run goes on."""
  a = adapter()
  for _ in range(2):
    kept, _ = write(a, [NEW], ['The answer is 9.'])
    assert len(kept) == 1


def test_cascod_keeps_what_other_solutions_agree_with():
  right, wrong = 'The answer is 9.', 'The answer is 8.'
  for solutions, count in (
    ([right, right, wrong], 1),
    ([right, wrong, wrong], 0),
  ):
    kept, dropped = write(adapter(confirmed=True), [NEW], [right], [solutions])
    assert len(kept) == count
    assert dropped == ({} if count else {'unconfirmed': 1})


def test_a_referee_needs_both_orders():
  judge = referee.Referee(Asking('t', 50, 0.7))
  one, other = judge.compare('2 + 2?', 'TEACHER', 'STUDENT')
  assert one.prompt.index('TEACHER') < one.prompt.index('STUDENT')
  assert other.prompt.index('STUDENT') < other.prompt.index('TEACHER')
  marks = lambda a, b: said(json.dumps({'first': a, 'second': b}))
  # A judge that likes the first place by 3 marks is even.
  assert judge.lead([marks(8, 5), marks(8, 5)]) == 0
  assert judge.lead([marks(9, 4), marks(5, 8)]) == 4
  assert judge.lead([marks(9, 4), said('no')]) is None
  assert judge.lead([marks(9, 40), marks(5, 8)]) is None
  assert judge.mark(said('{"mark": 7}')) == 7
  assert judge.mark(said('{"mark": 0}')) is None


def scripted_run(ask, answers='', log_probs=None):
  """As much of a run as judging needs."""
  reader = types.SimpleNamespace(
    model=types.SimpleNamespace(params=None),
    example=lambda p, c: packing.Example([ord(x) for x in p], [1] * len(c)),
    log_probs=log_probs,
    answers=lambda params, probes, phase: (
      [Written(answers, False)] * len(probes)
    ),
  )
  return types.SimpleNamespace(
    method=lion.TEXT,
    subject=types.SimpleNamespace(
      referee=referee.Referee(Asking('t', 50, 0.7))
    ),
    student=reader,
    teacher_reader=None,
    ask=ask,
  )


def test_lion_sorts_its_lessons_by_the_lead_of_the_teacher():
  """A mark or more is hard; what cannot be read is neither."""
  leads = {'A?': (9, 4), 'B?': (7, 7), 'C?': (8, 7), 'D?': None, 'E?': (3, 9)}
  pool = [lesson('TEACHER', '', problem=p) for p in leads]

  def ask(requests, response_model):
    assert response_model is referee.Marks
    answers = []
    for request in requests:
      marks = leads[request.prompt.splitlines()[2]]
      if marks and request.prompt.index('SAYS') < request.prompt.index('TEAC'):
        marks = marks[::-1]
      marks = marks or (0, 0)
      answers.append(said(json.dumps(dict(zip(('first', 'second'), marks)))))
    return answers

  found = judging.practised(scripted_run(ask, 'SAYS'), None, ['a/b'], 1, pool)
  assert found['a/b'].hard == ('A?', 'C?')
  assert found['a/b'].easy == ('B?', 'E?')


def test_the_referee_sees_a_bounded_part_of_all_rounds():
  seen = []

  def ask(requests, response_model):
    seen.extend(r.prompt.splitlines()[2] for r in requests)
    return [said('no')] * len(requests)

  pool = [lesson('T', '', problem=f'{i}?') for i in range(100)]
  found = judging.practised(scripted_run(ask, 'S'), None, ['a/b'], 2, pool)
  assert found == {'a/b': Level()}
  assert len(seen) == 2 * lion.JUDGED == 2 * len(set(seen))
  assert seen[0] == '0?' and int(seen[-1][:-1]) > 90


def test_difficulty_to_follow_is_a_share_of_the_loss_without_the_problem():
  """2 nats a token with a problem of two characters, 4 without."""

  def log_probs(params, examples):
    return [
      np.full(len(e.completion), -2.0 if len(e.prompt) == 2 else -4.0)
      for e in examples
    ]

  run = scripted_run(lambda *_: [said('{"mark": 7}'), said('?')], '', log_probs)
  found = judging.evidence(run, [lesson('Because.', ''), lesson('So.', '')])
  assert found == Evidence([0.5, 0.5], None, [7, None])


def lesson(completion, final, problem='Q?'):
  return lessons.lesson(
    problem,
    completion,
    module='a/b',
    solution={'final_answer': final},
  )


@pytest.mark.parametrize(
  'grader,completion,final,label,rationale',
  [
    (
      'number',
      'Add.\nThe answer is 9.',
      '9',
      'The answer is 9.',
      'Add.\nThe answer is ',
    ),
    # Written otherwise than it is read: the last line is the answer.
    (
      'number',
      'Add.\nThe answer is 1,000.',
      '1000',
      'The answer is 1000.',
      'Add.\n',
    ),
    (
      'choice',
      'So.\nThe answer is (B).',
      'B',
      'The answer is (B).',
      'So.\nThe answer is (',
    ),
    ('rouge_l', 'It is a verb.', 'It is a verb.', 'It is a verb.', ''),
  ],
)
def test_label_and_rationale_of_text(
  grader, completion, final, label, rationale
):
  parts = answers.Texts(final_answers.KINDS[grader]())
  x = lesson(completion, final)
  assert parts.label(x) == label
  assert parts.rationale(x) == rationale
  decode = lambda tokens: ''.join(map(chr, tokens))
  taught = dss.examples(x, Characters(), parts)
  # Evaluation asks as the label is asked for.
  assert decode(taught[0].prompt) == 'Q?'
  assert decode(taught[0].completion) == label
  assert len(taught) == (1 if label == completion else 2)
  for example in taught[1:]:
    assert decode(example.prompt) == '[rationale] Q?'
    assert decode(example.completion) == completion
    assert sum(example.weights) == pytest.approx(sum(taught[0].weights))


def test_cascod_splits_a_text_where_its_answer_begins():
  parts = answers.Texts(final_answers.Number())
  (example,) = cascod.examples(
    lesson('Add 4.\nThe answer is 49.', '49'), Characters(), parts
  )
  before = len('Add 4.\nThe answer is ') - 1  # `Characters` has no end.
  rationale, answer = example.weights[:before], example.weights[before:]
  assert len(set(rationale)) == len(set(answer)) == 1
  assert sum(rationale) == pytest.approx(sum(answer))


def test_star_agents_keeps_what_a_judge_finds_good():
  pool = [lesson(f'{i}', f'{i}') for i in range(6)]
  student = [0.9, 0.8, 0.7, 0.6, 0.5, 0.4]
  marks = [5, 6, None, 10, 10, 10]
  pick = lambda *args: [
    pool.index(x) for x in star_agents.select(pool, Evidence(*args))
  ]
  assert pick(student, None, None) == [0, 1, 2]
  assert pick(student, None, marks) == [1, 3, 4]
  # What is as difficult for the large model is no lag.
  teacher = [0.9, 0.1, 0.7, 0.0, 0.5, 0.0]
  assert pick(student, teacher, None) == [1, 3, 5]
  assert pick(student, None, [1] * 6) == []


@pytest.mark.parametrize(
  'changes,message',
  [
    ({'method': 'uniform_direct'}, 'asks for direct answers'),
    ({'adapter.smallest_first': True}, 'smallest_first is True, wanted False'),
    ({'method': 'cascod', 'domain.grader': 'code'}, 'confirmed by tests'),
  ],
)
def test_what_text_cannot_do_is_said(changes, message):
  base = config_lib.load('smollm2_135m')
  with pytest.raises(config_lib.ConfigError, match=message):
    config_lib.validate(config_lib.get(base, changes))


def test_text_has_one_format_of_answers_whatever_the_method():
  for name in config_lib.METHODS:
    settled = config_lib.settle(config_lib.get({'method': name}))
    if settled.plain is not None:
      assert settled.answer_format == settled.lesson_format == 'steps'


PLAN = plans.load(ROOT / 'configs/experiments/text.py')


PUBLISHED = sorted(name for name, t in config_lib.METHODS.items() if t.plain)


@pytest.mark.parametrize('name', PUBLISHED)
def test_lessons_of_published_methods_go_through_teacher_and_ledger(
  name,
  files,  # noqa: F811
  tmp_path,
  monkeypatch,
):
  """All but training and the student, which says and thinks what it is told."""
  monkeypatch.setattr(
    student.Student,
    'answers',
    lambda self, params, probes, phase: [
      Written('The answer is 1.', False) for _ in probes
    ],
  )
  monkeypatch.setattr(
    student.Reader, 'losses', lambda self, params, probes: [None] * len(probes)
  )
  monkeypatch.setattr(
    student.Reader,
    'log_probs',
    lambda self, params, examples: [
      np.full(len(e.completion), -1.0 - len(e.prompt)) for e in examples
    ],
  )
  with faulty_server.FaultyServer(
    respond=word_problem_teacher.respond
  ) as server:
    chosen = config(files, server.url, **PLAN.changes, method=name)
    quiet = display.Display(rich.console.Console(file=io.StringIO()))
    found = pipeline.synthesize(chosen, tmp_path / 'run', quiet)
    # Again, after everything was answered: nothing is asked.
    asked = len(server.asked)
    assert pipeline.synthesize(chosen, tmp_path / 'run', quiet) == found
    assert len(server.asked) == asked
  kinds = Counter(map(_kind, server.asked))
  # Of each of 10 seeds of 2 modules; the first of three rounds of Lion.
  assert kinds['problem'] == (20 if name == 'lion' else 60)
  assert bool(kinds['marks']) == (name == 'star_agents')
  assert not kinds['lesson']
  assert {x.module for x in found} == set(word_problem_teacher.UNITS)
  assert len({x.problem for x in found}) == len(found) > 15
  for x in found:
    answer = word_problem_teacher.solve(x.problem)
    assert x.solution['final_answer'] == str(answer)
  with sqlite3.connect(tmp_path / 'run' / 'ledger.sqlite') as db:
    ((stored,),) = db.execute('SELECT COUNT(*) FROM completions')
  assert stored == asked


@pytest.fixture(scope='module')
def cached(tmp_path_factory):
  """Programs of one shape are compiled once for all runs, as in a plan."""
  settings = {
    'jax_compilation_cache_dir': str(tmp_path_factory.mktemp('compiled')),
    'jax_persistent_cache_min_compile_time_secs': 0.1,
  }
  before = {name: getattr(jax.config, name) for name in settings}
  for name, value in settings.items():
    jax.config.update(name, value)
  compilation_cache.reset_cache()
  yield
  for name, value in before.items():
    jax.config.update(name, value)
  compilation_cache.reset_cache()


@pytest.mark.slow
@pytest.mark.usefixtures('cached')
@pytest.mark.parametrize('name', PLAN.runs)
def test_every_run_of_the_plan_ends_and_resumes(name, files, tmp_path):  # noqa: F811
  """One compilation each; a run that was killed pays for nothing again."""
  changes = {**PLAN.changes, **PLAN.runs[name], 'run.keep_checkpoints': 9}
  whole, again = tmp_path / 'whole', tmp_path / 'again'
  with faulty_server.FaultyServer(
    respond=word_problem_teacher.respond
  ) as server:
    chosen = config(files, server.url, **changes)
    results, _ = run_config(chosen, whole)
    asked = len(server.asked)
    # As if it had been killed after its second checkpoint.
    shutil.copytree(whole, again)
    (again / 'results.json').unlink()
    saved = sorted(int(p.name) for p in (again / 'checkpoints').glob('[0-9]*'))
    for step in saved[2:]:
      shutil.rmtree(again / 'checkpoints' / str(step))
    _, text = run_config(chosen, again)
    assert len(server.asked) == asked
  assert f'Continuing from step {saved[1]}' in text and saved[2:]
  assert_same_run(whole, again)
  assert results['compilations'] == 1
  assert sum(s['steps'] for s in results['stages']) == 24
  settled = config_lib.settle(chosen)
  kinds = Counter(_kind(prompt) for prompt in server.asked)
  supplies = [e for e in events(whole) if e['event'] == 'supply']
  if settled.plain is None:
    assert not kinds['problem'] and not kinds['marks']
    return
  # As many as every method gets, of each of 10 seeds of 2 modules.
  assert kinds['problem'] == 60 and not kinds['lesson']
  assert bool(kinds['marks']) == (name in ('lion', 'star_agents'))
  assert len(supplies) == (3 if name == 'lion' else 1)
  if name == 'lion':
    lessons = [json.loads(x) for x in (whole / 'lessons.jsonl').open()]
    assert {x['metadata']['round'] for x in lessons} >= {0, 1}
    # A scripted teacher runs out of problems; that is seen and said.
    rejected = [json.loads(x) for x in (whole / 'rejected.jsonl').open()]
    third = [x['reason'] for x in rejected if x['round'] == 2]
    assert (
      set(third) <= {'near_duplicate'} and len(lessons) + len(rejected) == 60
    )
    assert sum('failed at' in p for p in server.asked) == 20
    assert sum('did well at' in p for p in server.asked) == 20
  if name == 'star_agents':
    (supply,) = supplies
    kept, left_out = supply['lessons'], supply['rejected']['not_selected']
    assert kept and abs(kept - left_out) <= 2


def _kind(prompt):
  if 'Unit: ' in prompt:
    return 'lesson'
  if '{"problem": ' in prompt:
    return 'problem'
  return 'marks' if 'JSON object' in prompt else 'solution'


def test_the_plan_covers_every_method_that_text_can_have():
  had = {run.get('method', 'ioa') for run in PLAN.runs.values()}
  published = {name for name, t in config_lib.METHODS.items() if t.plain}
  assert (
    published
    | {
      'ioa',
      'easy_to_hard',
      'random_order',
      'uniform_steps',
    }
    == had
  )


if __name__ == '__main__':  # Writes the golden files anew, to be read.
  for name, prompt in PROMPTS.items():
    (GOLDEN / f'plain_{name}.txt').write_text(prompt + '\n')
