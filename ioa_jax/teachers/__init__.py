"""Requests to completions, from whoever knows.

A teacher only answers. `client.Client` does the rest once for all of them:
nothing is asked twice, no budget is crossed, every process hears.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import pydantic

from ioa_jax.teachers.account import Account
from ioa_jax.teachers.requests import Request


class Teacher(Protocol):
  """A local model, a server, a recording, or an object of one's own.

  Attributes:
    name: the model, as requests call it.
  """

  name: str

  def answer(
    self,
    requests: Sequence[Request],
    account: Account,
    response_model: type[pydantic.BaseModel] | None,
  ) -> None:
    """Answers every request into `account`, in any order.

    What cannot fail half-way takes `account.affordable` and `account.store`;
    what is paid by the call takes `account.reserve` and what ends a call.

    Args:
      requests: none twice, none answered yet.
      response_model: the pydantic class behind the requests' response_schema.

    Raises:
      BudgetExceeded: before what could cross the budget.
      ValueError: if it cannot go on; what was stored is kept.
    """
    ...
