"""The decoder that carries every student and teacher.

RMSNorm, rotary positions, grouped-query attention, a gated feed-forward; what
architectures do otherwise is a table in `architectures`. Layers are stacked on
a leading axis and scanned, so compile time does not grow with depth. Layers of
several kinds (windows, rotations) are one scan as well: which one a layer has
is data, and only attention is compiled once for each window.

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
import jax
import jax.numpy as jnp
import numpy as np

from ioa_jax.models import attention, rope
from ioa_jax.models import block as block_lib
from ioa_jax.models import cache as cache_lib
from ioa_jax.models.architectures import ARCHITECTURES, Architecture, Layer
from ioa_jax.runtime import sharding

Params = dict[str, Any]

REMAT_POLICIES = {
  'none': None,
  'full': jax.checkpoint_policies.nothing_saveable,
  'dots': jax.checkpoint_policies.dots_with_no_batch_dims_saveable,
}


@dataclasses.dataclass(frozen=True)
class DecoderConfig:
  """Sizes and constants of one decoder; hashable, so it can be static.

  `architecture` is one of ARCHITECTURES. `layer_pattern` says how layers
  attend, repeated over the depth. `query_scale` multiplies scores, None is one
  over the root of `head_width`. `logit_cap` bounds logits by a tanh. `dtype` is
  the compute dtype; parameters keep the dtype they are given. `remat` is one of
  REMAT_POLICIES. `scan_unroll` layers are laid out in one iteration of the
  scan: 1 compiles fastest, `num_layers` runs fastest on CPU, where a loop
  copies what it saves for the backward pass. `max_positions` is the longest
  text the model was made for; it is exported, nothing here depends on it. Ids
  from `num_tokens` on are rows that pad the vocabulary; their logits are
  masked. None masks nothing.
  """

  vocab_size: int
  width: int
  num_layers: int
  num_heads: int
  num_kv_heads: int
  head_width: int
  mlp_width: int
  architecture: str = 'llama'
  layer_pattern: tuple[Layer, ...] = (Layer(),)
  rope_theta: float = 10_000.0
  rope_scaling: rope.Scaling | None = None
  query_scale: float | None = None
  logit_cap: float | None = None
  norm_eps: float = 1e-5
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
    if self.architecture not in ARCHITECTURES:
      raise ValueError(
        f'architecture {self.architecture!r} unknown; choose of '
        f'{sorted(ARCHITECTURES)}, or see docs/architectures.md.'
      )

  @property
  def differences(self) -> Architecture:
    """What the architecture has that Llama has not."""
    return ARCHITECTURES[self.architecture]

  @property
  def layers(self) -> tuple[Layer, ...]:
    """How each of the N layers attends."""
    n = len(self.layer_pattern)
    return tuple(self.layer_pattern[i % n] for i in range(self.num_layers))

  @property
  def windows(self) -> tuple[int | None, ...]:
    """The layers' windows, each once."""
    return tuple(dict.fromkeys(layer.window for layer in self.layers))

  @property
  def is_dynamic(self) -> bool:
    """Whether frequencies depend on how long a text is."""
    return isinstance(self.rope_scaling, rope.Dynamic)

  @property
  def is_unrolled(self) -> bool:
    """Whether all layers lie in one iteration of the scan."""
    return self.scan_unroll >= self.num_layers


def for_decoding(config: DecoderConfig) -> DecoderConfig:
  """`config` with its layers as they decode fastest here.

  Unrolled on CPU, where a scan copies weights and cache at every step; it takes
  longer to compile, and a second copy of the layers. See `split_layers`.
  """
  if sharding.platform() != 'cpu':
    return config
  return dataclasses.replace(config, scan_unroll=config.num_layers)


