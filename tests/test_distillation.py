"""Divergences from a teacher's top k: identities, and NumPy as the oracle."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors import numpy as safetensors_numpy

from ioa_jax.models import decoder
from ioa_jax.training import distillation, losses

B, L, V, T = 2, 8, 24, 5


def logits(seed):
  return 3 * jax.random.normal(jax.random.key(seed), (B, L, V))


def events(seed=0, other=1):
  token, log_prob = distillation.top_k(logits(seed), T)
  return (
    distillation.with_tail(log_prob),
    distillation.student_events(logits(other), token),
  )


ALL = {
  'forward': distillation.forward_kl,
  'reverse': distillation.reverse_kl,
  'jsd': lambda p, q: distillation.generalised_jsd(p, q, beta=0.3),
}


@pytest.mark.parametrize('name', ALL)
def test_it_is_zero_for_equals_and_else_positive(name):
  p, q = events()
  same, _ = events(0, 0)
  np.testing.assert_allclose(ALL[name](p, same), 0.0, atol=1e-6)
  assert (ALL[name](p, q) > 0.01).all()


def test_events_are_a_distribution_with_the_true_tail():
  p, q = events()
  for log_event in (p, q):
    np.testing.assert_allclose(jnp.exp(log_event).sum(-1), 1.0, rtol=1e-5)
  whole = np.sort(np.asarray(jax.nn.softmax(logits(0))), axis=-1)
  np.testing.assert_allclose(
    jnp.exp(p[..., -1]), whole[..., :-T].sum(-1), rtol=1e-4
  )


def test_divergences_against_numpy():
  p, q = (np.exp(np.asarray(x, np.float64)) for x in events())
  kl = lambda a, b: (a * np.log(a / b)).sum(-1)
  got = {name: np.asarray(d(*events())) for name, d in ALL.items()}
  np.testing.assert_allclose(got['forward'], kl(p, q), rtol=1e-4)
  np.testing.assert_allclose(got['reverse'], kl(q, p), rtol=1e-4)
  m = 0.3 * p + 0.7 * q
  np.testing.assert_allclose(
    got['jsd'], 0.3 * kl(p, m) + 0.7 * kl(q, m), rtol=1e-4
  )


def test_the_ends_of_beta_are_the_two_kls_of_gkd():
  """As a limit, so that the direction is not a matter of naming."""
  p, q = (distillation.soften(x, 3.0) for x in events())
  jsd = distillation.generalised_jsd
  small = 3e-3
  forward, reverse = (
    distillation.forward_kl(p, q), distillation.reverse_kl(p, q)
  )  # fmt: skip
  assert not np.allclose(forward, reverse, rtol=0.2)
  np.testing.assert_allclose(jsd(p, q, beta=small) / small, forward, rtol=0.05)
  np.testing.assert_allclose(
    jsd(p, q, beta=1 - small) / small, reverse, rtol=0.05
  )
  np.testing.assert_array_equal(jsd(p, q, beta=0), forward)
  np.testing.assert_array_equal(jsd(p, q, beta=1), reverse)


def test_the_tail_only_coarsens():
  """At most the divergence of the whole vocabulary, and near it for large k."""
  p, q = jax.nn.log_softmax(logits(0)), jax.nn.log_softmax(logits(1))
  whole = distillation.kl(p, q)
  found = []
  for k in (1, T, V - 1):
    token, log_prob = distillation.top_k(logits(0), k)
    found.append(
      distillation.forward_kl(
        distillation.with_tail(log_prob),
        distillation.student_events(logits(1), token),
      )
    )
  assert (found[0] <= found[1] + 1e-5).all()
  assert (found[1] <= whole + 1e-5).all()
  np.testing.assert_allclose(found[2], whole, rtol=1e-3)


CONFIG = decoder.DecoderConfig(
  vocab_size=V, width=16, num_layers=1, num_heads=2, num_kv_heads=1,
  head_width=8, mlp_width=16,
)  # fmt: skip


@pytest.mark.parametrize('temperature', [1.0, 2.0])
def test_pieces_of_a_row_are_the_whole_row(monkeypatch, temperature):
  params = decoder.init(CONFIG, jax.random.key(2))
  hidden = jax.random.normal(jax.random.key(3), (B, L, 16))
  token, log_prob = distillation.top_k(logits(0), T)
  weight = jnp.asarray(np.arange(B * L).reshape(B, L) % 3, jnp.float32)

  def value_and_grad():
    def loss(hidden):
      total, count = distillation.token_divergence(
        CONFIG, params, hidden, token, log_prob, weight,
        divergence=distillation.forward_kl, temperature=temperature,
      )  # fmt: skip
      return total / count

    return jax.value_and_grad(loss)(hidden)

  want = value_and_grad()
  monkeypatch.setattr(losses, '_MAX_ROW_LOGITS', 2 * V)
  assert losses._piece(L, V) == 2
  got = value_and_grad()
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6),
    got, want,
  )  # fmt: skip
  # Where the weight is 0 nothing is learned.
  assert (jnp.abs(got[1]).max(-1)[weight == 0] == 0).all()


def test_a_store_comes_back_and_another_format_is_refused(tmp_path):
  token, log_prob = distillation.top_k(logits(0), T)
  path = tmp_path / 'teacher.safetensors'
  distillation.save(path, token, log_prob)
  got_token, got = distillation.load(path)
  np.testing.assert_array_equal(got_token, token)
  np.testing.assert_array_equal(got, np.asarray(log_prob.astype(jnp.bfloat16)))
  # A header, and six bytes for each kept token.
  assert path.stat().st_size - B * L * T * 6 < 400
  # Rounded log-probabilities are still a distribution.
  tail = distillation.with_tail(jnp.asarray(got, jnp.float32))
  assert np.isfinite(tail).all()
  safetensors_numpy.save_file({'token': np.zeros(1)}, path)
  with pytest.raises(ValueError, match=r'format None .* score the rows again'):
    distillation.load(path)


@pytest.mark.parametrize('k', [0, V])
def test_a_k_without_a_tail_is_refused(k):
  with pytest.raises(ValueError, match=f'k is {k}, wanted 0 < k < {V}'):
    distillation.top_k(logits(0), k)
