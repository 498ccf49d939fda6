"""What a teacher with another tokenizer reads where its student reads a text.

Both cut the same text into tokens. A boundary is common where tokens of both
end at the same byte; between two neighbouring ones lies a span, the least text
that both write in whole tokens. Spans of one token on each side are compared as
tokens, others by the probability of their text (docs/method.md).

Shapes: V_s, V_t tokens of student and teacher.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
import itertools
from typing import NamedTuple

import numpy as np
import tokenizers

from ioa_jax.models import token_bytes, vocabulary


class Span(NamedTuple):
  """Equal text: tokens [start, stop) of the student's and of the teacher's."""

  start: int
  stop: int
  teacher_start: int
  teacher_stop: int


def common_spans(
  ends: Sequence[int | None], teacher_ends: Sequence[int | None]
) -> list[Span]:
  """The finest spans whose ends are common.

  Args:
    ends: where each of the student's tokens ends in the text, in bytes; None
      where that is at no byte of what the teacher reads.
    teacher_ends: likewise of the teacher's.
  """
  # A token without bytes belongs to the span before it.
  last = {end: i for i, end in enumerate(ends, 1)}
  teacher_last = {end: i for i, end in enumerate(teacher_ends, 1)}
  spans, start, teacher_start = [], 0, 0
  for end in sorted((last.keys() & teacher_last.keys()) - {None}):
    spans.append(Span(start, last[end], teacher_start, teacher_last[end]))
    start, teacher_start = last[end], teacher_last[end]
  return spans


class Tokenization:
  """How one model cuts text.

  Attributes:
    codec: how it reads questions and writes answers.
    pieces: the bytes of every id, see `token_bytes.pieces`.
    end: the token that it ends an answer with.

  Args:
    rows: of its embedding, which can be more than there are tokens.
  """

  def __init__(
    self, tokenizer: tokenizers.Tokenizer, codec: vocabulary.Codec, rows: int
  ):
    self.codec = codec
    self.pieces = token_bytes.pieces(tokenizer)
    self.pieces += [None] * (rows - len(self.pieces))
    self.end = codec.answer('')[-1]
    self.normalised = token_bytes.normaliser(tokenizer)
    self._vocabulary = tokenizer.get_vocab(with_added_tokens=True)

  def known(self, tokens: Sequence[int]) -> list[bytes]:
    """The bytes of tokens, up to the first that has none."""
    found = (self.pieces[i] for i in tokens)
    return list(itertools.takewhile(lambda piece: piece is not None, found))

  def named(self) -> dict[tuple[str, bytes], list[int]]:
    """Ids by what they stand for.

    Where several stand for the same text, lone bytes come last.
    """
    order = sorted(
      self._vocabulary.items(), key=lambda x: (token_bytes.is_byte(x[0]), x[1])
    )
    found = defaultdict(list)
    for token, i in order:
      piece = self.pieces[i]
      if i == self.end:
        found['end', b''].append(i)
      elif piece is None:
        found['control', token.encode()].append(i)
      else:
        found['text', piece].append(i)
    return found


def counterparts(student: Tokenization, teacher: Tokenization) -> np.ndarray:
  """The student's token of the same text for each of the teacher's, (V_t,).

  One to one; -1 where it has none. The ends of an answer are counterparts.
  """
  found = np.full(len(teacher.pieces), -1, np.int32)
  named = student.named()
  for name, ids in teacher.named().items():
    for i, j in zip(ids, named.get(name, ())):
      found[i] = j
  return found


class Reading(NamedTuple):
  """A text as the teacher reads it.

  Attributes:
    prompt, completion: its tokens.
    spans: of both completions, from their beginning as far as they are known
      to be the same text.
  """

  prompt: tuple[int, ...]
  completion: tuple[int, ...]
  spans: tuple[Span, ...]

  @property
  def tokens(self) -> tuple[int, ...]:
    return self.prompt + self.completion


class Alignment:
  """A student's texts as its teacher reads them.

  The teacher reads the question in its own chat template. What follows a
  control token inside an answer, or bytes that are no UTF-8, is not compared.
  """

  def __init__(self, student: Tokenization, teacher: Tokenization):
    self._student, self._teacher = student, teacher

  def __call__(
    self, prompt: Sequence[int], completion: Sequence[int]
  ) -> Reading:
    """Args are the student's tokens.

    Raises:
      ValueError: where the question is not found again in the prompt.
    """
    student, teacher = self._student.codec, self._teacher.codec
    ended = len(completion) > 0 and completion[-1] in student.stop_tokens
    body = completion[:-1] if ended else completion
    pieces = _whole_characters(self._student.known(body))
    body = body[: len(pieces)]
    text = student.decode(list(body))
    theirs = teacher.answer(text)
    their_pieces = self._teacher.known(theirs[:-1])
    spans = self._spans(text, pieces, their_pieces)
    whole = (len(body), len(theirs) - 1)
    reached = (spans[-1].stop, spans[-1].teacher_stop) if spans else (0, 0)
    if ended and reached == whole == (len(completion) - 1, len(theirs) - 1):
      n, m = whole
      spans.append(Span(n, n + 1, m, m + 1))
    return Reading(
      tuple(teacher.prompt(student.question(prompt))),
      tuple(theirs),
      tuple(spans),
    )

  def _spans(self, text, pieces, their_pieces) -> list[Span]:
    ours, ends = _joined(text, pieces)
    theirs, their_ends = _joined(text, their_pieces)
    if ours == theirs:
      return common_spans(ends, their_ends)

    # The teacher's tokenizer has changed the text, or does not know all of it.
    # A prefix is common where the teacher would have read just that much.
    def reached(end):
      if theirs.startswith(ours[:end]):
        return end
      try:
        prefix = ours[:end].decode()
      except UnicodeDecodeError:
        return None
      found, _ = _joined(prefix, [self._teacher.normalised(prefix)])
      return len(found) if theirs.startswith(found) else None

    return common_spans([reached(end) for end in ends], their_ends)


def _joined(text: str, pieces: list[bytes]) -> tuple[bytes, list[int]]:
  """The bytes of tokens that write `text`, and where each of them ends.

  A space that some tokenizers put before a text is not of it.
  """
  joined = b''.join(pieces)
  blanks = lambda x, blank: len(x) - len(x.lstrip(blank))
  extra = int(blanks(joined, b' ') == blanks(text, ' ') + 1)
  ends = itertools.accumulate(map(len, pieces))
  return joined[extra:], [max(end - extra, 0) for end in ends]


def _whole_characters(pieces: list[bytes]) -> list[bytes]:
  """The most tokens from the beginning whose bytes are UTF-8."""
  try:
    b''.join(pieces).decode()
    return pieces
  except UnicodeDecodeError as e:
    valid = e.start
  ends = itertools.accumulate(map(len, pieces))
  return _whole_characters(
    [piece for piece, end in zip(pieces, ends) if end <= valid]
  )
