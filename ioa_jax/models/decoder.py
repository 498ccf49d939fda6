"""The decoder that carries every student and teacher: Llama 3.x and Qwen2.5.

RMSNorm, rotary positions, grouped-query attention, SwiGLU. Layers are stacked
on a leading axis and scanned, so compile time does not grow with depth.

The module is split once, here. Everywhere else parameters are a nested dict of
arrays and `forward` is a pure function of them.

Shapes: B batch, L query length, S key length (S = L without a cache), D width,
H query heads, K key/value heads, G = H / K queries per key, E head width,
F feed-forward width, N layers, V vocabulary.
"""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

from flax import nnx
import flax.struct
import jax
import jax.numpy as jnp

from ioa_jax.models import attention, lora, rope
from ioa_jax.runtime import sharding

Params = dict[str, Any]

# Where a product has no more rows than this, the kernel is its left operand.
_FEW_ROWS = 64

REMAT_POLICIES = {
  'none': None,
  'full': jax.checkpoint_policies.nothing_saveable,
  'dots': jax.checkpoint_policies.dots_with_no_batch_dims_saveable,
}


@dataclasses.dataclass(frozen=True)
class DecoderConfig:
  """Sizes and constants of one decoder; hashable, so it can be static.

  `qkv_bias` is Qwen2.5's. `dtype` is the compute dtype; parameters keep the
  dtype they are given. `remat` is one of REMAT_POLICIES. `scan_unroll` layers
  are laid out in one iteration of the scan: 1 compiles fastest, `num_layers`
  runs fastest on CPU, where a loop copies what it saves for the backward pass.
  `max_positions` is the longest text the model was made for; it is exported,
  nothing here depends on it. Ids from `num_tokens` on are rows that pad the
  vocabulary; their logits are masked. None masks nothing.
  """

  vocab_size: int
  width: int
  num_layers: int
  num_heads: int
  num_kv_heads: int
  head_width: int
  mlp_width: int
  rope_theta: float = 10_000.0
  rope_scaling: rope.RopeScaling | None = None
  norm_eps: float = 1e-5
  qkv_bias: bool = False
  tie_embeddings: bool = True
  max_positions: int = 8192
  num_tokens: int | None = None
  dtype: str = 'float32'
  remat: str = 'none'
  scan_unroll: int = 1

  def __post_init__(self):
    if self.num_heads % self.num_kv_heads:
      raise ValueError(
        f'num_heads {self.num_heads} is not a multiple of num_kv_heads '
        f'{self.num_kv_heads}; grouped-query attention needs whole groups.'
      )
    if self.remat not in REMAT_POLICIES:
      raise ValueError(
        f'remat {self.remat!r} unknown; choose of {sorted(REMAT_POLICIES)}.'
      )


def for_decoding(config: DecoderConfig) -> DecoderConfig:
  """`config` with its layers as they decode fastest here.

  Unrolled on CPU, where a scan copies weights and cache at every step; it takes
  longer to compile, and a second copy of the layers. See `split_layers`.
  """
  if sharding.platform() != 'cpu':
    return config
  return dataclasses.replace(config, scan_unroll=config.num_layers)


@flax.struct.dataclass
class Cache:
  """Keys and values of what was read, for incremental decoding.

  A token's column is its position, so what a row holds is how long it is.
  Heads come before columns: a row's attention then reads memory in order.
  With unrolled layers it is a tuple of N arrays (B, K, S, E), see
  `split_layers`.
  """

  key_NxBxKxSxE: jax.Array | tuple[jax.Array, ...]
  value_NxBxKxSxE: jax.Array | tuple[jax.Array, ...]


class _RMSNorm(nnx.Module):
  def __init__(self, config: DecoderConfig):
    self.eps = config.norm_eps
    self.scale = nnx.Param(jnp.ones((config.width,)))

  def __call__(self, x_BxLxD):
    # The mean square in float32: bf16 loses small activations beside large.
    x = x_BxLxD.astype(jnp.float32)
    variance = jnp.mean(jnp.square(x), axis=-1, keepdims=True)
    x = (x * jax.lax.rsqrt(variance + self.eps)).astype(x_BxLxD.dtype)
    return x * self.scale[...].astype(x.dtype)


def _product(rows_BxD, kernel_DxF, **precision):
  """`rows @ kernel`, for few rows on CPU as the transposed product.

  XLA on CPU copies the right operand into blocks first. While decoding that
  should be the few rows and not the kernel: at 16 it takes 0.6 of the time.
  """
  product = functools.partial(jnp.matmul, **precision)
  if len(rows_BxD) > _FEW_ROWS or sharding.platform() != 'cpu':
    return product(rows_BxD, kernel_DxF)
  # Without the barriers XLA sees through it and turns the product around again.
  column_DxB = jax.lax.optimization_barrier(rows_BxD.T)
  return jax.lax.optimization_barrier(product(kernel_DxF.T, column_DxB)).T


