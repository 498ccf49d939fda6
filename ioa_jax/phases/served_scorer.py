"""A teacher on a server as a scorer of packed rows, through the ledger."""

from __future__ import annotations

import numpy as np

from ioa_jax.assemble import Run
from ioa_jax.models import vocabulary
from ioa_jax.teachers import scoring
from ioa_jax.training import packing
from ioa_jax.training.trainer import Rows

# Of the vocabulary, that the first request asks about.
_TRIED_TOKENS = 64


def require(run: Run) -> None:
  """Where a server is to score texts: that it can, before it is paid for more.

  Raises:
    ValueError: as `ServedScorer.require`.
  """
  if run.settled.distills and run.subject.teacher_model is None:
    ServedScorer(run, run.settled.distillation['top_k']).require()


class ServedScorer:
  """As `distillation.Scorer`, of a teacher that `run` asks.

  Each sequence of a row is one request, so nothing is asked twice, also after
  a restart. All processes must call it with the same rows.

  Args:
    k: how many tokens are kept at a position.
  """

  def __init__(self, run: Run, k: int):
    self._run = run
    self._k = k
    self._texts = vocabulary.token_texts(run.subject.student.directory)

  def require(self) -> None:
    """Asks one tiny request, about tokens from all over the vocabulary.

    Raises:
      ValueError: the server cannot score texts, not with this many tokens, or
        its tokens are not the student's.
    """
    ids = vocabulary.ordinary_tokens(self._run.subject.student.directory)
    tried = np.linspace(0, len(ids) - 1, min(len(ids), _TRIED_TOKENS))
    self._ask([tuple(ids[int(i)] for i in tried)])
    self._run.display.say(
      f'{self._run.client.name} scores texts, {self._k} tokens at each place; '
      f"{len(tried)} tokens were tried and are the student's."
    )

  def __call__(self, rows: Rows) -> Rows:
    """`rows` of `packing.pack` with the teacher's fields, each (R, L, T).

    Raises:
      ValueError: as `require`; also BudgetExceeded. What was scored is stored.
    """
    segments = list(packing.segments(rows))
    scored = self._ask([segment.tokens for segment in segments])
    count, length = rows['token'].shape
    empty = packing.empty_rows(count, length, self._k)
    found = {name: empty[name] for name in packing.TEACHER_FIELDS}
    for (row, start, tokens), values in zip(segments, scored, strict=True):
      at = slice(start, start + len(tokens) - 1)
      for name, value in zip(packing.TEACHER_FIELDS, values):
        found[name][row, at] = value
    return rows | found

  def _ask(self, sequences) -> list[tuple[np.ndarray, np.ndarray]]:
    """(N - 1, T) ids and log-probabilities of each sequence of N tokens."""
    requests = [
      scoring.request(
        self._run.client.name,
        tokens,
        self._k,
        [self._texts[token] for token in tokens],
      )
      for tokens in sequences
    ]
    found = [
      scoring.arrays(answer.text, request)
      for request, answer in zip(requests, self._run.ask(requests))
    ]
    largest = max((int(ids.max()) for ids, _ in found), default=0)
    if largest >= len(self._texts):
      raise ValueError(
        f'{self._run.client.name} finds token {largest} likely, and the '
        f'student has {len(self._texts)} tokens. Serve a teacher with the '
        "student's tokenizer; if that token only pads its vocabulary, lower "
        'distillation.top_k.'
      )
    return found
