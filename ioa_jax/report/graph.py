"""The prerequisite graph, drawn twice: layered for a desk, arcs for a phone.

Layered: a column per level, edges from left to right. An edge over several
levels gets an invisible node in each of them, so it passes between modules
instead of behind them. Nodes of a level are ordered by the mean position of
their neighbours (barycentre sweeps), keeping the order with fewest crossings.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
import itertools

from markupsafe import Markup

from ioa_jax.records import ModuleDiagnosis
from ioa_jax.report import svg

_NODE_WIDTH, _NODE_HEIGHT, _GAP_X = 176, 42, 74
_SLOT, _THIN_SLOT = 62, 26  # Heights of a module and of a passing edge.
_SWEEPS = 12
_ROW, _ARC_WIDTH = 34, 96

Modules = Mapping[str, ModuleDiagnosis]
Edge = tuple[str, str, float | None]


def layered(modules: Modules, edges: Sequence[Edge]) -> Markup:
  """Levels as columns; fixed size, for places that are wide enough."""
  columns, chains = _columns(modules, edges)
  columns = _untangle(columns, chains)
  position = _positions(columns)
  width = len(columns) * (_NODE_WIDTH + _GAP_X) - _GAP_X
  height = max(sum(_slot(n) for n in column) for column in columns)
  parts = [_edge(position, chains[i], e) for i, e in enumerate(edges)]
  parts += [
    _node(name, modules[name], *position[name])
    for column in columns
    for name in column
    if isinstance(name, str)
  ]
  return svg.tag(
    'svg',
    *parts,
    class_='graph-wide',
    viewBox=f'0 0 {width} {height:.0f}',
    role='img',
    aria_label=_in_words(edges),
    # Scaled down a little at most: below that its place scrolls.
    style=f'max-width:{width}px;min-width:{0.85 * width:.0f}px',
  )


def arcs(modules: Modules, edges: Sequence[Edge]) -> Markup:
  """Modules under one another by level; an arc from each prerequisite."""
  names = sorted(modules, key=lambda k: modules[k].level)
  y = {name: _ROW * (i + 0.5) for i, name in enumerate(names)}
  parts = []
  for start, end, _ in edges:
    # What leaves a module starts below its middle, what arrives ends above.
    a, b = y[start] + 4, y[end] - 3
    reach = min(_ARC_WIDTH - 20, 12 + 0.34 * abs(b - a))
    x = _ARC_WIDTH
    parts.append(
      svg.tag(
        'path',
        d=f'M{x} {a}C{x - reach * 1.3:.1f} {a} '
        f'{x - reach * 1.3:.1f} {b} {x} {b}',
        class_='edge',
      )
    )
    # The head tells which end depends on the other.
    parts.append(svg.tag('path', d=f'M{x} {b}l-7 -3.5v7Z', class_='edge-head'))
  for name in names:
    status = modules[name].status
    parts.append(
      svg.tag(
        'circle', cx=_ARC_WIDTH + 7, cy=y[name], r=6, class_=f'node {status}'
      )
    )
    category, _, leaf = name.rpartition('/')
    below = f'{_short(category, 22)} · {status}' if category else status
    # What fits beside the arcs on a phone.
    for text, down, class_ in (
      (_short(leaf or name, 30), 1, 'label'),
      (below, 13, 'tiny'),
    ):
      parts.append(
        svg.tag(
          'text',
          text,
          svg.tag('title', name),
          x=_ARC_WIDTH + 20,
          y=y[name] + down,
          class_=class_,
        )
      )
  return svg.tag(
    'svg',
    *parts,
    class_='graph-narrow',
    width='100%',
    role='img',
    height=_ROW * len(names),
    aria_label=_in_words(edges),
  )


def _in_words(edges):
  words = '; '.join(f'{end} needs {start}' for start, end, _ in edges)
  return 'Prerequisite graph. ' + (words or 'No edges.')


def _columns(modules, edges):
  """Names by level, and for each edge the nodes it passes through.

  A passing edge is the pair (edge index, column index).
  """
  levels = sorted({m.level for m in modules.values()})
  column_of = {k: levels.index(m.level) for k, m in modules.items()}
  columns = [
    [k for k in modules if column_of[k] == c] for c in range(len(levels))
  ]
  chains = []
  for i, (start, end, _) in enumerate(edges):
    between = [(i, c) for c in range(column_of[start] + 1, column_of[end])]
    for node in between:
      columns[node[1]].append(node)
    chains.append([start, *between, end])
  return columns, chains


def _untangle(columns, chains):
  """Fewest crossings seen in a fixed number of sweeps, both directions."""
  links = [pair for chain in chains for pair in itertools.pairwise(chain)]
  best = columns = [list(c) for c in columns]
  fewest = _crossings(columns, links)
  for sweep in range(_SWEEPS):
    order = range(len(columns)) if sweep % 2 else range(len(columns))[::-1]
    columns = [list(c) for c in columns]
    for c in order:
      height = _relative_heights(columns)
      columns[c].sort(key=lambda node: _barycentre(node, links, height))
    crossings = _crossings(columns, links)
    if crossings < fewest:
      best, fewest = columns, crossings
  return best


def _relative_heights(columns):
  return {
    node: (i + 0.5) / len(column)
    for column in columns
    for i, node in enumerate(column)
  }


def _barycentre(node, links, height):
  near = [height[b] for a, b in links if a == node]
  near += [height[a] for a, b in links if b == node]
  return sum(near) / len(near) if near else height[node]


def _crossings(columns, links):
  column = {n: c for c, nodes in enumerate(columns) for n in nodes}
  rank = {n: i for nodes in columns for i, n in enumerate(nodes)}
  return sum(
    (rank[a] - rank[c]) * (rank[b] - rank[d]) < 0
    for (a, b), (c, d) in itertools.combinations(links, 2)
    if column[a] == column[c] and column[b] == column[d]
  )


def _slot(node):
  return _SLOT if isinstance(node, str) else _THIN_SLOT


def _positions(columns):
  """Left edge and vertical middle of every node; columns are centred."""
  tallest = max(sum(_slot(n) for n in column) for column in columns)
  position = {}
  for c, column in enumerate(columns):
    y = (tallest - sum(_slot(n) for n in column)) / 2
    for node in column:
      position[node] = c * (_NODE_WIDTH + _GAP_X), y + _slot(node) / 2
      y += _slot(node)
  return position


def _edge(position, chain, edge):
  x, y = position[chain[0]]
  x += _NODE_WIDTH
  path = f'M{x} {y:.1f}'
  for node in chain[1:]:
    to_x, to_y = position[node]
    middle = (x + to_x) / 2
    path += f'C{middle} {y:.1f} {middle} {to_y:.1f} {to_x} {to_y:.1f}'
    x, y = to_x, to_y
    if node != chain[-1]:
      x += _NODE_WIDTH
      path += f'H{x}'
  start, end, strength = edge
  title = f'{end} needs {start}'
  parts = [svg.tag('path', svg.tag('title', title), d=path, class_='edge')]
  parts.append(
    svg.tag('path', d=f'M{x} {y:.1f}l-9 -4.5v9Z', class_='edge-head')
  )
  if strength is not None:
    # Beside the head, where edges are already apart.
    parts.append(
      svg.tag(
        'text',
        f'{strength:.2f}',
        x=x - 12,
        y=round(y - 6, 1),
        text_anchor='end',
        class_='tiny halo',
      )
    )
  return Markup('').join(parts)


def _node(name, module, x, y):
  category, _, leaf = name.rpartition('/')
  status = module.status
  title = f'{name}: {module.description} ({status})'
  return svg.tag(
    'g',
    svg.tag('title', title),
    svg.tag(
      'rect',
      x=x + 0.75,
      y=round(y - _NODE_HEIGHT / 2, 1),
      width=_NODE_WIDTH - 1.5,
      height=_NODE_HEIGHT,
      rx=8,
      class_=f'node {status}',
    ),
    svg.tag(
      'text',
      _short(leaf or name),
      x=x + 12,
      y=round(y - 2, 1),
      class_='node-name',
    ),
    svg.tag(
      'text',
      f'{_short(category, 14)} · {status}' if category else status,
      x=x + 12,
      y=round(y + 13, 1),
      class_='tiny',
    ),
  )


def _short(text, limit=17):
  return text if len(text) <= limit else text[: limit - 1] + '…'
