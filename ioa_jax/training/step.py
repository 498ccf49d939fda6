"""The one train step: draw, learn, probe, decide. Traced once for a whole run.

Everything that changes during a run is in `TrainState` or is data. The host
calls a `Window`, which runs several steps without it.

Shapes: K knowledge modules, T steps of a window.
"""

from __future__ import annotations

from collections.abc import Callable
import dataclasses
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import optax

from ioa_jax.models import decoder, lora
from ioa_jax.training import curriculum as curriculum_lib
from ioa_jax.training import decoded_probes, distillation, learning, probing
from ioa_jax.training import gate as gate_lib
from ioa_jax.training import guard as guard_lib
from ioa_jax.training import supply as supply_lib


@flax.struct.dataclass
class TrainState:
  """All that changes, one donated pytree.

  Attributes:
    step: optimizer steps taken.
    params, opt_state: what trains, in float32, and its moments: all weights, or
      the adapters alone.
    average: exponential moving average of `params`; what the gate reads and
      what is exported. None if `params` themselves are: see `evaluated`.
    gate: see `gate.GateState`.
    guard: see `guard.Guard`.
    cursor_K: rows drawn of each module, the data position.
    on_policy_cursor_K: likewise of the student's own texts; None without them.
    finite: False after a step with a non-finite loss or gradient; that step
      changed nothing and no later one runs.
    account: of lessons that are bought by need; None if they are not.
  """

  step: jax.Array
  params: decoder.Params
  opt_state: Any
  average: decoder.Params | None
  gate: gate_lib.GateState
  guard: guard_lib.Guard
  cursor_K: jax.Array
  on_policy_cursor_K: jax.Array | None
  finite: jax.Array
  account: supply_lib.Account | None = None


@flax.struct.dataclass
class Inputs:
  """What a step reads; constant between two visits of the host.

  Attributes:
    base: frozen weights under the adapters that train; None if all train.
    bank: probes that the step answers itself, by their likeliest tokens or by
      decoding; None if the host grades them.
    distillation: what is learned from a teacher's distributions, which the
      rows then hold; None learns the lessons' text alone.
    ending_steps: with a falling learning rate, once all is mastered; 0 goes
      on to the last step.
    terms: on which lessons are bought by need; None if they are not.
  """

  base: decoder.Params | None
  curriculum: curriculum_lib.Curriculum
  mix: curriculum_lib.Mix
  plan: gate_lib.GatePlan
  bank: probing.ProbeBank | decoded_probes.DecodedBank | None
  seed: jax.Array
  total_steps: jax.Array
  probe_every_steps: jax.Array
  average_decay: jax.Array
  ending_steps: jax.Array
  distillation: distillation.Objective | None = None
  terms: supply_lib.Terms | None = None


def init(
  params,
  tx,
  gate,
  *,
  averages: bool = True,
  on_policy: bool = False,
  keep_best: bool = False,
) -> TrainState:
  """The state before the first step; copies `params`, since it is donated.

  Args:
    averages: whether to keep an average, which is a quarter of the state.
    on_policy: whether the curriculum has texts of the student's own.
    keep_best: whether to keep the best weights, which is as much again.
  """
  k = gate.correct_K.shape[0]
  params = jax.tree.map(jnp.array, params)
  return TrainState(
    step=jnp.int32(0),
    params=params,
    opt_state=tx.init(params),
    average=jax.tree.map(jnp.array, params) if averages else None,
    gate=gate,
    guard=guard_lib.init(params if keep_best else None, gate),
    cursor_K=jnp.zeros(k, jnp.uint32),
    on_policy_cursor_K=jnp.zeros(k, jnp.uint32) if on_policy else None,
    finite=jnp.bool_(True),
  )


def evaluated(state: TrainState) -> Any:
  """What is probed and exported: the average, or what trains."""
  return state.params if state.average is None else state.average


def is_active(state: TrainState, inputs: Inputs) -> jax.Array:
  """Whether another step would train."""
  return (
    gate_lib.active(state.gate, inputs.plan)
    & (state.step < jnp.minimum(inputs.total_steps, state.guard.ends_at))
    & state.finite
  )


def review(
  state: TrainState, inputs: Inputs, decision: jax.Array
) -> tuple[supply_lib.Account, gate_lib.GateState]:
  """What the round's scores say of the supply; see `supply.review`."""
  later = state.step + inputs.probe_every_steps <= inputs.total_steps
  return supply_lib.review(
    state.account,
    inputs.terms,
    state.gate,
    inputs.plan,
    state.cursor_K,
    inputs.curriculum.count_K,
    later & (decision == gate_lib.STAY),
  )


