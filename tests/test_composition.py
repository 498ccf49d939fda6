"""Operations that call each other: true, identifiable, and never shown."""

from collections import Counter
import itertools
import pathlib
import re
import runpy

import hypothesis
from hypothesis import strategies as st
import jax
import networkx as nx
import numpy as np
import pytest

from ioa_jax import config as config_lib
from ioa_jax import subject as subject_lib
from ioa_jax.adapter import Amounts, Level
from ioa_jax.adapter import composition_lessons as lessons_lib
from ioa_jax.domains import composition, operations
from ioa_jax.identifier import gaps
from ioa_jax.models import decoder, huggingface
from ioa_jax.runtime import sharding
from ioa_jax.teachers.requests import Completion

ROOT = pathlib.Path(__file__).parents[1]
NAMES = [m.name for m in composition.MODULES]
PROBES = {
  n: [p for p in composition.probes('gate') if p.module == n] for n in NAMES
}
WORKED = [n for n in NAMES if operations.has_steps(n)]

# Every operation once more, in other words: by Python on decimal fractions.
ORACLE = {
  'sum': lambda a, b: a + b,
  'difference': lambda a, b: a - b,
  'larger': lambda a, b: sorted((a, b))[1],
  'half': lambda a: a / 2,
  'double': lambda a: a * 2,
  'distance': lambda a, b: ((a - b) ** 2) ** 0.5,
  'mean': lambda a, b: np.mean([a, b]),
  'quarter': lambda a: a / 4,
  'quadruple': lambda a: a * 4,
  'octuple': lambda a: a * 8,
  'perimeter': lambda a, b: a + b + a + b,
  'three_sides': lambda a, b: b + a + b,
  'pens': lambda a, b: 2 * (b + a + b),
  'stalls': lambda a, b: 4 * b + a,
  'legs': lambda fours, twos: 4 * fours + 2 * twos,
  'coins': lambda fives, twos: 5 * fives + 2 * twos,
  'change': lambda fives, twos: 5 * fives + 2 * twos - twos,
  'tills': lambda fives, twos: 2 * (5 * fives + twos),
  'pair': lambda wins, draws: 2 * wins + draws,
  'points': lambda wins, draws: 3 * wins + draws,
  'season': lambda wins, draws: 2 * (3 * wins + draws),
  'bonus': lambda wins, draws: 2 * (3 * wins + draws) + wins,
  'days': lambda weeks, days: 7 * weeks + days,
  'workdays': lambda weeks, days: 7 * weeks + days - 2 * weeks,
}


def oracle(text):
  """The value of a call's left side, read without the domain's parser."""
  numbers = list(map(int, re.findall(r'[0-9]+', text)))
  marks = {'+': 'sum', '-': 'difference', '|': 'larger'}
  word = marks.get(re.sub('[0-9]', '', text)) or text.partition(' ')[0]
  value = ORACLE[word](*numbers)
  assert value == int(value) >= 0
  return str(int(value))


def draws(name, count, seed=0, **difficulty):
  rng = np.random.default_rng(seed)
  return [
    composition.training_problem(name, rng, **difficulty) for _ in range(count)
  ]


def test_there_are_twenty_modules_in_six_levels_above_the_first():
  assert len(set(NAMES)) == len(NAMES) >= 20
  assert max(m.level for m in composition.MODULES) >= 5
  levels = {m.name: m.level for m in composition.MODULES}
  for module in composition.MODULES:
    below = [levels[p] for p in module.prerequisites]
    assert module.level == (1 + max(below) if below else 0)
  graph = gaps.prerequisite_graph(composition.MODULES)
  assert nx.is_directed_acyclic_graph(graph)
  assert set(ORACLE) == {n.partition('/')[2] for n in NAMES}


