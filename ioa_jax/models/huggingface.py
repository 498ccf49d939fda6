"""Hugging Face model directories, in and out.

`config.json` and safetensors become a `DecoderConfig` and parameters; `save`
writes a directory that transformers and vLLM load as is. Tokenizers are in
`vocabulary.py`, hub ids in `hub.py`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
import functools
import pathlib
import shutil
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ioa_jax.models import checks, config_json, decoder, quantised, weights
from ioa_jax.runtime import sharding as sharding_lib

ModelError = weights.ModelError

read_config, config_dict = config_json.read_config, config_json.config_dict

# Our name of a layer's parameter: (Hugging Face's, whether it is transposed).
_LAYER_NAMES = {
  ('attention_norm', 'scale'): ('input_layernorm.weight', False),
  ('q_proj', 'kernel'): ('self_attn.q_proj.weight', True),
  ('q_proj', 'bias'): ('self_attn.q_proj.bias', False),
  ('k_proj', 'kernel'): ('self_attn.k_proj.weight', True),
  ('k_proj', 'bias'): ('self_attn.k_proj.bias', False),
  ('v_proj', 'kernel'): ('self_attn.v_proj.weight', True),
  ('v_proj', 'bias'): ('self_attn.v_proj.bias', False),
  ('q_norm', 'scale'): ('self_attn.q_norm.weight', False),
  ('k_norm', 'scale'): ('self_attn.k_norm.weight', False),
  ('o_proj', 'kernel'): ('self_attn.o_proj.weight', True),
  ('mlp_norm', 'scale'): ('post_attention_layernorm.weight', False),
  ('gate_proj', 'kernel'): ('mlp.gate_proj.weight', True),
  ('up_proj', 'kernel'): ('mlp.up_proj.weight', True),
  ('down_proj', 'kernel'): ('mlp.down_proj.weight', True),
}
# With a norm behind attention, Llama's name of the next one is that one's.
_OUT_NORM_NAMES = {
  ('attention_out_norm', 'scale'): ('post_attention_layernorm.weight', False),
  ('mlp_norm', 'scale'): ('pre_feedforward_layernorm.weight', False),
  ('mlp_out_norm', 'scale'): ('post_feedforward_layernorm.weight', False),
}
_TOP_NAMES = {
  ('embedding',): ('model.embed_tokens.weight', False),
  ('final_norm', 'scale'): ('model.norm.weight', False),
  ('lm_head', 'kernel'): ('lm_head.weight', True),
}

# What is carried from a model directory to one made from it, byte for byte.
TOKENIZER_FILES = (
  'tokenizer.json',
  'tokenizer_config.json',
  'special_tokens_map.json',
  'added_tokens.json',
  'vocab.json',
  'merges.txt',
  'tokenizer.model',
  'chat_template.jinja',
)


def tensor_names(
  path: tuple[str, ...], num_layers: int, *, out_norms: bool = False
) -> tuple[list[str], bool]:
  """Hugging Face names of one of our parameters, and whether to transpose.

  Args:
    out_norms: whether the architecture has them; projections are called alike.
  """
  if path[0] != 'layers':
    name, transposed = _TOP_NAMES[path]
    return [name], transposed
  names = _LAYER_NAMES | _OUT_NORM_NAMES if out_norms else _LAYER_NAMES
  name, transposed = names[path[1:]]
  return [f'model.layers.{i}.{name}' for i in range(num_layers)], transposed


def _leaves(params) -> list[tuple[tuple[str, ...], Any]]:
  leaves = jax.tree_util.tree_leaves_with_path(params)
  return [(tuple(k.key for k in path), leaf) for path, leaf in leaves]


def load_params(
  directory: str | pathlib.Path,
  config: decoder.DecoderConfig,
  dtype: str = 'float32',
  *,
  quantization: str = '',
  shardings: Any = None,
) -> decoder.Params:
  """Streams every parameter of `config` to its devices, in `dtype`.

  Args:
    quantization: of the layers' projections, of `quantised.KINDS`; one at a
      time is whole on the devices. '' is none.
    shardings: a tree of shardings like the parameters, see
      `sharding.param_shardings`; None puts all on the first local device.

  Raises:
    ModelError: naming file and tensor, if one is missing, unknown, or of
      another shape or dtype. Headers are checked before any weight is read.
  """
  store = weights.Store(directory)
  names_of = functools.partial(_stored_names, store, config)
  abstract = decoder.abstract_params(config)
  leaves = _leaves(abstract)
  known = set()
  for path, leaf in leaves:
    names, transposed = names_of(path)
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
    names, transposed = names_of(path)
    value = weights.to_device(
      store,
      names,
      transposed=transposed,
      shape=leaf.shape,
      dtype=dtype,
      sharding=to,
    )
    if quantization and path[0] == 'layers' and path[-1] == 'kernel':
      value = quantised.quantise_on_devices(path, value, quantization)
    loaded.append(value)
  return jax.tree.unflatten(jax.tree.structure(abstract), loaded)


# Where the text's part of a model with images lies, by transformers 4 and 5;
# and its other parts.
_TEXT_PARTS = ('language_model.model.', 'model.language_model.')
_IMAGE_PARTS = (
  'vision_tower.',
  'multi_modal_projector.',
  'model.vision_tower.',
  'model.multi_modal_projector.',
)


def _stored_names(store, config, path) -> tuple[list[str], bool]:
  """`tensor_names` as they are in a store, whole or part of another model."""
  names, transposed = tensor_names(
    path, config.num_layers, out_norms=config.differences.out_norms
  )
  # A tied pair may be stored under either's name.
  if (
    path == ('embedding',)
    and config.tie_embeddings
    and weights.EMBEDDING not in store.files
    and weights.HEAD in store.files
  ):
    return [weights.HEAD], False
  for part in _TEXT_PARTS:
    if f'{part}embed_tokens.weight' in store.files:
      names = [n.replace('model.', part, 1) for n in names]
  return names, transposed


def _refuse_unknown(store, known, config):
  """A weight that is left out would make another model of the same name."""
  has_images = any(name.startswith(_TEXT_PARTS) for name in known)
  for name in sorted(set(store.files) - known):
    if has_images and name.startswith(_IMAGE_PARTS):
      continue  # The student reads text.
    if name.endswith('rotary_emb.inv_freq'):
      continue  # Old exports keep what config.json says.
    if name.removeprefix('language_model.') == weights.HEAD and (
      config.tie_embeddings
    ):
      continue  # A copy of the embedding, see `weights.has_own_head`.
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
  max_shard_bytes: int = 2 * 10**9,
) -> None:
  """Writes a directory that transformers and vLLM load as is.

  `config.json` comes last: a directory that has one is complete.

  Args:
    params: projections may be `lora.MergedKernel`, which are made one layer at
      a time.
    dtype: what weights are stored in; parameters in it survive bit for bit.
    eos_token_id, pad_token_id: by default those of `source`.
    source: the model directory that `params` descend from. Its tokenizer, chat
      template and generation settings are carried over.
    max_shard_bytes: larger models are split, with an index.

  Raises:
    ModelError: for parameters that `dtype` cannot hold, or that are no numbers.
  """
  directory = pathlib.Path(directory)
  if source is not None and pathlib.Path(source).resolve() == (
    directory.resolve()
  ):
    raise ModelError(f'{directory}: is the source itself; choose another.')
  # Before the directory is touched.
  checks.fits_in(params, dtype, directory)
  directory.mkdir(parents=True, exist_ok=True)
  (directory / 'config.json').unlink(missing_ok=True)
  weights.write(directory, _tensors(config, params, dtype), max_shard_bytes)
  save_small_files(
    directory,
    config,
    dtype=dtype,
    eos_token_id=eos_token_id,
    pad_token_id=pad_token_id,
    source=source,
  )


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
    for k, v in given.items()
    if v is not None
  }
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
    names, transposed = tensor_names(
      path, config.num_layers, out_norms=config.differences.out_norms
    )
    for i, name in enumerate(names):
      layer = i if path[0] == 'layers' else None
      entries[layer, path] = entry(name, value, layer, transposed)
  yield entries.pop((None, ('embedding',)))
  for layer in range(config.num_layers):
    for path in _LAYER_NAMES | _OUT_NORM_NAMES:
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
