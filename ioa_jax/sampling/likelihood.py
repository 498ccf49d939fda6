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


def token_scores(
  config: decoder.DecoderConfig,
  params: decoder.Params,
  token_BxL: jax.Array,
  length_B: jax.Array,
) -> tuple[jax.Array, jax.Array]:
  """Each token's log-probability and whether it is the likeliest, (B, L) each.

  In nats and float32, at temperature 1, given the tokens before it. The logits
  never exist whole.

  Args:
    token_BxL: padded on the right; L is a power of two.
    length_B: tokens that count; at others, and at the first, the results are
      0 and True.
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
    log_prob = chosen - jax.nn.logsumexp(logits, axis=-1)
    return log_prob, following == jnp.argmax(logits, axis=-1)

  # The row is split and not the batch: rows stay where their devices are.
  split = lambda x: jnp.moveaxis(
    x.reshape(b, pieces, l // pieces, *x.shape[2:]), 1, 0
  )
  following_BxL = jnp.roll(token_BxL, -1, axis=1)
  found = jax.lax.map(piece, (split(hidden_BxLxD), split(following_BxL)))
  counts_BxL = real_BxL & (slot_L > 0)

  def placed(x_PxBxN, nothing):
    x_BxL = jnp.moveaxis(x_PxBxN, 0, 1).reshape(b, l)
    x_BxL = jnp.where(counts_BxL, jnp.roll(x_BxL, 1, axis=1), nothing)
    # Whole on each device, for the host of each process.
    return sharding.constrain(x_BxL, (None, None))

  log_prob_PxBxN, greedy_PxBxN = found
  return placed(log_prob_PxBxN, 0.0), placed(greedy_PxBxN, True)


def token_log_probs(
  config: decoder.DecoderConfig,
  params: decoder.Params,
  token_BxL: jax.Array,
  length_B: jax.Array,
) -> jax.Array:
  """The first of `token_scores`."""
  return token_scores(config, params, token_BxL, length_B)[0]


class Likelihood:
  """Holds the compiled programs of one model: one a power of two of length.

  Parameters are an argument, as of `sampler.Sampler`.

  Args:
    batch_size: texts in one forward pass.
  """

  def __init__(self, config: decoder.DecoderConfig, *, batch_size: int):
    self._batch_size = batch_size
    self._run: Callable = jax.jit(functools.partial(token_scores, config))

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
    return [
      log_probs for log_probs, _ in self.scores(params, prompts, completions)
    ]

  def scores(
    self,
    params: decoder.Params,
    prompts: Sequence[Sequence[int]],
    completions: Sequence[Sequence[int]],
  ) -> list[tuple[np.ndarray, bool]]:
    """As a call, each with whether greedy decoding writes the completion.

    Raises:
      ValueError: as a call.
    """
    if not all(map(len, prompts)):
      raise ValueError('a prompt has no tokens; write something to answer.')
    texts = [[*p, *c] for p, c in zip(prompts, completions, strict=True)]
    # By length, so that a batch has little padding.
    order = sorted(range(len(texts)), key=lambda i: len(texts[i]))
    found: dict[int, tuple[np.ndarray, bool]] = {}
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
      log_prob_BxL, greedy_BxL = jax.device_get(
        self._run(params, token_BxL, length_B)
      )
      for row, i in enumerate(batch):
        written = slice(len(prompts[i]), length_B[row])
        is_greedy = bool(greedy_BxL[row, written].all())
        found[i] = log_prob_BxL[row, written], is_greedy
    return [found[i] for i in range(len(texts))]
