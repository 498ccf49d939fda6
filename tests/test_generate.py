"""Talking to a model, and converting it, as a person does both."""

import os
import pathlib
import subprocess
import sys
import types

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import safetensors.numpy

from ioa_jax.models import (
  decoder,
  huggingface,
  loading,
  lora,
  orbax_params,
  peft,
)
from ioa_jax.records import Progress
from ioa_jax.runtime import sharding
from ioa_jax.sampling import logits as logits_lib
from ioa_jax.sampling import sampler, streaming
from ioa_jax.training import checkpoint
from ioa_jax.training import step as step_lib
from tests import test_huggingface

ROOT = pathlib.Path(__file__).parents[1]
CONFIG = decoder.DecoderConfig(
  vocab_size=12,
  width=24,
  num_layers=2,
  num_heads=4,
  num_kv_heads=2,
  head_width=8,
  mlp_width=40,
)
TEMPLATE = '{% for m in messages %}h{{ m.content }}{% endfor %}g'


@pytest.fixture(scope='module')
def params():
  params = jax.jit(decoder.init, static_argnums=0)(CONFIG, jax.random.key(3))
  return jax.tree.map(lambda x: 2 * x, params)


@pytest.fixture
def directory(tmp_path, params):
  path = tmp_path / 'model'
  huggingface.save(
    path, CONFIG, params, dtype='float32', eos_token_id=1, pad_token_id=0
  )
  test_huggingface.write_tokenizer(path, template=TEMPLATE)
  return path


def run(script, *arguments, stdin=''):
  return subprocess.run(
    [sys.executable, f'scripts/{script}.py', *map(str, arguments)],
    cwd=ROOT,
    capture_output=True,
    text=True,
    timeout=300,
    input=stdin,
    env=os.environ | {'JAX_PLATFORMS': 'cpu', 'PYTHONPATH': str(ROOT)},
  )


@pytest.mark.parametrize(
  'setting',
  [
    logits_lib.Sampling(max_tokens=9),
    logits_lib.Sampling(1.0, max_tokens=9),
    logits_lib.Sampling(0.8, top_k=4, top_p=0.9, max_tokens=20),
  ],
  ids=['greedy', 'sampled', 'filtered'],
)
def test_streaming_writes_what_the_sampler_writes(params, setting):
  one = streaming.Streamer(CONFIG, stop_tokens=[1], max_tokens=20)
  many = sampler.Sampler(
    CONFIG, stop_tokens=[1], batch_size=3, max_new_tokens=20
  )
  prompts = [[3], [4, 5, 6, 7], list(range(2, 12))]
  want = many(params, prompts, [setting] * 3, [7, 8, 9])
  for prompt, seed, generation in zip(prompts, [7, 8, 9], want, strict=True):
    got = tuple(one(params, prompt, setting, seed))
    assert got == generation.tokens


def test_an_answer_without_a_prompt_is_refused(params):
  streamer = streaming.Streamer(CONFIG, stop_tokens=[1], max_tokens=4)
  with pytest.raises(ValueError, match='prompt has no tokens'):
    next(streamer(params, [], logits_lib.Sampling(), 0))


def test_text_waits_for_whole_characters():
  data = 'aé€b'.encode()  # One, two, three and one bytes.
  pieces = list(
    streaming.text_pieces(
      range(len(data)),
      lambda ids: data[: len(ids)].decode(errors='replace'),
    )
  )
  assert pieces == ['a', 'é', '€', 'b', '']
  cut = list(streaming.text_pieces([0, 1], lambda ids: 'a\ufffd'[: len(ids)]))
  assert ''.join(cut) == 'a\ufffd'


def test_generate_applies_template_and_adapter(directory, params, tmp_path):
  pytest.importorskip('transformers')
  spec = lora.LoraSpec(rank=2, targets=('q_proj', 'down_proj'))
  adapters = lora.init(spec, params, jax.random.key(0))
  adapters = jax.tree.map(lambda x: x + 0.5, adapters)
  peft.save(tmp_path / 'lora', adapters, spec, base_model=directory)
  done = run(
    'generate',
    f'--model={directory}',
    f'--adapter={tmp_path / "lora"}',
    '--max_tokens=12',
    '--temperature=0.7',
    '--seed=5',
    stdin='abc\n\nde\n',
  )
  assert done.returncode == 0, done.stderr
  tokens = '_ abcdefgh'  # The tokenizer's ids 2 to 9 are a to h.
  streamer = streaming.Streamer(CONFIG, stop_tokens=[1], max_tokens=12)
  merged = lora.merge(params, adapters, spec)
  setting = logits_lib.Sampling(0.7, max_tokens=12)

  def answer(prompt, seed):
    ids = [tokens.index(c) for c in prompt]
    out = streamer(merged, ids, setting, seed)
    return ''.join(tokens[t] for t in out if 2 <= t < 10)

  first = answer('habcg', 5)
  second = answer(f'habch{first}hdeg', 6)
  assert [x.replace(' ', '') for x in done.stdout.splitlines()] == [
    first,
    second,
  ]


