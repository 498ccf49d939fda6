"""Learning a teacher's distributions in the one step: exact, and as data."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ioa_jax.models import decoder, lora
from ioa_jax.records import Progress
from ioa_jax.runtime import sharding
from ioa_jax.training import checkpoint, distillation, losses, packing
from ioa_jax.training import curriculum as curriculum_lib
from ioa_jax.training import step as step_lib
from ioa_jax.training import trainer as trainer_lib
from ioa_jax.training.trainer import Trainer
from tests import test_step
from tests.test_step import CONFIG, NAMES, L, examples

K = 4
OBJECTIVE = distillation.make_objective(
  divergence='forward_kl',
  beta=0.5,
  weight=1.0,
  temperature=1.0,
  on_policy_share=0.5,
)


@functools.cache
def teacher(seed=9):
  """Peaked enough to be worth learning from."""
  params = decoder.init(CONFIG, jax.random.key(seed))
  return params | {'embedding': 3 * params['embedding']}


@functools.cache
def scorer():
  return distillation.Scorer(CONFIG, teacher(), k=K, batch_rows=4)


_windows = {}


def with_lessons(inputs, texts, mesh, score=None):
  trainer = Trainer(None, None, inputs, NAMES, mesh, score or scorer())
  trainer.add_lessons(texts)
  return trainer.inputs


def with_on_policy(inputs, texts, mesh, score=None):
  trainer = Trainer(None, None, inputs, NAMES, mesh, score or scorer())
  trainer.replace_on_policy(texts)
  return trainer.inputs


def make(*, weight=1.0, devices=1, axes=None, fill=NAMES, **settings):
  """`test_step.make` with rows that the teacher has scored."""
  _, state, inputs, mesh, schedule = test_step.make(
    devices=devices, axes=axes, fill=(), **settings
  )
  empty = curriculum_lib.allocate([20] * 3, L, devices, top_k=K)
  inputs = inputs.replace(
    **trainer_lib.place({'curriculum': empty}, mesh),
    distillation=OBJECTIVE.replace(weight=np.float32(weight)),
  )
  inputs = with_lessons(inputs, {n: examples(n) for n in fill}, mesh)
  layout = str(axes or devices)
  if layout not in _windows:
    _windows[layout] = test_step.new_window(mesh, state)
  return _windows[layout], state, inputs, mesh, schedule


def test_without_weight_it_is_plain_training_bit_for_bit():
  short = dict(max_steps=10, total_steps=40)
  plain, _, want = test_step.run(test_step.make(**short))
  parts = make(weight=0.0, **short)
  got, _, metrics = test_step.run(parts)
  test_step.assert_equal(jax.device_get(got), jax.device_get(plain))
  test_step.assert_equal(metrics, want)
  assert parts[0].compilations == 1
  other, *_ = test_step.run(make(weight=0.1, **short))
  embedding = lambda state: np.asarray(state.params['embedding'])
  assert (embedding(other) != embedding(plain)).any()


def test_a_student_that_is_the_teacher_has_nothing_to_learn():
  _, state, inputs, mesh, _ = make()
  # As they were before they were rounded to bfloat16.
  rows = jax.device_get(inputs.curriculum.rows)
  hidden = decoder.forward(
    CONFIG, teacher(), rows['token'], rows['segment'], rows['position']
  )
  exact = distillation.top_k(decoder.unembed(CONFIG, teacher(), hidden), K)
  rows |= dict(zip(packing.TEACHER_FIELDS, exact))
  curriculum = inputs.curriculum.replace(rows=rows)
  inputs = inputs.replace(**trainer_lib.place({'curriculum': curriculum}, mesh))
  program = step_lib.Program(
    CONFIG, test_step.optimizer_and_schedule()[0], batch_rows=8
  )
  step = jax.jit(functools.partial(step_lib.train_step, program))
  found = {}
  for name, params in {'itself': teacher(), 'other': teacher(8)}.items():
    with jax.set_mesh(mesh):
      _, metrics = step(state.replace(params=params), inputs)
    found[name] = (
      float(metrics['loss_sum'] / metrics['loss_count']),
      float(metrics['grad_norm']),
    )
  assert abs(found['itself'][0]) < 1e-6 and found['itself'][1] < 1e-5
  assert min(found['other']) > 0.1


@pytest.mark.parametrize('piece', [L, 4])
def test_what_is_stored_is_a_direct_pass_of_the_teacher(monkeypatch, piece):
  """Packed or alone, in pieces or whole: each text has one distribution."""
  monkeypatch.setattr(losses, '_MAX_ROW_LOGITS', piece * CONFIG.vocab_size)
  every = [e for n in NAMES for e in examples(n)]
  rows = packing.pack(every, L)
  assert rows['segment'].max() > 1
  score = distillation.Scorer(CONFIG, teacher(), k=K, batch_rows=3)
  scored = score(rows)
  assert score.compilations == 1 and len(rows['token']) % 3
  assert {str(scored[f].dtype) for f in packing.TEACHER_FIELDS} == {
    'int32',
    'bfloat16',
  }

  @jax.jit
  def alone(token):
    l = token.shape[1]
    hidden = decoder.forward(
      CONFIG, teacher(), token, jnp.ones((1, l), int), jnp.arange(l)[None]
    )
    return jax.nn.log_softmax(decoder.unembed(CONFIG, teacher(), hidden))[0]

  seen = 0
  for r, text in zip(*np.nonzero(_starts(rows))):
    end = text
    while end < L and rows['segment'][r, end] == rows['segment'][r, text]:
      end += 1
    log_probs = np.asarray(alone(rows['token'][r : r + 1, text:end]))
    order = np.argsort(-log_probs, axis=-1)[:, :K]
    np.testing.assert_array_equal(scored['teacher_token'][r, text:end], order)
    np.testing.assert_allclose(
      scored['teacher_log_prob'][r, text:end].astype(np.float32),
      np.take_along_axis(log_probs, order, axis=-1),
      rtol=2**-8,
      atol=1e-6,
    )
    seen += 1
  assert seen == len(every)


def _starts(rows):
  return (rows['segment'] > 0) & (rows['position'] == 0)


def test_one_trace_with_lessons_that_come_later():
  parts = make(max_steps=10, fill=('copy',), rounds=1)
  score = distillation.Scorer(CONFIG, teacher(), k=K, batch_rows=4)

  def supply(trainer):
    names = ['copy'] if trainer.stage == 0 else ['next', 'last']
    new = {n: examples(n)[:5] for n in names}
    trainer.inputs = with_lessons(trainer.inputs, new, parts[3], score)

  state, inputs, metrics = test_step.run(parts, supply=supply)
  assert parts[0].compilations == score.compilations == 1
  assert int(state.step) == 200 and (metrics['drawn_K'].sum(axis=0) > 0).all()
  # Every row that was filled has been scored, and no other.
  scored = np.asarray(inputs.curriculum.rows['teacher_log_prob']) != 0
  filled = np.asarray(inputs.curriculum.rows['segment']).any(axis=1)
  np.testing.assert_array_equal(scored.any(axis=(1, 2)), filled)


def test_the_student_comes_to_think_like_the_teacher():
  _, _, metrics = test_step.run(make(total_steps=400, max_steps=400, rounds=0))
  loss = metrics['loss_sum'] / np.maximum(metrics['loss_count'], 1)
  assert 0 < loss[-10:].mean() < 0.2 * loss[:10].mean()


def test_a_resumed_run_is_the_unbroken_one_and_asks_nobody(tmp_path):
  whole, *_ = test_step.run(make(weight=0.5, max_steps=10))
  window, state, inputs, mesh, schedule = make(weight=0.5, max_steps=10)
  kept = checkpoint.Checkpoints(tmp_path / 'c', keep=1)
  with jax.set_mesh(mesh):
    for _ in range(3):
      state, _ = window(state, inputs)
  kept.save(state, inputs, Progress())
  kept.close()
  # A new start: empty slabs, no teacher.
  _, fresh, empty, mesh, _ = make(weight=0.5, max_steps=10, fill=())
  kept = checkpoint.Checkpoints(tmp_path / 'c', keep=1)
  with jax.set_mesh(mesh):
    state, restored, _ = kept.restore(fresh, empty, print)
  kept.close()
  test_step.assert_equal(
    jax.device_get(restored.curriculum), jax.device_get(inputs.curriculum)
  )
  got, *_ = test_step.run((window, state, restored, mesh, schedule))
  test_step.assert_equal(jax.device_get(got), jax.device_get(whole))
  assert window.compilations == 1


@pytest.mark.slow
def test_the_same_losses_on_a_mesh():
  _, _, one = test_step.run(make(total_steps=20))
  axes = {'data': 2, 'tensor': 2}
  parts = make(devices=4, axes=axes, total_steps=20)
  rows = parts[2].curriculum.rows['teacher_token']
  assert rows.sharding.shard_shape(rows.shape)[0] == len(rows) // 2
  _, _, many = test_step.run(parts)
  np.testing.assert_allclose(many['loss_sum'], one['loss_sum'], rtol=2e-4)
  assert parts[0].compilations == 1


@pytest.mark.slow
def test_adapters_learn_it_in_parts_of_a_batch():
  """Parts make the step of the whole, and an adapter of 0 is the base."""
  spec = lora.LoraSpec(rank=2, alpha=8.0, dropout=0.0)
  _, state, inputs, mesh, _ = make()
  tx, _ = test_step.optimizer_and_schedule()
  found = {}
  for parts in (1, 4):
    program = step_lib.Program(
      CONFIG, tx, batch_rows=8, microbatches=parts, lora=spec
    )
    window = step_lib.Window(program, num_steps=20)
    for base in (teacher(), teacher(8)):
      adapters = lora.init(spec, base, jax.random.key(1))
      start = step_lib.init(adapters, tx, jax.tree.map(jnp.array, state.gate))
      start = jax.device_put(start, sharding.replicated(mesh))
      with jax.set_mesh(mesh):
        _, metrics = window(start, inputs.replace(base=base))
      found[base is teacher(), parts] = np.asarray(
        metrics['loss_sum'] / metrics['loss_count']
      )
  # What is left is the rounding of the stored log-probabilities.
  assert 0 <= found[True, 1][0] < 1e-4 < 0.1 < found[False, 1][0]
  assert found[False, 1][-5:].mean() < 0.9 * found[False, 1][:5].mean()
  np.testing.assert_allclose(found[False, 4], found[False, 1], rtol=1e-4)


def on_policy(share, **settings):
  """`make` with empty slabs for the student's own texts."""
  _, state, inputs, mesh, schedule = make(**settings)
  own = curriculum_lib.allocate([6] * 3, L, 1, top_k=K)
  curriculum = inputs.curriculum.replace(on_policy=own)
  inputs = inputs.replace(
    **trainer_lib.place({'curriculum': curriculum}, mesh),
    distillation=inputs.distillation.replace(on_policy_share=np.float32(share)),
  )
  state = state.replace(on_policy_cursor_K=jnp.zeros_like(state.cursor_K))
  if 'own' not in _windows:
    _windows['own'] = test_step.new_window(mesh, state)
  return _windows['own'], state, inputs, mesh, schedule


