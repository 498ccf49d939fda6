"""The train step's window without a run around it, for the benchmarks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
import dataclasses

import jax
import numpy as np
import optax

from ioa_jax.models import decoder, lora
from ioa_jax.records import Score, Stage
from ioa_jax.runtime import sharding
from ioa_jax.training import curriculum as curriculum_lib
from ioa_jax.training import gate as gate_lib
from ioa_jax.training import optimizer, packing, probing
from ioa_jax.training import step as step_lib
from ioa_jax.training import trainer as trainer_lib

NEVER = 2**30


@dataclasses.dataclass(frozen=True, kw_only=True)
class Shape:
  """A window's sizes, and how it draws; by default it never probes.

  Attributes:
    lora: adapters train over the weights; None trains all of them.
  """

  row_length: int
  batch_rows: int
  num_steps: int
  microbatches: int = 1
  lora: lora.LoraSpec | None = None
  probe_every_steps: int = NEVER
  average_decay: float = 0.0
  replay_share: float = 0.0


def adamw(learning_rate: float) -> optax.GradientTransformation:
  """The optimizer of full fine-tuning, as torch's side has it."""
  recipe = optimizer.Recipe(
    name='adamw',
    learning_rate=learning_rate,
    warmup_share=0.03,
    final_share=0.1,
    weight_decay=0.01,
    b1=0.9,
    b2=0.95,
    clip_norm=1.0,
    momentum_dtype='float32',
  )
  return optimizer.make(recipe, total_steps=10_000)[0]


def endless_plan(names: Sequence[str], asked: Sequence[str]):
  """One stage of the modules `asked`, which ends never."""
  rules = gate_lib.Rules(
    tau_mastery=0.9,
    confidence=0.5,
    sequential=False,
    reopen=False,
    min_probes=1,
    max_rounds=0,
    on_stall='advance',
  )
  stage = Stage(asked, 'consolidate', 0.0, NEVER, 0)
  return gate_lib.make_plan([stage], names, np.ones(len(names)), rules)


def make(
  config: decoder.DecoderConfig,
  params: decoder.Params,
  tx,
  lessons: Mapping[str, Sequence[packing.Example]],
  plan: gate_lib.GatePlan,
  bank: probing.ProbeBank | None,
  shape: Shape,
) -> tuple[
  step_lib.Window, step_lib.TrainState, step_lib.Inputs, jax.sharding.Mesh
]:
  """A window of steps on one device, and what it takes."""
  names = list(lessons)
  mesh = sharding.make_mesh(devices=jax.devices()[:1])
  k = len(names)
  mix = curriculum_lib.make_mix(
    np.ones(k),
    np.zeros(k),
    weighting='need',
    replay_share=shape.replay_share,
    need_floor=0.2,
  )
  most = max(map(len, lessons.values()))
  filled = curriculum_lib.add_rows(
    curriculum_lib.allocate([most] * k, shape.row_length),
    {
      i: packing.pack(lessons[n], shape.row_length) for i, n in enumerate(names)
    },
  )
  pace = trainer_lib.Pace(
    seed=0,
    total_steps=NEVER,
    probe_every_steps=shape.probe_every_steps,
    average_decay=shape.average_decay,
  )
  base, trained = None, params
  if shape.lora is not None:
    base, trained = params, lora.init(shape.lora, params, jax.random.key(0))
  inputs = trainer_lib.make_inputs(
    filled, mix, plan, bank, pace, mesh, base=base
  )
  state = trainer_lib.make_state(
    trained, tx, [Score(0, 1)] * k, plan, mesh, averages=shape.average_decay > 0
  )
  program = step_lib.Program(
    config,
    tx,
    batch_rows=shape.batch_rows,
    microbatches=shape.microbatches,
    lora=shape.lora,
  )
  window = trainer_lib.make_window(program, state, mesh, shape.num_steps)
  return window, state, inputs, mesh
