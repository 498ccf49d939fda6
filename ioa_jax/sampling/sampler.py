"""Prefill and decode in one compiled program, for teachers and students alike.

Everything about a request is data: temperature, top-k, top-p, stop tokens and
seed are traced arrays, so no setting recompiles. A request's text depends on
its own seed and not on its row or its neighbours.

Shapes: B rows, P prompt slots, T new tokens at most, S stop tokens,
V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
import dataclasses
import functools

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np

from ioa_jax.models import decoder


@dataclasses.dataclass(frozen=True)
class Sampling:
  """How to turn logits into text.

  Attributes:
    temperature: 0 is greedy.
    top_k: keep the k likeliest tokens; 0 keeps all.
    top_p: keep the smallest set with at least this probability; 1 keeps all.
    max_tokens: completion tokens at most, the stop token included.
  """

  temperature: float = 0.0
  top_k: int = 0
  top_p: float = 1.0
  max_tokens: int = 64

  def __post_init__(self):
    if self.temperature < 0 or self.top_k < 0 or not 0 < self.top_p <= 1:
      raise ValueError(
        f'sampling: temperature {self.temperature} must be >= 0, top_k '
        f'{self.top_k} >= 0 and top_p {self.top_p} in (0, 1].'
      )
    if self.max_tokens < 1:
      raise ValueError(f'sampling: max_tokens {self.max_tokens} must be >= 1.')


@flax.struct.dataclass
class Rows:
  """Sampling settings of a batch, one entry per row."""

  seed_B: jax.Array
  temperature_B: jax.Array
  top_k_B: jax.Array
  top_p_B: jax.Array
  max_tokens_B: jax.Array


@dataclasses.dataclass(frozen=True)
class Generation:
  """What one row wrote.

  Attributes:
    tokens: completion tokens, without the stop token.
    stopped: False if the length limit cut it.
    log_prob: sum of log-probabilities of the written tokens, stop included,
      under the unmodified distribution (temperature 1, no filter), in nats.
  """

  tokens: tuple[int, ...]
  stopped: bool
  log_prob: float


def filter_logits(logits_BxV, top_k_B, top_p_B):
  """Sets logits outside top-k and top-p to -inf; the likeliest always stays."""
  v = logits_BxV.shape[-1]

  def apply(logits_BxV):
    sorted_BxV = jnp.sort(logits_BxV, axis=-1, descending=True)
    k_B = jnp.where(top_k_B == 0, v, jnp.minimum(top_k_B, v))
    before_BxV = jnp.cumsum(jax.nn.softmax(sorted_BxV, -1), -1)
    before_BxV = before_BxV - jax.nn.softmax(sorted_BxV, -1)
    keep_BxV = (jnp.arange(v)[None] < k_B[:, None]) & (
      before_BxV < top_p_B[:, None]
    )
    keep_BxV = keep_BxV.at[:, 0].set(True)
    floor_B = jnp.min(jnp.where(keep_BxV, sorted_BxV, jnp.inf), axis=-1)
    return jnp.where(logits_BxV >= floor_B[:, None], logits_BxV, -jnp.inf)

  # Sorting a large vocabulary is the costly part; most requests filter nothing.
  needed = jnp.any((top_k_B > 0) | (top_p_B < 1.0))
  return jax.lax.cond(needed, apply, lambda x: x, logits_BxV)


def choose(logits_BxV, rows: Rows, step):
  """Next token of each row and its log-probability. Greedy where T = 0."""
  greedy_B = jnp.argmax(logits_BxV, axis=-1)

  def sample(logits_BxV):
    scaled = logits_BxV / jnp.maximum(rows.temperature_B, 1e-6)[:, None]
    scaled = filter_logits(scaled, rows.top_k_B, rows.top_p_B)
    keys = jax.vmap(
      lambda seed: jax.random.fold_in(jax.random.key(seed), step)
    )(rows.seed_B)
    drawn_B = jax.vmap(jax.random.categorical)(keys, scaled)
    return jnp.where(rows.temperature_B > 0, drawn_B, greedy_B)

  token_B = jax.lax.cond(
    jnp.any(rows.temperature_B > 0), sample, lambda _: greedy_B, logits_BxV
  )
  log_probs_BxV = jax.nn.log_softmax(logits_BxV, axis=-1)
  log_prob_B = jnp.take_along_axis(log_probs_BxV, token_B[:, None], -1)[:, 0]
  return token_B.astype(jnp.int32), log_prob_B


def decode(
  config: decoder.DecoderConfig,
  params: decoder.Params,
  prompt_BxP: jax.Array,
  prompt_length_B: jax.Array,
  rows: Rows,
  stop_S: jax.Array,
  *,
  max_new_tokens: int,
) -> tuple[jax.Array, jax.Array, jax.Array, jax.Array]:
  """Completes left-padded prompts; stops when every row has.

  Returns:
    tokens (B, T), count (B,) of written tokens with the stop token, stopped
    (B,), log_prob (B,) of the written tokens.
  """
  b, p = prompt_BxP.shape
  column_P = jnp.arange(p)
  segment_BxP = (column_P[None] >= p - prompt_length_B[:, None]).astype(
    jnp.int32
  )
  position_BxP = jnp.maximum(column_P[None] - (p - prompt_length_B[:, None]), 0)
  cache = decoder.empty_cache(config, b, p + max_new_tokens)
  hidden, cache = decoder.forward_cached(
    config, params, prompt_BxP, segment_BxP, position_BxP, cache, 0
  )
  logits_BxV = decoder.unembed(config, params, hidden[:, -1])
  live_B = prompt_length_B > 0

  def unfinished(carry):
    step, _, _, _, live_B, *_ = carry
    return (step < max_new_tokens) & jnp.any(live_B)

  def body(carry):
    step, logits_BxV, cache, tokens, live_B, count_B, stopped_B, logp_B = carry
    token_B, token_logp_B = choose(logits_BxV, rows, step)
    tokens = tokens.at[:, step].set(jnp.where(live_B, token_B, 0))
    count_B += live_B
    logp_B += jnp.where(live_B, token_logp_B, 0.0)
    stop_now_B = live_B & jnp.any(token_B[:, None] == stop_S[None], axis=-1)
    stopped_B |= stop_now_B
    live_B &= ~stop_now_B & (count_B < rows.max_tokens_B)
    hidden, cache = decoder.forward_cached(
      config, params, token_B[:, None], jnp.ones((b, 1), jnp.int32),
      (prompt_length_B + step)[:, None], cache, p + step,
    )  # fmt: skip
    logits_BxV = decoder.unembed(config, params, hidden[:, 0])
    return (
      step + 1, logits_BxV, cache, tokens, live_B, count_B, stopped_B, logp_B
    )  # fmt: skip

  start = (
    jnp.int32(0), logits_BxV, cache, jnp.zeros((b, max_new_tokens), jnp.int32),
    live_B, jnp.zeros(b, jnp.int32), jnp.zeros(b, bool), jnp.zeros(b),
  )  # fmt: skip
  _, _, _, tokens, _, count_B, stopped_B, logp_B = jax.lax.while_loop(
    unfinished, body, start
  )
  return tokens, count_B, stopped_B, logp_B


class Sampler:
  """Completes any number of prompts through a few fixed shapes.

  Holds the compiled programs of one model: one per prompt bucket. Parameters
  are an argument, so a student in training is probed without recompiling.
  """

  def __init__(
    self,
    config: decoder.DecoderConfig,
    *,
    stop_tokens: Sequence[int],
    batch_size: int,
    max_new_tokens: int,
    prompt_bucket: int = 16,
  ):
    self._stop_S = np.asarray(stop_tokens, np.int32)
    self._batch_size = batch_size
    self._max_new_tokens = max_new_tokens
    self._prompt_bucket = prompt_bucket
    self._decode: Callable = jax.jit(
      functools.partial(decode, config, max_new_tokens=max_new_tokens)
    )

  def __call__(
    self,
    params: decoder.Params,
    prompts: Sequence[Sequence[int]],
    sampling: Sequence[Sampling],
    seeds: Sequence[int],
  ) -> Iterator[list[Generation]]:
    """Yields generations batch by batch, in the order of the prompts."""
    for start in range(0, len(prompts), self._batch_size):
      at = slice(start, start + self._batch_size)
      yield self._batch(params, prompts[at], sampling[at], seeds[at])

  def _batch(self, params, prompts, sampling, seeds):
    for s in sampling:
      if s.max_tokens > self._max_new_tokens:
        raise ValueError(
          f"max_tokens {s.max_tokens} is over the sampler's "
          f'max_new_tokens {self._max_new_tokens}; build it larger.'
        )
    n, b = len(prompts), self._batch_size
    longest = max(len(p) for p in prompts)
    p = -(-longest // self._prompt_bucket) * self._prompt_bucket
    prompt_BxP = np.zeros((b, p), np.int32)
    length_B = np.zeros(b, np.int32)
    for row, prompt in enumerate(prompts):
      prompt_BxP[row, p - len(prompt) :] = prompt
      length_B[row] = len(prompt)

    def column(values, fill, dtype):
      return np.asarray([*values, *[fill] * (b - n)], dtype)

    rows = Rows(
      seed_B=column(seeds, 0, np.uint32),
      temperature_B=column([s.temperature for s in sampling], 0, np.float32),
      top_k_B=column([s.top_k for s in sampling], 0, np.int32),
      top_p_B=column([s.top_p for s in sampling], 1, np.float32),
      max_tokens_B=column([s.max_tokens for s in sampling], 1, np.int32),
    )
    tokens, count_B, stopped_B, logp_B = jax.device_get(
      self._decode(params, prompt_BxP, length_B, rows, self._stop_S)
    )
    return [
      Generation(
        tokens=tuple(int(t) for t in tokens[i, : count_B[i] - stopped_B[i]]),
        stopped=bool(stopped_B[i]),
        log_prob=float(logp_B[i]),
      )
      for i in range(n)
    ]
