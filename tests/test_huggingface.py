"""Model directories in and out: exact, small in memory, clear when wrong."""

import json
import subprocess
import sys
import textwrap

import jax
import ml_dtypes
import numpy as np
import pytest
import safetensors.numpy
import tokenizers

from ioa_jax.models import (
  decoder,
  hub,
  huggingface,
  model_card,
  presets,
  vocabulary,
  weights,
)
from ioa_jax.runtime import sharding
from tests import tiny_models

CONFIGS = tiny_models.CONFIGS | tiny_models.VARIANTS
LLAMA = CONFIGS['llama']
random_params = tiny_models.random_params


def save(directory, config=LLAMA, dtype='bfloat16', scale=1.0, **kwargs):
  params = random_params(config, scale, np.dtype(ml_dtypes.bfloat16))
  ids = {'eos_token_id': 1, 'pad_token_id': 0} | kwargs
  huggingface.save(directory, config, params, dtype=dtype, **ids)
  return params


def assert_same(a, b):
  assert jax.tree.structure(a) == jax.tree.structure(b)
  for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
    assert x.dtype == y.dtype
    np.testing.assert_array_equal(np.asarray(x), np.asarray(y))


def edit_json(path, **values):
  raw = json.loads(path.read_text())
  raw.update(values)
  path.write_text(json.dumps({k: v for k, v in raw.items() if v is not None}))


def all_tensors(directory):
  tensors = {}
  for path in directory.glob('*.safetensors'):
    tensors |= safetensors.numpy.load_file(path)
  return tensors


@pytest.mark.parametrize('config', CONFIGS.values(), ids=list(CONFIGS))
@pytest.mark.parametrize('max_shard_bytes', [10**9, 6000])
def test_round_trip_is_bit_exact(tmp_path, config, max_shard_bytes):
  params = save(tmp_path / 'a', config, max_shard_bytes=max_shard_bytes)
  assert huggingface.read_config(tmp_path / 'a') == config
  assert (tmp_path / 'a' / weights.INDEX).exists() == (max_shard_bytes == 6000)
  assert_same(
    huggingface.load_params(tmp_path / 'a', config, 'bfloat16'), params
  )
  # Float32 holds every bfloat16, so a float32 student exports the same bits.
  wide = huggingface.load_params(tmp_path / 'a', config, 'float32')
  huggingface.save(tmp_path / 'b', config, wide, dtype='bfloat16')
  a, b = all_tensors(tmp_path / 'a'), all_tensors(tmp_path / 'b')
  assert a.keys() == b.keys()
  for name, value in a.items():
    assert b[name].tobytes() == value.tobytes(), name


@pytest.mark.parametrize('piece_bytes', [2**28, 700, 100])
def test_loads_straight_into_shards(tmp_path, monkeypatch, piece_bytes):
  """Whatever the piece size: several layers, one layer, or a part of one."""
  monkeypatch.setattr(weights, '_PIECE_BYTES', piece_bytes)
  params = save(tmp_path)
  mesh = sharding.make_mesh(data=1, fsdp=2, tensor=2)
  shardings = sharding.param_shardings(mesh, params)
  loaded = huggingface.load_params(
    tmp_path, LLAMA, 'bfloat16', shardings=shardings
  )
  assert_same(loaded, params)
  assert jax.tree.map(lambda x: x.sharding, loaded) == shardings
  kernel = loaded['layers']['down_proj']['kernel']
  assert kernel.addressable_shards[0].data.shape == (3, 24, 16)