@dataclasses.dataclass(frozen=True)
class _Kinds:
  """Which rotation and window each layer has, as indices (N,) or None.

  None where all layers have the first: then the program knows no kinds. `slot`
  is a layer's place among those of its window.
  """

  rotations: tuple[tuple[bool, float | None], ...]
  windows: tuple[int | None, ...]
  rotation: np.ndarray | None
  window: np.ndarray | None
  slot: np.ndarray | None

  @classmethod
  def of(cls, config: DecoderConfig) -> _Kinds:
    each = [(layer.rotates, layer.theta) for layer in config.layers]
    rotations, windows = tuple(dict.fromkeys(each)), config.windows
    rotation = np.array([rotations.index(r) for r in each])
    window = np.array([windows.index(x.window) for x in config.layers])
    slot = np.array([(window[:i] == w).sum() for i, w in enumerate(window)])
    several = len(windows) > 1
    return cls(
      rotations,
      windows,
      rotation if len(rotations) > 1 else None,
      window if several else None,
      slot if several else None,
    )


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
      return block_lib.Block(config, rngs)

    self.layers = stack(rngs)
    self.final_norm = block_lib.RMSNorm(config, config.width)
    linear = functools.partial(block_lib.Linear, rngs=rngs)
    self.lm_head = (
      None if config.tie_embeddings else linear(config.width, config.vocab_size)
    )

  def __call__(self, inputs: _Inputs):
    c, kinds = self.config, _Kinds.of(self.config)
    x = self.embedding[...][inputs.token_BxL].astype(c.dtype)
    if c.differences.scales_embeddings:
      x = x * jnp.asarray(c.width**0.5, x.dtype)
    x = sharding.constrain(x, ('batch', 'length', 'embed'))
    angles = [_angles(c, *rotation, inputs) for rotation in kinds.rotations]
    if kinds.rotation is None:
      (angles,) = angles
    else:
      angles = jax.tree.map(lambda *each: jnp.stack(each), *angles)
    block_graph, block_params = nnx.split(self.layers)

    def layer(x_BxLxD, own):
      params, keys_values, adapters, rotation, window, slot = own
      block = nnx.merge(block_graph, params)
      turn = angles
      if rotation is not None:
        turn = jax.tree.map(lambda x: x[rotation], angles)
      attend = _attend(c, kinds.windows, inputs, keys_values, window, slot)
      x_BxLxD, keys_values = block(x_BxLxD, turn, attend, adapters)
      return x_BxLxD, None if inputs.cache is None else keys_values

    if inputs.layers is not None:
      x, keys_values = _one_by_one(layer, x, block_params, inputs, kinds)
      return self.final_norm(x), keys_values

    policy = REMAT_POLICIES[c.remat]
    if policy is not None:
      layer = jax.checkpoint(layer, policy=policy, prevent_cse=False)
    cache, keys_values = inputs.cache, None
    if cache is not None and kinds.slot is None:
      keys_values = cache.keys, cache.values
    x, keys_values = jax.lax.scan(
      layer,
      x,
      (
        block_params,
        keys_values,
        inputs.adapters,
        kinds.rotation,
        kinds.window,
        kinds.slot,
      ),
      unroll=c.scan_unroll,
    )
    return self.final_norm(x), keys_values


@dataclasses.dataclass(frozen=True)
class _Inputs:
  """What one pass reads.

  `length_BxL` is how long each token's text is, as far as it is known. With a
  cache, `segment_BxL` is None, and rows hold `held_B` tokens. `layers` are
  `split_layers`', or None where they are stacked.
  """

  token_BxL: jax.Array
  segment_BxL: jax.Array | None
  position_BxL: jax.Array
  length_BxL: jax.Array | None
  cache: cache_lib.Cache | None = None
  held_B: jax.Array | None = None
  layers: tuple | None = None
  adapters: Any = None


def _one_by_one(layer, x, block_params, inputs: _Inputs, kinds: _Kinds):
  """The layers with parameters, and a cache, of their own."""
  written = []
  at = lambda which, i: None if which is None else int(which[i])
  for i, own in enumerate(inputs.layers):
    params = jax.tree.unflatten(
      jax.tree.structure(block_params),
      [w.T if w.ndim == 2 else w for w in jax.tree.leaves(own)],
    )
    held = inputs.cache.keys[i], inputs.cache.values[i]
    adapters = jax.tree.map(lambda a, i=i: a[i], inputs.adapters)
    x, keys_values = layer(
      x,
      (
        params,
        held,
        adapters,
        at(kinds.rotation, i),
        at(kinds.window, i),
        None,
      ),
    )
    written.append(keys_values)
  return x, tuple(zip(*written))


def _angles(config, rotates: bool, theta: float | None, inputs: _Inputs):
  """Cosines and sines of one kind of rotation."""
  cos, sin = rope.tables(
    inputs.position_BxL,
    inputs.length_BxL,
    head_width=config.head_width,
    theta=config.rope_theta if theta is None else theta,
    scaling=config.rope_scaling if theta is None else None,
  )
  if not rotates:
    return jnp.ones_like(cos), jnp.zeros_like(sin)
  return cos, sin


def _attend(config, windows, inputs: _Inputs, keys_values, which, slot):
  """Attention as a function of q, k and v, of the window that a layer has."""
  c, cache = config, inputs.cache
  scale = c.head_width**-0.5 if c.query_scale is None else c.query_scale

  def attend(group, q, k, v):
    how = {'scale': scale, 'window': windows[group]}
    if cache is None:
      return attention.attend_rows(q, k, v, inputs.segment_BxL, **how)
    held = keys_values
    if held is None:  # Each window has a stack, of which a branch takes one.
      held = cache.keys[group][slot], cache.values[group][slot]
    return attention.attend_cached(q, k, v, held, inputs.held_B, **how)

  branches = [functools.partial(attend, i) for i in range(len(windows))]
  if which is None or isinstance(which, int):
    return branches[which or 0]
  return functools.partial(jax.lax.switch, which, branches)


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


