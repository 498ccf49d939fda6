"""A model with its tokenizer: what a teacher and a student both are."""

from __future__ import annotations

from collections.abc import Sequence
import dataclasses
import pathlib

import jax
import tokenizers

from ioa_jax.models import (
  checks,
  decoder,
  huggingface,
  orbax_params,
  vocabulary,
)
from ioa_jax.runtime import sharding


@dataclasses.dataclass(frozen=True)
class Model:
  """Weights, sizes and tokenizer from one directory.

  Attributes:
    source: the directory.
    directory: where its config.json and its tokenizer are; the same, unless the
      weights are in Orbax format.
  """

  name: str
  source: pathlib.Path
  directory: pathlib.Path
  config: decoder.DecoderConfig
  params: decoder.Params
  tokenizer: tokenizers.Tokenizer

  @property
  def num_params(self) -> int:
    return decoder.num_params(self.config)

  def encode(self, text: str) -> list[int]:
    return self.tokenizer.encode(text).ids

  def decode(self, tokens: Sequence[int]) -> str:
    return self.tokenizer.decode(list(tokens))


def load(
  directory: pathlib.Path,
  name: str,
  *,
  scan_unroll: int = 1,
  remat: str = 'none',
  dtype: str = 'float32',
  param_dtype: str = 'float32',
  quantization: str = '',
  mesh: jax.sharding.Mesh | None = None,
) -> Model:
  """Reads a model directory, Hugging Face's or one of `orbax_params.save`.

  Args:
    scan_unroll, remat, dtype: see `DecoderConfig`.
    param_dtype: of the weights in memory; what trains is kept in float32.
    quantization: of projections that do not train, see `quantised`; '' is none.
    mesh: where the parameters lie; None is the first local device.

  Raises:
    ModelError: naming the file that is missing or damaged, or the parameter or
      token that makes the model useless; see `checks`.
  """
  directory = pathlib.Path(directory)
  in_orbax = orbax_params.is_alone(directory)
  weights = directory
  if in_orbax:
    directory = directory / orbax_params.MODEL
  config = dataclasses.replace(
    huggingface.read_config(directory),
    scan_unroll=scan_unroll,
    remat=remat,
    dtype=dtype,
  )
  tokenizer = vocabulary.read_tokenizer(directory)
  checks.tokens(directory, config.vocab_size, tokenizer)
  shardings = None
  if mesh is not None:
    shardings = sharding.param_shardings(mesh, decoder.abstract_params(config))
  if in_orbax:
    if quantization:
      raise huggingface.ModelError(
        f'{weights}: is in Orbax format, which is not quantised as it is read; '
        'convert it to safetensors with scripts/convert_checkpoint.py.'
      )
    params = orbax_params.load(
      weights, config, dtype=param_dtype, shardings=shardings
    )
  else:
    params = huggingface.load_params(
      directory,
      config,
      param_dtype,
      quantization=quantization,
      shardings=shardings,
    )
  checks.finite(params, weights)
  return Model(name, weights, directory, config, params, tokenizer)
