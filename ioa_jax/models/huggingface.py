"""Hugging Face model directories, in and out.

`config.json` and safetensors become a `DecoderConfig` and parameters; `save`
writes a directory that transformers and vLLM load as is. Tokenizers are in
`vocabulary.py`, hub ids in `hub.py`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
import dataclasses
import pathlib
import shutil
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ioa_jax.models import decoder, rope, weights
from ioa_jax.runtime import sharding as sharding_lib

ModelError = weights.ModelError

_ARCHITECTURES = {
  'llama': 'LlamaForCausalLM',
  'qwen2': 'Qwen2ForCausalLM',
}
# What transformers assumes where config.json says nothing.
_MAX_POSITIONS = {'llama': 2048, 'qwen2': 32_768}

# Settings that change the computation and that the decoder does not have.
_UNSUPPORTED = {
  'hidden_act': lambda v: v != 'silu',
  'mlp_bias': bool,
  'use_sliding_window': bool,
  'quantization_config': lambda v: v is not None,
  'layer_types': lambda v: set(v or ()) - {'full_attention'},
}

# Our name of a layer's parameter: (Hugging Face's, whether it is transposed).
_LAYER_NAMES = {
  ('attention_norm', 'scale'): ('input_layernorm.weight', False),
  ('q_proj', 'kernel'): ('self_attn.q_proj.weight', True),
  ('q_proj', 'bias'): ('self_attn.q_proj.bias', False),
  ('k_proj', 'kernel'): ('self_attn.k_proj.weight', True),
  ('k_proj', 'bias'): ('self_attn.k_proj.bias', False),
  ('v_proj', 'kernel'): ('self_attn.v_proj.weight', True),
  ('v_proj', 'bias'): ('self_attn.v_proj.bias', False),
  ('o_proj', 'kernel'): ('self_attn.o_proj.weight', True),
  ('mlp_norm', 'scale'): ('post_attention_layernorm.weight', False),
  ('gate_proj', 'kernel'): ('mlp.gate_proj.weight', True),
  ('up_proj', 'kernel'): ('mlp.up_proj.weight', True),
  ('down_proj', 'kernel'): ('mlp.down_proj.weight', True),
}
_TOP_NAMES = {
  ('embedding',): ('model.embed_tokens.weight', False),
  ('final_norm', 'scale'): ('model.norm.weight', False),
  ('lm_head', 'kernel'): ('lm_head.weight', True),
}

# What is carried from a model directory to one made from it, byte for byte.
TOKENIZER_FILES = (
  'tokenizer.json', 'tokenizer_config.json', 'special_tokens_map.json',
  'added_tokens.json', 'vocab.json', 'merges.txt', 'tokenizer.model',
  'chat_template.jinja',
)  # fmt: skip


def read_config(directory: str | pathlib.Path) -> decoder.DecoderConfig:
  """The decoder's sizes from a `config.json` of Llama or Qwen2.

  Raises:
    ModelError: for another architecture, or a missing or unsupported field.
  """
  path = pathlib.Path(directory) / 'config.json'
  raw = weights.read_json(path)
  kind = raw.get('model_type')
  if kind not in _ARCHITECTURES:
    raise ModelError(
      f'{path}: model_type {kind!r}; supported are {sorted(_ARCHITECTURES)}.'
    )
  unsupported = dict(_UNSUPPORTED)
  if kind == 'llama':  # Llama's attention_bias also biases o_proj.
    unsupported['attention_bias'] = bool
  for field, is_unsupported in unsupported.items():
    if field in raw and is_unsupported(raw[field]):
      raise ModelError(f'{path}: {field} {raw[field]!r} is not supported.')
  try:
    heads = raw['num_attention_heads']
    return decoder.DecoderConfig(
      vocab_size=raw['vocab_size'],
      width=raw['hidden_size'],
      num_layers=raw['num_hidden_layers'],
      num_heads=heads,
      num_kv_heads=raw.get('num_key_value_heads') or heads,
      head_width=raw.get('head_dim') or raw['hidden_size'] // heads,
      mlp_width=raw['intermediate_size'],
      norm_eps=raw['rms_norm_eps'],
      qkv_bias=kind == 'qwen2',
      tie_embeddings=raw.get('tie_word_embeddings', False),
      max_positions=raw.get('max_position_embeddings', _MAX_POSITIONS[kind]),
      **_read_rope(raw, path),
    )
  except KeyError as e:
    raise ModelError(f'{path}: field {e} is missing.') from None
  except TypeError as e:
    raise ModelError(f'{path}: a field has the wrong type ({e}).') from None


def _read_rope(raw, path):
  # transformers 5 nests what earlier versions kept at the top.
  values = raw.get('rope_parameters') or raw.get('rope_scaling') or {}
  theta = values.get('rope_theta', raw.get('rope_theta', 10_000.0))
  kind = values.get('rope_type', values.get('type', 'default'))
  if kind not in ('default', 'llama3'):
    raise ModelError(
      f"{path}: rope_type {kind!r}; supported are 'default' and 'llama3'."
    )
  if values.get('partial_rotary_factor', 1.0) != 1.0:
    raise ModelError(
      f'{path}: partial_rotary_factor {values["partial_rotary_factor"]} is '
      'not supported.'
    )
  if kind == 'default':
    return {'rope_theta': theta}
  fields = [f.name for f in dataclasses.fields(rope.RopeScaling)]
  return {
    'rope_theta': theta,
    'rope_scaling': rope.RopeScaling(**{f: values[f] for f in fields}),
  }


def config_dict(config: decoder.DecoderConfig, dtype: str) -> dict[str, Any]:
  """The `config.json` that transformers 4 and 5 read as the same model."""
  kind = 'qwen2' if config.qkv_bias else 'llama'
  values = {
    'architectures': [_ARCHITECTURES[kind]],
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
    'hidden_act': 'silu',
    'rope_theta': config.rope_theta,
    # transformers 4 and vLLM read torch_dtype, transformers 5 dtype.
    'dtype': dtype,
    'torch_dtype': dtype,
  }
  if kind == 'qwen2':
    values['use_sliding_window'] = False
  scaling = {'rope_type': 'default'}
  if config.rope_scaling is not None:
    scaling = {'rope_type': 'llama3'} | dataclasses.asdict(config.rope_scaling)
    values['rope_scaling'] = scaling
  values['rope_parameters'] = scaling | {'rope_theta': config.rope_theta}
  return values


def tensor_names(
  path: tuple[str, ...], num_layers: int
) -> tuple[list[str], bool]:
  """Hugging Face names of one of our parameters, and whether to transpose."""
  if path[0] != 'layers':
    name, transposed = _TOP_NAMES[path]
    return [name], transposed
  name, transposed = _LAYER_NAMES[path[1:]]
  return [f'model.layers.{i}.{name}' for i in range(num_layers)], transposed


def _leaves(params) -> list[tuple[tuple[str, ...], Any]]:
  leaves = jax.tree_util.tree_leaves_with_path(params)
  return [(tuple(k.key for k in path), leaf) for path, leaf in leaves]


def load_params(
  directory: str | pathlib.Path,
  config: decoder.DecoderConfig,
  dtype: str = 'float32',
  *,
  shardings: Any = None,
) -> decoder.Params:
  """Streams every parameter of `config` to its devices, in `dtype`.

  Args:
    shardings: a tree of shardings like the parameters, see
      `sharding.param_shardings`; None puts all on the first local device.

  Raises:
    ModelError: naming file and tensor, if one is missing, unknown, or of
      another shape or dtype. Headers are checked before any weight is read.
  """
  store = weights.Store(directory)
  abstract = decoder.abstract_params(config)
  leaves = _leaves(abstract)
  known = set()
  for path, leaf in leaves:
    names, transposed = tensor_names(path, config.num_layers)
    shape = leaf.shape[1:] if path[0] == 'layers' else leaf.shape
    for name in names:
      store.check(name, shape[::-1] if transposed else shape)
    known.update(names)
  _refuse_unknown(store, known, config)
  if shardings is None:
    first = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    shardings = jax.tree.map(lambda _: first, abstract)
  loaded = []
  for (path, leaf), to in zip(leaves, jax.tree.leaves(shardings), strict=True):
    names, transposed = tensor_names(path, config.num_layers)
    loaded.append(
      weights.to_device(
        store, names, transposed=transposed, shape=leaf.shape, dtype=dtype,
        sharding=to,
      )
    )  # fmt: skip
  return jax.tree.unflatten(jax.tree.structure(abstract), loaded)


def _refuse_unknown(store, known, config):
  """A weight that is left out would make another model of the same name."""
  for name in sorted(set(store.files) - known):
    if name.endswith('rotary_emb.inv_freq'):
      continue  # Old exports keep what config.json says.
    if name == 'lm_head.weight' and config.tie_embeddings:
      continue  # A copy of the embedding.
    raise ModelError(
      f'{store.files[name]}: tensor {name!r} has no place in the model that '
      'config.json describes.'
    )


def save(
  directory: str | pathlib.Path,
  config: decoder.DecoderConfig,
  params: decoder.Params,
  *,
  dtype: str,
  eos_token_id: int | Sequence[int] | None = None,
  pad_token_id: int | None = None,
  source: str | pathlib.Path | None = None,
  card: str | None = None,
  max_shard_bytes: int = 2 * 10**9,
) -> None:
  """Writes a directory that transformers and vLLM load as is.

  `config.json` comes last: a directory that has one is complete.

  Args:
    dtype: what weights are stored in; parameters in it survive bit for bit.
    eos_token_id, pad_token_id: by default those of `source`.
    source: the model directory that `params` descend from. Its tokenizer, chat
      template and generation settings are carried over.
    card: text of README.md, see `model_card.render`.
    max_shard_bytes: larger models are split, with an index.
  """
  directory = pathlib.Path(directory)
  if source is not None and pathlib.Path(source).resolve() == (
    directory.resolve()
  ):
    raise ModelError(f'{directory}: is the source itself; choose another.')
  directory.mkdir(parents=True, exist_ok=True)
  (directory / 'config.json').unlink(missing_ok=True)
  weights.write(directory, _tensors(config, params, dtype), max_shard_bytes)
  if card is not None:
    (directory / 'README.md').write_text(card)
  save_small_files(
    directory, config, dtype=dtype, eos_token_id=eos_token_id,
    pad_token_id=pad_token_id, source=source,
  )  # fmt: skip


def save_small_files(
  directory: pathlib.Path,
  config: decoder.DecoderConfig,
  *,
  dtype: str,
  eos_token_id: int | Sequence[int] | None = None,
  pad_token_id: int | None = None,
  source: str | pathlib.Path | None = None,
) -> None:
  """What `save` writes beside the weights; `config.json` last."""
  directory.mkdir(parents=True, exist_ok=True)
  tokens, generation = {}, {}
  if source is not None:
    tokens, generation = _carry_over(pathlib.Path(source), directory)
  given = {'eos_token_id': eos_token_id, 'pad_token_id': pad_token_id}
  given = {
    k: list(v) if isinstance(v, Sequence) else v
    for k, v in given.items() if v is not None
  }  # fmt: skip
  weights.write_json(
    directory / 'generation_config.json', tokens | generation | given
  )
  weights.write_json(
    directory / 'config.json', config_dict(config, dtype) | tokens | given
  )


def _tensors(config, params, dtype) -> Iterator:
  """Every tensor in layer order, fetched from the devices when asked for."""
  itemsize = jnp.dtype(dtype).itemsize

  def entry(name, value, layer, transposed):
    def fetch():
      part = value if layer is None else value[layer]
      part = np.asarray(sharding_lib.fetch(part.astype(dtype)))
      return part.T if transposed else part

    size = value.size if layer is None else value.size // value.shape[0]
    return name, size * itemsize, fetch

  entries = {}
  for path, value in _leaves(params):
    names, transposed = tensor_names(path, config.num_layers)
    for i, name in enumerate(names):
      layer = i if path[0] == 'layers' else None
      entries[layer, path] = entry(name, value, layer, transposed)
  yield entries.pop((None, ('embedding',)))
  for layer in range(config.num_layers):
    for path in _LAYER_NAMES:
      if (layer, ('layers', *path)) in entries:
        yield entries.pop((layer, ('layers', *path)))
  yield from entries.values()


def _carry_over(source, directory):
  """Copies tokenizer files; returns token ids and generation settings."""
  for file in TOKENIZER_FILES:
    (directory / file).unlink(missing_ok=True)
    if (source / file).exists():
      shutil.copyfile(source / file, directory / file)
  raw = weights.read_json(source / 'config.json')
  ids = ('bos_token_id', 'eos_token_id', 'pad_token_id')
  tokens = {k: raw[k] for k in ids if raw.get(k) is not None}
  generation = source / 'generation_config.json'
  return tokens, weights.read_json(generation) if generation.exists() else {}
