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
  stages,
  max_steps,
  *,
  teacher=None,
  tau=0.9,
  rounds=1,
  extra=2,
  hold=(),
  stop=False,
  min_probes=1,
  z=0.0,
  reopen=False,
):
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
    z=jnp.float32(z),
    sequential=jnp.bool_(False),
    reopen=jnp.bool_(reopen),
    min_probes=jnp.int32(min_probes),
    remedial_steps_S=jnp.full(len(stages), extra, jnp.int32),
    max_rounds=jnp.int32(rounds),
    stop_on_stall=jnp.bool_(stop),
  )


def start(plan):
  return gate_lib.init(plan, jnp.zeros(K, jnp.int32), jnp.full(K, P))


def bounds(correct, n, z):
  """Wilson's bounds as what they are: the p whose test statistic is z.

  The roots of (correct / n - p)^2 = z^2 p (1 - p) / n.
  """
  p, w = correct / n, z * z / n
  low, high = np.sort(np.roots([1 + w, -(2 * p + w), p * p]).real)
  return low, high


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
  z: float
  reopen: bool
  stage: int = 0
  steps: int = 0
  round: int = 0
  waiting: bool = False
  stopped: bool = False

  def __post_init__(self):
    self.outcome = ['pending'] * len(self.stages)
    self.passed, self.reopened = set(), set()
    self.alarms = [0] * K

  def _compare(self, k, correct, end):
    """-1, 0 or 1: a bound of the score against the threshold."""
    if not self.teacher[k]:
      return -1
    ratio = bounds(correct[k], P, self.z)[end] / self.teacher[k]
    return 1 if ratio >= self.tau - 1e-6 else -1

  @property
  def asked(self):
    return self.stages[self.stage] | self.reopened

  @property
  def active(self):
    return (
      self.stage < len(self.stages) and not self.waiting and not self.stopped
    )

  def step(self):
    self.steps += 1

  def probe(self, correct):
    members, outside = self.stages[self.stage], self.reopened.copy()
    passes = {k for k in self.asked if self._compare(k, correct, 0) > 0}
    # Only who was re-opened is asked outside the stage, so no alarm is new.
    assert outside <= self.passed
    self.passed |= passes
    self.reopened -= passes | members
    if members <= passes:
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

  def probe_all(self, correct):
    """What follows when a stage was left: every module is asked."""
    members = self.stages[self.stage] if self.stage < len(self.stages) else ()
    for k in range(K):
      passes = self._compare(k, correct, 0) > 0
      fallen = self._compare(k, correct, 1) < 0
      if passes or k in members:
        self.reopened.discard(k)
      elif self.reopen and fallen and k in self.passed - self.reopened:
        self.reopened.add(k)
        self.alarms[k] += 1
      if passes:
        self.passed.add(k)

  def _leave(self, outcome, decision):
    self.outcome[self.stage] = outcome
    self.stage += 1
    self.steps = self.round = 0
    return decision


jitted_judge = jax.jit(gate_lib.judge)
jitted_step = jax.jit(gate_lib.count_step)
jitted_resume = jax.jit(gate_lib.resume)
jitted_record = jax.jit(gate_lib.record)


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
  z=st.sampled_from([0.0, 0.7, 1.6]),
  reopen=st.booleans(),
)
def test_equals_a_plain_replay_of_the_recorded_outcomes(
  history, tau, rounds, stop, teacher, z, reopen
):
  stages, max_steps = [{0, 1}, {2}, {3}], [3, 2, 4]
  plan = make_plan(
    stages,
    max_steps,
    teacher=teacher,
    tau=tau,
    rounds=rounds,
    stop=stop,
    z=z,
    reopen=reopen,
  )
  oracle = Replay(stages, max_steps, teacher, tau, rounds, 2, stop, z, reopen)
  gate = start(plan)
  for correct in history:
    assert bool(gate_lib.active(gate, plan)) == oracle.active
    if oracle.waiting:
      gate = jitted_resume(gate, jnp.bool_(True))
      oracle.waiting, oracle.round = False, oracle.round + 1
    if not oracle.active:
      break
    gate = jitted_step(gate)
    oracle.step()
    asked = gate_lib.asked(gate, plan)
    assert set(np.flatnonzero(asked)) == oracle.asked
    gate, decision = jitted_judge(
      gate,
      plan,
      jnp.where(asked, jnp.asarray(correct), 0),
      jnp.where(asked, P, 0),
    )
    before = oracle.stage
    assert gate_lib.DECISIONS[int(decision)] == oracle.probe(correct)
    if oracle.stage != before:
      gate = jitted_record(gate, plan, jnp.asarray(correct), jnp.full(K, P))
      oracle.probe_all(correct)
    assert set(np.flatnonzero(gate.reopened_K)) == oracle.reopened
    assert set(np.flatnonzero(gate.passed_K)) == oracle.passed
    assert int(gate.stage) == oracle.stage
    assert int(gate.round) == oracle.round
  outcomes = [gate_lib.OUTCOMES[i] for i in np.asarray(gate.outcome_S)]
  assert outcomes == oracle.outcome
  assert list(np.asarray(gate.alarms_K)) == oracle.alarms


