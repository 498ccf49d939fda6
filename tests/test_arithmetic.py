"""The built-in domain: true answers, and probes that no training text shows."""

import re

import networkx as nx
import numpy as np
import pytest

from ioa_jax.adapter import Amounts, Level, rejections
from ioa_jax.adapter import arithmetic_lessons as adapter
from ioa_jax.domains import arithmetic
from ioa_jax.identifier import gaps
from ioa_jax.teachers.requests import Completion

NAMES = [m.name for m in arithmetic.MODULES]


def value_of(problem_text):
  """An independent evaluator, by Python's own arithmetic on checked text."""
  if '|' in problem_text:
    return str(max(map(int, problem_text.split('|'))))
  if 'x' in problem_text:
    a, b, c = map(
      int, re.fullmatch(r'(\d+)x\+(\d+)=(\d+)', problem_text).groups()
    )
    (x,) = [x for x in range(1000) if a * x + b == c]
    return str(x)
  if '/' in problem_text:
    a, b = map(int, problem_text.split('/'))
    return f'{a // b}R{a - b * (a // b)}'
  assert re.fullmatch(r'[\d+*-]+', problem_text)
  total = 0
  for term in re.findall(r'[+-]?[\d*]+', problem_text):
    product = 1
    for factor in term.lstrip('+-').split('*'):
      product *= int(factor)
    total += -product if term.startswith('-') else product
  return str(total)


def draw(name, n, seed=0, size=1.0):
  rng = np.random.default_rng(seed)
  return [arithmetic.training_problem(name, rng, size) for _ in range(n)]


def test_there_are_twelve_modules_with_true_levels():
  assert len(NAMES) >= 12 and len(set(NAMES)) == len(NAMES)
  levels = {m.name: m.level for m in arithmetic.MODULES}
  for module in arithmetic.MODULES:
    below = [levels[p] for p in module.prerequisites]
    assert module.level == (1 + max(below) if below else 0)
  gaps.prerequisite_graph(arithmetic.MODULES)  # No cycle, nothing unknown.


@pytest.mark.parametrize('name', NAMES)
def test_answers_and_steps_are_true(name):
  for problem in draw(name, 300):
    assert problem.answer == value_of(problem.text)
    steps = problem.completion('steps')
    assert arithmetic.is_correct(steps, problem.answer)
    assert arithmetic.is_correct(problem.completion('direct'), problem.answer)
    if arithmetic.has_steps(name):
      assert arithmetic.steps_hold(steps)
      assert len(arithmetic.calls(steps)) >= 2
    assert not arithmetic.verify_lesson(problem, 'steps', steps)


# What a call of each kind of module is made of; the table adds a carry.
OPERATORS = {
  'addition': '+',
  'subtraction': '-',
  'multiplication': '*+',
  'comparison': '|',
  'division': '',
}


@pytest.mark.parametrize('name', NAMES)
def test_steps_call_only_the_skills_of_prerequisites(name):
  graph = gaps.prerequisite_graph(arithmetic.MODULES)
  below = nx.ancestors(graph, name)
  allowed = {c for k in below for c in OPERATORS[k.split('/')[0]]}
  for problem in draw(name, 50):
    if arithmetic.has_steps(name):
      for call in arithmetic.calls(problem.completion('steps')):
        assert set(re.findall(r'[+*/|-]', call)) <= allowed


def test_three_splits_and_training_are_disjoint():
  probes = []
  for split, count in (
    ('gate', arithmetic.GATE_PROBES),
    ('held_out', arithmetic.HELD_OUT_PROBES),
    ('development', arithmetic.DEVELOPMENT_PROBES),
  ):
    found = arithmetic.probes(split)
    assert len(found) == len(NAMES) * count
    assert all(p.probe_id.startswith(f'{split}/') for p in found)
    probes += found
  reserved = {p.prompt[:-1] for p in probes}
  assert len(reserved) == len(probes)
  # The same problem with its operands exchanged counts as the same, but for
  # two_by_teen, which splits its second operand: exchanged, its steps differ.
  commuted = reserved | {
    f'{b}{op}{a}'
    for probe in probes
    if probe.module != 'multiplication/two_by_teen'
    and (m := re.fullmatch(r'(\d+)([+*|])(\d+)', probe.prompt[:-1]))
    for a, op, b in [m.groups()]
  }
  for name in NAMES:
    for answer_format in ('steps', 'direct'):
      for problem in draw(name, 400, seed=1):
        completion = problem.completion(answer_format)
        shown = [problem.text, *arithmetic.calls(completion)]
        assert not commuted & set(shown)


