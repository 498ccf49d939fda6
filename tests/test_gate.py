"""The compiled gate against a plain Python replay of the same history."""

import dataclasses

import hypothesis
from hypothesis import strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ioa_jax.training import gate as gate_lib

S, K, P = 3, 4, 8


def make_plan(
  stages, max_steps, *, teacher=None, tau=0.9, rounds=1, extra=2, hold=(),
  stop=False, min_probes=1,
):  # fmt: skip
  membership = np.zeros((len(stages), K), bool)
  for s, members in enumerate(stages):
    membership[s, list(members)] = True
  return gate_lib.GatePlan(
    stage_modules_SxK=jnp.asarray(membership),
    max_steps_S=jnp.asarray(max_steps, jnp.int32),
    hold_S=jnp.asarray([s in hold for s in range(len(stages))]),
    teacher_score_K=jnp.asarray(
      np.ones(K) if teacher is None else teacher, jnp.float32
    ),
    tau_mastery=jnp.float32(tau),
    min_probes=jnp.int32(min_probes),
    remedial_steps_S=jnp.full(len(stages), extra, jnp.int32),
    max_rounds=jnp.int32(rounds),
    stop_on_stall=jnp.bool_(stop),
  )


def start(plan):
  return gate_lib.init(
    plan.max_steps_S.shape[0], jnp.zeros(K, jnp.int32), jnp.full(K, P)
  )


@dataclasses.dataclass
class Replay:
  """Eq. 9 in plain Python: the oracle."""

  stages: list
  max_steps: list
  teacher: list
  tau: float
  rounds: int
  extra: int
  stop: bool
  stage: int = 0
  steps: int = 0
  round: int = 0
  waiting: bool = False
  stopped: bool = False

  def __post_init__(self):
    self.outcome = ['pending'] * len(self.stages)
    self.latest = [0] * K

  @property
  def active(self):
    return (
      self.stage < len(self.stages) and not self.waiting and not self.stopped
    )

  def step(self):
    self.steps += 1

  def probe(self, correct):
    members = self.stages[self.stage]
    for k in members:
      self.latest[k] = correct[k]
    passed = all(
      self.teacher[k] > 0
      and correct[k] / P / self.teacher[k] >= self.tau - 1e-6
      for k in members
    )
    if passed:
      return self._leave('mastered', 'advance')
    limit = self.max_steps[self.stage] + self.round * self.extra
    if self.steps < limit:
      return 'stay'
    if self.round < self.rounds:
      self.waiting = True
      return 'remediate'
    if self.stop:
      self.outcome[self.stage] = 'unmastered'
      self.stopped = True
      return 'stall'
    return self._leave('unmastered', 'stall')

  def _leave(self, outcome, decision):
    self.outcome[self.stage] = outcome
    self.stage += 1
    self.steps = self.round = 0
    return decision


jitted_decide = jax.jit(gate_lib.decide)
jitted_step = jax.jit(gate_lib.count_step)
jitted_grant = jax.jit(gate_lib.grant)


@hypothesis.settings(max_examples=60, deadline=None)
@hypothesis.given(
  history=st.lists(
    st.lists(st.integers(0, P), min_size=K, max_size=K), max_size=40
  ),
  tau=st.sampled_from([0.5, 0.75, 0.9, 1.0]),
  rounds=st.integers(0, 2),
  stop=st.booleans(),
  teacher=st.lists(
    st.sampled_from([0.0, 0.5, 0.875, 1.0]), min_size=K, max_size=K
  ),
)
def test_equals_a_plain_replay_of_the_recorded_outcomes(
  history, tau, rounds, stop, teacher
):
  stages, max_steps = [{0, 1}, {2}, {3}], [3, 2, 4]
  plan = make_plan(
    stages, max_steps, teacher=teacher, tau=tau, rounds=rounds, stop=stop
  )
  oracle = Replay(stages, max_steps, teacher, tau, rounds, 2, stop)
  gate = start(plan)
  for correct in history:
    assert bool(gate_lib.active(gate, plan)) == oracle.active
    if oracle.waiting:
      gate = jitted_grant(gate, jnp.bool_(True))
      oracle.waiting, oracle.round = False, oracle.round + 1
    if not oracle.active:
      break
    gate = jitted_step(gate)
    oracle.step()
    asked = gate_lib.in_stage(gate, plan)
    gate, decision = jitted_decide(
      gate,
      plan,
      jnp.where(asked, jnp.asarray(correct), 0),
      jnp.where(asked, P, 0),
    )
    assert gate_lib.DECISIONS[int(decision)] == oracle.probe(correct)
    assert int(gate.stage) == oracle.stage
    assert int(gate.round) == oracle.round
  outcomes = [gate_lib.OUTCOMES[i] for i in np.asarray(gate.outcome_S)]
  assert outcomes == oracle.outcome


