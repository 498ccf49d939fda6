"""Attention: plain everywhere, and the maintained kernels of TPU and GPU.

Rows are packed in order, so causal by place and by position are one. Plain
attention holds the scores of one block of queries, an eighth of a row or 128 if
that is more. For whole packed rows TPUs have JAX's splash attention and GPUs
cuDNN's, which hold less. Decoding from a cache stays plain.

A `window` is how many tokens a query sees, itself included; None is all before
it. Positions in a segment are consecutive, so it counts by place. `scale`
multiplies the scores.

Shapes: B batch, L query length, S key length, H query heads, K key/value heads,
G = H / K queries per key, E head width.
"""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np

from ioa_jax.runtime import sharding

# Rows shorter than this, or odd, are plain: kernels work in whole blocks.
_BLOCK = 512

# Queries of a block of plain attention, and blocks of a row.
_QUERIES, _MAX_BLOCKS = 128, 8

# Up to so many queries a key head, keys are the left operand on CPU.
_FEW_QUERIES = 16


def attend(
  q_BxLxHxE,
  k_BxLxKxE,
  v_BxLxKxE,
  segment_BxL,
  *,
  scale: float,
  window: int | None = None,
):
  """Causal grouped-query attention within segments. Returns (B, L, H, E).

  A block of queries at a time, with the keys up to its end and from its window
  on: others are never computed. Softmax in float32. The backward pass makes the
  scores again from each query's logsumexp, so none are kept (Dao et al., 2022,
  alg. 4).
  """
  b, l, h, e = q_BxLxHxE.shape
  k = k_BxLxKxE.shape[2]
  q_BxKxGxLxE = (
    (q_BxLxHxE * scale).reshape(b, l, k, h // k, e).transpose(0, 2, 3, 1, 4)
  )
  heads_first = lambda x: x.transpose(0, 2, 1, 3)
  out_BxKxGxLxE = _attend(
    window,
    q_BxKxGxLxE,
    heads_first(k_BxLxKxE),
    heads_first(v_BxLxKxE),
    segment_BxL,
  )
  return out_BxKxGxLxE.transpose(0, 3, 1, 2, 4).reshape(b, l, h, e)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _attend(window, q_BxKxGxLxE, k_BxKxLxE, v_BxKxLxE, segment_BxL):
  """`attend` of scaled queries, heads first."""
  return _forward(window, q_BxKxGxLxE, k_BxKxLxE, v_BxKxLxE, segment_BxL)[0]


def _forward(window, q_BxKxGxLxE, k_BxKxLxE, v_BxKxLxE, segment_BxL):
  outs, logsumexps = [], []
  for keys, queries in _blocks(segment_BxL.shape[1], window):
    k, v = k_BxKxLxE[:, :, keys], v_BxKxLxE[:, :, keys]
    scores = _block_scores(q_BxKxGxLxE[:, :, :, queries], k)
    scores += _bias(segment_BxL, keys, queries, window)
    top = scores.max(-1, keepdims=True)
    weights = jnp.exp(scores - top)
    total = weights.sum(-1, keepdims=True)
    out = _weigh(weights.astype(v.dtype), v) / total
    outs.append(out.astype(v.dtype))
    logsumexps.append(top + jnp.log(total))
  out = jnp.concatenate(outs, 3)
  logsumexp_BxKxGxLx1 = jnp.concatenate(logsumexps, 3)
  return out, (
    q_BxKxGxLxE,
    k_BxKxLxE,
    v_BxKxLxE,
    segment_BxL,
    out,
    logsumexp_BxKxGxLx1,
  )


def _backward(window, kept, d_out_BxKxGxLxE):
  q_BxKxGxLxE, k_BxKxLxE, v_BxKxLxE, segment_BxL, out, logsumexp = kept
  # How much a query's scores must fall together: their weights sum to one.
  shift_BxKxGxLx1 = jnp.sum(
    d_out_BxKxGxLxE.astype(jnp.float32) * out, axis=-1, keepdims=True
  )
  d_qs = []
  d_k, d_v = jnp.zeros(k_BxKxLxE.shape), jnp.zeros(v_BxKxLxE.shape)
  for keys, queries in _blocks(segment_BxL.shape[1], window):
    k, v = k_BxKxLxE[:, :, keys], v_BxKxLxE[:, :, keys]
    block = np.s_[:, :, :, queries]
    q, d_out = q_BxKxGxLxE[block], d_out_BxKxGxLxE[block]
    scores = _block_scores(q, k) + _bias(segment_BxL, keys, queries, window)
    weights = jnp.exp(scores - logsumexp[block])
    d_scores = weights * (_block_scores(d_out, v) - shift_BxKxGxLx1[block])
    d_scores = d_scores.astype(k.dtype)
    d_qs.append(_weigh(d_scores, k).astype(q.dtype))
    d_k = d_k.at[:, :, keys].add(_sum_over_queries(d_scores, q))
    weights = weights.astype(v.dtype)
    d_v = d_v.at[:, :, keys].add(_sum_over_queries(weights, d_out))
  d_q = jnp.concatenate(d_qs, 3)
  return d_q, d_k.astype(k_BxKxLxE.dtype), d_v.astype(v_BxKxLxE.dtype), None


_attend.defvjp(_forward, _backward)


def _blocks(length: int, window: int | None) -> list[tuple[slice, slice]]:
  """Keys and queries of blocks of queries; a few, since each is compiled."""
  block = max(_QUERIES, -(-length // _MAX_BLOCKS))
  first = lambda start: 0 if window is None else max(0, start - window + 1)
  return [
    (slice(first(s), min(s + block, length)), slice(s, min(s + block, length)))
    for s in range(0, length, block)
  ]


def _bias(segment_BxL, keys: slice, queries: slice, window: int | None):
  """(B, 1, 1, Q, S): 0 where a query sees a key, else -1e30."""
  sees_BxQxS = _sees(segment_BxL, keys, queries, window)
  return jnp.where(sees_BxQxS, 0.0, -1e30)[:, None, None]


_product = functools.partial(jnp.einsum, preferred_element_type=jnp.float32)


def _flat(x_BxKxGxQxE):
  """(B, K, G * Q, E): queries of a group are rows of one product."""
  b, k, g, q, e = x_BxKxGxQxE.shape
  return x_BxKxGxQxE.reshape(b, k, g * q, e)


def _block_scores(q_BxKxGxQxE, k_BxKxSxE):
  scores = _product('bkqe,bkse->bkqs', _flat(q_BxKxGxQxE), k_BxKxSxE)
  return scores.reshape(*q_BxKxGxQxE.shape[:4], -1)


def _weigh(weights_BxKxGxQxS, v_BxKxSxE):
  out = _product('bkqs,bkse->bkqe', _flat(weights_BxKxGxQxS), v_BxKxSxE)
  return out.reshape(*weights_BxKxGxQxS.shape[:4], -1)


def _sum_over_queries(weights_BxKxGxQxS, x_BxKxGxQxE):
  weights, x = _flat(weights_BxKxGxQxS), _flat(x_BxKxGxQxE)
  return _product('bkqs,bkqe->bkse', weights, x)


def _sees(segment_BxL, keys: slice, queries: slice, window: int | None):
  """Whether each of some queries sees each of some keys: (B, Q, S)."""
  q, s = segment_BxL[:, queries, None], segment_BxL[:, None, keys]
  place_L = np.arange(segment_BxL.shape[1])
  behind_QxS = place_L[queries][:, None] - place_L[keys]
  near = behind_QxS >= 0
  if window is not None:
    near &= behind_QxS < window
  return (q == s) & near


def attend_cached(
  q_BxLxHxE,
  k_BxLxKxE,
  v_BxLxKxE,
  cached,
  held_B,
  *,
  scale: float,
  window: int | None = None,
):
  """`attend` to the `held_B` tokens that are cached and causally to oneself.

  Args:
    cached: keys and values (B, K, S, E). Token t lies at column t modulo S; of
      a layer without a window S is at least what a row holds.
  """
  b, l, h, e = q_BxLxHxE.shape
  cached_k_BxKxSxE, cached_v_BxKxSxE = cached
  _, k, s, _ = cached_k_BxKxSxE.shape
  q_BxKxGLxE = (q_BxLxHxE * scale).reshape(b, l, k, h // k, e)
  q_BxKxGLxE = q_BxKxGLxE.transpose(0, 2, 3, 1, 4).reshape(b, k, -1, e)
  own_k_BxKxLxE = k_BxLxKxE.transpose(0, 2, 1, 3)
  own_v_BxKxLxE = v_BxLxKxE.transpose(0, 2, 1, 3)
  if window is None:
    seen = (jnp.arange(s) < held_B[:, None])[:, None, None]
  else:
    seen_BxLxS = _sees_cached(held_B, l, s, window)
    seen = jnp.tile(seen_BxLxS, (1, h // k, 1))[:, None]
  causal_LxL = jnp.tril(jnp.ones((l, l), bool))
  if window is not None:
    causal_LxL &= ~jnp.tril(jnp.ones((l, l), bool), -window)
  causal_GLxL = jnp.tile(causal_LxL, (h // k, 1))
  old = jnp.where(seen, _scores(q_BxKxGLxE, cached_k_BxKxSxE), -1e30)
  own = jnp.where(causal_GLxL, _scores(q_BxKxGLxE, own_k_BxKxLxE), -1e30)
  # One softmax over both, without joining the caches: that would copy them.
  top = jnp.maximum(old.max(-1, keepdims=True), own.max(-1, keepdims=True))
  old, own = jnp.exp(old - top), jnp.exp(own - top)
  total = old.sum(-1, keepdims=True) + own.sum(-1, keepdims=True)
  weigh = functools.partial(jnp.einsum, 'bkqs,bkse->bkqe')
  dtype = v_BxLxKxE.dtype
  out = weigh((old / total).astype(dtype), cached_v_BxKxSxE)
  out += weigh((own / total).astype(dtype), own_v_BxKxLxE)
  out = out.reshape(b, k, h // k, l, e).transpose(0, 3, 1, 2, 4)
  return out.reshape(b, l, h, e)


def _sees_cached(held_B, length: int, columns: int, window: int):
  """Whether each query sees each column of a ring: (B, L, S).

  A column is taken to hold the last token before `held_B` that lies there. What
  it holds may be newer (padding, or a text that was longer): `ring_size` has
  room for that, so such a column is out of every query's window.
  """
  last_Bx1 = held_B[:, None] - 1
  token_BxS = last_Bx1 - (last_Bx1 - jnp.arange(columns)) % columns
  query_BxL = held_B[:, None] + jnp.arange(length)
  near_BxLxS = query_BxL[:, :, None] - token_BxS[:, None] < window
  return near_BxLxS & (token_BxS >= 0)[:, None]


def ring_size(window: int | None, length: int, chunk: int) -> int:
  """Columns that a layer's cache needs for `length` tokens of a row.

  Args:
    chunk: most tokens of a row that are read at once.
  """
  # The last token read and its chunk may be padding, or be read again.
  return length if window is None else min(length, window - 1 + chunk)


def _scores(q_BxKxQxE, k_BxKxSxE):
  """Products (B, K, Q, S) in float32 of Q queries a key head."""
  if q_BxKxQxE.shape[2] > _FEW_QUERIES or sharding.platform() != 'cpu':
    return _product('bkqe,bkse->bkqs', q_BxKxQxE, k_BxKxSxE)
  # XLA on CPU copies the right operand into blocks first, which should be the
  # few queries; without the barriers it turns the product around again.
  q_BxKxExQ = jax.lax.optimization_barrier(q_BxKxQxE.swapaxes(2, 3))
  scores_BxKxSxQ = _product('bkse,bkeq->bksq', k_BxKxSxE, q_BxKxExQ)
  return jax.lax.optimization_barrier(scores_BxKxSxQ).swapaxes(2, 3)


def attend_rows(
  q_BxLxHxE,
  k_BxLxKxE,
  v_BxLxKxE,
  segment_BxL,
  *,
  scale: float,
  window: int | None = None,
):
  """`attend` for whole packed rows, by the kernel of the mesh's devices."""
  how = {'scale': scale, 'window': window}
  platform = sharding.platform()
  shards = sharding.num_sequence_shards()
  # The kernel's mask wants the square of the shards to divide a row.
  whole_blocks = q_BxLxHxE.shape[1] % (shards * max(_BLOCK, shards)) == 0
  if shards > 1:
    # Every device has the queries of its tokens, and all keys of its rows.
    all_tokens = ('batch', None, 'heads', None)
    k_BxLxKxE = sharding.constrain(k_BxLxKxE, all_tokens)
    v_BxLxKxE = sharding.constrain(v_BxLxKxE, all_tokens)
  if platform == 'tpu' and whole_blocks:
    return splash(q_BxLxHxE, k_BxLxKxE, v_BxLxKxE, segment_BxL, **how)
  # cuDNN's takes half precision only.
  if platform == 'gpu' and whole_blocks and q_BxLxHxE.dtype == jnp.bfloat16:
    # It knows nothing of split rows: each device attends for all of them.
    q_BxLxHxE = sharding.constrain(q_BxLxHxE, ('batch', None, 'heads', None))
    sees_BxLxL = _sees(segment_BxL, slice(None), slice(None), window)
    return jax.nn.dot_product_attention(
      q_BxLxHxE,
      k_BxLxKxE,
      v_BxLxKxE,
      mask=sees_BxLxL[:, None],
      scale=scale,
      implementation='cudnn',
    )
  return attend(q_BxLxHxE, k_BxLxKxE, v_BxLxKxE, segment_BxL, **how)


def splash(
  q_BxLxHxE,
  k_BxLxKxE,
  v_BxLxKxE,
  segment_BxL,
  *,
  scale: float,
  window: int | None = None,
  interpret: bool = False,
):
  """Splash attention; each device has its rows, heads and queries.

  Args:
    interpret: runs the kernel's blocks as plain JAX, on any device.
  """
  # Imported where used: Pallas for TPU takes a second to import.
  from jax.experimental.pallas.ops.tpu.splash_attention import (
    splash_attention_kernel as kernel_lib,
  )
  from jax.experimental.pallas.ops.tpu.splash_attention import (
    splash_attention_mask as mask_lib,
  )

  b, length, num_heads, width = q_BxLxHxE.shape
  shards = sharding.num_sequence_shards()
  block = min(_BLOCK, length // shards)
  sizes = kernel_lib.BlockSizes(
    block_q=block,
    block_kv=block,
    block_q_dkv=block,
    block_kv_dkv=block,
    block_q_dq=block,
    block_kv_dq=block,
  )

  def make_kernel(local_heads):
    if window is None:
      mask = mask_lib.CausalMask((length, length), shard_count=shards)
    else:
      mask = mask_lib.LocalMask(
        (length, length), (window - 1, 0), offset=0, shard_count=shards
      )
    return kernel_lib.make_splash_mha(
      mask_lib.MultiHeadMask([mask] * local_heads),
      block_sizes=sizes,
      head_shards=1,
      q_seq_shards=shards,
      interpret=interpret,
    )

  def local(kernel, q, k, v, q_segment, segment):
    heads_first = lambda x: jnp.swapaxes(x, 1, 2)
    out = jax.vmap(kernel)(
      heads_first(q * scale),
      heads_first(k),
      heads_first(v),
      kernel_lib.SegmentIds(q_segment, segment),
    )
    return heads_first(out)

  inputs = (q_BxLxHxE, k_BxLxKxE, v_BxLxKxE, segment_BxL, segment_BxL)
  mesh = jax.sharding.get_abstract_mesh()
  if mesh.empty:
    return local(make_kernel(num_heads), *inputs)
  # Heads of queries and keys are split alike, so that groups stay whole.
  heads = np.gcd(num_heads, k_BxLxKxE.shape[2])
  rows, tokens, by_head, _ = sharding.fitting_spec(
    mesh, (b, length, heads, width), ('batch', 'length', 'heads', None)
  )
  spec = jax.sharding.PartitionSpec
  kernel = make_kernel(num_heads // mesh.shape.get(by_head, 1))
  queries, keys = spec(rows, tokens, by_head), spec(rows, None, by_head)
  # A Pallas call is opaque to the partitioner: the split is spelled out.
  return jax.shard_map(
    local,
    in_specs=(
      kernel.manual_sharding_spec(
        jax.sharding.NamedSharding(mesh, spec(None, tokens))
      ),
      queries,
      keys,
      keys,
      spec(rows, tokens),
      spec(rows),
    ),
    out_specs=queries,
    check_vma=False,
  )(kernel, *inputs)
