"""A teacher that is a model on this machine, behind the ledger."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
import math

import pydantic

from ioa_jax.models import decoder
from ioa_jax.models.vocabulary import Codec
from ioa_jax.sampling import sampler as sampler_lib
from ioa_jax.teachers import ledger as ledger_lib
from ioa_jax.teachers.ledger import Ledger
from ioa_jax.teachers.requests import Budget, Completion, Request


class LocalTeacher:
  """Answers requests with the compiled sampler, batch by batch."""

  def __init__(
    self,
    name: str,
    params: decoder.Params,
    sampler: sampler_lib.Sampler,
    *,
    batch_size: int,
    codec: Codec,
  ):
    self.name = name
    self.batch_size = batch_size
    self._params = params
    self._sampler = sampler
    self._codec = codec

  def complete(self, requests: Sequence[Request]) -> Iterator[list[Completion]]:
    """Yields completions in order, a batch at a time."""
    for r in requests:
      if r.history or r.stop:
        raise ValueError(
          f'{r.describe()}: a local teacher takes no history and no stop texts.'
        )
    prompts = [self._codec.prompt(r.prompt, r.system) for r in requests]
    settings = [
      sampler_lib.Sampling(r.temperature, r.top_k, r.top_p, r.max_tokens)
      for r in requests
    ]
    seeds = [r.seed() for r in requests]
    done = 0
    for batch in self._sampler(self._params, prompts, settings, seeds):
      yield [
        Completion(
          text=self._codec.decode(g.tokens),
          finish_reason='stop' if g.stopped else 'length',
          prompt_tokens=len(prompts[done + i]),
          completion_tokens=len(g.tokens) + g.stopped,
        )
        for i, g in enumerate(batch)
      ]
      done += len(batch)

  def ask(
    self,
    ledger: Ledger,
    requests: Sequence[Request],
    *,
    budget: Budget,
    response_model: type[pydantic.BaseModel] | None = None,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
  ) -> tuple[list[Completion], int]:
    """As the other teachers' `ask`; only completion tokens are limited.

    A `response_schema` is not enforced here: whoever asked checks the answer.
    """
    del response_model
    limit = budget.max_completion_tokens
    return ask(
      self, ledger, requests, on_progress=on_progress,
      max_completion_tokens=math.inf if limit is None else limit,
    )  # fmt: skip


def ask(
  teacher: LocalTeacher,
  ledger: Ledger,
  requests: Sequence[Request],
  *,
  max_completion_tokens: float,
  on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> tuple[list[Completion], int]:
  """Completions for `requests`, asking the teacher only for what is new.

  Args:
    max_completion_tokens: hard budget of the whole run; checked against the
      worst case before each batch is sent.
    on_progress: called with (answered, total) after each batch.

  Returns:
    Completions in order, and how many came from the ledger.

  Raises:
    BudgetExceeded: before the batch that could cross the budget; everything
      answered so far is stored.
  """
  found = ledger.find(requests)
  # The same request twice in one call is one request.
  missing = list(dict.fromkeys(r for r, c in zip(requests, found) if c is None))
  answered = {r: c for r, c in zip(requests, found) if c is not None}
  cached = len(requests) - sum(r not in answered for r in requests)
  spent = ledger.totals()['completion_tokens']
  on_progress(cached, len(requests))
  for start in range(0, len(missing), teacher.batch_size):
    batch = missing[start : start + teacher.batch_size]
    worst = sum(r.max_tokens for r in batch)
    if spent + worst > max_completion_tokens:
      raise ledger_lib.BudgetExceeded(
        f'teacher budget: {spent} of {max_completion_tokens} completion tokens '
        f'spent and the next {len(batch)} requests could write {worst}. Raise '
        'teacher.max_completion_tokens; what was paid for is kept.'
      )
    (completions,) = teacher.complete(batch)
    ledger.store(zip(batch, completions))
    spent += sum(c.completion_tokens for c in completions)
    answered |= dict(zip(batch, completions))
    on_progress(cached + start + len(batch), len(requests))
  return [answered[r] for r in requests], cached