def test_shares_of_a_score_are_held_to_the_teachers_share():
  """ROUGE-L: the teacher reaches 0.4 on average, so 0.36 is mastery."""
  plan = make_plan([{0}], [100], teacher=0.4)
  state = gate_lib.init(plan, jnp.zeros(K), jnp.zeros(K))
  for total, passes in ((0.35 * P, False), (0.361 * P, True)):
    correct_K = jnp.zeros(K).at[0].set(total)
    probed_K = jnp.zeros(K, jnp.int32).at[0].set(P)
    _, decision = gate_lib.judge(state, plan, correct_K, probed_K)
    assert (int(decision) == gate_lib.ADVANCE) is passes


def test_missing_evidence_is_never_a_pass():
  plan = make_plan([{0, 1}], [100])
  gate = start(plan)
  full = jnp.full(K, P)
  # Module 1 was not asked this round although its last score was perfect.
  gate = gate.replace(correct_K=full, probed_K=full)
  gate, decision = gate_lib.judge(
    gate, plan, jnp.asarray([P, 0, 0, 0]), jnp.asarray([P, 0, 0, 0])
  )
  assert int(decision) == gate_lib.STAY
  assert int(gate.stage) == 0


def test_too_few_probes_are_no_evidence():
  plan = make_plan([{0}], [100], min_probes=P + 1)
  gate, decision = gate_lib.judge(
    start(plan), plan, jnp.full(K, P), jnp.full(K, P)
  )
  assert int(decision) == gate_lib.STAY
  assert not gate_lib.mastered(gate, plan).any()


