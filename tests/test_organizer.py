"""Stages: prerequisites first, nothing lost, the zone kept or reported."""

import dataclasses
import math
import re

import hypothesis
from hypothesis import strategies as st
import pytest

from ioa_jax.identifier import gaps
from ioa_jax.organizer import curriculum as organizer
from ioa_jax.organizer import stages as stages_lib
from ioa_jax.records import KnowledgeModule, ModuleDiagnosis, Score

BUDGET = organizer.Budget(
  total_steps=1000, probe_every_steps=25, max_rounds=2, remedial_share=0.2
)


RULES = organizer.Rules(
  tau_zpd=0.15,
  zpd='readiness',
  response='exact',
  min_stage_modules=1,
  consolidation_share=0.3,
)


def organise(diagnosed, response='exact', **changes):
  rules = dataclasses.replace(RULES, response=response)
  how = dict(order='prerequisites', identified=True, length={}, seed=0)
  return organizer.organise(diagnosed, rules, BUDGET, **(how | changes))


@st.composite
def graphs(draw):
  """A random acyclic graph, scores, and which modules are targets."""
  n = draw(st.integers(1, 9))
  names = [f'm{i}' for i in range(n)]
  modules = []
  for i, name in enumerate(names):
    below = draw(st.lists(st.sampled_from(names[:i]), unique=True)) if i else []
    modules.append(KnowledgeModule(name, '', tuple(below), 0))
  scores = {k: draw(st.sampled_from([0.0, 0.1, 0.3, 0.5, 0.9])) for k in names}
  targets = draw(st.lists(st.sampled_from(names), unique=True, min_size=1))
  return modules, scores, [k for k in names if k in targets]


@hypothesis.given(
  graphs(),
  st.sampled_from([0.0, 0.15, 0.5]),
  st.sampled_from(['readiness', 'literal']),
  st.sampled_from([1, 1, 2, 3]),
)
def test_stage_properties(case, tau_zpd, zpd, min_modules):
  modules, scores, targets = case
  graph = gaps.prerequisite_graph(modules)
  build = lambda: stages_lib.build_stages(
    targets, graph, scores, tau_zpd=tau_zpd, zpd=zpd, min_modules=min_modules
  )
  stages = build()
  assert stages == build()
  flat = [k for stage in stages for k in stage]
  assert sorted(flat) == sorted(targets)
  stage_of = {k: i for i, stage in enumerate(stages) for k in stage}
  for a, b in graph.edges:
    if a in stage_of and b in stage_of:
      # A merged stage is the only place for both.
      assert stage_of[a] < stage_of[b] + (min_modules > 1)
  assert len(stages) == 1 or min(map(len, stages)) >= min_modules
  # What cannot be kept is reported: a broken pair ends in a stage that cannot
  # be split (too small, all of the same score, or by prerequisites).
  checks = stages_lib.check_stages(stages, scores, tau_zpd=tau_zpd, zpd=zpd)
  assert len(checks) == max(0, len(stages) - 1)
  for stage, check in zip(stages[1:], checks):
    if check.holds:
      continue
    assert min_modules > 1 or len({scores[k] for k in stage}) == 1
    for harder in range(min_modules, len(stage) - min_modules + 1):
      ranked = sorted(stage, key=scores.get)
      if scores[ranked[harder - 1]] < scores[ranked[harder]]:
        assert any(
          graph.has_edge(a, b) for a in ranked[:harder] for b in ranked[harder:]
        )


def test_generations_by_hand():
  modules = [
    KnowledgeModule('a', '', (), 0),
    KnowledgeModule('b', '', ('a',), 1),
    KnowledgeModule('c', '', ('a', 'b'), 2),
    KnowledgeModule('d', '', (), 0),
    KnowledgeModule('e', '', ('d',), 1),
  ]
  graph = gaps.prerequisite_graph(modules)
  got = stages_lib.generations(['a', 'b', 'c', 'd', 'e'], graph)
  assert got == [['a', 'd'], ['b', 'e'], ['c']]
  # A prerequisite that is no target is known and does not delay.
  assert stages_lib.generations(['c', 'e'], graph) == [['c', 'e']]


@pytest.mark.parametrize(
  'zpd,before,after,holds',
  [
    ('readiness', 0.5, 0.43, True),  # Falls by 0.07, limit 0.075.
    ('readiness', 0.5, 0.42, False),
    ('readiness', 0.5, 0.9, True),  # Easier is always ready.
    ('literal', 0.5, 0.57, True),
    ('literal', 0.5, 0.58, False),
    ('literal', 0.5, 0.1, True),
    ('readiness', 0.0, 0.0, True),
  ],
)
def test_zpd_readings(zpd, before, after, holds):
  check = stages_lib.zpd_check(before, after, tau_zpd=0.15, zpd=zpd)
  assert check.holds == holds


