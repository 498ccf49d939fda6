"""From logits to the next token; every setting is data, one entry a row.

Shapes: B rows, V vocabulary, W 32-bit words that hold a bit for each token.
"""

from __future__ import annotations

from collections.abc import Sequence
import dataclasses

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np


@dataclasses.dataclass(frozen=True)
class Sampling:
  """How to turn logits into text.

  Attributes:
    temperature: 0 is greedy.
    top_k: keep the k likeliest tokens; 0 keeps all.
    top_p: keep the smallest set with at least this probability; 1 keeps all.
    max_tokens: completion tokens at most, the stop token included.
    min_p: keep tokens with at least this share of the likeliest one's
      probability; 0 keeps all.
  """

  temperature: float = 0.0
  top_k: int = 0
  top_p: float = 1.0
  max_tokens: int = 64
  min_p: float = 0.0

  def __post_init__(self):
    if (
      self.temperature < 0
      or self.top_k < 0
      or not 0 < self.top_p <= 1
      or not 0 <= self.min_p <= 1
    ):
      raise ValueError(
        f'sampling: temperature {self.temperature} must be >= 0, top_k '
        f'{self.top_k} >= 0, top_p {self.top_p} in (0, 1] and min_p '
        f'{self.min_p} in [0, 1].'
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
  min_p_B: jax.Array
  max_tokens_B: jax.Array

  @classmethod
  def of(
    cls, sampling: Sequence[Sampling], seeds: Sequence[int], size: int
  ) -> Rows:
    """As arrays of `size` rows; those behind the last request do nothing."""
    rest = size - len(sampling)

    def column(values, dtype, fill=0):
      return np.asarray([*values, *[fill] * rest], dtype)

    return cls(
      seed_B=column(seeds, np.uint32),
      temperature_B=column([s.temperature for s in sampling], np.float32),
      top_k_B=column([s.top_k for s in sampling], np.int32),
      top_p_B=column([s.top_p for s in sampling], np.float32, fill=1),
      min_p_B=column([s.min_p for s in sampling], np.float32),
      max_tokens_B=column([s.max_tokens for s in sampling], np.int32),
    )


def filter_logits(logits_BxV, top_k_B, top_p_B, min_p_B):
  """Sets logits outside top-k, top-p, min-p to -inf; the likeliest stays."""
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

  # A share of the likeliest token's probability is a distance below its logit.
  floor_B = jnp.max(logits_BxV, axis=-1) + jnp.log(min_p_B)
  likely_BxV = jnp.where(logits_BxV >= floor_B[:, None], logits_BxV, -jnp.inf)
  # Sorting a large vocabulary is the costly part; most requests filter nothing.
  needed = jnp.any((top_k_B > 0) | (top_p_B < 1.0))
  # Each filter sees the whole distribution, not what another left of it.
  kept_BxV = jax.lax.cond(needed, apply, lambda x: x, logits_BxV)
  return jnp.where(likely_BxV > -jnp.inf, kept_BxV, -jnp.inf)


def num_words(vocab_size: int) -> int:
  """Words that hold a bit for each token."""
  return -(-vocab_size // 32)


def _forbid(logits_BxV, allowed_BxW):
  """Sets logits of tokens whose bit is 0 to -inf."""

  def apply(logits_BxV):
    bits_BxWx32 = (
      allowed_BxW[..., None] >> jnp.arange(32, dtype=jnp.uint32)
    ) & 1
    bits = bits_BxWx32.reshape(len(logits_BxV), -1)[:, : logits_BxV.shape[-1]]
    return jnp.where(bits == 1, logits_BxV, -jnp.inf)

  constrained = jnp.any(allowed_BxW != jnp.uint32(0xFFFFFFFF))
  return jax.lax.cond(constrained, apply, lambda x: x, logits_BxV)


def choose(logits_BxV, rows: Rows, step_B, allowed_BxW=None):
  """Next token of each row and its log-probability. Greedy where T = 0.

  Args:
    step_B: how many tokens the row has written: the draw is a function of the
      row's seed and this, so no neighbour and no batch size changes it.
    allowed_BxW: bits of the tokens that may come; None allows all.

  Returns:
    token (B,), and its log-probability (B,) in nats under the unmodified
    distribution: temperature 1, nothing filtered or forbidden.
  """
  open_BxV = logits_BxV
  if allowed_BxW is not None:
    open_BxV = _forbid(logits_BxV, allowed_BxW)
  greedy_B = jnp.argmax(open_BxV, axis=-1)

  def sample(logits_BxV):
    scaled = logits_BxV / jnp.maximum(rows.temperature_B, 1e-6)[:, None]
    scaled = filter_logits(scaled, rows.top_k_B, rows.top_p_B, rows.min_p_B)
    keys = jax.vmap(
      lambda seed, step: jax.random.fold_in(jax.random.key(seed), step)
    )(rows.seed_B, step_B)
    drawn_B = jax.vmap(jax.random.categorical)(keys, scaled)
    return jnp.where(rows.temperature_B > 0, drawn_B, greedy_B)

  token_B = jax.lax.cond(
    jnp.any(rows.temperature_B > 0), sample, lambda _: greedy_B, open_BxV
  )
  log_probs_BxV = jax.nn.log_softmax(logits_BxV, axis=-1)
  log_prob_B = jnp.take_along_axis(log_probs_BxV, token_B[:, None], -1)[:, 0]
  return token_B.astype(jnp.int32), log_prob_B