class _Linear(nnx.Module):
  def __init__(self, in_width, out_width, *, bias=False, rngs):
    std = in_width**-0.5
    self.kernel = nnx.Param(
      std * jax.random.normal(rngs.params(), (in_width, out_width))
    )
    self.bias = nnx.Param(jnp.zeros((out_width,))) if bias else None

  def __call__(self, x, adapter=None):
    # Flat rows: XLA on CPU computes the kernel's gradient 1.6 times faster as a
    # 2-D product than as a 3-D contraction, and on TPU they are the same.
    kernel = self.kernel[...].astype(x.dtype)
    rows = x.reshape(-1, x.shape[-1])
    y = _product(rows, kernel)
    if adapter is not None:
      y = y + lora.delta(rows, adapter)
    y = y.reshape(*x.shape[:-1], -1)
    return y if self.bias is None else y + self.bias[...].astype(x.dtype)


# CSE stays prevented: where layers are unrolled it would keep everything again.
@jax.checkpoint
def _swiglu(gate_BxLxF, up_BxLxF):
  """Keeps its arguments for the backward pass, and makes the steps again."""
  return jax.nn.silu(gate_BxLxF) * up_BxLxF


class _Block(nnx.Module):
  """One layer: attention and feed-forward, each on a normed residual."""

  def __init__(self, config: DecoderConfig, rngs: nnx.Rngs):
    c, e = config, config.head_width
    linear = functools.partial(_Linear, rngs=rngs)
    self.config = config
    self.attention_norm = _RMSNorm(c)
    self.q_proj = linear(c.width, c.num_heads * e, bias=c.qkv_bias)
    self.k_proj = linear(c.width, c.num_kv_heads * e, bias=c.qkv_bias)
    self.v_proj = linear(c.width, c.num_kv_heads * e, bias=c.qkv_bias)
    self.o_proj = linear(c.num_heads * e, c.width)
    self.mlp_norm = _RMSNorm(c)
    self.gate_proj = linear(c.width, c.mlp_width)
    self.up_proj = linear(c.width, c.mlp_width)
    self.down_proj = linear(c.mlp_width, c.width)

  def __call__(self, x_BxLxD, angles, segment_BxL, cache=None, adapters=None):
    """`cache` is (keys, values, held); returns x and its keys and values."""
    b, l, _ = x_BxLxD.shape
    e = self.config.head_width
    adapter = (adapters or {}).get
    h = self.attention_norm(x_BxLxD)
    q = self.q_proj(h, adapter('q_proj')).reshape(b, l, -1, e)
    k = self.k_proj(h, adapter('k_proj')).reshape(b, l, -1, e)
    v = self.v_proj(h, adapter('v_proj')).reshape(b, l, -1, e)
    q, k = rope.rotate(q, *angles), rope.rotate(k, *angles)
    q = sharding.constrain(q, ('batch', 'length', 'heads', None))
    if cache is None:
      attended = attention.attend_rows(q, k, v, segment_BxL)
    else:
      keys, values, held_B = cache
      attended = attention.attend_cached(q, k, v, (keys, values), held_B)
    attended = attended.reshape(b, l, -1)
    x_BxLxD = x_BxLxD + self.o_proj(attended, adapter('o_proj'))
    h = self.mlp_norm(x_BxLxD)
    gate = self.gate_proj(h, adapter('gate_proj'))
    gated = _swiglu(gate, self.up_proj(h, adapter('up_proj')))
    gated = sharding.constrain(gated, ('batch', 'length', 'mlp'))
    x_BxLxD = x_BxLxD + self.down_proj(gated, adapter('down_proj'))
    return sharding.constrain(x_BxLxD, ('batch', 'length', 'embed')), (k, v)


