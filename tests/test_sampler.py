"""The compiled sampler against the full forward pass and by its properties."""

import dataclasses
import functools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tokenizers

from ioa_jax.models import decoder
from ioa_jax.runtime import sharding
from ioa_jax.sampling import guides
from ioa_jax.sampling import logits as logits_lib
from ioa_jax.sampling import sampler as sampler_lib

CONFIG = decoder.DecoderConfig(
  vocab_size=23,
  width=32,
  num_layers=2,
  num_heads=4,
  num_kv_heads=2,
  head_width=8,
  mlp_width=48,
)
STOP = 1


@pytest.fixture(scope='module')
def params():
  # Sharper logits than at initialisation, so that samples differ from noise.
  return jax.tree.map(
    lambda x: 2.0 * x, decoder.init(CONFIG, jax.random.key(0))
  )


@functools.cache  # Compiling is most of the time.
def make(batch_size, max_new_tokens=12, scan_unroll=1):
  return sampler_lib.Sampler(
    dataclasses.replace(CONFIG, scan_unroll=scan_unroll),
    stop_tokens=[STOP],
    batch_size=batch_size,
    max_new_tokens=max_new_tokens,
  )


def prompts(n):
  rng = np.random.default_rng(0)
  return [list(rng.integers(2, 23, rng.integers(1, 14))) for _ in range(n)]


def sample(sampler, params, prompts, sampling, seeds=None):
  seeds = list(range(len(prompts))) if seeds is None else seeds
  settings = [sampling] * len(prompts)
  return sampler(params, prompts, settings, seeds)


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
@pytest.mark.parametrize(
  ('batch_size', 'scan_unroll'), [(1, 1), (3, 1), (8, 1), (3, 2)]
)
def test_greedy_equals_the_full_forward_pass(params, batch_size, scan_unroll):
  asked = prompts(8)
  got = sample(
    make(batch_size, scan_unroll=scan_unroll),
    params,
    asked,
    logits_lib.Sampling(max_tokens=12),
  )
  for prompt, generation in zip(asked, got):
    tokens, stopped, log_prob = greedy_without_cache(params, prompt, 12)
    assert list(generation.tokens) == tokens
    assert generation.stopped == stopped
    assert generation.log_prob == pytest.approx(log_prob, abs=1e-3)


def test_text_depends_on_its_seed_and_not_on_row_or_batch(params):
  asked = prompts(6)
  hot = logits_lib.Sampling(temperature=1.0, max_tokens=12)
  first = sample(make(8), params, asked, hot)
  turned = sample(make(3), params, asked[::-1], hot, seeds=range(5, -1, -1))
  assert [g.tokens for g in first] == [g.tokens for g in turned[::-1]]
  other = sample(make(8), params, asked, hot, seeds=range(100, 106))
  assert [g.tokens for g in first] != [g.tokens for g in other]


def test_nothing_about_a_request_recompiles(params):
  sampler = make(3)
  sample(sampler, params, prompts(1), logits_lib.Sampling(max_tokens=1))
  warm = sampler.compilations
  for n, setting in (
    (4, logits_lib.Sampling(max_tokens=5)),
    (40, logits_lib.Sampling(temperature=0.7, top_k=3, max_tokens=12)),
    (7, logits_lib.Sampling(temperature=1.3, top_p=0.5, max_tokens=3)),
    (2, logits_lib.Sampling(temperature=1.3, min_p=0.5, max_tokens=3)),
  ):
    sample(sampler, params, prompts(n), setting, seeds=range(9, 9 + n))
  assert sampler.compilations == warm == 1


def test_slots_are_refilled_and_stay_full(params):
  """Many more requests than slots and queue, each of another length."""
  rng = np.random.default_rng(1)
  asked = prompts(60)
  settings = [
    logits_lib.Sampling(max_tokens=int(n)) for n in rng.integers(1, 13, 60)
  ]
  sampler = sampler_lib.Sampler(
    CONFIG, stop_tokens=[STOP], batch_size=3, max_new_tokens=12
  )
  parts = list(sampler.finished(params, asked, settings, [0] * 60))
  assert len(parts) > 1  # The queue of 12 was filled again.
  got = dict(pair for part in parts for pair in part)
  assert sorted(got) == list(range(60))
  for i, setting in enumerate(settings):
    tokens, stopped, _ = greedy_without_cache(
      params, asked[i], setting.max_tokens
    )
    assert (list(got[i].tokens), got[i].stopped) == (tokens, stopped)
  assert sampler.occupancy >= 0.9


