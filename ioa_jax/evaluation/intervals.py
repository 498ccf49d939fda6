"""Probe outcomes to numbers with their uncertainty."""

from __future__ import annotations

from collections.abc import Sequence
import itertools
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


def bootstrap_mean(
  values: Sequence[float], *, seed: int, resamples: int = 2000
) -> tuple[float, float]:
  """The 95 % percentile bootstrap interval of a mean over items.

  For scores that are no single yes or no (ROUGE-L, pass@k from several
  samples). Items are drawn, not samples: answers to one item are not
  independent.

  Raises:
    ValueError: without any value.
  """
  if not len(values):
    raise ValueError('bootstrap_mean: no values.')
  array = np.asarray(values, np.float64)
  rng = np.random.default_rng(seed)
  # One resample at a time keeps memory at one row of indices.
  means = [
    array[rng.integers(0, len(array), len(array))].mean()
    for _ in range(resamples)
  ]
  low, high = np.quantile(means, (0.025, 0.975))
  return float(low), float(high)


def sign_flip(differences: Sequence[float]) -> float:
  """Two-sided exact p of paired differences whose mean would be 0.

  The share of all 2**n ways to turn their signs that are as far from 0. With n
  pairs nothing can be below 2 / 2**n: five seeds reach 0.0625.

  Raises:
    ValueError: without any pair, or with more than 20.
  """
  array = np.asarray(differences, np.float64)
  if not 1 <= len(array) <= 20:
    raise ValueError(f'sign_flip: {len(array)} pairs, wanted 1 to 20.')
  signs = np.array(list(itertools.product((-1, 1), repeat=len(array))))
  sums = np.abs(signs @ array)
  # Rounding must not make the observed sum smaller than itself.
  return float(np.mean(sums >= abs(array.sum()) - 1e-12))
