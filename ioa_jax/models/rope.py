"""Rotary positions, and the ways to stretch them that published models use.

Shapes: B batch, L length, H heads, E head width.
"""

from __future__ import annotations

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np


@dataclasses.dataclass(frozen=True)
class Llama3:
  """Llama 3's frequency scaling (`rope_type: "llama3"` in Hugging Face).

  Long wavelengths are stretched by `factor`, short ones kept, the band between
  is blended.
  """

  factor: float
  low_freq_factor: float
  high_freq_factor: float
  original_max_position_embeddings: int


@dataclasses.dataclass(frozen=True)
class Linear:
  """Every wavelength is stretched by `factor` (Chen et al., 2023)."""

  factor: float


@dataclasses.dataclass(frozen=True)
class Yarn:
  """YaRN (Peng et al., 2023): Qwen's way to 128k.

  Dimensions that turn less than `beta_slow` times in the original length are
  stretched by `factor`, those that turn more than `beta_fast` times are kept.
  `attention_factor` multiplies cosines and sines, and so the scores twice.
  `truncate` widens the band between to whole dimensions.
  """

  factor: float
  original_max_position_embeddings: int
  attention_factor: float
  beta_fast: float = 32.0
  beta_slow: float = 1.0
  truncate: bool = True


@dataclasses.dataclass(frozen=True)
class Dynamic:
  """Dynamic NTK scaling: the base grows with the length of the text.

  Up to `original_max_position_embeddings` tokens it changes nothing.
  """

  factor: float
  original_max_position_embeddings: int


Scaling = Llama3 | Linear | Yarn | Dynamic


def yarn_attention_factor(
  factor: float, mscale: float | None, mscale_all_dim: float | None
) -> float:
  """What YaRN takes where a model names no `attention_factor` of its own."""
  grown = lambda m: 0.1 * m * math.log(factor) + 1.0 if factor > 1 else 1.0
  if mscale and mscale_all_dim:
    return grown(mscale) / grown(mscale_all_dim)
  return grown(1.0)


def frequencies(
  head_width: int, theta: float, scaling: Scaling | None
) -> np.ndarray:
  """Radians per position, shape (E/2,), float32.

  Made on the host, in float32 and in the order in which the published models
  were trained: at position 1e5 one unit in the last place of a frequency is
  4e-3 radians, which is visible in the logits. Of `Dynamic` those up to its
  original length.
  """
  exponent = np.arange(0, head_width, 2, dtype=np.float32) / head_width
  power = np.power(np.float64(theta), exponent.astype(np.float64))
  power = power.astype(np.float32)
  frequency = np.float32(1.0) / power
  if isinstance(scaling, Linear):
    return frequency / np.float32(scaling.factor)
  if isinstance(scaling, Llama3):
    return _llama3(frequency, scaling)
  if isinstance(scaling, Yarn):
    return _yarn(power, theta, scaling)
  return frequency


def _llama3(frequency, scaling: Llama3):
  original = scaling.original_max_position_embeddings
  wavelength = np.float32(2 * math.pi) / frequency
  stretched = frequency / np.float32(scaling.factor)
  smooth = (
    np.float32(original) / wavelength - np.float32(scaling.low_freq_factor)
  ) / np.float32(scaling.high_freq_factor - scaling.low_freq_factor)
  blended = (1 - smooth) * stretched + smooth * frequency
  long = wavelength > original / scaling.low_freq_factor
  short = wavelength < original / scaling.high_freq_factor
  return np.where(long, stretched, np.where(short, frequency, blended))


def _yarn(power, theta: float, scaling: Yarn):
  width = 2 * len(power)

  def dimension(turns):
    """Which one turns so often in the original length."""
    wavelength = scaling.original_max_position_embeddings / turns
    return width * math.log(wavelength / (2 * math.pi)) / (2 * math.log(theta))

  first, last = dimension(scaling.beta_fast), dimension(scaling.beta_slow)
  if scaling.truncate:
    first, last = math.floor(first), math.ceil(last)
  first, last = max(first, 0), min(last, width - 1)
  if first == last:
    last += 0.001
  place = np.arange(len(power), dtype=np.float32)
  stretch = np.clip(
    (place - np.float32(first)) / np.float32(last - first), 0, 1
  ).astype(np.float32)
  stretched = np.float32(1.0) / (np.float32(scaling.factor) * power)
  kept = 1 - stretch
  return stretched * (1 - kept) + np.float32(1.0) / power * kept


def tables(
  position_BxL: jax.Array,
  length_BxL: jax.Array | None,
  *,
  head_width: int,
  theta: float,
  scaling: Scaling | None,
) -> tuple[jax.Array, jax.Array]:
  """Cosines and sines, each (B, L, E/2).

  Args:
    length_BxL: tokens of the text that each token belongs to, as far as it is
      known; only `Dynamic` reads it.
  """
  position = position_BxL[..., None].astype(jnp.float32)
  if isinstance(scaling, Dynamic):
    angle = position * _dynamic(length_BxL, head_width, theta, scaling)
  else:
    frequency_E2 = frequencies(head_width, theta, scaling)
    angle = position * frequency_E2[None, None]
  cos, sin = jnp.cos(angle), jnp.sin(angle)
  if isinstance(scaling, Yarn):
    factor = np.float32(scaling.attention_factor)
    cos, sin = cos * factor, sin * factor
  return cos, sin


def _dynamic(length_BxL, head_width, theta, scaling: Dynamic):
  """Frequencies (B, L, E/2) of texts of these lengths."""
  original = scaling.original_max_position_embeddings
  excess = jnp.maximum(length_BxL, original) - original
  # `factor * length / original - (factor - 1)`, exact where nothing is added.
  grown = 1 + np.float32(scaling.factor) * excess.astype(jnp.float32) / original
  exponent = np.arange(0, head_width, 2, dtype=np.float32) / head_width
  # theta * grown^(E / (E - 2)), raised to the exponent.
  slower = exponent * np.float32(head_width / (head_width - 2))
  frequency_E2 = frequencies(head_width, theta, scaling)
  return frequency_E2 / grown[..., None] ** slower


def text_lengths(segment_BxL: jax.Array, position_BxL: jax.Array) -> jax.Array:
  """(B, L): one more than the last position of each token's segment."""
  size = segment_BxL.shape[1] + 1
  last = lambda segment_L, position_L: jax.ops.segment_max(
    position_L, segment_L, num_segments=size
  )[segment_L]
  return jax.vmap(last)(segment_BxL, position_BxL) + 1


def rotate(
  x_BxLxHxE: jax.Array, cos_BxLxE2: jax.Array, sin_BxLxE2: jax.Array
) -> jax.Array:
  """Rotates the two halves of each head (Hugging Face's layout)."""
  cos, sin = cos_BxLxE2[:, :, None, :], sin_BxLxE2[:, :, None, :]
  first, second = jnp.split(x_BxLxHxE.astype(jnp.float32), 2, axis=-1)
  rotated = jnp.concatenate(
    [first * cos - second * sin, second * cos + first * sin], axis=-1
  )
  return rotated.astype(x_BxLxHxE.dtype)