@pytest.mark.parametrize('config', CONFIGS.values(), ids=list(CONFIGS))
def test_transformers_loads_the_export(tmp_path, config):
  torch = pytest.importorskip('torch')
  transformers = pytest.importorskip('transformers')
  # Scores of unit weights are so steep that rounding shows.
  save(tmp_path, config, scale=0.3, max_shard_bytes=6000)
  model, report = transformers.AutoModelForCausalLM.from_pretrained(
    tmp_path, dtype=torch.float32, output_loading_info=True
  )
  assert not any(report.values()), report
  assert model.config.max_position_embeddings == config.max_positions
  assert model.generation_config.eos_token_id == 1
  tokens = np.arange(40).reshape(2, 20)
  with torch.no_grad():
    want = model(torch.tensor(tokens)).logits.numpy()
  params = huggingface.load_params(tmp_path, config)

  @jax.jit
  def logits(params):
    one = np.ones((2, 20), np.int32)
    hidden = decoder.forward(
      config, params, tokens, one, np.arange(20)[None] * one
    )
    return decoder.unembed(config, params, hidden)

  scale = want.std()
  np.testing.assert_allclose(logits(params) / scale, want / scale, atol=1e-4)


def test_export_carries_tokenizer_template_and_generation(tmp_path):
  source, target = tmp_path / 'source', tmp_path / 'target'
  save(source, eos_token_id=[1, 7])
  write_tokenizer(source)
  edit_json(source / 'generation_config.json', temperature=0.6, top_p=0.9)
  edit_json(source / 'config.json', bos_token_id=5)
  (source / 'chat_template.jinja').write_text('{{ messages }}')
  params = huggingface.load_params(source, LLAMA)
  huggingface.save(target, LLAMA, params, dtype='bfloat16', source=source)
  for file in (
    'tokenizer.json',
    'tokenizer_config.json',
    'chat_template.jinja',
  ):
    assert (target / file).read_bytes() == (source / file).read_bytes()
  generation = json.loads((target / 'generation_config.json').read_text())
  assert generation['temperature'] == 0.6
  assert vocabulary.stop_tokens(target) == [1, 7]
  assert json.loads((target / 'config.json').read_text())['bos_token_id'] == 5


def test_the_card_tells_results_and_lineage():
  card = model_card.render(
    'student',
    results={
      'teacher': {'name': 'T', 'score': 0.98},
      'student': {'score_before': 0.25, 'score_after': 0.9},
      'retention': 0.918,
      'modules': {
        'sums': {
          'teacher': 1.0,
          'before': 0.5,
          'after': 1.0,
          'n': 64,
          'ci95': [0.94, 1.0],
        },
      },
    },
    lineage={'seed': 0, 'lessons': 1200, 'ledger_sha256': 'ab12'},
    base_model='Qwen/Qwen2.5-3B',
  )
  assert card.startswith('---\n') and 'base_model: Qwen/Qwen2.5-3B' in card
  assert '| sums | 64 | 1.000 | 0.500 | 1.000 (0.940–1.000) |' in card
  assert 'retention (after / teacher) | 0.918' in card
  assert '- ledger_sha256: ab12' in card


def test_a_smaller_export_leaves_no_old_shard(tmp_path):
  save(tmp_path, max_shard_bytes=6000)
  save(tmp_path)
  assert [p.name for p in tmp_path.glob('*.safetensors*')] == [weights.SINGLE]


def first_shard(d):
  return next(d.glob('model-00001-of-*.safetensors'))


def break_shard(d):
  next(d.glob('model-00002*')).unlink()


def break_shape(d):
  edit_json(d / 'config.json', intermediate_size=56)


def break_vocabulary(d):
  edit_json(d / 'config.json', vocab_size=41)


def break_dtype(d):
  path = first_shard(d)
  tensors = safetensors.numpy.load_file(path)
  name = 'model.embed_tokens.weight'
  tensors[name] = tensors[name].astype(np.int8)
  safetensors.numpy.save_file(tensors, path)


def break_truncate(d):
  path = first_shard(d)
  path.write_bytes(path.read_bytes()[:-10])


def break_pickle(d):
  for path in d.glob('*.safetensors*'):
    path.unlink()
  (d / 'pytorch_model.bin').write_bytes(b'\x80\x04.')


def break_pickle_index(d):
  edit_json(d / weights.INDEX, weight_map={'x': 'pytorch_model.bin'})


def break_index(d):
  edit_json(d / weights.INDEX, weight_map=None)


