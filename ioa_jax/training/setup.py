"""Records to device: curriculum and diagnosis become state and inputs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
import statistics
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from ioa_jax import sharding
from ioa_jax.models import decoder, lora
from ioa_jax.training import curriculum as curriculum_lib
from ioa_jax.training import decoded_probes, packing, probing
from ioa_jax.training import distillation as distillation_lib
from ioa_jax.training import gate as gate_lib
from ioa_jax.training import step as step_lib

# A stage without a gate cannot be passed: no ratio reaches this.
_UNREACHABLE = 1e9
_FOREVER = np.iinfo(np.int32).max

Rows = dict[str, np.ndarray]


def gate_z(confidence: float) -> float:
  """The normal quantile of a one-sided confidence; 0.5 is the estimate."""
  return statistics.NormalDist().inv_cdf(confidence)


def make_plan(
  curriculum: Mapping[str, Any],
  names: Sequence[str],
  teacher_score_K: np.ndarray,
  *,
  gated: bool,
  tau_mastery: float,
  confidence: float,
  sequential: bool,
  reopen: bool,
  min_probes: int,
  max_rounds: int,
  on_stall: str,
) -> gate_lib.GatePlan:
  """The gate's constants; `names` gives the order of the K axis.

  Args:
    confidence: one-sided, of the bounds that decide; 0.5 is the estimate.
    sequential, reopen, and the rest: see `gate.GatePlan`.
  """
  stages = curriculum['stages']
  hold_S = np.asarray([s['kind'] == 'consolidate' for s in stages])
  max_steps_S = np.asarray([s['max_steps'] for s in stages], np.int32)
  return gate_lib.GatePlan(
    stage_modules_SxK=np.asarray(
      [[name in s['modules'] for name in names] for s in stages]
    ),
    max_steps_S=np.where(hold_S, _FOREVER, max_steps_S).astype(np.int32),
    hold_S=hold_S,
    teacher_score_K=np.asarray(teacher_score_K, np.float32),
    tau_mastery=np.float32(tau_mastery if gated else _UNREACHABLE),
    z=np.float32(gate_z(confidence)),
    # Without a gate no verdict is wanted, and the scores are all that is.
    sequential=np.bool_(sequential and gated),
    reopen=np.bool_(reopen),
    min_probes=np.int32(min_probes),
    remedial_steps_S=np.asarray(
      [s['remedial_steps'] for s in stages], np.int32
    ),
    max_rounds=np.int32(max_rounds if gated else 0),
    stop_on_stall=np.bool_(gated and on_stall == 'stop'),
  )


def make_mix(
  diagnosis: Mapping[str, Any],
  rehearsed: Sequence[str],
  names: Sequence[str],
  *,
  weighting: str,
  replay_share: float,
  need_floor: float,
) -> curriculum_lib.Mix:
  """How batches are composed; see `baselines.methods` for the weightings."""
  gap_K = np.asarray(
    [diagnosis['modules'][name]['gap'] or 0.0 for name in names], np.float32
  )
  fixed_need_K = (
    need_floor + (1 - need_floor) * gap_K
    if weighting == 'gap' else np.ones_like(gap_K)
  )  # fmt: skip
  return curriculum_lib.Mix(
    replay_share=np.float32(replay_share),
    rehearse_K=np.asarray([name in rehearsed for name in names]),
    need_floor=np.float32(need_floor),
    adaptive=np.bool_(weighting == 'need'),
    contrast=np.bool_(weighting == 'contrast'),
    fixed_need_K=fixed_need_K.astype(np.float32),
  )


def make_state(
  params: decoder.Params | lora.Adapters,
  tx: optax.GradientTransformation,
  diagnosis: Mapping[str, Any],
  names: Sequence[str],
  plan: gate_lib.GatePlan,
  mesh: jax.sharding.Mesh,
  *,
  averages: bool = True,
  on_policy: bool = False,
) -> step_lib.TrainState:
  """The state before the first step, laid out on `mesh`.

  Args:
    params: what trains: all weights, or adapters.
    averages, on_policy: see `step.init`.
  """
  student = [diagnosis['modules'][name]['student'] for name in names]
  gate = gate_lib.init(
    plan,
    jnp.asarray([s['correct'] for s in student]),
    jnp.asarray([s['n'] for s in student]),
  )
  state = step_lib.init(
    params, tx, gate, averages=averages, on_policy=on_policy
  )
  return jax.device_put(state, sharding.state_shardings(mesh, state))


def make_inputs(
  curriculum: curriculum_lib.Curriculum,
  mix: curriculum_lib.Mix,
  plan: gate_lib.GatePlan,
  bank: probing.ProbeBank | decoded_probes.DecodedBank | None,
  mesh: jax.sharding.Mesh,
  *,
  seed: int,
  total_steps: int,
  probe_every_steps: int,
  average_decay: float,
  base: decoder.Params | None = None,
  distillation: distillation_lib.Objective | None = None,
) -> step_lib.Inputs:
  """What a step reads; see `step.Inputs` for what may be None."""
  inputs = step_lib.Inputs(
    base=None,
    curriculum=curriculum,
    mix=mix,
    plan=plan,
    bank=bank,
    distillation=distillation,
    seed=np.uint32(seed),
    total_steps=np.int32(total_steps),
    probe_every_steps=np.int32(probe_every_steps),
    average_decay=np.float32(average_decay),
  )
  # The base lies where it was loaded: it is large, and split over devices.
  return place(inputs, mesh).replace(base=base)


def place(inputs, mesh: jax.sharding.Mesh):
  """Lays inputs out; the same each time, so that nothing retraces."""
  return jax.device_put(inputs, sharding.input_shardings(mesh, inputs))


def add_lessons(
  inputs: step_lib.Inputs,
  examples: Mapping[str, Sequence[packing.Example]],
  names: Sequence[str],
  row_length: int,
  mesh: jax.sharding.Mesh,
  score: Callable[[Rows], Rows] = lambda rows: rows,
) -> step_lib.Inputs:
  """Packs lessons of each module into its slab and puts them on the device.

  Args:
    score: adds what a teacher thinks, if the curriculum holds that.
  """
  curriculum = curriculum_lib.add_rows(
    sharding.fetch(inputs.curriculum),
    {
      names.index(name): score(packing.pack(lessons, row_length))
      for name, lessons in examples.items()
    },
  )
  placed = place({'curriculum': curriculum}, mesh)
  return inputs.replace(**placed)


def drop_modules(
  inputs: step_lib.Inputs,
  plan: gate_lib.GatePlan,
  untaught: Sequence[str],
  names: Sequence[str],
  mesh: jax.sharding.Mesh,
) -> tuple[step_lib.Inputs, gate_lib.GatePlan]:
  """Takes modules out of every stage of the plan, which is data."""
  stays_K = np.asarray([name not in untaught for name in names])
  plan = plan.replace(
    stage_modules_SxK=np.asarray(plan.stage_modules_SxK) & stays_K
  )
  return inputs.replace(**place({'plan': plan}, mesh)), plan


def renew_own(
  inputs: step_lib.Inputs,
  texts: Mapping[str, Sequence[packing.Example]],
  names: Sequence[str],
  mesh: jax.sharding.Mesh,
  score: Callable[[Rows], Rows],
) -> step_lib.Inputs:
  """Puts the student's own `texts` in the place of its earlier ones.

  Args:
    texts: of each module, at most the capacity of its slab.
    score: as of `add_lessons`.
  """
  old = inputs.curriculum.own
  _, length, top_k = old.rows[packing.TEACHER_FIELDS[0]].shape
  own = curriculum_lib.add_rows(
    curriculum_lib.allocate(
      np.asarray(old.capacity_K), length, sharding.num_row_shards(mesh), top_k
    ),
    {
      names.index(name): score(packing.pack(examples, length))
      for name, examples in texts.items()
    },
  )
  curriculum = inputs.curriculum.replace(own=own)
  return inputs.replace(**place({'curriculum': curriculum}, mesh))
