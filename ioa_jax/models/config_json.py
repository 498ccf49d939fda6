"""Hugging Face's `config.json`, in and out, as transformers 5 reads it."""

from __future__ import annotations

from collections.abc import Mapping
import dataclasses
import pathlib
from typing import Any

from ioa_jax.models import checks, decoder, rope, weights
from ioa_jax.models.architectures import (
  ARCHITECTURES,
  Layer,
  shortest_pattern,
)

ModelError = weights.ModelError

# A model of text and images, of which the text's part is read.
_WITH_IMAGES = {'gemma3': 'gemma3_text'}

# What transformers assumes where config.json says nothing.
_DEFAULTS: dict[str, dict[str, Any]] = {
  'llama': {'max_position_embeddings': 2048},
  'qwen2': {'max_position_embeddings': 32_768, 'max_window_layers': 28},
  'qwen3': {
    'max_position_embeddings': 32_768,
    'max_window_layers': 28,
    'head_dim': 128,
  },
  'mistral': {'max_position_embeddings': 131_072, 'sliding_window': 4096},
  'smollm3': {
    'max_position_embeddings': 32_768,
    'tie_word_embeddings': True,
    'num_key_value_heads': 4,
    'rope_theta': 2e6,
    'no_rope_layer_interval': 4,
  },
  'gemma3_text': {
    'vocab_size': 262_208,
    'num_attention_heads': 8,
    'num_key_value_heads': 4,
    'head_dim': 256,
    'max_position_embeddings': 131_072,
    'rms_norm_eps': 1e-6,
    'query_pre_attn_scalar': 256,
    'hidden_activation': 'gelu_pytorch_tanh',
    'sliding_window': 4096,
    'sliding_window_pattern': 6,
    'tie_word_embeddings': True,
    'rope_theta': 1e6,
    'rope_local_base_freq': 1e4,
  },
}
_FULL, _SLIDING = 'full_attention', 'sliding_attention'
_ACTIVATIONS = {'silu': 'silu', 'gelu_tanh': 'gelu_pytorch_tanh'}

# Settings that change the computation and that the decoder does not have.
_UNSUPPORTED = {
  'attention_bias': bool,
  'mlp_bias': bool,
  'use_bidirectional_attention': bool,
  'quantization_config': lambda v: v is not None,
  # transformers and vLLM read Gemma 3's and apply none.
  'attn_logit_softcapping': lambda v: v is not None,
  'layer_types': lambda v: set(v or ()) - {_FULL, _SLIDING},
  'partial_rotary_factor': lambda v: v not in (None, 1.0),
}


def read_config(directory: str | pathlib.Path) -> decoder.DecoderConfig:
  """The decoder's sizes from a `config.json` of one of ARCHITECTURES.

  Raises:
    ModelError: for another architecture, or a missing or unsupported field.
  """
  path = pathlib.Path(directory) / 'config.json'
  raw = weights.read_json(path)
  kind = raw.get('model_type')
  if kind in _WITH_IMAGES:
    raw, kind = raw.get('text_config'), _WITH_IMAGES[kind]
    if not isinstance(raw, dict):
      raise ModelError(f'{path}: field "text_config" is missing.')
  if kind not in ARCHITECTURES:
    known = sorted(ARCHITECTURES | _WITH_IMAGES)
    raise ModelError(
      f'{path}: model_type {kind!r}; supported are {known}. '
      'docs/architectures.md says how to add an architecture.'
    )
  raw = _DEFAULTS[kind] | raw
  checks.sizes(raw, path)
  try:
    _refuse_unsupported(kind, raw, path)
    heads = raw['num_attention_heads']
    pattern = _read_pattern(kind, raw, path)
    query_scale = raw.get('query_pre_attn_scalar')
    return decoder.DecoderConfig(
      vocab_size=raw['vocab_size'],
      width=raw['hidden_size'],
      num_layers=raw['num_hidden_layers'],
      num_heads=heads,
      num_kv_heads=raw.get('num_key_value_heads') or heads,
      head_width=raw.get('head_dim') or raw['hidden_size'] // heads,
      mlp_width=raw['intermediate_size'],
      architecture=kind,
      layer_pattern=pattern,
      query_scale=None if query_scale is None else query_scale**-0.5,
      logit_cap=raw.get('final_logit_softcapping'),
      norm_eps=raw['rms_norm_eps'],
      tie_embeddings=raw.get('tie_word_embeddings', False)
      and not weights.has_own_head(directory),
      max_positions=raw['max_position_embeddings'],
      **_read_rope(_rope_values(kind, raw, path), raw, path),
    )
  except KeyError as e:
    raise ModelError(f'{path}: field {e} is missing.') from None
  except (TypeError, AttributeError, ArithmeticError) as e:
    raise ModelError(f'{path}: a field has the wrong type ({e}).') from None


