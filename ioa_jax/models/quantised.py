"""Weights that do not train, in 8 or 4 bits: LoRA over them is QLoRA.

Only the layers' projections are quantised (Dettmers et al., 2023): embeddings,
unembedding and norms stay as they are. A projection is made whole again, in the
compute dtype, when its layer multiplies with it, forwards and backwards. The
quantised arrays are those of `qwix`, whose leaves are stacked over layers like
any other parameter.

Shapes: N layers, D inputs, F outputs, R rows.
"""

from __future__ import annotations

import functools
import math
from typing import Any

import jax
import jax.numpy as jnp

from ioa_jax.runtime import sharding

# Inputs that share a scale in 4 bits; in 8 bits all of an output do.
_NF4_BLOCK = 64

KINDS = ('int8', 'nf4')


def _qwix():
  """Imported where used: it is an extra."""
  try:
    import qwix
  except ImportError as e:
    raise ValueError(
      f"quantised weights need qwix ({e}): pip install -e '.[qlora]'"
    ) from None
  return qwix


def is_quantised(kernel: Any) -> bool:
  return hasattr(kernel, 'qvalue')


def quantise(kernel_NxDxF: jax.Array, kind: str):
  """A stack of kernels as `qwix.QArray`, with scales in float32.

  'int8' rounds to 255 steps of an output's largest weight; 'nf4' to 16 levels,
  the quantiles of a normal distribution, of the largest of 64 weights.

  Raises:
    ValueError: for another kind, or without qwix.
  """
  if kind not in KINDS:
    raise ValueError(f'quantization {kind!r} unknown; choose of {KINDS}.')
  qwix = _qwix()
  how: dict[str, Any] = {'qtype': jnp.int8, 'channelwise_axes': (1,)}
  if kind == 'nf4':
    block = math.gcd(_NF4_BLOCK, kernel_NxDxF.shape[1])
    how = {'qtype': 'nf4', 'channelwise_axes': (1,), 'tiled_axes': {0: block}}

  def one(kernel_DxF):
    return qwix.quantize(kernel_DxF.astype(jnp.float32), **how)

  # Layer by layer: what is compared with the levels is 16 times as large.
  return jax.lax.map(one, kernel_NxDxF)


def quantise_projections(params: dict[str, Any], kind: str) -> dict[str, Any]:
  """Parameters with all projections of layers quantised."""
  layers = _each_kernel(params['layers'], lambda x: quantise(x, kind))
  return {**params, 'layers': layers}


def whole_projections(layers: dict[str, Any]) -> dict[str, Any]:
  """Layers' parameters with none of them quantised."""
  return _each_kernel(layers, whole)


def _each_kernel(layers, change):
  return {
    name: {**part, 'kernel': change(part['kernel'])}
    if 'kernel' in part
    else part
    for name, part in layers.items()
  }


def quantise_on_devices(path: tuple[str, ...], kernel: jax.Array, kind: str):
  """`quantise` where `kernel` lies.

  Args:
    path: of the parameter, for where its parts go.
  """
  make = functools.partial(quantise, kind=kind)
  shardings = None
  if isinstance(kernel.sharding, jax.sharding.NamedSharding):
    nested: Any = jax.eval_shape(make, kernel)
    for key in reversed(path):
      nested = {key: nested}
    nested = sharding.param_shardings(kernel.sharding.mesh, nested)
    for key in path:
      nested = nested[key]
    shardings = nested
  return jax.jit(make, out_shardings=shardings)(kernel)


def whole(kernel: Any, dtype: Any = None) -> jax.Array:
  """A kernel that may be quantised, in `dtype` (None: float32, or its own)."""
  if not is_quantised(kernel):
    return kernel if dtype is None else kernel.astype(dtype)
  if kernel.qvalue.ndim == 3:
    found = jax.lax.map(_qwix().dequantize, kernel)
  else:
    found = _qwix().dequantize(kernel)
  return found if dtype is None else found.astype(dtype)
