"""When the student's own texts are written, and of which modules."""

import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ioa_jax import config as config_lib
from ioa_jax.baselines import methods
from ioa_jax.phases import on_policy
from ioa_jax.training import packing
from ioa_jax.training.trainer import Trainer
from tests import test_distilled_step
from tests.test_pipeline import load_config
from tests.test_step import NAMES

EVERY = 10
ABOVE = 0.6


class _Student:
  """Writes two tokens to each prompt."""

  def __init__(self):
    self.codec = None

  def texts(self, params, prompts, seeds):
    del params, seeds
    return [packing.Example(prompt, [4, 15]) for prompt in prompts]


def make_run(schedule):
  made = lambda lesson, codec, answers: [packing.Example([2, 3], [15])]
  return types.SimpleNamespace(
    config=types.SimpleNamespace(seed=1),
    settled=types.SimpleNamespace(
      distillation={
        'on_policy_every_steps': EVERY,
        'schedule': schedule,
        'on_policy_above': ABOVE,
      }
    ),
    names=list(NAMES),
    student=_Student(),
    method=types.SimpleNamespace(examples=made),
    subject=types.SimpleNamespace(answers=None),
  )


LESSONS = [types.SimpleNamespace(module=name) for name in NAMES]


@pytest.fixture(scope='module')
def parts():
  return test_distilled_step.on_policy(0.5)


def make_trainer(parts):
  window, state, inputs, mesh, _ = parts
  state = jax.tree.map(jnp.array, state)
  score = test_distilled_step.scorer()
  return Trainer(window, state, inputs, NAMES, mesh, score)


def put(trainer, step=30, stage=0, round=0, right=(0, 0, 0)):
  """Each module was asked eight questions, which the teacher answers."""
  gate = trainer.state.gate
  gate = gate.replace(
    stage=jnp.asarray(stage, gate.stage.dtype),
    round=jnp.asarray(round, gate.round.dtype),
    correct_K=jnp.asarray(right, gate.correct_K.dtype),
    probed_K=jnp.full_like(gate.probed_K, 8),
  )
  trainer.state = trainer.state.replace(gate=gate, step=jnp.int32(step))


def held(trainer):
  count_K = np.asarray(trainer.inputs.curriculum.on_policy.count_K)
  return [name for name, count in zip(NAMES, count_K) if count]


# copy is the first stage, next and last the second.
EVERYONE = list(NAMES)
CASES = [
  ('mixed', {}, EVERYONE),
  ('mixed', {'stage': 1}, EVERYONE),
  ('mixed', {'step': 9}, []),
  ('after', {}, []),
  ('after', {'right': (4, 8, 8)}, []),
  ('after', {'right': (5, 0, 0)}, EVERYONE),
  ('after', {'right': (5, 0, 0), 'step': 9}, []),
  ('after', {'stage': 1, 'right': (0, 8, 4)}, []),
  ('after', {'stage': 1, 'right': (0, 8, 5)}, EVERYONE),
  ('remedial', {}, []),
  ('remedial', {'round': 1}, ['copy']),
  ('remedial', {'round': 1, 'right': (8, 0, 0)}, []),
  ('remedial', {'stage': 1, 'right': (8, 8, 0)}, []),
  ('remedial', {'stage': 1, 'round': 2, 'right': (0, 8, 0)}, ['last']),
  ('remedial', {'stage': 1, 'round': 1, 'step': 9}, []),
]


@pytest.mark.parametrize('schedule,where,wanted', CASES)
def test_of_which_modules_texts_are_written(parts, schedule, where, wanted):
  trainer = make_trainer(parts)
  put(trainer, **where)
  event = on_policy.update(make_run(schedule), trainer, LESSONS, 0)
  assert held(trainer) == wanted
  assert (event is None) == (not wanted)
  if wanted:
    # As many of each as its slab holds.
    assert event.texts == 6 * len(wanted)
    assert event.step == where.get('step', 30)


def test_without_texts_nothing_is_decided(parts):
  run = make_run('mixed')
  run.settled.distillation['on_policy_every_steps'] = 0
  assert on_policy.update(run, None, LESSONS, 0) is None


def test_they_end_with_what_they_were_for_and_nothing_retraces(parts):
  trainer = make_trainer(parts)
  run = make_run('remedial')
  drawn = lambda: int(trainer.state.on_policy_cursor_K.sum())
  with jax.set_mesh(parts[3]):
    trainer.window()
    assert drawn() == 0
    put(trainer, stage=1, round=1, right=(8, 8, 0))
    assert on_policy.update(run, trainer, LESSONS, 0) is not None
    trainer.window()
    # Half of ten steps of eight rows, all of the module that failed.
    assert trainer.state.on_policy_cursor_K.tolist() == [0, 0, 40]
    put(trainer, stage=1, round=1, right=(8, 8, 0))
    # Too soon for others; those that there are stay.
    assert on_policy.update(run, trainer, LESSONS, 25) is None
    assert held(trainer) == ['last']
    put(trainer, stage=2)
    assert on_policy.update(run, trainer, LESSONS, 0) is None
    assert held(trainer) == []
    trainer.window()
  assert drawn() == 40 and trainer.compilations == 1


@pytest.mark.parametrize(
  'changes,message',
  [
    ({'distillation.schedule': 'late'}, "schedule is 'late', wanted one of"),
    (
      {'distillation.schedule': 'after'},
      "schedule is 'after' and the student writes no texts; set .*every_steps",
    ),
    ({'distillation.on_policy_above': 1.5}, 'on_policy_above is 1.5, wanted'),
  ],
)
def test_a_schedule_that_cannot_be_is_one_line(changes, message):
  with pytest.raises(config_lib.ConfigError, match=message):
    config_lib.validate(load_config('quickstart', changes))


@pytest.mark.parametrize(
  'method,most,goes',
  [
    ('ioa', 2, True),
    ('ioa', 0, False),
    ('on_policy_distillation', 2, False),
  ],
)
def test_remedies_need_remedial_rounds(method, most, goes):
  run = make_run('remedial')
  run.method = methods.METHODS[method]
  run.config.method = method
  run.config.gate = types.SimpleNamespace(max_rounds=most)
  if goes:
    on_policy.require(run)
    return
  with pytest.raises(
    ValueError, match=f"'{method}' and .*max_rounds {most} th"
  ):
    on_policy.require(run)
