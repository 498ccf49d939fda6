"""A teacher with another tokenizer scores a student's packed rows.

Shapes: R rows of the student's, L their length; T the k tokens that are kept.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import jax
import numpy as np

from ioa_jax.models import decoder
from ioa_jax.training import alignment, distillation, losses, packing

Rows = dict[str, np.ndarray]


class _Scored(NamedTuple):
  """What the teacher thinks at each place of one text that it has read."""

  token: np.ndarray
  log_prob: np.ndarray
  target_log_prob: np.ndarray


class SpanScorer:
  """A teacher that reads each text in its own tokens: one program a length.

  Where one token of the student's is one of the teacher's, rows get its
  likeliest tokens as `distillation.Scorer` gives them, as far as the student
  has them; other spans of equal text get one probability.

  Attributes:
    alone_V: tokens of the student that the teacher does not have, bool.

  Args:
    batch_rows: rows that are read at once, over all devices.
    ranked: keep the probabilities of tokens that the student does not have, as
      events of no token: see `distillation.student_events`.
    counted: gets the tokens that the teacher reads, as 'teacher_scored'.
  """

  def __init__(
    self,
    config: decoder.DecoderConfig,
    params: decoder.Params,
    student: alignment.Tokenization,
    teacher: alignment.Tokenization,
    *,
    k: int,
    batch_rows: int,
    ranked: bool = False,
    counted: Counter[str] | None = None,
  ):
    self._max_positions = config.max_positions
    self._params = params
    self._batch_rows = batch_rows
    self._k = k
    self._align = alignment.Alignment(student, teacher)
    self._stop_tokens = frozenset(student.codec.stop_tokens)
    self._counted = Counter() if counted is None else counted
    self._own = alignment.counterparts(student, teacher)
    self.alone_V = np.asarray([piece is not None for piece in student.pieces])
    self.alone_V[self._own[self._own >= 0]] = False
    self._ranks = int(self.alone_V.sum()) if ranked else 0

    def score(params, rows):
      hidden = decoder.forward(
        config, params, rows['token'], rows['segment'], rows['position']
      )

      def of_piece(logits, target):
        nll = losses.negative_log_likelihood(logits, target)
        return *distillation.top_k(logits, k), -nll

      return losses.map_pieces(
        config, params, hidden, of_piece, (rows['target'],)
      )

    self._score: Callable = jax.jit(score)

  @property
  def compilations(self) -> int:
    return self._score._cache_size()

  def __call__(self, rows: Rows) -> Rows:
    """`rows` of `packing.pack` with the fields of teacher and spans."""
    count, length = rows['token'].shape
    found = {
      name: value
      for name, value in packing.empty_rows(
        count, length, self._k, spans=True
      ).items()
      if name in (*packing.TEACHER_FIELDS, *packing.SPAN_FIELDS)
    }
    found['teacher_token'][:] = -1
    found['teacher_log_prob'][:] = distillation.NEVER
    read = [
      (text, split, self._align(text.tokens[:split], text.tokens[split:]))
      for text, split in _split(rows)
    ]
    scored = self._read([reading for _, _, reading in read], length)
    for text, split, reading in read:
      row = {name: value[text.row] for name, value in found.items()}
      # The completion's first token is predicted here.
      at = text.start + split - 1
      self._put(row, at, text.tokens[split:], reading, scored[reading.tokens])
    return rows | found

  def _put(
    self,
    row: Rows,
    at: int,
    completion: Sequence[int],
    reading: alignment.Reading,
    scored: _Scored,
  ) -> None:
    """Writes what the teacher thinks of each span of one text."""
    first = len(reading.prompt) - 1
    places, teacher_places = [], []
    for start, stop, teacher_start, teacher_stop in reading.spans:
      last = at + stop - 1
      their = slice(first + teacher_start, first + teacher_stop)
      single = (stop - start, teacher_stop - teacher_start) == (1, 1)
      teacher_token = reading.completion[teacher_start]
      if single and self._same(completion[start], teacher_token):
        places.append(last)
        teacher_places.append(their.start)
      else:
        row['span'][at + start : last + 1] = last + 1
        row['span_log_prob'][last] = scored.target_log_prob[their].sum()
    own = self._own[scored.token[teacher_places]]
    kept = own >= 0
    kept |= np.cumsum(~kept, axis=-1) <= self._ranks
    row['teacher_token'][places] = own
    row['teacher_log_prob'][places] = np.where(
      kept, scored.log_prob[teacher_places], distillation.NEVER
    )

  def _same(self, token: int, teacher_token: int) -> bool:
    """Whether it is the teacher's own token, or both end the answer."""
    return token in self._stop_tokens or self._own[teacher_token] == token

  def _read(self, readings, length: int) -> dict[tuple[int, ...], _Scored]:
    """The teacher's scores of texts by their tokens."""
    # In the order of the rows: texts that are cut alike are packed alike.
    texts = {r.tokens: r for r in readings}
    if not texts:
      return {}
    length = self._length(max(map(len, texts)) - 1, length)
    packed = packing.pack(
      [packing.Example(r.prompt, r.completion) for r in texts.values()],
      length,
    )
    self._counted['teacher_scored'] += int((packed['segment'] > 0).sum())
    scored = distillation.in_batches(
      lambda part: self._score(self._params, part), packed, self._batch_rows
    )
    return {
      s.tokens: _Scored(
        *(x[s.row, s.start : s.start + len(s.tokens) - 1] for x in scored)
      )
      for s in packing.segments(packed)
    }

  def _length(self, longest: int, length: int) -> int:
    """Of the teacher's rows: the student's, doubled until all texts fit."""
    while length < longest:
      length *= 2
    if self._max_positions and longest > self._max_positions:
      raise ValueError(
        f'a text of a row has {longest} tokens of the teacher, which reads '
        f'{self._max_positions} at most; lower config.train.row_length.'
      )
    return length


def _split(rows: Rows) -> Iterator[tuple[packing.Segment, int]]:
  """Every text with the number of tokens of its prompt."""
  for segment in packing.segments(rows):
    end = segment.start + len(segment.tokens) - 1
    learned = np.flatnonzero(rows['weight'][segment.row, segment.start : end])
    if learned.size:
      yield segment, int(learned[0]) + 1