def own_texts(value):
  """Texts that no lesson is like; the value tells which round wrote them."""
  return {n: [packing.Example([2, 2, value], [15, 15])] * 6 for n in NAMES}


def test_own_texts_take_their_share_and_only_their_divergence_counts():
  """Lessons weigh nothing here, so every loss is of the own texts."""
  window, state, inputs, mesh, _ = on_policy(0.5, weight=0.0)
  cursor, found = [], []
  with jax.set_mesh(mesh):
    before, metrics = window(jax.tree.map(jnp.array, state), inputs)
    assert int(before.on_policy_cursor_K.sum()) == 0  # There are none yet.
    for value in (4, 5):
      score = distillation.Scorer(CONFIG, teacher(), k=K, batch_rows=4)
      new = with_on_policy(inputs, own_texts(value), mesh, score)
      after, metrics = window(jax.tree.map(jnp.array, state), new)
      cursor.append(
        (int(after.cursor_K.sum()), int(after.on_policy_cursor_K.sum()))
      )
      found.append(np.asarray(metrics['loss_sum'] / metrics['loss_count']))
    # The same with the own texts' targets changed: nobody learns those.
    rows = jax.device_get(new.curriculum.on_policy.rows)
    rows['target'] = 15 - rows['target']
    own = new.curriculum.on_policy.replace(rows=rows)
    curriculum = new.curriculum.replace(on_policy=own)
    new = new.replace(**trainer_lib.place({'curriculum': curriculum}, mesh))
    _, metrics = window(jax.tree.map(jnp.array, state), new)
  assert cursor == [(40, 40)] * 2  # Ten steps of eight rows.
  np.testing.assert_array_equal(
    metrics['loss_sum'] / metrics['loss_count'], found[1]
  )
  # The first step is a lesson's in both rounds, the second is not.
  assert found[0][0] == found[1][0] and found[0][1] != found[1][1]
  assert window.compilations == 1


def test_with_all_steps_its_own_no_lesson_is_drawn():
  window, state, inputs, mesh, _ = on_policy(1.0)
  with jax.set_mesh(mesh):
    inputs = with_on_policy(inputs, own_texts(4), mesh)
    state, _ = window(state, inputs)
  assert int(state.cursor_K.sum()) == 0
  assert int(state.on_policy_cursor_K.sum()) == 80
