"""Requests to completions, from whoever knows."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

import pydantic

from ioa_jax.teachers.ledger import Ledger
from ioa_jax.teachers.requests import Budget, Completion, Request


class Teacher(Protocol):
  """A local model, a server or a recording."""

  name: str

  def ask(
    self,
    ledger: Ledger,
    requests: Sequence[Request],
    *,
    budget: Budget,
    response_model: type[pydantic.BaseModel] | None = None,
    on_progress: Callable[[int, int], None],
  ) -> tuple[list[Completion], int]:
    """Completions in order, and how many the ledger had already.

    Args:
      budget: of the whole run.
      response_model: the pydantic class behind the requests' response_schema.

    Raises:
      BudgetExceeded: before the call that could cross the budget.
    """
    ...
