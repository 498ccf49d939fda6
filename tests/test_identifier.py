"""Gaps, severity and targets against cases worked by hand."""

import hypothesis
from hypothesis import strategies as st
import numpy as np
import pytest

from ioa_jax.evaluation import intervals, scoring
from ioa_jax.identifier import diagnosis as diagnosis_lib
from ioa_jax.identifier import gaps, graphs
from ioa_jax.phases import results as results_lib
from ioa_jax.records import KnowledgeModule, Probe, Score, Thresholds


def module(name, *prerequisites):
  return KnowledgeModule(name, '', tuple(prerequisites), 0)


CHAIN = (module('a'), module('b', 'a'), module('c', 'b'), module('d'))


def test_gap_is_relative_to_the_teacher():
  assert gaps.gap(Score(8, 10), Score(2, 10)) == pytest.approx(0.75)
  assert (
    gaps.gap(Score(8, 10), Score(10, 10)) == 0.0
  )  # Better than its teacher.


def test_no_evidence_is_no_gap_and_no_pass():
  assert gaps.gap(Score(0, 10), Score(5, 10)) is None
  assert gaps.gap(Score(0, 0), Score(5, 10)) is None
  assert gaps.gap(Score(5, 10), Score(0, 0)) is None


def test_severity_by_hand():
  # Eq. 4 with alpha 0.7: a = .7*.5 + .3*(.4+.2)/2 = .44; b = .7*1 + .3*.6 =
  # .88; c has no dependents: .7*.1 = .07.
  strengths = {('a', 'b'): 0.4, ('a', 'c'): 0.2, ('b', 'c'): 0.6}
  got = gaps.severity({'a': 0.5, 'b': 1.0, 'c': 0.1}, strengths, 0.7)
  assert got == pytest.approx({'a': 0.44, 'b': 0.88, 'c': 0.07})


def test_an_unknown_strength_leaves_all_ranked_by_gap():
  strengths = {('a', 'b'): None, ('b', 'c'): 0.9}
  got = gaps.severity({'a': 0.5, 'b': 1.0}, strengths, 0.7)
  assert got == pytest.approx({'a': 0.5, 'b': 1.0})


def test_targets_bring_their_deficient_prerequisites():
  found = {'a': 0.4, 'b': 0.1, 'c': 0.9, 'd': 0.5}
  deficient, targets = gaps.select_targets(
    found, found, CHAIN, tau_gap=0.3, target_share=0.3
  )
  assert deficient == ['a', 'c', 'd']
  # The top third is c; it stands on a (deficient) through b (known).
  assert targets == ['a', 'c']


def test_threshold_is_strict_and_unteachable_is_left_out():
  deficient, targets = gaps.select_targets(
    {'a': 0.3, 'b': 0.30001},
    {'a': 0.3, 'b': 0.3},
    CHAIN,
    tau_gap=0.3,
    target_share=1.0,
  )
  assert deficient == targets == ['b']


@pytest.mark.parametrize(
  'modules,message',
  [
    ((module('a', 'x'),), "prerequisite 'x' is not a module"),
    ((module('a', 'a'),), "prerequisite 'a' is itself"),
    ((module('a', 'b'), module('b', 'a')), 'form a cycle'),
  ],
)
def test_bad_graphs_are_refused(modules, message):
  with pytest.raises(ValueError, match=message):
    gaps.prerequisite_graph(modules)


@pytest.mark.parametrize(
  'correct,n,want',
  [
    (0, 10, (0.0, 0.2775)),
    (5, 10, (0.2366, 0.7634)),
    (10, 10, (0.7225, 1.0)),
    (45, 48, (0.8316, 0.9785)),
  ],
)
def test_wilson(correct, n, want):
  # 0, 5 and 10 of 10 are textbook values. 45 of 48 by hand: centre (0.9375 +
  # 3.8415/96)/1.08003 = 0.9051, half width 1.96 * 0.04047/1.08003 = 0.0734.
  assert intervals.wilson(correct, n) == pytest.approx(want, abs=2e-4)


