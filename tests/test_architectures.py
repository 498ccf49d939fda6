"""Each architecture against transformers and PEFT: sampling and LoRA.

docs/architectures.md names these tests, one for each cell of its matrix.
"""

import dataclasses
import pathlib
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ioa_jax.models import decoder, huggingface, lora, peft
from ioa_jax.models.architectures import ARCHITECTURES, Layer, shortest_pattern
from ioa_jax.sampling import logits as logits_lib
from ioa_jax.sampling import sampler, slots, streaming
from tests import tiny_models

ROOT = pathlib.Path(__file__).parents[1]
PAGE = ROOT / 'docs' / 'architectures.md'
CONFIGS = tiny_models.CONFIGS
SAMPLED = CONFIGS | {
  name: tiny_models.VARIANTS[name] for name in ('qwen2_yarn', 'llama_dynamic')
}
TARGETS = lora.LoraSpec(
  rank=3, alpha=6.0, dropout=0.0, targets=lora.PROJECTIONS
)


def exported(config, directory):
  """A small random model, ours and transformers' reading of its export."""
  transformers = pytest.importorskip('transformers')
  # Weights so steep that answers differ, and not so that rounding shows.
  params = tiny_models.random_params(config, 0.3)
  huggingface.save(directory, config, params, dtype='float32', pad_token_id=0)
  model = transformers.AutoModelForCausalLM.from_pretrained(
    directory, attn_implementation='eager'
  )
  return params, model


def prompts():
  """Some past the window of 5, with beginnings in common, and one twice."""
  rng = np.random.default_rng(0)
  draw = lambda n: rng.integers(0, 40, n).tolist()
  shared = draw(13)
  long = shared + draw(6)
  return [draw(3), long, shared + draw(2), long, draw(9), shared[:8] + draw(9)]


def greedily(model, prompt, count):
  """Tokens and their log-probabilities, by transformers' own loop."""
  torch = pytest.importorskip('torch')
  # Dynamic RoPE would remember the longest text so far.
  rotary = model.model.rotary_emb
  model.model.rotary_emb = type(rotary)(model.config)
  model.generation_config.eos_token_id = None
  token = torch.tensor([prompt])
  out = model.generate(
    token,
    attention_mask=torch.ones_like(token),
    max_new_tokens=count,
    do_sample=False,
    pad_token_id=0,
    output_logits=True,
    return_dict_in_generate=True,
  )
  log_probs = torch.stack(out.logits, 1)[0].log_softmax(-1).max(-1).values
  return tuple(out.sequences[0, len(prompt) :].tolist()), log_probs.tolist()


def assert_same_texts(got, want):
  assert [g.tokens for g in got] == [tokens for tokens, _ in want]
  for generation, (_, log_probs) in zip(got, want, strict=True):
    np.testing.assert_allclose(generation.log_probs, log_probs, atol=1e-4)


@pytest.mark.parametrize('name', SAMPLED)
def test_greedy_text_is_that_of_transformers(tmp_path, name):
  """Token for token, with lanes, copied beginnings and rings that go round."""
  config = SAMPLED[name]
  params, model = exported(config, tmp_path)
  count = 12
  want = [greedily(model, prompt, count) for prompt in prompts()]
  assert len({tokens for tokens, _ in want}) > 2
  sample = sampler.Sampler(
    config, stop_tokens=[], batch_size=2, max_new_tokens=count, prompt_bucket=4
  )
  sampling = [logits_lib.Sampling(max_tokens=count)] * len(want)
  got = sample(params, prompts(), sampling, [0] * len(want))
  assert_same_texts(got, want)
  assert sample.compilations == 1


def test_unrolled_and_streamed_text_is_the_same(tmp_path):
  config = dataclasses.replace(CONFIGS['gemma3_text'], scan_unroll=4)
  params, model = exported(config, tmp_path)
  want = [greedily(model, prompt, 12) for prompt in prompts()]
  sample = sampler.Sampler(
    config, stop_tokens=[], batch_size=2, max_new_tokens=12, prompt_bucket=4
  )
  sampling = logits_lib.Sampling(max_tokens=12)
  got = sample(params, prompts(), [sampling] * len(want), [0] * len(want))
  assert_same_texts(got, want)
  stream = streaming.Streamer(config, stop_tokens=[], max_tokens=12)
  one = tuple(stream(params, prompts()[1], sampling, 0))
  assert one == want[1][0]


