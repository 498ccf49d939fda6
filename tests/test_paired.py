"""Intervals and tests of paired methods: by hand, and with a known answer."""

import itertools

import numpy as np
import pytest

from ioa_jax.evaluation import intervals
from ioa_jax.experiments import paired

DIFFERENCE = lambda x, y: x - y


def scores(student, teacher=None):
  """Of (S, M, I) grades; a teacher that is always right if none is given."""
  if teacher is None:
    teacher = np.ones_like(student)
  return paired.Scores(
    [
      paired.Module(student[:, m], teacher[:, m])
      for m in range(student.shape[1])
    ]
  )


def simulate(rng, ability, *, seeds=10, modules=6, probes=16, luck=0.3):
  """Grades of two methods on the same probes.

  Args:
    ability: of each, in logits.
    luck: how much seeds of one method differ.
  """
  hardness = rng.normal(0, 2, (modules, probes))
  for mine in ability:
    logit = mine - hardness + rng.normal(0, luck, (seeds, modules, 1))
    logit = logit + rng.normal(0, luck, (seeds, 1, 1))
    yield (rng.random(logit.shape) < 1 / (1 + np.exp(-logit))).astype(float)


@pytest.mark.parametrize('luck', [0.0, 0.3, 1.0])
def test_methods_that_are_the_same_are_not_told_apart(luck):
  """In 95 % of plans or more."""
  rng, plans = np.random.default_rng(1), 200
  same, covered = 0, 0
  for _ in range(plans):
    a, b = map(scores, simulate(rng, (0.0, 0.0), luck=luck))
    ahead = paired.estimate([a, b], DIFFERENCE, 400)
    p = intervals.swap_p(a.by_seed(), b.by_seed())
    same += paired.standing(ahead, p) == 'is not told apart from'
    covered += ahead['ci95'][0] <= 0 <= ahead['ci95'][1]
  # Three standard errors of 95 % over 200 plans are 4.6 %.
  assert same / plans >= 0.905
  # With ten seeds that differ much, intervals alone are a little short.
  assert covered / plans >= 0.86


def test_methods_that_differ_are_told_apart():
  rng = np.random.default_rng(2)
  found = 0
  for _ in range(20):
    a, b = map(scores, simulate(rng, (1.0, 0.0)))
    ahead = paired.estimate([a, b], DIFFERENCE, 400)
    p = intervals.swap_p(a.by_seed(), b.by_seed())
    found += paired.standing(ahead, p) == 'is above'
    assert paired.standing(ahead, 0.06) == 'is not told apart from'
  assert found >= 18


def test_probes_widen_an_interval_that_seeds_alone_do_not_have():
  """Every seed alike: only other probes could have come out differently."""
  grades = np.tile(np.arange(40) % 2.0, (5, 1, 1))
  low, high = paired.estimate([scores(grades)], lambda x: x)['ci95']
  want = intervals.wilson(20, 40)
  assert (low, high) == pytest.approx(want, abs=0.03)


def test_the_score_is_relative_to_the_teacher_module_by_module():
  rng = np.random.default_rng(3)
  student = rng.integers(0, 2, (4, 3, 8)).astype(float)
  teacher = rng.integers(0, 2, (4, 3, 8)).astype(float)
  teacher[:, 1, :2] = np.nan  # Two probes that it did not answer.
  want = student.mean((1, 2)) / np.nanmean(teacher, axis=2).mean(1)
  assert scores(student, teacher).by_seed() == pytest.approx(want)


def test_one_seed_or_one_probe_or_nothing_that_varies():
  one = scores(np.ones((1, 2, 5)))
  assert paired.estimate([one], lambda x: x)['ci95'] is None
  same = scores(np.ones((3, 2, 1)))
  assert paired.estimate([same], lambda x: x) == {
    'mean': 1.0,
    'ci95': [1.0, 1.0],
    'by_seed': [1.0] * 3,
  }
  assert intervals.bootstrap_mean([0.4], seed=0) is None


def test_swaps_are_counted_as_by_hand():
  rng = np.random.default_rng(0)
  for n in (2, 4, 7):
    first, second = rng.normal(0.5, 1, (2, n))
    difference = first - second
    as_far = [
      abs(np.dot(signs, difference)) >= abs(difference.sum()) - 1e-12
      for signs in itertools.product((1, -1), repeat=n)
    ]
    assert intervals.swap_p(first, second) == pytest.approx(np.mean(as_far))
  assert intervals.swap_p([0.1] * 5, [0.0] * 5) == 2 / 32
  assert intervals.swap_p([0.1], [0.0]) == 1.0
  # Twenty are more ways than are tried: drawn ones.
  assert intervals.swap_p(np.arange(1, 21), np.zeros(20)) < 1e-3
  with pytest.raises(ValueError, match='0 and 0 values'):
    intervals.swap_p([], [])
