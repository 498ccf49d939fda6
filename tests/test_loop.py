"""The host's side: probes that it grades, and adapters over a base it holds."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ioa_jax import sharding
from ioa_jax.models import lora
from ioa_jax.training import gate as gate_lib
from ioa_jax.training import loop, probing, setup
from ioa_jax.training import metrics as metrics_lib
from ioa_jax.training import step as step_lib
from tests import test_step
from tests.test_step import CONFIG, DIAGNOSIS, NAMES

SPEC = lora.LoraSpec(
  rank=2, alpha=8.0, dropout=0.0, targets=('q_proj', 'v_proj')
)


def events_of(parts, *, grade=None, inputs=None):
  """Final state, and what was decided at every probing round."""
  window, state, given, mesh, schedule = parts
  decided = []

  def observe(state, metrics):
    found = metrics_lib.window_events(
      metrics, NAMES, tokens_before=0, learning_rate=schedule, every=5
    )
    decided.extend(e for e in found if e['event'] == 'probe')

  with loop.StopRequest() as stop, jax.set_mesh(mesh):
    state, _ = loop.run(
      window, state, given if inputs is None else inputs,
      supply=lambda state, inputs, remedial: inputs, grade=grade,
      observe=observe, save=lambda state, inputs: None, stop=stop,
    )  # fmt: skip
  return state, decided


def graded(bank, plan):
  """A grader on the host that counts what the step would have counted."""
  probe = jax.jit(
    lambda params, ask_K, plan: probing.probe_modules(
      CONFIG, params, bank, ask_K, plan
    )
  )

  def grade(state, ask_K):
    counts = probe(state.average, ask_K, plan)
    return tuple(np.asarray(x) for x in counts[:2])

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
  assert {e['decision'] for e in want} >= {'stay', 'remediate', 'advance'}
  assert got == want
  test_step.assert_equal(jax.device_get(outside), jax.device_get(inside))
  assert parts[0].compilations == 1
  test_step._windows.clear()  # The cached one was made for another bank.


def test_nothing_is_graded_and_nothing_trained_after_a_stop():
  parts = test_step.make(fresh_window=True)
  window, state, inputs, mesh, _ = parts
  inputs = inputs.replace(bank=None)
  with jax.set_mesh(mesh):
    state, metrics = window(state, inputs)
  # The first probing round is due after 5 of the window's 10 steps.
  np.testing.assert_array_equal(metrics['ran'], [True] * 5 + [False] * 5)
  assert bool(state.gate.needs_scores)
  with loop.StopRequest() as stop, jax.set_mesh(mesh):
    stop.signal_name = 'SIGTERM'
    kept, _ = loop.run(
      window, state, inputs, supply=None, grade=None, observe=None,
      save=lambda state, inputs: None, stop=stop,
    )  # fmt: skip
  assert int(kept.step) == 5 and bool(kept.gate.needs_scores)
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
  state = setup.make_state(adapters, tx, DIAGNOSIS, NAMES, inputs.plan, mesh)
  window = step_lib.Window(
    step_lib.Program(CONFIG, tx, batch_rows=8, lora=SPEC), num_steps=10,
    state_shardings=sharding.state_shardings(mesh, state),
    metric_sharding=sharding.replicated(mesh),
  )  # fmt: skip
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
    state = setup.make_state(adapters, tx, DIAGNOSIS, NAMES, inputs.plan, mesh)
    window = step_lib.Window(
      step_lib.Program(CONFIG, tx, batch_rows=8, lora=spec), num_steps=4
    )
    with jax.set_mesh(mesh):
      state, _ = window(
        state, inputs.replace(base=jax.tree.map(jnp.asarray, base),
                              seed=np.uint32(seed)),
      )  # fmt: skip
    return jax.device_get(state.params)

  one, same, other = train(3), train(3), train(4)
  test_step.assert_equal(one, same)
  assert not np.array_equal(one['q_proj']['b'], other['q_proj']['b'])


def test_settle_is_decide_and_the_wait_for_lessons():
  plan = jax.device_get(test_step.make()[2].plan)
  gate = gate_lib.init(plan, np.zeros(3), np.full(3, 6))
  gate = gate.replace(needs_scores=jnp.bool_(True))
  right, asked = np.asarray([6, 0, 0]), np.asarray([6, 0, 0])
  settled, decision = gate_lib.settle(
    gate, plan, right, asked, np.asarray([5, 0, 5])
  )
  assert int(decision) == gate_lib.ADVANCE and int(settled.stage) == 1
  assert not bool(settled.needs_scores)
  assert bool(settled.needs_data)  # 'next' has no lesson yet.
