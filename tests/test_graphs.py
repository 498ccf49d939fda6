"""One graph out of several: what is chosen, what is kept beside it."""

import numpy as np
import pytest

from ioa_jax.identifier import dependency, graphs
from ioa_jax.identifier import diagnosis as diagnosis_lib
from ioa_jax.identifier import responses as responses_lib
from ioa_jax.records import KnowledgeModule, Score, StrongEdge, Thresholds

NAMES = ['a', 'b', 'c']
MODULES = tuple(KnowledgeModule(n, n, (), 0) for n in NAMES)


def contrast(score, exposure, min_learners=2):
  return dependency.interventional(
    score, exposure, min_learners=min_learners, epsilon=1e-8, seed=0
  )


def panel():
  """Learners who know b only if they were taught a as well."""
  exposure = responses_lib.design(16, 3, seed=0)
  score = exposure * np.array([0.8, 0.2, 0.8]) + 0.1
  score[:, 1] += 0.5 * (exposure[:, 0] & exposure[:, 1])
  return score[:, None], exposure


def measured():
  return graphs.measured(
    contrast(*panel()), NAMES, tau=0.3, needs_interval=True
  )


def test_the_chosen_graph_becomes_the_prerequisites():
  known = {
    'given': graphs.stated([('c', 'b')], NAMES),
    'interventional': measured(),
  }
  dep = graphs.record(known, 'interventional')
  scores = {n: Score(9, 10) for n in NAMES}
  measured_scores = diagnosis_lib.Measured(
    scores, {n: Score(1, 10) for n in NAMES}, {}, {}
  )
  found = diagnosis_lib.diagnose_modules(
    MODULES, measured_scores, dep, Thresholds(0.3, 0.7, 1.0)
  )
  a, b, c = diagnosis_lib.modules_of(found)
  assert b.prerequisites == ('a',) and b.level == 1
  assert a.prerequisites == c.prerequisites == ()
  # Eq. 4 now has a strength: a is needed, c with the same gap is not. The
  # effect of a is .5 on a mean of .8: .7 * gap + .3 * 5/8.
  gap = 8 / 9
  severity = lambda n: found[n].severity
  assert severity('a') == pytest.approx(0.7 * gap + 0.3 * 0.625, abs=1e-6)
  assert severity('c') == pytest.approx(0.7 * gap)
  # Both graphs are there, and that they share nothing.
  (pair,) = dep.agreement
  assert pair.f1 == 0.0 and set(dep.graphs) == set(known)


def test_removed_edges_are_on_record():
  graph = graphs.stated([('a', 'b'), ('b', 'a'), ('b', 'c')], NAMES)
  dep = graphs.record({'given': graph}, 'given')
  assert len(dep.removed) == 1 and len(dep.edges) == 2
  assert StrongEdge('b', 'c', None) in dep.edges


@pytest.mark.parametrize(
  'edges,message',
  [
    ([('a', 'x')], r"'a' -> 'x': \['x'\] are not modules"),
    ([('a', 'a')], 'self-loop'),
  ],
)
def test_bad_graphs_are_refused(edges, message):
  with pytest.raises(ValueError, match=message):
    graphs.stated(edges, NAMES)


def test_a_panel_that_knows_everything_says_nothing_of_eq_3():
  # All learners above tau_high: nobody is on the low side.
  score = np.full((16, 1, 3), 0.95)
  got = dependency.conditional(
    score,
    np.ones(3),
    tau_high=0.9,
    tau_low=0.7,
    min_learners=2,
    epsilon=1e-8,
    seed=0,
  )
  with pytest.raises(ValueError, match='no pair of modules has enough'):
    graphs.measured(got, NAMES, tau=0.3, needs_interval=False)


def test_a_module_that_nobody_is_taught_has_undefined_pairs_not_edges():
  score, exposure = panel()
  exposure[:, 2] = False
  found = graphs.measured(
    contrast(score, exposure), NAMES, tau=0.0, needs_interval=True
  )
  # As effect and as cause: four of six pairs.
  assert found.undefined == 4 and len(found.pairs) == 2
  assert not {n for e in found.strengths for n in e} & {'c'}


def test_an_unknown_source_names_those_that_are_there():
  known = {'given': graphs.stated([], NAMES)}
  with pytest.raises(ValueError, match=r"only \['given'\] could"):
    graphs.record(known, 'conditional')