def _refuse_unsupported(kind, raw, path):
  activation = _ACTIVATIONS[ARCHITECTURES[kind].activation]
  name = 'hidden_activation' if kind == 'gemma3_text' else 'hidden_act'
  unsupported = _UNSUPPORTED | {name: lambda v: v != activation}
  if kind == 'llama':
    unsupported['use_sliding_window'] = bool
  if kind == 'qwen2':  # It always has the biases, whatever this says.
    del unsupported['attention_bias']
  for field, is_unsupported in unsupported.items():
    if field in raw and is_unsupported(raw[field]):
      raise ModelError(f'{path}: {field} {raw[field]!r} is not supported.')


def _read_pattern(kind, raw, path) -> tuple[Layer, ...]:
  """How layers attend, by the rule of each architecture."""
  n = raw['num_hidden_layers']
  # Qwen2.5 and Qwen3 have a window in their files, switched off.
  switch = kind in ('llama', 'qwen2', 'qwen3', 'smollm3')
  used = raw.get('use_sliding_window', False) if switch else True
  window = raw.get('sliding_window') if used else None
  types = raw.get('layer_types')
  rotates = [True] * n
  if kind == 'smollm3':
    interval = raw['no_rope_layer_interval']
    rotates = raw.get('no_rope_layers') or [
      (i + 1) % interval != 0 for i in range(n)
    ]
  slides: list[bool] = [False] * n
  if kind == 'mistral':
    slides = [window is not None] * n
  elif types is not None:
    slides = [t == _SLIDING for t in types]
  elif kind in ('qwen2', 'qwen3'):
    first = raw['max_window_layers']
    slides = [window is not None and i >= first for i in range(n)]
  elif kind == 'smollm3':
    slides = [window is not None and not r for r in rotates]
  elif kind == 'gemma3_text':
    period = raw['sliding_window_pattern']
    slides = [(i + 1) % period != 0 for i in range(n)]
  if len(slides) != n or len(rotates) < n:
    raise ModelError(
      f'{path}: layer_types or no_rope_layers has not {n} entries, one for '
      'each layer (num_hidden_layers).'
    )
  if any(slides) and window is None:
    raise ModelError(
      f'{path}: layers have sliding attention and sliding_window is null or '
      'switched off; name their window.'
    )
  if types is not None and slides != [t == _SLIDING for t in types]:
    raise ModelError(
      f'{path}: layer_types and sliding_window {window!r} disagree; '
      'transformers would follow sliding_window for all layers.'
    )
  local = _local_theta(raw, path) if kind == 'gemma3_text' else None
  return shortest_pattern(
    Layer(
      window=window if slides[i] else None,
      rotates=bool(rotates[i]),
      theta=local if slides[i] else None,
    )
    for i in range(n)
  )


def _local_theta(raw, path) -> float:
  """Gemma's base of layers with a window."""
  values = (raw.get('rope_parameters') or {}).get(_SLIDING) or {}
  kind = values.get('rope_type', 'default')
  if kind != 'default':
    raise ModelError(
      f"{path}: rope_type {kind!r} of {_SLIDING}; supported is 'default'."
    )
  return values.get('rope_theta', raw['rope_local_base_freq'])


def _rope_values(kind, raw, path) -> Mapping[str, Any]:
  """The settings that transformers would take, of several in one file."""
  scaling, parameters = raw.get('rope_scaling'), raw.get('rope_parameters')
  if kind == 'gemma3_text':
    plain = {'rope_type': 'default'}
    parameters = parameters or {_FULL: plain}
    if not {_FULL, _SLIDING} & set(parameters):
      raise ModelError(
        f'{path}: rope_parameters of {kind} are by layer type ({_FULL}, '
        f'{_SLIDING}), and these are not.'
      )
    return (parameters.get(_FULL) or plain) | (scaling or {})
  # transformers 5 nests what earlier versions kept at the top; where a file has
  # both, as after a person added what a model's card says, the old name wins.
  values = scaling or parameters or {}
  if any(isinstance(v, Mapping) for v in values.values()):
    raise ModelError(f'{path}: RoPE by layer type is not supported for {kind}.')
  return values


def _read_rope(values, raw, path):
  theta = values.get('rope_theta', raw.get('rope_theta', 10_000.0))
  kind = values.get('rope_type', values.get('type', 'default'))
  if values.get('partial_rotary_factor') not in (None, 1.0):
    raise ModelError(
      f'{path}: partial_rotary_factor {values["partial_rotary_factor"]} is '
      'not supported.'
    )
  if kind == 'default':
    return {'rope_theta': theta}
  if kind not in _SCALINGS:
    raise ModelError(
      f'{path}: rope_type {kind!r}; supported are {["default", *_SCALINGS]}.'
    )
  longest = raw['max_position_embeddings']
  # What stands outside of the RoPE settings comes first, as in Phi 3.
  original = raw.get('original_max_position_embeddings') or values.get(
    'original_max_position_embeddings', longest
  )
  scaling = _SCALINGS[kind](values, original, longest)
  return {'rope_theta': theta, 'rope_scaling': scaling}