def test_missing_evidence_is_never_a_pass():
  plan = make_plan([{0, 1}], [100])
  gate = start(plan)
  full = jnp.full(K, P)
  # Module 1 was not asked this round although its last score was perfect.
  gate = gate.replace(correct_K=full, probed_K=full)
  gate, decision = gate_lib.decide(
    gate, plan, jnp.asarray([P, 0, 0, 0]), jnp.asarray([P, 0, 0, 0])
  )
  assert int(decision) == gate_lib.STAY
  assert int(gate.stage) == 0


def test_too_few_probes_are_no_evidence():
  plan = make_plan([{0}], [100], min_probes=P + 1)
  gate, decision = gate_lib.decide(
    start(plan), plan, jnp.full(K, P), jnp.full(K, P)
  )
  assert int(decision) == gate_lib.STAY
  assert not gate_lib.mastered(gate, plan).any()


def test_a_teacher_at_zero_is_never_matched():
  plan = make_plan([{0}], [100], teacher=[0.0, 1, 1, 1])
  gate, decision = gate_lib.decide(
    start(plan), plan, jnp.full(K, P), jnp.full(K, P)
  )
  assert int(decision) == gate_lib.STAY
  assert float(gate_lib.ratio(gate, plan)[0]) == 0.0


@pytest.mark.parametrize('correct,passes', [(27, False), (28, True)])
def test_threshold_is_relative_to_the_teacher(correct, passes):
  # 0.9 of a teacher at 31/32 is 27.9/32: 28 right answers pass, 27 do not.
  plan = make_plan([{0}], [100], teacher=[31 / 32, 1, 1, 1])
  counts = jnp.zeros(K, jnp.int32).at[0].set(correct)
  asked = jnp.zeros(K, jnp.int32).at[0].set(32)
  _, decision = gate_lib.decide(start(plan), plan, counts, asked)
  assert (int(decision) == gate_lib.ADVANCE) == passes


def test_a_held_stage_is_recorded_and_not_left():
  plan = make_plan([{0}], [1], hold={0})
  gate = start(plan)
  gate = gate_lib.count_step(gate)
  gate, decision = gate_lib.decide(gate, plan, jnp.full(K, P), jnp.full(K, P))
  assert int(gate.outcome_S[0]) == gate_lib.MASTERED
  assert (int(gate.stage), int(decision)) == (0, gate_lib.STAY)
  gate, _ = gate_lib.decide(gate, plan, jnp.zeros(K), jnp.full(K, P))
  assert int(gate.outcome_S[0]) == gate_lib.UNMASTERED
  assert bool(gate_lib.active(gate, plan))


def test_a_stage_without_lessons_waits_and_costs_no_round():
  plan = make_plan([{0}, {1}], [5, 5])
  gate = gate_lib.require_lessons(start(plan), plan, jnp.asarray([0, 3, 0, 0]))
  assert not bool(gate_lib.active(gate, plan))
  gate = gate_lib.grant(gate, jnp.bool_(False))
  assert bool(gate_lib.active(gate, plan))
  assert int(gate.round) == 0 and int(gate.rounds_S[0]) == 0
  gate = gate_lib.require_lessons(gate, plan, jnp.asarray([3, 0, 0, 0]))
  assert bool(gate_lib.active(gate, plan))  # Stage 1 is not the current one.


def test_steps_are_charged_to_their_stage():
  plan = make_plan([{0}, {1}], [5, 5])
  gate = start(plan)
  for _ in range(3):
    gate = gate_lib.count_step(gate)
  gate, _ = gate_lib.decide(gate, plan, jnp.full(K, P), jnp.full(K, P))
  gate = gate_lib.count_step(gate)
  np.testing.assert_array_equal(gate.steps_S, [3, 1])
  assert int(gate.steps_in_stage) == 1