def test_caches_of_windows_do_not_grow_with_the_prompt():
  """A ring of a window and a chunk, in lanes and slots, for any prompt."""
  config = CONFIGS['gemma3_text']

  def columns(prompt):
    made = jax.eval_shape(
      lambda: slots.empty_slots(
        config, slots=2, lanes=2, prompt=prompt, new=16, chunk=8
      )
    )
    local, whole = made.cache.keys
    return local.shape, whole.shape, made.lanes.cache.keys[0].shape[3]

  local, whole, lanes = columns(4096)
  assert local == (3, 2, 2, 5 - 1 + 8, 16) and lanes == 5 - 1 + 8
  assert whole == (1, 2, 2, 4096 + 16, 16)
  assert columns(64)[0] == local


@pytest.mark.parametrize('name', CONFIGS)
def test_adapters_are_those_of_peft(tmp_path, name):
  """Exported adapters over the exported base: logits, and every gradient."""
  torch = pytest.importorskip('torch')
  library = pytest.importorskip('peft')
  config = CONFIGS[name]
  base, model = exported(config, tmp_path / 'base')
  adapters = jax.tree.map(
    np.asarray, lora.init(TARGETS, base, jax.random.key(0))
  )
  rng = np.random.default_rng(1)
  for adapter in adapters.values():
    adapter['b'] = np.float32(0.1 * rng.normal(size=adapter['b'].shape))
  peft.save(tmp_path / 'lora', adapters, TARGETS, base_model=tmp_path / 'base')
  adapted = library.PeftModel.from_pretrained(
    model, tmp_path / 'lora', is_trainable=True
  )
  token = rng.integers(0, 40, (2, 16))
  want = adapted(torch.tensor(token)).logits
  loss = torch.nn.functional.cross_entropy(
    want[:, :-1].reshape(-1, 40), torch.tensor(token[:, 1:]).reshape(-1)
  )
  loss.backward()

  @jax.jit
  def run(adapters):
    one = jnp.ones(token.shape, jnp.int32)
    attached = lora.attach(base, adapters, TARGETS)
    hidden = decoder.forward(
      config, attached, token, one, jnp.arange(16)[None] * one
    )
    logits = decoder.unembed(config, attached, hidden)
    log_probs = jax.nn.log_softmax(logits[:, :-1])
    nll = -jnp.take_along_axis(log_probs, token[:, 1:, None], -1)
    return nll.mean(), logits

  (got_loss, logits), grads = jax.value_and_grad(run, has_aux=True)(adapters)
  scale = want.std().item()
  np.testing.assert_allclose(
    logits / scale, want.detach().numpy() / scale, atol=1e-4
  )
  np.testing.assert_allclose(got_loss, loss.item(), rtol=1e-5)
  seen = 0
  for key, p in adapted.named_parameters():
    found = re.search(r'layers\.(\d+)\..*\.(\w+_proj)\.lora_(A|B)\.', key)
    if found is None:
      continue
    layer, target, part = int(found[1]), found[2], found[3].lower()
    got, expected = grads[target][part][layer].T, p.grad.numpy()
    assert np.abs(got - expected).max() < 1e-3 * np.abs(expected).max(), key
    seen += 1
  assert seen == 2 * 7 * config.num_layers


def test_patterns_are_the_shortest():
  a, b = Layer(), Layer(window=3)
  assert shortest_pattern([a, a, b, a, a, b, a]) == (a, a, b)
  assert shortest_pattern([a, a, a]) == (a,)
  assert shortest_pattern([a, a, b]) == (a, a, b)


def cells():
  """(architecture, column, what the cell says) of the page's matrix."""
  rows = [
    [cell.strip() for cell in line.strip('|').split('|')]
    for line in PAGE.read_text().splitlines()
    if line.startswith('|')
  ]
  header, body = rows[0], rows[2 : 2 + len(ARCHITECTURES)]
  return [
    (row[0].strip('`'), column, cell)
    for row in body
    for column, cell in zip(header[1:], row[1:], strict=True)
  ]


def test_the_page_covers_every_architecture():
  columns = [
    'load',
    'full',
    'LoRA',
    'QLoRA',
    'sample',
    'export to transformers',
    'vLLM',
    'PEFT',
  ]
  assert [(a, c) for a, c, _ in cells()] == [
    (a, c) for a in ARCHITECTURES for c in columns
  ]


def test_every_cell_of_the_page_names_a_test_that_is_there(request):
  """Or says that there is none yet."""
  for architecture, column, cell in cells():
    if cell == 'not yet':
      continue
    file, name, case = re.fullmatch(
      r'`(\w+)::(\w+)\[([\w-]+)\]`', cell
    ).groups()
    text = (ROOT / 'tests' / f'{file}.py').read_text()
    assert f'def {name}(' in text, (architecture, column, cell)
    module = __import__(f'tests.{file}', fromlist=['_'])
    marks = getattr(module, name).pytestmark
    cases = [
      str(i)
      for mark in marks
      if mark.name == 'parametrize'
      for i in (mark.kwargs.get('ids') or mark.args[1])
    ]
    assert case in cases, (architecture, column, cell)
