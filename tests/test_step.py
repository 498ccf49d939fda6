"""The compiled step: one trace, exact resume, and a gate that moves it."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ioa_jax.models import decoder
from ioa_jax.records import Probing, Score, Stage, Training
from ioa_jax.runtime import sharding
from ioa_jax.sampling import logits as logits_lib
from ioa_jax.sampling import sampler as sampler_lib
from ioa_jax.training import curriculum as curriculum_lib
from ioa_jax.training import gate as gate_lib
from ioa_jax.training import metrics as metrics_lib
from ioa_jax.training import optimizer, packing, probing
from ioa_jax.training import step as step_lib
from ioa_jax.training import trainer as trainer_lib
from ioa_jax.training.trainer import NonFiniteLoss, Status, Trainer

CONFIG = decoder.DecoderConfig(
  vocab_size=16,
  width=32,
  num_layers=2,
  num_heads=4,
  num_kv_heads=2,
  head_width=8,
  mlp_width=48,
  scan_unroll=2,
)
NAMES = ['copy', 'next', 'last']
EOS = 1
L = 16
UNTAUGHT = [Score(0, 6)] * 3


def example(module, value):
  """Three one-token rules that a small model learns in a few dozen steps."""
  answer = {'copy': value, 'next': 4 + (value - 3) % 10, 'last': 15 - value % 2}
  return packing.Example(
    [2, 3 + NAMES.index(module), value], [answer[module], EOS]
  )


def examples(module):
  return [example(module, v) for v in range(4, 14)]


def stages(max_steps=40, remedial=10):
  stage = lambda names, kind: Stage(names, kind, 0.0, max_steps, remedial)
  return [
    stage(['copy'], 'teach'),
    stage(['next', 'last'], 'teach'),
    stage(NAMES, 'consolidate'),
  ]


@functools.cache
def optimizer_and_schedule():
  # One recipe for all tests, so that they share a compiled window.
  recipe = optimizer.Recipe(
    name='adamw',
    learning_rate=1e-2,
    warmup_share=0.03,
    final_share=0.1,
    weight_decay=0.01,
    b1=0.9,
    b2=0.95,
    clip_norm=1.0,
    momentum_dtype='float32',
  )
  return optimizer.make(recipe, total_steps=400)


def new_window(mesh, state):
  program = step_lib.Program(CONFIG, optimizer_and_schedule()[0], batch_rows=8)
  return trainer_lib.make_window(program, state, mesh, num_steps=10)


_windows = {}


def make(
  *,
  devices=1,
  total_steps=200,
  tau=0.9,
  max_steps=40,
  rounds=1,
  fill=('copy', 'next', 'last'),
  axes=None,
  fresh_window=False,
  sequential=False,
  reopen=False,
  ending_steps=0,
):
  mesh = sharding.make_mesh(
    **(axes or {'data': devices}), devices=jax.devices()[:devices]
  )
  rules = gate_lib.Rules(
    tau_mastery=tau,
    confidence=0.5,
    sequential=sequential,
    reopen=reopen,
    min_probes=1,
    max_rounds=rounds,
    on_stall='advance',
  )
  plan = gate_lib.make_plan(stages(max_steps), NAMES, np.ones(3), rules)
  mix = curriculum_lib.make_mix(
    np.ones(3), np.zeros(3), weighting='need', replay_share=0.3, need_floor=0.2
  )
  bank = probing.build([examples(n)[:6] for n in NAMES], L, 4)
  filled = curriculum_lib.add_rows(
    curriculum_lib.allocate([20] * 3, L),
    {NAMES.index(n): packing.pack(examples(n), L) for n in fill},
  )
  pace = trainer_lib.Pace(
    seed=7,
    total_steps=total_steps,
    probe_every_steps=5,
    average_decay=0.5,
    ending_steps=ending_steps,
  )
  inputs = trainer_lib.make_inputs(filled, mix, plan, bank, pace, mesh)
  tx, schedule = optimizer_and_schedule()
  params = decoder.init(CONFIG, jax.random.key(0))
  state = trainer_lib.make_state(
    params, tx, UNTAUGHT, plan, mesh, keep_best=True
  )
  layout = str(axes or devices)
  if fresh_window or layout not in _windows:
    _windows[layout] = new_window(mesh, state)
  return _windows[layout], state, inputs, mesh, schedule


def run(parts, *, supply=None, grade=None, save=None):
  """What a run does between windows; the trainer's state, inputs, metrics."""
  window, state, inputs, mesh, _ = parts
  trainer = Trainer(window, state, inputs, NAMES, mesh)
  seen = []
  with jax.set_mesh(mesh):
    while (status := trainer.status()) is not Status.ENDED:
      if status is Status.SCORES:
        seen.append(trainer.grade(grade))
      elif status is Status.TRAIN:
        seen.append(trainer.window())
        trainer.require_finite(seen[-1])
      else:
        if supply:
          supply(trainer)
        trainer.resume(remedial=status is Status.REMEDIAL)
      if save:
        save(trainer)
  return (
    trainer.state,
    trainer.inputs,
    jax.tree.map(lambda *x: np.concatenate(x), *seen),
  )


