"""Logical axes to mesh axes: one table, and the constraints made from it.

Mesh axes: `data` (rows of a batch), `fsdp` (rows too, and parameters split),
`sequence` (the tokens of a row too long for one device, and parameters), and
`tensor` (heads, feed-forward, vocabulary). Model code names logical axes only.
"""

from __future__ import annotations

import math
import re

import jax
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding, PartitionSpec
import numpy as np

MESH_AXES = ('data', 'fsdp', 'sequence', 'tensor')

RULES: dict[str | None, str | tuple[str, ...] | None] = {
  'batch': ('data', 'fsdp'),
  'length': 'sequence',
  'embed': None,  # Of activations; parameters split it as 'width'.
  'width': ('fsdp', 'sequence'),
  'heads': 'tensor',
  'mlp': 'tensor',
  'vocab': 'tensor',
  'layers': None,
  None: None,
}

# The last part of a parameter's path decides; the first match counts.
_PARAM_AXES: tuple[tuple[str, tuple[str | None, ...]], ...] = (
  (r'embedding$', ('vocab', 'width')),
  (r'lm_head/kernel$', ('width', 'vocab')),
  # Of quantised kernels (`models.quantised`) scales are few by input.
  (r'[qkv]_proj/kernel/scale$', ('layers', None, 'heads')),
  (r'o_proj/kernel/scale$', ('layers', None, 'width')),
  (r'(gate|up)_proj/kernel/scale$', ('layers', None, 'mlp')),
  (r'down_proj/kernel/scale$', ('layers', None, 'width')),
  (r'[qkv]_proj/kernel(/qvalue)?$', ('layers', 'width', 'heads')),
  (r'[qkv]_proj/bias$', ('layers', 'heads')),
  (r'o_proj/kernel(/qvalue)?$', ('layers', 'heads', 'width')),
  (r'(gate|up)_proj/kernel(/qvalue)?$', ('layers', 'width', 'mlp')),
  (r'down_proj/kernel(/qvalue)?$', ('layers', 'mlp', 'width')),
  (r'(q|k|v)_proj/a$', ('layers', 'width', None)),
  (r'(q|k|v)_proj/b$', ('layers', None, 'heads')),
  (r'o_proj/a$', ('layers', 'heads', None)),
  (r'o_proj/b$', ('layers', None, 'width')),
  (r'(gate|up)_proj/a$', ('layers', 'width', None)),
  (r'(gate|up)_proj/b$', ('layers', None, 'mlp')),
  (r'down_proj/a$', ('layers', 'mlp', None)),
  (r'down_proj/b$', ('layers', None, 'width')),
  (r'layers/\w+_norm/scale$', ('layers', None)),
  (r'final_norm/scale$', (None,)),
)


def join(
  coordinator: str | None = None,
  num_processes: int | None = None,
  process: int | None = None,
) -> None:
  """Joins the processes of a run; before anything asks for a device.

  Args:
    coordinator: 'host:port' of process 0. None lets JAX find all three in the
      environment of a TPU pod, SLURM or Open MPI.

  Raises:
    ValueError: if the others cannot be found.
  """
  # On CPU, XLA itself moves nothing between processes.
  jax.config.update('jax_cpu_collectives_implementation', 'gloo')
  # It would take SIGTERM from this process; `signals.StopRequest` handles it.
  jax.config.update('jax_enable_preemption_service', False)
  try:
    jax.distributed.initialize(coordinator, num_processes, process)
  except (RuntimeError, ValueError) as e:
    raise ValueError(
      f'the processes of this run cannot be joined ({e}). Outside of a TPU '
      'pod, SLURM or Open MPI, give each --coordinator=HOST:PORT, '
      '--num_processes and its own --process.'
    ) from None


def make_mesh(
  *,
  data: int = -1,
  fsdp: int = 1,
  sequence: int = 1,
  tensor: int = 1,
  devices=None,
) -> Mesh:
  """A mesh over `devices` (all by default); one axis may be -1: what is left.

  Raises:
    ValueError: if the axes do not multiply to the number of devices.
  """
  devices = np.asarray(jax.devices() if devices is None else devices)
  sizes = [data, fsdp, sequence, tensor]
  known = math.prod(n for n in sizes if n != -1)
  if sizes.count(-1) == 1 and devices.size % known == 0:
    sizes[sizes.index(-1)] = devices.size // known
  if math.prod(sizes) != devices.size or -1 in sizes:
    raise ValueError(
      f'mesh data={data} x fsdp={fsdp} x sequence={sequence} x tensor={tensor} '
      'does not cover '
      f'{devices.size} devices; their product must be the number of devices, '
      'and at most one of them -1.'
    )
  return Mesh(devices.reshape(sizes), MESH_AXES)


def num_row_shards(mesh: Mesh) -> int:
  """Over how many devices the rows of a batch are split."""
  return _num_shards(mesh, RULES['batch'])


