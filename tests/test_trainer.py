"""The host's side: probes that it grades, and adapters over a base it holds."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ioa_jax.models import lora
from ioa_jax.records import Probing, Score
from ioa_jax.runtime import sharding
from ioa_jax.training import gate as gate_lib
from ioa_jax.training import metrics as metrics_lib
from ioa_jax.training import probing
from ioa_jax.training import step as step_lib
from ioa_jax.training import trainer as trainer_lib
from ioa_jax.training.trainer import Status, Trainer
from tests import test_step
from tests.test_step import CONFIG, NAMES, UNTAUGHT

SPEC = lora.LoraSpec(
  rank=2, alpha=8.0, dropout=0.0, targets=('q_proj', 'v_proj')
)


def events_of(parts, *, grade=None, inputs=None):
  """Final state, and what was decided at every probing round."""
  window, state, given, mesh, schedule = parts
  trainer = Trainer(
    window, state, given if inputs is None else inputs, NAMES, mesh
  )
  decided = []
  with jax.set_mesh(mesh):
    while (status := trainer.status()) is not Status.ENDED:
      if status in (Status.LESSONS, Status.REMEDIAL):
        trainer.resume(remedial=status is Status.REMEDIAL)
        continue
      metrics = (
        trainer.grade(grade(trainer))
        if status is Status.SCORES
        else trainer.window()
      )
      found = metrics_lib.window_events(
        metrics, NAMES, tokens_before=0, learning_rate=schedule, every=5
      )
      decided += [e for e in found if isinstance(e, Probing)]
  return trainer.state, decided


def graded(bank, plan):
  """A grader on the host that counts what the step would have counted."""
  probe = jax.jit(
    lambda params, ask_K, plan: probing.probe_modules(
      CONFIG, params, bank, ask_K, plan
    )
  )

  def grade(trainer):
    def of(names):
      ask_K = np.asarray([name in names for name in NAMES])
      correct_K, probed_K, _ = probe(trainer.params(), ask_K, plan)
      return {
        name: Score(float(correct_K[k]), int(probed_K[k]))
        for k, name in enumerate(NAMES)
        if ask_K[k]
      }

    return of

  return grade


@pytest.mark.parametrize('devices', [1, 4])
def test_grading_on_the_host_decides_what_the_step_decides(devices):
  settings = dict(
    total_steps=200, max_steps=10, rounds=1, tau=0.8, devices=devices
  )
  inside, want = events_of(test_step.make(**settings))
  parts = test_step.make(**settings, fresh_window=True)
  inputs = parts[2].replace(bank=None)
  outside, got = events_of(
    parts, grade=graded(parts[2].bank, parts[2].plan), inputs=inputs
  )
  assert {e.decision for e in want} >= {'stay', 'remediate', 'advance'}
  assert got == want
  test_step.assert_equal(jax.device_get(outside), jax.device_get(inside))
  assert parts[0].compilations == 1
  test_step._windows.clear()  # The cached one was made for another bank.


def test_a_window_ends_where_the_host_must_grade():
  window, state, inputs, mesh, _ = test_step.make(fresh_window=True)
  trainer = Trainer(window, state, inputs.replace(bank=None), NAMES, mesh)
  with jax.set_mesh(mesh):
    metrics = trainer.window()
  # The first probing round is due after 5 of the window's 10 steps.
  np.testing.assert_array_equal(metrics['ran'], [True] * 5 + [False] * 5)
  assert trainer.status() is Status.SCORES and trainer.step == 5
  test_step._windows.clear()


@pytest.mark.parametrize('axes', [{'data': 1}, {'data': 2, 'tensor': 2}])
def test_only_adapters_train_over_a_base_that_is_split(axes):
  devices = int(np.prod(list(axes.values())))
  _, full, inputs, mesh, _ = test_step.make(devices=devices, axes=axes)
  tx, _ = test_step.optimizer_and_schedule()
  base = jax.device_put(
    jax.device_get(full.params), sharding.param_shardings(mesh, full.params)
  )
  before = jax.device_get(base)
  adapters = lora.init(SPEC, base, jax.random.key(1))
  state = trainer_lib.make_state(adapters, tx, UNTAUGHT, inputs.plan, mesh)
  program = step_lib.Program(CONFIG, tx, batch_rows=8, lora=SPEC)
  window = trainer_lib.make_window(program, state, mesh, num_steps=10)
  inputs = inputs.replace(base=base)
  trained = {id(x): x.size for x in jax.tree.leaves(state.params)}
  assert sum(trained.values()) < 0.3 * sum(
    x.size for x in jax.tree.leaves(base)
  )
  with jax.set_mesh(mesh):
    losses = []
    for _ in range(4):
      state, metrics = window(state, inputs)
      losses.append(float(metrics['loss_sum'].sum()))
  assert losses[-1] < 0.95 * losses[0]
  assert window.compilations == 1
  test_step.assert_equal(jax.device_get(inputs.base), before)
  moments = {x.shape for x in jax.tree.leaves(state.opt_state) if x.ndim > 1}
  assert moments == {x.shape for x in jax.tree.leaves(state.params)}


def test_dropout_is_drawn_from_the_run_and_the_step():
  """Another seed is another run; the same seed is the same."""
  spec = lora.LoraSpec(rank=2, dropout=0.5, targets=('q_proj',))
  _, full, inputs, mesh, _ = test_step.make()
  tx, _ = test_step.optimizer_and_schedule()
  base = jax.device_get(full.params)

  def train(seed):
    adapters = lora.init(spec, base, jax.random.key(1))
    state = trainer_lib.make_state(adapters, tx, UNTAUGHT, inputs.plan, mesh)
    window = step_lib.Window(
      step_lib.Program(CONFIG, tx, batch_rows=8, lora=spec), num_steps=4
    )
    with jax.set_mesh(mesh):
      state, _ = window(
        state,
        inputs.replace(
          base=jax.tree.map(jnp.asarray, base), seed=np.uint32(seed)
        ),
      )
    return jax.device_get(state.params)

  one, same, other = train(3), train(3), train(4)
  test_step.assert_equal(one, same)
  assert not np.array_equal(one['q_proj']['b'], other['q_proj']['b'])


def test_decide_is_judge_and_the_wait_for_lessons():
  plan = jax.device_get(test_step.make()[2].plan)
  gate = gate_lib.init(plan, np.zeros(3), np.full(3, 6))
  gate = gate.replace(needs_scores=jnp.bool_(True))
  right, asked = np.asarray([6, 0, 0]), np.asarray([6, 0, 0])
  settled, decision = gate_lib.decide(
    gate, plan, right, asked, np.asarray([5, 0, 5])
  )
  assert int(decision) == gate_lib.ADVANCE and int(settled.stage) == 1
  assert not bool(settled.needs_scores)
  assert bool(settled.needs_data)  # 'next' has no lesson yet.
