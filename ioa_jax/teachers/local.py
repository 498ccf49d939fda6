"""A teacher that is a model on this machine."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
import functools

import pydantic

from ioa_jax.models import decoder
from ioa_jax.models.vocabulary import Codec
from ioa_jax.sampling import guides
from ioa_jax.sampling import logits as logits_lib
from ioa_jax.sampling import sampler as sampler_lib
from ioa_jax.teachers.account import Account
from ioa_jax.teachers.requests import Completion, Request


class LocalTeacher:
  """Answers requests with the compiled sampler, all in one program.

  Args:
    tokenizer_json: for answers of a JSON schema; see `guides.Schemas`.
    vocab_size: of the model behind the sampler.
  """

  def __init__(
    self,
    name: str,
    params: decoder.Params,
    sampler: sampler_lib.Sampler,
    *,
    codec: Codec,
    tokenizer_json: str,
    vocab_size: int,
  ):
    self.name = name
    self._params = params
    self._sampler = sampler
    self._codec = codec
    self._tokenizer_json = tokenizer_json
    self._vocab_size = vocab_size

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
      ValueError: for a request with stop texts and a schema.
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

  def answer(
    self,
    requests: Sequence[Request],
    account: Account,
    response_model: type[pydantic.BaseModel] | None,
  ) -> None:
    """As `Teacher.answer`.

    An answer keeps to its `response_schema`, unless `max_tokens` cuts it off.
    """
    del response_model
    for part in account.affordable(requests):
      for ended in self.complete(part):
        account.store({part[i]: completion for i, completion in ended})
