"""Dependencies: against loops, hand-worked cases and simulated learners."""

import dataclasses

import hypothesis
from hypothesis import strategies as st
import networkx as nx
import numpy as np
import pytest

from ioa_jax.identifier import dependency
from ioa_jax.identifier import responses as responses_lib

LIMITS = dict(min_learners=2, epsilon=1e-8, seed=0)


def test_eq_3_by_hand():
  # Module 0 has r = 1, .95, .5, .6 (teacher .8); module 1 scores below.
  score = np.array([[0.8, 0.6], [0.76, 0.4], [0.4, 0.1], [0.48, 0.2]])[:, None]
  got = dependency.conditional(
    score, np.array([0.8, 1.0]), tau_high=0.9, tau_low=0.7, **LIMITS
  )
  # (.5 - .15) / .5; the way back has nobody at r_1 >= .9.
  assert got.strength[0, 1] == pytest.approx(0.7)
  assert got.effect[0, 1] == pytest.approx(0.35)
  assert got.learners[:, 0, 1].tolist() == [2, 2]
  assert np.isnan(got.strength[1, 0]) and got.learners[0, 1, 0] == 0
  assert np.isnan(np.diag(got.strength)).all()


def test_eq_3_equals_a_loop():
  rng = np.random.default_rng(1)
  score, teacher = rng.random((12, 3, 4)), np.array([0.9, 0.8, 0.7, 0.0])
  got = dependency.conditional(
    score, teacher, tau_high=0.8, tau_low=0.5, **LIMITS
  )
  for i in range(3):
    for j in range(4):
      if i == j:
        continue
      high = [s[j] for n in score for s in n if s[i] / teacher[i] >= 0.8]
      low = [s[j] for n in score for s in n if s[i] / teacher[i] < 0.5]
      want = (np.mean(high) - np.mean(low)) / (np.mean(high) + 1e-8)
      assert got.strength[i, j] == pytest.approx(want)
  # A teacher at zero has no ratio: no edge from that module.
  assert np.isnan(got.strength[3]).all()


def test_too_few_learners_are_undefined_and_snapshots_do_not_count():
  exposure = np.array([[1, 1], [0, 1], [0, 1], [1, 0]], bool)
  score = np.ones((4, 50, 2))
  got = dependency.interventional(score, exposure, **LIMITS)
  assert got.learners[:, 0, 1].tolist() == [1, 2]
  assert np.isnan(got.strength[0, 1]) and np.isnan(got.interval[:, 0, 1]).all()


def simulated(num_learners, seed, talent=0.0):
  """Module 1 needs 0; module 2 needs nothing; `talent` moves all of them."""
  rng = np.random.default_rng(seed)
  exposure = responses_lib.design(num_learners, 3, seed=seed)
  able = talent * rng.random(num_learners)
  p0 = 0.2 + 0.5 * exposure[:, 0] + able
  p1 = 0.1 + exposure[:, 1] * (0.1 + 0.5 * exposure[:, 0]) + able
  p2 = 0.2 + 0.5 * exposure[:, 2] + able
  score = np.stack([p0, p1, p2], axis=1)[:, None]
  return score + 0.02 * rng.standard_normal(score.shape), exposure


def test_randomised_exposure_is_not_confounded_where_correlation_is():
  score, exposure = simulated(64, 0, talent=3.0)
  got = dependency.interventional(score, exposure, **LIMITS)
  found = dependency.edges(
    got.strength, 'abc', tau=0.0, low_KxK=got.interval[0]
  )
  baseline = dependency.correlation(score)
  assert set(found) <= {('a', 'b')}
  assert np.nanmin(baseline) > 0.6  # Talent links everything.


def test_the_effect_and_its_interval():
  # The true effect of 0 on 1 is .5, on a mean of .7: strength 5/7.
  inside = 0
  for seed in range(12):
    score, exposure = simulated(40, seed)
    got = dependency.interventional(score, exposure, **LIMITS)
    low, high = got.interval[:, 0, 1]
    assert got.effect[0, 1] == pytest.approx(0.5, abs=0.03)
    inside += low <= 5 / 7 <= high
  assert inside >= 9  # Of 12 at 95 %; fewer have odds of 1 in 400.


