"""A teacher that one process of a run asks, and the others hear."""

from __future__ import annotations

from collections.abc import Callable, Sequence
import dataclasses

import pydantic

from ioa_jax.runtime import processes
from ioa_jax.teachers import Teacher
from ioa_jax.teachers.ledger import BudgetExceeded, Ledger
from ioa_jax.teachers.requests import Budget, Completion, Request


class ToldTeacher:
  """Has the first process ask `teacher`, which is a server or a recording.

  The others store the answers in ledgers of their own.
  """

  def __init__(self, teacher: Teacher):
    self.name = teacher.name
    self._teacher = teacher

  def ask(
    self,
    ledger: Ledger,
    requests: Sequence[Request],
    *,
    budget: Budget,
    response_model: type[pydantic.BaseModel] | None = None,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
  ) -> tuple[list[Completion], int]:
    """As `teacher.ask`; its errors come in every process."""

    def ask():
      completions, cached = self._teacher.ask(
        ledger, requests, budget=budget, response_model=response_model,
        on_progress=on_progress,
      )  # fmt: skip
      return [dataclasses.asdict(c) for c in completions], cached

    answers, cached = processes.on_first(ask, errors=[BudgetExceeded])
    completions = [Completion(**answer) for answer in answers]
    if not processes.is_first():
      ledger.store(zip(requests, completions, strict=True))
    return completions, cached
