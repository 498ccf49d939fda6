"""The learner panel: like learners taught one by one, on any devices."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from ioa_jax.identifier import panel
from ioa_jax.models import decoder, lora
from ioa_jax.runtime import sharding
from ioa_jax.sampling import likelihood
from ioa_jax.training import curriculum as curriculum_lib
from ioa_jax.training import losses, packing, probing

CONFIG = decoder.DecoderConfig(
  vocab_size=16,
  width=16,
  num_layers=1,
  num_heads=2,
  num_kv_heads=1,
  head_width=8,
  mlp_width=24,
)
K, P, L, B = 3, 5, 16, 4
TX = optax.adam(1e-2)


def examples(module):
  """Answers of one and of two tokens, so that rows hold unequal ones."""
  return [
    packing.Example(
      [2, 3 + module, v], [4 + (v * (module + 1)) % 9, 1][: 1 + v % 2]
    )
    for v in range(4, 4 + P)
  ]


@functools.cache
def material():
  packed = {k: packing.pack(examples(k), L) for k in range(K)}
  curriculum = curriculum_lib.add_rows(
    curriculum_lib.allocate([len(p['token']) for p in packed.values()], L),
    packed,
  )
  bank = probing.build([examples(k) for k in range(K)], L, 4)
  bank = jax.tree.map(jnp.asarray, bank)
  return decoder.init(CONFIG, jax.random.key(0)), curriculum, bank


def inputs(exposure):
  exposure = np.asarray(exposure, np.float32)
  return panel.Inputs(
    *material(), exposure, np.arange(len(exposure), dtype=np.uint32) + 7
  )


def program(spec=None):
  return panel.Program(
    CONFIG, TX, batch_rows=B, num_snapshots=2, steps_per_snapshot=3, lora=spec
  )


def mesh(devices):
  return sharding.make_mesh(devices=jax.devices()[:devices])


EXPOSURE = [[1, 1, 0], [0, 0, 1], [1, 0, 1], [0, 1, 0], [0, 0, 0]]


@functools.cache
def outcome(devices, spec=None):
  on = mesh(devices)
  with jax.set_mesh(on):
    return panel.run(program(spec), inputs(EXPOSURE), on)


@jax.jit
def logits_of(params, read):
  hidden = decoder.forward(
    CONFIG, params, read, jnp.ones_like(read), jnp.arange(read.shape[1])[None]
  )
  return decoder.unembed(CONFIG, params, hidden)[0]


score_items = jax.jit(functools.partial(probing.score_items, CONFIG))


def test_items_are_scored_as_one_by_one():
  params, _, bank = material()
  right, nll, tokens = score_items(params, bank)
  for k in range(K):
    for p, example in enumerate(examples(k)):
      text = [*example.prompt, *example.completion]
      n = len(example.completion)
      read = np.zeros((1, L), np.int32)
      read[0, : len(text)] = text
      ends = slice(len(text) - 1 - n, len(text) - 1)
      logits = np.asarray(logits_of(params, read), np.float64)[ends]
      want = np.array(example.completion)
      log_sum = np.log(np.exp(logits).sum(axis=-1))
      assert tokens[k, p] == n
      np.testing.assert_allclose(
        nll[k, p], (log_sum - logits[np.arange(n), want]).sum(), rtol=1e-5
      )
      assert right[k, p] == (logits.argmax(-1) == want).all()


def test_logits_in_pieces_score_the_same(monkeypatch):
  """Of a real vocabulary only some positions of a row fit at once."""
  params, _, bank = material()
  whole = score_items(params, bank)
  row_Q = np.arange(len(bank.module_Q))
  count = lambda: jax.jit(
    lambda at: probing.right_answers(CONFIG, params, bank, at, at >= 0)[0]
  )(row_Q)
  right = count()
  monkeypatch.setattr(losses, '_MAX_ROW_LOGITS', 4 * CONFIG.vocab_size)
  pieces = jax.jit(lambda: probing.score_items(CONFIG, params, bank))()
  for a, b in zip(whole, pieces):
    np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-6)
  np.testing.assert_array_equal(count(), right)


def test_items_are_as_likely_as_their_texts_are_alone():
  """What a run reports of held-out answers is the panel's measure too."""
  params, _, bank = material()
  _, nll, tokens = score_items(params, bank)
  likely = likelihood.Likelihood(CONFIG, batch_size=4)
  for k in range(K):
    items = examples(k)
    alone, reverse = (
      likely(params, [e.prompt for e in x], [e.completion for e in x])
      for x in (items, items[::-1])
    )
    assert sum(map(len, alone)) == tokens[k].sum() > 0
    np.testing.assert_allclose(
      -sum(x.sum() for x in alone), nll[k].sum(), rtol=1e-5
    )
    # Texts of a batch do not see one another.
    for a, b in zip(alone, reverse[::-1], strict=True):
      np.testing.assert_allclose(a, b, rtol=1e-5)


