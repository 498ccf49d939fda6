"""Targets to stages a learner can climb: the paper's Eqs. 7 and 8."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
import itertools

import networkx as nx
import numpy as np

from ioa_jax.records import ZpdCheck


def generations(targets: Sequence[str], graph: nx.DiGraph) -> list[list[str]]:
  """Eq. 7: a module enters the first stage after all its prerequisites.

  Only prerequisites that are targets count; others are already known.
  Order within a stage is the order of `targets`.
  """
  subgraph = graph.subgraph(targets)
  return [
    [name for name in targets if name in set(generation)]
    for generation in nx.topological_generations(subgraph)
  ]


def zpd_check(
  before: float, after: float, *, tau_zpd: float, zpd: str
) -> ZpdCheck:
  """Eq. 8 as 'readiness' (default) or as 'literal'ly printed.

  Readiness limits how much harder the next stage may be:
  `before - after <= tau_zpd * before`. The printed sign limits how much easier.
  A learner that scores 0 on a stage has nothing left to lose on the next, and
  both sides are 0.
  """
  limit = tau_zpd * before
  change = before - after if zpd == 'readiness' else after - before
  return ZpdCheck(before, after, limit, change <= limit + 1e-9)


def build_stages(
  targets: Sequence[str],
  graph: nx.DiGraph,
  student_score: Mapping[str, float],
  *,
  tau_zpd: float,
  zpd: str,
  min_modules: int = 1,
) -> list[list[str]]:
  """Prerequisite stages, split by difficulty until Eq. 8 holds or cannot.

  A stage whose mean is too far below the stage before it is split at its
  largest fall of the student's score, easier half first; halves are checked
  again. A stage that breaks the limit and cannot be split stays (its lessons
  begin with bridging items), and `check_stages` reports the pair.

  Args:
    min_modules: smaller stages are merged with the next one, and no part of a
      split is smaller. With more than 1, prerequisites can share the stage of
      what stands on them; never a later one.
  """
  stages = _merged(generations(targets, graph), min_modules)
  index = 1
  while index < len(stages):
    check = zpd_check(
      _mean(stages[index - 1], student_score),
      _mean(stages[index], student_score),
      tau_zpd=tau_zpd,
      zpd=zpd,
    )
    if not check.holds and len(stages[index]) > 1:
      halves = _split(stages[index], graph, student_score, min_modules)
      if halves:
        stages[index : index + 1] = halves
        continue  # The easier half against the same stage before it.
    index += 1
  return stages


def reorder(
  stages: Sequence[Sequence[str]],
  order: str,
  length: Mapping[str, float],
  seed: int,
) -> list[list[str]]:
  """As many stages of the same sizes in another order, to compare with.

  Args:
    order: 'length', shortest first, or 'random'.
  """
  names = [name for stage in stages for name in stage]
  if order == 'random':
    np.random.default_rng(seed).shuffle(names)
  else:
    names.sort(key=lambda name: length[name])
  rest = iter(names)
  return [list(itertools.islice(rest, len(stage))) for stage in stages]


def check_stages(
  stages: Sequence[Sequence[str]],
  student_score: Mapping[str, float],
  *,
  tau_zpd: float,
  zpd: str,
) -> list[ZpdCheck]:
  """Eq. 8 for every neighbouring pair, after all splitting."""
  means = [_mean(s, student_score) for s in stages]
  return [
    zpd_check(a, b, tau_zpd=tau_zpd, zpd=zpd) for a, b in zip(means, means[1:])
  ]


def _mean(stage, score):
  return sum(score[k] for k in stage) / len(stage)


def _split(stage, graph, score, min_modules):
  """Two parts at the largest fall in score; None if there is none to cut.

  In a merged stage a cut must not put a prerequisite behind what needs it.
  """
  ranked = sorted(stage, key=lambda k: (-score[k], stage.index(k)))
  falls = {
    cut: score[ranked[cut - 1]] - score[ranked[cut]]
    for cut in range(min_modules, len(ranked) - min_modules + 1)
    if not any(
      graph.has_edge(harder, easier)
      for harder in ranked[cut:]
      for easier in ranked[:cut]
    )
  }
  if not falls or max(falls.values()) <= 0:
    return None
  cut = max(falls, key=falls.get)
  return [ranked[:cut], ranked[cut:]]


def _merged(stages, min_modules):
  """Too narrow stages joined to the next one, the last to the one before."""
  merged: list[list[str]] = []
  for stage in stages:
    if merged and len(merged[-1]) < min_modules:
      merged[-1] = merged[-1] + stage
    else:
      merged.append(stage)
  if len(merged) > 1 and len(merged[-1]) < min_modules:
    last = merged.pop()
    merged[-1] = merged[-1] + last
  return merged
