"""The one who asks a teacher: nothing twice, nothing beyond the budget."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
import dataclasses
from typing import Any

import pydantic

from ioa_jax.runtime import processes
from ioa_jax.teachers import Teacher
from ioa_jax.teachers.account import Account
from ioa_jax.teachers.ledger import BudgetExceeded, Ledger
from ioa_jax.teachers.requests import (
  Budget,
  Completion,
  Price,
  Request,
  schema_text,
)


class Client:
  """Asks one teacher through one ledger.

  Args:
    budget: of the run, all its starts together.
    price: of the teacher; None is not known, and then no limit in money holds.
    recording: a ledger whose answers are taken before the teacher is asked.
      They are copied at price 0 and with their tokens, so a run's account does
      not depend on what was recorded before it.
    broadcast: the first process asks, and the others hear. Without it every
      process asks its own teacher, which is one model over all their devices.

  Attributes:
    name: of the teacher.
    cached: how many answers were in the ledger when they were asked for.

  Raises:
    ValueError: for a limit in money without prices.
  """

  def __init__(
    self,
    teacher: Teacher,
    ledger: Ledger,
    budget: Budget,
    *,
    price: Price | None = None,
    recording: Ledger | None = None,
    broadcast: bool = False,
  ):
    if budget.max_usd is not None and price is None:
      raise ValueError(
        'teacher.max_usd is set and teacher.price is not, so it could not be '
        'kept. Set the prices (US dollars per million tokens).'
      )
    self.name = teacher.name
    self.cached = 0
    self._teacher = teacher
    self._ledger = ledger
    self._budget = budget
    self._price = price or Price()
    self._recording = recording
    self._broadcast = broadcast

  def totals(self) -> dict[str, Any]:
    """What was paid for, all starts together; see `Ledger.totals`."""
    return self._ledger.totals()

  def carry(self, spent: Mapping[str, Any]) -> None:
    """Takes up `totals()` of an earlier start.

    Where the ledger has less it was deleted, and the difference stays spent.
    """
    self._ledger.carry(dict(spent))

  def find(self, requests: Sequence[Request]) -> list[Completion | None]:
    """What is known without asking anybody."""
    return self._ledger.find(requests)

  def ask(
    self,
    requests: Sequence[Request],
    response_model: type[pydantic.BaseModel] | None = None,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
    *,
    for_lessons: bool = False,
    on_wait: Callable[[str], None] = lambda line: None,
  ) -> list[Completion]:
    """Completions for `requests`, in order.

    The same request twice is one request. All processes must call it with the
    same ones.

    Args:
      response_model: what answers are checked with; its schema must be the
        requests' `response_schema`.
      on_progress: called with (answered, total) as answers come.
      for_lessons: whether the answers may come in a batch, hours later.
      on_wait: called with a line for people while a batch is waited for.

    Raises:
      BudgetExceeded: before what could cross the budget; everything that was
        answered is stored.
      ValueError: the teacher cannot go on; likewise.
    """
    self._check(requests, response_model)
    processes.check_same('requests', (r.key() for r in requests))
    options = {'for_lessons': for_lessons, 'on_wait': on_wait}
    ask = lambda: self._ask(requests, response_model, on_progress, options)
    if not self._broadcast:
      completions, cached = ask()
    else:
      completions, cached = self._heard(requests, ask)
    self.cached += cached
    return completions

  def _heard(self, requests, ask):
    """What the first process is answered, in the ledgers of all."""

    def plain():
      completions, cached = ask()
      return [dataclasses.asdict(c) for c in completions], cached

    told, cached = processes.on_first(plain, errors=[BudgetExceeded])
    completions = [Completion(**answer) for answer in told]
    if not processes.is_first():
      self._ledger.store(zip(requests, completions, strict=True))
    return completions, cached

  def _ask(self, requests, response_model, on_progress, options):
    times = Counter(requests)
    answers = self._found(list(times))
    cached = done = sum(times[r] for r in answers)
    on_progress(done, len(requests))

    def on_stored(new):
      nonlocal done
      if new:
        answers.update(new)
        done += sum(times[r] for r in new)
        on_progress(done, len(requests))

    account = Account(
      self._ledger, self._budget, self._price, on_stored, **options
    )
    if cached < len(requests):
      with self._ledger.claimed():
        # Another job may have been answered before this one had its turn.
        on_stored(self._found([r for r in times if r not in answers]))
        if self._recording is not None:
          missing = [r for r in times if r not in answers]
          recorded = zip(missing, self._recording.find(missing))
          account.copy({r: c for r, c in recorded if c is not None})
        if missing := [r for r in times if r not in answers]:
          self._teacher.answer(missing, account, response_model)
    return [answers[r] for r in requests], cached

  def _found(self, requests):
    found = zip(requests, self._ledger.find(requests))
    return {r: c for r, c in found if c is not None}

  def _check(self, requests, response_model):
    schema = '' if response_model is None else schema_text(response_model)
    for r in requests:
      if r.response_schema != schema:
        raise ValueError(
          f'{r.describe()}: its response_schema is not that of response_model; '
          'both must come from the same pydantic class, or be absent.'
        )
      if r.model != self.name:
        raise ValueError(f'{r.describe()} is not for the model {self.name!r}.')
