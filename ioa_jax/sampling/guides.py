"""What the host has to say about a text while it is being written.

A stop text can begin and end inside tokens, so it is looked for in the text,
after every few steps; what was written behind it is dropped. An answer that
must fit a JSON schema is looked at after every token, and the tokens that may
come next go to the device as bits.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Protocol

import numpy as np

from ioa_jax.sampling import logits as logits_lib

_ALL = np.uint32(0xFFFFFFFF)
_NO_LIMIT = 2**30
# Between two looks at the texts; at most this many tokens are written in vain.
_STEPS_BETWEEN_LOOKS = 16


class Guide(Protocol):
  """The host's part in one request.

  Attributes:
    constrains: it allows only some tokens, and must see each one.
  """

  constrains: bool

  def read(self, tokens: Sequence[int]) -> int | None:
    """Takes all tokens so far; how many to keep if the text ends with them."""
    ...

  def allowed(self) -> np.ndarray:
    """Bits (W,) uint32 of the tokens that may come next."""
    ...


class StopTexts:
  """Ends a text when one of `stops` is in it.

  Args:
    decode: tokens to text.
  """

  constrains = False

  def __init__(
    self, decode: Callable[[Sequence[int]], str], stops: Sequence[str]
  ):
    if not all(stops):
      raise ValueError('a stop text is empty; it would end every answer.')
    self._decode = decode
    self._stops = tuple(stops)
    self._seen = 0

  def cut(self, text: str) -> str:
    """What stands before the first stop text."""
    found = [at for s in self._stops if (at := text.find(s)) >= 0]
    return text[: min(found, default=len(text))]

  def read(self, tokens: Sequence[int]) -> int | None:
    first, self._seen = self._seen, len(tokens)
    if not self._in(tokens):
      return None
    return next(
      n for n in range(first + 1, len(tokens) + 1) if self._in(tokens[:n])
    )

  def _in(self, tokens) -> bool:
    text = self._decode([int(t) for t in tokens])
    return any(s in text for s in self._stops)


class Schemas:
  """Makes guides for JSON schemas; holds what they share of a tokenizer.

  Args:
    tokenizer_json: in the format of Hugging Face's tokenizer.json.
    stop_tokens: ids that end an answer.

  Raises:
    ValueError: without llguidance, or for a tokenizer that it cannot read.
  """

  def __init__(
    self, tokenizer_json: str, vocab_size: int, stop_tokens: Sequence[int]
  ):
    try:
      import llguidance
    except ImportError:
      raise ValueError(
        'an answer of a JSON schema from a local model needs llguidance: '
        "pip install -e '.[schema]'"
      ) from None
    self._num_words = logits_lib.num_words(vocab_size)
    self._matcher = llguidance.LLMatcher
    try:
      self._tokenizer = llguidance.LLTokenizer(
        tokenizer_json, n_vocab=vocab_size, eos_token=list(stop_tokens)
      )
    except Exception as e:  # The library raises bare Exception.
      reason = (str(e).strip() or repr(e)).splitlines()[0][:200]
      raise ValueError(
        f'llguidance cannot read the tokenizer ({reason}), so answers of a '
        'JSON schema cannot be had from this model.'
      ) from None

  def guide(self, schema: str) -> JsonSchema:
    """For one request.

    Raises:
      ValueError: for a schema that cannot be kept to.
    """
    grammar = self._matcher.grammar_from_json_schema(
      schema, overrides={'whitespace_flexible': False}
    )
    matcher = self._matcher(self._tokenizer, grammar, log_level=0)
    if matcher.is_error():
      raise ValueError(
        f'JSON schema {schema[:80]!r}: {matcher.get_error()[:200]}'
      )
    return JsonSchema(matcher, self._num_words)


class JsonSchema:
  """Allows only tokens that keep the text a beginning of fitting JSON."""

  constrains = True

  def __init__(self, matcher, num_words: int):
    self._matcher = matcher
    self._num_words = num_words
    self._seen = 0

  def read(self, tokens: Sequence[int]) -> int | None:
    """Ends at the schema's own end; an end-of-text token is none of it.

    Raises:
      RuntimeError: if a token was written that was not allowed.
    """
    for token in tokens[self._seen :]:
      if not self._matcher.consume_token(int(token)):
        raise RuntimeError(
          f'token {int(token)} was written and not allowed: '
          f'{self._matcher.get_error()[:200]}'
        )
    self._seen = len(tokens)
    return None

  def allowed(self) -> np.ndarray:
    bits = np.frombuffer(self._matcher.compute_bitmask(), np.uint32)
    out = np.zeros(self._num_words, np.uint32)
    out[: len(bits)] = bits[: self._num_words]
    return out


class Watch:
  """The guides of one call of the sampler, by request."""

  def __init__(self, guides: Sequence[Guide | None], vocab_size: int):
    self._guides = guides
    self._num_words = logits_lib.num_words(vocab_size)

  def slots(self, request_B: np.ndarray) -> Iterator[int]:
    """Slots whose request has a guide."""
    for slot, request in enumerate(request_B):
      if request >= 0 and self._guides[request] is not None:
        yield slot

  def allowed(self, request_B: np.ndarray) -> np.ndarray:
    """Bits (B, W) of the tokens that may come next in each slot."""
    allowed_BxW = np.full((len(request_B), self._num_words), _ALL, np.uint32)
    for slot in self.slots(request_B):
      guide = self._guides[request_B[slot]]
      if guide.constrains:
        allowed_BxW[slot] = guide.allowed()
    return allowed_BxW

  def steps(self, request_B: np.ndarray, queued: Sequence[int]) -> int:
    """How many steps may be taken before the host looks again."""
    at_work = [i for i in request_B if i >= 0]
    guides = [g for i in [*at_work, *queued] if (g := self._guides[i])]
    if any(g.constrains for g in guides):
      return 1
    return _STEPS_BETWEEN_LOOKS if guides else _NO_LIMIT

  def read(self, request: int, tokens: np.ndarray) -> int | None:
    guide = self._guides[request]
    return None if guide is None else guide.read(tokens)