@pytest.mark.parametrize('name', NAMES)
def test_values_and_calls_are_true(name):
  for problem in draws(name, 200):
    assert problem.answer == oracle(problem.text)
    assert operations.parse(problem.text) == problem
    worked = problem.completion('steps')
    assert composition.is_correct(worked, problem.answer)
    assert problem.completion('direct') == problem.answer
    if operations.has_steps(name):
      for call in worked.split(';'):
        left, _, result = call.rpartition('=')
        assert result == oracle(left)
    for way in ('steps', 'direct'):
      text = problem.completion(way)
      assert not composition.verify_lesson(problem, way, text)


@pytest.mark.parametrize('name', NAMES)
def test_a_module_has_two_thousand_free_problems(name):
  """By listing all, or a part of them where there are many more."""
  ranges = [
    range(r.low * r.step, r.high * r.step + 1, r.step)
    for r in operations._BY_NAME[name].ranges
  ]
  free = 0
  for operands in itertools.product(*ranges):
    problem = operations.Problem(name, operands)
    if operations.parse(problem.text) and problem == problem.canonical:
      free += not composition.is_reserved(problem)
      if free == 2000:
        return
  raise AssertionError(f'{name}: {free}')


LEVEL = Level()


def plan(adapter, name, kind, level=LEVEL, stage=0, round=0):
  return adapter.plan(name, kind, stage=stage, round=round, level=level)


def make_adapter(seed=0, answer_format='steps', seeds=10):
  every = {'': 6, 'remedial_': 3, 'rehearsal_': 2}
  return lessons_lib.CompositionAdapter(
    seed=seed,
    teacher='t',
    max_tokens=48,
    answer_format=answer_format,
    smallest_first=False,
    amounts=Amounts(
      seeds_per_module=seeds,
      **{f'{kind}items_per_seed': n for kind, n in every.items()},
    ),
  )


def shown(items):
  """The problems that lessons of `items` show, and those that they call."""
  for item in items:
    yield item.problem
    if item.way == 'steps':
      yield from item.problem.calls


def test_every_edge_is_called_and_no_other():
  """By a third of the lessons at least: an edge that the data identify."""
  adapter = make_adapter()
  for module in composition.MODULES:
    items = plan(adapter, module.name, 'stage')
    called = Counter()
    for item in items:
      text = item.problem.completion(item.way)
      left = [c.rpartition('=')[0] for c in text.split(';')]
      # A direct answer has no left side.
      called.update({operations.parse(side).module for side in left if side})
    assert set(called) == set(module.prerequisites)
    for prerequisite in module.prerequisites:
      assert called[prerequisite] >= len(items) / 3


def test_what_others_call_is_taught_and_probed_at_once_too():
  adapter = make_adapter()
  probes = composition.probes('gate')
  for module in composition.MODULES:
    asked = {i.request.prompt[-1] for i in plan(adapter, module.name, 'stage')}
    probed = {p.prompt[-1] for p in probes if p.module == module.name}
    called = any(module.name in m.prerequisites for m in composition.MODULES)
    wanted = {':'} if module.level else {'='}
    assert asked == probed == (wanted | {'='} if called else wanted)


def test_splits_are_disjoint_and_as_large_as_they_say():
  assert len(composition.SPLITS) == 3
  texts = []
  for split, count in composition.SPLITS.items():
    probes = composition.probes(split)
    assert Counter(p.module for p in probes) == dict.fromkeys(NAMES, count)
    assert probes == composition.probes(split)
    ids = [p.probe_id for p in probes]
    assert len(set(ids)) == len(ids) and ids[0].startswith(f'{split}/')
    for probe in probes:
      assert composition.is_correct(probe.reference, probe.answer)
    texts += [operations.parse(p.prompt[:-1]).canonical for p in probes]
  assert len(set(texts)) == len(texts)
  unseen = [
    p for p in composition.probes('held_out') if composition.is_unseen(p)
  ]
  assert Counter(p.module for p in unseen) == dict.fromkeys(
    NAMES, composition.UNSEEN
  )
  assert not any(map(composition.is_unseen, composition.probes('gate')))


SYMMETRIC = {'sum', 'larger', 'distance', 'mean', 'perimeter'}