def test_a_problem_that_calls_a_probe_is_no_training_text():
  # A probe a*b+c of the table is the second call of (10a+o)*b where o*b
  # carries c.
  leaking = next(
    arithmetic.Problem('mixed/product_sum', (10 * a + o, b, 11))
    for p in arithmetic.probes('gate')
    if p.module == 'multiplication/table'
    for a, b, c in [map(int, re.findall(r'\d+', p.prompt))]
    for o in range(10)
    if o * b // 10 == c
  )
  assert arithmetic.is_reserved(leaking)
  completion = leaking.completion('steps')
  got = arithmetic.verify_lesson(leaking, 'steps', completion)
  assert got == 'contains_probe'


def test_splits_do_not_depend_on_the_run():
  assert arithmetic.probes('gate') == arithmetic.probes('gate', 'steps')
  assert arithmetic.seeds(NAMES[0], 5) == arithmetic.seeds(NAMES[0], 5)
  digest = [p.prompt for p in arithmetic.probes('held_out')][:3]
  assert digest == [p.prompt for p in arithmetic.probes('held_out')][:3]


@pytest.mark.parametrize(
  'text,reason',
  [
    ('4*2+0=8;7*2+0=14;740+148=888', ''),
    ('4*2+0=8;7*2+0=15;740+148=888', 'wrong_step'),
    ('4*2+0=8;7*2+0=14;740+148=889', 'wrong_answer'),
    ('888', 'wrong_step'),
    ('4*2+0=8;7*2+0=14;740+148==888', 'wrong_step'),
    ('__import__("os").system("true")=888', 'wrong_step'),
    ('9' * 5000 + '*9=1;=888', 'wrong_step'),
    ('1/0=0R0;=888', 'wrong_step'),
    ('', 'wrong_answer'),
  ],
)
def test_only_true_steps_become_lessons(text, reason):
  problem = arithmetic.Problem('multiplication/two_by_teen', (74, 12))
  assert problem.completion('steps') == '4*2+0=8;7*2+0=14;740+148=888'
  assert arithmetic.verify_lesson(problem, 'steps', text) == reason


def make_adapter(per_seed, seeds=10):
  return adapter.ArithmeticAdapter(
    seed=0,
    teacher='t',
    max_tokens=48,
    answer_format='steps',
    smallest_first=True,
    amounts=Amounts(
      seeds_per_module=seeds,
      items_per_seed=per_seed.get('stage', 1),
      rehearsal_items_per_seed=1,
      remedial_items_per_seed=per_seed.get('remedial', 1),
    ),
  )


def test_items_are_new_problems_smallest_first():
  items = make_adapter({'stage': 8}).plan(
    'division/long', 'stage', stage=0, round=0, level=Level()
  )
  texts = [i.problem.text for i in items]
  assert len(set(texts)) == len(texts) == 80
  first = np.mean([i.problem.operands[0] for i in items[:20]])
  last = np.mean([i.problem.operands[0] for i in items[-20:]])
  assert first < 0.6 * last


def test_curation_counts_every_rejection():
  teacher = make_adapter({'remedial': 2}, seeds=2)
  items = teacher.plan(
    'division/long', 'remedial', stage=1, round=2, level=Level()
  )
  good = items[0].problem.completion('steps')
  completions = [
    Completion(good, 'stop', 5, 20),
    Completion('=1', 'stop', 5, 20),
    Completion(items[2].problem.completion('steps'), 'length', 5, 20),
    Completion('=' + items[3].problem.answer, 'stop', 5, 20),
  ]
  asked = []

  def ask(requests, response_model=None):
    asked.extend(requests)
    return completions

  lessons, rejected = teacher.write(items, ask, ())
  # The last one's single restating call is true arithmetic but shows no step.
  assert rejections.count(rejected) == {
    'wrong_answer': 1,
    'truncated': 1,
    'wrong_step': 1,
  }
  assert [x.completion for x in lessons] == [good]
  assert lessons[0].metadata['kind'] == 'remedial'
  assert lessons[0].metadata['request'] == asked[0].key()
