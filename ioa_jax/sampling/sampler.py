"""Prompts to completions in one compiled loop, for teachers and students.

The loop keeps B slots busy. Each turn is one token for every slot; a slot whose
text has ended takes the next prompt of the queue, on the device. Everything
about a request is data (lengths, temperature, filters, seed), so no setting
recompiles, and its text depends on its seed and not on its slot or neighbours.

Prompts are read before they enter a slot, several at a time: see `reading`.

Shapes: B slots, R reading lanes, Q queued requests, P prompt tokens, C chunk, T
new tokens at most, S = P + T cache columns, S stop tokens where it indexes
those, D = B + R + Q completions at most in one run, D width where it indexes
hidden states, V vocabulary, W words of token bits.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
import dataclasses
import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np

from ioa_jax.models import decoder
from ioa_jax.runtime import sharding
from ioa_jax.sampling import guides, prefill
from ioa_jax.sampling import logits as logits_lib
from ioa_jax.sampling import slots as slots_lib
from ioa_jax.sampling.logits import Rows, Sampling
from ioa_jax.sampling.slots import Control, Done, Queue, Slots

# Queue entries for each slot. Emptying the queue is when the host is needed.
_QUEUED_PER_SLOT = 4
# Prompt tokens of all lanes in one reading turn.
_READ_TOKENS = 128


@dataclasses.dataclass(frozen=True)
class Generation:
  """What one request wrote.

  Attributes:
    tokens: completion tokens, without the stop token.
    stopped: False if the length limit cut it.
    log_probs: of each written token in nats, the stop token included, under
      the unmodified distribution (temperature 1, no filter).
  """

  tokens: tuple[int, ...]
  stopped: bool
  log_probs: tuple[float, ...]

  @property
  def log_prob(self) -> float:
    """Of the whole text, its end included, in nats."""
    return float(np.sum(self.log_probs))


def run(
  config: decoder.DecoderConfig,
  params: decoder.Params,
  slots: Slots,
  queue: Queue,
  control: Control,
  stop_S: jax.Array,
  *,
  chunk: int,
) -> tuple[Slots, Done, jax.Array, jax.Array, jax.Array]:
  """The loop: one token for every slot, then free slots take new prompts.

  Returns:
    slots, completions, and how many requests entered, steps were taken, and
    slots were busy, summed over steps.
  """
  params = decoder.split_layers(config, params)
  slots = slots.replace(
    request_B=jnp.where(control.keep_B, slots.request_B, -1)
  )
  done = slots_lib.nothing_done(queue, slots)

  def unfinished(carry):
    slots, _, entered, steps, _ = carry
    busy_B = slots.request_B >= 0
    waiting = _waits(slots, queue, entered)
    starved = control.more & ~waiting & ~jnp.all(busy_B)
    return (steps < control.limit) & (jnp.any(busy_B) | waiting) & ~starved

  def turn(carry):
    slots, done, entered, steps, busy = carry
    busy += jnp.sum(slots.request_B >= 0)
    slots, done = _write_token(
      config, params, slots, done, control.allowed_BxW, stop_S
    )
    slots, entered = _enter(config, params, slots, queue, entered, chunk)
    return slots, done, entered, steps + 1, busy

  zero = jnp.int32(0)
  slots, *rest = jax.lax.while_loop(
    unfinished, turn, (slots, done, zero, zero, zero)
  )
  done, *numbers = rest
  # Whole on each device, for the host of each process.
  return slots_lib.place(slots), slots_lib.whole(done), *numbers


def _write_token(config, params, slots: Slots, done: Done, allowed_BxW, stop_S):
  """One token for each slot; texts that end with it move to `done`."""
  busy_B = slots.request_B >= 0
  b, t = slots.token_BxT.shape
  logits_BxV = sharding.constrain(
    decoder.unembed(config, params, slots.hidden_BxD), ('batch', 'vocab')
  )
  token_B, log_prob_B = logits_lib.choose(
    logits_BxV, slots.rows, slots.count_B, allowed_BxW
  )
  # Free slots write behind the last column, which is nowhere.
  at = (jnp.arange(b), jnp.where(busy_B, slots.count_B, t))
  token_BxT = slots.token_BxT.at[at].set(token_B, mode='drop')
  log_prob_BxT = slots.log_prob_BxT.at[at].set(log_prob_B, mode='drop')
  count_B = slots.count_B + busy_B
  stopped_B = busy_B & jnp.any(token_B[:, None] == stop_S, axis=-1)
  ended_B = stopped_B | (busy_B & (count_B >= slots.rows.max_tokens_B))

  place_B = jnp.where(
    ended_B, done.size + jnp.cumsum(ended_B) - 1, len(done.request_D)
  )
  put = lambda old, new: old.at[place_B].set(new, mode='drop')
  done = Done(
    size=done.size + jnp.sum(ended_B),
    request_D=put(done.request_D, slots.request_B),
    token_DxT=put(done.token_DxT, token_BxT),
    log_prob_DxT=put(done.log_prob_DxT, log_prob_BxT),
    count_D=put(done.count_D, count_B),
    stopped_D=put(done.stopped_D, stopped_B),
  )
  hidden, cache = decoder.forward_cached(
    config, params, token_B[:, None], slots.held_B, slots.cache
  )
  return slots.replace(
    cache=cache,
    held_B=slots.held_B + busy_B,
    hidden_BxD=hidden[:, 0],
    request_B=jnp.where(ended_B, -1, slots.request_B),
    count_B=count_B,
    token_BxT=token_BxT,
    log_prob_BxT=log_prob_BxT,
  ), done


def _enter(config, params, slots: Slots, queue: Queue, entered, chunk):
  """Free slots take prompts that are read, while there are any."""

  def possible(carry):
    slots, entered = carry
    return jnp.any(slots.request_B < 0) & _waits(slots, queue, entered)

  def fill(carry):
    slots, entered = carry
    lanes, entered = prefill.take(config, slots.lanes, queue, entered, chunk)
    lanes = jax.lax.while_loop(
      lambda lanes: ~jnp.any(lanes.done_R),
      lambda lanes: prefill.read(config, params, lanes, chunk),
      lanes,
    )
    slots = jax.lax.while_loop(
      lambda s: jnp.any(s.request_B < 0) & jnp.any(s.lanes.done_R),
      _move,
      slots.replace(lanes=lanes),
    )
    return slots, entered

  return jax.lax.while_loop(possible, fill, (slots, entered))


def _waits(slots: Slots, queue: Queue, entered):
  """Whether any request is in a lane or before it."""
  return jnp.any(slots.lanes.request_R >= 0) | (entered < queue.size)


def _move(slots: Slots) -> Slots:
  """The first prompt that is read enters the first free slot."""
  lanes = slots.lanes
  slot, lane = jnp.argmax(slots.request_B < 0), jnp.argmax(lanes.done_R)
  put = lambda old_B, new_R: old_B.at[slot].set(new_R[lane])
  return slots.replace(
    cache=prefill.copy_row(lanes.cache, lane, slots.cache, slot),
    held_B=put(slots.held_B, lanes.length_R),
    hidden_BxD=put(slots.hidden_BxD, lanes.hidden_RxD),
    request_B=put(slots.request_B, lanes.request_R),
    rows=jax.tree.map(put, slots.rows, lanes.rows),
    count_B=slots.count_B.at[slot].set(0),
    lanes=lanes.replace(request_R=lanes.request_R.at[lane].set(-1)),
  )


def complete_greedily(
  config: decoder.DecoderConfig,
  params: decoder.Params,
  prompt_BxP: jax.Array,
  length_B: jax.Array,
  stop_S: jax.Array,
  *,
  max_new_tokens: int,
) -> tuple[jax.Array, jax.Array, jax.Array]:
  """The loop for one batch, inside another compiled program.

  Args:
    prompt_BxP: padded on the right.
    length_B: rows of length 0 are no prompts, and come last.

  Returns:
    tokens (B, T), count (B,) of them with the stop token, stopped (B,).
  """
  b, p = prompt_BxP.shape
  greedy = Sampling(max_tokens=max_new_tokens)
  queue = Queue(
    prompt_QxP=prompt_BxP,
    length_Q=length_B,
    request_Q=jnp.arange(b),
    rows=jax.tree.map(jnp.asarray, Rows.of([greedy] * b, [0] * b, b)),
    size=jnp.sum(length_B > 0),
  )
  watch = guides.Watch([], config.vocab_size)
  nobody_B = np.full(b, -1)
  control = Control(
    keep_B=jnp.ones(b, bool),
    allowed_BxW=watch.allowed(nobody_B),
    limit=watch.steps(nobody_B, []),
    more=jnp.bool_(False),
  )
  slots = slots_lib.empty_slots(
    config, slots=b, lanes=b, prompt=p, new=max_new_tokens, chunk=p
  )
  _, done, *_ = run(config, params, slots, queue, control, stop_S, chunk=p)
  # Back from the order of their ends to that of the rows.
  row_D = jnp.where(
    jnp.arange(len(done.count_D)) < done.size, done.request_D, b
  )
  by_row = lambda x: (
    jnp.zeros((b, *x.shape[1:]), x.dtype).at[row_D].set(x, mode='drop')
  )
  return by_row(done.token_DxT), by_row(done.count_D), by_row(done.stopped_D)


class Sampler:
  """Completes any number of prompts through one compiled loop.

  Holds the compiled programs of one model: one for each power of two of the
  longest prompt. Parameters are an argument, so a student in training is probed
  without recompiling.

  Args:
    stop_tokens: ids that end a text.
    batch_size: slots.
    max_new_tokens: the longest completion that can be asked for.
    prompt_bucket: prompts are read in chunks of this many tokens.
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
    self._config = config
    self._stop_S = np.asarray(stop_tokens, np.int32)
    self._batch_size = batch_size
    self._max_new_tokens = max_new_tokens
    self._chunk = prompt_bucket
    self._lanes = num_lanes(batch_size, prompt_bucket)
    self._empty: Callable = jax.jit(
      functools.partial(slots_lib.empty_slots, config, chunk=prompt_bucket),
      static_argnames=('slots', 'lanes', 'prompt', 'new'),
    )
    # Once a call and not once a run: guides have runs of a single step.
    self._split: Callable = jax.jit(
      functools.partial(decoder.split_layers, config)
    )
    # The cache is rewritten in place: copying it would cost more than a step.
    self._run: Callable = jax.jit(
      functools.partial(run, config, chunk=prompt_bucket), donate_argnums=1
    )
    self._busy = self._offered = 0

  @property
  def compilations(self) -> int:
    """How often the loop was compiled."""
    return self._run._cache_size()

  @property
  def occupancy(self) -> float:
    """The share of all slots in all steps so far that wrote a token."""
    return self._busy / max(self._offered, 1)

  def __call__(
    self,
    params: decoder.Params,
    prompts: Sequence[Sequence[int]],
    sampling: Sequence[Sampling],
    seeds: Sequence[int],
    request_guides: Sequence[guides.Guide | None] | None = None,
  ) -> list[Generation]:
    """All completions, in the order of the prompts."""
    ended = {
      i: generation
      for pairs in self.finished(
        params, prompts, sampling, seeds, request_guides
      )
      for i, generation in pairs
    }
    return [ended[i] for i in range(len(prompts))]

  def finished(
    self,
    params: decoder.Params,
    prompts: Sequence[Sequence[int]],
    sampling: Sequence[Sampling],
    seeds: Sequence[int],
    request_guides: Sequence[guides.Guide | None] | None = None,
  ) -> Iterator[list[tuple[int, Generation]]]:
    """Yields what ended at a time, as (index of the prompt, completion).

    Args:
      request_guides: of requests that the host has a say in; see `guides`.

    Raises:
      ValueError: for an empty prompt, or more tokens than there is room for.
    """
    self._check(prompts, sampling)
    order = reading_order(prompts, sampling, self._lanes)
    watch = guides.Watch(
      request_guides or [None] * len(prompts), self._config.vocab_size
    )
    longest = max(map(len, prompts), default=0)
    width = self._chunk
    while width < longest:
      width *= 2
    entries = _QUEUED_PER_SLOT * self._batch_size
    slots = self._empty(
      slots=self._batch_size,
      lanes=self._lanes,
      prompt=width,
      new=self._max_new_tokens,
    )
    params = self._split(params)
    request_B = np.full(self._batch_size, -1)
    in_lanes: list[int] = []
    keep_B = np.ones(self._batch_size, bool)
    entered, queued_from, queue, left = 0, None, None, len(prompts)
    while left:
      if queued_from != entered:
        queued_from = entered
        queue = slots_lib.queue(
          prompts,
          sampling,
          seeds,
          order[entered:],
          entries=entries,
          width=width,
        )
      control = Control(
        keep_B=keep_B,
        allowed_BxW=watch.allowed(request_B),
        limit=np.int32(
          watch.steps(request_B, in_lanes + order[entered : entered + entries])
        ),
        more=np.bool_(entered + entries < len(order)),
      )
      slots, done, *numbers = self._run(
        params, slots, queue, control, self._stop_S
      )
      done, (new, steps, busy) = jax.device_get((done, numbers))
      # Copies, as the next run writes over what they are taken from.
      request_B = np.array(slots.request_B)
      in_lanes = [i for i in np.array(slots.lanes.request_R) if i >= 0]
      entered += int(new)
      self._busy += int(busy)
      self._offered += int(steps) * self._batch_size
      ended = []
      for i in range(done.size):
        request, count = int(done.request_D[i]), int(done.count_D[i])
        tokens = done.token_DxT[i, :count]
        kept = watch.read(request, tokens)
        ended.append(
          (
            request,
            _generation(
              tokens, done.log_prob_DxT[i], kept, bool(done.stopped_D[i])
            ),
          )
        )
      keep_B = np.ones(self._batch_size, bool)
      for slot in watch.slots(request_B):
        request, count = int(request_B[slot]), int(slots.count_B[slot])
        tokens = np.array(slots.token_BxT[slot, :count])
        kept = watch.read(request, tokens)
        if kept is not None:
          keep_B[slot], request_B[slot] = False, -1
          log_probs = np.array(slots.log_prob_BxT[slot])
          ended.append((request, _generation(tokens, log_probs, kept, False)))
      left -= len(ended)
      if ended:
        yield ended

  def _check(self, prompts, sampling):
    for prompt, s in zip(prompts, sampling, strict=True):
      if not len(prompt):
        raise ValueError('a prompt has no tokens; write something to answer.')
      if s.max_tokens > self._max_new_tokens:
        raise ValueError(
          f"max_tokens {s.max_tokens} is over the sampler's "
          f'max_new_tokens {self._max_new_tokens}; build it larger.'
        )


