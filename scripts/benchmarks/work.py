"""The training that is measured, and how long its texts are."""

from __future__ import annotations

import dataclasses

import numpy as np


@dataclasses.dataclass(frozen=True, kw_only=True)
class Work:
  """What every side is given to do.

  Attributes:
    mlp: width of the feed-forward layers.
    length, rows: tokens of a row, and rows of a batch.
    steps: optimizer steps of a turn, which is one window, as a run has them.
    lessons: tokens of each lesson; full rows without them.
  """

  layers: int
  width: int
  heads: int
  mlp: int
  vocab: int
  length: int
  rows: int
  steps: int
  lessons: tuple[int, ...] = ()

  def texts(self) -> list[int]:
    """Lengths of the benchmark's texts, the same for all sides."""
    if not self.lessons:
      return [self.length] * NUM_LESSONS
    rng = np.random.default_rng(1)
    some = rng.choice(self.lessons, NUM_LESSONS, replace=False)
    return np.minimum(some, self.length).tolist()


SHAPES = {
  '27m': Work(
    layers=8,
    width=512,
    heads=8,
    mlp=1376,
    vocab=8192,
    length=512,
    rows=8,
    steps=4,
  ),
  'quickstart': Work(
    layers=3,
    width=64,
    heads=4,
    mlp=128,
    vocab=64,
    length=64,
    rows=16,
    steps=100,
  ),
}
NUM_LESSONS = 64
PRODUCT = 2048  # The side of the matrices whose product is the peak.