def test_what_prompts_share_changes_no_bit(params):
  """Chunks of 16: two are shared, and one prompt is there twice."""
  rng = np.random.default_rng(2)
  start = list(rng.integers(2, 23, 40))
  asked = [start + [5, 6], start + [5, 6], start + [7] * 9, [4] * 3]
  hot = logits_lib.Sampling(temperature=1.0, max_tokens=12)
  together = sample(make(3), params, asked, hot)
  alone = [
    sample(make(3), params, [p], hot, seeds=[i])[0] for i, p in enumerate(asked)
  ]
  assert together == alone
  assert together[0].tokens != together[1].tokens  # Two samples of one prompt.


def test_log_probs_are_of_the_unmodified_distribution(params):
  prompt = prompts(1)[0]
  (got,) = sample(
    make(3),
    params,
    [prompt],
    logits_lib.Sampling(temperature=0.5, top_k=4, max_tokens=12),
  )
  text, want = list(prompt), []
  for token in [*got.tokens, *[STOP] * got.stopped]:
    padded = np.zeros((1, 32), np.int32)
    padded[0, : len(text)] = text
    logits = _next_logits(params, padded, len(text))
    want.append(jax.nn.log_softmax(logits)[token])
    text.append(token)
  np.testing.assert_allclose(got.log_probs, want, atol=1e-4)


def test_min_p_keeps_a_share_of_the_likeliest():
  logits = jnp.log(jnp.asarray([[0.15, 0.5, 0.05, 0.3]]))
  for min_p, kept in ((0.0, [0, 1, 2, 3]), (0.2, [0, 1, 3]), (0.61, [1])):
    got = logits_lib.filter_logits(
      logits, jnp.asarray([0]), jnp.ones(1), jnp.asarray([min_p])
    )
    assert list(np.flatnonzero(np.isfinite(got[0]))) == kept


def test_a_mesh_writes_the_same_greedy_tokens(params):
  asked = prompts(6)
  greedy = logits_lib.Sampling(max_tokens=12)
  mesh = sharding.make_mesh(data=2, fsdp=1, tensor=2, devices=jax.devices()[:4])
  config = dataclasses.replace(CONFIG, vocab_size=24, num_tokens=23)
  padded = params | {
    'embedding': jnp.pad(params['embedding'], ((0, 1), (0, 0)))
  }
  placed = jax.device_put(padded, sharding.param_shardings(mesh, padded))
  sampler = sampler_lib.Sampler(
    config, stop_tokens=[STOP], batch_size=4, max_new_tokens=12
  )
  with jax.set_mesh(mesh):
    got = sample(sampler, placed, asked, greedy)
    again = sample(sampler, placed, asked[::-1], greedy)
  assert sampler.compilations == 1
  for prompt, one, other in zip(asked, got, again[::-1]):
    assert list(one.tokens) == greedy_without_cache(params, prompt, 12)[0]
    assert one.tokens == other.tokens


def test_a_stop_text_ends_between_tokens(params):
  """Letters are tokens; 'ab' is looked for in what they spell."""
  spell = lambda tokens: ''.join('_.abcdefghijklmnopqrstu'[t] for t in tokens)
  asked = prompts(8)
  hot = logits_lib.Sampling(temperature=1.0, max_tokens=12)
  free = sample(make(3), params, asked, hot)
  whole = [spell(g.tokens) for g in free]
  stop = next(w[3:5] for w in whole if len(w) > 6)
  watched = [guides.StopTexts(spell, [stop]) for _ in asked]
  got = make(3)(params, asked, [hot] * 8, range(8), watched)
  for text, one, guide, unwatched in zip(whole, got, watched, free):
    at = text.find(stop)
    if at < 0:
      assert one == unwatched
    else:
      assert one.stopped and spell(one.tokens) == text[: at + 2]
      assert guide.cut(spell(one.tokens)) == text[:at]
      assert one.log_probs == unwatched.log_probs[: at + 2]
  assert any(stop in w for w in whole)


