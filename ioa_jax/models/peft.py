"""Adapters in PEFT's layout, for `peft` and vLLM to load over the base."""

from __future__ import annotations

import pathlib

import numpy as np

from ioa_jax.models import decoder, huggingface, lora, peft_config, weights
from ioa_jax.runtime import sharding

ModelError = weights.ModelError

CONFIG, WEIGHTS = 'adapter_config.json', 'adapter_model.safetensors'
_TENSOR = 'base_model.model.{module}.lora_{part}.weight'


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
      modules = _modules(target, value.shape[0])
      for module, layer in zip(modules, value, strict=True):
        # torch's Linear keeps (out, in).
        name = _TENSOR.format(module=module, part=part.upper())
        tensors[name] = np.ascontiguousarray(layer.T)
  weights.save_file(directory / WEIGHTS, tensors)
  weights.write_json(
    directory / CONFIG,
    {
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
    },
  )


def load(
  directory: str | pathlib.Path,
  num_layers: int,
  base: decoder.Params | None = None,
) -> tuple[lora.Adapters, lora.LoraSpec]:
  """Reads what `save` or PEFT wrote.

  A projection that is adapted in some layers only gets zeros in the others, and
  lower ranks are filled up with zeros.

  Args:
    base: the parameters it is for, or their shapes; then they are compared.

  Raises:
    ModelError: naming the file, for anything but plain A and B of linear
      layers: all that its configuration names, and nothing else.
  """
  directory = pathlib.Path(directory)
  config = peft_config.read(directory / CONFIG)
  modules = {
    target: [
      n if config.adapts(n) else None for n in _modules(target, num_layers)
    ]
    for target in lora.PROJECTIONS
  }
  modules = {t: names for t, names in modules.items() if any(names)}
  adapted = [n for names in modules.values() for n in names if n]
  if not adapted:
    raise ModelError(
      f'{config.path}: target_modules {str(config.raw["target_modules"])[:80]} '
      f'unknown in {num_layers} layers; choose of {lora.PROJECTIONS}.'
    )
  path = directory / WEIGHTS
  pairs = _read_pairs(path, adapted)
  _check_shapes(path, config, modules, pairs)
  rank = max(config.rank(n) for n in adapted)
  alphas = {n: config.alpha(n) for n in adapted}
  if len({(config.rank(n), alphas[n]) for n in adapted}) == 1:
    alpha, factors = alphas[adapted[0]], dict.fromkeys(adapted, 1.0)
  else:  # Each B takes its own factor, and `LoraSpec.scale` is 1.
    alpha = rank
    factors = {n: alphas[n] / config.rank(n) for n in adapted}
  spec = lora.LoraSpec(rank, alpha, config.dropout, tuple(sorted(modules)))
  adapters = {
    target: _stack([(pairs[n], factors[n]) if n else None for n in names], rank)
    for target, names in sorted(modules.items())
  }
  if base is not None:
    try:
      lora.check(base, adapters)
    except ValueError as e:
      raise ModelError(f'{path}: {e}') from None
  return adapters, spec


def _check_shapes(path, config, modules, pairs) -> None:
  for names in modules.values():
    widths = {(pairs[n][0].shape[1], len(pairs[n][1])) for n in names if n}
    for name in filter(None, names):
      a, b = pairs[name]
      rank = config.rank(name)
      if len(a) != rank or b.shape[1] != rank or len(widths) > 1:
        raise ModelError(
          f'{path}: the adapter of {name!r} has shapes {a.shape} and '
          f'{b.shape}; {CONFIG} asks for rank {rank}, and all layers are as '
          'wide.'
        )


def _read_pairs(path, modules) -> dict[str, tuple[np.ndarray, np.ndarray]]:
  """A (r, in) and B (out, r) of each module in float32, as they are stored."""
  if not path.exists():
    pickle = path.with_suffix('.bin')
    raise ModelError(
      f'{path}: no such file.'
      + f' {pickle.name} is a pickle, which can run code when read, and is '
      'refused; convert it to safetensors.' * pickle.exists()
    )
  wanted = {
    n: [_TENSOR.format(module=n, part=p) for p in 'AB'] for n in modules
  }
  with weights.open_file(path) as file:
    stored = set(file.keys())
    known = {name for pair in wanted.values() for name in pair}
    for name in sorted(stored - known):
      raise ModelError(
        f'{path}: tensor {name!r} is not A or B of a module that {CONFIG} '
        'names in this base, so the adapter does more than is read here, or is '
        'of another model; merge it into its base with PEFT first.'
      )
    for name in sorted(known - stored):
      raise ModelError(
        f'{path}: no tensor {name!r}, but {CONFIG} asks for it; the adapter is '
        'not whole, or of another model.'
      )
    return {
      module: tuple(_matrix(path, file, name) for name in pair)
      for module, pair in wanted.items()
    }


def _matrix(path, file, name) -> np.ndarray:
  tensor = file.get_slice(name)
  shape, dtype = tuple(tensor.get_shape()), tensor.get_dtype()
  if len(shape) != 2 or dtype not in weights.STORED_DTYPES:
    raise ModelError(
      f'{path}: tensor {name!r} is {dtype} of shape {shape}; wanted a matrix '
      f'of {sorted(weights.STORED_DTYPES)}.'
    )
  value = file.get_tensor(name).astype(np.float32)
  if not np.isfinite(value).all():
    raise ModelError(f'{path}: tensor {name!r} holds NaN or infinity.')
  return value


def _stack(entries, rank: int) -> dict[str, np.ndarray]:
  """One projection's `a` (N, in, r) and `b` (N, r, out)."""
  (a, b), _ = next(e for e in entries if e)
  stacked = {
    'a': np.zeros((len(entries), a.shape[1], rank), np.float32),
    'b': np.zeros((len(entries), rank, len(b)), np.float32),
  }
  for i, entry in enumerate(entries):
    if entry:
      (a, b), factor = entry
      stacked['a'][i, :, : len(a)] = a.T
      stacked['b'][i, : len(a)] = b.T * np.float32(factor)
  return stacked


def _modules(target: str, num_layers: int) -> list[str]:
  """The base's names of a projection, layer by layer."""
  names, _ = huggingface.tensor_names(('layers', target, 'kernel'), num_layers)
  return [n.removesuffix('.weight') for n in names]
