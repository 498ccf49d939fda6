"""Hugging Face model directories, in and out: `config.json` and safetensors.

Weights are read tensor by tensor from one file or from shards with an index.
Pickle formats are refused.
"""

from __future__ import annotations

import json
import pathlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import safetensors
import safetensors.numpy

from ioa_jax.models import decoder

_ARCHITECTURES = {
  'llama': 'LlamaForCausalLM',
  'qwen2': 'Qwen2ForCausalLM',
}

# Our name of a layer's parameter: (Hugging Face's, whether it is transposed).
_LAYER_NAMES = {
  ('attention_norm', 'scale'): ('input_layernorm.weight', False),
  ('mlp_norm', 'scale'): ('post_attention_layernorm.weight', False),
  ('q_proj', 'kernel'): ('self_attn.q_proj.weight', True),
  ('k_proj', 'kernel'): ('self_attn.k_proj.weight', True),
  ('v_proj', 'kernel'): ('self_attn.v_proj.weight', True),
  ('q_proj', 'bias'): ('self_attn.q_proj.bias', False),
  ('k_proj', 'bias'): ('self_attn.k_proj.bias', False),
  ('v_proj', 'bias'): ('self_attn.v_proj.bias', False),
  ('o_proj', 'kernel'): ('self_attn.o_proj.weight', True),
  ('gate_proj', 'kernel'): ('mlp.gate_proj.weight', True),
  ('up_proj', 'kernel'): ('mlp.up_proj.weight', True),
  ('down_proj', 'kernel'): ('mlp.down_proj.weight', True),
}
_TOP_NAMES = {
  ('embedding',): ('model.embed_tokens.weight', False),
  ('final_norm', 'scale'): ('model.norm.weight', False),
  ('lm_head', 'kernel'): ('lm_head.weight', True),
}


class ModelError(ValueError):
  """A model directory that cannot be used; the text names file and field."""


def _read_json(path: pathlib.Path) -> dict[str, Any]:
  try:
    return json.loads(path.read_text())
  except FileNotFoundError:
    raise ModelError(
      f'{path}: no such file; a model directory holds config.json, '
      'tokenizer.json and *.safetensors.'
    ) from None
  except json.JSONDecodeError as e:
    raise ModelError(f'{path}: not JSON ({e}).') from None


def read_config(directory: str | pathlib.Path) -> decoder.DecoderConfig:
  """The decoder's sizes from a `config.json` of Llama or Qwen2.

  Raises:
    ModelError: for another architecture, or a missing or unsupported field.
  """
  path = pathlib.Path(directory) / 'config.json'
  raw = _read_json(path)
  kind = raw.get('model_type')
  if kind not in _ARCHITECTURES:
    raise ModelError(
      f'{path}: model_type {kind!r}; supported are {sorted(_ARCHITECTURES)}.'
    )
  try:
    heads = raw['num_attention_heads']
    return decoder.DecoderConfig(
      vocab_size=raw['vocab_size'],
      width=raw['hidden_size'],
      num_layers=raw['num_hidden_layers'],
      num_heads=heads,
      num_kv_heads=raw.get('num_key_value_heads', heads),
      head_width=raw.get('head_dim') or raw['hidden_size'] // heads,
      mlp_width=raw['intermediate_size'],
      norm_eps=raw['rms_norm_eps'],
      qkv_bias=kind == 'qwen2' or raw.get('attention_bias', False),
      tie_embeddings=raw.get('tie_word_embeddings', False),
      **_read_rope(raw, path),
    )
  except KeyError as e:
    raise ModelError(f'{path}: field {e} is missing.') from None


def _read_rope(raw, path):
  # transformers 5 nests what earlier versions kept at the top.
  rope = raw.get('rope_parameters') or raw.get('rope_scaling') or {}
  theta = rope.get('rope_theta', raw.get('rope_theta', 10_000.0))
  kind = rope.get('rope_type', rope.get('type', 'default'))
  if kind == 'default':
    return {'rope_theta': theta}
  if kind != 'llama3':
    raise ModelError(
      f"{path}: rope_type {kind!r}; supported are 'default' and 'llama3'."
    )
  fields = decoder.RopeScaling.__dataclass_fields__
  return {
    'rope_theta': theta,
    'rope_scaling': decoder.RopeScaling(**{f: rope[f] for f in fields}),
  }


