"""Answers from a recorded ledger: a teacher that never asks anyone, and one
that asks only for what was not recorded.

For tests, for rerunning an experiment exactly, offline and for nothing, and for
another run that wants many of the same answers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
import dataclasses
import pathlib

import pydantic

from ioa_jax.teachers import Teacher
from ioa_jax.teachers.ledger import Ledger
from ioa_jax.teachers.requests import Budget, Completion, Request


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

  def ask(
    self,
    ledger: Ledger,
    requests: Sequence[Request],
    *,
    budget: Budget | None = None,
    response_model: type[pydantic.BaseModel] | None = None,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
  ) -> tuple[list[Completion], int]:
    """Recorded completions, copied to the run's own `ledger` at price 0.

    Returns:
      Completions in order, and how many the run's ledger had already.

    Raises:
      ReplayMiss: naming the first request that was not recorded; nothing is
        copied then.
    """
    del budget, response_model  # Nothing is bought; answers were checked.
    found = ledger.find(requests)
    cached = sum(c is not None for c in found)
    on_progress(cached, len(requests))
    recorded = self._recording.find(requests)
    for request, mine, theirs in zip(requests, found, recorded):
      if mine is None and theirs is None:
        raise ReplayMiss(
          f'{self._path} has no answer to {request.describe()}: temperature '
          f'{request.temperature:g}, top_k {request.top_k}, top_p '
          f'{request.top_p:g}, min_p {request.min_p:g}, max_tokens '
          f'{request.max_tokens}, sample {request.sample_index}. Replay the '
          'configuration that was recorded, or ask a live teacher.'
        )
    answers = [
      mine or dataclasses.replace(theirs, price_usd=0.0)
      for mine, theirs in zip(found, recorded)
    ]
    ledger.store(
      (r, a) for r, a, mine in zip(requests, answers, found) if mine is None
    )
    on_progress(len(requests), len(requests))
    return answers, cached

  def close(self) -> None:
    self._recording.close()


class RecordedFirst:
  """`teacher`, where `recording` has no answer of it.

  Recorded answers are copied to the run's own ledger at price 0 and with their
  tokens, so a run's account does not depend on what was recorded before it.

  Raises:
    LedgerError: if the recording cannot be read.
  """

  def __init__(self, teacher: Teacher, recording: pathlib.Path):
    self.name = teacher.name
    self._teacher = teacher
    self._recording = Ledger(recording, read_only=True)

  def ask(
    self,
    ledger: Ledger,
    requests: Sequence[Request],
    *,
    budget: Budget,
    response_model: type[pydantic.BaseModel] | None = None,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
  ) -> tuple[list[Completion], int]:
    """As `Teacher.ask`; copied answers do not count as from the ledger."""
    mine = ledger.find(requests)
    theirs = self._recording.find(requests)
    copied = {
      request: dataclasses.replace(answer, price_usd=0.0)
      for request, answer, had in zip(requests, theirs, mine)
      if answer is not None and had is None
    }
    ledger.store(copied.items())
    answers, cached = self._teacher.ask(
      ledger, requests, budget=budget, response_model=response_model,
      on_progress=on_progress,
    )  # fmt: skip
    return answers, cached - sum(r in copied for r in requests)
