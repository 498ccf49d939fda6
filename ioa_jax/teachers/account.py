"""What one `Client.ask` may spend, and the book of what it does spend."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
import dataclasses

from ioa_jax.teachers.batch_book import Batch, BatchBook, Line
from ioa_jax.teachers.ledger import Ledger
from ioa_jax.teachers.requests import (
  Budget,
  Completion,
  Price,
  Request,
  worst_case_prompt_tokens,
)


class Account:
  """Counts calls before they are made and stores answers as they come.

  Args:
    price: of the teacher; tokens become dollars here and nowhere else.
    on_stored: called with the new answers once they are durable.
    for_lessons: whether lessons are asked for, which may take hours.
    on_wait: called with a line while a batch is waited for.
  """

  def __init__(
    self,
    ledger: Ledger,
    budget: Budget,
    price: Price,
    on_stored: Callable[[dict[Request, Completion]], None],
    *,
    for_lessons: bool = False,
    on_wait: Callable[[str], None] = lambda line: None,
  ):
    self.for_lessons = for_lessons
    self.on_wait = on_wait
    self._ledger = ledger
    self._budget = budget
    self._price = price
    self._on_stored = on_stored

  def in_batches(self) -> Account:
    """The same book, at the price of a batch."""
    return Account(
      self._ledger,
      self._budget,
      self._price.in_batches(),
      self._on_stored,
      for_lessons=self.for_lessons,
      on_wait=self.on_wait,
    )

  @property
  def batches(self) -> BatchBook:
    return self._ledger.batches(self._budget)

  def begin_batch(
    self, server: str, requests: Sequence[tuple[Request, int]]
  ) -> Batch:
    """Counts the lines of a batch at their worst case, before it is sent.

    Args:
      requests: each with the most tokens that its prompt may have.

    Returns:
      A batch of as many as are affordable, from the front.

    Raises:
      BudgetExceeded: before the first. Nothing is written.
    """
    return self.batches.begin(
      server,
      [
        Line(r, tokens, self._price.usd(tokens, r.max_tokens))
        for r, tokens in requests
      ],
    )

  def affordable(self, requests: Sequence[Request]) -> Iterator[list[Request]]:
    """All requests, as many at once as could at worst be paid for.

    Each part must be stored before the next one is taken.

    Raises:
      BudgetExceeded: before a request that could cross the budget.
    """
    done = 0
    while done < len(requests):
      part = self._first_affordable(requests[done:])
      if not part:
        self._ledger.check(self._budget, *self._worst_case(requests[done]))
        raise AssertionError('unreachable: the same sums fit just now')
      yield part
      done += len(part)

  def _first_affordable(self, requests):
    _, completion_tokens, usd = self._ledger.spent()
    part = []
    for request in requests:
      _, tokens, dollars = self._worst_case(request)
      completion_tokens, usd = completion_tokens + tokens, usd + dollars
      if self._budget.crossed_by(completion_tokens, usd):
        break
      part.append(request)
    return part

  def _worst_case(self, request):
    prompt_tokens = worst_case_prompt_tokens(request)
    usd = self._price.usd(prompt_tokens, request.max_tokens)
    return prompt_tokens, request.max_tokens, usd

  def store(self, answers: dict[Request, Completion]) -> None:
    """Writes answers that no call was reserved for; durable on return."""
    priced = {r: self._priced(c) for r, c in answers.items()}
    self._ledger.store(priced.items())
    self._on_stored(priced)

  def copy(self, answers: dict[Request, Completion]) -> None:
    """As `store`, for answers that another run has paid for."""
    free = {
      r: dataclasses.replace(c, price_usd=0.0) for r, c in answers.items()
    }
    self._ledger.store(free.items())
    self._on_stored(free)

  def reserve(self, request: Request, prompt_tokens: int) -> int:
    """Counts a call at its worst case, before it is sent.

    Returns:
      The call, for exactly one of `settle`, `reject`, `lose`, `release`.

    Raises:
      BudgetExceeded: what was spent, what is under way and this call could
        together cross the budget. Nothing is written.
    """
    return self._ledger.reserve(
      request,
      prompt_tokens=prompt_tokens,
      completion_tokens=request.max_tokens,
      price_usd=self._price.usd(prompt_tokens, request.max_tokens),
      budget=self._budget,
    )

  def settle(self, call: int, request: Request, answer: Completion) -> None:
    """Stores the answer of a reserved call; durable when this returns."""
    priced = self._priced(answer)
    self._ledger.settle(call, request, priced)
    self._on_stored({request: priced})

  def reject(self, call: int, answer: Completion, why: str) -> None:
    """Records a paid answer that is not used; durable when this returns."""
    self._ledger.reject(call, self._priced(answer), why)

  def lose(self, call: int, why: str) -> None:
    """The server may have charged this call, and its answer did not arrive."""
    self._ledger.lose(call, why)

  def release(self, call: int) -> None:
    """The server did not take the call, so it cost nothing."""
    self._ledger.release(call)

  def _priced(self, answer: Completion) -> Completion:
    usd = self._price.usd(answer.prompt_tokens, answer.completion_tokens)
    return dataclasses.replace(answer, price_usd=usd)
