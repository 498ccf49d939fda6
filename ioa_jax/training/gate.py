"""The mastery gate: Eq. 9 as arithmetic on the device.

Nothing here branches in Python on a traced value, so a stage change, a remedial
round and a stall are all the same compiled program.

Shapes: K knowledge modules, S stages.
"""

from __future__ import annotations

from collections.abc import Sequence
import dataclasses
import statistics

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np

from ioa_jax.records import Stage

# Outcomes of a stage.
PENDING, MASTERED, UNMASTERED, UNTAUGHT = 0, 1, 2, 3
# What one probing round decided.
NO_PROBE, STAY, ADVANCE, REMEDIATE, STALL = 0, 1, 2, 3, 4
DECISIONS = ('none', 'stay', 'advance', 'remediate', 'stall')
OUTCOMES = ('pending', 'mastered', 'unmastered', 'untaught')
# A stage without a gate cannot be passed: no ratio reaches this.
_UNREACHABLE = 1e9
_FOREVER = np.iinfo(np.int32).max


@dataclasses.dataclass(frozen=True, kw_only=True)
class Rules:
  """How the gate decides, `config.gate`.

  Attributes:
    tau_mastery, sequential, reopen, min_probes, max_rounds: see `GatePlan`.
    confidence: one-sided, of the bounds that decide; 0.5 is the estimate.
    on_stall: 'advance', or 'stop' to end the run when a stage stalls.
    gated: False measures and passes nobody.
  """

  tau_mastery: float
  confidence: float
  sequential: bool
  reopen: bool
  min_probes: int
  max_rounds: int
  on_stall: str
  gated: bool = True


def normal_quantile(confidence: float) -> float:
  """The z of a one-sided confidence; 0 for 0.5, the estimate."""
  return statistics.NormalDist().inv_cdf(confidence)


@flax.struct.dataclass
class GatePlan:
  """What the gate needs to know about the curriculum; constant data.

  Attributes:
    stage_modules_SxK: which modules a stage teaches.
    max_steps_S: steps before a stage asks for remedial data.
    hold_S: the stage is not left by mastery (consolidation).
    teacher_score_K: P_T(k) on the gate probes, in [0, 1].
    tau_mastery: threshold on P_S / P_T.
    z: of the Wilson bounds that are held against the threshold; 0 makes both
      the point estimate, as in the paper.
    sequential: a module's probing stops when its verdict cannot change.
    reopen: a module that passed and has fallen is probed and taught again.
    min_probes: fewer answered probes than this are no evidence.
    remedial_steps_S: steps that each remedial round adds to a stage.
    max_rounds: remedial rounds per stage.
    stop_on_stall: end the run when a stage stalls, instead of moving on.
  """

  stage_modules_SxK: jax.Array
  max_steps_S: jax.Array
  hold_S: jax.Array
  teacher_score_K: jax.Array
  tau_mastery: jax.Array
  z: jax.Array
  sequential: jax.Array
  reopen: jax.Array
  min_probes: jax.Array
  remedial_steps_S: jax.Array
  max_rounds: jax.Array
  stop_on_stall: jax.Array


@flax.struct.dataclass
class GateState:
  """Where the learner stands.

  Attributes:
    stage: index; equal to S when all stages are done.
    steps_in_stage, round: since the stage began.
    needs_data: waiting for the host, either for remedial lessons or for the
      first lessons of a stage; no step moves the student meanwhile.
    needs_scores: waiting for the host to grade this round's probes.
    stopped: a stall ended the run.
    correct_K, probed_K: the latest probing round of each module: sum of the
      probes' scores (float32; counts up to 2**24 are exact), and how many.
    passed_K: modules that were mastered at some time.
    reopened_K: of these, those that fell since and are taught beside the stage.
    alarms_K: how often each was re-opened.
    outcome_S, steps_S, rounds_S: the record.
  """

  stage: jax.Array
  steps_in_stage: jax.Array
  round: jax.Array
  needs_data: jax.Array
  needs_scores: jax.Array
  stopped: jax.Array
  correct_K: jax.Array
  probed_K: jax.Array
  passed_K: jax.Array
  reopened_K: jax.Array
  alarms_K: jax.Array
  outcome_S: jax.Array
  steps_S: jax.Array
  rounds_S: jax.Array


