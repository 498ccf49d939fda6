"""Token losses as sums and counts, so nothing is averaged twice.

Shapes: B batch, L length, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from ioa_jax.models import decoder
from ioa_jax.runtime import sharding


def negative_log_likelihood(
  logits_BxLxV: jax.Array, target_BxL: jax.Array
) -> jax.Array:
  """Of every target, in nats, (B, L)."""
  log_probs = jax.nn.log_softmax(logits_BxLxV.astype(jnp.float32), axis=-1)
  return -jnp.take_along_axis(log_probs, target_BxL[..., None], axis=-1)[..., 0]


def cross_entropy(
  logits_BxLxV: jax.Array, target_BxL: jax.Array, weight_BxL: jax.Array
) -> tuple[jax.Array, jax.Array]:
  """Weighted sum of negative log-likelihoods in nats, and the weight's sum."""
  nll_BxL = negative_log_likelihood(logits_BxLxV, target_BxL)
  return jnp.sum(nll_BxL * weight_BxL), jnp.sum(weight_BxL)


# Logits of one row that are held at once; 64 MiB in float32.
_MAX_ROW_LOGITS = 2**24


def token_cross_entropy(
  config: decoder.DecoderConfig,
  params: decoder.Params,
  hidden_BxLxD: jax.Array,
  target_BxL: jax.Array,
  weight_BxL: jax.Array,
) -> tuple[jax.Array, jax.Array]:
  """`cross_entropy` of the decoder's logits, which never exist whole."""
  return by_piece(
    config, params, hidden_BxLxD, cross_entropy, (target_BxL, weight_BxL)
  )


def by_piece(
  config: decoder.DecoderConfig,
  params: decoder.Params,
  hidden_BxLxD: jax.Array,
  loss: Callable[..., tuple[jax.Array, ...]],
  rows: tuple[jax.Array, ...],
) -> tuple[jax.Array, ...]:
  """Sums `loss(logits, *rows)` over pieces of each row.

  With 150 thousand tokens the logits of a batch are larger than the model. They
  are made for a piece of each row at a time, and again in the backward pass.

  Args:
    loss: returns what is summed, as a loss and a count.
    rows: arrays (B, L, ...) that it takes beside the logits.
  """
  length = hidden_BxLxD.shape[1]
  piece = _piece(length, config.vocab_size)

  def one(kernel, hidden, *rows):
    return loss(decoder.logits(config, kernel, hidden), *rows)

  kernel = decoder.unembedding(config, params)
  if piece == length:
    return one(kernel, hidden_BxLxD, *rows)
  # Gathered once and not for every piece; in the compute dtype, but summed over
  # the pieces in float32 on the way back.
  gathered = sharding.constrain(
    kernel.astype(hidden_BxLxD.dtype), ('embed', 'vocab')
  ).astype(jnp.float32)

  def body(sums, piece):
    return jax.tree.map(
      jnp.add, sums, jax.checkpoint(one)(gathered, *piece)
    ), None

  pieces = _split((hidden_BxLxD, *rows), piece)
  first = jax.tree.map(lambda x: x[0], pieces)
  sums, _ = jax.lax.scan(
    body,
    jax.tree.map(jnp.zeros_like, jax.eval_shape(one, gathered, *first)),
    pieces,
  )
  return sums


def map_pieces(
  config: decoder.DecoderConfig,
  params: decoder.Params,
  hidden_BxLxD: jax.Array,
  f: Callable[..., Any],
  rows: tuple[jax.Array, ...] = (),
) -> Any:
  """`f(logits, *rows)` of pieces of each row, joined to (B, L, ...) again."""
  b, length, _ = hidden_BxLxD.shape
  kernel = decoder.unembedding(config, params)
  one = lambda hidden, *rows: f(decoder.logits(config, kernel, hidden), *rows)
  piece = _piece(length, config.vocab_size)
  if piece == length:
    return one(hidden_BxLxD, *rows)
  found = jax.lax.map(lambda x: one(*x), _split((hidden_BxLxD, *rows), piece))
  join = lambda x: jnp.moveaxis(x, 0, 2).reshape(b, length, *x.shape[3:])
  return jax.tree.map(join, found)


def _split(tree, piece: int):
  """Arrays (B, L, ...) as (L / piece, B, piece, ...)."""
  # Every piece has some tokens of all parts of every row, so that all devices
  # that share the rows, or the tokens of a row, work on each.
  split = lambda x: jnp.moveaxis(
    x.reshape(x.shape[0], piece, x.shape[1] // piece, *x.shape[2:]), 2, 0
  )
  return jax.tree.map(split, tree)


def _piece(length: int, vocab_size: int) -> int:
  """The largest divisor of `length` whose logits are few enough."""
  # Of each device that shares a row.
  most = max(1, _MAX_ROW_LOGITS // vocab_size)
  most *= sharding.num_sequence_shards()
  return max(n for n in range(1, length + 1) if length % n == 0 and n <= most)
