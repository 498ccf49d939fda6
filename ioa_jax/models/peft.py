"""Adapters in PEFT's layout, for `peft` and vLLM to load over the base."""

from __future__ import annotations

import pathlib

import numpy as np
import safetensors.numpy

from ioa_jax.models import huggingface, lora, weights
from ioa_jax.runtime import sharding

CONFIG, WEIGHTS = 'adapter_config.json', 'adapter_model.safetensors'
_TENSOR = 'base_model.model.{layer}.lora_{part}.weight'


def save(
  directory: str | pathlib.Path,
  adapters: lora.Adapters,
  spec: lora.LoraSpec,
  *,
  base_model: str,
) -> None:
  """Writes `adapter_config.json` and `adapter_model.safetensors`, in float32.

  Args:
    base_model: hub id or directory that PEFT loads the base from.
  """
  directory = pathlib.Path(directory)
  directory.mkdir(parents=True, exist_ok=True)
  tensors = {}
  for target, adapter in adapters.items():
    for part in ('a', 'b'):
      value = np.asarray(sharding.fetch(adapter[part]), np.float32)
      names = _names(target, part, value.shape[0])
      for name, layer in zip(names, value, strict=True):
        # torch's Linear keeps (out, in).
        tensors[name] = np.ascontiguousarray(layer.T)
  weights.save_file(directory / WEIGHTS, tensors)
  weights.write_json(directory / CONFIG, {
    'peft_type': 'LORA',
    'task_type': 'CAUSAL_LM',
    'base_model_name_or_path': str(base_model),
    'r': spec.rank,
    'lora_alpha': spec.alpha,
    'lora_dropout': spec.dropout,
    'target_modules': sorted(spec.targets),
    'bias': 'none',
    'fan_in_fan_out': False,
    'inference_mode': True,
  })  # fmt: skip


def load(
  directory: str | pathlib.Path, num_layers: int
) -> tuple[lora.Adapters, lora.LoraSpec]:
  """Reads what `save` or PEFT wrote.

  Raises:
    ModelError: for a missing tensor, or a variant of LoRA that is not plain.
  """
  directory = pathlib.Path(directory)
  raw = weights.read_json(directory / CONFIG)
  plain = {
    'peft_type': 'LORA', 'bias': 'none', 'use_dora': False, 'use_rslora': False,
    'fan_in_fan_out': False, 'modules_to_save': None, 'rank_pattern': {},
    'alpha_pattern': {}, 'layers_to_transform': None,
  }  # fmt: skip
  for field, wanted in plain.items():
    got = raw.get(field, wanted)
    if (got or None) != (wanted or None):
      raise huggingface.ModelError(
        f'{directory / CONFIG}: {field} {got!r} is not supported, only '
        f'{wanted!r}.'
      )
  try:
    spec = lora.LoraSpec(
      rank=raw['r'], alpha=raw['lora_alpha'],
      dropout=raw.get('lora_dropout', 0.0),
      targets=tuple(sorted(raw['target_modules'])),
    )  # fmt: skip
  except KeyError as e:
    raise huggingface.ModelError(
      f'{directory / CONFIG}: field {e} is missing.'
    ) from None
  if not (directory / WEIGHTS).exists():
    raise huggingface.ModelError(f'{directory / WEIGHTS}: no such file.')
  tensors = safetensors.numpy.load_file(directory / WEIGHTS)
  adapters: lora.Adapters = {}
  for target in spec.targets:
    adapters[target] = {}
    for part in ('a', 'b'):
      names = _names(target, part, num_layers)
      missing = [n for n in names if n not in tensors]
      if missing:
        raise huggingface.ModelError(
          f'{directory / WEIGHTS}: no tensor {missing[0]!r}.'
        )
      adapters[target][part] = np.stack(
        [tensors[n].T.astype(np.float32) for n in names]
      )
  return adapters, spec


def _names(target: str, part: str, num_layers: int) -> list[str]:
  names, _ = huggingface.tensor_names(('layers', target, 'kernel'), num_layers)
  return [
    _TENSOR.format(layer=n.removesuffix('.weight'), part=part.upper())
    for n in names
  ]
