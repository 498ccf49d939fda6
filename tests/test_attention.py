"""The kernels compute what plain attention computes."""

import contextlib
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ioa_jax.models import attention
from ioa_jax.runtime import sharding

B, L, H, K, E = 2, 256, 4, 2, 32
SCALE = E**-0.5
WINDOWS = [None, 1, 30, 140]


def packed():
  """Two rows of several segments, the last one padding."""
  rng = np.random.default_rng(0)
  segment = np.zeros((B, L), np.int32)
  position = np.zeros((B, L), np.int32)
  for row, ends in enumerate([(50, 65, 120), (7, 100, 101)]):
    start = 0
    for number, end in enumerate(ends, 1):
      segment[row, start:end] = number
      position[row, start:end] = np.arange(end - start)
      start = end
    position[row, start:] = np.arange(L - start)
  draw = lambda heads: jnp.asarray(rng.normal(size=(B, L, heads, E)), 'float32')
  return draw(H), draw(K), draw(K), jnp.asarray(segment), jnp.asarray(position)


def whole(q, k, v, segment, position, window=None):
  """Attention by its definition, every score at once, in NumPy's words."""
  same = segment[:, :, None] == segment[:, None, :]
  sees = same & (position[:, :, None] >= position[:, None, :])
  if window is not None:
    sees &= position[:, :, None] - position[:, None, :] < window
  k, v = (jnp.repeat(x, H // K, axis=2) for x in (k, v))
  scores = jnp.einsum('blhe,bshe->bhls', q, k) / E**0.5
  weights = jax.nn.softmax(jnp.where(sees[:, None], scores, -jnp.inf), axis=-1)
  return jnp.einsum('bhls,bshe->blhe', weights, v)


def value_and_grad(attend, q, k, v):
  loss = lambda q, k, v: jnp.sum(jnp.sin(attend(q, k, v)))
  return jax.jit(jax.value_and_grad(loss, argnums=(0, 1, 2)))(q, k, v)


AXES = [
  None,
  {'data': 2, 'tensor': 2},
  {'data': 1, 'sequence': 2, 'tensor': 2},
  {'data': 2, 'sequence': 2},
]


def on_mesh(axes):
  if axes is None:
    return contextlib.nullcontext()
  return jax.set_mesh(sharding.make_mesh(**axes, devices=jax.devices()[:4]))


@pytest.mark.parametrize(
  ('queries', 'window', 'axes'),
  [(q, None, axes) for q in (48, 128, 1000) for axes in AXES]
  + [(48, window, None) for window in WINDOWS[1:]]
  + [(128, 30, AXES[1]), (1000, 30, None)],
)
def test_attention_by_blocks_is_attention(queries, window, axes, monkeypatch):
  """Also where the last block is a shorter one, and where there is only one."""
  monkeypatch.setattr(attention, '_QUERIES', queries)
  q, k, v, segment, position = packed()
  with on_mesh(axes):
    got = value_and_grad(
      lambda q, k, v: attention.attend_rows(
        q, k, v, segment, scale=SCALE, window=window
      ),
      q,
      k,
      v,
    )
  want = value_and_grad(
    lambda q, k, v: whole(q, k, v, segment, position, window), q, k, v
  )
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-4, atol=2e-5),
    got,
    want,
  )


def test_what_the_backward_pass_needs_grows_with_length_and_not_its_square():
  def kept(length):
    shape = lambda heads: jax.ShapeDtypeStruct((B, length, heads, E), 'float32')
    segment = jnp.ones((B, length), jnp.int32)
    attend = lambda *x: attention.attend(*x, segment, scale=SCALE)
    _, backward = jax.eval_shape(
      lambda *x: jax.vjp(attend, *x), shape(H), shape(K), shape(K)
    )
    return sum(x.size for x in jax.tree.leaves(backward) if x.ndim)

  assert kept(4 * L) == 4 * kept(L)


def test_half_precision_is_near_float32():
  """Softmax and sums in float32; only what enters a product is rounded."""
  q, k, v, segment, _ = packed()
  attend = lambda *x: attention.attend(*x, segment, scale=SCALE).astype(
    jnp.float32
  )
  half = lambda *x: attend(*(y.astype(jnp.bfloat16) for y in x))
  _, want = value_and_grad(attend, q, k, v)
  _, got = value_and_grad(half, q, k, v)
  pairs = zip((half(q, k, v), *got), (attend(q, k, v), *want), strict=True)
  for a, b in pairs:
    assert jnp.abs(a - b).max() < 0.03 * jnp.abs(b).max()


@pytest.mark.parametrize(
  ('axes', 'window'),
  [*((axes, None) for axes in AXES), (None, 30), (AXES[2], 140)],
)
def test_splash_attention_is_plain_attention(axes, window):
  """Values and gradients, whole and split over rows and heads."""
  q, k, v, segment, _ = packed()
  how = {'scale': SCALE, 'window': window}
  want = value_and_grad(
    lambda q, k, v: attention.attend(q, k, v, segment, **how), q, k, v
  )
  kernel = lambda q, k, v: attention.splash(
    q, k, v, segment, **how, interpret=True
  )
  with on_mesh(axes):
    got = value_and_grad(kernel, q, k, v)
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-4, atol=2e-5),
    got,
    want,
  )


def test_the_kernel_follows_the_mesh_and_not_the_machine():
  """On a CPU no kernel is traced; a short or odd row is plain anywhere."""
  q, k, v, segment, _ = packed()
  rows = jax.make_jaxpr(functools.partial(attention.attend_rows, scale=SCALE))(
    q, k, v, segment
  )
  assert 'pallas_call' not in str(rows)
  mesh = sharding.make_mesh(devices=jax.devices()[:1])
  with jax.set_mesh(mesh):
    assert sharding.platform() == 'cpu'


@pytest.mark.parametrize('window', WINDOWS[1:])
def test_a_block_with_a_window_reads_no_keys_before_it(window):
  """What lies before every query's window is not computed at all."""
  for keys, queries in attention._blocks(4096, window):
    assert keys.start == max(0, queries.start - window + 1)
    assert keys.stop == queries.stop
