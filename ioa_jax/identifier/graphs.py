"""One prerequisite graph out of several: the record `dependency`.

Every graph that is known is kept beside the chosen one, with how far they
agree: where two ways to find out disagree, a person should look.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
import dataclasses
import itertools

import networkx as nx
import numpy as np

from ioa_jax.identifier import dependency
from ioa_jax.records import (
  Agreement,
  Dependency,
  Edge,
  GraphRecord,
  KnowledgeModule,
  PairEstimate,
  StrongEdge,
)

_NOTES = {
  'given': "The domain's own prerequisites; their strength is not measured.",
  'teacher': 'Proposed by the teacher; their strength is not measured.',
  'conditional': 'Eq. 3 on the learner panel: learners who know the first '
  'module against those who do not. Confounded by whatever helps with both.',
  'interventional': 'Taught the first module against not taught it, among '
  'learners who are taught the second; exposure was drawn at random.',
}


@dataclasses.dataclass(frozen=True)
class Graph:
  """Prerequisites from one source.

  Attributes:
    strengths: None where an edge is known to exist and was not measured.
    removed: edges that went to break cycles.
    undefined: pairs that had too little evidence for an estimate.
    pairs: what was estimated of each pair, for people and later analysis.
  """

  strengths: Mapping[dependency.Edge, float | None]
  removed: Sequence[dependency.Edge] = ()
  undefined: int = 0
  pairs: Sequence[PairEstimate] = ()


def stated(edges: Sequence[dependency.Edge], names: Sequence[str]) -> Graph:
  """A graph that somebody states, of edges without strengths.

  Raises:
    ValueError: for an edge of an unknown module, or a self-loop.
  """
  for edge in edges:
    if unknown := sorted(set(edge) - set(names)):
      raise ValueError(
        f'dependency {edge[0]!r} -> {edge[1]!r}: {unknown} are not modules; '
        f'the modules are {sorted(names)}.'
      )
  kept, removed = dependency.break_cycles(dict.fromkeys(edges, 1.0))
  return Graph(dict.fromkeys(kept), removed)


def measured(
  contrast: dependency.Contrast,
  names: Sequence[str],
  *,
  tau: float,
  needs_interval: bool,
) -> Graph:
  """The edges of an estimate, without cycles.

  Raises:
    ValueError: if no pair at all could be estimated.
  """
  undefined = int(np.isnan(contrast.strength).sum()) - len(names)
  if undefined == len(names) * (len(names) - 1):
    raise ValueError(
      'no pair of modules has enough learners on both sides, as when all know '
      'everything or nothing. Raise identifier.panel.learners, change '
      'identifier.panel.steps_per_snapshot, or set identifier.dependency to '
      "'given'."
    )
  found = dependency.edges(
    contrast.strength,
    names,
    tau=tau,
    low_KxK=contrast.interval[0] if needs_interval else None,
  )
  kept, removed = dependency.break_cycles(found)
  pairs = [
    PairEstimate(
      names[i],
      names[j],
      float(contrast.strength[i, j]),
      ci95=contrast.interval[:, i, j].tolist(),
      effect=float(contrast.effect[i, j]),
      learners=contrast.learners[:, i, j].tolist(),
    )
    for i, j in np.argwhere(~np.isnan(contrast.strength))
  ]
  return Graph(kept, removed, undefined, pairs)


def record(graphs: Mapping[str, Graph], source: str) -> Dependency:
  """`dependency` of diagnosis.json: the chosen graph, then all of them.

  Raises:
    ValueError: if the chosen graph is not among those known.
  """
  if source not in graphs:
    raise ValueError(
      f'identifier.dependency is {source!r}, and only {sorted(graphs)} could '
      'be had; choose one of them.'
    )
  names = sorted({n for g in graphs.values() for e in g.strengths for n in e})
  candidates = list(itertools.permutations(names, 2))
  recorded = {
    name: GraphRecord(
      edges=tuple(StrongEdge(a, b, s) for (a, b), s in graph.strengths.items()),
      removed=tuple(Edge(a, b) for a, b in graph.removed),
      undefined=graph.undefined,
      pairs=tuple(graph.pairs),
    )
    for name, graph in graphs.items()
  }
  return Dependency(
    source=source,
    note=_NOTES[source],
    edges=recorded[source].edges,
    removed=recorded[source].removed,
    graphs=recorded,
    agreement=tuple(
      Agreement(
        first=a,
        second=b,
        **dependency.agreement(
          list(graphs[a].strengths), list(graphs[b].strengths), candidates
        ),
      )
      for a, b in itertools.combinations(graphs, 2)
    ),
  )


def apply(
  modules: Sequence[KnowledgeModule], edges: Sequence[dependency.Edge]
) -> tuple[KnowledgeModule, ...]:
  """The modules with the prerequisites and levels of an acyclic graph."""
  graph = nx.DiGraph()
  graph.add_nodes_from(m.name for m in modules)
  graph.add_edges_from(edges)
  level = {
    name: depth
    for depth, names in enumerate(nx.topological_generations(graph))
    for name in names
  }
  order = [m.name for m in modules]
  return tuple(
    dataclasses.replace(
      m,
      level=level[m.name],
      prerequisites=tuple(sorted(graph.predecessors(m.name), key=order.index)),
    )
    for m in modules
  )
