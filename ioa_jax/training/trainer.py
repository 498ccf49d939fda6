"""Training as the host sees it: run a window, look once, act on the status.

The trainer owns the state and the inputs of the compiled step. What only the
host can do (write lessons, grade answers) is asked for by its `status`.

Shapes: K knowledge modules, T steps of a window, B batch rows.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
import dataclasses
import enum
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from ioa_jax.models import decoder, lora
from ioa_jax.records import Score
from ioa_jax.runtime import sharding
from ioa_jax.training import curriculum as curriculum_lib
from ioa_jax.training import decoded_probes, graded, learning, packing, probing
from ioa_jax.training import distillation as distillation_lib
from ioa_jax.training import gate as gate_lib
from ioa_jax.training import step as step_lib
from ioa_jax.training import supply as supply_lib

Metrics = dict[str, np.ndarray]
Rows = dict[str, np.ndarray]
Examples = Mapping[str, Sequence[packing.Example]]


class NonFiniteLoss(ValueError):
  """A loss or gradient was not finite; the step that met it changed nothing.

  Attributes:
    texts: token sequences that the step read.
  """

  def __init__(self, message: str, texts: Sequence[tuple[int, ...]]):
    super().__init__(message)
    self.texts = texts


class Status(enum.Enum):
  """What a run needs next."""

  TRAIN = 'a window of steps'
  LESSONS = 'lessons of a stage that has begun'
  REMEDIAL = 'remedial lessons'
  SCORES = 'graded answers to the gate probes'
  ENDED = 'nothing'


@dataclasses.dataclass(frozen=True, kw_only=True)
class Pace:
  """The scalars of a run that are data to the step.

  Attributes:
    average_decay: of the moving average of the weights.
    ending_steps: see `step.Inputs`.
  """

  seed: int
  total_steps: int
  probe_every_steps: int
  average_decay: float
  ending_steps: int = 0


def make_inputs(
  curriculum: curriculum_lib.Curriculum,
  mix: curriculum_lib.Mix,
  plan: gate_lib.GatePlan,
  bank: probing.ProbeBank | decoded_probes.DecodedBank | None,
  pace: Pace,
  mesh: jax.sharding.Mesh,
  *,
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
    seed=np.uint32(pace.seed),
    total_steps=np.int32(pace.total_steps),
    probe_every_steps=np.int32(pace.probe_every_steps),
    average_decay=np.float32(pace.average_decay),
    ending_steps=np.int32(pace.ending_steps),
  )
  # The base lies where it was loaded: it is large, and split over devices.
  return place(inputs, mesh).replace(base=base)


def place(inputs, mesh: jax.sharding.Mesh):
  """Lays inputs out; the same each time, so that nothing retraces."""
  return jax.device_put(inputs, sharding.input_shardings(mesh, inputs))


def make_state(
  params: decoder.Params | lora.Adapters,
  tx: optax.GradientTransformation,
  scores: Sequence[Score],
  plan: gate_lib.GatePlan,
  mesh: jax.sharding.Mesh,
  *,
  averages: bool = True,
  on_policy: bool = False,
  keep_best: bool = False,
) -> step_lib.TrainState:
  """The state before the first step, laid out on `mesh`.

  Args:
    params: what trains: all weights, or adapters.
    scores: of the untaught student on the gate probes, in the order of K.
    averages, on_policy, keep_best: see `step.init`.
  """
  gate = gate_lib.init(
    plan,
    jnp.asarray([s.correct for s in scores]),
    jnp.asarray([s.n for s in scores]),
  )
  state = step_lib.init(
    params,
    tx,
    gate,
    averages=averages,
    on_policy=on_policy,
    keep_best=keep_best,
  )
  return jax.device_put(state, sharding.state_shardings(mesh, state))


def make_window(
  program: step_lib.Program,
  state: step_lib.TrainState,
  mesh: jax.sharding.Mesh,
  num_steps: int,
) -> step_lib.Window:
  """The compiled window for a state of this layout."""
  return step_lib.Window(
    program,
    num_steps=num_steps,
    state_shardings=sharding.state_shardings(mesh, state),
    metric_sharding=sharding.replicated(mesh),
  )


def supply_by_need(
  state: step_lib.TrainState,
  inputs: step_lib.Inputs,
  terms: supply_lib.Terms,
  mesh: jax.sharding.Mesh,
) -> tuple[step_lib.TrainState, step_lib.Inputs]:
  """State and inputs of a run that buys its lessons in lots."""
  account = supply_lib.init(state.gate, inputs.plan)
  return (
    state.replace(
      account=jax.device_put(account, sharding.state_shardings(mesh, account))
    ),
    inputs.replace(**place({'terms': terms}, mesh)),
  )


# Only the gate passes through, so no weight is copied or laid out anew.
_resume = jax.jit(gate_lib.resume)
_skip_untaught = jax.jit(gate_lib.skip_untaught)
_deliver = jax.jit(supply_lib.deliver)


def _texts(rows: Mapping[str, jax.Array], read_B: np.ndarray):
  """The token sequences of rows of the curriculum; -1 is none."""
  names = ('token', 'target', 'segment')
  chosen = read_B[read_B >= 0]
  return packing.unpack({n: sharding.fetch(rows[n])[chosen] for n in names})


class Trainer:
  """State and inputs of one run's training.

  Attributes:
    state, inputs: of the step; nothing else changes them but a checkpoint.
    names: of the modules, the order of the K axis.
  """

  def __init__(
    self,
    window: step_lib.Window,
    state: step_lib.TrainState,
    inputs: step_lib.Inputs,
    names: Sequence[str],
    mesh: jax.sharding.Mesh,
    score: Callable[[Rows], Rows] = lambda rows: rows,
  ):
    """Args:
    score: adds what a teacher thinks of rows, where the curriculum holds it.
    """
    self.state, self.inputs = state, inputs
    self.names = list(names)
    self._window = window
    self._mesh = mesh
    self._score = score

  @property
  def step(self) -> int:
    return int(self.state.step)

  @property
  def stage(self) -> int:
    """Index of the stage; the number of stages after the last."""
    return int(self.state.gate.stage)

  @property
  def round(self) -> int:
    """Remedial rounds that the stage has been given."""
    return int(self.state.gate.round)

  @property
  def compilations(self) -> int:
    return self._window.compilations

  def status(self) -> Status:
    """What is needed before another step can train, or that it can."""
    gate = self.state.gate
    if bool(gate.needs_data):
      return Status.LESSONS if self._ordered_K().any() else Status.REMEDIAL
    if bool(gate.needs_scores):
      return Status.SCORES
    if bool(step_lib.is_active(self.state, self.inputs)):
      return Status.TRAIN
    return Status.ENDED

  def _in_stage_K(self) -> np.ndarray:
    return np.asarray(gate_lib.in_stage(self.state.gate, self.inputs.plan))

  def _ordered_K(self) -> np.ndarray:
    """Modules of the stage without a row, which has just begun, or by need."""
    count_K = np.asarray(self.inputs.curriculum.count_K)
    empty_K, account = self._in_stage_K() & (count_K == 0), self.state.account
    return empty_K if account is None else empty_K | account.wanted_K

  def _named(self, chosen_K) -> list[str]:
    return [self.names[k] for k in np.flatnonzero(chosen_K)]

  def wanted(self) -> list[str]:
    """Modules that lessons are needed of; remedial: those not mastered."""
    ordered_K = self._ordered_K()
    if ordered_K.any():
      return self._named(ordered_K)
    passed_K = gate_lib.mastered(self.state.gate, self.inputs.plan)
    return self._named(self._in_stage_K() & ~np.asarray(passed_K))

  def lots(self) -> dict[str, int]:
    """Which lot of its lessons each module gets next; {} if not by need."""
    account = self.state.account
    lots_K = () if account is None else account.lots_K
    return {name: int(lot) for name, lot in zip(self.names, lots_K)}

  def scores(self) -> dict[str, Score]:
    """Of the latest probing of each module."""
    correct_K, probed_K = jax.device_get(
      (self.state.gate.correct_K, self.state.gate.probed_K)
    )
    return {
      name: Score(float(correct), int(n))
      for name, correct, n in zip(self.names, correct_K, probed_K)
    }

  def mastery(self) -> dict[str, float]:
    """P_S / P_T of each module, by its latest probing."""
    ratio_K = np.asarray(gate_lib.ratio(self.state.gate, self.inputs.plan))
    return dict(zip(self.names, map(float, ratio_K)))

  def add_lessons(self, examples: Examples) -> None:
    """Packs lessons of each module into its slab on the device.

    Raises:
      ValueError: if a slab is full.
    """
    curriculum = sharding.fetch(self.inputs.curriculum)
    length = curriculum.rows['token'].shape[1]
    self._put(curriculum_lib.add_rows(curriculum, self._rows(examples, length)))

  def _rows(self, examples: Examples, length: int) -> dict[int, Rows]:
    return {
      self.names.index(name): self._score(packing.pack(texts, length))
      for name, texts in examples.items()
    }

  def _put(self, curriculum: curriculum_lib.Curriculum) -> None:
    placed = place({'curriculum': curriculum}, self._mesh)
    self.inputs = self.inputs.replace(**placed)

  def replace_on_policy(self, texts: Examples) -> None:
    """Puts the student's own texts in the place of its earlier ones.

    Args:
      texts: of each module, at most the capacity of its slab.
    """
    old = self.inputs.curriculum.on_policy
    # The same shape, or the window would be compiled anew.
    empty = old.replace(
      rows={k: np.zeros(x.shape, x.dtype) for k, x in old.rows.items()},
      count_K=np.zeros_like(old.count_K),
    )
    length = old.rows['token'].shape[1]
    filled = curriculum_lib.add_rows(empty, self._rows(texts, length))
    self._put(self.inputs.curriculum.replace(on_policy=filled))

  def drop(self, untaught: Sequence[str]) -> None:
    """Takes modules out of every stage of the plan, which is data."""
    stays_K = np.asarray([name not in untaught for name in self.names])
    plan = self.inputs.plan
    plan = plan.replace(
      stage_modules_SxK=np.asarray(plan.stage_modules_SxK) & stays_K
    )
    self.inputs = self.inputs.replace(**place({'plan': plan}, self._mesh))

  def resume(self, remedial: bool) -> None:
    """Goes on after lessons came; leaves stages without any module."""
    plan, count_K = self.inputs.plan, self.inputs.curriculum.count_K
    gate, account = self.state.gate, self.state.account
    if account is not None:
      account = _deliver(account, gate, plan, count_K)
    gate = _skip_untaught(_resume(gate, np.bool_(remedial)), plan, count_K)
    self.state = self.state.replace(gate=gate, account=account)

  def window(self) -> Metrics:
    """Several steps in one program; metrics are (T, ...) host arrays."""
    self.state, metrics = self._window(self.state, self.inputs)
    return jax.device_get(metrics)

  def grade(self, grade: graded.Grade) -> Metrics:
    """One probing round that the host grades; see `graded.round_of`."""
    self.state, metrics = graded.take(
      self.state, self.inputs, self.names, grade
    )
    return metrics

  def require_finite(self, metrics: Metrics) -> None:
    """Raises NonFiniteLoss if the window's last step was not finite."""
    if bool(self.state.finite):
      return
    read_B = metrics['row_B'][metrics['ran']][-1]
    raise NonFiniteLoss(
      f'step {self.step}: loss or gradient is not finite, in stage '
      f'{self.stage + 1}. Earlier checkpoints are kept. Lower '
      'optimizer.learning_rate or optimizer.clip_norm, in another --workdir.',
      _texts(self.inputs.curriculum.rows, read_B),
    )

  def params(self) -> decoder.Params:
    """The averaged student, as decoder and sampler take it."""
    return self.assembled(self.trained())

  def live_params(self) -> decoder.Params:
    """The student at this step, not averaged."""
    return self.assembled(self.state.params)

  def best(self) -> tuple[int, Any]:
    """The step and what trains of the best weights; None if not kept."""
    guard = self.state.guard
    return int(guard.step), guard.weights

  def trained(self) -> Any:
    """What trains, averaged: all weights, or adapters."""
    return step_lib.evaluated(self.state)

  def assembled(self, trained: Any) -> decoder.Params:
    """A student of what trains and what does not."""
    return learning.assemble(
      trained, self.inputs.base, self._window.program.lora
    )
