"""Optimizers: against a hand-worked step, and Muon's defining property."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from ioa_jax.training import optimizer

RECIPE = optimizer.Recipe(
  name='adamw',
  learning_rate=0.1,
  warmup_share=0.01,
  final_share=0.1,
  weight_decay=0.5,
  b1=0.9,
  b2=0.95,
  clip_norm=1e9,
  momentum_dtype='float32',
)


def make(**changes):
  return optimizer.make(dataclasses.replace(RECIPE, **changes), 100)


def _params():
  keys = jax.random.split(jax.random.key(0), 2)
  return {
    'embedding': jax.random.normal(keys[0], (5, 8)),
    'layers': {
      'norm': {'scale': jnp.ones((2, 8))},
      'q_proj': {'kernel': jax.random.normal(keys[1], (2, 8, 16))},
    },
  }


def _second_update(name, grads):
  """The first step has learning rate 0, so the second is the one to look at."""
  tx, schedule = make(name=name)
  params = _params()
  state = tx.init(params)
  for _ in range(2):
    updates, state = tx.update(grads, state, params)
  return updates, float(schedule(1))


def test_schedule_warms_up_and_ends_at_its_share():
  _, schedule = make()
  assert float(schedule(0)) == 0.0
  assert float(schedule(1)) == pytest.approx(0.1)
  assert float(schedule(100)) == pytest.approx(0.01)


def test_adamw_with_a_constant_gradient_moves_by_its_sign_and_decays():
  grads = jax.tree.map(lambda p: jnp.full_like(p, 0.3), _params())
  updates, rate = _second_update('adamw', grads)
  kernel = _params()['layers']['q_proj']['kernel']
  np.testing.assert_allclose(
    updates['layers']['q_proj']['kernel'],
    -rate * (1 + 0.5 * kernel),
    rtol=1e-5,
    atol=2e-8,  # One rounding of `rate`, where the two cancel.
  )
  # Norm scales are not decayed.
  np.testing.assert_allclose(
    updates['layers']['norm']['scale'], -rate, rtol=1e-5
  )


def test_muon_makes_each_layers_kernel_update_near_orthogonal():
  grads = jax.tree.map(
    lambda p: jax.random.normal(jax.random.key(1), p.shape), _params()
  )
  updates, rate = _second_update('muon', grads)
  kernel = _params()['layers']['q_proj']['kernel']
  pure = updates['layers']['q_proj']['kernel'] + rate * 0.5 * kernel
  for layer in np.asarray(pure):
    singular = np.linalg.svd(layer, compute_uv=False)
    # Five Newton-Schulz iterations bring them near 1, here times 0.2 sqrt(16).
    np.testing.assert_allclose(singular / (rate * 0.8), 1.0, atol=0.35)


def test_muon_leaves_embedding_and_norms_to_adam():
  grads = jax.tree.map(lambda p: jnp.full_like(p, 0.3), _params())
  updates, rate = _second_update('muon', grads)
  # Nesterov's look ahead at the second step of a constant gradient.
  ahead = 0.9 * (1 - 0.9**2) / (1 - 0.9**3) + 0.1 / (1 - 0.9**2)
  for rest in (updates['embedding'], updates['layers']['norm']['scale']):
    np.testing.assert_allclose(rest, -rate * ahead, rtol=1e-5)


def test_clipping_bounds_what_the_rule_sees():
  tx, _ = make(clip_norm=1.0)
  params = _params()
  grads = jax.tree.map(lambda p: jnp.full_like(p, 100.0), params)
  _, state = tx.update(grads, tx.init(params), params)
  moments = optax.tree.get(state, 'mu')
  assert float(optax.tree.norm(moments)) == pytest.approx(0.1, rel=1e-4)
