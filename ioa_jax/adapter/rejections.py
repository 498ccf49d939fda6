"""What became of lessons that were asked for and not kept."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from ioa_jax.adapter import Item
from ioa_jax.records import Lesson, Rejected


def count(rejected: Sequence[Rejected]) -> Counter[str]:
  """How many for each reason."""
  return Counter(r.reason for r in rejected)


def by_module(rejected: Sequence[Rejected]) -> dict[str, dict[str, int]]:
  """How many for each module and reason, most frequent first."""
  modules = dict.fromkeys(r.module for r in rejected)
  return {
    m: dict(count([r for r in rejected if r.module == m]).most_common())
    for m in modules
  }


def shortfalls(
  items: Sequence[Item],
  lessons: Sequence[Lesson],
  rejected: Sequence[Rejected],
  *,
  least_share: float,
) -> list[str]:
  """A line for each module that was left with too few lessons.

  Args:
    items: that were asked for.
    lessons, rejected: what came of them.
    least_share: of a module's items; with fewer kept it is named.
  """
  asked = Counter(i.seed.module for i in items)
  kept = Counter(lesson.module for lesson in lessons)
  reasons = by_module(rejected)
  return [
    f'{module}: {kept[module]} of {number} lessons could be kept ('
    + ', '.join(f'{n} {why}' for why, n in reasons.get(module, {}).items())
    + ').'
    for module, number in asked.items()
    if kept[module] < least_share * number
  ]
