"""What goes to a teacher and what comes back, as frozen values."""

from __future__ import annotations

from collections.abc import Sequence
import dataclasses
import hashlib
import json
from typing import Any

# Always part of the key. Fields added later enter it only where they differ
# from their default, so a new field never makes an old answer unfindable.
_CORE = (
  'model',
  'prompt',
  'temperature',
  'top_k',
  'top_p',
  'max_tokens',
  'sample_index',
)


@dataclasses.dataclass(frozen=True)
class Request:
  """All that determines a completion; its hash is the ledger's key.

  Attributes:
    prompt: the last user message.
    temperature: 0 is greedy.
    top_k: 0 is off.
    top_p: 1 is off.
    max_tokens: hard limit of what is generated, reasoning included.
    sample_index: tells apart samples of one request.
    system: the system prompt; '' is none.
    response_schema: JSON schema of the answer as text (see `schema_text`).
    stop: texts that end the answer.
    reasoning_effort: passed on to reasoning models; '' is their default.
    min_p: least share of the likeliest token's probability; 0 is off.
    score: how many tokens at each position of a text are asked for, in the
      place of an answer; the prompt then is token ids (see `scoring`).
    token_texts: how those ids read, for checks; no part of what is asked.
    module: that it is paid for; no part of what is asked.
  """

  model: str
  prompt: str
  temperature: float
  top_k: int
  top_p: float
  max_tokens: int
  sample_index: int = 0
  system: str = ''
  response_schema: str = ''
  stop: tuple[str, ...] = ()
  reasoning_effort: str = ''
  min_p: float = 0.0
  score: int = 0
  token_texts: tuple[str, ...] = dataclasses.field(default=(), compare=False)
  module: str = dataclasses.field(default='', compare=False)

  def to_json(self) -> str:
    """The text that is hashed: core fields, and others that are set."""
    fields = {
      f.name: getattr(self, f.name)
      for f in dataclasses.fields(self)
      if f.compare and (f.name in _CORE or getattr(self, f.name) != f.default)
    }
    return json.dumps(fields, sort_keys=True)

  @classmethod
  def from_json(cls, text: str) -> Request:
    """The request behind `to_json()`.

    Raises:
      ValueError, TypeError: for any other text.
    """
    fields = json.loads(text)
    return cls(**fields | {'stop': tuple(fields.get('stop', ()))})

  def key(self) -> str:
    return hashlib.sha256(self.to_json().encode()).hexdigest()

  def seed(self) -> int:
    """The sampler's seed: the same request has the same text anywhere."""
    return int(self.key()[:8], 16)

  def messages(self) -> list[dict[str, str]]:
    """The conversation in the roles of the chat protocol."""
    system = [('system', self.system)] if self.system else []
    turns = [*system, ('user', self.prompt)]
    return [{'role': role, 'content': content} for role, content in turns]

  def describe(self) -> str:
    """One short line for error messages."""
    prompt = ' '.join(self.prompt.split())
    shown = prompt if len(prompt) <= 60 else prompt[:57] + '...'
    return f'request {self.key()[:12]} to {self.model!r} ({shown!r})'


def worst_case_prompt_tokens(
  request: Request, repair: Sequence[dict[str, str]] = ()
) -> int:
  """An upper bound without the model's tokenizer.

  A token of a byte-level vocabulary is at least one byte. Chat templates add
  a few tokens to each message, and some a preamble. A schema may stand in the
  prompt, with a sentence that asks for it.

  Args:
    repair: turns after the prompt.
  """
  if request.score:
    return len(request.prompt.split())
  messages = [*request.messages(), *repair]
  size = sum(len(m['content'].encode()) for m in messages)
  if request.response_schema:
    size += len(request.response_schema.encode()) + 128
  return size + 16 * len(messages) + 128


def schema_text(response_model: Any) -> str:
  """A pydantic class's JSON schema, in the form of `response_schema`."""
  return json.dumps(response_model.model_json_schema(), sort_keys=True)


@dataclasses.dataclass(frozen=True)
class Completion:
  """A teacher's answer, or the reason why there is none.

  Attributes:
    text: the answer. An HTTP teacher leaves it empty unless `finish_reason` is
      'stop'; a local one gives what it wrote before 'length'.
    finish_reason: 'stop', 'length', 'content_filter', 'refusal', 'empty'
      (nothing was answered, repeatedly) or 'schema' (never fitted it).
    prompt_tokens, completion_tokens: of the one call behind this answer,
      reasoning included.
    reasoning: what a reasoning model thought, apart from the answer.
    discarded: text that is not an answer (cut, filtered, not fitting), or what
      the server wrote where `text` had to be mended to be JSON.
    price_usd: of that one call.
    response_id: the server's name for it.
  """

  text: str
  finish_reason: str
  prompt_tokens: int
  completion_tokens: int
  reasoning: str = ''
  discarded: str = ''
  price_usd: float = 0.0
  response_id: str = ''


@dataclasses.dataclass(frozen=True)
class Price:
  """US dollars per million tokens. Discounts for cached prompts are ignored.

  Attributes:
    batch_discount: share of the price that asking in batches saves.
  """

  prompt_usd_per_million: float = 0.0
  completion_usd_per_million: float = 0.0
  batch_discount: float = 0.0

  def __post_init__(self):
    for field in dataclasses.fields(self):
      if not getattr(self, field.name) >= 0:
        raise ValueError(
          f'price {field.name} is {getattr(self, field.name)!r}, wanted >= 0.'
        )
    if not self.batch_discount <= 1:
      raise ValueError(
        f'price batch_discount is {self.batch_discount!r}, wanted a share.'
      )

  def in_batches(self) -> Price:
    """What the same tokens cost in a batch."""
    left = 1 - self.batch_discount
    return Price(
      left * self.prompt_usd_per_million, left * self.completion_usd_per_million
    )

  def usd(self, prompt_tokens: float, completion_tokens: float) -> float:
    return (
      prompt_tokens * self.prompt_usd_per_million
      + completion_tokens * self.completion_usd_per_million
    ) / 1e6


@dataclasses.dataclass(frozen=True)
class Budget:
  """Hard limits over the whole run, all its starts together; None is none."""

  max_completion_tokens: int | None = None
  max_usd: float | None = None

  def crossed_by(self, completion_tokens: int, usd: float) -> Sequence[str]:
    """A line for each limit that these sums are over."""
    sums = {
      'max_completion_tokens': completion_tokens,
      # Prices are sums of floats; a millionth of a cent is not over.
      'max_usd': usd - 1e-8,
    }
    limits = {k: getattr(self, k) for k in sums}
    return [
      f'{k} {limits[k]:g} (would reach {v:.6g})'
      for k, v in sums.items()
      if limits[k] is not None and v > limits[k]
    ]
