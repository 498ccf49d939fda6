"""Where a model is: a directory, a preset's name, or a hub id."""

from __future__ import annotations

import pathlib
import re

from ioa_jax.models import huggingface, presets, weights

_FILES = (
  'config.json',
  'generation_config.json',
  '*.safetensors',
  'model.safetensors.index.json',
  *huggingface.TOKENIZER_FILES,
)


def reference(model: str, directory: pathlib.Path) -> str:
  """What others find a model by: its hub id, or its absolute path.

  Args:
    model: as a person named it, see `locate`.
    directory: where it was found.
  """
  if pathlib.Path(model).expanduser().is_dir():
    return str(directory.resolve())
  return _repository(model) or str(directory.resolve())


def _repository(name: str) -> str | None:
  preset = presets.PRESETS.get(name.lower())
  repository = preset.repository if preset else name
  return repository if re.fullmatch(r'[\w.-]+/[\w.-]+', repository) else None


def here(model: str) -> pathlib.Path | None:
  """The directory of `model` if it is on this machine; nothing is loaded."""
  path = pathlib.Path(model).expanduser()
  repository = _repository(model)
  if path.is_dir() or repository is None:
    return path if path.is_dir() else None
  import huggingface_hub
  from huggingface_hub import errors

  try:
    found = huggingface_hub.snapshot_download(
      repository, allow_patterns=list(_FILES), local_files_only=True
    )
  except errors.LocalEntryNotFoundError:
    return None
  return pathlib.Path(found)


def locate(model: str | pathlib.Path) -> pathlib.Path:
  """The directory of `model`, downloaded if it is a hub id.

  Args:
    model: a directory, a name of `presets.PRESETS`, or `OWNER/NAME` on the
      hub. Only configuration, tokenizer and safetensors are downloaded.

  Raises:
    ModelError: if there is no such directory and the hub cannot give it.
  """
  path = pathlib.Path(model).expanduser()
  if path.is_dir():
    return path
  name = str(model)
  repository = _repository(name)
  if repository is None:
    raise huggingface.ModelError(
      f'{name}: no such directory, and not a hub id (OWNER/NAME) or one of '
      f'{sorted(presets.PRESETS)}.'
    )
  # Imported here: only a download needs it.
  import huggingface_hub

  try:
    found = huggingface_hub.snapshot_download(
      repository, allow_patterns=list(_FILES)
    )
  except Exception as e:  # Networks, proxies and tokens fail in many types.
    raise huggingface.ModelError(
      f'{repository}: no such directory here, and the hub did not give it '
      f'({weights.reason(e)}). Copy the model to a directory and name that.'
    ) from None
  return pathlib.Path(found)
