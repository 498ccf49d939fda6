"""Reading lanes: what is read, how often, and that nothing else changes."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ioa_jax.models import decoder
from ioa_jax.models.architectures import Layer
from ioa_jax.sampling import logits as logits_lib
from ioa_jax.sampling import prefill
from ioa_jax.sampling import sampler as sampler_lib
from ioa_jax.sampling import slots as slots_lib

CONFIG = decoder.DecoderConfig(
  vocab_size=23,
  width=32,
  num_layers=2,
  num_heads=4,
  num_kv_heads=2,
  head_width=8,
  mlp_width=48,
)
CHUNK, WIDTH = 16, 64
take = jax.jit(functools.partial(prefill.take, CONFIG, chunk=CHUNK))
read = jax.jit(functools.partial(prefill.read, CONFIG, chunk=CHUNK))


@pytest.fixture(scope='module')
def params():
  return decoder.init(CONFIG, jax.random.key(0))


def queue(prompts):
  n = len(prompts)
  return slots_lib.queue(
    prompts,
    [logits_lib.Sampling()] * n,
    range(n),
    range(n),
    entries=n,
    width=WIDTH,
  )


def shared_prompts():
  """Two the same, one that shares 40 tokens with them, and a short one."""
  start = list(np.random.default_rng(2).integers(2, 23, 40))
  return [start + [5, 6], start + [5, 6], start + [7] * 9, [4] * 3]


def test_what_a_lane_holds_is_not_read_again(params):
  """One lane, so a prompt can have something in common only with the last."""
  asked = shared_prompts()
  lanes = prefill.empty(CONFIG, lanes=1, prompt=WIDTH, chunk=CHUNK)
  held, turns = [], []
  for i in range(4):
    lanes, entered = take(lanes, queue(asked), jnp.int32(i))
    assert int(entered) == i + 1
    held.append(int(lanes.read_R[0]))
    turns.append(0)
    while not bool(lanes.done_R[0]):
      lanes = read(params, lanes)
      turns[-1] += 1
    # It enters a slot.
    lanes = lanes.replace(request_R=jnp.full(1, -1))
  # Of 42 tokens all, or the two whole chunks of 40; never a part of a chunk.
  assert held == [0, 48, 32, 0]
  assert turns == [3, 0, 2, 1]


@pytest.mark.parametrize(
  ('num_lanes', 'window'), [(1, None), (3, None), (4, None), (1, 9), (3, 9)]
)
def test_hidden_states_are_those_of_the_full_forward_pass(
  params, num_lanes, window
):
  """Also with rings of 24 that go round: what they let go is read again."""
  config = dataclasses.replace(CONFIG, layer_pattern=(Layer(window=window),))
  take = jax.jit(functools.partial(prefill.take, config, chunk=CHUNK))
  read = jax.jit(functools.partial(prefill.read, config, chunk=CHUNK))
  asked = shared_prompts()
  lanes = prefill.empty(config, lanes=num_lanes, prompt=WIDTH, chunk=CHUNK)
  entered, found = jnp.int32(0), {}
  while len(found) < len(asked):
    lanes, entered = take(lanes, queue(asked), entered)
    lanes = read(params, lanes)
    for r in np.flatnonzero(lanes.done_R):
      found[int(lanes.request_R[r])] = np.asarray(lanes.hidden_RxD[r])
      lanes = lanes.replace(request_R=lanes.request_R.at[r].set(-1))
  for i, prompt in enumerate(asked):
    token = jnp.asarray([prompt], jnp.int32)
    hidden = decoder.forward(
      config,
      params,
      token,
      jnp.ones_like(token),
      jnp.arange(len(prompt))[None],
    )
    np.testing.assert_allclose(found[i], hidden[0, -1], rtol=2e-5, atol=2e-5)
  # Two samples of one prompt, to the bit.
  np.testing.assert_array_equal(found[0], found[1])


def test_a_lane_that_is_done_stays_as_it_is_while_others_read(params):
  short, long = [4] * 3, list(range(2, 22)) * 3
  lanes, _ = take(
    prefill.empty(CONFIG, lanes=2, prompt=WIDTH, chunk=CHUNK),
    queue([short, long]),
    jnp.int32(0),
  )
  first = read(params, lanes)
  assert first.done_R.tolist() == [True, False]
  after = read(params, read(params, first))
  own = lambda lanes: jax.tree.map(
    lambda x: np.asarray(x[:, 0, :, : len(short)]), lanes.cache
  )
  jax.tree.map(np.testing.assert_array_equal, own(first), own(after))
  np.testing.assert_array_equal(first.hidden_RxD[0], after.hidden_RxD[0])
  assert int(after.read_R[0]) == CHUNK


def turns_to_read(params, prompts, num_lanes):
  """Reading turns until all have left; a prompt leaves when it is read."""
  lanes = prefill.empty(CONFIG, lanes=num_lanes, prompt=WIDTH, chunk=CHUNK)
  entries, entered, turns, left = queue(prompts), jnp.int32(0), 0, len(prompts)
  while left:
    lanes, entered = take(lanes, entries, entered)
    if not bool(lanes.done_R.any()):
      lanes, turns = read(params, lanes), turns + 1
    left -= int(lanes.done_R.sum())
    lanes = lanes.replace(
      request_R=jnp.where(lanes.done_R, -1, lanes.request_R)
    )
  return turns


def test_samples_of_a_prompt_are_read_once(params):
  """Three of each of eight prompts, in the sampler's order."""
  rng = np.random.default_rng(0)
  asked = [list(rng.integers(2, 23, n)) for n in rng.integers(33, 65, 8)] * 3
  order = sampler_lib.reading_order(asked, [logits_lib.Sampling()] * 24, 4)
  assert sorted(order) == list(range(24))
  chunks = sum(-(-len(p) // CHUNK) for p in asked[:8])
  turns = turns_to_read(params, [asked[i] for i in order], 4)
  assert turns <= chunks / 4 + WIDTH // CHUNK


def test_lanes_stay_full_while_prompts_wait(params):
  """Turns are those of all tokens, not of the longest prompts."""
  rng = np.random.default_rng(0)
  asked = [list(rng.integers(2, 23, n)) for n in rng.integers(1, 65, 40)]
  chunks = sum(-(-len(p) // CHUNK) for p in asked)
  turns = turns_to_read(params, asked, 4)
  assert chunks / 4 <= turns <= chunks / 4 + WIDTH // CHUNK