def test_a_mixed_stage_is_split_at_its_largest_fall():
  modules = [
    KnowledgeModule('a', '', (), 0),
    KnowledgeModule('b', '', ('a',), 1),
    KnowledgeModule('c', '', ('a',), 1),
    KnowledgeModule('d', '', ('a',), 1),
  ]
  scores = {'a': 0.5, 'b': 0.1, 'c': 0.48, 'd': 0.45}
  graph = gaps.prerequisite_graph(modules)
  got = stages_lib.build_stages(
    list('abcd'), graph, scores, tau_zpd=0.15, zpd='readiness'
  )
  assert got == [['a'], ['c', 'd'], ['b']]


def test_narrow_stages_are_merged_with_what_follows():
  modules = [
    KnowledgeModule('a', '', (), 0),
    KnowledgeModule('b', '', ('a',), 1),
    KnowledgeModule('c', '', ('b',), 2),
    KnowledgeModule('d', '', ('b',), 2),
    KnowledgeModule('e', '', ('c',), 3),
  ]
  graph = gaps.prerequisite_graph(modules)
  build = lambda targets, least: stages_lib.build_stages(
    list(targets),
    graph,
    dict.fromkeys('abcde', 0.0),
    tau_zpd=0.15,
    zpd='readiness',
    min_modules=least,
  )
  assert build('abcde', 1) == [['a'], ['b'], ['c', 'd'], ['e']]
  assert build('abcde', 2) == [['a', 'b'], ['c', 'd', 'e']]
  assert build('abcde', 9) == [['a', 'b', 'c', 'd', 'e']]


def test_a_merged_stage_is_not_cut_before_a_prerequisite():
  modules = [
    KnowledgeModule('x', '', (), 0),
    KnowledgeModule('y', '', (), 0),
    KnowledgeModule('a', '', ('x',), 1),
    KnowledgeModule('b', '', ('a',), 2),
    KnowledgeModule('e', '', ('a',), 2),
    KnowledgeModule('f', '', ('a',), 2),
  ]
  build = lambda b, f: stages_lib.build_stages(
    list('xyabef'),
    gaps.prerequisite_graph(modules),
    {'x': 1.0, 'y': 1.0, 'a': 0.5, 'b': b, 'f': f, 'e': 0.0},
    tau_zpd=0.15,
    zpd='readiness',
    min_modules=2,
  )
  # By score b and f come first, and both stand on a.
  assert build(0.9, 0.9) == [['x', 'y'], ['a', 'b', 'e', 'f']]
  assert build(0.4, 0.1) == [['x', 'y'], ['a', 'b'], ['f', 'e']]


def diagnosis(scores, targets, needs=(), nats=None):
  """Modules with these scores of the student; the teacher knows all."""
  found = {}
  for k, score in scores.items():
    found[k] = ModuleDiagnosis(
      description='',
      prerequisites=tuple(a for a, b in needs if b == k),
      level=0,
      teacher=Score(10, 10),
      student=Score(round(10 * score), 10),
      student_loss=(nats or {}).get(k),
      teacher_loss=None,
      teacher_ci95=None,
      student_ci95=None,
      gap=1 - score,
      severity=1 - score,
      status='target' if k in targets else 'known',
    )
  return found


CHAIN = diagnosis(
  {'a': 1.0, 'b': 0.5, 'c': 0.0}, 'bc', needs=[('a', 'b'), ('b', 'c')]
)


def test_likelihood_tells_modules_apart_that_nobody_can_answer():
  needs = [('a', 'b'), ('a', 'c')]
  nats = {'a': 0.5, 'b': 3.0, 'c': 0.6}
  diagnosed = diagnosis(dict.fromkeys('abc', 0.0), 'abc', needs, nats)
  modules = lambda found: [list(s.modules) for s in found.stages[:-1]]
  assert modules(organise(diagnosed)) == [['a'], ['b', 'c']]
  likely = organise(diagnosed, 'likelihood')
  assert modules(likely) == [['a'], ['c'], ['b']]
  assert likely.stages[1].readiness == pytest.approx(math.exp(-0.6))
  # From c to b is a step that no split can make smaller.
  assert [c.holds for c in likely.zpd.checks] == [True, False]
  assert [likely.request_kind(i) for i in range(3)] == [
    'stage',
    'stage',
    'bridging',
  ]
  del nats['b']
  unknown = diagnosis(dict.fromkeys('abc', 0.0), 'abc', needs, nats)
  with pytest.raises(ValueError, match=r"\['b'\] have no gate probe with"):
    organise(unknown, 'likelihood')


def test_steps_follow_gaps_and_fit_the_budget():
  found = organise(CHAIN)
  b, c, last = found.stages
  assert (b.modules, c.modules) == (('b',), ('c',))
  assert last.kind == 'consolidate' and last.modules == ('b', 'c')
  assert found.rehearsed == ('a',)
  # Of 700 steps, 1/1.4 is the stages' own part, shared one to two.
  assert (b.max_steps, c.max_steps) == (175, 325)
  longest = sum(s.max_steps + 2 * s.remedial_steps for s in (b, c))
  assert longest <= 700
  assert all(s.max_steps % 25 == 0 for s in (b, c))


