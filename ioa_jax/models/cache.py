"""Keys and values of what was read, for incremental decoding.

Token t of a row lies at column t modulo S. A layer without a window has a
column for every token; one with a window has a ring that grows no more, see
`attention.ring_size`.

Shapes: B batch, L new tokens, K key heads, S columns, E head width, N layers, W
layers of one window.
"""

from __future__ import annotations

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np

from ioa_jax.models import attention


@flax.struct.dataclass
class Cache:
  """Keys and values, heads before columns: a row reads memory in order.

  Each is a stack (N, B, K, S, E). Of layers with several windows it is a tuple
  of stacks (W, B, K, S, E), one for each window; of unrolled layers (see
  `decoder.split_layers`) a tuple of N arrays (B, K, S, E).
  """

  keys: jax.Array | tuple[jax.Array, ...]
  values: jax.Array | tuple[jax.Array, ...]


def empty(config, batch: int, length: int, chunk: int) -> Cache:
  """Room for rows of `length` tokens.

  Args:
    chunk: most tokens of a row in one call of `decoder.forward_cached`.
  """
  row = lambda window: (
    batch,
    config.num_kv_heads,
    attention.ring_size(window, length, chunk),
    config.head_width,
  )
  if config.is_unrolled:
    zeros = lambda: tuple(
      jnp.zeros(row(layer.window), config.dtype) for layer in config.layers
    )
    return Cache(zeros(), zeros())
  count = [window for layer in config.layers for window in [layer.window]].count
  stacks = lambda: tuple(
    jnp.zeros((count(window), *row(window)), config.dtype)
    for window in config.windows
  )
  keys, values = stacks(), stacks()
  if len(keys) == 1:
    return Cache(keys[0], values[0])
  return Cache(keys, values)


def write(config, cache: Cache, new: Cache, held_B: jax.Array) -> Cache:
  """The cache with `new` columns (N, B, L, K, E) behind what each row holds."""
  if len(config.windows) == 1:
    ring = config.windows[0] is not None
    return jax.tree.map(
      lambda old, columns: _write(old, columns, held_B, ring), cache, new
    )

  def of_windows(stacks, new_NxBxLxKxE):
    written = []
    for old, window in zip(stacks, config.windows, strict=True):
      members = [layer.window == window for layer in config.layers]
      columns = new_NxBxLxKxE[np.flatnonzero(members)]
      written.append(_write(old, columns, held_B, window is not None))
    return tuple(written)

  return Cache(
    of_windows(cache.keys, new.keys), of_windows(cache.values, new.values)
  )


def _write(old_NxBxKxSxE, new_NxBxLxKxE, held_B, ring: bool):
  row_Bx1 = jnp.arange(len(held_B))[:, None]
  column_BxL = held_B[:, None] + jnp.arange(new_NxBxLxKxE.shape[2])
  if ring:
    column_BxL %= old_NxBxKxSxE.shape[3]
  # Indices around a slice: (B, L) come first in what is set.
  return old_NxBxKxSxE.at[:, row_Bx1, :, column_BxL].set(
    new_NxBxLxKxE.transpose(1, 2, 0, 3, 4), mode='drop'
  )


def write_rows(
  config, hidden_BxLxD: jax.Array, cache: Cache, new: Cache, held_B: jax.Array
) -> tuple[jax.Array, Cache]:
  """`write` of unrolled layers, row by row, and the hidden states as they are.

  XLA on CPU does this in place, and copies around a scatter, which took half of
  a step. The hidden states go through the loop so that it must come after all
  layers have read: else the last one's cache is copied, there and back.
  """
  put = jax.lax.dynamic_update_slice

  def put_row(old_BxKxSxE, new_1xKxLxE, b, ring: bool):
    if not ring:
      return put(old_BxKxSxE, new_1xKxLxE, (b, 0, held_B[b], 0))
    size, length = old_BxKxSxE.shape[2], new_1xKxLxE.shape[2]
    if length == 1:
      return put(old_BxKxSxE, new_1xKxLxE, (b, 0, held_B[b] % size, 0))
    # Columns that go round the end are no slice.
    column_L = (held_B[b] + jnp.arange(length)) % size
    return old_BxKxSxE.at[b, :, column_L].set(new_1xKxLxE[0].swapaxes(0, 1))

  rings = tuple(layer.window is not None for layer in config.layers)

  def write_row(b, written):
    through_BxLxD, cache = written
    row = lambda x: jax.lax.dynamic_slice_in_dim(x, b, 1)
    return put(through_BxLxD, row(hidden_BxLxD), (b, 0, 0)), jax.tree.map(
      lambda old_BxKxSxE, new_BxLxKxE, ring: put_row(
        old_BxKxSxE, row(new_BxLxKxE).swapaxes(1, 2), b, ring
      ),
      cache,
      new,
      Cache(rings, rings),
    )

  nothing = jnp.zeros_like(hidden_BxLxD)
  return jax.lax.fori_loop(0, len(held_B), write_row, (nothing, cache))