@hypothesis.given(st.integers(2, 12), st.integers(3, 12), st.integers(0, 9))
@hypothesis.settings(max_examples=10, deadline=None)
def test_design_is_balanced(pairs, modules, seed):
  exposure = responses_lib.design(2 * pairs, modules, seed=seed)
  assert (exposure.sum(axis=0) == pairs).all()
  assert np.isin(exposure.sum(axis=1), [modules // 2, -(-modules // 2)]).all()
  again = responses_lib.design(2 * pairs, modules, seed=seed)
  np.testing.assert_array_equal(exposure, again)


def test_every_cell_of_the_default_design_is_filled():
  exposure = responses_lib.design(16, 12, seed=0)
  both = exposure.T.astype(int) @ exposure
  without = (~exposure).T.astype(int) @ exposure
  off = ~np.eye(12, dtype=bool)
  assert both[off].min() >= 2 and without[off].min() >= 2


@pytest.mark.parametrize('learners', [0, 2, 5])
def test_bad_designs_are_refused(learners):
  with pytest.raises(ValueError, match='wanted an even number'):
    responses_lib.design(learners, 3, seed=0)


@hypothesis.given(
  st.dictionaries(
    st.tuples(st.sampled_from('abcdef'), st.sampled_from('abcdef')).filter(
      lambda e: e[0] != e[1]
    ),
    st.floats(0.1, 1.0),
  )
)
def test_cycles_are_broken_and_nothing_else(strengths):
  kept, removed = dependency.break_cycles(strengths)
  assert nx.is_directed_acyclic_graph(nx.DiGraph(list(kept)))
  assert kept.keys() | set(removed) == strengths.keys()
  assert not kept.keys() & set(removed)
  # An edge outside every cycle is never touched.
  graph = nx.DiGraph(list(strengths))
  for a, b in removed:
    assert nx.has_path(graph, b, a)


def test_the_weakest_edge_goes():
  strengths = {
    ('a', 'b'): 0.9,
    ('b', 'c'): 0.3,
    ('c', 'a'): 0.5,
    ('c', 'd'): 0.1,
  }
  kept, removed = dependency.break_cycles(strengths)
  assert removed == [('b', 'c')] and ('c', 'd') in kept


def test_self_loops_are_refused():
  with pytest.raises(ValueError, match="'a' -> 'a' is a self-loop"):
    dependency.break_cycles({('a', 'a'): 1.0})


def test_agreement_counts_implied_edges_once():
  pairs = [(a, b) for a in 'abc' for b in 'abc' if a != b]
  true = [('a', 'b'), ('b', 'c')]
  same = dependency.agreement([*true, ('a', 'c')], true, pairs)
  assert same['f1'] == 1.0 and same['wanted'] == 3
  # One of three, and one wrong: precision 1/2, recall 1/3, F1 2/5.
  other = dependency.agreement([('a', 'b'), ('c', 'b')], true, pairs)
  assert other['f1'] == pytest.approx(0.4)
  assert dependency.agreement([], [], pairs)['f1'] is None


def panel_record():
  rng = np.random.default_rng(0)
  return responses_lib.Responses(
    ('a', 'b'),
    rng.random((4, 2)) < 0.5,
    rng.random((4, 3, 2, 5)) < 0.5,
    rng.random((4, 3, 2, 5)),
    np.full((2, 5), 2.0),
    np.array([[1, 1, 1, 1, 0], [1, 1, 0, 0, 0]], bool),
    np.array([5, 10, 15]),
    np.int64(1234),
  )


def test_responses_survive_their_file(tmp_path):
  record, path = panel_record(), tmp_path / 'panel.npz'
  responses_lib.save(path, record)
  read = responses_lib.load(path)
  for field in dataclasses.fields(record):
    got, want = getattr(read, field.name), getattr(record, field.name)
    np.testing.assert_array_equal(got, want)


def test_damaged_and_foreign_files_are_refused(tmp_path):
  path = tmp_path / 'panel.npz'
  path.write_bytes(b'PK\x03\x04 nonsense')
  with pytest.raises(ValueError, match='is damaged'):
    responses_lib.load(path)
  np.savez(path, format_version=99)
  with pytest.raises(ValueError, match='format version 99'):
    responses_lib.load(path)


def test_scores_leave_empty_slots_out():
  record = panel_record()
  exact = record.scores('exact')
  want = record.right_NxTxKxP[1, 2, 0, :4].mean()
  assert exact[1, 2, 0] == pytest.approx(want)
  likely = record.scores('likelihood')
  want = np.exp(-record.nll_NxTxKxP[1, 2, 1, :2] / 2).mean()
  assert likely[1, 2, 1] == pytest.approx(want)


def test_a_module_without_probes_is_refused():
  record = dataclasses.replace(
    panel_record(), valid_KxP=np.array([[1] * 5, [0] * 5], bool)
  )
  with pytest.raises(ValueError, match=r"modules \['b'\] have no gate probe"):
    record.scores('exact')