@hypothesis.given(st.integers(1, 300), st.data())
def test_wilson_contains_the_estimate_and_is_symmetric(n, data):
  k = data.draw(st.integers(0, n))
  low, high = intervals.wilson(k, n)
  assert 0 <= low <= k / n <= high <= 1
  mirrored = intervals.wilson(n - k, n)
  assert (1 - high, 1 - low) == pytest.approx(mirrored)


def test_wilson_of_nothing_is_refused():
  with pytest.raises(ValueError, match='0 correct of 0'):
    intervals.wilson(0, 0)


def test_scores_count_each_module_apart():
  probes = [
    Probe('1', 'a', 'p', 'r', '7'),
    Probe('2', 'a', 'q', 'r', '8'),
    Probe('3', 'b', 's', 'r', '9'),
  ]
  scores, wrong = scoring.score(probes, ['7', '7', '9'], [1.0, 0.0, 1.0])
  assert scores == {'a': Score(1, 2), 'b': Score(1, 1)}
  assert wrong == {'a': [{'prompt': 'q', 'answer': '8', 'student': '7'}]}
  assert scoring.mean_score(scores) == 0.75  # Of modules, not of probes.


GIVEN = graphs.record(
  {'given': graphs.stated([('a', 'b'), ('b', 'c')], list('abcd'))}, 'given'
)


def test_diagnosis_never_makes_up_a_strength():
  scores = {m.name: Score(9, 10) for m in CHAIN}
  student = {'a': Score(9, 10), 'b': Score(1, 10), 'c': Score(0, 10)}
  measured = diagnosis_lib.Measured(
    teacher=scores | {'d': Score(0, 10)},
    student=student | {'d': Score(3, 10)},
    teacher_loss={},
    student_loss={'a': 0.1},
  )
  found = diagnosis_lib.diagnose_modules(
    CHAIN, measured, GIVEN, Thresholds(0.3, 0.7, 0.5)
  )
  assert GIVEN.source == 'given'
  assert all(e.strength is None for e in GIVEN.edges)
  statuses = {k: m.status for k, m in found.items()}
  assert statuses == {
    'a': 'known',
    'b': 'target',
    'c': 'target',
    'd': 'unteachable',
  }
  assert found['d'].gap is None
  losses = [found[k].student_loss for k in 'ab']
  assert losses == [0.1, None]


def test_a_difference_of_one_module_is_newcombes():
  # Newcombe (1998), table II: 56 of 70 against 48 of 80 is 0.2, with method 10
  # from 0.0524 to 0.3339.
  mean, low, high = intervals.mean_difference([(56, 70)], [(48, 80)])
  assert mean == pytest.approx(0.2)
  assert (low, high) == pytest.approx((0.0524, 0.3339), abs=1e-4)


def test_the_interval_of_a_mean_covers_it():
  rng = np.random.default_rng(0)
  p_0, p, n = rng.uniform(0.1, 0.9, 6), rng.uniform(0.1, 0.9, 6), 48
  inside = 0
  for _ in range(500):
    after, before = rng.binomial(n, p), rng.binomial(n, p_0)
    _, low, high = intervals.mean_difference(
      [(k, n) for k in after], [(k, n) for k in before]
    )
    inside += low <= np.mean(p - p_0) <= high
  assert 0.93 <= inside / 500 <= 0.99


@pytest.mark.parametrize(
  'after,kind,fallen',
  [
    ({'a': 40, 'b': 40}, 'better', ()),
    ({'a': 5, 'b': 48}, 'mixed', ('a',)),
    ({'a': 21, 'b': 11}, 'unclear', ()),
    ({'a': 2, 'b': 3}, 'worse', ('a', 'b')),
  ],
)
def test_a_worse_student_is_never_praised(after, kind, fallen):
  before = {'a': Score(20, 48), 'b': Score(10, 48)}
  found = results_lib.compare(
    before, {k: Score(c, 48) for k, c in after.items()}
  )
  assert (found.kind, found.fallen) == (kind, fallen)


@pytest.mark.parametrize('grade', [float('nan'), 1.5, -0.1])
def test_a_grade_that_is_no_score_is_an_error(grade):
  probes = [Probe('held_out/m/0', 'm', 'What?', 'a', 'a')]
  with pytest.raises(ValueError, match="for 'What.'; wanted 0 to 1"):
    scoring.score(probes, ['b'], [grade])
