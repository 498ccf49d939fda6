"""How hard the problems are that a teacher is asked for.

A level is one of DIFFICULTIES. Where problems have numbers it is also a range
of sizes: the module's own problems, probes included, in three equal parts. So
what is asked for covers what is examined, for any number of lessons.
"""

from __future__ import annotations

import bisect
from collections.abc import Iterable, Sequence
import dataclasses
import re

from ioa_jax.adapter import Level
from ioa_jax.records import DIFFICULTIES

# Scores from which a student is beyond a level of DIFFICULTIES.
_BEYOND = (0.5, 0.8)
_NUMBER = re.compile(r'\d+(?:,\d{3})*(?:\.\d+)?')


def size(problem: str) -> float | None:
  """The largest number of a problem; None without any."""
  numbers = [float(n.replace(',', '')) for n in _NUMBER.findall(problem)]
  return max(numbers, default=None)


@dataclasses.dataclass(frozen=True)
class Difficulty:
  """One level as it is asked for.

  Attributes:
    tag: of DIFFICULTIES.
    says: the tag, with its sizes if there are any.
  """

  tag: str
  says: str


@dataclasses.dataclass(frozen=True)
class Scale:
  """The sizes of a module's problems.

  Attributes:
    bounds: the smallest size, and the largest of each level; () where half of
      the problems have no number.
  """

  bounds: tuple[float, ...]

  @classmethod
  def of(cls, problems: Iterable[str]) -> Scale:
    sizes = [size(p) for p in problems]
    known = sorted(s for s in sizes if s is not None)
    if not known or 2 * len(known) < len(sizes):
      return cls(())
    # The last of each part; parts are equal up to one.
    ends = [len(known) * (i + 1) // len(DIFFICULTIES) for i in range(3)]
    return cls((known[0], *(known[max(0, end - 1)] for end in ends)))

  def level(self, problem: str) -> str | None:
    """The smallest level that holds a problem; None if it has no size."""
    own = size(problem)
    if own is None or not self.bounds:
      return None
    place = bisect.bisect_left(self.bounds[1:], own)
    return DIFFICULTIES[min(place, len(DIFFICULTIES) - 1)]

  def difficulty(self, tag: str) -> Difficulty:
    """A level of DIFFICULTIES in words."""
    if not self.bounds:
      return Difficulty(tag, tag)
    place = DIFFICULTIES.index(tag)
    low, high = self.bounds[place : place + 2]
    return Difficulty(
      tag,
      f'{tag}, which here means that its largest number is between {low:.10g} '
      f'and {high:.10g}',
    )


def wanted(
  kind: str, level: Level, scale: Scale, count: int
) -> tuple[str, ...]:
  """The level of each of `count` lessons; neighbours differ where they can.

  Those of a stage begin where the student stands and reach the hardest; what
  it can do already teaches it nothing. A remedy is as large as what failed. A
  bridge is one notch above what the student can do. A rehearsal is of all
  levels, the same for any student.
  """
  # The student is beyond the levels before this one.
  stands = bisect.bisect_right(_BEYOND, level.score or 0.0)
  if kind == 'remedial':
    failed = [scale.level(w['prompt']) for w in level.wrong]
    levels = [name for name in failed if name is not None]
    if levels:
      return tuple(levels[i % len(levels)] for i in range(count))
  if kind == 'bridging':
    return (DIFFICULTIES[stands],) * count
  if kind == 'rehearsal':
    stands = 0
  return _spread(DIFFICULTIES[stands:], count)


def _spread(levels: Sequence[str], count: int) -> tuple[str, ...]:
  """All levels alike, or as many as there are lessons, the ends first."""
  last = len(levels) - 1
  if count > last:
    return tuple(levels[i % len(levels)] for i in range(count))
  if count == 1:
    return (levels[last // 2],)
  return tuple(levels[round(i * last / (count - 1))] for i in range(count))
