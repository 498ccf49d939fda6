"""The mesh and what lies where on it; training on meshes is in test_step."""

import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ioa_jax import config as config_lib
from ioa_jax.baselines import methods
from ioa_jax.models import decoder
from ioa_jax.phases import training
from ioa_jax.runtime import sharding
from ioa_jax.training import curriculum


@pytest.mark.parametrize(
  ('axes', 'shape'),
  [
    ({}, (4, 1, 1, 1)),
    ({'fsdp': 2}, (2, 2, 1, 1)),
    ({'data': 1, 'fsdp': -1}, (1, 4, 1, 1)),
    ({'data': 1, 'fsdp': 2, 'tensor': -1}, (1, 2, 1, 2)),
    ({'sequence': 2, 'tensor': 2}, (1, 1, 2, 2)),
  ],
)
def test_one_axis_takes_what_is_left(axes, shape):
  mesh = sharding.make_mesh(**axes, devices=jax.devices()[:4])
  assert tuple(mesh.shape.values()) == shape


@pytest.mark.parametrize(
  'axes', [{'fsdp': 3}, {'data': 2}, {'fsdp': -1}, {'data': 1, 'tensor': 8}]
)
def test_a_mesh_that_does_not_cover_the_devices_is_refused(axes):
  with pytest.raises(ValueError, match='does not cover 4 devices'):
    sharding.make_mesh(**axes, devices=jax.devices()[:4])


def test_lessons_are_split_by_row_and_nothing_else_is():
  mesh = sharding.make_mesh(data=2, fsdp=2, devices=jax.devices()[:4])
  assert sharding.num_row_shards(mesh) == 4
  lessons = curriculum.allocate([5, 4], 8, multiple_of=4)
  assert len(lessons.rows['token']) == 12
  inputs = {'curriculum': lessons, 'seed': jnp.uint32(0)}
  placed = jax.device_put(inputs, sharding.input_shardings(mesh, inputs))
  shards = placed['curriculum'].rows['token'].addressable_shards
  assert {s.data.shape for s in shards} == {(3, 8)}
  assert placed['curriculum'].count_K.sharding.is_fully_replicated
  odd = {'curriculum': curriculum.allocate([5, 4], 8)}
  with pytest.raises(ValueError, match='curriculum.rows.position: dimension'):
    sharding.input_shardings(mesh, odd)


def test_a_parameter_without_a_rule_is_refused():
  with pytest.raises(ValueError, match='layers/gate/kernel: no sharding rule'):
    sharding.param_axes({'layers': {'gate': {'kernel': jnp.zeros((1, 2, 3))}}})


def test_every_parameter_of_a_model_has_a_place():
  config = decoder.DecoderConfig(
    vocab_size=16,
    width=8,
    num_layers=2,
    num_heads=2,
    num_kv_heads=2,
    head_width=4,
    mlp_width=8,
    architecture='qwen2',
    tie_embeddings=False,
  )
  params = decoder.abstract_params(config)
  mesh = sharding.make_mesh(data=1, fsdp=2, tensor=2, devices=jax.devices()[:4])
  placed = sharding.param_shardings(mesh, params)
  assert jax.tree.structure(placed) == jax.tree.structure(params)


@pytest.mark.parametrize('on_policy', [False, True])
@pytest.mark.parametrize('num_modules', [1, 7, 12])
def test_lessons_have_one_shape_on_all_devices(num_modules, on_policy):
  """Else a checkpoint could not be taken up on another number of them."""
  config = config_lib.get({'adapter.seeds_per_module': 3})
  shapes = set()
  for devices in (1, 2, 4):
    run = types.SimpleNamespace(
      config=config,
      settled=types.SimpleNamespace(
        distillation={
          'on_policy_every_steps': 3,
          'on_policy_share': 0.5,
          'top_k': 2,
        }
      ),
      names=['m'] * num_modules,
      method=methods.METHODS['ioa'],
      mesh=sharding.make_mesh(devices=jax.devices()[:devices]),
      subject=types.SimpleNamespace(one_vocabulary=True),
    )
    slabs = training._empty_curriculum(run, scored=True, writes=on_policy)
    shapes.add(str(jax.tree.map(np.shape, slabs)))
  assert len(shapes) == 1
