"""The compiled sampler against the full forward pass and by its properties."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ioa_jax.models import decoder
from ioa_jax.sampling import sampler as sampler_lib

CONFIG = decoder.DecoderConfig(
  vocab_size=23, width=32, num_layers=2, num_heads=4, num_kv_heads=2,
  head_width=8, mlp_width=48,
)  # fmt: skip
STOP = 1


@pytest.fixture(scope='module')
def params():
  # Sharper logits than at initialisation, so that samples differ from noise.
  return jax.tree.map(
    lambda x: 2.0 * x, decoder.init(CONFIG, jax.random.key(0))
  )


def make(batch_size, max_new_tokens=12):
  return sampler_lib.Sampler(
    CONFIG, stop_tokens=[STOP], batch_size=batch_size,
    max_new_tokens=max_new_tokens,
  )  # fmt: skip


def prompts(n):
  rng = np.random.default_rng(0)
  return [list(rng.integers(2, 23, rng.integers(1, 14))) for _ in range(n)]


def sample(sampler, params, prompts, sampling, seeds=None):
  seeds = list(range(len(prompts))) if seeds is None else seeds
  settings = [sampling] * len(prompts)
  batches = sampler(params, prompts, settings, seeds)
  return [g for batch in batches for g in batch]


@jax.jit
def _next_logits(params, token_BxL, length):
  segment = (jnp.arange(token_BxL.shape[1]) < length)[None].astype(jnp.int32)
  position = jnp.arange(token_BxL.shape[1])[None]
  hidden = decoder.forward(CONFIG, params, token_BxL, segment, position)
  return decoder.unembed(CONFIG, params, hidden[0, length - 1])


def greedy_without_cache(params, prompt, max_new_tokens):
  """The oracle: the whole text through the full forward pass at each token."""
  tokens, log_prob = list(prompt), 0.0
  for _ in range(max_new_tokens):
    padded = np.zeros((1, 32), np.int32)
    padded[0, : len(tokens)] = tokens
    logits = _next_logits(params, padded, len(tokens))
    token = int(jnp.argmax(logits))
    log_prob += float(jax.nn.log_softmax(logits)[token])
    tokens.append(token)
    if token == STOP:
      return tokens[len(prompt) : -1], True, log_prob
  return tokens[len(prompt) :], False, log_prob


# Several batch sizes: a transposed cache is right at some and wrong at others.
@pytest.mark.parametrize('batch_size', [1, 3, 8])
def test_greedy_equals_the_full_forward_pass(params, batch_size):
  asked = prompts(8)
  got = sample(
    make(batch_size), params, asked, sampler_lib.Sampling(max_tokens=12)
  )
  for prompt, generation in zip(asked, got):
    tokens, stopped, log_prob = greedy_without_cache(params, prompt, 12)
    assert list(generation.tokens) == tokens
    assert generation.stopped == stopped
    assert generation.log_prob == pytest.approx(log_prob, abs=1e-3)


def test_text_depends_on_its_seed_and_not_on_row_or_batch(params):
  asked = prompts(6)
  hot = sampler_lib.Sampling(temperature=1.0, max_tokens=12)
  first = sample(make(6), params, asked, hot)
  turned = sample(make(4), params, asked[::-1], hot, seeds=range(5, -1, -1))
  assert [g.tokens for g in first] == [g.tokens for g in turned[::-1]]
  other = sample(make(6), params, asked, hot, seeds=range(100, 106))
  assert [g.tokens for g in first] != [g.tokens for g in other]


def test_no_setting_recompiles(params):
  sampler = make(4)
  for setting in (
    sampler_lib.Sampling(max_tokens=5),
    sampler_lib.Sampling(temperature=0.7, top_k=3, max_tokens=12),
    sampler_lib.Sampling(temperature=1.3, top_p=0.5, max_tokens=3),
  ):
    sample(sampler, params, prompts(4), setting)
  assert sampler._decode._cache_size() == 1


def test_top_one_is_greedy(params):
  asked = prompts(4)
  greedy = sample(make(4), params, asked, sampler_lib.Sampling(max_tokens=12))
  for setting in (
    sampler_lib.Sampling(temperature=2.0, top_k=1, max_tokens=12),
    sampler_lib.Sampling(temperature=2.0, top_p=1e-6, max_tokens=12),
  ):
    assert [g.tokens for g in sample(make(4), params, asked, setting)] == [
      g.tokens for g in greedy
    ]


def test_filter_keeps_the_smallest_set_that_reaches_top_p():
  # Probabilities .5, .3, .15, .05: top-p .6 needs two, .8 too, .81 three.
  logits = jnp.log(jnp.asarray([[0.15, 0.5, 0.05, 0.3]]))
  for top_p, kept in (
    (0.4, [1]),
    (0.6, [1, 3]),
    (0.79, [1, 3]),
    (0.81, [0, 1, 3]),
  ):
    got = sampler_lib.filter_logits(
      logits, jnp.asarray([0]), jnp.asarray([top_p])
    )
    assert list(np.flatnonzero(np.isfinite(got[0]))) == kept


def test_filter_leaves_the_other_rows_alone():
  logits = jnp.zeros((2, 5)).at[:, 2].set(1.0)
  got = sampler_lib.filter_logits(
    logits, jnp.asarray([1, 0]), jnp.asarray([1.0, 1.0])
  )
  assert np.isfinite(got[0]).sum() == 1 and np.isfinite(got[1]).all()


def test_frequencies_follow_the_temperature(params):
  # One prompt, many seeds: the first token's frequencies against softmax.
  prompt, n = [5, 6, 7], 2048
  sampler = make(256, max_new_tokens=1)
  sampling = sampler_lib.Sampling(temperature=1.5, max_tokens=1)
  drawn = sample(sampler, params, [prompt] * n, sampling)
  tokens = [g.tokens[0] if g.tokens else STOP for g in drawn]
  padded = np.zeros((1, 32), np.int32)
  padded[0, :3] = prompt
  want = jax.nn.softmax(_next_logits(params, padded, 3) / 1.5)
  got = np.bincount(tokens, minlength=23) / n
  # Five standard errors of the likeliest token's frequency.
  assert np.abs(got - want).max() < 5 * 0.5 / np.sqrt(n)


def test_length_limits_hold_per_request(params):
  sampler = make(3)
  batch = sampler(
    params, prompts(3),
    [sampler_lib.Sampling(max_tokens=n) for n in (1, 2, 12)], [0, 1, 2],
  )  # fmt: skip
  lengths = [len(g.tokens) + g.stopped for g in next(batch)]
  assert all(n <= limit for n, limit in zip(lengths, (1, 2, 12)))


@pytest.mark.parametrize(
  'bad',
  [dict(temperature=-1), dict(top_p=0), dict(max_tokens=0), dict(top_k=-1)],
)
def test_bad_settings_are_refused(bad):
  with pytest.raises(ValueError, match='sampling: '):
    sampler_lib.Sampling(**bad)


def test_a_request_longer_than_the_program_is_refused(params):
  with pytest.raises(ValueError, match='max_tokens 13 is over'):
    sample(make(2), params, prompts(1), sampler_lib.Sampling(max_tokens=13))