@pytest.mark.parametrize(
  ('arguments', 'message'),
  [
    ([], '--model'),
    (['--model=nothing'], 'nothing: no such directory, and not a hub id'),
    (['--model={dir}', '--top_p=0'], 'top_p'),
    (['--model={dir}', '--temperature=-1'], 'temperature'),
    (['--model={dir}', '--adapter=/nothing'], 'adapter_config.json: no such'),
    (['--model={dir}', '--prompt=a', '--chat'], '"chat_template" is missing'),
    (['--model={dir}', '--prompt=a', '--system=b'], '--system needs a chat'),
    (['--model={dir}', '--prompt=a', 'b'], "unexpected argument 'b'"),
  ],
  ids=lambda v: ' '.join(v) if isinstance(v, list) else '',
)
def test_generate_says_what_is_wrong(directory, arguments, message):
  pytest.importorskip('transformers')
  test_huggingface.write_tokenizer(directory)  # Without a template.
  done = run('generate', *[a.format(dir=directory) for a in arguments])
  assert_one_line(done, message)


def assert_one_line(done, message):
  assert done.returncode == 2, done.stderr
  lines = [x for x in done.stderr.splitlines() if x.startswith('error: ')]
  assert len(lines) == 1 and message in lines[0], done.stderr
  assert 'Traceback' not in done.stderr


def test_conversion_goes_both_ways(directory, tmp_path):
  there, back = tmp_path / 'orbax', tmp_path / 'back'
  done = run(
    'convert_checkpoint',
    f'--source={directory}',
    f'--target={there}',
    '--verify',
  )
  assert done.returncode == 0, done.stderr
  assert 'logits of source and target differ by 0 ' in done.stdout
  done = run(
    'convert_checkpoint',
    f'--source={there}',
    f'--target={back}',
    '--dtype=float32',
    '--verify',
  )
  assert done.returncode == 0, done.stderr
  assert 'logits of source and target differ by 0 ' in done.stdout
  for file in ('model.safetensors', 'config.json', 'tokenizer.json'):
    assert (back / file).read_bytes() == (directory / file).read_bytes()


def edit_weights(directory, **values):
  """Sets the last number of tensors, given by the ends of their names."""
  path = directory / 'model.safetensors'
  tensors = safetensors.numpy.load_file(path)
  for name in tensors:
    for end, value in values.items():
      if name.endswith(f'{end}.weight'):
        tensors[name].reshape(-1)[-1] = value
  safetensors.numpy.save_file(tensors, path)


@pytest.mark.slow
def test_what_cannot_be_stored_is_not(directory, params, tmp_path):
  """NaN, what overflows in float16, and whatever is there already."""
  there = tmp_path / 'there'
  orbax_params.save(there, CONFIG, params, source=directory)
  before = {p.name: p.read_bytes() for p in directory.iterdir()}
  (tmp_path / 'file').write_text('x')
  for source in (directory, there):
    for target in (directory, tmp_path / 'file'):
      done = run(
        'convert_checkpoint', f'--source={source}', f'--target={target}'
      )
      assert_one_line(done, f'{target}: not empty; choose a new directory')
  assert {p.name: p.read_bytes() for p in directory.iterdir()} == before
  large = jax.tree.map(lambda x: x.at[-1].set(7e4), params)
  orbax_params.save(tmp_path / 'large', CONFIG, large, source=directory)
  edit_weights(directory, up_proj=7e4)
  for source in (directory, tmp_path / 'large'):
    done = run(
      'convert_checkpoint',
      f'--source={source}',
      '--dtype=float16',
      f'--target={tmp_path / "new"}',
      '--verify',
    )
    assert_one_line(done, 'float16')
    assert not (tmp_path / 'new').exists()
  edit_weights(directory, up_proj=np.nan)
  done = run(
    'convert_checkpoint',
    f'--source={directory}',
    '--verify',
    f'--target={tmp_path / "new"}',
  )
  assert_one_line(done, 'layers/up_proj/kernel holds NaN')
  assert not (tmp_path / 'new').exists()


