"""Probe scores to what should be taught: the paper's Eqs. 2, 4, 5, 6.

Small dictionaries keyed by module name; nothing here touches an accelerator.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
import math

import networkx as nx

from ioa_jax.records import KnowledgeModule, Score

Edge = tuple[str, str]


def gap(teacher: Score, student: Score) -> float | None:
  """Eq. 2: the share of the teacher's score that the student lacks, in [0, 1].

  None marks an unteachable module: the teacher scores 0, or there is no
  measurement of either. It is reported and excluded, never taken for a pass.
  """
  if not teacher.correct or not student.n:
    return None
  return max(0.0, (teacher.mean - student.mean) / teacher.mean)


def severity(
  gaps: Mapping[str, float],
  strengths: Mapping[Edge, float | None],
  alpha: float,
) -> dict[str, float]:
  """Eq. 4: `alpha * gap + (1 - alpha) * mean strength to dependents`.

  Args:
    gaps: teachable modules only.
    strengths: Dep(i -> j) for the edges of the graph. If any is None (known
      to exist, not measured) all modules are ranked by their gaps alone, which
      is Eq. 4 with alpha = 1: mixing the two would favour whatever happens to
      lack a number.
  """
  if any(s is None for s in strengths.values()):
    alpha = 1.0
  found = {}
  for name, value in gaps.items():
    outgoing = [s for (i, _), s in strengths.items() if i == name]
    mean = sum(outgoing) / len(outgoing) if outgoing and alpha < 1 else 0.0
    found[name] = alpha * value + (1 - alpha) * mean
  return found


def select_targets(
  gaps: Mapping[str, float],
  severities: Mapping[str, float],
  modules: Sequence[KnowledgeModule],
  *,
  tau_gap: float,
  target_share: float,
) -> tuple[list[str], list[str]]:
  """Eqs. 5 and 6: the deficient modules, and those to teach in this round.

  The top `target_share` of the deficient by severity, with every deficient
  prerequisite of a target, in the domain's order.
  """
  order = [m.name for m in modules]
  deficient = [k for k in order if gaps.get(k, 0.0) > tau_gap]
  # Ties go to the earlier module, so the choice is reproducible.
  ranked = sorted(deficient, key=lambda k: (-severities[k], order.index(k)))
  chosen = set(ranked[: math.ceil(target_share * len(ranked))])
  graph = prerequisite_graph(modules)
  for name in list(chosen):
    chosen |= nx.ancestors(graph, name) & set(deficient)
  return deficient, [k for k in order if k in chosen]


def prerequisite_graph(modules: Sequence[KnowledgeModule]) -> nx.DiGraph:
  """Edges from prerequisite to dependent.

  Raises:
    ValueError: for an unknown prerequisite, a self-loop or a cycle.
  """
  graph = nx.DiGraph()
  graph.add_nodes_from(m.name for m in modules)
  for module in modules:
    for prerequisite in module.prerequisites:
      if prerequisite not in graph or prerequisite == module.name:
        raise ValueError(
          f'{module.name}: prerequisite {prerequisite!r} is '
          + ('itself.' if prerequisite == module.name else 'not a module.')
        )
      graph.add_edge(prerequisite, module.name)
  if not nx.is_directed_acyclic_graph(graph):
    cycle = ' -> '.join(a for a, _ in nx.find_cycle(graph))
    raise ValueError(f'prerequisites form a cycle: {cycle}. Remove one edge.')
  return graph