def _apply(config, params, inputs: _Inputs):
  # Adapters are a tree beside the module's own parameters, see `lora.attach`.
  params = dict(params)
  inputs = dataclasses.replace(
    inputs,
    adapters=params.pop('adapters', None),
    layers=params.pop('layers') if _are_split(params) else None,
  )
  graph, abstract = _graph(config)
  state = jax.tree.map(lambda x: x, abstract)
  nnx.replace_by_pure_dict(state, params)
  return nnx.merge(graph, state)(inputs)


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
    position_BxL: position within the segment, consecutive; it only turns the
      heads.
  """
  length_BxL = None
  if config.is_dynamic:
    length_BxL = rope.text_lengths(segment_BxL, position_BxL)
  inputs = _Inputs(token_BxL, segment_BxL, position_BxL, length_BxL)
  hidden, _ = _apply(config, params, inputs)
  return hidden


def _are_split(params: Params) -> bool:
  return isinstance(params['layers'], tuple)


def split_layers(config: DecoderConfig, params: Params) -> Params:
  """Parameters as `forward_cached` reads them fastest; done before a loop.

  Where layers are unrolled (`scan_unroll`), each gets arrays of its own, and
  its kernels lie transposed: XLA on CPU copies what it takes out of a stack,
  and that costs more than the products (a step of 16 rows at 8 layers of 512
  takes 32 ms, and 75 from a stack). It is a second copy of the layers. Where
  layers are scanned, their parameters stay as they are.
  """
  if not config.is_unrolled or _are_split(params):
    return params
  take = lambda i: jax.tree.map(
    lambda x: x[i].T if x.ndim == 3 else x[i], params['layers']
  )
  layers = tuple(map(take, range(config.num_layers)))
  # Else XLA takes the transposition for a view, and copies in the loop again.
  return params | {'layers': jax.lax.optimization_barrier(layers)}


def forward_cached(
  config: DecoderConfig,
  params: Params,
  token_BxL: jax.Array,
  held_B: jax.Array,
  cache: cache_lib.Cache,
  length_B: jax.Array | None = None,
) -> tuple[jax.Array, cache_lib.Cache]:
  """Like `forward` for tokens that follow the `held_B` first of each row.

  Tokens that pad a row on the right do no harm: their columns lie behind what
  is held, and are written over by what comes next.

  Args:
    cache: of `cache.empty`, whose `chunk` is L or more.
    length_B: tokens of a row's text as far as it is known, for dynamic RoPE;
      None is up to each token.

  Returns:
    Hidden states (B, L, D), and the cache with L more columns a row. Where they
    do not fit, what the row held is no longer to be relied on.
  """
  l = token_BxL.shape[1]
  column_BxL = held_B[:, None] + jnp.arange(l)
  length_BxL = None
  if config.is_dynamic:
    length_BxL = column_BxL + 1
    if length_B is not None:
      length_BxL = jnp.maximum(length_BxL, length_B[:, None])
  params = split_layers(config, params)
  hidden, (k_NxBxLxKxE, v_NxBxLxKxE) = _apply(
    config,
    params,
    _Inputs(token_BxL, None, column_BxL, length_BxL, cache, held_B),
  )
  # Layers read the cache and do not write it, so that the scan carries nothing
  # of its size; all layers' new columns enter at once.
  new = cache_lib.Cache(k_NxBxLxKxE, v_NxBxLxKxE)
  if config.is_unrolled:
    return cache_lib.write_rows(config, hidden, cache, new, held_B)
  return hidden, cache_lib.write(config, cache, new, held_B)


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
  # Flat rows, as in `block.Linear`.
  logits = block_lib.product(
    hidden.reshape(-1, hidden.shape[-1]),
    kernel_DxV.astype(hidden.dtype),
    preferred_element_type=jnp.float32,
  ).reshape(*hidden.shape[:-1], -1)
  if config.logit_cap is not None:
    logits = config.logit_cap * jnp.tanh(logits / config.logit_cap)
  if config.num_tokens is None or config.num_tokens == config.vocab_size:
    return logits
  # Finite, as 0 * -inf in a divergence would be no number.
  is_token_V = jnp.arange(config.vocab_size) < config.num_tokens
  return jnp.where(is_token_V, logits, -1e30)
