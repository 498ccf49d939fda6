"""Probe outcomes to numbers with their uncertainty."""

from __future__ import annotations

from collections.abc import Callable, Sequence
import math

import numpy as np

_Z95 = 1.959963984540054


def wilson(correct: float, n: int) -> tuple[float, float]:
  """The 95 % Wilson score interval of a proportion.

  Unlike the normal interval it stays in [0, 1] and has width at 0 of n and n of
  n, which is where a gate decides. Wilson (1927), JASA 22:209. Of scores
  between 0 and 1 it is wider than need be: none of a mean p varies more than
  a yes or no does.

  Raises:
    ValueError: without any probe: an interval of nothing is not [0, 1].
  """
  if n < 1 or not 0 <= correct <= n:
    raise ValueError(f'wilson: {correct} correct of {n} probes.')
  p = correct / n
  centre = p + _Z95**2 / (2 * n)
  half = _Z95 * math.sqrt(p * (1 - p) / n + _Z95**2 / (4 * n * n))
  scale = 1 + _Z95**2 / n
  # Rounding can put an end past the estimate, or past 0 or 1, by an ulp.
  low = min((centre - half) / scale, p)
  high = max((centre + half) / scale, p)
  return max(low, 0.0), min(high, 1.0)


def mean_difference(
  after: Sequence[tuple[float, int]], before: Sequence[tuple[float, int]]
) -> tuple[float, float, float]:
  """A mean of differences of proportions, and its 95 % interval.

  Newcombe's hybrid score interval (1998, Statistics in Medicine 17:873, method
  10), its squared arms added over modules. Both sides are taken as independent,
  so for the same probes before and after it is wider than need be.

  Args:
    after, before: correct and number of probes, of each module.

  Raises:
    ValueError: without any module, or for a module without probes.
  """
  if not after or len(after) != len(before):
    raise ValueError(
      f'mean_difference: {len(after)} and {len(before)} modules.'
    )
  differences, lower, upper = [], 0.0, 0.0
  for (correct, n), (correct_0, n_0) in zip(after, before):
    p, p_0 = correct / n, correct_0 / n_0
    (low, high), (low_0, high_0) = wilson(correct, n), wilson(correct_0, n_0)
    differences.append(p - p_0)
    lower += (p - low) ** 2 + (high_0 - p_0) ** 2
    upper += (high - p) ** 2 + (p_0 - low_0) ** 2
  mean, k = sum(differences) / len(differences), len(differences)
  return mean, mean - math.sqrt(lower) / k, mean + math.sqrt(upper) / k


def bca(
  data: Sequence[np.ndarray],
  statistic: Callable[..., np.ndarray],
  *,
  seed: int,
  resamples: int,
) -> tuple[float, float] | None:
  """The 95 % BCa bootstrap interval of a statistic; None where it has none.

  Args:
    data: samples that are drawn again apart from each other.
    statistic: takes samples (..., n) and `axis`, the last one; gives (...).
  """
  from scipy import stats  # A second, which a run has no use for.

  options = dict(data=data, statistic=statistic, vectorized=True, axis=-1)
  drawn = stats.bootstrap(
    **options,
    n_resamples=resamples,
    method='percentile',
    rng=np.random.default_rng(seed),
  )
  values = drawn.bootstrap_distribution
  if np.ptp(values) < 1e-12:  # Nothing varies.
    return float(values[0]), float(values[0])
  ends = stats.bootstrap(
    **options, n_resamples=0, method='BCa', bootstrap_result=drawn
  ).confidence_interval
  if not np.isfinite(ends).all():
    return None
  return float(ends.low), float(ends.high)


def bootstrap_mean(
  values: Sequence[float], *, seed: int, resamples: int = 2000
) -> tuple[float, float] | None:
  """The 95 % BCa bootstrap interval of a mean over items; None for one item.

  For scores that are no single yes or no (ROUGE-L, pass@k from several
  samples). Items are drawn, not samples: answers to one item are not
  independent.

  Raises:
    ValueError: without any value.
  """
  if not len(values):
    raise ValueError('bootstrap_mean: no values.')
  if len(values) == 1:
    return None
  array = np.asarray(values, np.float64)
  return bca((array,), np.mean, seed=seed, resamples=resamples)


def swap_p(first: Sequence[float], second: Sequence[float]) -> float:
  """Two-sided p of paired values whose two sides are the same.

  Sides are swapped within pairs, in all ways up to 16 pairs and in 100,000
  drawn ones above. With n pairs nothing can be below 2 / 2**n: five reach
  0.0625.

  Raises:
    ValueError: without any pair, or with unequal numbers.
  """
  if not len(first) or len(first) != len(second):
    raise ValueError(
      f'swap_p: {len(first)} and {len(second)} values, wanted pairs.'
    )
  if len(first) == 1:  # Both ways to swap are as far from 0.
    return 1.0
  from scipy import stats  # See `bca`.

  found = stats.permutation_test(
    (np.asarray(first, np.float64), np.asarray(second, np.float64)),
    lambda x, y, axis: np.mean(x - y, axis=axis),
    permutation_type='samples',
    vectorized=True,
    n_resamples=100_000,
    batch=10_000,
    rng=np.random.default_rng(0),
  )
  return float(found.pvalue)
