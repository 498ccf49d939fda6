"""Prompts are read in lanes, several at a time, before they enter a slot.

One prompt's chunk alone is a product of few rows, for which a device reads all
weights. So R lanes read a chunk each, every lane at its own place in its own
prompt; what is read waits in its lane until a slot is free. Lanes read only
when a slot would stay empty, so nearly all of them have something to read.

What a prompt has in common with what any lane has read is copied and not read
again, so several samples of one prompt cost one reading. A beginning that
prompts share is read side by side by lanes that start together, which takes as
long as once.

Shapes: R lanes, C tokens of a chunk, P prompt tokens, a multiple of C, D width.
"""

from __future__ import annotations

import flax.struct
import jax
import jax.numpy as jnp

from ioa_jax.models import attention, decoder
from ioa_jax.models import cache as cache_lib
from ioa_jax.sampling.logits import Rows


@flax.struct.dataclass
class Lanes:
  """Prompts that are being read, or have been.

  Attributes:
    cache: a row of P columns for each lane.
    prompt_RxP, length_R: what a lane reads; it stays after the prompt has left.
    read_R: tokens read, whole chunks: a lane is done from `length_R` on.
    hidden_RxD: of the last token of a prompt that is done.
    request_R: -1 where the prompt has left.
    rows: settings of the requests.
  """

  cache: cache_lib.Cache
  prompt_RxP: jax.Array
  length_R: jax.Array
  read_R: jax.Array
  hidden_RxD: jax.Array
  request_R: jax.Array
  rows: Rows

  @property
  def done_R(self) -> jax.Array:
    """Lanes whose prompt can enter a slot."""
    return (self.request_R >= 0) & (self.read_R >= self.length_R)


def empty(
  config: decoder.DecoderConfig, *, lanes: int, prompt: int, chunk: int
) -> Lanes:
  """R lanes for prompts of P tokens, which hold nothing."""
  zeros = lambda: jnp.zeros(lanes, jnp.int32)
  return Lanes(
    cache=cache_lib.empty(config, lanes, prompt, chunk),
    prompt_RxP=jnp.zeros((lanes, prompt), jnp.int32),
    length_R=zeros(),
    read_R=zeros(),
    hidden_RxD=jnp.zeros((lanes, config.width), config.dtype),
    request_R=zeros() - 1,
    rows=jax.tree.map(jnp.asarray, Rows.of([], [], lanes)),
  )


def take(
  config: decoder.DecoderConfig,
  lanes: Lanes,
  queue,
  entered: jax.Array,
  chunk: int,
):
  """Free lanes take prompts of `queue`, from entry `entered` on.

  Returns:
    lanes, and the first entry that is left.
  """

  def possible(carry):
    lanes, entered = carry
    free = jnp.any(lanes.request_R < 0)
    # A second sample waits until its prompt is read, and copies it.
    same_R = jnp.all(lanes.prompt_RxP == queue.prompt_QxP[entered], axis=1)
    same_R &= lanes.length_R == queue.length_Q[entered]
    being_read = jnp.any(same_R & (lanes.request_R >= 0) & ~lanes.done_R)
    return free & (entered < queue.size) & ~being_read

  def one(carry):
    lanes, entered = carry
    prompt_P, length = queue.prompt_QxP[entered], queue.length_Q[entered]
    held_R = _reusable(config, lanes, prompt_P, length, chunk)
    # Of the free lanes the one with most of it, so that others keep theirs.
    lane = jnp.argmax(jnp.where(lanes.request_R < 0, held_R, -1))
    held = jnp.max(held_R)
    source = jnp.where(held > held_R[lane], jnp.argmax(held_R), lane)
    put = lambda old_R, new: old_R.at[lane].set(new)
    return lanes.replace(
      cache=copy_row(lanes.cache, source, lanes.cache, lane),
      prompt_RxP=put(lanes.prompt_RxP, prompt_P),
      length_R=put(lanes.length_R, length),
      read_R=put(lanes.read_R, held),
      hidden_RxD=put(lanes.hidden_RxD, lanes.hidden_RxD[source]),
      request_R=put(lanes.request_R, queue.request_Q[entered]),
      rows=jax.tree.map(
        lambda old_R, new_Q: put(old_R, new_Q[entered]), lanes.rows, queue.rows
      ),
    ), entered + 1

  return jax.lax.while_loop(possible, one, (lanes, entered))


def _reusable(config, lanes: Lanes, prompt_P, length, chunk: int) -> jax.Array:
  """How many tokens of a prompt each lane holds: whole chunks, or all.

  The last token is read in any other case: its hidden state is wanted.
  """
  same_RxP = jnp.cumprod(lanes.prompt_RxP == prompt_P, axis=1)
  has_R = jnp.minimum(lanes.length_R, lanes.read_R)
  common_R = jnp.minimum(same_RxP.sum(axis=1), jnp.minimum(has_R, length))
  whole_R = (common_R == length) & (lanes.length_R == length)
  part_R = jnp.minimum(common_R, length - 1) // chunk * chunk
  size = lanes.prompt_RxP.shape[1]
  ring = min(attention.ring_size(w, size, chunk) for w in config.windows)
  if ring < size:
    # A ring that has gone round has let go what is before its window.
    kept_R = (lanes.read_R <= ring) | (lanes.read_R == part_R)
    part_R = jnp.where(kept_R, part_R, 0)
  if config.is_dynamic:
    # Longer texts turn by frequencies of their own length.
    longest_R = jnp.maximum(lanes.length_R, length)
    original = config.rope_scaling.original_max_position_embeddings
    part_R = jnp.where(longest_R <= original, part_R, 0)
  return jnp.where(whole_R, _chunks(length, chunk) * chunk, part_R)


def read(
  config: decoder.DecoderConfig,
  params: decoder.Params,
  lanes: Lanes,
  chunk: int,
) -> Lanes:
  """Every lane reads one chunk.

  Chunks begin at multiples of C whatever was copied, so a prompt's numbers do
  not depend, in any bit, on what was read before it. A lane that has nothing to
  read reads its last chunk again, which changes nothing.
  """
  reads_R = (lanes.request_R >= 0) & (lanes.read_R < lanes.length_R)
  last_R = jnp.maximum(_chunks(lanes.length_R, chunk) - 1, 0) * chunk
  start_R = jnp.where(reads_R, lanes.read_R, last_R)
  column_RxC = start_R[:, None] + jnp.arange(chunk)
  hidden_RxCxD, cache = decoder.forward_cached(
    config,
    params,
    jnp.take_along_axis(lanes.prompt_RxP, column_RxC, axis=1),
    start_R,
    lanes.cache,
    lanes.length_R,
  )
  at_R = jnp.clip(lanes.length_R - 1 - start_R, 0, chunk - 1)
  return lanes.replace(
    cache=cache,
    hidden_RxD=hidden_RxCxD[jnp.arange(len(at_R)), at_R],
    read_R=jnp.where(reads_R, start_R + chunk, lanes.read_R),
  )


def copy_row(
  source: cache_lib.Cache, row: jax.Array, to: cache_lib.Cache, at: jax.Array
) -> cache_lib.Cache:
  """`to` with a row of `source`, which has as many columns or fewer.

  A ring that is smaller has not gone round, so its columns are the same.
  """

  def copy(old, new):
    # Axes from the right: caches are stacked, or one for each layer.
    axis = new.ndim - 4
    one = jax.lax.dynamic_slice_in_dim(new, row, 1, axis)
    return jax.lax.dynamic_update_slice_in_dim(old, one, at, axis)

  return jax.tree.map(copy, to, source)


def _chunks(length, chunk: int):
  return -(-length // chunk)
