"""One answer, token by token, for a person who is waiting for it.

The same choice of tokens as `sampler.Sampler`: equal settings and seed give
equal text. Two small programs instead of one loop, so that the host sees each
token.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from ioa_jax.models import cache as cache_lib
from ioa_jax.models import decoder
from ioa_jax.sampling import logits as logits_lib

# Prompts are padded to a multiple of this, so that turns share programs.
_PROMPT_BUCKET = 64


class Streamer:
  """Holds the compiled programs of one model for answers of bounded length."""

  def __init__(
    self,
    config: decoder.DecoderConfig,
    *,
    stop_tokens: Sequence[int],
    max_tokens: int,
  ):
    self._config = config
    self._stop = frozenset(stop_tokens)
    self._max_tokens = max_tokens
    self._prefill: Callable = jax.jit(self._first)
    # The cache is rewritten in place: copying it would cost more than a step.
    self._step: Callable = jax.jit(self._next, donate_argnums=1)

  def __call__(
    self,
    params: decoder.Params,
    prompt: Sequence[int],
    sampling: logits_lib.Sampling,
    seed: int,
  ) -> Iterator[int]:
    """Yields tokens up to the stop token, which is left out, or the limit."""
    if not prompt:
      raise ValueError('the prompt has no tokens; write something to answer.')
    limit = min(sampling.max_tokens, self._max_tokens)
    length = len(prompt)
    p = -(-length // _PROMPT_BUCKET) * _PROMPT_BUCKET
    prompt_1xP = np.zeros((1, p), np.int32)
    prompt_1xP[0, :length] = prompt
    rows = logits_lib.Rows.of([sampling], [seed], 1)
    token, cache = self._prefill(params, prompt_1xP, np.int32(length), rows)
    for step in range(limit):
      if int(token[0]) in self._stop:
        return
      following = None
      if step + 1 < limit:  # Dispatched before the host handles this token.
        following, cache = self._step(
          params, cache, token, np.int32(length), np.int32(step), rows
        )
      yield int(token[0])
      token = following

  def _first(self, params, prompt_1xP, length, rows):
    p = prompt_1xP.shape[1]
    cache = cache_lib.empty(self._config, 1, p + self._max_tokens, chunk=p)
    hidden, cache = decoder.forward_cached(
      self._config,
      params,
      prompt_1xP,
      jnp.zeros(1, jnp.int32),
      cache,
      length[None],
    )
    logits = decoder.unembed(self._config, params, hidden[:, length - 1])
    return logits_lib.choose(logits, rows, jnp.zeros(1, jnp.int32))[0], cache

  def _next(self, params, cache, token_1, length, step, rows):
    hidden, cache = decoder.forward_cached(
      self._config, params, token_1[:, None], (length + step)[None], cache
    )
    logits = decoder.unembed(self._config, params, hidden[:, 0])
    return logits_lib.choose(logits, rows, (step + 1)[None])[0], cache


def text_pieces(
  tokens: Iterable[int], decode: Callable[[list[int]], str]
) -> Iterator[str]:
  """Text as it becomes final.

  A character that is cut between two tokens waits, and so does a number for its
  end: the built-in models write its last digit first. Together the pieces are
  the text of all tokens, if `decode` changes no text that it gave before. What
  it changes nevertheless is written as it is last.
  """
  seen: list[int] = []
  shown = text = ''
  for token in tokens:
    seen.append(token)
    text = decode(seen)
    # U+FFFD stands for bytes that a later token will complete.
    if not (text.endswith('\ufffd') or text[-1:].isdigit()):
      yield text[_common(shown, text) :]
      shown = text
  yield text[_common(shown, text) :]


def _common(first: str, second: str) -> int:
  """Characters at the beginning of both."""
  if second.startswith(first):
    return len(first)
  pairs = enumerate(zip(first, second))
  return next((i for i, (a, b) in pairs if a != b), len(second))
