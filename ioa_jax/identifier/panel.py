"""The learner panel: N short educations in one program.

Every learner is a copy of the student: its whole weights, or adapters over one
base. Each is taught its own modules and probed on all of them at several
snapshots. Learners never meet, so their axis is split over all row devices and
nothing is communicated; the base of adapters lies whole on every device.

Shapes: N learners, T snapshots, K knowledge modules, P probes per module.
"""

from __future__ import annotations

from collections.abc import Callable
import dataclasses
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
import optax

from ioa_jax.models import decoder, lora
from ioa_jax.runtime import sharding
from ioa_jax.training import curriculum as curriculum_lib
from ioa_jax.training import learning, losses, probing

# Purposes of a learner's key.
_INIT, _DATA, _DROPOUT = 0, 1, 2


@flax.struct.dataclass
class Inputs:
  """What the program reads.

  Attributes:
    student: the weights that every learner begins with.
    exposure_NxK: which modules a learner is taught.
    seed_N: uint32, a learner's own.
  """

  student: decoder.Params
  curriculum: curriculum_lib.Curriculum
  bank: probing.ProbeBank
  exposure_NxK: jax.Array
  seed_N: jax.Array


@flax.struct.dataclass
class Outcome:
  """Item outcomes of every learner at every snapshot, each (N, T, K, P).

  Attributes:
    right: bool, all tokens of the answer are the likeliest.
    nll: nats of the answer, summed over its tokens.
    loss_NxT: mean token loss of the steps before a snapshot.
    tokens_NxT: tokens of the rows of these steps.
  """

  right: jax.Array
  nll: jax.Array
  loss_NxT: jax.Array
  tokens_NxT: jax.Array


@dataclasses.dataclass(frozen=True)
class Program:
  """What is compiled in.

  Attributes:
    num_snapshots, steps_per_snapshot: optimizer steps are their product.
    lora: None trains all weights of every learner.
  """

  config: decoder.DecoderConfig
  tx: optax.GradientTransformation
  batch_rows: int
  num_snapshots: int
  steps_per_snapshot: int
  lora: lora.LoraSpec | None = None


def _educate(program: Program, inputs: Inputs, exposure_K, seed):
  """One learner from first step to last snapshot."""
  root = jax.random.key(seed)
  base = None if program.lora is None else inputs.student
  weight_K = exposure_K / jnp.maximum(jnp.sum(exposure_K), 1.0)

  def params_of(trained, key=None):
    return learning.assemble(trained, base, program.lora, key)

  def step(carry, index):
    trained, opt_state, cursor_K = carry
    key = lambda purpose: jax.random.fold_in(
      jax.random.fold_in(root, purpose), index
    )
    batch, cursor_K, _ = curriculum_lib.draw(
      inputs.curriculum,
      weight_K,
      cursor_K,
      key(_DATA),
      seed,
      batch_rows=program.batch_rows,
    )

    def mean_loss(trained):
      params = params_of(trained, key(_DROPOUT))
      hidden = decoder.forward(
        program.config,
        params,
        batch['token'],
        batch['segment'],
        batch['position'],
      )
      loss_sum, count = losses.token_cross_entropy(
        program.config, params, hidden, batch['target'], batch['weight']
      )
      tokens = jnp.sum(batch['segment'] > 0)
      return loss_sum / jnp.maximum(count, 1.0), (loss_sum, count, tokens)

    (_, sums), grads = jax.value_and_grad(mean_loss, has_aux=True)(trained)
    updates, opt_state = program.tx.update(grads, opt_state, trained)
    # Learners that are taught nothing keep the student's weights.
    moves = sums[1] > 0
    trained = jax.tree.map(
      lambda p, u: jnp.where(moves, p + u, p), trained, updates
    )
    return (trained, opt_state, cursor_K), sums

  def snapshot(carry, index):
    start = index * program.steps_per_snapshot
    carry, (loss_sum, count, tokens) = jax.lax.scan(
      step, carry, start + jnp.arange(program.steps_per_snapshot)
    )
    right, nll, _ = probing.score_items(
      program.config, params_of(carry[0]), inputs.bank
    )
    loss = jnp.sum(loss_sum) / jnp.maximum(jnp.sum(count), 1.0)
    return carry, Outcome(right, nll, loss, jnp.sum(tokens))

  trained = inputs.student
  if program.lora is not None:
    key = jax.random.fold_in(root, _INIT)
    trained = lora.init(program.lora, inputs.student, key)
  cursor_K = jnp.zeros(exposure_K.shape, jnp.uint32)
  carry = (trained, program.tx.init(trained), cursor_K)
  _, outcome = jax.lax.scan(snapshot, carry, jnp.arange(program.num_snapshots))
  return outcome


def compiled(program: Program, mesh: jax.sharding.Mesh) -> Callable:
  """The jitted panel, `Inputs` to `Outcome`, learners split over `mesh`.

  It also has `lower`, for shapes that `place` has given their shardings.
  """

  def run(inputs: Inputs) -> Outcome:
    # A learner's rows stay with the learner: the layout of one large model
    # (rows over devices) does not hold in here.
    nowhere = jax.sharding.AbstractMesh((), ())
    with jax.sharding.use_abstract_mesh(nowhere):
      return jax.vmap(_educate, in_axes=(None, None, 0, 0))(
        program, inputs, inputs.exposure_NxK, inputs.seed_N
      )

  return jax.jit(run, out_shardings=_learners(mesh))


def _learners(mesh):
  return jax.sharding.NamedSharding(mesh, sharding.spec(('batch',)))


def shardings(inputs: Inputs, mesh: jax.sharding.Mesh) -> Any:
  """Learners over the row devices, everything else whole on each."""
  whole = sharding.replicated(mesh)
  return jax.tree.map(lambda _: whole, inputs).replace(
    exposure_NxK=_learners(mesh), seed_N=_learners(mesh)
  )


def run(program: Program, inputs: Inputs, mesh: jax.sharding.Mesh) -> Outcome:
  """Educates and probes all learners; returns NumPy arrays.

  Raises:
    ValueError: if a learner's loss is not finite: its answers mean nothing.
  """
  num_learners = len(inputs.seed_N)
  shards = sharding.num_row_shards(mesh)
  # Learners that are taught nothing fill up the devices, and are cut off.
  padding = -num_learners % shards
  pad = lambda x: np.pad(x, [(0, padding)] + [(0, 0)] * (x.ndim - 1))
  inputs = inputs.replace(
    exposure_NxK=pad(np.asarray(inputs.exposure_NxK, np.float32)),
    seed_N=pad(np.asarray(inputs.seed_N, np.uint32)),
  )
  placed = jax.device_put(inputs, shardings(inputs, mesh))
  found = sharding.fetch(compiled(program, mesh)(placed))
  found = jax.tree.map(lambda x: np.asarray(x)[:num_learners], found)
  if not np.isfinite(found.loss_NxT).all():
    broken = np.flatnonzero(~np.isfinite(found.loss_NxT).all(axis=1))
    raise ValueError(
      f'panel: the loss of learners {broken.tolist()} is not finite; lower '
      'identifier.panel.learning_rate.'
    )
  return found
