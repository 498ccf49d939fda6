"""Where a model is: a directory, a preset's name, or a hub id."""

from __future__ import annotations

import pathlib
import re

from ioa_jax.models import huggingface, presets

_FILES = (
  'config.json', 'generation_config.json', '*.safetensors',
  'model.safetensors.index.json', *huggingface.TOKENIZER_FILES,
)  # fmt: skip


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
  preset = presets.PRESETS.get(name.lower())
  repository = preset.repository if preset else name
  if not re.fullmatch(r'[\w.-]+/[\w.-]+', repository):
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
    reason = (str(e).strip() or repr(e)).splitlines()[0][:200]
    raise huggingface.ModelError(
      f'{repository}: no such directory here, and the hub did not give it '
      f'({type(e).__name__}: {reason}). Copy the model to a directory and name '
      'that.'
    ) from None
  return pathlib.Path(found)