def test_answers_keep_to_their_schema_beside_free_ones():
  """Random weights write fitting JSON; a free neighbour is left alone."""
  pytest.importorskip('llguidance')
  # The byte-level alphabet writes a space as a letter of its own.
  letters = ['\u0120', *map(chr, range(33, 127))]
  vocabulary = {'<unk>': 0, '<end>': 1} | {
    c: i for i, c in enumerate(letters, 2)
  }
  tokenizer = tokenizers.Tokenizer(tokenizers.models.BPE(vocabulary, []))
  tokenizer.add_special_tokens(['<unk>', '<end>'])
  tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(
    add_prefix_space=False
  )
  tokenizer.decoder = tokenizers.decoders.ByteLevel()
  config = dataclasses.replace(CONFIG, vocab_size=97)
  weights = decoder.init(config, jax.random.key(4))
  schema = {
    'type': 'object',
    'additionalProperties': False,
    'properties': {
      'kind': {'enum': ['sum', 'product']},
      'even': {'type': 'boolean'},
    },
    'required': ['kind', 'even'],
  }
  schemas = guides.Schemas(tokenizer.to_str(), 97, [1])
  sampler = sampler_lib.Sampler(
    config, stop_tokens=[1], batch_size=3, max_new_tokens=48
  )
  hot = logits_lib.Sampling(temperature=5.0, max_tokens=48)
  asked, seeds = [[3, 4, 5]] * 12, range(12)
  free = sampler(weights, asked, [hot] * 12, seeds)
  guided = [
    schemas.guide(json.dumps(schema)) if i % 2 else None for i in range(12)
  ]
  got = sampler(weights, asked, [hot] * 12, seeds, guided)
  kinds = set()
  for i, generation in enumerate(got):
    if not guided[i]:
      assert generation == free[i]
      continue
    answer = json.loads(tokenizer.decode(list(generation.tokens)))
    assert answer.keys() == {'kind', 'even'} and generation.stopped
    kinds.add((answer['kind'], answer['even']))
  assert len(kinds) > 1  # It still chooses.
  assert sampler.compilations == 1
  with pytest.raises(ValueError, match='JSON schema'):
    schemas.guide('{"type": "colour"}')


def test_top_one_is_greedy(params):
  asked = prompts(4)
  greedy = sample(make(3), params, asked, logits_lib.Sampling(max_tokens=12))
  for setting in (
    logits_lib.Sampling(temperature=2.0, top_k=1, max_tokens=12),
    logits_lib.Sampling(temperature=2.0, top_p=1e-6, max_tokens=12),
  ):
    assert [g.tokens for g in sample(make(3), params, asked, setting)] == [
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
    got = logits_lib.filter_logits(
      logits, jnp.asarray([0]), jnp.asarray([top_p]), jnp.zeros(1)
    )
    assert list(np.flatnonzero(np.isfinite(got[0]))) == kept


def test_filter_leaves_the_other_rows_alone():
  logits = jnp.zeros((2, 5)).at[:, 2].set(1.0)
  got = logits_lib.filter_logits(
    logits, jnp.asarray([1, 0]), jnp.asarray([1.0, 1.0]), jnp.zeros(2)
  )
  assert np.isfinite(got[0]).sum() == 1 and np.isfinite(got[1]).all()


def test_frequencies_follow_the_temperature(params):
  # One prompt, many seeds: the first token's frequencies against softmax.
  prompt, n = [5, 6, 7], 2048
  sampler = make(256, max_new_tokens=1)
  sampling = logits_lib.Sampling(temperature=1.5, max_tokens=1)
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
    params,
    prompts(3),
    [logits_lib.Sampling(max_tokens=n) for n in (1, 2, 12)],
    [0, 1, 2],
  )
  lengths = [len(g.tokens) + g.stopped for g in batch]
  assert all(n <= limit for n, limit in zip(lengths, (1, 2, 12)))


@pytest.mark.parametrize(
  'bad',
  [
    dict(temperature=-1),
    dict(top_p=0),
    dict(max_tokens=0),
    dict(top_k=-1),
    dict(min_p=2),
  ],
)
def test_bad_settings_are_refused(bad):
  with pytest.raises(ValueError, match='sampling: '):
    logits_lib.Sampling(**bad)


def test_a_request_longer_than_the_program_is_refused(params):
  with pytest.raises(ValueError, match='max_tokens 13 is over'):
    sample(make(3), params, prompts(1), logits_lib.Sampling(max_tokens=13))


def test_a_prompt_without_tokens_is_refused(params):
  with pytest.raises(ValueError, match='no tokens'):
    sample(make(3), params, [[]], logits_lib.Sampling(max_tokens=1))
