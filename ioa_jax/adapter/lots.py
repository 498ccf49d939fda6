"""The items of a module in lots, of which each has some of every seed.

All lots together are what `Adapter.plan` plans, so a run that buys by need asks
for a part of what a run with a fixed supply asks for.
"""

from __future__ import annotations

from collections.abc import Sequence

from ioa_jax.adapter import Item


def take(items: Sequence[Item], number: int, items_per_seed: int) -> list[Item]:
  """The items of lot `number`, from 0, in their order.

  Plans go through the seeds again and again, from the easiest to the hardest.
  Each lot takes other rounds of every seed, so it has all levels as well.
  """
  seeds, rounds = _shape(items)
  return [
    item
    for place, item in enumerate(items)
    if (place // seeds + place % seeds) % rounds // items_per_seed == number
  ]


def count(items: Sequence[Item], items_per_seed: int) -> int:
  """How many lots there are."""
  return -(-_shape(items)[1] // items_per_seed)


def _shape(items: Sequence[Item]) -> tuple[int, int]:
  """Seeds, and rounds through them; 1 and 0 without items."""
  seeds = max(1, len({item.seed for item in items}))
  return seeds, -(-len(items) // seeds)