def _read_llama3(values, original, longest):
  del longest
  names = ('factor', 'low_freq_factor', 'high_freq_factor')
  return rope.Llama3(
    **{name: values[name] for name in names},
    original_max_position_embeddings=original,
  )


def _read_yarn(values, original, longest):
  del longest
  factor, attention = values['factor'], values.get('attention_factor')
  if attention is None:
    attention = rope.yarn_attention_factor(
      factor, values.get('mscale'), values.get('mscale_all_dim')
    )
  return rope.Yarn(
    factor=factor,
    original_max_position_embeddings=original,
    attention_factor=attention,
    beta_fast=values.get('beta_fast') or 32.0,
    beta_slow=values.get('beta_slow') or 1.0,
    truncate=values.get('truncate', True),
  )


def _read_linear(values, original, longest):
  del original, longest
  return rope.Linear(values['factor'])


def _read_dynamic(values, original, longest):
  # The other one is not looked at: transformers counts from the longest.
  del original
  return rope.Dynamic(values['factor'], longest)


_SCALINGS = {
  'llama3': _read_llama3,
  'yarn': _read_yarn,
  'linear': _read_linear,
  'dynamic': _read_dynamic,
}
_ROPE_TYPES = {
  rope.Llama3: 'llama3',
  rope.Yarn: 'yarn',
  rope.Linear: 'linear',
  rope.Dynamic: 'dynamic',
}


def config_dict(config: decoder.DecoderConfig, dtype: str) -> dict[str, Any]:
  """The `config.json` that transformers 4 and 5 and vLLM read as this model."""
  kind = config.architecture
  activation = _ACTIVATIONS[config.differences.activation]
  values = {
    'architectures': [config.differences.class_name],
    'model_type': kind,
    'vocab_size': config.vocab_size,
    'hidden_size': config.width,
    'num_hidden_layers': config.num_layers,
    'num_attention_heads': config.num_heads,
    'num_key_value_heads': config.num_kv_heads,
    'head_dim': config.head_width,
    'intermediate_size': config.mlp_width,
    'max_position_embeddings': config.max_positions,
    'rms_norm_eps': config.norm_eps,
    'tie_word_embeddings': config.tie_embeddings,
    'hidden_act': activation,
    'rope_theta': config.rope_theta,
    # transformers 4 and vLLM read torch_dtype, transformers 5 dtype.
    'dtype': dtype,
    'torch_dtype': dtype,
  }
  values |= _layer_values(config)
  scaling = {'rope_type': 'default'}
  if config.rope_scaling is not None:
    scaling = _scaling_values(config.rope_scaling)
    values['rope_scaling'] = scaling
  parameters = scaling | {'rope_theta': config.rope_theta}
  if kind == 'gemma3_text':
    local = {
      'rope_type': 'default',
      'rope_theta': values['rope_local_base_freq'],
    }
    parameters = {_FULL: parameters, _SLIDING: local}
    values['hidden_activation'] = activation
    scale = config.query_scale or config.head_width**-0.5
    values['query_pre_attn_scalar'] = round(scale**-2)
    values['final_logit_softcapping'] = config.logit_cap
    values['attn_logit_softcapping'] = None
  values['rope_parameters'] = parameters
  return values


def _scaling_values(scaling: rope.Scaling) -> dict[str, Any]:
  values = {'rope_type': _ROPE_TYPES[type(scaling)]}
  values |= dataclasses.asdict(scaling)
  if isinstance(scaling, rope.Dynamic):
    # It is max_position_embeddings, and no setting of its own.
    del values['original_max_position_embeddings']
  return values


def _layer_values(config: decoder.DecoderConfig) -> dict[str, Any]:
  """Windows and layers without rotation, by the rule of each architecture."""
  kind, layers = config.architecture, config.layers
  window = next((x.window for x in layers if x.window is not None), None)
  types = [_FULL if x.window is None else _SLIDING for x in layers]
  if kind == 'mistral':
    return {'sliding_window': window}
  values: dict[str, Any] = {}
  if kind == 'gemma3_text':
    thetas = {x.theta for x in layers if x.window is not None} or {1e4}
    (values['rope_local_base_freq'],) = thetas
  if kind == 'smollm3':
    values['no_rope_layers'] = [int(x.rotates) for x in layers]
  if kind in ('qwen2', 'qwen3', 'smollm3'):
    values['use_sliding_window'] = window is not None
  if window is not None:
    values['sliding_window'] = window
    if kind in ('qwen2', 'qwen3'):
      values['max_window_layers'] = types.index(_SLIDING)
  if kind in ('gemma3_text', 'smollm3') or window is not None:
    values['layer_types'] = types
  return values