def break_extra(d):
  path = first_shard(d)
  tensors = safetensors.numpy.load_file(path)
  tensors['model.layers.0.self_attn.q_norm.weight'] = np.ones(16, np.float32)
  safetensors.numpy.save_file(tensors, path)


def break_layers(d):
  edit_json(d / 'config.json', num_hidden_layers=4)


WEIGHT_ERRORS = [
  (break_shard, 'model-00002-of-.*safetensors: missing, but model.safeten'),
  (break_shape, r'mlp.*weight.* has shape .*, config.json asks for .*56'),
  (break_vocabulary, r"embed_tokens.weight' has shape \(40, 32\), config.json"),
  (break_dtype, "embed_tokens.weight' has dtype I8; supported are"),
  (break_truncate, 'model-00001.*not a readable safetensors file'),
  (break_pickle, r"pytorch_model.bin'\] are pickle files.*refused"),
  (break_pickle_index, "index.json: weight_map places 'x' in 'pytorch_model"),
  (break_index, 'index.json: field "weight_map" is missing'),
  (break_extra, "'model.layers.0.self_attn.q_norm.weight' has no place"),
  (break_layers, "no tensor 'model.layers.3"),
]


@pytest.mark.parametrize(
  ('damage', 'message'),
  WEIGHT_ERRORS,
  ids=[d.__name__ for d, _ in WEIGHT_ERRORS],
)
def test_damaged_weights_are_named(tmp_path, damage, message):
  save(tmp_path, max_shard_bytes=6000)
  damage(tmp_path)
  with pytest.raises(huggingface.ModelError, match=message):
    huggingface.load_params(tmp_path, huggingface.read_config(tmp_path))


@pytest.mark.parametrize(
  ('change', 'message'),
  [
    (
      {'model_type': 'gemma'},
      "config.json: model_type 'gemma'; supported "
      r"are \['gemma3', .*'smollm3'\]. docs/architectures.md says how to add",
    ),
    ({'model_type': 'gemma3'}, 'config.json: field "text_config" is missing'),
    (
      {
        'model_type': 'gemma3_text',
        'hidden_activation': 'gelu_pytorch_tanh',
        'attn_logit_softcapping': 50.0,
      },
      'attn_logit_softcapping 50.0 is not',
    ),
    (
      {'model_type': 'qwen3', 'layer_types': ['sliding_attention'] * 3},
      'layers have sliding attention and sliding_window is null',
    ),
    (
      {'model_type': 'mistral', 'layer_types': ['full_attention'] * 3},
      'layer_types and sliding_window 4096 disagree',
    ),
    ({'model_type': 'smollm3', 'no_rope_layers': [1]}, 'has not 3 entries'),
    (
      {'rope_scaling': {'full_attention': {'rope_type': 'default'}}},
      'RoPE by layer type is not supported for llama',
    ),
    ({'rope_scaling': [4.0]}, 'json: a field has the wrong type'),
    ({'rope_scaling': {'type': 'yarn'}}, "json: field 'factor' is missing"),
    ({'rope_scaling': {'rope_type': 'longrope'}}, "rope_type 'longrope'; supp"),
    (
      {'rope_scaling': None, 'rope_parameters': {'rope_type': 'llama3'}},
      "config.json: field 'factor' is missing",
    ),
    ({'hidden_size': None}, "config.json: field 'hidden_size' is missing"),
    ({'hidden_act': 'gelu'}, "config.json: hidden_act 'gelu' is not support"),
    ({'attention_bias': True}, 'config.json: attention_bias True is not'),
    ({'quantization_config': {'bits': 4}}, 'quantization_config .* is not'),
    ({'num_attention_heads': 'four'}, "json: num_attention_heads is 'four', w"),
  ],
  ids=str,
)
def test_unsupported_configs_are_named(tmp_path, change, message):
  huggingface.weights.write_json(
    tmp_path / 'config.json', huggingface.config_dict(LLAMA, 'bfloat16')
  )
  edit_json(tmp_path / 'config.json', **change)
  with pytest.raises(huggingface.ModelError, match=message):
    huggingface.read_config(tmp_path)


