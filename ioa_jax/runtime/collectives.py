"""Bytes that a compiled program moves between devices, read from its HLO.

`cost_analysis` counts the body of a loop once; here it counts as often as the
loop runs, where the program says that.
"""

from __future__ import annotations

import functools
import math
import re

_OPS = 'all-gather|all-reduce|reduce-scatter|all-to-all|collective-permute'
_BITS = {'pred': 8, 's4': 4, 'u4': 4}
_COMPUTATION = re.compile(r'^(?:ENTRY )?%?([\w.\-]+) .*\{$')
_INSTRUCTION = re.compile(
  r'^\s+(?:ROOT )?%?([\w.\-]+) = (.*?) ([a-z][\w\-]*)\('
)
_ARRAY = re.compile(r'\b([a-z]+\d*\w*)\[([\d,]*)\]')
_CALLEES = re.compile(
  r'(?:calls|to_apply|body|true_computation|false_computation)=%?([\w.\-]+)'
)
_BRANCHES = re.compile(r'branch_computations=\{([^}]*)\}')
_LIMIT = re.compile(r'= [su]32\[\]\S* constant\((\d+)\)')
_TRIPS = re.compile(r'"known_trip_count":\{"n":"(\d+)"')


def total_bytes(hlo: str) -> int:
  """Bytes of all collectives' operands or results, on one device.

  The larger of both is what crosses the links but for a factor near 1: what an
  all-gather makes, a reduce-scatter takes, an all-reduce keeps (which sends it
  about twice). Several arrays that go together count together. Of branches the
  costliest counts. A loop whose trip count is not in the program counts once:
  of a sampler, one token and a chunk of a prompt.

  Args:
    hlo: the text of a compiled program.

  Raises:
    ValueError: if it is not such a text.
  """
  bodies, entry = _computations(hlo)

  @functools.cache
  def moved(name: str) -> dict[str, int]:
    found: dict[str, int] = {}
    lines = bodies.get(name, ())
    shapes = _shapes(lines)
    for number, line in enumerate(lines):
      place = f'{name} {number}'
      for key, size in _moved(line, place, shapes, moved, bodies).items():
        # The parts of a collective that go on beside a loop are in its body as
        # well, and it is still one: its first and its last are outside.
        found[key] = min(size, found.get(key, size))
    return found

  return sum(moved(entry).values())


def _computations(hlo: str) -> tuple[dict[str, list[str]], str]:
  bodies: dict[str, list[str]] = {}
  entry = None
  for line in hlo.splitlines():
    if match := _COMPUTATION.match(line):
      lines = bodies[match[1]] = []
      entry = match[1] if line.startswith('ENTRY') else entry
    elif bodies:
      lines.append(line)
  if entry is None:
    raise ValueError('no ENTRY computation; wanted the text of compiled HLO.')
  return bodies, entry


def _shapes(lines: list[str]) -> dict[str, str]:
  """Instruction to the shape of its result."""
  matches = filter(None, map(_INSTRUCTION.match, lines))
  return {match[1]: match[2] for match in matches}


def _moved(line: str, place: str, shapes, moved, bodies) -> dict[str, int]:
  """Bytes by channel: the parts of an asynchronous collective share one.

  TPUs fuse each part with other work, and the collective is in all of them.
  """
  match = _INSTRUCTION.match(line)
  if not match:
    return {}
  _, shape, op = match.groups()
  if re.fullmatch(f'({_OPS})(-start)?', op):
    channel = re.search(r'channel_id=\d+', line)
    text = line[match.end() :].partition('), ')[0]
    names = re.findall(r'%([\w.\-]+)', text)
    known = ' '.join(shapes.get(name, '') for name in names)
    taken = _num_bytes(known) or _num_bytes(text)
    made = _num_bytes(shape)
    if op.endswith('-start') and shape.startswith('('):
      made -= taken  # It keeps its operands beside its results.
    return {channel[0] if channel else place: max(taken, made)}
  branches = _BRANCHES.search(line)
  names = re.findall(r'[\w.\-]+', branches[1]) if branches else []
  names += _CALLEES.findall(line)
  if op == 'conditional':
    return max(map(moved, names), key=lambda found: sum(found.values()))
  trips = _trips(line, bodies) if op == 'while' else 1
  found: dict[str, int] = {}
  for name in names:
    found |= {key: trips * size for key, size in moved(name).items()}
  return found


def _trips(line: str, bodies) -> int:
  """How often a loop runs: as annotated, or counted from 0 to a constant."""
  if known := _TRIPS.search(line):
    return int(known[1])
  condition = re.search(r'condition=%?([\w.\-]+)', line)
  text = '\n'.join(bodies.get(condition[1], ()))
  limits = _LIMIT.findall(text)
  counts = re.search(r'ROOT .* compare\(.*direction=LT', text)
  return int(limits[0]) if counts and len(limits) == 1 else 1


def _num_bytes(shape: str) -> int:
  """Of all arrays of a shape, which can be a tuple."""
  total = 0
  for dtype, dims in _ARRAY.findall(shape):
    bits = _BITS.get(dtype) or int(re.search(r'\d+', dtype)[0])
    total += math.prod(int(d) for d in dims.split(',') if d) * bits // 8
  return total
