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

from ioa_jax import sharding
from ioa_jax.models import attention, lora, rope

Params = dict[str, Any]

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


@flax.struct.dataclass
class Cache:
  """Keys and values of what was read, for incremental decoding.

  Segment 0 marks slots that hold nothing, so attention never looks there.
  """

  key_NxBxSxKxE: jax.Array
  value_NxBxSxKxE: jax.Array
  position_BxS: jax.Array
  segment_BxS: jax.Array


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
    y = rows @ kernel
    if adapter is not None:
      y = y + lora.delta(rows, adapter)
    y = y.reshape(*x.shape[:-1], -1)
    return y if self.bias is None else y + self.bias[...].astype(x.dtype)


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

  def __call__(
    self, x_BxLxD, angles, mask_BxLxS, segment_BxL, cache=None, adapters=None
  ):
    """`cache` is (keys, values, slot); returns x and the keys and values."""
    b, l, _ = x_BxLxD.shape
    e = self.config.head_width
    adapter = (adapters or {}).get
    h = self.attention_norm(x_BxLxD)
    q = self.q_proj(h, adapter('q_proj')).reshape(b, l, -1, e)
    k = self.k_proj(h, adapter('k_proj')).reshape(b, l, -1, e)
    v = self.v_proj(h, adapter('v_proj')).reshape(b, l, -1, e)
    q, k = rope.rotate(q, *angles), rope.rotate(k, *angles)
    q = sharding.constrain(q, ('batch', 'length', 'heads', None))
    if cache is not None:
      keys, values, slot = cache
      k = jax.lax.dynamic_update_slice(keys, k, (0, slot, 0, 0))
      v = jax.lax.dynamic_update_slice(values, v, (0, slot, 0, 0))
      attended = attention.attend(q, k, v, mask_BxLxS)
    else:
      attended = attention.attend_rows(q, k, v, segment_BxL, mask_BxLxS)
    attended = attended.reshape(b, l, -1)
    x_BxLxD = x_BxLxD + self.o_proj(attended, adapter('o_proj'))
    h = self.mlp_norm(x_BxLxD)
    gated = jax.nn.silu(self.gate_proj(h, adapter('gate_proj')))
    gated = gated * self.up_proj(h, adapter('up_proj'))
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
    self, token_BxL, segment_BxL, position_BxL, mask_BxLxS, cache, slot,
    adapters,
  ):  # fmt: skip
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
      layer_cache = None if keys_values is None else (*keys_values, slot)
      x_BxLxD, keys_values = block(
        x_BxLxD, angles, mask_BxLxS, segment_BxL, layer_cache, layer_adapters
      )
      return x_BxLxD, None if cache is None else keys_values

    policy = REMAT_POLICIES[c.remat]
    if policy is not None:
      layer = jax.checkpoint(layer, policy=policy, prevent_cse=False)
    keys_values = (
      None if cache is None else (cache.key_NxBxSxKxE, cache.value_NxBxSxKxE)
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


def _apply(
  config, params, token_BxL, segment_BxL, position_BxL, mask_BxLxS, cache, slot
):
  # Adapters are a tree beside the module's own parameters, see `lora.attach`.
  params = dict(params)
  adapters = params.pop('adapters', None)
  graph, abstract = _graph(config)
  state = jax.tree.map(lambda x: x, abstract)
  nnx.replace_by_pure_dict(state, params)
  model = nnx.merge(graph, state)
  return model(
    token_BxL, segment_BxL, position_BxL, mask_BxLxS, cache, slot, adapters
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
      padding. Tokens see only their own segment.
    position_BxL: position within the segment.
  """
  mask = attention.mask(segment_BxL, position_BxL, segment_BxL, position_BxL)
  hidden, _ = _apply(
    config, params, token_BxL, segment_BxL, position_BxL, mask, None, None
  )
  return hidden


def empty_cache(config: DecoderConfig, batch: int, length: int) -> Cache:
  shape = (
    config.num_layers, batch, length, config.num_kv_heads, config.head_width
  )  # fmt: skip
  return Cache(
    key_NxBxSxKxE=jnp.zeros(shape, config.dtype),
    value_NxBxSxKxE=jnp.zeros(shape, config.dtype),
    position_BxS=jnp.zeros((batch, length), jnp.int32),
    segment_BxS=jnp.zeros((batch, length), jnp.int32),
  )


def forward_cached(
  config: DecoderConfig,
  params: Params,
  token_BxL: jax.Array,
  segment_BxL: jax.Array,
  position_BxL: jax.Array,
  cache: Cache,
  slot: jax.Array,
) -> tuple[jax.Array, Cache]:
  """Like `forward`, reading and extending `cache` from column `slot` on."""
  write = functools.partial(
    jax.lax.dynamic_update_slice, start_indices=(0, slot)
  )
  segment_BxS = write(cache.segment_BxS, segment_BxL)
  position_BxS = write(cache.position_BxS, position_BxL)
  mask = attention.mask(segment_BxL, position_BxL, segment_BxS, position_BxS)
  # A padding query may look at padding: a row of only False has no softmax.
  hidden, (key, value) = _apply(
    config, params, token_BxL, segment_BxL, position_BxL, mask, cache, slot
  )
  return hidden, Cache(key, value, position_BxS, segment_BxS)


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
  logits = jnp.matmul(
    hidden, kernel_DxV.astype(hidden.dtype), preferred_element_type=jnp.float32
  )
  if config.num_tokens is None or config.num_tokens == config.vocab_size:
    return logits
  # Finite, as 0 * -inf in a divergence would be no number.
  is_token_V = jnp.arange(config.vocab_size) < config.num_tokens
  return jnp.where(is_token_V, logits, -1e30)