def make_plan(
  stages: Sequence[Stage],
  names: Sequence[str],
  teacher_score_K: np.ndarray,
  rules: Rules,
) -> GatePlan:
  """The gate's constants; `names` gives the order of the K axis."""
  hold_S = np.asarray([s.kind == 'consolidate' for s in stages])
  max_steps_S = np.asarray([s.max_steps for s in stages], np.int32)
  gated = rules.gated
  return GatePlan(
    stage_modules_SxK=np.asarray(
      [[name in s.modules for name in names] for s in stages]
    ),
    max_steps_S=np.where(hold_S, _FOREVER, max_steps_S).astype(np.int32),
    hold_S=hold_S,
    teacher_score_K=np.asarray(teacher_score_K, np.float32),
    tau_mastery=np.float32(rules.tau_mastery if gated else _UNREACHABLE),
    z=np.float32(normal_quantile(rules.confidence)),
    # Without a gate no verdict is wanted, and the scores are all that is.
    sequential=np.bool_(rules.sequential and gated),
    reopen=np.bool_(rules.reopen),
    min_probes=np.int32(rules.min_probes),
    remedial_steps_S=np.asarray([s.remedial_steps for s in stages], np.int32),
    max_rounds=np.int32(rules.max_rounds),
    stop_on_stall=np.bool_(gated and rules.on_stall == 'stop'),
  )


def init(
  plan: GatePlan, correct_K: jax.Array, probed_K: jax.Array
) -> GateState:
  """The state before the first step; scores are the diagnosis's."""
  # Every leaf is its own buffer: a donated state cannot hold one twice.
  zero = lambda *shape: jnp.zeros(shape, jnp.int32)
  no = lambda *shape: jnp.zeros(shape, bool)
  num_stages, num_modules = plan.stage_modules_SxK.shape
  gate = GateState(
    stage=zero(),
    steps_in_stage=zero(),
    round=zero(),
    needs_data=no(),
    needs_scores=no(),
    stopped=no(),
    correct_K=jnp.array(correct_K, jnp.float32),
    probed_K=jnp.array(probed_K, jnp.int32),
    passed_K=no(num_modules),
    reopened_K=no(num_modules),
    alarms_K=zero(num_modules),
    outcome_S=zero(num_stages),
    steps_S=zero(num_stages),
    rounds_S=zero(num_stages),
  )
  return gate.replace(passed_K=mastered(gate, plan))


def ratio(gate: GateState, plan: GatePlan) -> jax.Array:
  """P_S(k) / P_T(k), shape (K,); 0 where there is no evidence of either."""
  return _relative(
    gate.correct_K / jnp.maximum(gate.probed_K, 1), gate.probed_K, plan
  )


def _relative(score_K, probed_K, plan):
  """Scores as shares of the teacher's; 0 without evidence of either."""
  evidence_K = (probed_K > 0) & (plan.teacher_score_K > 0)
  ratio_K = score_K / jnp.where(evidence_K, plan.teacher_score_K, 1.0)
  return jnp.where(evidence_K, ratio_K, 0.0)


def wilson(
  correct: jax.Array, probed: jax.Array, z: jax.Array
) -> tuple[jax.Array, jax.Array]:
  """Lower and upper score bound of a proportion; the estimate at `z` 0.

  Wilson (1927), JASA 22:209. Without probes the bounds say nothing.
  """
  n = jnp.maximum(probed, 1)
  p = correct / n
  centre = p + z**2 / (2 * n)
  half = z * jnp.sqrt(p * (1 - p) / n + z**2 / (4 * n**2))
  scale = 1 + z**2 / n
  return (centre - half) / scale, (centre + half) / scale