def key_of(problem):
  """Equal for problems that are one but for the order of their numbers."""
  word = problem.module.partition('/')[2]
  numbers = problem.operands
  return word, tuple(sorted(numbers) if word in SYMMETRIC else numbers)


def atoms(text):
  """A problem and all it is made of, by `key_of`."""
  problem = operations.parse(text)
  yield key_of(problem)
  for call in problem.completion('steps').split(';'):
    if '=' in call:
      yield from atoms(call.rpartition('=')[0])


@pytest.fixture(scope='module')
def hidden():
  """What must never be shown, without the domain's own bookkeeping: all
  probes, and all that the unseen ones are made of."""
  found = set()
  for split in composition.SPLITS:
    for probe in composition.probes(split):
      made_of = list(atoms(probe.prompt[:-1]))
      found.update(made_of if composition.is_unseen(probe) else made_of[:1])
  return found


@hypothesis.settings(max_examples=25, deadline=None)
@hypothesis.given(
  st.integers(0, 2**32 - 1),
  st.sampled_from(NAMES),
  st.sampled_from(['stage', 'remedial', 'bridging', 'rehearsal']),
  st.sampled_from(['steps', 'direct']),
  st.floats(0, 1),
  st.data(),
)
def test_no_lesson_of_any_run_shows_a_probe(
  hidden, seed, name, kind, answer_format, score, data
):
  """Nor what the unseen probes are made of, whatever the student got wrong."""
  probes = PROBES[name]
  wrong = [
    {'prompt': p.prompt, 'answer': p.answer, 'student': p.reference + '1'}
    for p in data.draw(st.lists(st.sampled_from(probes), max_size=3))
  ]
  items = plan(
    make_adapter(seed, answer_format), name, kind, Level(score, wrong)
  )
  assert items
  assert not {key_of(problem) for problem in shown(items)} & hidden


def test_a_text_that_shows_a_hidden_call_is_no_lesson():
  probe = next(
    p for p in composition.probes('gate') if p.module == 'numbers/double'
  )
  call = operations.parse(probe.prompt[:-1])
  (a,) = call.operands
  problem = operations.Problem('numbers/quadruple', (a,))
  assert composition.is_reserved(problem)
  verify = composition.verify_lesson
  worked = problem.completion('steps')
  assert verify(problem, 'steps', worked) == 'contains_probe'
  # Also where it is no step of the reference, or not confirmed.
  assert verify(problem, 'direct', f'{call.text}=1') == 'contains_probe'


@pytest.mark.parametrize(
  'text, reason',
  [
    ('double 59=118;118+75=193', ''),
    ('59+59=118;118+75=193', ''),
    ('double 59=119;118+75=193', 'wrong_step'),
    ('double 59=118;118+75=194', 'wrong_answer'),
    ('double 59=118;118+75==193', 'wrong_step'),
    ('193', 'wrong_step'),
    ('', 'wrong_answer'),
    ('double 059=118;118+75=193', 'wrong_step'),
    ('double ' + '9' * 5000 + '=1;118+75=193', 'wrong_step'),
    ('double 59,1=118;118+75=193', 'wrong_step'),
    ('__import__("os").system("true")=193', 'wrong_step'),
    ('half 3=1;118+75=193', 'wrong_step'),
    ('1-2=0;118+75=193', 'wrong_step'),
    ('double ٥٩=118;118+75=193', 'wrong_step'),
  ],
)
def test_only_true_chains_become_lessons(text, reason):
  problem = operations.Problem('scores/pair', (59, 75))
  assert composition.verify_lesson(problem, 'steps', text) == reason


PAIR = operations.Problem('scores/pair', (59, 75))