def assert_equal(a, b):
  jax.tree.map(np.testing.assert_array_equal, a, b)


def test_one_trace_over_stages_remediation_new_rows_and_the_end():
  asked = []
  parts = make(max_steps=10, fill=('copy',), fresh_window=True)

  def supply(trainer):
    asked.append((trainer.stage, trainer.status() is Status.REMEDIAL))
    names = ['copy'] if trainer.stage == 0 else ['next', 'last']
    trainer.add_lessons({n: examples(n)[:5] for n in names})

  state, _, metrics = run(parts, supply=supply)
  assert parts[0].compilations == 1
  assert int(state.step) == 200
  # Stage 1 had no rows when it began: it was asked for and cost no round.
  assert (1, False) in asked
  assert any(remedial for _, remedial in asked)
  decisions = set(metrics['decision'])
  assert {gate_lib.STAY, gate_lib.REMEDIATE} <= decisions
  assert int(state.gate.stage) == 2
  np.testing.assert_array_equal(
    np.sort(np.asarray(state.gate.steps_S))[-1] > 0, True
  )
  assert int(np.sum(state.gate.steps_S)) == 200


def test_the_student_learns_and_masters_every_stage():
  state, _, metrics = run(make(total_steps=400, max_steps=300, rounds=0))
  outcomes = [gate_lib.OUTCOMES[i] for i in np.asarray(state.gate.outcome_S)]
  assert outcomes == ['mastered'] * 3
  loss = metrics['loss_sum'] / np.maximum(metrics['loss_count'], 1)
  assert loss[metrics['ran']][-10:].mean() < 0.1 * loss[:10].mean()


def test_it_ends_after_two_rounds_that_mastered_all():
  parts = make(total_steps=600, max_steps=300, rounds=0, ending_steps=32)
  state, _, metrics = run(parts)
  ran = metrics['ran']
  # By hand: the second of two rounds of all modules with nothing missed.
  whole = (metrics['probed_K'] > 0).all(1)
  mastered = (metrics['correct_K'] >= 0.9 * metrics['probed_K']).all(1)
  rounds = [
    (int(s), bool(m)) for s, m in zip(metrics['step'][whole], mastered[whole])
  ]
  twice = next(b for (_, m), (b, n) in zip(rounds, rounds[1:]) if m and n)
  assert int(state.step) == twice + 32 < 600
  pace = metrics['pace'][ran]
  np.testing.assert_allclose(pace[:twice], 1.0)
  np.testing.assert_allclose(pace[twice:], np.arange(32, 0, -1) / 32)
  # Where all answer everything the longest taught stay the best.
  assert twice <= int(state.guard.step) <= int(state.step)
  full, _, _ = run(make(total_steps=600, max_steps=300, rounds=0))
  assert int(full.step) == 600 and parts[0].compilations == 1


