"""Answers from a recorded ledger: a teacher that never asks anyone.

For tests, and for rerunning an experiment exactly, offline and for nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
import pathlib

import pydantic

from ioa_jax.teachers.account import Account
from ioa_jax.teachers.ledger import Ledger
from ioa_jax.teachers.requests import Request


class ReplayMiss(ValueError):
  """The recording has no answer to a request."""


class ReplayTeacher:
  """Serves `recording`, a ledger file, which is not changed.

  Args:
    name: the model whose answers are wanted; needed if several are recorded.

  Raises:
    LedgerError: if the recording cannot be read.
    ValueError: if it holds no answers, or none or several models fit `name`.
  """

  def __init__(self, recording: pathlib.Path, name: str = ''):
    self._path = recording
    self._recording = Ledger(recording, read_only=True)
    models = sorted({e['request']['model'] for e in self._recording.entries()})
    if not models:
      raise ValueError(f'{recording}: a ledger without answers to replay.')
    if name not in models and (name or len(models) > 1):
      raise ValueError(
        f'{recording} holds answers of {models}; teacher.model is {name!r}. '
        'Name one of them.'
      )
    self.name = name or models[0]

  def answer(
    self,
    requests: Sequence[Request],
    account: Account,
    response_model: type[pydantic.BaseModel] | None,
  ) -> None:
    """Recorded completions, at price 0.

    Raises:
      ReplayMiss: naming the first request that was not recorded; nothing is
        copied then.
    """
    del response_model  # Answers were checked when they were recorded.
    recorded = self._recording.find(requests)
    for request, answer in zip(requests, recorded):
      if answer is None:
        raise ReplayMiss(
          f'{self._path} has no answer to {request.describe()}: temperature '
          f'{request.temperature:g}, top_k {request.top_k}, top_p '
          f'{request.top_p:g}, min_p {request.min_p:g}, max_tokens '
          f'{request.max_tokens}, sample {request.sample_index}. Replay the '
          'configuration that was recorded, or ask a live teacher.'
        )
    account.copy(dict(zip(requests, recorded)))

  def close(self) -> None:
    self._recording.close()