@pytest.mark.parametrize(
  'text, wrong',
  [
    ('double 59=118;118+75=193', None),
    ('193', None),
    ('double 59=119;119+75=194', ('numbers/double', 'double 59')),
    ('double 59=118;118+75=183', ('numbers/sum', '118+75')),
    # Two wrong ones: the first.
    ('double 59=128;128+75=193;1+1=3', ('numbers/double', 'double 59')),
    # All calls are true, and they are not the way.
    ('double 59=118;118+118=236', ('scores/pair', 'pair 59,75')),
    ('194', ('scores/pair', 'pair 59,75')),
    ('', ('scores/pair', 'pair 59,75')),
    ('double 59', ('scores/pair', 'pair 59,75')),
    ('halve 126=118;118+75=194', ('scores/pair', 'pair 59,75')),
    # A repeated right answer does not make up for a wrong end.
    ('pair 59,75=193;193+1=195', ('numbers/sum', '193+1')),
    ('9' * 4000, ('scores/pair', 'pair 59,75')),
  ],
)
def test_the_first_wrong_call(text, wrong):
  found = composition.first_wrong_call(PAIR, text)
  assert (found and (found[0], found[1].text)) == wrong


@pytest.mark.parametrize('name', WORKED)
def test_the_first_wrong_call_is_the_one_that_was_spoilt(name):
  for problem in draws(name, 20):
    for at, call in enumerate(problem.calls):
      parts = problem.completion('steps').split(';')
      parts[at] = f'{call.text}={int(call.answer) + 1}'
      parts[-1] += '0' if at < len(parts) - 1 else ''
      found = composition.first_wrong_call(problem, ';'.join(parts))
      assert found == (call.module, call)


def difficulties(items):
  return [i.problem.difficulty for i in items]


@pytest.mark.parametrize('name', NAMES)
def test_stage_lessons_are_as_difficult_as_the_probes(name):
  """Quantiles of both, within what so few probes can tell."""
  items = plan(make_adapter(seeds=60), name, 'stage')
  probes = [
    operations.parse(p.prompt[:-1]).difficulty
    for split in composition.SPLITS
    for p in composition.probes(split)
    if p.module == name
  ]
  at = [0.1, 0.25, 0.5, 0.75, 0.9]
  gap = np.quantile(difficulties(items), at) - np.quantile(probes, at)
  assert np.abs(gap).max() < 0.12


@pytest.mark.parametrize('score', [0.0, 0.3, 0.7, 1.0])
def test_bridging_is_one_notch_above_what_the_student_can_do(score):
  for name in NAMES:
    items = plan(make_adapter(), name, 'bridging', Level(score))
    low = min(score, 0.75)
    assert len(items) == 60
    assert low - 0.02 <= min(difficulties(items))
    # A range that is used up grows upwards.
    assert np.quantile(difficulties(items), 0.9) <= min(1.0, low + 0.27)


def wrong_answer(prompt, student):
  return {'prompt': prompt, 'answer': '?', 'student': student}


def test_remedial_lessons_are_of_the_failed_call_smallest_first():
  wrong = wrong_answer('quadruple 2126:', 'double 2126=4253;double 4253=8506')
  level = Level(0.2, [wrong])
  items = plan(make_adapter(), 'numbers/quadruple', 'remedial', level)
  assert len(items) == 30
  assert {i.problem.module for i in items} == {'numbers/double'}
  assert {i.way for i in items} == {'direct'}
  found = difficulties(items)
  failed = operations.parse('double 2126').difficulty
  assert np.mean(found[:10]) < 0.5 * np.mean(found[-10:])
  assert max(found) <= failed + 0.11
  # Lessons count for the module that asked.
  done = [Completion(i.problem.completion(i.way), 'stop', 5, 20) for i in items]
  lessons, rejected = make_adapter().write(items, lambda requests: done, [])
  assert not rejected and {x.module for x in lessons} == {'numbers/quadruple'}
  assert {x.metadata['trains'] for x in lessons} == {'numbers/double'}


def test_each_failed_call_gets_its_share():
  level = Level(
    0.2,
    [
      wrong_answer('legs 59,75:', 'quadruple 59=237;double 75=150;237+150=387'),
      wrong_answer('legs 59,75:', 'quadruple 59=236;double 75=150;236+150=396'),
      wrong_answer('legs 59,76=', '12'),
      wrong_answer('what?', 'none of this domain'),
    ],
  )
  items = plan(make_adapter(), 'coins/legs', 'remedial', level)
  assert Counter((i.problem.module, i.way) for i in items) == {
    ('numbers/quadruple', 'direct'): 10,
    ('numbers/sum', 'direct'): 10,
    ('coins/legs', 'direct'): 10,
  }