def test_recorded_outcomes_replayed_give_the_same_gate():
  parts = make(max_steps=10)
  state, inputs, metrics = run(parts)
  plan = jax.device_get(inputs.plan)
  gate = gate_lib.init(plan, np.zeros(3), np.full(3, 6))
  for t in np.flatnonzero(metrics['ran']):
    if bool(gate.needs_data):
      gate = gate_lib.resume(gate, jnp.bool_(True))
    assert int(gate.stage) == metrics['stage'][t]
    assert int(gate.round) == metrics['round'][t]
    gate = gate_lib.count_step(gate)
    if metrics['decision'][t] != gate_lib.NO_PROBE:
      in_stage = np.asarray(gate_lib.in_stage(gate, plan))
      gate, decision = gate_lib.judge(
        gate,
        plan,
        np.where(in_stage, metrics['correct_K'][t], 0),
        np.where(in_stage, metrics['probed_K'][t], 0),
      )
      assert int(decision) == metrics['decision'][t]
  np.testing.assert_array_equal(gate.outcome_S, state.gate.outcome_S)
  np.testing.assert_array_equal(gate.rounds_S, state.gate.rounds_S)


def test_leaving_a_stage_probes_everything():
  _, _, metrics = run(make(total_steps=400, max_steps=300, rounds=0))
  left = np.flatnonzero(metrics['decision'] == gate_lib.ADVANCE)
  assert len(left) == 2
  assert (metrics['probed_K'][left] == 6).all()
  stay = np.flatnonzero(
    (metrics['decision'] == gate_lib.STAY) & (metrics['stage'] == 0)
  )
  assert (metrics['probed_K'][stay] == [6, 0, 0]).all()


def test_interrupted_at_any_window_ends_bit_identical():
  whole, _, _ = run(make(max_steps=10))

  for interrupt in (4, 13):
    parts = make(max_steps=10)
    run_window, state, inputs, mesh, _ = parts
    with jax.set_mesh(mesh):
      for _ in range(interrupt):
        if bool(state.gate.needs_data):
          state = state.replace(
            gate=trainer_lib._resume(state.gate, np.bool_(True))
          )
        state, _ = run_window(state, inputs)
    # Through the host and back, as a checkpoint does, into a new program.
    kept = jax.device_get(state)
    parts = make(max_steps=10, fresh_window=interrupt == 4)
    fresh_window, fresh, fresh_inputs, mesh, schedule = parts
    state = jax.device_put(kept, sharding.state_shardings(mesh, fresh))
    resumed, _, _ = run((fresh_window, state, fresh_inputs, mesh, schedule))
    assert_equal(jax.device_get(resumed), jax.device_get(whole))


def test_the_same_losses_on_one_device_and_on_meshes():
  _, _, one = run(make(total_steps=30))
  for axes in (
    {'data': 4},
    {'data': 2, 'fsdp': 2},
    {'data': 2, 'tensor': 2},
    {'sequence': 2, 'tensor': 2},
  ):
    parts = make(devices=4, axes=axes, total_steps=30)
    _, _, many = run(parts)
    np.testing.assert_allclose(
      many['loss_sum'], one['loss_sum'], rtol=2e-4, err_msg=str(axes)
    )
    assert parts[0].compilations == 1


def test_a_batch_without_live_tokens_moves_nothing():
  run_window, state, inputs, mesh, _ = make(fill=())
  before = jax.device_get(state)
  with jax.set_mesh(mesh):
    state, metrics = run_window(state, inputs)
  after = jax.device_get(state)
  assert_equal(after.params, before.params)
  assert_equal(after.opt_state, before.opt_state)
  assert_equal(after.average, before.average)
  assert metrics['loss_count'].sum() == 0


def test_momentum_alone_would_have_moved_it():
  """The guard is needed: a zero gradient after a real one moves Adam."""
  run_window, state, inputs, mesh, _ = make()
  with jax.set_mesh(mesh):
    state, _ = run_window(state, inputs)
  tx, _ = optimizer_and_schedule()
  zero = jax.tree.map(jnp.zeros_like, state.params)
  updates, _ = tx.update(zero, state.opt_state, state.params)
  assert max(float(jnp.abs(u).max()) for u in jax.tree.leaves(updates)) > 0