def test_no_directory_is_named(tmp_path, monkeypatch):
  with pytest.raises(huggingface.ModelError, match='no such directory, and'):
    hub.locate(tmp_path / 'nothing')
  import huggingface_hub

  def refused(repository, allow_patterns):
    assert '*.bin' not in allow_patterns
    raise OSError(f'no route to {repository}\nand more')

  monkeypatch.setattr(huggingface_hub, 'snapshot_download', refused)
  with pytest.raises(huggingface.ModelError, match=r'Qwen2\.5-3B') as e:
    hub.locate('qwen2.5-3b')
  assert '\n' not in str(e.value)
  monkeypatch.setattr(
    huggingface_hub, 'snapshot_download', lambda *_, **__: str(tmp_path)
  )
  assert hub.locate('OWNER/model') == tmp_path


@pytest.mark.parametrize(
  'preset', presets.PRESETS.values(), ids=list(presets.PRESETS)
)
def test_presets_have_the_published_size(preset):
  assert decoder.num_params(preset.config) == preset.num_params


def write_tokenizer(directory, extra=(), template=None):
  words = ['<pad>', '<eos>', *'abcdefgh', *extra]
  model = tokenizers.models.WordLevel(
    {w: i for i, w in enumerate(words)}, unk_token='<pad>'
  )
  tokenizer = tokenizers.Tokenizer(model)
  tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.Split('', 'isolated')
  tokenizer.decoder = tokenizers.decoders.Fuse()
  tokenizer.save(str(directory / 'tokenizer.json'))
  config = {
    'tokenizer_class': 'PreTrainedTokenizerFast',
    'eos_token': '<eos>',
    'pad_token': '<pad>',
  }
  if template:
    config['chat_template'] = template
  (directory / 'tokenizer_config.json').write_text(json.dumps(config))


def test_vocabularies_may_differ_by_padding_only(tmp_path):
  for name, rows in (('a', 40), ('b', 48)):
    (tmp_path / name).mkdir()
    raw = huggingface.config_dict(LLAMA, 'bfloat16') | {'vocab_size': rows}
    weights.write_json(tmp_path / name / 'config.json', raw)
    write_tokenizer(tmp_path / name)
  a, b = tmp_path / 'a', tmp_path / 'b'
  assert vocabulary.shared_vocabulary(a, b) == 10
  write_tokenizer(b, extra='z')
  with pytest.raises(huggingface.ModelError, match=r"id 10 is None .* 'z' in"):
    vocabulary.shared_vocabulary(a, b)
  raw = json.loads((a / 'tokenizer.json').read_text())
  raw['normalizer'] = {'type': 'Lowercase'}
  (b / 'tokenizer.json').write_text(json.dumps(raw))
  with pytest.raises(huggingface.ModelError, match='another normalizer'):
    vocabulary.shared_vocabulary(a, b)
  write_tokenizer(b)
  edit_json(b / 'config.json', vocab_size=9)
  with pytest.raises(huggingface.ModelError, match='vocab_size 9 is less than'):
    vocabulary.shared_vocabulary(a, b)


def test_chat_template(tmp_path):
  pytest.importorskip('transformers')
  with pytest.raises(huggingface.ModelError, match=r'tokenizer\.json: no such'):
    vocabulary.load_tokenizer(tmp_path)
  messages = [{'role': 'user', 'content': 'abc'}]
  write_tokenizer(tmp_path)
  with pytest.raises(huggingface.ModelError, match='"chat_template" is miss'):
    vocabulary.chat_tokens(
      vocabulary.load_tokenizer(tmp_path), tmp_path, messages
    )
  write_tokenizer(
    tmp_path, template='{% for m in messages %}h{{ m.content }}{% endfor %}g'
  )
  tokenizer = vocabulary.load_tokenizer(tmp_path)
  got = vocabulary.chat_tokens(tokenizer, tmp_path, messages)
  assert got == [9, 2, 3, 4, 8]


