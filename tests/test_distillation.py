"""Divergences from a teacher's top k: identities, and NumPy as the oracle."""

import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ioa_jax import config as config_lib
from ioa_jax import people
from ioa_jax import subject as subject_lib
from ioa_jax.models import decoder
from ioa_jax.runtime import sharding
from ioa_jax.training import distillation, losses
from tests import test_pipeline

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
    distillation.forward_kl(p, q),
    distillation.reverse_kl(p, q),
  )
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
  vocab_size=V,
  width=16,
  num_layers=1,
  num_heads=2,
  num_kv_heads=1,
  head_width=8,
  mlp_width=16,
)


def rows_of_tokens(seed=0):
  token, log_prob = distillation.top_k(logits(seed), T)
  return {
    'target': jax.random.randint(jax.random.key(4), (B, L), 0, V),
    'weight': jnp.asarray(np.arange(B * L).reshape(B, L) % 3, jnp.float32),
    'teacher_token': token,
    'teacher_log_prob': log_prob,
  }


@pytest.mark.parametrize('temperature', [1.0, 2.0])
def test_a_tokens_loss_is_the_mixture_in_pieces_or_whole(
  monkeypatch, temperature
):
  params = decoder.init(CONFIG, jax.random.key(2))
  hidden = jax.random.normal(jax.random.key(3), (B, L, 16))
  rows = rows_of_tokens()
  objective = distillation.make_objective(
    divergence='forward_kl',
    beta=0.5,
    weight=0.3,
    temperature=temperature,
    on_policy_share=0.5,
  )

  def value_and_grad():
    def loss(hidden):
      total, count = distillation.token_loss(
        CONFIG, params, hidden, rows, objective
      )
      return total / count

    return jax.value_and_grad(loss)(hidden)

  want = value_and_grad()
  student = decoder.unembed(CONFIG, params, hidden)
  likelihood, count = losses.cross_entropy(
    student, rows['target'], rows['weight']
  )
  soft = lambda x: np.exp(
    np.asarray(distillation.soften(x, temperature), np.float64)
  )
  p = soft(distillation.with_tail(rows['teacher_log_prob']))
  q = soft(distillation.student_events(student, rows['teacher_token']))
  kl = temperature**2 * (p * np.log(p / q)).sum(-1)
  np.testing.assert_allclose(
    want[0],
    (0.7 * likelihood + 0.3 * (kl * rows['weight']).sum()) / count,
    rtol=1e-4,
  )
  monkeypatch.setattr(losses, '_MAX_ROW_LOGITS', 2 * V)
  assert losses._piece(L, V) == 2
  got = value_and_grad()
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6),
    got,
    want,
  )
  # Where the weight is 0 nothing is learned.
  assert (jnp.abs(got[1]).max(-1)[rows['weight'] == 0] == 0).all()


@pytest.mark.parametrize('name', ['forward_kl', 'reverse_kl', 'jsd'])
def test_every_divergence_of_the_config_is_its_formula(name):
  objective = distillation.make_objective(
    divergence=name,
    beta=0.3,
    weight=1.0,
    temperature=1.0,
    on_policy_share=0.5,
  )
  np.testing.assert_array_equal(
    objective.divergence(*events()), ALL[name.removesuffix('_kl')](*events())
  )


@pytest.mark.parametrize('k', [0, V])
def test_a_k_without_a_tail_is_refused(k):
  with pytest.raises(ValueError, match=f'k is {k}, wanted 0 < k < {V}'):
    distillation.top_k(logits(0), k)


@pytest.mark.parametrize(
  'changes,message',
  [
    ({'divergence': 'kl'}, "divergence is 'kl', wanted one of 'none'"),
    ({'beta': 1.5}, r'beta is 1.5, wanted a number in \[0, 1\]'),
    ({'weight': -0.1}, r'weight is -0.1, wanted a number in \[0, 1\]'),
    ({'temperature': 0.0}, 'temperature is 0.0, wanted a number > 0'),
    ({'top_k': 0}, 'top_k is 0, wanted a whole number >= 1'),
  ],
)
def test_bad_settings_name_their_field(changes, message):
  changes = {f'distillation.{k}': v for k, v in changes.items()}
  config = test_pipeline.load_config('quickstart', changes)
  with pytest.raises(config_lib.ConfigError, match=message):
    config_lib.validate(config)


@pytest.mark.parametrize(
  'top_k,token,message',
  [
    (27, 'R', 'top_k is 27 and the models have 27'),
    (8, '?', "different tokenizers: id 21 is 'R' in the first and '\\?'"),
  ],
)
def test_the_teacher_must_have_the_students_tokens(
  tmp_path, top_k, token, message
):
  student = tmp_path / 'student'
  shutil.copytree(people.ASSETS / 'student', student)
  path = student / 'tokenizer.json'
  path.write_text(path.read_text().replace('"R"', f'"{token}"'))
  config = test_pipeline.load_config(
    'quickstart',
    {
      'method': 'logit_distillation',
      'distillation.top_k': top_k,
      'student.model': str(student),
    },
  )
  with pytest.raises(ValueError, match=message):
    subject_lib.open_subject(config, sharding.make_mesh())