def test_kinds_differ_and_a_run_repeats_itself():
  level = Level(0.5, [wrong_answer('pair 59,75:', 'double 59=1')])
  asked = {
    kind: [
      i.request.prompt for i in plan(make_adapter(), 'scores/pair', kind, level)
    ]
    for kind in ('stage', 'bridging', 'remedial', 'rehearsal')
  }
  assert len({tuple(v) for v in asked.values()}) == 4
  for kind, prompts in asked.items():
    again = plan(make_adapter(), 'scores/pair', kind, level)
    assert [i.request.prompt for i in again] == prompts
    assert len(set(prompts)) == len(prompts)
  # First lessons do not depend on when they come; remedial ones do.
  late = plan(make_adapter(), 'scores/pair', 'stage', level, stage=3)
  assert [i.request.prompt for i in late] == asked['stage']
  other = plan(make_adapter(seed=1), 'scores/pair', 'stage', level)
  assert [i.request.prompt for i in other] != asked['stage']


def test_curation_counts_every_rejection():
  adapter = make_adapter(seeds=2)
  items = plan(adapter, 'scores/workdays', 'stage')
  good = [i.problem.completion('steps') for i in items]
  completions = [
    Completion(good[0], 'stop', 5, 20),
    Completion('1', 'stop', 5, 20),
    Completion(good[2], 'length', 5, 20),
    Completion(items[3].problem.answer, 'stop', 5, 20),
    *(Completion(text, 'stop', 5, 20) for text in good[4:]),
  ]
  lessons, rejected = adapter.write(items, lambda requests: completions, ())
  assert sorted(r.reason for r in rejected) == [
    'truncated',
    'wrong_answer',
    'wrong_step',
  ]
  assert [x.completion for x in lessons] == [good[0], *good[4:]]
  assert lessons[0].prereq == (
    'scores/days',
    'numbers/double',
    'numbers/difference',
  )


def test_a_config_reaches_the_domain(tmp_path):
  """Models are tiny and untrained: what is tested is what they are asked."""
  sizes = decoder.DecoderConfig(
    vocab_size=44,
    width=8,
    num_layers=1,
    num_heads=1,
    num_kv_heads=1,
    head_width=8,
    mlp_width=8,
  )
  params = decoder.init(sizes, jax.random.key(0))
  huggingface.save(
    tmp_path, sizes, params, dtype='float32', eos_token_id=1, pad_token_id=0
  )
  composition.build_tokenizer().save(str(tmp_path / 'tokenizer.json'))
  config = runpy.run_path(str(ROOT / 'configs/domains.py'))['get_config'](
    'composition'
  )
  config.teacher.model = config.student.model = str(tmp_path)
  config_lib.validate(config)
  mesh = sharding.make_mesh(data=1, devices=jax.devices()[:1])
  found = subject_lib.open_subject(config, mesh)
  assert found.domain is composition
  (item, *_) = plan(found.adapter, 'scores/pair', 'stage')
  codec = found.codec
  assert codec.decode(codec.prompt(item.request.prompt)) == item.request.prompt


def test_what_the_shipped_models_learned_from_shows_no_probe(hidden):
  recipes = runpy.run_path(str(ROOT / 'scripts/builtin_recipes.py'))['RECIPES']
  teacher, student = (recipes['composition'](r) for r in ('teacher', 'student'))
  small, large = (decoder.num_params(r.config) for r in (student, teacher))
  assert 10 * small < large
  assert set(student.modules) == set(composition.EASY_MODULES)
  assert set(teacher.modules) == set(NAMES)
  rng = np.random.default_rng(0)
  for recipe in (teacher, student):
    for name in recipe.modules:
      for _ in range(50):
        problem = recipe.problem(name, rng)
        assert not {key_of(p) for p in (problem, *problem.calls)} & hidden