def config_dict(config: decoder.DecoderConfig, dtype: str) -> dict[str, Any]:
  """The `config.json` that transformers reads back as the same model."""
  rope: dict[str, Any] = {
    'rope_type': 'default', 'rope_theta': config.rope_theta
  }  # fmt: skip
  if config.rope_scaling is not None:
    scaling = config.rope_scaling
    rope = {
      'rope_type': 'llama3',
      'rope_theta': config.rope_theta,
      **{f: getattr(scaling, f) for f in scaling.__dataclass_fields__},
    }
  kind = 'qwen2' if config.qkv_bias else 'llama'
  return {
    'architectures': [_ARCHITECTURES[kind]],
    'model_type': kind,
    'vocab_size': config.vocab_size,
    'hidden_size': config.width,
    'num_hidden_layers': config.num_layers,
    'num_attention_heads': config.num_heads,
    'num_key_value_heads': config.num_kv_heads,
    'head_dim': config.head_width,
    'intermediate_size': config.mlp_width,
    'rms_norm_eps': config.norm_eps,
    'rope_theta': config.rope_theta,
    'rope_parameters': rope,
    'tie_word_embeddings': config.tie_embeddings,
    'hidden_act': 'silu',
    'dtype': dtype,
  }


def _shard_files(directory: pathlib.Path) -> dict[str, pathlib.Path]:
  """Tensor name to the file that holds it."""
  index = directory / 'model.safetensors.index.json'
  if index.exists():
    weight_map = _read_json(index)['weight_map']
    files = {name: directory / file for name, file in weight_map.items()}
    for path in sorted(set(files.values())):
      if not path.exists():
        raise ModelError(f'{path}: missing, but {index.name} names it.')
    return files
  path = directory / 'model.safetensors'
  if not path.exists():
    pickles = [p.name for p in directory.glob('*.bin')]
    hint = (
      f' {pickles} are pickle files, which can run code; convert them to '
      'safetensors.'
      if pickles
      else ''
    )
    raise ModelError(f'{path}: no such file.{hint}')
  with _open(path) as file:
    return {name: path for name in file.keys()}


def _open(path):
  try:
    return safetensors.safe_open(path, framework='flax')
  except safetensors.SafetensorError as e:
    raise ModelError(
      f'{path}: not a readable safetensors file ({e}); it is truncated or '
      'corrupted, copy it again.'
    ) from None


def _hf_tensors(path: tuple[str, ...], num_layers: int):
  """Hugging Face names of one of our parameters, and whether to transpose."""
  if path[0] != 'layers':
    name, transposed = _TOP_NAMES[path]
    return [name], transposed
  name, transposed = _LAYER_NAMES[path[1:]]
  return [f'model.layers.{i}.{name}' for i in range(num_layers)], transposed


def _flatten(params):
  leaves, treedef = jax.tree_util.tree_flatten_with_path(params)
  return [(tuple(k.key for k in path), leaf) for path, leaf in leaves], treedef


def load_params(
  directory: str | pathlib.Path,
  config: decoder.DecoderConfig,
  dtype: str = 'float32',
) -> decoder.Params:
  """Reads every parameter of `config` in `dtype`.

  Raises:
    ModelError: naming file and tensor, if one is missing or of another shape.
  """
  directory = pathlib.Path(directory)
  files = _shard_files(directory)
  leaves, treedef = _flatten(decoder.abstract_params(config))
  loaded = []
  for path, abstract in leaves:
    names, transposed = _hf_tensors(path, config.num_layers)
    tensors = []
    for name in names:
      if name not in files:
        raise ModelError(f'{directory}: no tensor {name!r} in its files.')
      with _open(files[name]) as file:
        tensor = file.get_tensor(name)
      tensors.append(tensor.T if transposed else tensor)
    value = jnp.stack(tensors) if path[0] == 'layers' else tensors[0]
    if value.shape != abstract.shape:
      raise ModelError(
        f'{files[names[0]]}: {names[0]!r} gives {value.shape}, config.json '
        f'asks for {abstract.shape}.'
      )
    loaded.append(value.astype(dtype))
  return jax.tree.unflatten(treedef, loaded)


def save(
  directory: str | pathlib.Path,
  config: decoder.DecoderConfig,
  params: decoder.Params,
  *,
  dtype: str,
  eos_token_id: int,
  pad_token_id: int,
) -> None:
  """Writes `config.json`, `generation_config.json`, `model.safetensors`."""
  directory = pathlib.Path(directory)
  directory.mkdir(parents=True, exist_ok=True)
  tensors = {}
  for path, value in _flatten(params)[0]:
    names, transposed = _hf_tensors(path, config.num_layers)
    value = np.asarray(jax.device_get(value).astype(jnp.dtype(dtype)))
    parts = value if path[0] == 'layers' else [value]
    for name, part in zip(names, parts, strict=True):
      tensors[name] = np.ascontiguousarray(part.T if transposed else part)
  tokens = {'eos_token_id': eos_token_id, 'pad_token_id': pad_token_id}
  _write_json(directory / 'config.json', config_dict(config, dtype) | tokens)
  _write_json(directory / 'generation_config.json', tokens)
  safetensors.numpy.save_file(
    tensors, directory / 'model.safetensors', metadata={'format': 'pt'}
  )


def _write_json(path, value):
  path.write_text(json.dumps(value, indent=2) + '\n')