@hypothesis.given(
  st.lists(st.floats(0.01, 1.0), min_size=1, max_size=15),
  st.integers(10, 3000),
  st.sampled_from([1, 7, 10, 50]),
  st.integers(0, 3),
  st.sampled_from([0.0, 0.25, 0.5]),
  st.sampled_from([0.0, 0.1, 0.25]),
)
def test_stages_and_rounds_fit_beside_consolidation_or_it_is_said(
  gaps, total, every, rounds, remedial, share
):
  names = [f'm{i}' for i in range(len(gaps))]
  diagnosed = diagnosis(
    {k: 1 - max(0.1, round(g, 1)) for k, g in zip(names, gaps)},
    names,
    needs=list(zip(names, names[1:])),
  )
  budget = organizer.Budget(
    total_steps=total,
    probe_every_steps=every,
    max_rounds=rounds,
    remedial_share=remedial,
  )
  rules = dataclasses.replace(
    RULES, consolidation_share=share, zpd='readiness', tau_zpd=9.0
  )
  how = dict(order='prerequisites', identified=True, length={}, seed=0)
  stages = organizer.organise(diagnosed, rules, budget, **how).stages[:-1]
  longest = sum(s.max_steps + rounds * s.remedial_steps for s in stages)
  room = total * (1 - share)
  assert all(
    steps % every == 0 and steps >= every
    for s in stages
    for steps in (s.max_steps, s.remedial_steps)
  )
  said = organizer.overrun([s.modules for s in stages], share, budget)
  if said:
    assert longest > room
    assert {s.max_steps for s in stages} == {every}
    # What it proposes suffices.
    (enough,) = re.findall(r'total_steps to (\d+)', said)
    more = dataclasses.replace(budget, total_steps=int(enough))
    assert not organizer.overrun([s.modules for s in stages], share, more)
    assert stages[-1].modules[-1] in said
  else:
    assert longest <= room + 1e-6
    # And no stage could have another interval.
    assert longest + (1 + rounds) * every > room


@pytest.mark.parametrize('modules,fits', [(3, True), (4, False), (12, False)])
def test_the_template_says_what_it_has_no_steps_for(modules, fits):
  """A chain at the values of configs/smollm2_135m.py: 600 steps, two rounds."""
  names = [f'm{i}' for i in range(modules)]
  chain = [
    KnowledgeModule(k, '', tuple(names[i - 1 : i] if i else ()), i)
    for i, k in enumerate(names)
  ]
  budget = organizer.Budget(
    total_steps=600, probe_every_steps=50, max_rounds=2, remedial_share=0.25
  )
  said = organizer.overrun(organizer.planned(chain, 1), 0.25, budget)
  assert bool(said) != fits
  if said:
    assert f'at least {modules * 150} steps' in said and '450 are left' in said
    assert said.index('from number 4 on') < said.index('m3')


def test_without_order_there_is_one_stage_of_everything():
  found = organise(CHAIN, order=None)
  (only,) = found.stages
  assert only.modules == ('a', 'b', 'c') and only.kind == 'consolidate'
  # What is known has as few lessons as it has beside stages.
  assert found.rehearsed == organise(CHAIN, order='prerequisites').rehearsed
  # The lessons are IOA's own: rehearsals of what is known.
  assert organise(CHAIN, order=None).rehearsed == ('a',)
  assert organise(CHAIN, order=None, identified=False).rehearsed == ()


def test_rounds_are_equally_long_and_fill_the_budget():
  found = organise(CHAIN, order='rounds', identified=False)
  first, last = found.stages
  assert first.kind == 'teach' and last.kind == 'consolidate'
  assert first.modules == last.modules == ('a', 'b', 'c')
  assert first.max_steps == first.remedial_steps and not first.max_steps % 25
  left = found.total_steps - 3 * first.max_steps
  assert 0 <= left < 3 * 25


def test_other_orders_keep_the_sizes_and_lose_nothing():
  stages = [['a', 'b'], ['c', 'd', 'e']]
  length = {'a': 5, 'b': 1, 'c': 4, 'd': 2, 'e': 3}
  assert stages_lib.reorder(stages, 'length', length, 0) == [
    ['b', 'd'],
    ['e', 'c', 'a'],
  ]
  orders = {
    tuple(map(tuple, stages_lib.reorder(stages, 'random', length, seed)))
    for seed in range(20)
  }
  assert len(orders) > 5
  for order in orders:
    assert [len(s) for s in order] == [2, 3]
    assert sorted(sum(order, ())) == list('abcde')
  again = stages_lib.reorder(stages, 'random', length, 7)
  assert again == stages_lib.reorder(stages, 'random', length, 7)


def test_without_the_identifier_known_modules_are_taught_too():
  found = organise(CHAIN, identified=False)
  assert [list(s.modules) for s in found.stages] == [
    ['a'],
    ['b'],
    ['c'],
    ['a', 'b', 'c'],
  ]
  assert found.rehearsed == ()
  assert len({s.max_steps for s in found.stages[:3]}) == 1


def test_nothing_to_teach_is_said():
  with pytest.raises(organizer.NothingToTeach, match='already knows'):
    organise(diagnosis({'a': 1.0}, ''))
