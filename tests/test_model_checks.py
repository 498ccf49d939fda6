"""A bad model is found when it is loaded, with its true cause."""

import json

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
import safetensors.numpy
import tokenizers

from ioa_jax.models import (
  checks,
  contents,
  decoder,
  hub,
  huggingface,
  loading,
  orbax_params,
  weights,
)
from ioa_jax.runtime import sharding
from tests import test_huggingface
from tests.test_huggingface import LLAMA, edit_json

TIED = decoder.DecoderConfig(
  vocab_size=40,
  width=32,
  num_layers=2,
  num_heads=4,
  num_kv_heads=2,
  head_width=8,
  mlp_width=48,
)


@pytest.fixture
def directory(tmp_path):
  path = tmp_path / 'model'
  test_huggingface.save(path, TIED)
  test_huggingface.write_tokenizer(path)
  return path


def edit_weights(directory, change):
  path = directory / weights.SINGLE
  tensors = safetensors.numpy.load_file(path)
  change(tensors)
  safetensors.numpy.save_file(tensors, path)


def spoil(name, value, at=-1):
  def change(tensors):
    tensors[name].reshape(-1)[at] = value

  return change


@pytest.mark.parametrize('value', [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize(
  ('name', 'ours'),
  [
    ('model.embed_tokens.weight', 'embedding'),
    ('model.norm.weight', 'final_norm/scale'),
    ('model.layers.1.mlp.down_proj.weight', 'layers/down_proj/kernel'),
  ],
)
def test_weights_that_are_no_numbers_are_named(directory, name, ours, value):
  edit_weights(directory, spoil(name, value))
  with pytest.raises(huggingface.ModelError) as e:
    loading.load(directory, 'x')
  assert str(e.value).startswith(f'{directory}: parameter {ours} holds NaN')
  mesh = sharding.make_mesh(data=1, fsdp=2, tensor=2)
  with pytest.raises(huggingface.ModelError, match=f'{ours} holds NaN'):
    loading.load(directory, 'x', mesh=mesh)
  params = huggingface.load_params(directory, TIED)
  orbax = directory.parent / 'orbax'
  orbax_params.save(orbax, TIED, params, source=directory)
  with pytest.raises(huggingface.ModelError, match=f'{ours} holds NaN'):
    loading.load(orbax, 'x')


def test_one_nan_of_many_numbers_is_seen():
  """From 4,096 numbers on XLA's maximum on CPU is not NaN."""
  x = jnp.zeros(10_000).at[7777].set(jnp.nan)
  with pytest.raises(huggingface.ModelError, match='x: parameter a holds NaN'):
    checks.finite({'a': x}, 'x')
  checks.finite({'a': jnp.zeros(10_000)}, 'x')


@pytest.mark.parametrize('value', [np.nan, np.inf, 1e-6])
def test_what_was_written_is_compared_number_by_number(value):
  a = {'a': jnp.zeros((3, 4000)), 'b': jnp.ones(5)}
  checks.same(a, jax.tree.map(jnp.array, a))
  b = a | {'a': a['a'].at[2, 3999].set(value)}
  for wanted, got in ((a, b), (b, a)):
    with pytest.raises(huggingface.ModelError, match='parameter a is not what'):
      checks.same(wanted, got)
  if value != value:
    with pytest.raises(huggingface.ModelError, match='parameter a is not what'):
      checks.same(b, b)


def test_overflow_is_refused_before_anything_is_written(tmp_path):
  params = test_huggingface.random_params(TIED)
  huggingface.save(tmp_path, TIED, params, dtype='float16')
  before = (tmp_path / weights.SINGLE).read_bytes()
  params['layers']['up_proj']['kernel'][1, 2, 3] = 70_000
  with pytest.raises(
    huggingface.ModelError, match='layers/up_proj/kernel .* float16 cannot'
  ):
    huggingface.save(tmp_path, TIED, params, dtype='float16')
  assert (tmp_path / weights.SINGLE).read_bytes() == before
  assert (tmp_path / 'config.json').exists()
  huggingface.save(tmp_path, TIED, params, dtype='bfloat16')


def add_words(directory, count, special=()):
  path = str(directory / 'tokenizer.json')
  tokenizer = tokenizers.Tokenizer.from_file(path)
  tokenizer.add_tokens([f'w{i}' for i in range(count)])
  tokenizer.add_special_tokens(list(special))
  tokenizer.save(path)


def test_tokens_without_a_row_are_named(directory):
  add_words(directory, 30)  # Ids to 39, and 40 rows.
  loading.load(directory, 'x')
  add_words(directory, 32)
  with pytest.raises(huggingface.ModelError) as e:
    loading.load(directory, 'x')
  assert str(e.value).startswith(
    f'{directory / "tokenizer.json"}: 2 tokens have no row in the embedding, '
    "the first is 'w30' with id 40"
  )


@pytest.mark.parametrize(
  'fields',
  [
    {'image_token': '<image>'},
    {'image_token': {'content': '<image>'}},
    {'extra_special_tokens': {'image_token': '<image>'}},
  ],
  ids=str,
)
def test_a_model_of_text_needs_no_row_for_pictures(directory, fields):
  """Gemma 3 1B has one token more than rows, and it is an image."""
  add_words(directory, 30, special=['<image>'])
  with pytest.raises(huggingface.ModelError, match="first is '<image>'"):
    loading.load(directory, 'x')
  edit_json(directory / 'tokenizer_config.json', **fields)
  loading.load(directory, 'x')


@pytest.mark.parametrize(
  'field',
  [
    'vocab_size',
    'hidden_size',
    'num_hidden_layers',
    'num_attention_heads',
    'num_key_value_heads',
    'head_dim',
    'intermediate_size',
    'max_position_embeddings',
    'rms_norm_eps',
    'rope_theta',
  ],
)
@pytest.mark.parametrize(
  'value',
  [
    '-3',
    '0',
    'NaN',
    '-Infinity',
    '1e999',
    '"32"',
    '[32]',
    'true',
    '9' * 400,
    '9' * 5000,
    '{}',
  ],
)
def test_a_size_that_is_none_is_named(directory, field, value):
  path = directory / 'config.json'
  raw = json.loads(path.read_text()) | {field: '@'}
  path.write_text(json.dumps(raw).replace('"@"', value))
  with pytest.raises(huggingface.ModelError) as e:
    huggingface.read_config(directory)
  message = str(e.value)
  assert message.startswith(f'{path}: ') and '\n' not in message
  assert len(message) < 400
  assert field in message or 'not JSON' in message


@pytest.mark.parametrize(
  'content',
  [
    b'',
    b'{',
    b'\xff\xfe',
    b'[' * 10**5,
    b'{"a":' * 10**5,
    b'null',
    b'3',
    b'[]',
    b'\x00' * 9,
    b'{"vocab_size": Infinity}',
    None,
  ],
  ids=lambda c: repr(c)[:12],
)
def test_a_damaged_config_is_named(directory, content):
  path = directory / 'config.json'
  path.unlink()
  path.mkdir() if content is None else path.write_bytes(content)
  with pytest.raises(huggingface.ModelError) as e:
    loading.load(directory, 'x')
  assert str(e.value).startswith(f'{path}: ') and '\n' not in str(e.value)


def their_logits(directory):
  torch = pytest.importorskip('torch')
  transformers = pytest.importorskip('transformers')
  model = transformers.AutoModelForCausalLM.from_pretrained(
    directory, dtype=torch.float32
  )
  with torch.no_grad():
    return model(torch.arange(14).reshape(2, 7)).logits.numpy()


def our_logits(directory):
  config = huggingface.read_config(directory)
  params = huggingface.load_params(directory, config)
  one = np.ones((2, 7), np.int32)

  @jax.jit
  def logits(params):
    hidden = decoder.forward(
      config, params, np.arange(14).reshape(2, 7), one, np.arange(7)[None] * one
    )
    return decoder.unembed(config, params, hidden)

  return np.asarray(logits(params))


def own_head(tensors):
  embedding = tensors[weights.EMBEDDING]
  noise = np.random.default_rng(5).normal(size=embedding.shape)
  tensors[weights.HEAD] = noise.astype(embedding.dtype)


def own_last_row(tensors):
  tensors[weights.HEAD] = tensors[weights.EMBEDDING].copy()
  tensors[weights.HEAD][-1] += 1


def copied_head(tensors):
  tensors[weights.HEAD] = tensors[weights.EMBEDDING].copy()


def wider_copy(tensors):
  tensors[weights.HEAD] = tensors[weights.EMBEDDING].astype(np.float32)


def only_head(tensors):
  tensors[weights.HEAD] = tensors.pop(weights.EMBEDDING)


@pytest.mark.parametrize(
  ('change', 'tied'),
  [
    (own_head, False),
    (own_last_row, False),
    (copied_head, True),
    (wider_copy, True),
    (only_head, True),
  ],
)
@pytest.mark.parametrize('piece_bytes', [2**28, 500])
def test_a_stored_head_counts_as_in_transformers(
  directory, change, tied, piece_bytes, monkeypatch
):
  """config.json says that it is the embedding; what is stored is right."""
  monkeypatch.setattr(weights, '_PIECE_BYTES', piece_bytes)
  edit_weights(directory, change)
  assert huggingface.read_config(directory).tie_embeddings is tied
  want = their_logits(directory)
  scale = want.std()
  np.testing.assert_allclose(
    our_logits(directory) / scale, want / scale, atol=1e-4
  )
  # And what is written again is the same model.
  config = huggingface.read_config(directory)
  again = directory.parent / 'again'
  huggingface.save(
    again, config, huggingface.load_params(directory, config), dtype='bfloat16'
  )
  np.testing.assert_array_equal(our_logits(again), our_logits(directory))


def test_a_head_is_missing_where_nothing_ties_it(directory):
  edit_json(directory / 'config.json', tie_word_embeddings=False)
  with pytest.raises(huggingface.ModelError, match="no tensor 'lm_head.weight"):
    huggingface.load_params(directory, huggingface.read_config(directory))
  edit_weights(directory, lambda t: t.pop(weights.EMBEDDING))
  edit_json(directory / 'config.json', tie_word_embeddings=True)
  with pytest.raises(huggingface.ModelError, match="no tensor 'model.embed_to"):
    huggingface.load_params(directory, huggingface.read_config(directory))


def index_of(directory, **changes):
  names = safetensors.numpy.load_file(directory / weights.SINGLE)
  value = dict.fromkeys(names, changes.get('file', weights.SINGLE))
  weights.write_json(directory / weights.INDEX, {'weight_map': value})


def stale_index(d):
  index_of(d, file='model-00001-of-00001.safetensors')


def stale_whole_file(d):
  whole = (d / weights.SINGLE).read_bytes()
  (d / 'model-00001-of-00001.safetensors').write_bytes(whole)
  stale_index(d)


def lost_index(d):
  (d / weights.SINGLE).rename(d / 'model-00001-of-00001.safetensors')


def other_directory(d):
  index_of(d, file='../model/model.safetensors')


def no_file_name(d):
  index_of(d, file=7)


def empty_index(d):
  weights.write_json(d / weights.INDEX, {'weight_map': {}})


@pytest.mark.parametrize(
  ('damage', 'message'),
  [
    (stale_index, 'holds model.safetensors, and model.safetensors.index.json'),
    (stale_whole_file, 'transformers reads the first and vLLM the second'),
    (lost_index, 'index.json: no such file, and model-00001-of-00001'),
    (other_directory, r"in '\.\./model/model.safetensors'; only"),
    (no_file_name, 'in 7; only .safetensors files'),
    (empty_index, '"weight_map" is missing'),
  ],
)
def test_files_that_do_not_go_together_are_named(directory, damage, message):
  damage(directory)
  with pytest.raises(huggingface.ModelError, match=message) as e:
    loading.load(directory, 'x')
  assert str(directory) in str(e.value) and '\n' not in str(e.value)


def test_an_index_of_the_whole_file_is_no_contradiction(directory):
  want = our_logits(directory)
  index_of(directory)
  np.testing.assert_array_equal(our_logits(directory), want)


def test_a_model_is_known_by_its_content(directory):
  recorded = contents.digests(directory)
  contents.check_same(recorded, directory)
  # Neither where it lies nor how its tensors are split into files counts.
  config = huggingface.read_config(directory)
  params = huggingface.load_params(directory, config, 'bfloat16')
  split = directory.parent / 'split'
  huggingface.save(
    split,
    config,
    params,
    dtype='bfloat16',
    source=directory,
    max_shard_bytes=6000,
  )
  assert len(list(split.glob('*.safetensors'))) > 2
  assert contents.digests(split)['weights'] == recorded['weights']
  # One bit does.
  edit_weights(
    directory,
    lambda t: t['model.norm.weight'].view(np.uint16).__setitem__(3, 5),
  )
  with pytest.raises(
    huggingface.ModelError, match='not the model .* changed are weights. Put'
  ):
    contents.check_same(recorded, directory)
  recorded = contents.digests(directory)
  edit_json(directory / 'tokenizer_config.json', chat_template='x')
  edit_json(directory / 'config.json', rope_theta=5.0)
  (directory / 'generation_config.json').unlink()
  with pytest.raises(
    huggingface.ModelError,
    match='config.json, generation_config.json, tokenizer_config.json. Put',
  ):
    contents.check_same(recorded, directory)


def test_orbax_models_are_known_by_their_content(directory):
  params = huggingface.load_params(directory, TIED)
  a, b = (directory.parent / name for name in 'ab')
  orbax_params.save(a, TIED, params, source=directory)
  recorded = contents.digests(a)
  contents.check_same(recorded, a)
  params['final_norm']['scale'] = params['final_norm']['scale'].at[0].add(1)
  orbax_params.save(b, TIED, params, source=directory)
  with pytest.raises(huggingface.ModelError, match='changed are weights'):
    contents.check_same(recorded, b)
  files = [p for p in (a / 'params').rglob('*') if p.is_file()]
  for path in files:
    kept = path.read_bytes()
    path.write_bytes(kept[: len(kept) // 2])
  with pytest.raises(huggingface.ModelError, match='not a readable Orbax') as e:
    loading.load(a, 'x')
  assert '\n' not in str(e.value)


def test_an_adapter_names_a_base_that_others_find(directory, monkeypatch):
  """A hub id, or a path that does not depend on where one stands."""
  assert hub.reference('Qwen/Qwen2.5-3B', directory) == 'Qwen/Qwen2.5-3B'
  assert hub.reference('qwen2.5-3b', directory).startswith('Qwen/')
  assert hub.reference('builtin', directory) == str(directory)
  monkeypatch.chdir(directory.parent)
  assert hub.reference('model', hub.locate('model')) == str(directory)
  (directory.parent / 'owner').mkdir()
  directory.rename(directory.parent / 'owner' / 'name')
  assert hub.reference('owner/name', hub.locate('owner/name')) == str(
    directory.parent / 'owner' / 'name'
  )


def test_a_length_beyond_the_positions_is_named():
  checks.length(LLAMA.max_positions, LLAMA.max_positions, 'a row', 'm')
  with pytest.raises(
    huggingface.ModelError, match='m: a row has 131073 tokens'
  ):
    checks.length(LLAMA.max_positions + 1, LLAMA.max_positions, 'a row', 'm')


def test_bfloat16_rows_hold_what_float32_loses():
  """Loading in a narrower type is checked after the cast, not before."""
  wide = jnp.asarray([np.finfo(np.float32).max])
  with pytest.raises(
    huggingface.ModelError, match='holds NaN or infinity in bf'
  ):
    checks.finite({'a': wide.astype(ml_dtypes.bfloat16)}, 'x')