def test_item_counts_are_those_of_the_gate():
  params, _, bank = material()
  right, _, _ = score_items(params, bank)
  row_Q = np.arange(len(bank.module_Q))
  correct_Q, _ = jax.jit(functools.partial(probing.right_answers, CONFIG))(
    params, bank, row_Q, np.ones_like(row_Q)
  )
  for k in range(K):
    assert right[k].sum() == correct_Q[bank.module_Q == k].sum()


@pytest.mark.slow
def test_a_learner_is_one_trained_alone():
  params, curriculum, bank = material()
  curriculum = jax.tree.map(jnp.asarray, curriculum)
  given = inputs(EXPOSURE)
  learner = 2
  seed = jnp.uint32(given.seed_N[learner])
  weight = jnp.asarray(given.exposure_NxK[learner])
  weight = weight / weight.sum()
  root = jax.random.fold_in(jax.random.key(seed), panel._DATA)
  draw = jax.jit(functools.partial(curriculum_lib.draw, batch_rows=B))
  opt_state, cursor = TX.init(params), jnp.zeros(K, jnp.uint32)
  found = outcome(1)

  @jax.jit
  @jax.grad
  def gradient(params, batch):
    hidden = decoder.forward(
      CONFIG, params, batch['token'], batch['segment'], batch['position']
    )
    total, count = losses.cross_entropy(
      decoder.unembed(CONFIG, params, hidden), batch['target'], batch['weight']
    )
    return total / count

  for i in range(6):
    batch, cursor, drawn = draw(
      curriculum, weight, cursor, jax.random.fold_in(root, i), seed
    )
    assert drawn[1] == 0  # Not its module.
    updates, opt_state = TX.update(gradient(params, batch), opt_state, params)
    params = optax.apply_updates(params, updates)
    if i % 3 == 2:
      _, nll, _ = score_items(params, bank)
      np.testing.assert_allclose(
        found.nll[learner, i // 3], nll, rtol=2e-4, atol=2e-4
      )


SPEC = lora.LoraSpec(rank=2, alpha=4.0, dropout=0.1, targets=('q_proj',))


@pytest.mark.slow
@pytest.mark.parametrize('spec', [None, SPEC], ids=['whole', 'lora'])
def test_four_devices_are_one(spec):
  # Five learners on four devices: three places are padding.
  one, four = outcome(1, spec), outcome(4, spec)
  assert one.nll.shape == four.nll.shape == (5, 2, K, P)
  np.testing.assert_allclose(four.nll, one.nll, rtol=2e-4, atol=2e-4)
  np.testing.assert_allclose(four.loss_NxT, one.loss_NxT, rtol=2e-4)


def test_learners_lie_on_all_devices_and_one_trace_serves():
  on = mesh(4)
  placed = inputs(EXPOSURE[:4])
  placed = jax.device_put(placed, panel.shardings(placed, on))
  run = panel.compiled(program(), on)
  found = run(placed)
  assert len(found.nll.sharding.device_set) == 4
  assert found.nll.addressable_shards[0].data.shape[0] == 1
  run(placed.replace(seed_N=placed.seed_N + 1))
  assert run._cache_size() == 1


def test_who_is_taught_nothing_stays_as_the_student():
  params, _, bank = material()
  _, nll, _ = score_items(params, bank)
  found = outcome(1)
  for t in range(2):
    np.testing.assert_allclose(found.nll[4, t], nll, rtol=1e-5, atol=1e-5)
  # Those who are taught a module learn it.
  assert (found.nll[0, 1, :2].sum() < nll[:2].sum()).all()


def test_a_diverging_learner_is_an_error():
  broken = panel.Program(CONFIG, optax.sgd(1e30), B, 2, 3)
  with pytest.raises(ValueError, match=r'learners .* not finite'):
    panel.run(broken, inputs(EXPOSURE), mesh(1))
