"""The train step's window without a run around it, for the benchmarks."""

from collections.abc import Mapping, Sequence

import jax
import numpy as np

from ioa_jax import sharding
from ioa_jax.models import decoder
from ioa_jax.training import curriculum as curriculum_lib
from ioa_jax.training import gate as gate_lib
from ioa_jax.training import packing, probing, setup
from ioa_jax.training import step as step_lib

NEVER = 2**30


def endless_plan(names: Sequence[str], asked: Sequence[str]):
  """One stage of the modules `asked`, which ends never."""
  stage = {
    'modules': asked, 'kind': 'consolidate', 'max_steps': NEVER,
    'remedial_steps': 0,
  }  # fmt: skip
  return setup.make_plan(
    {'stages': [stage]}, names, np.ones(len(names)), gated=True,
    tau_mastery=0.9, confidence=0.5, sequential=False, reopen=False,
    min_probes=1, max_rounds=0, on_stall='advance',
  )  # fmt: skip


def make(
  config: decoder.DecoderConfig,
  params: decoder.Params,
  tx,
  lessons: Mapping[str, Sequence[packing.Example]],
  plan: gate_lib.GatePlan,
  bank: probing.ProbeBank | None,
  *,
  row_length: int,
  batch_rows: int,
  num_steps: int,
  probe_every_steps: int,
  average_decay: float,
  replay_share: float,
) -> tuple[
  step_lib.Window, step_lib.TrainState, step_lib.Inputs, jax.sharding.Mesh
]:  # fmt: skip
  """A window of `num_steps` on one device, and what it takes."""
  names = list(lessons)
  mesh = sharding.make_mesh(devices=jax.devices()[:1])
  score = {'correct': 0, 'n': 1}
  diagnosis = {
    'modules': {name: {'student': score, 'gap': 1.0} for name in names}
  }
  mix = setup.make_mix(
    diagnosis, [], names, weighting='need', replay_share=replay_share,
    need_floor=0.2,
  )  # fmt: skip
  most = max(map(len, lessons.values()))
  inputs = setup.make_inputs(
    curriculum_lib.allocate([most] * len(names), row_length), mix, plan, bank,
    mesh, seed=0, total_steps=NEVER, probe_every_steps=probe_every_steps,
    average_decay=average_decay,
  )  # fmt: skip
  inputs = setup.add_lessons(inputs, lessons, names, row_length, mesh)
  state = setup.make_state(
    params, tx, diagnosis, names, plan, mesh, averages=average_decay > 0
  )
  window = step_lib.Window(
    step_lib.Program(config, tx, batch_rows=batch_rows),
    num_steps=num_steps,
    state_shardings=sharding.state_shardings(mesh, state),
    metric_sharding=sharding.replicated(mesh),
  )
  return window, state, inputs, mesh
