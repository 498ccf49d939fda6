"""Losses over pieces, and gradients over parts, equal those of the whole."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ioa_jax.models import decoder
from ioa_jax.runtime import sharding
from ioa_jax.training import losses
from ioa_jax.training import step as step_lib
from tests import test_step

CONFIG = decoder.DecoderConfig(
  vocab_size=50,
  width=16,
  num_layers=1,
  num_heads=2,
  num_kv_heads=1,
  head_width=8,
  mlp_width=24,
)


def inputs(length=24, rows=4, vocab=50):
  rng = np.random.default_rng(0)
  params = decoder.init(
    dataclasses.replace(CONFIG, vocab_size=vocab), jax.random.key(0)
  )
  return (
    params,
    jnp.asarray(rng.normal(size=(rows, length, 16)), jnp.float32),
    jnp.asarray(rng.integers(0, vocab, (rows, length))),
    jnp.asarray(rng.random((rows, length)) < 0.7, jnp.float32),
  )


def mean_loss(config, params, hidden, target, weight):
  total, count = losses.token_cross_entropy(
    config, params, hidden, target, weight
  )
  return total / count


@pytest.mark.parametrize('devices', [1, 4])
def test_pieces_give_the_loss_and_the_gradients_of_the_whole(
  monkeypatch, devices
):
  mesh = sharding.make_mesh(data=devices, devices=jax.devices()[:devices])
  values = inputs()
  compute = lambda: jax.jit(
    jax.value_and_grad(
      lambda *x: mean_loss(CONFIG, *x, *values[2:]), argnums=(0, 1)
    )
  )(*values[:2])
  with jax.set_mesh(mesh):
    want = compute()
    monkeypatch.setattr(losses, '_MAX_ROW_LOGITS', 6 * 50)
    assert losses._piece(24, 50) == 6
    got = compute()
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6, rtol=1e-5),
    got,
    want,
  )


def test_pieces_divide_the_row_and_fit():
  for length in (1, 7, 64, 4096):
    for vocab in (32, 49152, 152064):
      piece = losses._piece(length, vocab)
      assert length % piece == 0
      assert piece * vocab <= losses._MAX_ROW_LOGITS or piece == 1


def test_no_array_of_all_logits_exists(monkeypatch):
  """Memory as compiled: 8 rows of 512 tokens, 32 k words, in 16 pieces."""
  config = dataclasses.replace(CONFIG, vocab_size=2**15)
  params, *rest = inputs(512, 8, 2**15)

  def temporary():
    grad = jax.jit(jax.grad(lambda p, *x: mean_loss(config, p, *x)))
    compiled = grad.lower(params, *rest).compile()
    return compiled.memory_analysis().temp_size_in_bytes

  monkeypatch.setattr(losses, '_MAX_ROW_LOGITS', 2**20)
  pieces = temporary()
  monkeypatch.setattr(losses, '_MAX_ROW_LOGITS', 2**40)
  assert temporary() > 5 * pieces


def test_parts_of_a_batch_make_the_step_of_the_whole():
  """Sums and counts are divided once: parts with few tokens weigh little."""
  _, state, inputs_, mesh, _ = test_step.make()
  state = jax.device_get(state)
  # Rows with very different numbers of tokens.
  curriculum = jax.device_get(inputs_.curriculum)
  weight = np.array(curriculum.rows['weight'])
  weight[::3, 3:] = 0.0
  inputs_ = inputs_.replace(
    curriculum=curriculum.replace(rows=curriculum.rows | {'weight': weight})
  )
  tx, _ = test_step.optimizer_and_schedule()
  found = {}
  for parts in (1, 4):
    program = step_lib.Program(
      test_step.CONFIG, tx, batch_rows=8, microbatches=parts
    )
    window = step_lib.Window(program, num_steps=3)
    with jax.set_mesh(mesh):
      after, metrics = window(jax.tree.map(jnp.asarray, state), inputs_)
    found[parts] = jax.device_get((after.params, metrics['loss_sum']))
    np.testing.assert_array_equal(metrics['ran'], True)
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6, rtol=2e-6),
    found[4],
    found[1],
  )