def passes(
  correct_K: jax.Array, probed_K: jax.Array, plan: GatePlan
) -> jax.Array:
  """Eq. 9 per module, (K,). Missing evidence is never a pass."""
  enough_K = probed_K >= jnp.maximum(plan.min_probes, 1)
  low_K, _ = wilson(correct_K, probed_K, plan.z)
  return enough_K & (
    _relative(low_K, probed_K, plan) >= plan.tau_mastery - 1e-6
  )


def mastered(gate: GateState, plan: GatePlan) -> jax.Array:
  """`passes` of the latest probing round, (K,)."""
  return passes(gate.correct_K, gate.probed_K, plan)


def undecided(
  correct_K: jax.Array, probed_K: jax.Array, total_K: jax.Array, plan: GatePlan
) -> jax.Array:
  """Whether answers that are still to come can change `passes`, (K,).

  Exact: if all of them were wrong the module would still pass, or if all were
  right still fail. So stopping here takes no decision that all of `total_K`
  would not take.
  """
  rest_K = total_K - probed_K
  enough_K = probed_K >= plan.min_probes
  surely_K = enough_K & passes(correct_K, total_K, plan)
  maybe_K = passes(correct_K + rest_K, total_K, plan)
  return (rest_K > 0) & ~surely_K & maybe_K


def in_stage(gate: GateState, plan: GatePlan) -> jax.Array:
  """Modules of the current stage, (K,); none after the last."""
  last = plan.max_steps_S.shape[0] - 1
  running = gate.stage <= last
  return plan.stage_modules_SxK[jnp.minimum(gate.stage, last)] & running


def asked(gate: GateState, plan: GatePlan) -> jax.Array:
  """Modules of a probing round, (K,): the stage's, and those re-opened."""
  running = gate.stage < plan.max_steps_S.shape[0]
  return in_stage(gate, plan) | (gate.reopened_K & running)


def holds(gate: GateState, plan: GatePlan) -> jax.Array:
  """Whether the current stage consolidates, and is not left."""
  last = plan.hold_S.shape[0] - 1
  return plan.hold_S[jnp.minimum(gate.stage, last)] & (gate.stage <= last)


def looks_at_all(before: GateState, after: GateState, plan: GatePlan):
  """Whether a round also asks the modules that are not `asked`.

  It does when a stage has been left, for what earlier ones have kept, and at
  every round of consolidation, for the guard and for replay.
  """
  return (after.stage != before.stage) | holds(before, plan)


def active(gate: GateState, plan: GatePlan) -> jax.Array:
  """Whether a training step may run."""
  more = gate.stage < plan.max_steps_S.shape[0]
  waits = gate.needs_data | gate.needs_scores
  return more & ~waits & ~gate.stopped


def count_step(gate: GateState) -> GateState:
  """Charges one training step to the current stage."""
  return gate.replace(
    steps_in_stage=gate.steps_in_stage + 1,
    steps_S=gate.steps_S.at[gate.stage].add(1, mode='drop'),
  )


def judge(
  gate: GateState, plan: GatePlan, correct_K: jax.Array, probed_K: jax.Array
) -> tuple[GateState, jax.Array]:
  """Takes one probing round and advances, stays, asks for data, or gives up.

  Args:
    correct_K, probed_K: this round's counts; modules with `probed_K == 0` were
      not asked and keep their latest counts.

  Returns:
    The new state and the decision (STAY, ADVANCE, REMEDIATE or STALL).
  """
  gate = record(gate, plan, correct_K, probed_K)
  in_stage_K = in_stage(gate, plan)
  # A module that was not asked this round has no evidence in this round.
  passed_K = mastered(gate, plan) & (probed_K > 0)
  passed = jnp.all(passed_K | ~in_stage_K) & jnp.any(in_stage_K)
  s = gate.stage
  limit = plan.max_steps_S[s] + gate.round * plan.remedial_steps_S[s]
  exhausted = (gate.steps_in_stage >= limit) & ~passed
  leave = passed & ~plan.hold_S[s]
  remediate = exhausted & (gate.round < plan.max_rounds) & ~plan.hold_S[s]
  stall = exhausted & ~remediate & ~plan.hold_S[s]
  outcome = jnp.where(
    passed, MASTERED, jnp.where(stall | plan.hold_S[s], UNMASTERED, PENDING)
  )
  moves = leave | (stall & ~plan.stop_on_stall)
  zero = jnp.int32(0)
  gate = gate.replace(
    stage=jnp.where(moves, s + 1, s),
    steps_in_stage=jnp.where(moves, zero, gate.steps_in_stage),
    round=jnp.where(moves, zero, gate.round),
    needs_data=remediate,
    needs_scores=jnp.bool_(False),
    stopped=gate.stopped | (stall & plan.stop_on_stall),
    outcome_S=gate.outcome_S.at[s].set(outcome, mode='drop'),
  )
  decision = jnp.where(
    leave,
    ADVANCE,
    jnp.where(remediate, REMEDIATE, jnp.where(stall, STALL, STAY)),
  )
  return gate, decision