def _probe(program, state, inputs):
  """Probes the stage and decides; after leaving a stage probes everything."""
  ask_K = gate_lib.asked(state.gate, inputs.plan)
  config = program.config
  params = learning.assemble(evaluated(state), inputs.base, program.lora)
  correct_K, probed_K, tokens = probing.probe_modules(
    config, params, inputs.bank, ask_K, inputs.plan
  )
  gate, decision = gate_lib.decide(
    state.gate, inputs.plan, correct_K, probed_K, inputs.curriculum.count_K
  )
  others_K = gate_lib.looks_at_all(state.gate, gate, inputs.plan) & ~ask_K
  whole = inputs.plan.replace(sequential=jnp.bool_(False))
  more_correct_K, more_probed_K, more_tokens = probing.probe_modules(
    config, params, inputs.bank, others_K, whole
  )
  correct_K += more_correct_K
  probed_K += more_probed_K
  gate = gate_lib.record(gate, inputs.plan, correct_K, probed_K)
  guard = guard_lib.look(
    state.guard,
    evaluated(state),
    state.step,
    gate,
    inputs.plan,
    probed_K,
    inputs.ending_steps,
  )
  state = state.replace(gate=gate, guard=guard)
  if inputs.terms is not None:
    account, gate = review(state, inputs, decision)
    state = state.replace(account=account, gate=gate)
  return state, {
    'decision': decision,
    'correct_K': correct_K,
    'probed_K': probed_K,
    'probe_tokens': tokens + more_tokens,
    'reopened_K': gate.reopened_K,
  }


@dataclasses.dataclass(frozen=True)
class Program:
  """What is compiled in, and never changes during a run.

  Attributes:
    microbatches: parts of a batch that are learned from one after the other,
      for memory; they divide `batch_rows`.
    lora: how adapters are laid over the base; None trains all weights.
  """

  config: decoder.DecoderConfig
  tx: optax.GradientTransformation
  batch_rows: int
  microbatches: int = 1
  lora: lora.LoraSpec | None = None


def train_step(program: Program, state: TrainState, inputs: Inputs):
  """Returns the next state and this step's metrics."""
  k = state.cursor_K.shape[0]
  stage, round = state.gate.stage, state.gate.round
  no_probe = {
    'decision': jnp.int32(gate_lib.NO_PROBE),
    'correct_K': jnp.zeros(k, jnp.float32),
    'probed_K': jnp.zeros(k, jnp.int32),
    'probe_tokens': jnp.int32(0),
    'reopened_K': jnp.zeros(k, bool),
  }

  def train(state):
    batch, drawn_K, state, learned = learning.draw(program, state, inputs)
    state, metrics = learning.learn(program, state, learned, batch)
    due = state.gate.steps_in_stage % inputs.probe_every_steps == 0
    due &= state.finite
    if inputs.bank is None:
      state = state.replace(gate=state.gate.replace(needs_scores=due))
      probe_metrics = no_probe
    else:
      state, probe_metrics = jax.lax.cond(
        due,
        lambda s: _probe(program, s, inputs),
        lambda s: (s, no_probe),
        state,
      )
    return state, metrics | probe_metrics | {
      'drawn_K': drawn_K,
      'row_B': batch['row'],
    }

  def rest(state):
    zero = jnp.float32(0.0)
    return state, {
      'loss_sum': zero,
      'loss_count': zero,
      'grad_norm': zero,
      'pace': zero,
      'tokens': jnp.int32(0),
      'drawn_K': jnp.zeros(k, jnp.uint32),
      'row_B': jnp.full(program.batch_rows, -1),
      **no_probe,
    }

  ran = is_active(state, inputs)
  state, metrics = jax.lax.cond(ran, train, rest, state)
  return state, metrics | {
    'ran': ran,
    'stage': stage,
    'round': round,
    'step': state.step,
  }


class Window:
  """The compiled program: T steps, one visit of the host.

  A run needs exactly one trace and one executable; `compilations` tells.
  """

  def __init__(
    self,
    program: Program,
    *,
    num_steps: int,
    state_shardings: Any = None,
    metric_sharding: Any = None,
  ):
    self.program = program
    self._num_traces = 0

    def window(state, inputs):
      self._num_traces += 1

      def body(state, _):
        return train_step(program, state, inputs)

      return jax.lax.scan(body, state, length=num_steps)

    # Declared output shardings: the next call's input is then laid out as the
    # first one's was, and nothing is compiled twice.
    self._run: Callable = jax.jit(
      window,
      donate_argnums=0,
      out_shardings=(state_shardings, metric_sharding),
    )

  def __call__(
    self, state: TrainState, inputs: Inputs
  ) -> tuple[TrainState, dict[str, jax.Array]]:
    """Consumes `state`; metrics have a leading axis T."""
    return self._run(state, inputs)

  def lower(self, state: TrainState, inputs: Inputs) -> jax.stages.Lowered:
    """The program for shapes with shardings; nothing is computed."""
    return self._run.lower(state, inputs)

  @property
  def compilations(self) -> int:
    """Traces or executables so far, whichever is more."""
    return max(self._num_traces, self._run._cache_size())
