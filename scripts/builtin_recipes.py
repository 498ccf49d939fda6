"""What `train_builtin_teacher.py` makes: sizes, data and schedules."""

from collections.abc import Callable, Sequence
import dataclasses
import functools
import types
from typing import Any

import numpy as np
import tokenizers

from ioa_jax.domains import arithmetic, composition
from ioa_jax.domains import tokenizer as tokenizer_lib
from ioa_jax.models import decoder


@dataclasses.dataclass(frozen=True, kw_only=True)
class Recipe:
  """What differs between the models.

  Attributes:
    domain: the module `arithmetic` or `composition`.
    problem: module and generator to a problem that training may show.
    weights: share of each module in the training text, or None for equal.
    direct_share: share of problems with steps that are answered directly.
    generic_share: share of copying and reversing.
    average_rate: of the moving average that is written, a step.
    dtype: of the shipped file.
  """

  domain: types.ModuleType
  problem: Callable[[str, np.random.Generator], Any]
  tokenizer: tokenizers.Tokenizer
  config: decoder.DecoderConfig
  modules: Sequence[str]
  weights: np.ndarray | None = None
  direct_share: float
  generic_share: float
  optimizer: str = 'adamw'
  batch_rows: int = 32
  steps: int
  learning_rate: float
  weight_decay: float
  average_rate: float = 0.005
  dtype: str


def _decoder(vocab_size, width, heads, kv_heads, layers, mlp_width):
  return decoder.DecoderConfig(
    vocab_size=vocab_size,
    width=width,
    num_layers=layers,
    num_heads=heads,
    num_kv_heads=kv_heads,
    head_width=width // heads,
    mlp_width=mlp_width,
    scan_unroll=layers,
  )


def _arithmetic_problem(name, rng):
  size = 1.0 if rng.random() < 0.8 else 0.1 + 0.9 * rng.random()
  return arithmetic.training_problem(name, rng, size)


def _arithmetic(role: str) -> Recipe:
  names = [m.name for m in arithmetic.MODULES]
  common = functools.partial(
    Recipe,
    domain=arithmetic,
    problem=_arithmetic_problem,
    tokenizer=tokenizer_lib.build(),
  )
  if role == 'student':
    return common(
      config=_decoder(32, 64, 4, 4, 3, 160),
      modules=arithmetic.EASY_MODULES,
      direct_share=0.0,
      generic_share=0.3,
      steps=1200,
      learning_rate=4e-3,
      weight_decay=0.01,
      dtype='float32',
    )
  # What is learned last, or what the other modules call, is shown more often.
  weights = np.array([2.0] * len(names))
  weights[: len(arithmetic.EASY_MODULES)] = 1.0
  weights[names.index('comparison/larger')] = 2.5
  weights[names.index('multiplication/table')] = 3.0
  return common(
    config=_decoder(32, 192, 6, 3, 4, 512),
    modules=names,
    weights=weights / weights.sum(),
    direct_share=0.1,
    generic_share=0.05,
    steps=2800,
    learning_rate=1.5e-3,
    weight_decay=0.05,
    dtype='bfloat16',
  )


def _composition_problem(name, rng):
  # Half of them smaller: short numbers show sooner how digits are lined up.
  high = 1.0 if rng.random() < 0.5 else 0.1 + 0.9 * rng.random()
  return composition.training_problem(name, rng, high=high)


def _composition(role: str) -> Recipe:
  common = functools.partial(
    Recipe,
    domain=composition,
    problem=_composition_problem,
    tokenizer=composition.build_tokenizer(),
    optimizer='muon',
  )
  if role == 'student':
    return common(
      config=_decoder(44, 48, 3, 3, 3, 128),
      modules=composition.EASY_MODULES,
      # Sums and differences are learned last.
      weights=np.array([2, 2, 1, 1]) / 6,
      direct_share=0.0,
      generic_share=0.1,
      steps=1100,
      learning_rate=6e-3,
      weight_decay=0.1,
      dtype='float32',
    )
  names = [m.name for m in composition.MODULES]
  # Two numbers that have to be lined up are learned last.
  weights = np.array([2.0] * len(names))
  for name in ('numbers/sum', 'numbers/difference', 'numbers/distance'):
    weights[names.index(name)] = 4.0
  return common(
    config=_decoder(44, 128, 4, 4, 4, 384),
    modules=names,
    weights=weights / weights.sum(),
    direct_share=0.5,
    generic_share=0.02,
    batch_rows=48,
    steps=1000,
    learning_rate=4e-3,
    weight_decay=0.1,
    average_rate=0.01,
    dtype='bfloat16',
  )


RECIPES = {'arithmetic': _arithmetic, 'composition': _composition}