def record(
  gate: GateState, plan: GatePlan, correct_K: jax.Array, probed_K: jax.Array
) -> GateState:
  """Keeps the counts of modules that were asked, and sounds alarms.

  A module outside the stage that passed once, and whose upper bound is now
  below the threshold, is re-opened until it passes again.
  """
  asked_K = probed_K > 0
  gate = gate.replace(
    correct_K=jnp.where(asked_K, correct_K, gate.correct_K),
    probed_K=jnp.where(asked_K, probed_K, gate.probed_K),
  )
  passes_K = asked_K & mastered(gate, plan)
  outside_K = ~in_stage(gate, plan)
  _, high_K = wilson(gate.correct_K, gate.probed_K, plan.z)
  fallen_K = (
    asked_K
    & gate.passed_K
    & outside_K
    & (_relative(high_K, gate.probed_K, plan) < plan.tau_mastery - 1e-6)
    & plan.reopen
  )
  alarm_K = fallen_K & ~gate.reopened_K
  return gate.replace(
    passed_K=gate.passed_K | passes_K,
    reopened_K=(gate.reopened_K | alarm_K) & outside_K & ~passes_K,
    alarms_K=gate.alarms_K + alarm_K,
  )


def require_lessons(gate: GateState, plan: GatePlan, count_K: jax.Array):
  """Waits if the current stage has a module without any lesson yet."""
  missing = jnp.any(in_stage(gate, plan) & (count_K == 0))
  return gate.replace(needs_data=gate.needs_data | missing)


def decide(
  gate: GateState,
  plan: GatePlan,
  correct_K: jax.Array,
  probed_K: jax.Array,
  count_K: jax.Array,
) -> tuple[GateState, jax.Array]:
  """One probing round: `judge`, and wait if the next stage has no lesson."""
  gate, decision = judge(gate, plan, correct_K, probed_K)
  return require_lessons(gate, plan, count_K), decision


def skip_untaught(
  gate: GateState, plan: GatePlan, count_K: jax.Array
) -> GateState:
  """Leaves stages in which no module is left to be taught.

  The host takes a module out of the plan when no lesson of it could be had.
  """
  zero = jnp.int32(0)

  def is_empty(gate):
    running = gate.stage < plan.max_steps_S.shape[0]
    return running & ~jnp.any(in_stage(gate, plan))

  def leave(gate):
    return gate.replace(
      stage=gate.stage + 1,
      steps_in_stage=zero,
      round=zero,
      outcome_S=gate.outcome_S.at[gate.stage].set(UNTAUGHT, mode='drop'),
    )

  gate = jax.lax.while_loop(is_empty, leave, gate)
  return require_lessons(gate, plan, count_K)


def resume(gate: GateState, remedial: jax.Array) -> GateState:
  """The host has delivered and training goes on; counts a remedial round."""
  one = remedial.astype(jnp.int32)
  return gate.replace(
    needs_data=jnp.bool_(False),
    round=gate.round + one,
    rounds_S=gate.rounds_S.at[gate.stage].add(one, mode='drop'),
  )