def num_sequence_shards() -> int:
  """Over how many devices the tokens of a row are split; 1 without a mesh."""
  mesh = jax.sharding.get_abstract_mesh()
  return 1 if mesh.empty else _num_shards(mesh, RULES['length'])


def spec(axes: tuple[str | None, ...]) -> PartitionSpec:
  return PartitionSpec(*(RULES[a] for a in axes))


def constrain(x: jax.Array, axes: tuple[str | None, ...]) -> jax.Array:
  """Pins an activation's layout under the mesh in scope; else leaves it.

  The mesh comes from `jax.set_mesh`, so code that runs without one (a notebook,
  a unit test) is the same code. Constraints apply on CPU as well. A dimension
  that the mesh does not divide (9 heads over 2 devices) is left whole.
  """
  mesh = jax.sharding.get_abstract_mesh()
  if mesh.empty:
    return x
  return jax.lax.with_sharding_constraint(x, fitting_spec(mesh, x.shape, axes))


def fitting_spec(
  mesh, shape: tuple[int, ...], axes: tuple[str | None, ...]
) -> PartitionSpec:
  """`spec`, with dimensions that the mesh does not divide left whole."""
  return PartitionSpec(
    *(
      None if size % _num_shards(mesh, name) else name
      for size, name in zip(shape, spec(axes), strict=True)
    )
  )


def platform() -> str:
  """'cpu', 'gpu' or 'tpu': of the mesh in scope, else JAX's default."""
  mesh = jax.sharding.get_abstract_mesh()
  if mesh.empty:
    return jax.default_backend()
  return mesh.abstract_device.platform


def _num_shards(mesh, name: str | tuple[str, ...] | None) -> int:
  names = name if isinstance(name, tuple) else (name,) if name else ()
  return math.prod(mesh.shape[n] for n in names)


def _path(key_path) -> str:
  return '/'.join(
    str(getattr(k, 'key', getattr(k, 'name', getattr(k, 'idx', k))))
    for k in key_path
  )


def param_axes(params) -> dict:
  """The logical axes of every parameter, a tree like `params`.

  Raises:
    ValueError: for a parameter that no rule names: a silent replica of a large
      tensor is the kind of mistake that shows only as out-of-memory.
  """

  def axes(key_path, x):
    path = _path(key_path)
    for pattern, names in _PARAM_AXES:
      if re.search(pattern, path):
        if len(names) != x.ndim:
          raise ValueError(f'{path}: rank {x.ndim}, the table has {names}.')
        return names
    raise ValueError(f'{path}: no sharding rule; add one to _PARAM_AXES.')

  return jax.tree_util.tree_map_with_path(axes, params)


def param_shardings(mesh: Mesh, params):
  """NamedSharding for every parameter (or its shape) by the table.

  Raises:
    ValueError: if an axis of the mesh does not divide a parameter.
  """
  return jax.tree_util.tree_map_with_path(
    lambda key_path, x, axes: _named(mesh, _path(key_path), x, axes),
    params,
    param_axes(params),
  )


def _named(mesh, path, x, axes) -> NamedSharding:
  for dim, name in enumerate(spec(axes)):
    if np.shape(x)[dim] % _num_shards(mesh, name):
      raise ValueError(
        f'{path}: dimension {dim} of {np.shape(x)} does not divide over mesh '
        f'axis {name!r} of {_num_shards(mesh, name)} devices; choose a mesh '
        'whose axes divide it.'
      )
  return NamedSharding(mesh, spec(axes))


def fetch(tree):
  """Global arrays as whole NumPy arrays; every process of the run must call."""
  if jax.process_count() == 1:
    return jax.device_get(tree)
  return multihost_utils.process_allgather(tree, tiled=True)


def replicated(mesh: Mesh) -> NamedSharding:
  return NamedSharding(mesh, PartitionSpec())


def state_shardings(mesh: Mesh, state):
  """Shardings of a train state: whatever mirrors a parameter lies like it.

  Moments and averages end in the path of their parameter, so the same table
  places them; counters and the gate are replicated.
  """

  def one(key_path, x):
    path = _path(key_path)
    for pattern, names in _PARAM_AXES:
      if re.search(pattern, path) and len(names) == np.ndim(x):
        return _named(mesh, path, x, names)
    return replicated(mesh)

  return jax.tree_util.tree_map_with_path(one, state)


def input_shardings(mesh: Mesh, inputs):
  """Shardings of what a step reads: lessons by row, the rest replicated.

  Raises:
    ValueError: if the rows do not divide over the devices.
  """

  def one(key_path, x):
    path = _path(key_path)
    if re.search(r'curriculum/(on_policy/)?rows/', path):
      return _named(mesh, path, x, ('batch', 'length'))
    return replicated(mesh)

  return jax.tree_util.tree_map_with_path(one, inputs)