def test_a_non_finite_step_changes_nothing_and_stops():
  run_window, state, inputs, mesh, schedule = make()
  broken = jax.tree.map(jnp.array, state.params)
  broken['embedding'] = broken['embedding'].at[2].set(jnp.nan)
  state = state.replace(params=broken)
  saved = []
  with pytest.raises(NonFiniteLoss, match='step 1: .*stage 1') as raised:
    run((run_window, state, inputs, mesh, schedule), save=saved.append)
  # A restart would take it for the end of the run.
  assert not saved
  # Lessons of the first stage's module.
  texts = {(*e.prompt, *e.completion) for e in examples('copy')}
  assert raised.value.texts and set(raised.value.texts) <= texts


def test_idle_steps_cost_no_token_and_keep_the_state():
  run_window, state, inputs, mesh, _ = make(total_steps=3)
  with jax.set_mesh(mesh):
    state, metrics = run_window(state, inputs)
    kept = jax.device_get(state)
    state, idle = run_window(state, inputs)
  np.testing.assert_array_equal(metrics['ran'], [True] * 3 + [False] * 7)
  assert_equal(jax.device_get(state), kept)
  assert int(idle['tokens'].sum()) == 0


def test_probes_agree_with_decoding_and_comparing_text():
  state, inputs, _ = run(make(total_steps=10))
  params = state.average
  correct_K, probed_K, _ = probing.probe_modules(
    CONFIG, params, inputs.bank, jnp.asarray([True] * 3), inputs.plan
  )
  sampler = sampler_lib.Sampler(
    CONFIG, stop_tokens=[EOS], batch_size=18, max_new_tokens=4
  )
  probes = [e for n in NAMES for e in examples(n)[:6]]
  greedy = logits_lib.Sampling(max_tokens=4)
  written = sampler(params, [e.prompt for e in probes], [greedy] * 18, [0] * 18)
  right = [
    g.stopped and list(g.tokens) == list(e.completion[:-1])
    for g, e in zip(written, probes)
  ]
  by_module = np.asarray(right).reshape(3, 6).sum(axis=1)
  np.testing.assert_array_equal(correct_K, by_module)
  np.testing.assert_array_equal(probed_K, [6, 6, 6])
  assert 0 < by_module.sum() < 18  # Neither all wrong nor all right.


def test_only_asked_modules_are_probed():
  _, state, inputs, *_ = make()
  correct_K, probed_K, tokens = probing.probe_modules(
    CONFIG,
    state.average,
    inputs.bank,
    jnp.asarray([False, True, False]),
    inputs.plan,
  )
  np.testing.assert_array_equal(probed_K, [0, 6, 0])
  # Of a sequence, its last token is predicted and not read.
  assert int(tokens) == sum(
    len(e.prompt) + len(e.completion) - 1 for e in examples(NAMES[1])[:6]
  )
  assert int(correct_K[0]) == int(correct_K[2]) == 0


@pytest.mark.parametrize('chunk', [1, 3, 8])
def test_how_many_rows_are_read_together_changes_no_count(chunk):
  state, inputs, _ = run(make(total_steps=10))
  # Of unequal sizes, and a module without any.
  probes = [examples(NAMES[0])[:5], [], examples(NAMES[2])[:9]]
  bank = probing.build(probes, L, chunk)
  assert len(bank.module_Q) % bank.chunk == 0 and bank.chunk <= chunk
  score = jax.jit(functools.partial(probing.score_items, CONFIG))
  right_KxP, _, _ = score(state.average, bank)
  correct_K, probed_K, tokens = jax.jit(
    functools.partial(probing.probe_modules, CONFIG)
  )(state.average, jax.device_put(bank), jnp.ones(3, bool), inputs.plan)
  np.testing.assert_array_equal(probed_K, [5, 0, 9])
  np.testing.assert_array_equal(correct_K, right_KxP.sum(axis=1))
  np.testing.assert_array_equal(bank.valid_KxP.sum(axis=1), [5, 0, 9])
  assert int(tokens) == sum(
    len(e.prompt) + len(e.completion) - 1 for k in probes for e in k
  )