def num_lanes(slots: int, chunk: int) -> int:
  """Prompts that are read at once, `chunk` tokens of each."""
  return min(slots, max(1, _READ_TOKENS // chunk))


def reading_order(
  prompts: Sequence[Sequence[int]], sampling: Sequence[Sampling], lanes: int
) -> list[int]:
  """Long answers first, so that none runs alone at the end; then by prompt.

  Neighbours have most in common, and lanes copy what they have. A second sample
  of a prompt comes when as many others have been taken as there are lanes, so
  that all of them read and none has been replaced.
  """
  key = lambda i: (-sampling[i].max_tokens, tuple(prompts[i]))
  place, groups = {}, -1
  for _, members in itertools.groupby(
    sorted(range(len(prompts)), key=key), key
  ):
    groups += 1
    for sample, i in enumerate(members):
      place[i] = (-sampling[i].max_tokens, groups // lanes, sample, groups)
  return sorted(place, key=place.get)


def _generation(tokens, log_probs, kept: int | None, stopped: bool):
  """`kept` tokens are the text if the host ended it, else the device did."""
  count = len(tokens) if kept is None else kept
  stop_token = stopped and kept is None
  return Generation(
    tokens=tuple(int(t) for t in tokens[: count - stop_token]),
    stopped=stop_token or kept is not None,
    log_probs=tuple(float(x) for x in log_probs[:count]),
  )