class Decoder(nnx.Module):
  """Embedding, N stacked blocks, final norm, and the unembedding."""

  def __init__(self, config: DecoderConfig, rngs: nnx.Rngs):
    self.config = config
    shape = (config.vocab_size, config.width)
    self.embedding = nnx.Param(
      config.width**-0.5 * jax.random.normal(rngs.params(), shape)
    )

    @nnx.split_rngs(splits=config.num_layers)
    @nnx.vmap(in_axes=0, out_axes=0)
    def stack(rngs):
      return _Block(config, rngs)

    self.layers = stack(rngs)
    self.final_norm = _RMSNorm(config)
    self.lm_head = (
      None if config.tie_embeddings
      else _Linear(config.width, config.vocab_size, rngs=rngs)
    )  # fmt: skip

  def __call__(
    self, token_BxL, segment_BxL, position_BxL, cache, held_B,
    layers, adapters,
  ):  # fmt: skip
    """`layers` are `split_layers`', or None where they are stacked."""
    x = self.embedding[...][token_BxL].astype(self.config.dtype)
    x = sharding.constrain(x, ('batch', 'length', 'embed'))
    c = self.config
    angles = rope.tables(
      position_BxL, rope.frequencies(c.head_width, c.rope_theta, c.rope_scaling)
    )
    block_graph, block_params = nnx.split(self.layers)

    def layer(x_BxLxD, inputs):
      params, keys_values, layer_adapters = inputs
      block = nnx.merge(block_graph, params)
      layer_cache = None if keys_values is None else (*keys_values, held_B)
      x_BxLxD, keys_values = block(
        x_BxLxD, angles, segment_BxL, layer_cache, layer_adapters
      )
      return x_BxLxD, None if cache is None else keys_values

    if layers is not None:
      written = []
      for i, own in enumerate(layers):
        params = jax.tree.unflatten(
          jax.tree.structure(block_params),
          [w.T if w.ndim == 2 else w for w in jax.tree.leaves(own)],
        )
        held = cache.key_NxBxKxSxE[i], cache.value_NxBxKxSxE[i]
        own_adapters = jax.tree.map(lambda a, i=i: a[i], adapters)
        x, keys_values = layer(x, (params, held, own_adapters))
        written.append(keys_values)
      return self.final_norm(x), tuple(zip(*written))

    policy = REMAT_POLICIES[c.remat]
    if policy is not None:
      layer = jax.checkpoint(layer, policy=policy, prevent_cse=False)
    keys_values = (
      None if cache is None else (cache.key_NxBxKxSxE, cache.value_NxBxKxSxE)
    )
    x, keys_values = jax.lax.scan(
      layer, x, (block_params, keys_values, adapters), unroll=c.scan_unroll
    )
    return self.final_norm(x), keys_values


@functools.lru_cache(maxsize=64)
def _graph(config: DecoderConfig):
  """The module's static half, made without allocating parameters."""
  abstract = nnx.eval_shape(lambda: Decoder(config, nnx.Rngs(0)))
  return nnx.split(abstract)


def init(config: DecoderConfig, key: jax.Array) -> Params:
  """Random parameters in float32, a nested dict; layers stacked on axis 0."""
  model = Decoder(config, nnx.Rngs(key))
  return nnx.to_pure_dict(nnx.state(model))


def abstract_params(config: DecoderConfig) -> Params:
  """Shapes and dtypes of `init`, without allocating anything."""
  return nnx.to_pure_dict(_graph(config)[1])


def num_params(config: DecoderConfig) -> int:
  return sum(x.size for x in jax.tree.leaves(abstract_params(config)))


def _apply(config, params, token_BxL, segment_BxL, position_BxL, cache, held_B):
  # Adapters are a tree beside the module's own parameters, see `lora.attach`.
  params = dict(params)
  adapters = params.pop('adapters', None)
  layers = params.pop('layers') if _are_split(params) else None
  graph, abstract = _graph(config)
  state = jax.tree.map(lambda x: x, abstract)
  nnx.replace_by_pure_dict(state, params)
  model = nnx.merge(graph, state)
  return model(
    token_BxL, segment_BxL, position_BxL, cache, held_B, layers, adapters
  )


def forward(
  config: DecoderConfig,
  params: Params,
  token_BxL: jax.Array,
  segment_BxL: jax.Array,
  position_BxL: jax.Array,
) -> jax.Array:
  """Final hidden states (B, L, D) of packed rows.

  Args:
    params: of `init`, or with adapters from `lora.attach`.
    segment_BxL: which sequence of the row a token belongs to, from 1; 0 is
      padding. Tokens see what comes before them in their own segment.
    position_BxL: position within the segment, rising; it only turns the heads.
  """
  hidden, _ = _apply(
    config, params, token_BxL, segment_BxL, position_BxL, None, None
  )
  return hidden


def _are_split(params: Params) -> bool:
  return isinstance(params['layers'], tuple)


def _unrolls(config: DecoderConfig) -> bool:
  return config.scan_unroll >= config.num_layers


def split_layers(config: DecoderConfig, params: Params) -> Params:
  """Parameters as `forward_cached` reads them fastest; done before a loop.

  Where layers are unrolled (`scan_unroll`), each gets arrays of its own, and
  its kernels lie transposed: XLA on CPU copies what it takes out of a stack,
  and that costs more than the products (a step of 16 rows at 8 layers of 512
  takes 32 ms, and 75 from a stack). It is a second copy of the layers. Where
  layers are scanned, their parameters stay as they are.
  """
  if not _unrolls(config) or _are_split(params):
    return params
  take = lambda i: jax.tree.map(
    lambda x: x[i].T if x.ndim == 3 else x[i], params['layers']
  )
  layers = tuple(map(take, range(config.num_layers)))
  # Else XLA takes the transposition for a view, and copies in the loop again.
  return params | {'layers': jax.lax.optimization_barrier(layers)}


