"""Token sequences to fixed rows: several per row, none seeing another.

Shapes: R rows, L row length.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
import dataclasses
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np


@dataclasses.dataclass(frozen=True)
class Example:
  """Tokens to read and tokens to learn; the stop token ends `completion`.

  Attributes:
    weights: of each token of `completion` in the loss, about 1 in the mean;
      None is 1 for all.
  """

  prompt: Sequence[int]
  completion: Sequence[int]
  weights: Sequence[float] | None = None


FIELDS = ('token', 'target', 'weight', 'segment', 'position')
# Of rows that a teacher has scored: its likeliest tokens at each position.
TEACHER_FIELDS = ('teacher_token', 'teacher_log_prob')
# And where it cuts text into other tokens: texts that it gives a probability
# as a whole, see `empty_rows`.
SPAN_FIELDS = ('span', 'span_log_prob')


def empty_rows(
  num_rows: int, length: int, top_k: int = 0, spans: bool = False
) -> dict[str, np.ndarray]:
  """Rows of padding: weight 0 and segment 0 everywhere.

  Args:
    top_k: with it rows have TEACHER_FIELDS too, (R, L, top_k): int32 ids and
      bfloat16 log-probabilities.
    spans: with it they have SPAN_FIELDS: where a token is a part of a span, 1 +
      the place in the row of its last token, and else 0, int32; and at the last
      token the teacher's log-probability of the whole, float32.
  """
  rows = {
    name: np.zeros((num_rows, length), np.int32)
    for name in FIELDS
    if name != 'weight'
  }
  rows['weight'] = np.zeros((num_rows, length), np.float32)
  if top_k:
    shape = (num_rows, length, top_k)
    token, log_prob = TEACHER_FIELDS
    rows[token] = np.zeros(shape, np.int32)
    rows[log_prob] = np.zeros(shape, jnp.bfloat16)
  if spans:
    rows['span'] = np.zeros((num_rows, length), np.int32)
    rows['span_log_prob'] = np.zeros((num_rows, length), np.float32)
  return rows


def pack(examples: Sequence[Example], length: int) -> dict[str, np.ndarray]:
  """Packs examples into as few rows as first-fit finds, in a fixed order.

  Token i of a row is trained to predict `target[i]`; `weight` is 0 where that
  target belongs to no completion, so prompts are read and not learned.

  Returns:
    `token`, `target`, `segment` (from 1; 0 is padding), `position` (from 0 in
    each segment), int32 of shape (R, L), and `weight`, float32 (R, L).

  Raises:
    ValueError: for an example that does not fit in one row; it would be cut in
      the middle of its answer.
  """
  free: list[int] = []
  members: list[list[Example]] = []
  open_rows: list[int] = []
  for i, example in enumerate(examples):
    size = len(example.prompt) + len(example.completion) - 1
    if size > length:
      raise ValueError(
        f'example {i} has {size} tokens, rows hold {length}; raise '
        'train.row_length or drop it.'
      )
    row = next((r for r in open_rows if free[r] >= size), None)
    if row is None:
      row = len(free)
      free.append(length)
      members.append([])
      # A window keeps packing linear; long-closed rows rarely fit anything.
      open_rows = [*open_rows[-15:], row]
    members[row].append(example)
    free[row] -= size
  rows = empty_rows(len(members), length)
  for r, packed in enumerate(members):
    start = 0
    for segment, example in enumerate(packed, 1):
      tokens = [*example.prompt, *example.completion]
      at = slice(start, start + len(tokens) - 1)
      rows['token'][r, at] = tokens[:-1]
      rows['target'][r, at] = tokens[1:]
      rows['segment'][r, at] = segment
      rows['position'][r, at] = np.arange(len(tokens) - 1)
      rows['weight'][r, start + len(example.prompt) - 1 : at.stop] = (
        1.0 if example.weights is None else example.weights
      )
      start = at.stop
  return rows


class Segment(NamedTuple):
  """A sequence in packed rows: `tokens[i + 1]` is predicted at `start + i`."""

  row: int
  start: int
  tokens: tuple[int, ...]


def segments(rows: dict[str, np.ndarray]) -> Iterator[Segment]:
  """The sequences, prompt and completion, that rows were packed from."""
  for r, segment in enumerate(rows['segment']):
    for s in range(1, segment.max(initial=0) + 1):
      at = np.flatnonzero(segment == s)
      # A token is there as what is read, but for the last one.
      last = int(rows['target'][r, at[-1]])
      yield Segment(r, int(at[0]), (*rows['token'][r, at].tolist(), last))


def unpack(rows: dict[str, np.ndarray]) -> list[tuple[int, ...]]:
  """The tokens of all `segments`."""
  return [segment.tokens for segment in segments(rows)]
