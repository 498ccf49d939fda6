"""Log-probabilities of given texts, against transformers and the sampler."""

import jax
import numpy as np
import pytest

from ioa_jax.models import decoder, huggingface
from ioa_jax.runtime import sharding
from ioa_jax.sampling import likelihood
from ioa_jax.sampling import logits as logits_lib
from ioa_jax.sampling import sampler as sampler_lib

CONFIG = decoder.DecoderConfig(
  vocab_size=24,
  width=32,
  num_layers=2,
  num_heads=4,
  num_kv_heads=2,
  head_width=8,
  mlp_width=48,
)


@pytest.fixture(scope='module')
def params():
  return decoder.init(CONFIG, jax.random.key(0))


def texts(n, longest=60):
  rng = np.random.default_rng(0)
  draw = lambda least: rng.integers(
    2, 24, rng.integers(least, longest)
  ).tolist()
  return [draw(1) for _ in range(n)], [draw(0) for _ in range(n)]


def test_equals_transformers(params, tmp_path):
  """Rows of 64 and 128 slots, an empty completion, a batch that is not full."""
  torch = pytest.importorskip('torch')
  transformers = pytest.importorskip('transformers')
  huggingface.save(
    tmp_path, CONFIG, params, dtype='float32', eos_token_id=1, pad_token_id=0
  )
  model = transformers.AutoModelForCausalLM.from_pretrained(tmp_path).eval()
  prompts, completions = texts(10)
  completions[3] = []
  likely = likelihood.Likelihood(CONFIG, batch_size=4)
  got = likely(params, prompts, completions)
  for prompt, completion, log_probs in zip(prompts, completions, got):
    with torch.no_grad():
      logits = model(torch.tensor([prompt + completion])).logits[0]
    want = torch.log_softmax(logits, -1)[
      torch.arange(len(prompt) - 1, len(prompt) + len(completion) - 1),
      torch.tensor(completion, dtype=torch.long),
    ]
    assert log_probs.dtype == np.float32
    np.testing.assert_allclose(log_probs, want.numpy(), atol=1e-4)
  warm = likely.compilations
  assert warm == 2
  likely(params, prompts[:3], completions[:3])
  likely(params, completions[5:], prompts[5:])
  assert likely.compilations == warm


def test_equals_what_the_sampler_says_of_its_own_text(params):
  prompts, _ = texts(6, longest=14)
  sampler = sampler_lib.Sampler(
    CONFIG, stop_tokens=[1], batch_size=3, max_new_tokens=12
  )
  greedy = logits_lib.Sampling(max_tokens=12)
  written = sampler(params, prompts, [greedy] * 6, [0] * 6)
  completions = [[*g.tokens, *[1] * g.stopped] for g in written]
  likely = likelihood.Likelihood(CONFIG, batch_size=4)
  got = likely(params, prompts, completions)
  for generation, log_probs in zip(written, got):
    np.testing.assert_allclose(generation.log_probs, log_probs, atol=1e-4)


def test_pieces_change_nothing(params, monkeypatch):
  prompts, completions = texts(4)
  run = lambda: likelihood.Likelihood(CONFIG, batch_size=4)(
    params, prompts, completions
  )
  whole = run()
  monkeypatch.setattr(likelihood, '_MAX_LOGITS', 4 * 24 * 16)
  for one, other in zip(whole, run()):
    np.testing.assert_allclose(one, other, atol=1e-5)


def test_logits_never_exist_whole():
  config = CONFIG.__class__(**{**CONFIG.__dict__, 'vocab_size': 2**16})
  token_BxL = jax.ShapeDtypeStruct((4, 256), np.int32)
  length_B = jax.ShapeDtypeStruct((4,), np.int32)
  compiled = jax.jit(likelihood.token_log_probs, static_argnums=0).lower(
    config, decoder.abstract_params(config), token_BxL, length_B
  )
  memory = compiled.compile().memory_analysis().temp_size_in_bytes
  # All of them would be 256 MiB; a piece is 64, held a few times over.
  assert memory < 4 * 256 * 2**16 * 4


def test_a_mesh_gives_the_same(params):
  prompts, completions = texts(8)
  mesh = sharding.make_mesh(data=2, fsdp=1, tensor=2, devices=jax.devices()[:4])
  want = likelihood.Likelihood(CONFIG, batch_size=4)(
    params, prompts, completions
  )
  placed = jax.device_put(params, sharding.param_shardings(mesh, params))
  with jax.set_mesh(mesh):
    got = likelihood.Likelihood(CONFIG, batch_size=4)(
      placed, prompts, completions
    )
  for one, other in zip(want, got):
    np.testing.assert_allclose(one, other, atol=1e-4)


def test_a_prompt_without_tokens_is_refused(params):
  with pytest.raises(ValueError, match='no tokens'):
    likelihood.Likelihood(CONFIG, batch_size=4)(params, [[]], [[3]])
