"""Parameters in Orbax's format: alone, or out of a run's checkpoints."""

from __future__ import annotations

import pathlib
from typing import Any

import jax
import orbax.checkpoint as ocp

from ioa_jax.models import decoder, huggingface, weights

ModelError = weights.ModelError

# A directory of parameters alone: the weights, and beside them the small files
# (config, tokenizer, template) that a Hugging Face directory needs again.
PARAMS, MODEL = 'params', 'model'


def save(
  directory: str | pathlib.Path,
  config: decoder.DecoderConfig,
  params: decoder.Params,
  *,
  source: str | pathlib.Path,
) -> None:
  """Writes parameters, and the small files of the model directory `source`."""
  directory = pathlib.Path(directory).absolute()
  directory.mkdir(parents=True, exist_ok=True)
  if any(directory.iterdir()):
    raise ModelError(f'{directory}: not empty; choose a new directory.')
  dtype = jax.tree.leaves(params)[0].dtype.name
  huggingface.save_small_files(
    directory / MODEL, config, dtype=dtype, source=source
  )
  with ocp.StandardCheckpointer() as checkpointer:
    checkpointer.save(directory / PARAMS, params)


def is_alone(directory: str | pathlib.Path) -> bool:
  """Whether `directory` is one of `save`'s."""
  return (pathlib.Path(directory) / PARAMS).is_dir()


def is_checkpoint(directory: str | pathlib.Path) -> bool:
  """Whether `directory` is one of `save`'s, a run, or a run's checkpoints."""
  directory = pathlib.Path(directory)
  return is_alone(directory) or _steps(directory) != {}


def load(
  directory: str | pathlib.Path,
  config: decoder.DecoderConfig,
  *,
  step: int | None = None,
  field: str = 'average',
  dtype: str | None = None,
  shardings: Any = None,
) -> decoder.Params:
  """Reads the parameters of `config`.

  Args:
    step: of a run's checkpoints; None takes the newest.
    field: of a run's train state, `average` (what is exported) or `params`.
    dtype: None is the one they were saved in.
    shardings: of each parameter; None is the first local device.

  Raises:
    ModelError: if there is none, or it holds another model.
  """
  directory = pathlib.Path(directory).absolute()
  if is_alone(directory):
    return _restore(directory / PARAMS, config, None, dtype, shardings)
  steps = _steps(directory)
  if not steps:
    raise ModelError(
      f'{directory}: neither a checkpoint made by convert_checkpoint nor a run '
      'directory with checkpoints.'
    )
  if step is None:
    step = max(steps)
  if step not in steps:
    raise ModelError(
      f'{directory}: no checkpoint of step {step}; there are {sorted(steps)}.'
    )
  return _restore(steps[step] / 'state', config, field, dtype, shardings)


def _steps(directory: pathlib.Path) -> dict[int, pathlib.Path]:
  for root in (directory / 'checkpoints', directory):
    if root.is_dir():
      steps = {
        int(p.name): p
        for p in root.iterdir()
        if p.name.isdigit() and (p / 'state').is_dir()
      }
      if steps:
        return steps
  return {}


def _restore(path, config, field, dtype, shardings) -> decoder.Params:
  checkpointer = ocp.PyTreeCheckpointer()
  try:
    saved: Any = checkpointer.metadata(path).item_metadata.tree
    saved = saved if field is None else saved[field]
    got = {p: tuple(x.shape) for p, x in _paths(saved).items()}
  except Exception as e:  # Orbax and what it stands on fail in many types.
    raise _unreadable(path, e) from None
  abstract = decoder.abstract_params(config)
  wanted = {p: x.shape for p, x in _paths(abstract).items()}
  for key in sorted(wanted.keys() | got.keys()):
    if wanted.get(key) != got.get(key):
      raise ModelError(
        f'{path}: parameter {key} has shape {got.get(key)}, config.json asks '
        f'for {wanted.get(key)}; name the right model directory.'
      )
  if shardings is None:
    first = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    shardings = jax.tree.map(lambda x: first, abstract)
  target = jax.tree.map(
    lambda x, m, s: jax.ShapeDtypeStruct(x.shape, dtype or m.dtype, sharding=s),
    abstract,
    saved,
    shardings,
  )
  if field is not None:
    target = {field: target}
  try:
    restored = checkpointer.restore(
      path,
      args=ocp.args.PyTreeRestore(
        item=target,
        restore_args=ocp.checkpoint_utils.construct_restore_args(target),
        partial_restore=True,
      ),
    )
  except Exception as e:
    raise _unreadable(path, e) from None
  return restored if field is None else restored[field]


def _unreadable(path: pathlib.Path, e: Exception) -> ModelError:
  return ModelError(
    f'{path}: not a readable Orbax checkpoint of parameters '
    f'({weights.reason(e)}); copy it again.'
  )


def _paths(tree) -> dict[str, Any]:
  leaves = jax.tree_util.tree_leaves_with_path(tree)
  return {'/'.join(str(k.key) for k in path): leaf for path, leaf in leaves}