def test_no_thinking_is_asked_for(tmp_path):
  """As Qwen3's template has it: the switch is on where nothing is said."""
  pytest.importorskip('transformers')
  write_tokenizer(
    tmp_path,
    template='{% for m in messages %}h{{ m.content }}{% endfor %}g'
    '{% if enable_thinking is defined and enable_thinking is false %}ff'
    '{% endif %}',
  )
  tokenizer = vocabulary.load_tokenizer(tmp_path)
  messages = [{'role': 'user', 'content': 'abc'}]
  got = vocabulary.chat_tokens(tokenizer, tmp_path, messages)
  assert got == [9, 2, 3, 4, 8, 7, 7]


_MEASURE = """
  import resource, sys
  import jax
  from ioa_jax.runtime import sharding
  from ioa_jax.models import huggingface

  def resident():
    return 1024 * int(
      open('/proc/self/status').read().split('VmRSS:')[1].split()[0])

  directory, fsdp = sys.argv[1], int(sys.argv[2])
  config = huggingface.read_config(directory)
  shardings = None
  if fsdp > 1:
    from ioa_jax.models import decoder
    mesh = sharding.make_mesh(data=1, fsdp=fsdp)
    shardings = sharding.param_shardings(mesh, decoder.abstract_params(config))
  jax.block_until_ready(jax.numpy.zeros(1) + 1)
  before = resident()
  params = huggingface.load_params(
    directory, config, 'bfloat16', shardings=shardings)
  on_devices = sum(x.nbytes for x in jax.tree.leaves(params))
  peak = 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
  print(on_devices, peak - before - on_devices)
"""


@pytest.mark.slow
@pytest.mark.parametrize('fsdp', [1, 4])
def test_loading_needs_little_host_memory(tmp_path, fsdp):
  """Beyond what the devices hold (here the same memory): at most the largest
  tensor and 1 GB, for a checkpoint larger than that bound."""
  config = decoder.DecoderConfig(
    vocab_size=32_768,
    width=2048,
    num_layers=20,
    num_heads=16,
    num_kv_heads=4,
    head_width=128,
    mlp_width=8192,
    tie_embeddings=False,
  )
  sizes = sparse_checkpoint(tmp_path, config)
  gb = 10**9
  bound = max(sizes) + gb
  assert sum(sizes) > bound
  out = subprocess.run(
    [sys.executable, '-c', textwrap.dedent(_MEASURE), tmp_path, str(fsdp)],
    capture_output=True,
    text=True,
    check=True,
  )
  on_devices, extra = map(int, out.stdout.split())
  print(f'devices {on_devices / gb:.2f} GB, host beyond {extra / gb:.2f} GB')
  assert on_devices == sum(sizes)
  assert extra < bound


def sparse_checkpoint(directory, config):
  """A checkpoint of zeros that takes no disk: a header and a hole."""
  header, offset, sizes = {}, 0, []
  for path, leaf in jax.tree_util.tree_leaves_with_path(
    decoder.abstract_params(config)
  ):
    keys = tuple(k.key for k in path)
    names, transposed = huggingface.tensor_names(keys, config.num_layers)
    shape = leaf.shape[1:] if keys[0] == 'layers' else leaf.shape
    for name in names:
      size = 2 * int(np.prod(shape))
      header[name] = {
        'dtype': 'BF16',
        'shape': list(shape[::-1] if transposed else shape),
        'data_offsets': [offset, offset + size],
      }
      offset += size
      sizes.append(size)
  text = json.dumps(header).encode()
  with open(directory / weights.SINGLE, 'wb') as file:
    file.write(len(text).to_bytes(8, 'little') + text)
    file.truncate(8 + len(text) + offset)
  weights.write_json(
    directory / 'config.json', huggingface.config_dict(config, 'bfloat16')
  )
  return sizes


def test_weights_can_be_read_by_whom_the_config_can(tmp_path):
  params = decoder.init(LLAMA, jax.random.key(0))
  huggingface.save(tmp_path / 'm', LLAMA, params, dtype='bfloat16')
  modes = {p.stat().st_mode for p in (tmp_path / 'm').iterdir()}
  assert len(modes) == 1
