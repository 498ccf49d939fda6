"""A teacher that is a model on this machine, behind the ledger."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
import functools
import itertools
import math

import numpy as np
import pydantic

from ioa_jax.models import decoder
from ioa_jax.models.vocabulary import Codec
from ioa_jax.sampling import guides, likelihood
from ioa_jax.sampling import logits as logits_lib
from ioa_jax.sampling import sampler as sampler_lib
from ioa_jax.teachers import ledger as ledger_lib
from ioa_jax.teachers.ledger import Ledger
from ioa_jax.teachers.requests import Budget, Completion, Request


class LocalTeacher:
  """Answers requests with the compiled sampler, all in one program.

  Args:
    tokenizer_json: for answers of a JSON schema; see `guides.Schemas`.
    config: of the model behind the sampler.
    batch_size: answers whose likelihood is read at once.
  """

  def __init__(
    self,
    name: str,
    params: decoder.Params,
    sampler: sampler_lib.Sampler,
    *,
    codec: Codec,
    tokenizer_json: str,
    config: decoder.DecoderConfig,
    batch_size: int,
  ):
    self.name = name
    self._params = params
    self._sampler = sampler
    self._codec = codec
    self._tokenizer_json = tokenizer_json
    self._vocab_size = config.vocab_size
    self._likelihood = likelihood.Likelihood(config, batch_size=batch_size)

  @functools.cached_property
  def _schemas(self) -> guides.Schemas:
    return guides.Schemas(
      self._tokenizer_json, self._vocab_size, self._codec.stop_tokens
    )

  def complete(
    self, requests: Sequence[Request]
  ) -> Iterator[list[tuple[int, Completion]]]:
    """Yields what ended at a time, as (index of the request, completion).

    Raises:
      ValueError: for a request with a history, or with stop texts and a schema.
    """
    prompts = [self._prompt(r) for r in requests]
    settings = [
      logits_lib.Sampling(
        r.temperature, r.top_k, r.top_p, r.max_tokens, r.min_p
      )
      for r in requests
    ]
    asked = [self._guide(r) for r in requests]
    for ended in self._sampler.finished(
      self._params, prompts, settings, [r.seed() for r in requests], asked
    ):
      yield [
        (i, self._completion(g, asked[i], len(prompts[i]))) for i, g in ended
      ]

  def log_probs(
    self, requests: Sequence[Request], answers: Sequence[str]
  ) -> list[np.ndarray]:
    """How likely it would have written these answers to the requests.

    Returns:
      For each answer, nats of every token and of its end, at temperature 1.

    Raises:
      ValueError: for a request with a history.
    """
    return self._likelihood(
      self._params,
      [self._prompt(r) for r in requests],
      [self._codec.answer(a) for a in answers],
    )

  def _completion(self, generation, guide, prompt_tokens: int) -> Completion:
    text = self._codec.decode(generation.tokens)
    if isinstance(guide, guides.StopTexts):
      text = guide.cut(text)
    return Completion(
      text=text,
      finish_reason='stop' if generation.stopped else 'length',
      prompt_tokens=prompt_tokens,
      completion_tokens=len(generation.log_probs),
    )

  def _prompt(self, request: Request) -> list[int]:
    if request.history:
      raise ValueError(
        f'{request.describe()}: a local teacher takes no history.'
      )
    return self._codec.prompt(request.prompt, request.system)

  def _guide(self, request: Request) -> guides.Guide | None:
    if request.stop and request.response_schema:
      raise ValueError(
        f'{request.describe()}: it has stop texts and a response_schema, and '
        'a stop text could end the JSON too soon; leave out one of them.'
      )
    if request.response_schema:
      return self._schemas.guide(request.response_schema)
    if request.stop:
      return guides.StopTexts(self._codec.decode, request.stop)
    return None

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

    An answer keeps to its `response_schema`, unless `max_tokens` cuts it off.
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
    max_completion_tokens: hard budget of the whole run. As many requests are
      asked at once as could at worst be paid for.
    on_progress: called with (answered, total) as answers come.

  Returns:
    Completions in order, and how many came from the ledger.

  Raises:
    BudgetExceeded: before the request that could cross the budget; everything
      answered so far is stored.
  """
  found = ledger.find(requests)
  # The same request twice in one call is one request.
  missing = list(dict.fromkeys(r for r, c in zip(requests, found) if c is None))
  answered = {r: c for r, c in zip(requests, found) if c is not None}
  cached = len(requests) - sum(r not in answered for r in requests)
  spent = ledger.totals()['completion_tokens']
  on_progress(cached, len(requests))
  done = 0
  while done < len(missing):
    part = _affordable(missing[done:], max_completion_tokens - spent)
    if not part:
      raise ledger_lib.BudgetExceeded(
        f'teacher budget: {spent} of {max_completion_tokens} completion tokens '
        f'spent and the next request could write {missing[done].max_tokens}. '
        'Raise teacher.max_completion_tokens; what was paid for is kept.'
      )
    for ended in teacher.complete(part):
      pairs = [(part[i], completion) for i, completion in ended]
      ledger.store(pairs)
      spent += sum(c.completion_tokens for _, c in pairs)
      answered |= dict(pairs)
      done += len(pairs)
      on_progress(cached + done, len(requests))
  return [answered[r] for r in requests], cached


def _affordable(requests: Sequence[Request], tokens: float) -> list[Request]:
  """The first requests that together cannot write more than `tokens`."""
  worst = itertools.accumulate(r.max_tokens for r in requests)
  return [r for r, total in zip(requests, worst) if total <= tokens]
