"""How likely a given text is: one forward pass instead of a decode loop.

Shapes: B texts, L tokens of prompt and completion, D width, P pieces of each
row, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
import functools

import jax
import jax.numpy as jnp
import numpy as np

from ioa_jax.models import decoder
from ioa_jax.runtime import sharding

# Logits that are held at once; 64 MiB in float32.
_MAX_LOGITS = 2**24
_SHORTEST = 64


def token_log_probs(
  config: decoder.DecoderConfig,
  params: decoder.Params,
  token_BxL: jax.Array,
  length_B: jax.Array,
) -> jax.Array:
  """Log-probability (B, L) in nats of each token, given those before it.

  In float32, at temperature 1. The logits never exist whole.

  Args:
    token_BxL: padded on the right; L is a power of two.
    length_B: tokens that count; at others, and at the first, the result is 0.
  """
  b, l = token_BxL.shape
  slot_L = jnp.arange(l)
  real_BxL = slot_L < length_B[:, None]
  hidden_BxLxD = decoder.forward(
    config,
    params,
    token_BxL,
    real_BxL.astype(jnp.int32),
    jnp.broadcast_to(slot_L, (b, l)),
  )
  kernel_DxV = decoder.unembedding(config, params)
  pieces = l
  while pieces > 1 and b * (l // pieces) * 2 * config.vocab_size <= _MAX_LOGITS:
    pieces //= 2

  def piece(inputs):
    hidden, following = inputs
    logits = decoder.logits(config, kernel_DxV, hidden)
    chosen = jnp.take_along_axis(logits, following[..., None], axis=-1)[..., 0]
    return chosen - jax.nn.logsumexp(logits, axis=-1)

  # The row is split and not the batch: rows stay where their devices are.
  split = lambda x: jnp.moveaxis(
    x.reshape(b, pieces, l // pieces, *x.shape[2:]), 1, 0
  )
  following_BxL = jnp.roll(token_BxL, -1, axis=1)
  log_prob_PxBxN = jax.lax.map(
    piece, (split(hidden_BxLxD), split(following_BxL))
  )
  log_prob_BxL = jnp.moveaxis(log_prob_PxBxN, 0, 1).reshape(b, l)
  counts_BxL = real_BxL & (slot_L > 0)
  found_BxL = jnp.where(counts_BxL, jnp.roll(log_prob_BxL, 1, axis=1), 0.0)
  # Whole on each device, for the host of each process.
  return sharding.constrain(found_BxL, (None, None))


class Likelihood:
  """Holds the compiled programs of one model: one a power of two of length.

  Parameters are an argument, as of `sampler.Sampler`.

  Args:
    batch_size: texts in one forward pass.
  """

  def __init__(self, config: decoder.DecoderConfig, *, batch_size: int):
    self._batch_size = batch_size
    self._run: Callable = jax.jit(functools.partial(token_log_probs, config))

  @property
  def compilations(self) -> int:
    """How often the forward pass was compiled."""
    return self._run._cache_size()

  def __call__(
    self,
    params: decoder.Params,
    prompts: Sequence[Sequence[int]],
    completions: Sequence[Sequence[int]],
  ) -> list[np.ndarray]:
    """Log-probabilities (float32, nats) of each completion's tokens.

    Raises:
      ValueError: for an empty prompt: its first token would have no context.
    """
    if not all(map(len, prompts)):
      raise ValueError('a prompt has no tokens; write something to answer.')
    texts = [[*p, *c] for p, c in zip(prompts, completions, strict=True)]
    # By length, so that a batch has little padding.
    order = sorted(range(len(texts)), key=lambda i: len(texts[i]))
    found: dict[int, np.ndarray] = {}
    for start in range(0, len(order), self._batch_size):
      batch = order[start : start + self._batch_size]
      width = _SHORTEST
      while width < len(texts[batch[-1]]):
        width *= 2
      token_BxL = np.zeros((self._batch_size, width), np.int32)
      length_B = np.zeros(self._batch_size, np.int32)
      for row, i in enumerate(batch):
        token_BxL[row, : len(texts[i])] = texts[i]
        length_B[row] = len(texts[i])
      log_prob_BxL = np.asarray(self._run(params, token_BxL, length_B))
      for row, i in enumerate(batch):
        found[i] = log_prob_BxL[row, len(prompts[i]) : length_B[row]]
    return [found[i] for i in range(len(texts))]
