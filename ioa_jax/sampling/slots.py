"""What the sampler's loop reads and writes, and where it lies.

Shapes as in `sampler`.
"""

from __future__ import annotations

from collections.abc import Sequence

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np

from ioa_jax.models import cache as cache_lib
from ioa_jax.models import decoder
from ioa_jax.runtime import sharding
from ioa_jax.sampling import prefill
from ioa_jax.sampling.logits import Rows, Sampling


@flax.struct.dataclass
class Queue:
  """Requests in the order in which they are read; the first `size` are real."""

  prompt_QxP: jax.Array
  length_Q: jax.Array
  request_Q: jax.Array
  rows: Rows
  size: jax.Array


@flax.struct.dataclass
class Slots:
  """Texts in progress. `request_B` is -1 where a slot is free."""

  cache: cache_lib.Cache
  held_B: jax.Array
  hidden_BxD: jax.Array  # Of the last token.
  request_B: jax.Array
  rows: Rows
  count_B: jax.Array
  token_BxT: jax.Array
  log_prob_BxT: jax.Array
  lanes: prefill.Lanes


@flax.struct.dataclass
class Done:
  """Completions of one run in the order of their ends; `size` are real."""

  size: jax.Array
  request_D: jax.Array
  token_DxT: jax.Array
  log_prob_DxT: jax.Array
  count_D: jax.Array
  stopped_D: jax.Array


@flax.struct.dataclass
class Control:
  """What the host says about a run.

  `keep_B` is False where it ends a text itself. The run returns after `limit`
  steps, or, if `more` requests wait than the queue holds, when a slot is free
  and no lane has anything for it.
  """

  keep_B: jax.Array
  allowed_BxW: jax.Array
  limit: jax.Array
  more: jax.Array


def empty_slots(
  config: decoder.DecoderConfig,
  *,
  slots: int,
  lanes: int,
  prompt: int,
  new: int,
  chunk: int,
) -> Slots:
  """B free slots, with R lanes, for prompts of P tokens and T new ones.

  Args:
    chunk: of the loop that uses them.
  """
  zeros = lambda dtype: jnp.zeros(slots, dtype)
  return place(
    Slots(
      cache=cache_lib.empty(config, slots, prompt + new, chunk),
      held_B=zeros(jnp.int32),
      hidden_BxD=jnp.zeros((slots, config.width), config.dtype),
      request_B=zeros(jnp.int32) - 1,
      rows=jax.tree.map(jnp.asarray, Rows.of([], [], slots)),
      count_B=zeros(jnp.int32),
      token_BxT=jnp.zeros((slots, new), jnp.int32),
      log_prob_BxT=jnp.zeros((slots, new)),
      lanes=prefill.empty(config, lanes=lanes, prompt=prompt, chunk=chunk),
    )
  )


def place(slots: Slots) -> Slots:
  """Fixes what lies where, so that a run takes what another one left."""
  placed = whole(slots)
  axes = ('layers', 'batch', 'heads', None, None)
  lies = lambda x: sharding.constrain(x, axes[-x.ndim :])
  # Rows of lanes go to any slot, so each device has all of them.
  by_heads = lambda x: sharding.constrain(
    x, ('layers', None, 'heads', None, None)[-x.ndim :]
  )
  return placed.replace(
    cache=jax.tree.map(lies, slots.cache),
    lanes=placed.lanes.replace(cache=jax.tree.map(by_heads, slots.lanes.cache)),
  )


def whole(tree):
  """On each device all of it."""
  return jax.tree.map(lambda x: sharding.constrain(x, (None,) * x.ndim), tree)


def nothing_done(queue: Queue, slots: Slots) -> Done:
  b, t = slots.token_BxT.shape
  d = b + len(slots.lanes.length_R) + len(queue.length_Q)
  return Done(
    size=jnp.int32(0),
    request_D=jnp.zeros(d, jnp.int32),
    token_DxT=jnp.zeros((d, t), jnp.int32),
    log_prob_DxT=jnp.zeros((d, t)),
    count_D=jnp.zeros(d, jnp.int32),
    stopped_D=jnp.zeros(d, bool),
  )


def queue(
  prompts: Sequence[Sequence[int]],
  sampling: Sequence[Sampling],
  seeds: Sequence[int],
  requests: Sequence[int],
  *,
  entries: int,
  width: int,
) -> Queue:
  """The first `entries` of these requests as arrays of a fixed size.

  Args:
    requests: which of the prompts, in the order in which they are read.
  """
  requests = requests[:entries]
  prompt_QxP = np.zeros((entries, width), np.int32)
  length_Q, request_Q = np.zeros((2, entries), np.int32)
  for row, request in enumerate(requests):
    prompt = prompts[request]
    prompt_QxP[row, : len(prompt)] = prompt
    length_Q[row], request_Q[row] = len(prompt), request
  pick = lambda values: [values[i] for i in requests]
  return Queue(
    prompt_QxP,
    length_Q,
    request_Q,
    Rows.of(pick(sampling), pick(seeds), entries),
    np.int32(len(requests)),
  )
