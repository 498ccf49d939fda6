"""How hard an item is, from who could answer it.

A two-parameter item-response model (Birnbaum, 1968): a learner of ability
theta is right on an item of difficulty b and discrimination a with probability

  sigmoid(a * (theta - b)).

Fitted to the mode of its posterior. The prior of the abilities fixes the scale
(mean 0, variance 1); those of the items keep one that all or nobody answers at
a finite place. A panel's learner is another person at every snapshot.

Shapes: N persons, I items; F = N + 2 I parameters.
"""

from __future__ import annotations

import dataclasses

import flax.struct
import jax
from jax import flatten_util
import jax.numpy as jnp
import numpy as np
import optax

# Standard deviations of the normal priors of b and log a.
_DIFFICULTY_SD, _LOG_DISCRIMINATION_SD = 2.0, 0.5
_STEPS = 400
_LEARNING_RATE = 0.1
_HESSIAN_ROWS = 64  # Rows that are made at once.


@flax.struct.dataclass
class _Parameters:
  ability_N: jax.Array
  difficulty_I: jax.Array
  log_discrimination_I: jax.Array


@dataclasses.dataclass(frozen=True)
class ItemFit:
  """The posterior mode and standard errors around it.

  Attributes:
    ability_N, difficulty_I: on one scale; 0 is the mean ability.
    discrimination_I: above 0.
    ability_se_N, difficulty_se_I: from the inverse Hessian of the whole
      posterior, so an item's error includes that of the abilities.
    gradient_norm: of the mean log posterior a cell, at the mode.
  """

  ability_N: np.ndarray
  difficulty_I: np.ndarray
  discrimination_I: np.ndarray
  ability_se_N: np.ndarray
  difficulty_se_I: np.ndarray
  gradient_norm: float


def fit(right_NxI: np.ndarray, seen_NxI: np.ndarray | None = None) -> ItemFit:
  """Abilities, difficulties and discriminations of a response matrix.

  Args:
    right_NxI: bool.
    seen_NxI: bool, which cells are measured; all by default.

  Raises:
    ValueError: without persons or items, or for an item that nobody was asked:
      it has no difficulty.
  """
  right = np.asarray(right_NxI, np.float32)
  if right.ndim != 2 or not right.size:
    raise ValueError(
      f'item fit: responses have shape {right.shape}, wanted persons x items.'
    )
  seen = np.ones_like(right) if seen_NxI is None else np.asarray(seen_NxI)
  if not seen.any(axis=0).all():
    unseen = np.flatnonzero(~seen.any(axis=0))[:5].tolist()
    raise ValueError(f'item fit: nobody was asked items {unseen}; drop them.')
  mode, variance, norm = jax.device_get(_fit(right, seen.astype(np.float32)))
  n, i = right.shape
  error = np.sqrt(variance)
  return ItemFit(
    mode.ability_N,
    mode.difficulty_I,
    np.exp(mode.log_discrimination_I),
    error[:n],
    error[n : n + i],
    float(norm),
  )


def _negative_log_posterior(parameters, right_NxI, seen_NxI):
  p = parameters
  logit_NxI = jnp.exp(p.log_discrimination_I)[None] * (
    p.ability_N[:, None] - p.difficulty_I[None]
  )
  # log(1 + e^x) - y x, the negative log-likelihood of a yes or no.
  nll = jnp.sum(seen_NxI * (jax.nn.softplus(logit_NxI) - right_NxI * logit_NxI))
  prior = 0.5 * (
    jnp.sum(jnp.square(p.ability_N))
    + jnp.sum(jnp.square(p.difficulty_I / _DIFFICULTY_SD))
    + jnp.sum(jnp.square(p.log_discrimination_I / _LOG_DISCRIMINATION_SD))
  )
  return nll + prior


@jax.jit
def _fit(right_NxI, seen_NxI):
  """The mode, the variance of every parameter (F,), and the gradient's norm."""
  n, i = right_NxI.shape
  cells = jnp.sum(seen_NxI)
  loss = lambda p: _negative_log_posterior(p, right_NxI, seen_NxI)
  # Each parameter has its own curvature, and Adam its own step for each.
  tx = optax.adam(optax.cosine_decay_schedule(_LEARNING_RATE, _STEPS))

  def step(carry, _):
    parameters, state = carry
    updates, state = tx.update(jax.grad(loss)(parameters), state)
    return (optax.apply_updates(parameters, updates), state), None

  start = _Parameters(jnp.zeros(n), jnp.zeros(i), jnp.zeros(i))
  (mode, _), _ = jax.lax.scan(step, (start, tx.init(start)), length=_STEPS)
  flat_F, unflatten = flatten_util.ravel_pytree(mode)
  gradient = jax.grad(lambda f: loss(unflatten(f)))
  hessian_FxF = jax.lax.map(
    lambda direction_F: jax.jvp(gradient, (flat_F,), (direction_F,))[1],
    jnp.eye(flat_F.size),
    batch_size=_HESSIAN_ROWS,
  )
  variance_F = jnp.diagonal(jnp.linalg.inv(hessian_FxF))
  return mode, variance_F, jnp.linalg.norm(gradient(flat_F)) / cells