@pytest.mark.slow
def test_generate_finds_a_bad_model(directory, params, tmp_path):
  pytest.importorskip('transformers')
  wide = decoder.DecoderConfig(**{**vars(CONFIG), 'width': 32})
  spec = lora.LoraSpec(rank=2)
  adapters = lora.init(spec, decoder.abstract_params(wide), jax.random.key(0))
  peft.save(tmp_path / 'lora', adapters, spec, base_model='x')
  done = run(
    'generate',
    f'--model={directory}',
    f'--adapter={tmp_path / "lora"}',
    '--prompt=a',
  )
  assert_one_line(done, f'{tmp_path / "lora" / "adapter_model.safetensors"}: ')
  assert 'belongs to another model' in done.stderr
  test_huggingface.edit_json(
    directory / 'config.json', max_position_embeddings=8
  )
  done = run('generate', f'--model={directory}', '--prompt=abcdef')
  assert_one_line(done, 'has 9 tokens, and the model reads at most 8')
  done = run(
    'generate', f'--model={directory}', '--prompt=abcde', '--temperature=1'
  )
  assert done.returncode == 0, done.stderr
  assert len(done.stdout.strip().replace(' ', '')) <= 1
  edit_weights(directory, q_proj=np.nan)
  done = run('generate', f'--model={directory}', '--prompt=a')
  assert_one_line(done, 'layers/q_proj/kernel holds NaN')


def test_a_run_is_converted(directory, params, tmp_path):
  """The average by default, the last step on request, any kept step."""
  run_dir = tmp_path / 'run'
  kept = checkpoint.Checkpoints(run_dir / 'checkpoints', keep=3)
  scaled = lambda factor: jax.tree.map(lambda x: factor * x, params)
  for step in (10, 20):
    state = step_lib.TrainState(
      step=jnp.int32(step),
      params=scaled(step),
      average=scaled(step + 1),
      opt_state=optax.adamw(1e-3).init(params),
      gate=jnp.zeros(3),
      guard=None,
      cursor_K=jnp.zeros(3),
      on_policy_cursor_K=None,
      finite=jnp.bool_(True),
    )
    inputs = types.SimpleNamespace(curriculum={'count': jnp.zeros(2)})
    kept.save(state, inputs, Progress())
  kept.close()
  for arguments, factor in (
    ({}, 21),
    ({'field': 'params'}, 20),
    ({'step': 10}, 11),
  ):
    got = orbax_params.load(run_dir, CONFIG, **arguments)
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(params), strict=True):
      np.testing.assert_array_equal(a, factor * np.asarray(b))
  with pytest.raises(huggingface.ModelError, match=r'step 15; .* \[10, 20\]'):
    orbax_params.load(run_dir, CONFIG, step=15)
  target = tmp_path / 'exported'
  arguments = (f'--source={run_dir}', f'--target={target}', '--verify')
  assert_one_line(run('convert_checkpoint', *arguments), 'give --like=DIR')
  done = run('convert_checkpoint', *arguments, f'--like={directory}')
  assert done.returncode == 0, done.stderr
  assert 'logits of source and target differ by 0 ' in done.stdout
  assert (target / 'tokenizer.json').exists()


def test_a_model_is_loaded_from_either_format(directory, params, tmp_path):
  orbax_params.save(tmp_path / 'o', CONFIG, params, source=directory)
  mesh = sharding.make_mesh(devices=jax.devices()[:1])
  for dtype in ('float32', 'bfloat16'):
    theirs, ours = (
      loading.load(path, 'x', param_dtype=dtype, mesh=mesh)
      for path in (directory, tmp_path / 'o')
    )
    assert theirs.config == ours.config
    assert theirs.encode('ab') == ours.encode('ab')
    for a, b in zip(
      jax.tree.leaves(theirs.params), jax.tree.leaves(ours.params), strict=True
    ):
      assert a.dtype == b.dtype == dtype and a.sharding == b.sharding
      np.testing.assert_array_equal(a, b)


def test_a_damaged_checkpoint_is_named(directory, params, tmp_path):
  orbax_params.save(tmp_path / 'x', CONFIG, params, source=directory)
  with pytest.raises(huggingface.ModelError, match='x: not empty'):
    orbax_params.save(tmp_path / 'x', CONFIG, params, source=directory)
  wide = decoder.DecoderConfig(**{**vars(CONFIG), 'mlp_width': 48})
  with pytest.raises(huggingface.ModelError, match=r'down_proj.* asks for'):
    orbax_params.load(tmp_path / 'x', wide)
  for path in (tmp_path / 'x' / 'params').iterdir():
    if path.is_file():
      path.unlink()
  with pytest.raises(huggingface.ModelError, match='not a readable Orbax'):
    orbax_params.load(tmp_path / 'x', CONFIG)
  with pytest.raises(huggingface.ModelError, match='neither a checkpoint'):
    orbax_params.load(tmp_path, CONFIG)


@pytest.mark.parametrize(
  ('arguments', 'message'),
  [
    (['--source={dir}'], '--target'),
    (['--source=nothing', '--target={dir}/x'], 'nothing: no such directory'),
    (['--source={dir}', '--target={dir}'], 'not empty; choose a new'),
  ],
  ids=lambda v: ' '.join(v) if isinstance(v, list) else '',
)
def test_convert_says_what_is_wrong(directory, arguments, message):
  done = run(
    'convert_checkpoint', *[a.format(dir=directory) for a in arguments]
  )
  assert_one_line(done, message)