def test_a_teacher_at_zero_is_never_matched():
  plan = make_plan([{0}], [100], teacher=[0.0, 1, 1, 1])
  gate, decision = gate_lib.judge(
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
  _, decision = gate_lib.judge(start(plan), plan, counts, asked)
  assert (int(decision) == gate_lib.ADVANCE) == passes


def test_a_held_stage_is_recorded_and_not_left():
  plan = make_plan([{0}], [1], hold={0})
  gate = start(plan)
  gate = gate_lib.count_step(gate)
  gate, decision = gate_lib.judge(gate, plan, jnp.full(K, P), jnp.full(K, P))
  assert int(gate.outcome_S[0]) == gate_lib.MASTERED
  assert (int(gate.stage), int(decision)) == (0, gate_lib.STAY)
  gate, _ = gate_lib.judge(gate, plan, jnp.zeros(K), jnp.full(K, P))
  assert int(gate.outcome_S[0]) == gate_lib.UNMASTERED
  assert bool(gate_lib.active(gate, plan))


def test_a_stage_without_lessons_waits_and_costs_no_round():
  plan = make_plan([{0}, {1}], [5, 5])
  gate = gate_lib.require_lessons(start(plan), plan, jnp.asarray([0, 3, 0, 0]))
  assert not bool(gate_lib.active(gate, plan))
  gate = gate_lib.resume(gate, jnp.bool_(False))
  assert bool(gate_lib.active(gate, plan))
  assert int(gate.round) == 0 and int(gate.rounds_S[0]) == 0
  gate = gate_lib.require_lessons(gate, plan, jnp.asarray([3, 0, 0, 0]))
  assert bool(gate_lib.active(gate, plan))  # Stage 1 is not the current one.


@pytest.mark.parametrize(
  'left,stage,waits',
  [
    ({0, 1, 2}, 0, False),
    ({1, 2}, 1, False),
    ({2}, 2, True),
    (set(), 3, False),
  ],
)
def test_stages_without_modules_are_left_as_untaught(left, stage, waits):
  """Several in a row, up to one with modules; module 2 has no lessons yet."""
  plan = make_plan([{0}, {1}, {2}], [5, 5, 5])
  taught_K = np.isin(np.arange(K), list(left))
  plan = plan.replace(
    stage_modules_SxK=plan.stage_modules_SxK & jnp.asarray(taught_K)
  )
  gate = start(plan).replace(round=jnp.int32(1), steps_in_stage=jnp.int32(4))
  gate = gate_lib.skip_untaught(gate, plan, jnp.asarray([3, 3, 0, 0]))
  assert int(gate.stage) == stage and bool(gate.needs_data) == waits
  outcomes = [gate_lib.UNTAUGHT] * stage + [gate_lib.PENDING] * (3 - stage)
  assert gate.outcome_S.tolist() == outcomes
  # A stage that is begun begins anew; one that goes on keeps its count.
  assert int(gate.steps_in_stage) == (0 if stage else 4)
  assert bool(gate_lib.active(gate, plan)) == (stage < 3 and not waits)


def test_steps_are_charged_to_their_stage():
  plan = make_plan([{0}, {1}], [5, 5])
  gate = start(plan)
  for _ in range(3):
    gate = gate_lib.count_step(gate)
  gate, _ = gate_lib.judge(gate, plan, jnp.full(K, P), jnp.full(K, P))
  gate = gate_lib.count_step(gate)
  np.testing.assert_array_equal(gate.steps_S, [3, 1])
  assert int(gate.steps_in_stage) == 1


def test_bounds_are_where_the_test_statistic_is_z():
  for n in (1, 8, 32):
    for correct in range(n + 1):
      for z in (0.5, 1.64, 2.6):
        got = gate_lib.wilson(jnp.int32(correct), jnp.int32(n), jnp.float32(z))
        np.testing.assert_allclose(got, bounds(correct, n, z), atol=1e-5)
      got = gate_lib.wilson(jnp.int32(correct), jnp.int32(n), jnp.float32(0))
      np.testing.assert_allclose(got, correct / n, atol=1e-6)


@hypothesis.settings(max_examples=80, deadline=None)
@hypothesis.given(
  answers=st.lists(st.booleans(), min_size=1, max_size=40),
  tau=st.sampled_from([0.3, 0.9, 1.0]),
  teacher=st.sampled_from([0.0, 0.7, 1.0]),
  z=st.sampled_from([0.0, 1.0]),
  min_probes=st.sampled_from([1, 20, 50]),
)
def test_a_settled_verdict_is_that_of_all_probes(
  answers, tau, teacher, z, min_probes
):
  """Whatever comes after; and it is settled no later than it could be."""
  plan = make_plan(
    [{0}], [1], teacher=[teacher, 1, 1, 1], tau=tau, z=z, min_probes=min_probes
  )
  one = lambda x: jnp.full(K, x, jnp.int32)
  n = len(answers)
  whole = bool(gate_lib.passes(one(sum(answers)), one(n), plan)[0])
  for seen in range(n + 1):
    correct = sum(answers[:seen])
    undecided = bool(
      gate_lib.undecided(one(correct), one(seen), one(n), plan)[0]
    )
    if not undecided:
      early = bool(gate_lib.passes(one(correct), one(seen), plan)[0])
      assert early == whole
      break
    worst = bool(gate_lib.passes(one(correct), one(n), plan)[0])
    best = bool(gate_lib.passes(one(correct + n - seen), one(n), plan)[0])
    assert best and not (worst and seen >= min_probes)


def test_a_fallen_module_is_taught_again_until_it_passes():
  plan = make_plan([{0}, {1}, {2}], [100] * 3, reopen=True)
  counts = lambda *right: jnp.asarray(right, jnp.int32)
  gate, _ = gate_lib.judge(
    start(plan), plan, counts(P, 0, 0, 0), counts(P, 0, 0, 0)
  )
  assert int(gate.stage) == 1
  # Module 0 was mastered and falls; 1 never was, so it has not fallen.
  gate = gate_lib.record(gate, plan, counts(P // 2, 0, 0, 0), jnp.full(K, P))
  assert list(np.asarray(gate_lib.asked(gate, plan))) == [
    True,
    True,
    False,
    False,
  ]
  assert list(np.asarray(gate.alarms_K)) == [1, 0, 0, 0]
  # The stage is left although module 0 has not recovered ...
  gate, decision = gate_lib.judge(
    gate, plan, counts(P // 2, P, 0, 0), counts(P, P, 0, 0)
  )
  assert int(decision) == gate_lib.ADVANCE
  assert bool(gate.reopened_K[0]) and int(gate.alarms_K[0]) == 1
  # ... and once it has, it is asked no more.
  gate, _ = gate_lib.judge(gate, plan, counts(P, 0, 0, 0), counts(P, 0, P, 0))
  assert list(np.asarray(gate_lib.asked(gate, plan))) == [
    False,
    False,
    True,
    False,
  ]
