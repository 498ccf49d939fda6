"""Rotary positions, with Llama 3's stretched wavelengths.

Shapes: B batch, L length, H heads, E head width.
"""

from __future__ import annotations

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np


@dataclasses.dataclass(frozen=True)
class RopeScaling:
  """Llama 3's frequency scaling (`rope_type: "llama3"` in Hugging Face)."""

  factor: float
  low_freq_factor: float
  high_freq_factor: float
  original_max_position_embeddings: int


def frequencies(
  head_width: int, theta: float, scaling: RopeScaling | None
) -> np.ndarray:
  """Radians per position, shape (E/2,), float32.

  Made on the host, in float32 and in the order in which the published models
  were trained: at position 1e5 one unit in the last place of a frequency is
  4e-3 radians, which is visible in the logits.
  """
  exponent = np.arange(0, head_width, 2, dtype=np.float32) / head_width
  power = np.power(np.float64(theta), exponent.astype(np.float64))
  frequency = np.float32(1.0) / power.astype(np.float32)
  if scaling is None:
    return frequency
  # Long wavelengths are stretched by `factor`, short ones kept, the band
  # between is blended.
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


def tables(
  position_BxL: jax.Array, frequency_E2: np.ndarray
) -> tuple[jax.Array, jax.Array]:
  """Cosines and sines, each (B, L, E/2)."""
  angle = position_BxL[..., None].astype(jnp.float32) * frequency_E2[None, None]
  return jnp.cos(angle), jnp.sin(angle)


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
