"""A probing round whose answers the host grades."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import jax
import numpy as np

from ioa_jax.records import Score
from ioa_jax.training import gate as gate_lib
from ioa_jax.training import guard as guard_lib
from ioa_jax.training import step as step_lib

Metrics = dict[str, np.ndarray]
Grade = Callable[[Sequence[str]], Mapping[str, Score]]

# Only the gate passes through, so no weight is copied or laid out anew.
_decide = jax.jit(gate_lib.decide)
_record = jax.jit(gate_lib.record)
_look = jax.jit(guard_lib.look)
_review = jax.jit(step_lib.review)


def round_of(
  gate: gate_lib.GateState,
  inputs: step_lib.Inputs,
  names: Sequence[str],
  grade: Grade,
) -> tuple[gate_lib.GateState, Metrics]:
  """One probing round whose answers the host grades.

  Args:
    grade: the student's scores on the gate probes of some modules. It is
      called again for all others when the stage is left.

  Returns:
    The gate and a window's metrics without a step. Tokens of probes are not
    counted: who grades does.
  """
  plan, count_K = inputs.plan, inputs.curriculum.count_K
  none = Score(0, 0)

  def counts(ask_K):
    found = grade([names[k] for k in np.flatnonzero(ask_K)])
    scores = [found.get(name, none) for name in names]
    return (
      np.asarray([s.correct for s in scores], np.float32),
      np.asarray([s.n for s in scores], np.int32),
    )

  # Known before the round, so the student answers once.
  ask_K = np.asarray(gate_lib.asked(gate, plan) | gate_lib.holds(gate, plan))
  before = {'stage': int(gate.stage), 'round': int(gate.round)}
  correct_K, probed_K = counts(ask_K)
  asking = gate
  gate, decision = _decide(gate, plan, correct_K, probed_K, count_K)
  if gate_lib.looks_at_all(asking, gate, plan) and not ask_K.all():
    more_correct_K, more_probed_K = counts(~ask_K)
    gate = _record(gate, plan, more_correct_K, more_probed_K)
    correct_K, probed_K = correct_K + more_correct_K, probed_K + more_probed_K
  metrics = {
    **before,
    'ran': False,
    'tokens': 0,
    'decision': int(decision),
    'correct_K': correct_K,
    'probed_K': probed_K,
    'reopened_K': gate.reopened_K,
    'probe_tokens': 0,
  }
  return gate, {k: np.asarray(value)[None] for k, value in metrics.items()}


def take(
  state: step_lib.TrainState,
  inputs: step_lib.Inputs,
  names: Sequence[str],
  grade: Grade,
) -> tuple[step_lib.TrainState, Metrics]:
  """`round_of`, and all that the step does after a round of its own."""
  gate, metrics = round_of(state.gate, inputs, names, grade)
  guard = _look(
    state.guard,
    step_lib.evaluated(state),
    state.step,
    gate,
    inputs.plan,
    metrics['probed_K'][0],
    inputs.ending_steps,
  )
  # As it lay before, or the next window would be compiled anew.
  shardings = jax.tree.map(lambda x: x.sharding, state.guard)
  state = state.replace(gate=gate, guard=jax.device_put(guard, shardings))
  if state.account is not None:
    account, gate = _review(state, inputs, metrics['decision'][0])
    state = state.replace(account=account, gate=gate)
  metrics['step'] = np.asarray([int(state.step)])
  return state, metrics
