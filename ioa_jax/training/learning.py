"""How one step learns: a batch is drawn, its gradients move the weights.

Shapes: K knowledge modules, B batch rows.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import optax

from ioa_jax.models import decoder, lora
from ioa_jax.training import curriculum as curriculum_lib
from ioa_jax.training import distillation, losses
from ioa_jax.training import gate as gate_lib
from ioa_jax.training import guard as guard_lib

# Purposes of the root key; each draw folds in its purpose and its step.
DATA, DROPOUT, ON_POLICY = 0, 1, 2


def assemble(
  trained: Any,
  base: decoder.Params | None,
  spec: lora.LoraSpec | None,
  dropout_key: jax.Array | None = None,
) -> decoder.Params:
  """Weights that the decoder takes: what trains, over what does not."""
  if spec is None:
    return trained
  return lora.attach(base, trained, spec, dropout_key=dropout_key)


def _key(inputs, purpose, step):
  key = jax.random.fold_in(jax.random.key(inputs.seed), purpose)
  return jax.random.fold_in(key, step)


def draw(program, state, inputs):
  """A batch, rows of each module in it, and the state and inputs behind it.

  Own texts take every step in which their share of the steps reaches another
  whole number, once there are any: GKD's coin (Agarwal et al., 2024, alg. 1)
  without its variance.
  """

  def take(curriculum, cursor_K, competence_K=None):
    weight_K = curriculum_lib.module_weights(
      inputs.mix, state.gate, inputs.plan, curriculum.count_K
    )
    return curriculum_lib.draw(
      curriculum,
      weight_K,
      cursor_K,
      _key(inputs, DATA, state.step),
      inputs.seed,
      batch_rows=program.batch_rows,
      competence_K=competence_K,
    )

  lessons = inputs.curriculum
  competence_K = curriculum_lib.competence(inputs.mix, state.gate, inputs.plan)
  written = lessons.on_policy
  if written is None:
    batch, cursor_K, drawn_K = take(lessons, state.cursor_K, competence_K)
    return batch, drawn_K, state.replace(cursor_K=cursor_K), inputs

  def from_written():
    batch, cursor_K, drawn_K = take(written, state.on_policy_cursor_K)
    batch['row'] = jnp.full_like(batch['row'], -1)  # Of no lesson.
    return batch, drawn_K, state.cursor_K, cursor_K

  def from_lessons():
    batch, cursor_K, drawn_K = take(lessons, state.cursor_K, competence_K)
    return batch, drawn_K, cursor_K, state.on_policy_cursor_K

  objective = inputs.distillation
  whole = lambda step: jnp.floor(objective.on_policy_share * step)
  is_on_policy = whole(state.step + 1) > whole(state.step)
  is_on_policy &= jnp.any(written.count_K > 0)
  batch, drawn_K, cursor_K, on_policy_cursor_K = jax.lax.cond(
    is_on_policy, from_written, from_lessons
  )
  # Nobody wants an own text to become likelier than it is.
  weight = jnp.where(is_on_policy, 1.0, objective.weight)
  return (
    batch,
    drawn_K,
    state.replace(cursor_K=cursor_K, on_policy_cursor_K=on_policy_cursor_K),
    inputs.replace(distillation=objective.replace(weight=weight)),
  )


def _gradients(program, state, inputs, batch):
  """Gradients of the mean token loss; its sum and the count of tokens."""

  def loss_fn(trained, rows, key):
    params = assemble(trained, inputs.base, program.lora, key)
    hidden = decoder.forward(
      program.config, params, rows['token'], rows['segment'], rows['position']
    )
    if inputs.distillation is None:
      return losses.token_cross_entropy(
        program.config, params, hidden, rows['target'], rows['weight']
      )
    return distillation.token_loss(
      program.config, params, hidden, rows, inputs.distillation
    )

  key = _key(inputs, DROPOUT, state.step)
  if program.microbatches == 1:

    def mean(trained):
      loss_sum, count = loss_fn(trained, batch, key)
      return loss_sum / jnp.maximum(count, 1.0), (loss_sum, count)

    (_, sums), grads = jax.value_and_grad(mean, has_aux=True)(state.params)
    return grads, *sums

  def add(total, rows_and_index):
    rows, index = rows_and_index
    (loss_sum, count), grads = jax.value_and_grad(loss_fn, has_aux=True)(
      state.params, rows, jax.random.fold_in(key, index)
    )
    return jax.tree.map(jnp.add, total, (grads, loss_sum, count)), None

  m = program.microbatches
  # Every m-th row, so that each part has rows on every device.
  split = lambda x: jnp.moveaxis(x.reshape(-1, m, *x.shape[1:]), 1, 0)
  zero = jnp.float32(0.0)
  start = (jax.tree.map(jnp.zeros_like, state.params), zero, zero)
  (grads, loss_sum, count), _ = jax.lax.scan(
    add, start, (jax.tree.map(split, batch), jnp.arange(m))
  )
  # Sums and counts travel apart and are divided once: parts differ in tokens.
  grads = jax.tree.map(lambda g: g / jnp.maximum(count, 1.0), grads)
  return grads, loss_sum, count


def learn(program, state, inputs, batch):
  """One optimizer step; a batch without live tokens moves nothing."""
  tx = program.tx
  grads, loss_sum, count = _gradients(program, state, inputs, batch)
  grad_norm = optax.tree.norm(grads)
  finite = jnp.isfinite(loss_sum) & jnp.isfinite(grad_norm)
  updates, opt_state = tx.update(grads, state.opt_state, state.params)
  pace = guard_lib.pace(state.guard, state.step, inputs.ending_steps)
  updates = jax.tree.map(lambda u: pace * u, updates)
  params = optax.apply_updates(state.params, updates)
  # The average starts as the first parameters; a fixed decay would keep them
  # for 1 / (1 - decay) steps, so it grows from 0.
  decay = jnp.minimum(
    inputs.average_decay, (1.0 + state.step) / (10.0 + state.step)
  )
  average = None
  if state.average is not None:
    average = jax.tree.map(
      lambda a, p: decay * a + (1 - decay) * p, state.average, params
    )
  # Momentum and weight decay move parameters even with zero gradients, so a
  # batch that teaches nothing must not reach the optimizer's result.
  moves = finite & (count > 0)
  keep = lambda new, old: jax.tree.map(
    lambda n, o: jnp.where(moves, n, o), new, old
  )
  state = state.replace(
    step=state.step + 1,
    params=keep(params, state.params),
    opt_state=keep(opt_state, state.opt_state),
    average=keep(average, state.average),
    gate=gate_lib.count_step(state.gate),
    finite=finite,
  )
  tokens = jnp.sum(batch['segment'] > 0)
  return state, {
    'loss_sum': loss_sum,
    'loss_count': count,
    'grad_norm': grad_norm,
    'pace': pace,
    'tokens': tokens,
  }
