"""What the sampler's loop reads and writes, and where it lies.

Shapes as in `sampler`.
"""

from __future__ import annotations

from collections.abc import Sequence

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np

from ioa_jax import sharding
from ioa_jax.models import decoder
from ioa_jax.sampling.choosing import Rows, Sampling


@flax.struct.dataclass
class Queue:
  """Requests in the order in which they enter; the first `size` are real.

  `reused_Q` leading tokens are the previous request's, so they are read
  already; all of them if it is the same prompt.
  """

  prompt_QxP: jax.Array
  length_Q: jax.Array
  reused_Q: jax.Array
  request_Q: jax.Array
  rows: Rows
  size: jax.Array


@flax.struct.dataclass
class Slots:
  """Texts in progress. `request_B` is -1 where a slot is free."""

  cache: decoder.Cache
  held_B: jax.Array
  logits_BxV: jax.Array
  request_B: jax.Array
  rows: Rows
  count_B: jax.Array
  token_BxT: jax.Array
  log_prob_BxT: jax.Array
  # The prompt that was read last, for the next one to start from.
  prompt_cache: decoder.Cache
  prompt_hidden_D: jax.Array


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
  steps, or, if `more` requests wait than the queue holds, when it is empty.
  """

  keep_B: jax.Array
  allowed_BxW: jax.Array
  limit: jax.Array
  more: jax.Array


def empty_slots(
  config: decoder.DecoderConfig, *, slots: int, prompt: int, new: int
) -> Slots:
  """B free slots for prompts of P tokens and T new ones."""
  zeros = lambda dtype: jnp.zeros(slots, dtype)
  return place(
    Slots(
      cache=decoder.empty_cache(config, slots, prompt + new),
      held_B=zeros(jnp.int32),
      logits_BxV=jnp.zeros((slots, config.vocab_size)),
      request_B=zeros(jnp.int32) - 1,
      rows=jax.tree.map(jnp.asarray, Rows.of([], [], slots)),
      count_B=zeros(jnp.int32),
      token_BxT=jnp.zeros((slots, new), jnp.int32),
      log_prob_BxT=jnp.zeros((slots, new)),
      prompt_cache=decoder.empty_cache(config, 1, prompt),
      prompt_hidden_D=jnp.zeros(config.width, config.dtype),
    )
  )


def place(slots: Slots) -> Slots:
  """Fixes what lies where, so that a run takes what another one left."""
  whole = jax.tree.map(lambda x: sharding.constrain(x, (None,) * x.ndim), slots)
  axes = ('layers', 'batch', 'heads', None, None)
  lies = lambda x: sharding.constrain(x, axes[-x.ndim :])
  return whole.replace(
    cache=jax.tree.map(lies, slots.cache),
    logits_BxV=sharding.constrain(slots.logits_BxV, ('batch', 'vocab')),
  )


def nothing_done(queue: Queue, slots: Slots) -> Done:
  b, t = slots.token_BxT.shape
  d = b + len(queue.length_Q)
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
  before: Sequence[int],
  *,
  entries: int,
  width: int,
  chunk: int,
) -> Queue:
  """The first `entries` of these requests as arrays of a fixed size.

  Args:
    requests: which of the prompts, in the order in which they enter.
    before: the prompt that was read before the first of them.
  """
  requests = requests[:entries]
  prompt_QxP = np.zeros((entries, width), np.int32)
  length_Q, reused_Q, request_Q = np.zeros((3, entries), np.int32)
  for row, request in enumerate(requests):
    prompt = prompts[request]
    prompt_QxP[row, : len(prompt)] = prompt
    length_Q[row], request_Q[row] = len(prompt), request
    reused_Q[row] = _reused(before, prompt, chunk)
    before = prompt
  pick = lambda values: [values[i] for i in requests]
  return Queue(
    prompt_QxP, length_Q, reused_Q, request_Q,
    Rows.of(pick(sampling), pick(seeds), entries), np.int32(len(requests)),
  )  # fmt: skip


def _reused(before, prompt, chunk: int) -> int:
  """Leading tokens that need no reading: whole chunks, or all of them."""
  if list(before) == list(prompt):
    return len(prompt)
  common = 0
  # The last token is read in any case: its hidden state is wanted.
  for a, b in zip(before, prompt[:-1]):
    if a != b:
      break
    common += 1
  return common // chunk * chunk
