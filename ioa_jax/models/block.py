"""One layer of the decoder, and what it is made of.

Shapes: B batch, L length, D width, H query heads, K key/value heads, E head
width, F feed-forward width.
"""

from __future__ import annotations

import functools

from flax import nnx
import jax
import jax.numpy as jnp

from ioa_jax.models import lora, quantised, rope
from ioa_jax.runtime import sharding

# Where a product has no more rows than this, the kernel is its left operand.
_FEW_ROWS = 64


class RMSNorm(nnx.Module):
  def __init__(self, config, width: int):
    self.eps = config.norm_eps
    self.from_one = config.differences.norms_from_one
    fresh = jnp.zeros if self.from_one else jnp.ones
    self.scale = nnx.Param(fresh((width,)))

  def __call__(self, x_BxLxD):
    # The mean square in float32: bf16 loses small activations beside large.
    x = x_BxLxD.astype(jnp.float32)
    variance = jnp.mean(jnp.square(x), axis=-1, keepdims=True)
    x = x * jax.lax.rsqrt(variance + self.eps)
    if self.from_one:
      x = x * (1.0 + self.scale[...].astype(jnp.float32))
      return x.astype(x_BxLxD.dtype)
    x = x.astype(x_BxLxD.dtype)
    return x * self.scale[...].astype(x.dtype)


def product(rows_BxD, kernel_DxF, **precision):
  """`rows @ kernel`, for few rows on CPU as the transposed product.

  XLA on CPU copies the right operand into blocks first. While decoding that
  should be the few rows and not the kernel: at 16 it takes 0.6 of the time.
  """
  multiply = functools.partial(jnp.matmul, **precision)
  if len(rows_BxD) > _FEW_ROWS or sharding.platform() != 'cpu':
    return multiply(rows_BxD, kernel_DxF)
  # Without the barriers XLA sees through it and turns the product around again.
  column_DxB = jax.lax.optimization_barrier(rows_BxD.T)
  return jax.lax.optimization_barrier(multiply(kernel_DxF.T, column_DxB)).T


# Else the whole kernels of all layers were kept for the backward pass.
@jax.checkpoint
def _quantised_product(rows_BxD, kernel):
  return product(rows_BxD, quantised.whole(kernel, rows_BxD.dtype))


class Linear(nnx.Module):
  def __init__(self, in_width, out_width, *, bias=False, rngs):
    std = in_width**-0.5
    self.kernel = nnx.Param(
      std * jax.random.normal(rngs.params(), (in_width, out_width))
    )
    self.bias = nnx.Param(jnp.zeros((out_width,))) if bias else None

  def __call__(self, x, adapter=None):
    # Flat rows: XLA on CPU computes the kernel's gradient 1.6 times faster as a
    # 2-D product than as a 3-D contraction, and on TPU they are the same.
    kernel = self.kernel.get_value()
    multiply = _quantised_product
    if not quantised.is_quantised(kernel):
      kernel, multiply = kernel.astype(x.dtype), product
    rows = x.reshape(-1, x.shape[-1])
    y = multiply(rows, kernel)
    if adapter is not None:
      y = y + lora.delta(rows, adapter)
    y = y.reshape(*x.shape[:-1], -1)
    return y if self.bias is None else y + self.bias[...].astype(x.dtype)


_ACTIVATIONS = {
  'silu': jax.nn.silu,
  'gelu_tanh': functools.partial(jax.nn.gelu, approximate=True),
}


# CSE stays prevented: where layers are unrolled it would keep everything again.
@functools.partial(jax.checkpoint, static_argnums=(2,))
def _gated(gate_BxLxF, up_BxLxF, activation: str):
  """Keeps its arguments for the backward pass, and makes the steps again."""
  return _ACTIVATIONS[activation](gate_BxLxF) * up_BxLxF


class Block(nnx.Module):
  """One layer: attention and feed-forward, each on a normed residual."""

  def __init__(self, config, rngs: nnx.Rngs):
    c, e, differs = config, config.head_width, config.differences
    linear = functools.partial(Linear, rngs=rngs)
    norm = lambda there, width: RMSNorm(c, width) if there else None
    self.config = config
    self.attention_norm = RMSNorm(c, c.width)
    self.q_proj = linear(c.width, c.num_heads * e, bias=differs.qkv_bias)
    self.k_proj = linear(c.width, c.num_kv_heads * e, bias=differs.qkv_bias)
    self.v_proj = linear(c.width, c.num_kv_heads * e, bias=differs.qkv_bias)
    self.q_norm = norm(differs.qk_norm, e)
    self.k_norm = norm(differs.qk_norm, e)
    self.o_proj = linear(c.num_heads * e, c.width)
    self.attention_out_norm = norm(differs.out_norms, c.width)
    self.mlp_norm = RMSNorm(c, c.width)
    self.gate_proj = linear(c.width, c.mlp_width)
    self.up_proj = linear(c.width, c.mlp_width)
    self.down_proj = linear(c.mlp_width, c.width)
    self.mlp_out_norm = norm(differs.out_norms, c.width)

  def __call__(self, x_BxLxD, angles, attend, adapters=None):
    """`attend` takes q, k and v; returns x and its keys and values."""
    b, l, _ = x_BxLxD.shape
    e = self.config.head_width
    adapter = (adapters or {}).get
    h = self.attention_norm(x_BxLxD)
    q = self.q_proj(h, adapter('q_proj')).reshape(b, l, -1, e)
    k = self.k_proj(h, adapter('k_proj')).reshape(b, l, -1, e)
    v = self.v_proj(h, adapter('v_proj')).reshape(b, l, -1, e)
    if self.q_norm is not None:
      q, k = self.q_norm(q), self.k_norm(k)
    q, k = rope.rotate(q, *angles), rope.rotate(k, *angles)
    q = sharding.constrain(q, ('batch', 'length', 'heads', None))
    attended = attend(q, k, v).reshape(b, l, -1)
    out = self.o_proj(attended, adapter('o_proj'))
    if self.attention_out_norm is not None:
      out = self.attention_out_norm(out)
    x_BxLxD = x_BxLxD + out
    h = self.mlp_norm(x_BxLxD)
    gate = self.gate_proj(h, adapter('gate_proj'))
    up = self.up_proj(h, adapter('up_proj'))
    gated = _gated(gate, up, self.config.differences.activation)
    gated = sharding.constrain(gated, ('batch', 'length', 'mlp'))
    out = self.down_proj(gated, adapter('down_proj'))
    if self.mlp_out_norm is not None:
      out = self.mlp_out_norm(out)
    x_BxLxD = x_BxLxD + out
    return sharding.constrain(x_BxLxD, ('batch', 'length', 'embed')), (k, v)
