"""Which module stands on which, estimated from a learner panel.

Two contrasts of P(j), each a difference of two conditional means:

  conditional     r_i >= tau_high   against  r_i < tau_low          (Eq. 3)
  interventional  i and j taught    against  j taught without i

The first is observational, and whatever makes a learner good at both modules
makes an edge. In the second the exposure was drawn at random.

Sums and counts are kept for each learner, so a bootstrap over learners is one
matrix product. Snapshots of one learner are not independent: learners are what
is counted and drawn again, never snapshots.

Shapes: N learners, T snapshots, K modules; [i, j] is the edge from i to j.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
import dataclasses

import networkx as nx
import numpy as np

Edge = tuple[str, str]
MEASURED = ('conditional', 'interventional')
_RESAMPLES = 1000


@dataclasses.dataclass(frozen=True)
class Contrast:
  """Estimates for all ordered pairs, each (K, K), nan where undefined.

  Attributes:
    high, low: mean P(j) on the two sides.
    strength: (high - low) / (high + epsilon), Eq. 3.
    interval: (2, K, K), 95 % percentile bootstrap of `strength`.
    learners: (2, K, K), distinct learners on the two sides.
  """

  high: np.ndarray
  low: np.ndarray
  strength: np.ndarray
  interval: np.ndarray
  learners: np.ndarray

  @property
  def effect(self) -> np.ndarray:
    """high - low, in units of P(j)."""
    return self.high - self.low


def conditional(
  score_NxTxK: np.ndarray,
  teacher_K: np.ndarray,
  *,
  tau_high: float,
  tau_low: float,
  min_learners: int,
  epsilon: float,
  seed: int,
) -> Contrast:
  """Eq. 3 over all learners and snapshots.

  Args:
    teacher_K: P_T; a module where it is 0 has no r_i and no edge.
    min_learners: fewer on either side leave a cell undefined.
  """
  with np.errstate(divide='ignore', invalid='ignore'):
    ratio_NxTxK = np.where(teacher_K > 0, score_NxTxK / teacher_K, np.nan)
  sides = [ratio_NxTxK >= tau_high, ratio_NxTxK < tau_low]
  return _contrast(
    [s[..., None] & np.ones_like(s)[:, :, None] for s in sides],
    score_NxTxK,
    min_learners,
    epsilon,
    seed,
  )


def interventional(
  score_NxTxK: np.ndarray,
  exposure_NxK: np.ndarray,
  *,
  min_learners: int,
  epsilon: float,
  seed: int,
) -> Contrast:
  """The effect on P(j) of teaching i to learners who are taught j."""
  n, t, k = score_NxTxK.shape
  taught_j = exposure_NxK[:, None, :]
  over_time = lambda x: np.broadcast_to(x[:, None], (n, t, k, k))
  return _contrast(
    [
      over_time(exposure_NxK[:, :, None] & taught_j),
      over_time(~exposure_NxK[:, :, None] & taught_j),
    ],
    score_NxTxK,
    min_learners,
    epsilon,
    seed,
  )


def _contrast(sides, score_NxTxK, min_learners, epsilon, seed) -> Contrast:
  n, _, k = score_NxTxK.shape
  sums, counts, learners = [], [], []
  for side_NxTxKxK in sides:
    sums.append(
      np.einsum('ntij,ntj->nij', side_NxTxKxK.astype(float), score_NxTxK)
    )
    counts.append(side_NxTxKxK.sum(axis=1).astype(float))
    learners.append(side_NxTxKxK.any(axis=1).sum(axis=0))
  learners = np.stack(learners)
  defined = (learners >= min_learners).all(axis=0) & ~np.eye(k, dtype=bool)

  def means(weight_RxN):
    with np.errstate(divide='ignore', invalid='ignore'):
      return [
        np.tensordot(weight_RxN, s, 1) / np.tensordot(weight_RxN, c, 1)
        for s, c in zip(sums, counts)
      ]

  relative = lambda high, low: (high - low) / (high + epsilon)
  high, low = (m[0] for m in means(np.ones((1, n))))
  rng = np.random.default_rng(seed)
  weight_RxN = rng.multinomial(n, np.full(n, 1 / n), _RESAMPLES).astype(float)
  drawn = relative(*means(weight_RxN))
  # A resample without anyone on one side says nothing of this cell.
  interval = np.full((2, k, k), np.nan)
  interval[:, defined] = np.nanquantile(
    drawn[:, defined], (0.025, 0.975), axis=0
  )
  blank = lambda x: np.where(defined, x, np.nan)
  return Contrast(
    blank(high), blank(low), blank(relative(high, low)), interval, learners
  )


def correlation(score_NxTxK: np.ndarray) -> np.ndarray:
  """Pearson's r of P(i) and P(j), kept where i is the easier; else nan.

  The baseline that a panel must beat: it knows nothing of exposure.
  """
  flat = score_NxTxK.reshape(-1, score_NxTxK.shape[-1])
  with np.errstate(divide='ignore', invalid='ignore'):
    r_KxK = np.corrcoef(flat, rowvar=False)
  mean_K = flat.mean(axis=0)
  return np.where(mean_K[:, None] > mean_K[None, :], r_KxK, np.nan)


def edges(
  strength_KxK: np.ndarray,
  names: Sequence[str],
  *,
  tau: float,
  low_KxK: np.ndarray | None = None,
) -> dict[Edge, float]:
  """Pairs above the threshold.

  Args:
    low_KxK: lower ends of intervals, if an edge also needs one above 0.
  """
  with np.errstate(invalid='ignore'):
    chosen = strength_KxK > tau
    if low_KxK is not None:
      chosen &= low_KxK > 0
  return {
    (names[i], names[j]): float(strength_KxK[i, j])
    for i, j in np.argwhere(chosen)
  }


def break_cycles(
  strengths: Mapping[Edge, float],
) -> tuple[dict[Edge, float], list[Edge]]:
  """Removes the weakest edge of each cyclic part until no cycle is left.

  Returns:
    The edges that stay, and those removed, in order of removal.

  Raises:
    ValueError: for a self-loop: no module is its own prerequisite.
  """
  for a, b in strengths:
    if a == b:
      raise ValueError(f'dependency {a!r} -> {b!r} is a self-loop; remove it.')
  kept, removed = dict(strengths), []
  while True:
    parts = [
      part
      for part in nx.strongly_connected_components(nx.DiGraph(list(kept)))
      if len(part) > 1
    ]
    if not parts:
      return kept, removed
    for part in sorted(parts, key=min):
      inside = [e for e in kept if e[0] in part and e[1] in part]
      # Ties go to the later name, so the choice is reproducible.
      weakest = min(sorted(inside, reverse=True), key=lambda e: kept[e])
      del kept[weakest]
      removed.append(weakest)


def agreement(
  estimated: Sequence[Edge],
  true: Sequence[Edge],
  candidates: Sequence[Edge],
) -> dict[str, float | int | None]:
  """Precision, recall and F1 of "must come before", over candidate pairs.

  Both graphs are closed first: an order is what the curriculum takes from a
  graph, a panel measures total effects, and so an edge that is implied counts
  like one that is drawn. None where nothing was to be found.
  """
  found = _closed(estimated) & set(candidates)
  wanted = _closed(true) & set(candidates)
  hits = len(found & wanted)
  ratio = lambda a, b: a / b if b else None
  return {
    'precision': ratio(hits, len(found)),
    'recall': ratio(hits, len(wanted)),
    'f1': ratio(2 * hits, len(found) + len(wanted)),
    'found': len(found),
    'wanted': len(wanted),
    'hits': hits,
  }


def _closed(pairs) -> set[Edge]:
  return set(nx.transitive_closure(nx.DiGraph(list(pairs))).edges)
