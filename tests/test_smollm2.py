"""Real weights: SmolLM2-135M-Instruct against transformers."""

import json
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ioa_jax.models import decoder, huggingface, vocabulary
from ioa_jax.runtime import sharding
from ioa_jax.sampling import logits as logits_lib
from ioa_jax.sampling import sampler
from tests.outside import DATA, ROOT

GSM8K = DATA / 'gsm8k' / 'test.jsonl'
PROMPTS = (
  'What is the capital of France?',
  'Natalia sold 48 clips in April and half as many in May. How many in all?',
  'Write a Python function that reverses a string.',
  'Why is the sky blue?',
  'Translate "good morning" into Spanish.',
)
pytestmark = pytest.mark.slow


@pytest.fixture(scope='module')
def directory(smollm2):
  return smollm2


@pytest.fixture(scope='module')
def prompts(directory):
  tokenizer = vocabulary.load_tokenizer(directory)
  return [
    vocabulary.chat_tokens(
      tokenizer, directory, [{'role': 'user', 'content': prompt}]
    )
    for prompt in PROMPTS
  ]


@pytest.fixture(scope='module')
def wanted(directory, prompts):
  """Logits of each prompt and 40 greedy tokens, by transformers."""
  torch = pytest.importorskip('torch')
  transformers = pytest.importorskip('transformers')
  model = transformers.AutoModelForCausalLM.from_pretrained(
    directory, dtype=torch.float32
  )
  logits, tokens = [], []
  with torch.no_grad():
    for prompt in prompts:
      ids = torch.tensor(prompt)[None]
      logits.append(model(ids).logits[0].numpy())
      out = model.generate(ids, max_new_tokens=40, do_sample=False)
      tokens.append(tuple(out[0, len(prompt) :].tolist()))
  return logits, tokens


@pytest.mark.parametrize(
  'axes',
  [{'data': 1}, {'data': 1, 'fsdp': 2, 'tensor': 2}],
  ids=['one device', 'mesh'],
)
def test_equals_transformers_on_real_weights(directory, prompts, wanted, axes):
  """Logits within 1e-3, and the same 40 greedy tokens on five prompts."""
  want_logits, want_tokens = wanted
  devices = int(np.prod(list(axes.values())))
  mesh = sharding.make_mesh(**axes, devices=jax.devices()[:devices])
  config = huggingface.read_config(directory)
  params = huggingface.load_params(
    directory,
    config,
    shardings=sharding.param_shardings(mesh, decoder.abstract_params(config)),
  )
  width = max(map(len, prompts))
  token = np.zeros((len(prompts), width), np.int32)
  segment = np.zeros_like(token)
  for row, prompt in enumerate(prompts):
    token[row, : len(prompt)] = prompt
    segment[row, : len(prompt)] = 1
  position = np.broadcast_to(np.arange(width, dtype=np.int32), token.shape)

  @jax.jit
  def logits(params):
    hidden = decoder.forward(
      config, params, jnp.asarray(token), segment, position
    )
    return decoder.unembed(config, params, hidden)

  stop = vocabulary.stop_tokens(directory)
  sample = sampler.Sampler(
    config, stop_tokens=stop, batch_size=len(prompts), max_new_tokens=40
  )
  with jax.set_mesh(mesh):
    got_logits = jax.device_get(logits(params))
    generations = sample(
      params,
      prompts,
      [logits_lib.Sampling(max_tokens=40)] * len(prompts),
      [0] * len(prompts),
    )
  for got, want in zip(got_logits, want_logits, strict=True):
    np.testing.assert_allclose(got[: len(want)], want, atol=1e-3, rtol=0)
  for generation, want in zip(generations, want_tokens, strict=True):
    # transformers keeps the stop token.
    assert generation.tokens == tuple(t for t in want if t not in stop)


def test_distillation_fits_in_six_gigabytes_and_lowers_the_loss(directory):
  """Full fine-tuning by the compiled window: probes, average and all."""
  if not GSM8K.exists():
    pytest.skip(f'{GSM8K} is not here.')
  done = subprocess.run(
    [sys.executable, '-m', 'tests.smollm2_step', directory, GSM8K, '3'],
    cwd=ROOT,
    capture_output=True,
    text=True,
  )
  assert done.returncode == 0, done.stderr
  seen = json.loads(done.stdout.splitlines()[-1])
  print(f'peak {seen["peak_bytes"] / 1e9:.2f} GB, losses {seen["losses"]}')
  assert seen['peak_bytes'] < 6e9
  assert seen['losses'][-1] < 0.9 * seen['losses'][0]