def empty_cache(config: DecoderConfig, batch: int, length: int) -> Cache:
  shape = (batch, config.num_kv_heads, length, config.head_width)
  n = config.num_layers
  if _unrolls(config):
    zeros = lambda: tuple(jnp.zeros(shape, config.dtype) for _ in range(n))
  else:
    zeros = lambda: jnp.zeros((n, *shape), config.dtype)
  return Cache(zeros(), zeros())


def forward_cached(
  config: DecoderConfig,
  params: Params,
  token_BxL: jax.Array,
  held_B: jax.Array,
  cache: Cache,
) -> tuple[jax.Array, Cache]:
  """Like `forward` for tokens that follow the `held_B` first of each row.

  Tokens that pad a row on the right do no harm: their columns lie behind what
  is held, and are written over by what comes next.

  Returns:
    Hidden states (B, L, D), and the cache with L more columns a row. Where they
    do not fit, what the row held is no longer to be relied on.
  """
  l = token_BxL.shape[1]
  column_BxL = held_B[:, None] + jnp.arange(l)
  params = split_layers(config, params)
  hidden, (k_NxBxLxKxE, v_NxBxLxKxE) = _apply(
    config, params, token_BxL, None, column_BxL, cache, held_B
  )
  # Layers read the cache and do not write it, so that the scan carries nothing
  # of its size; all layers' new columns enter at once.
  new = Cache(k_NxBxLxKxE, v_NxBxLxKxE)
  if _unrolls(config):
    return _write_rows(hidden, cache, new, held_B)
  return hidden, _write(cache, new, held_B)


def _write_rows(hidden_BxLxD, cache: Cache, new: Cache, held_B: jax.Array):
  """`_write` row by row, and the hidden states as they are.

  XLA on CPU does this in place, and copies around a scatter, which took half of
  a step. The hidden states go through the loop so that it must come after all
  layers have read: else the last one's cache is copied, there and back.
  """

  def write_row(b, written):
    through_BxLxD, cache = written
    row = lambda x: jax.lax.dynamic_slice_in_dim(x, b, 1)
    put = jax.lax.dynamic_update_slice
    return put(through_BxLxD, row(hidden_BxLxD), (b, 0, 0)), jax.tree.map(
      lambda old_BxKxSxE, new_BxLxKxE: put(
        old_BxKxSxE, row(new_BxLxKxE).swapaxes(1, 2), (b, 0, held_B[b], 0)
      ),
      cache, new,
    )  # fmt: skip

  nothing = jnp.zeros_like(hidden_BxLxD)
  return jax.lax.fori_loop(0, len(held_B), write_row, (nothing, cache))


def _write(cache: Cache, new: Cache, held_B: jax.Array) -> Cache:
  """The cache with `new` columns (N, B, L, K, E) behind what each row holds."""

  def write(old_NxBxKxSxE, new_NxBxLxKxE):
    row_Bx1 = jnp.arange(len(held_B))[:, None]
    column_BxL = held_B[:, None] + jnp.arange(new_NxBxLxKxE.shape[2])
    # Indices around a slice: (B, L) come first in what is set.
    return old_NxBxKxSxE.at[:, row_Bx1, :, column_BxL].set(
      new_NxBxLxKxE.transpose(1, 2, 0, 3, 4), mode='drop'
    )

  return jax.tree.map(write, cache, new)


def unembedding(config: DecoderConfig, params: Params) -> jax.Array:
  """The kernel (D, V) that makes logits."""
  if config.tie_embeddings:
    return params['embedding'].T
  return params['lm_head']['kernel']


def unembed(config: DecoderConfig, params: Params, hidden: jax.Array):
  """Logits (..., V) in float32 from hidden states (..., D)."""
  return logits(config, unembedding(config, params), hidden)


def logits(config: DecoderConfig, kernel_DxV: jax.Array, hidden: jax.Array):
  """`unembed` with its kernel at hand."""
  # Flat rows, as in `_Linear`.
  logits = _product(
    hidden.reshape(-1, hidden.shape[-1]), kernel_DxV.astype(hidden.dtype),
    preferred_element_type=jnp.float32,
  ).reshape(*hidden.shape[:-1], -1)  # fmt: skip
  if config.num_tokens is None or config.num_tokens == config.vocab_size:
    return logits
  # Finite, as 0 * -inf in a divergence would be no number.
  is_token_V = jnp.arange(config.vocab_size) < config.num_tokens
  return jnp.where(is_token_V, logits, -1e30)
