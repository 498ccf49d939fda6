"""The host's side of training: run a window, look once, act on flags."""

from __future__ import annotations

from collections.abc import Callable, Sequence
import signal
import threading
from typing import Any

import jax
import numpy as np

from ioa_jax import processes
from ioa_jax.training import gate as gate_lib
from ioa_jax.training import step as step_lib

Metrics = dict[str, np.ndarray]
Counts = tuple[np.ndarray, np.ndarray]


class NonFiniteLoss(ValueError):
  """A loss or gradient was not finite; the step that met it changed nothing.

  Attributes:
    rows: of the curriculum, that were learned from.
  """

  def __init__(self, message: str, rows: Sequence[int]):
    super().__init__(message)
    self.rows = rows


class StopRequest:
  """Turns SIGTERM and SIGINT into a flag, so that a window ends and is saved.

  Used as a context; outside the main thread it never asks to stop.
  """

  def __init__(self):
    self.signal_name: str | None = None
    # What all processes know of, since they last agreed.
    self.agreed: str | None = None
    self._previous: dict[int, Any] = {}

  def __enter__(self):
    if threading.current_thread() is threading.main_thread():
      for number in (signal.SIGTERM, signal.SIGINT):
        self._previous[number] = signal.signal(number, self._on_signal)
    return self

  def _on_signal(self, number, _):
    self.signal_name = signal.Signals(number).name
    # A second signal of the same kind acts as it would without us.
    signal.signal(number, self._previous[number])

  def agree(self) -> bool:
    """Whether any process of the run was asked to stop; all must call it."""
    if processes.any_of(self.signal_name is not None):
      self.agreed = self.signal_name or 'a signal to another process'
    return self.agreed is not None

  def __exit__(self, *_):
    for number, handler in self._previous.items():
      signal.signal(number, handler)


# Only the gate passes through, so no weight is copied or laid out anew.
_grant = jax.jit(gate_lib.grant)
_settle = jax.jit(gate_lib.settle)
_skip_untaught = jax.jit(gate_lib.skip_untaught)
_note = jax.jit(gate_lib.note)


def run(
  window: step_lib.Window,
  state: step_lib.TrainState,
  inputs: step_lib.Inputs,
  *,
  supply: Callable[
    [step_lib.TrainState, step_lib.Inputs, bool], step_lib.Inputs
  ],
  grade: Callable[[step_lib.TrainState, np.ndarray], Counts],
  observe: Callable[[step_lib.TrainState, Metrics], None],
  save: Callable[[step_lib.TrainState, step_lib.Inputs], None],
  stop: StopRequest,
  renew: Callable[
    [step_lib.TrainState, step_lib.Inputs], step_lib.Inputs
  ] = lambda state, inputs: inputs,
) -> tuple[step_lib.TrainState, step_lib.Inputs]:
  """Trains until every stage has ended, the steps are spent, or `stop`.

  Args:
    supply: asked when the gate waits, with (state, inputs, remedial); returns
      inputs with more lessons, or with fewer modules in the plan. `remedial`
      is False for a stage's first lessons.
    grade: asked, if the step has no probes of its own, with (state, ask_K);
      returns correct and answered probes of each module, 0 of those not asked.
    observe: given each window's metrics, (T, ...) arrays on the host.
    save: called after each window; decides itself whether a save is due.
    renew: called before each window; may put other texts in the place of the
      student's own.

  Raises:
    NonFiniteLoss: with where it happened; what was saved before is kept.
  """
  while True:
    stops = stop.agree()
    if bool(state.gate.needs_data) and not stops:
      # A stage whose modules have no rows has just begun.
      in_stage_K = np.asarray(gate_lib.in_stage(state.gate, inputs.plan))
      count_K = np.asarray(inputs.curriculum.count_K)
      remedial = not (in_stage_K & (count_K == 0)).any()
      inputs = supply(state, inputs, remedial)
      gate = _grant(state.gate, np.bool_(remedial))
      state = skip_untaught(state.replace(gate=gate), inputs)
      save(state, inputs)
      continue
    if bool(state.gate.needs_scores) and not stops:
      state, metrics = _graded(state, inputs, grade)
      observe(state, metrics)
      save(state, inputs)
      continue
    if stops or not bool(step_lib.is_active(state, inputs)):
      save(state, inputs)
      return state, inputs
    inputs = renew(state, inputs)
    state, metrics = window(state, inputs)
    metrics = jax.device_get(metrics)
    observe(state, metrics)
    if not bool(state.finite):
      # Not saved: a restart would take it for the end of the run.
      raise NonFiniteLoss(
        f'step {int(state.step)}: loss or gradient is not finite, in stage '
        f'{int(state.gate.stage)}. Earlier checkpoints are kept. Lower '
        'optimizer.learning_rate or optimizer.clip_norm, in another --workdir.',
        [r for r in metrics['row_B'][metrics['ran']][-1].tolist() if r >= 0],
      )
    save(state, inputs)


def skip_untaught(
  state: step_lib.TrainState, inputs: step_lib.Inputs
) -> step_lib.TrainState:
  """Leaves stages whose modules are no longer in the plan."""
  gate = _skip_untaught(state.gate, inputs.plan, inputs.curriculum.count_K)
  return state.replace(gate=gate)


def _graded(state, inputs, grade) -> tuple[step_lib.TrainState, Metrics]:
  """One probing round by the host; its metrics are a window without steps."""
  gate = state.gate
  ask_K = np.asarray(gate_lib.asked(gate, inputs.plan))
  stage, round = int(gate.stage), int(gate.round)
  correct_K, probed_K = grade(state, ask_K)
  gate, decision = _settle(
    gate, inputs.plan, correct_K, probed_K, inputs.curriculum.count_K
  )
  if int(gate.stage) != stage and not ask_K.all():
    more_correct_K, more_probed_K = grade(state, ~ask_K)
    gate = _note(gate, inputs.plan, more_correct_K, more_probed_K)
    correct_K, probed_K = correct_K + more_correct_K, probed_K + more_probed_K
  metrics = {
    'ran': False, 'tokens': 0, 'step': int(state.step), 'stage': stage,
    'round': round, 'decision': int(decision), 'correct_K': correct_K,
    'probed_K': probed_K, 'reopened_K': gate.reopened_K,
    # Who grades keeps count.
    'probe_tokens': 0,
  }  # fmt: skip
  return (
    state.replace(gate=gate),
    {name: np.asarray(value)[None] for name, value in metrics.items()},
  )
