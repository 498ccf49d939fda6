"""Rows hold every example whole, once, and apart from its neighbours."""

import hypothesis
from hypothesis import strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ioa_jax.training import losses, packing

L = 16


@st.composite
def example_lists(draw):
  token = st.integers(2, 30)
  pair = st.tuples(
    st.lists(token, min_size=1, max_size=7),
    st.lists(token, min_size=1, max_size=7),
  )
  return [packing.Example(*p) for p in draw(st.lists(pair, max_size=30))]


def unpack(rows):
  """The oracle: reads the examples back out of the rows."""
  found = []
  for r in range(len(rows['token'])):
    for segment in range(1, rows['segment'][r].max(initial=0) + 1):
      at = rows['segment'][r] == segment
      weights = rows['weight'][r][at]
      tokens = [*rows['token'][r][at], rows['target'][r][at][-1]]
      assert list(rows['target'][r][at]) == tokens[1:]
      assert list(rows['position'][r][at]) == list(range(at.sum()))
      learned = int(weights.sum())
      assert list(weights) == [0.0] * (at.sum() - learned) + [1.0] * learned
      found.append((tuple(tokens[:-learned]), tuple(tokens[-learned:])))
  return found


@hypothesis.settings(deadline=None)
@hypothesis.given(example_lists())
def test_every_example_is_there_once_and_whole(examples):
  rows = packing.pack(examples, L)
  want = [(tuple(e.prompt), tuple(e.completion)) for e in examples]
  assert sorted(unpack(rows)) == sorted(want)
  assert sorted(packing.unpack(rows)) == sorted(a + b for a, b in want)
  assert (rows['weight'][rows['segment'] == 0] == 0).all()


def test_weights_of_tokens_stand_where_they_are_learned():
  rows = packing.pack(
    [
      packing.Example([1, 2], [3, 4, 5], [0.5, 1.0, 2.0]),
      packing.Example([6], [7], [3.0]),
    ],
    L,
  )
  assert list(rows['weight'][0][:6]) == [0, 0.5, 1.0, 2.0, 3.0, 0]
  assert list(rows['target'][0][:5]) == [2, 3, 4, 5, 7]


def test_packing_fills_rows():
  examples = [packing.Example([2] * 4, [3] * 4) for _ in range(100)]
  rows = packing.pack(examples, L)  # Seven tokens each: two to a row.
  assert len(rows['token']) == 50


def test_an_example_that_does_not_fit_is_refused():
  with pytest.raises(ValueError, match='example 1 has 17 tokens, rows hold 16'):
    packing.pack(
      [packing.Example([2], [3]), packing.Example([2] * 9, [3] * 9)], L
    )


def test_cross_entropy_is_a_weighted_sum_and_a_count():
  rng = np.random.default_rng(0)
  logits = rng.normal(size=(2, 3, 5)).astype(np.float32)
  target = rng.integers(0, 5, (2, 3))
  weight = np.asarray([[1, 0, 1], [0, 0, 1]], np.float32)
  total, count = losses.cross_entropy(logits, target, weight)
  probs = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
  want = sum(
    -np.log(probs[b, l, target[b, l]])
    for b in range(2)
    for l in range(3)
    if weight[b, l]
  )
  np.testing.assert_allclose(total, want, rtol=1e-5)
  assert float(count) == 3.0


def test_cross_entropy_is_finite_in_bfloat16_with_large_logits():
  logits = jnp.asarray([[[300.0, -300.0]]], jnp.bfloat16)
  total, _ = losses.cross_entropy(logits, jnp.asarray([[1]]), jnp.ones((1, 1)))
  assert total.dtype == jnp.float32 and float(total) == 600.0
  grad = jax.grad(
    lambda x: losses.cross_entropy(x, jnp.asarray([[1]]), jnp.ones((1, 1)))[0]
  )(logits)
  assert np.isfinite(np.asarray(grad, np.float32)).all()