def test_a_settled_module_is_probed_no_further():
  """Fewer probes, and the verdicts of all of them."""
  probe = jax.jit(functools.partial(probing.probe_modules, CONFIG))
  everything = jnp.asarray([True] * 3)
  fewer = 0
  for total_steps in (0, 20, 40, 100):
    state, inputs, _ = run(make(total_steps=max(total_steps, 1)))
    plan = inputs.plan
    whole = probe(state.average, inputs.bank, everything, plan)
    early = probe(
      state.average,
      inputs.bank,
      everything,
      plan.replace(sequential=jnp.bool_(True)),
    )
    np.testing.assert_array_equal(
      gate_lib.passes(*whole[:2], plan), gate_lib.passes(*early[:2], plan)
    )
    assert (whole[1] == 6).all() and (early[1] <= 6).all()
    fewer += int((early[1] < 6).sum())
  assert fewer


def test_a_reopened_module_is_probed_and_taught_beside_the_stage():
  parts = make(total_steps=400, max_steps=300, rounds=0, reopen=True)
  window, state, inputs, mesh, schedule = parts
  # As if 'next' had been mastered before, and had just been found fallen.
  fallen = jnp.asarray([False, True, False])
  gate = state.gate.replace(passed_K=fallen, reopened_K=jnp.array(fallen))
  gate = jax.device_put(gate, sharding.replicated(mesh))
  state = state.replace(gate=gate)
  state, _, metrics = run((window, state, inputs, mesh, schedule))
  probed = np.flatnonzero(metrics['decision'] != gate_lib.NO_PROBE)
  np.testing.assert_array_equal(metrics['probed_K'][probed[0]], [6, 6, 0])
  assert metrics['stage'][probed[0]] == 0
  taught = metrics['drawn_K'][: probed[0] + 1].sum(axis=0)
  assert taught[1] > 0 and taught[2] == 0
  # It recovers, and nothing was compiled for it.
  assert metrics['reopened_K'][probed[0]][1]
  assert not state.gate.reopened_K.any()
  assert window.compilations == 1


def test_events_sum_what_the_steps_report():
  parts = make(total_steps=40, max_steps=10)
  _, _, metrics = run(parts)
  events = metrics_lib.window_events(
    metrics, NAMES, tokens_before=100, learning_rate=parts[4], every=5
  )
  trains = [e for e in events if isinstance(e, Training)]
  assert trains[-1].tokens == 100 + metrics['tokens'].sum()
  assert trains[-1].step == 40
  probes = [e for e in events if isinstance(e, Probing)]
  assert len(probes) == (metrics['decision'] != 0).sum()
  assert all(set(e.scores) <= set(NAMES) for e in probes)


def test_the_average_follows_the_parameters():
  state, _, _ = run(make(total_steps=40))
  close = jax.tree.map(
    lambda a, p: float(jnp.abs(a - p).max()), state.average, state.params
  )
  assert 0 < max(jax.tree.leaves(close)) < 0.1


def test_without_an_average_the_parameters_are_read():
  """The same run as an average that forgets at once, with a quarter less."""
  window, state, inputs, *rest = make(total_steps=40, tau=0.5, max_steps=10)
  inputs = inputs.replace(average_decay=np.float32(0.0))
  _, donated, *_ = make(total_steps=40, tau=0.5, max_steps=10)
  bare = donated.replace(average=None)
  assert step_lib.evaluated(bare) is bare.params
  want, _, want_metrics = run((window, state, inputs, *rest))
  fresh = new_window(rest[0], bare)
  got, _, metrics = run((fresh, bare, inputs, *rest))
  assert got.average is None and fresh.compilations == 1
  assert_equal(jax.device_get(got.params), jax.device_get(want.average))
  assert_equal(metrics, want_metrics)
  assert set(metrics['decision']) > {0, 1}


def test_state_shardings_place_moments_like_their_parameters():
  _, state, _, mesh, _ = make(
    devices=4, axes={'data': 1, 'fsdp': 2, 'tensor': 2}
  )
  moments = state.opt_state[1][0].mu['layers']['q_proj']['kernel'].sharding
  assert moments == state.params['layers']['q_proj']['kernel'].sharding
  assert not moments.is_fully_replicated
  assert dataclasses.is_dataclass(state)
  assert state.gate.stage.sharding.is_fully_replicated
  assert mesh.size == 4
