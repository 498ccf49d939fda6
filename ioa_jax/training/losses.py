"""Token losses as sums and counts, so nothing is averaged twice.

Shapes: B batch, L length, V vocabulary.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp


def cross_entropy(
  logits_BxLxV: jax.Array, target_BxL: jax.Array, weight_BxL: jax.Array
) -> tuple[jax.Array, jax.Array]:
  """Weighted sum of negative log-likelihoods in nats, and the weight's sum."""
  log_probs = jax.nn.log_softmax(logits_BxLxV.astype(jnp.float32), axis=-1)
  nll_BxL = -jnp.take_along_axis(log_probs, target_BxL[..., None], axis=-1)[
    ..., 0
  ]
  return jnp.sum(nll_BxL * weight_BxL), jnp.sum(weight_BxL)
