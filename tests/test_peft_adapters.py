"""Adapters that PEFT itself made: its logits, or a refusal by name.

Tables to add to: a kind of adapter is one line, and so is a kind of damage.
"""

import functools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy

from ioa_jax.models import decoder, huggingface, lora, peft

torch = pytest.importorskip('torch')
transformers = pytest.importorskip('transformers')
library = pytest.importorskip('peft')

# Wide enough for ranks up to 16, with biases where Qwen2 has them.
CONFIGS = {
  'llama': decoder.DecoderConfig(
    vocab_size=48,
    width=32,
    num_layers=3,
    num_heads=4,
    num_kv_heads=2,
    head_width=8,
    mlp_width=40,
    tie_embeddings=False,
  ),
  'qwen2': decoder.DecoderConfig(
    vocab_size=48,
    width=32,
    num_layers=3,
    num_heads=4,
    num_kv_heads=2,
    head_width=8,
    mlp_width=40,
    architecture='qwen2',
  ),
}
TOKEN = np.arange(16, dtype=np.int32).reshape(2, 8) * 3
ATTENTION = ['q_proj', 'k_proj', 'v_proj', 'o_proj']
Q0 = 'model.layers.0.self_attn.q_proj'

# What PEFT is asked for. Each is equal to PEFT's logits.
READ = {
  'defaults': {},
  'alpha and rank': {'r': 5, 'lora_alpha': 3, 'target_modules': ATTENTION},
  'one projection': {'target_modules': ['down_proj']},
  'all-linear': {'target_modules': 'all-linear'},
  'regular expression': {'target_modules': r'.*\.(q|v)_proj'},
  'expression of layers': {
    'target_modules': r'model\.layers\.[12]\.mlp.*_proj'
  },
  'lazy expression': {
    'target_modules': r'(?:.*?(?:self_attn|mlp).*?(?:k_proj|up_proj).*?)'
  },
  'dotted names': {'target_modules': [Q0, 'layers.2.mlp.gate_proj']},
  'dotted parents': {'target_modules': ['self_attn.v_proj', 'mlp.up_proj']},
  'names of other models': {'target_modules': ['c_attn', 'q_proj', 'Wqkv']},
  'some layers': {'target_modules': ATTENTION, 'layers_to_transform': [0, 2]},
  'one layer': {'target_modules': ['o_proj'], 'layers_to_transform': 1},
  'layers of a list': {
    'target_modules': ['o_proj'],
    'layers_to_transform': [1],
    'layers_pattern': 'layers',
  },
  'excluded names': {
    'target_modules': ATTENTION,
    'exclude_modules': ['k_proj', Q0],
  },
  'excluded expression': {
    'target_modules': 'all-linear',
    'exclude_modules': r'.*layers\.1\..*',
  },
  'rank_pattern': {
    'target_modules': ATTENTION,
    'rank_pattern': {'q_proj': 2, 'v_proj': 11},
  },
  'rank_pattern with an expression': {
    'target_modules': ATTENTION,
    'rank_pattern': {r'^model\.layers\.(0|2)\.self_attn.*': 3, 'o_proj': 7},
  },
  'alpha_pattern': {
    'target_modules': ATTENTION,
    'alpha_pattern': {'k_proj': 40, Q0: 1},
  },
  'both patterns': {
    'target_modules': 'all-linear',
    'rank_pattern': {'mlp.*': 6},
    'alpha_pattern': {'down_proj': 2.5, 'layers.1.*': 32},
  },
  'rslora': {'use_rslora': True, 'r': 6, 'lora_alpha': 5},
  'rslora with patterns': {
    'use_rslora': True,
    'target_modules': ATTENTION,
    'rank_pattern': {'q_proj': 2},
    'alpha_pattern': {'o_proj': 32},
  },
  'gaussian': {'init_lora_weights': 'gaussian'},
  'orthogonal': {'init_lora_weights': 'orthogonal'},
  'random': {'init_lora_weights': False},
  'without a task': {'task_type': None},
}

# What changes more than a product of A and B adds, and what the refusal names.
REFUSED = {
  'lora_bias': ({'lora_bias': True}, 'lora_bias True'),
  'dora': ({'use_dora': True}, 'use_dora True'),
  'biases': ({'bias': 'all'}, "bias 'all'"),
  'biases of adapters': ({'bias': 'lora_only'}, "bias 'lora_only'"),
  'pissa': ({'init_lora_weights': 'pissa'}, "init_lora_weights 'pissa'"),
  'fast pissa': (
    {'init_lora_weights': 'pissa_niter_4'},
    "init_lora_weights 'pissa_niter_4'.*path_initial_model",
  ),
  'olora': ({'init_lora_weights': 'olora'}, "init_lora_weights 'olora'"),
  'trained tokens': (
    {'trainable_token_indices': [3, 4]},
    'trainable_token_indices .3, 4.',
  ),
  'trained tokens by name': (
    {'trainable_token_indices': {'embed_tokens': [3]}},
    'trainable_token_indices .*embed_tokens',
  ),
  'whole modules': ({'modules_to_save': ['lm_head']}, 'modules_to_save'),
  'whole norms': (
    {'modules_to_save': ['input_layernorm']},
    'modules_to_save',
  ),
  'layer_replication': (
    {'layer_replication': [[0, 2], [1, 3]]},
    'layer_replication',
  ),
  'adapted embedding': (
    {'target_modules': ['q_proj', 'embed_tokens']},
    'embed_tokens',
  ),
  'adapted head': ({'target_modules': ['q_proj', 'lm_head']}, 'lm_head'),
  'activated': ({'alora_invocation_tokens': [1, 2]}, 'alora_invocation_to'),
  'parameters': (
    {'target_parameters': ['q_proj.weight'], 'target_modules': ['k_proj']},
    'target_parameters',
  ),
}


@pytest.fixture(scope='module', params=list(CONFIGS))
def base(request, tmp_path_factory):
  """A model's directory, its configuration and parameters."""
  config = CONFIGS[request.param]
  directory = tmp_path_factory.mktemp(request.param)
  rng = np.random.default_rng(1)
  params = jax.tree.map(
    lambda x: jnp.asarray(0.3 * rng.normal(size=x.shape), jnp.float32),
    decoder.abstract_params(config),
  )
  huggingface.save(directory, config, params, dtype='float32')
  return directory, config, params


def their_model(base, directory, save=lambda model: None, **settings):
  """PEFT's model with everything of it that trains made random."""
  torch.manual_seed(0)
  given = {'task_type': 'CAUSAL_LM', 'target_modules': ['q_proj', 'v_proj']}
  model = library.get_peft_model(
    transformers.AutoModelForCausalLM.from_pretrained(base[0]),
    library.LoraConfig(**given | settings),
  )
  with torch.no_grad():
    for parameter in model.parameters():
      if parameter.requires_grad:
        parameter.add_(0.2 * torch.randn_like(parameter))
  model.save_pretrained(directory)
  return model.eval()


def their_logits(model):
  with torch.no_grad():
    return model(torch.tensor(TOKEN, dtype=torch.long)).logits.numpy()


@functools.partial(jax.jit, static_argnums=0)
def our_logits(config, params):
  one = np.ones_like(TOKEN)
  position = np.arange(TOKEN.shape[1], dtype=np.int32) * one
  hidden = decoder.forward(config, params, TOKEN, one, position)
  return decoder.unembed(config, params, hidden)


@pytest.mark.filterwarnings('ignore')
@pytest.mark.parametrize('settings', READ.values(), ids=list(READ))
def test_adapters_answer_as_in_peft(base, tmp_path, settings):
  _, config, params = base
  want = their_logits(their_model(base, tmp_path, **settings))
  scale = want.std()
  assert np.abs(our_logits(config, params) - want).max() > 0.1 * scale
  adapters, spec = peft.load(tmp_path, config.num_layers, params)
  # Merged and attached are the same, see test_lora.py.
  got = our_logits(config, lora.merge(params, adapters, spec))
  np.testing.assert_allclose(got / scale, want / scale, atol=1e-4)


@pytest.mark.filterwarnings('ignore')
@pytest.mark.parametrize(
  ('settings', 'message'), REFUSED.values(), ids=list(REFUSED)
)
def test_other_kinds_are_refused_by_name(base, tmp_path, settings, message):
  their_model(base, tmp_path, **settings)
  with pytest.raises(huggingface.ModelError, match=message) as e:
    peft.load(tmp_path, base[1].num_layers)
  assert str(tmp_path) in str(e.value) and '\n' not in str(e.value)


@pytest.mark.filterwarnings('ignore')
@pytest.mark.parametrize(
  'method',
  [
    lambda **s: library.IA3Config(feedforward_modules=['down_proj'], **s),
    lambda **s: library.AdaLoraConfig(total_step=9, **s),
    library.LoHaConfig,
    library.LoKrConfig,
    library.VeraConfig,
    library.OFTConfig,
  ],
  ids=['ia3', 'adalora', 'loha', 'lokr', 'vera', 'oft'],
)
def test_other_methods_are_refused_by_name(base, tmp_path, method):
  config = method(task_type='CAUSAL_LM', target_modules=['v_proj', 'down_proj'])
  library.get_peft_model(
    transformers.AutoModelForCausalLM.from_pretrained(base[0]), config
  ).save_pretrained(tmp_path)
  with pytest.raises(
    huggingface.ModelError, match=f"json: peft_type '{config.peft_type.value}'"
  ):
    peft.load(tmp_path, base[1].num_layers)


@pytest.mark.filterwarnings('ignore')
def test_a_saved_embedding_is_refused_by_name(base, tmp_path):
  """Nothing in the configuration tells that it was trained."""
  model = their_model(base, tmp_path)
  model.save_pretrained(tmp_path, save_embedding_layers=True)
  with pytest.raises(huggingface.ModelError, match='lm_head.weight.* is not A'):
    peft.load(tmp_path, base[1].num_layers)


@pytest.mark.filterwarnings('ignore')
@pytest.mark.parametrize('kind', ['pissa', 'olora'])
def test_a_converted_adapter_is_a_plain_one(base, tmp_path, kind):
  """What the refusal tells people to do, done."""
  _, config, params = base
  start = tmp_path / 'start'
  torch.manual_seed(0)
  model = library.get_peft_model(
    transformers.AutoModelForCausalLM.from_pretrained(base[0]),
    library.LoraConfig(task_type='CAUSAL_LM', target_modules=ATTENTION),
  )
  del model
  model = library.get_peft_model(
    transformers.AutoModelForCausalLM.from_pretrained(base[0]),
    library.LoraConfig(
      task_type='CAUSAL_LM', target_modules=ATTENTION, init_lora_weights=kind
    ),
  )
  model.peft_config['default'].init_lora_weights = True
  model.save_pretrained(start)
  model.peft_config['default'].init_lora_weights = kind
  with torch.no_grad():
    for parameter in model.parameters():
      if parameter.requires_grad:
        parameter.add_(0.2 * torch.randn_like(parameter))
  want = their_logits(model.eval())
  model.save_pretrained(
    tmp_path / 'plain', path_initial_model_for_weight_conversion=start
  )
  adapters, spec = peft.load(tmp_path / 'plain', config.num_layers, params)
  got = our_logits(config, lora.merge(params, adapters, spec))
  scale = want.std()
  np.testing.assert_allclose(got / scale, want / scale, atol=1e-4)


def edit_config(directory, **values):
  path = directory / 'adapter_config.json'
  path.write_text(json.dumps(json.loads(path.read_text()) | values))


def edit_tensors(directory, change):
  path = directory / 'adapter_model.safetensors'
  tensors = safetensors.numpy.load_file(path)
  change(tensors)
  safetensors.numpy.save_file(tensors, path)


def first(tensors, part='lora_B'):
  return min(name for name in tensors if part in name)


def truncate(directory, size):
  path = directory / 'adapter_model.safetensors'
  path.write_bytes(path.read_bytes()[:size])


def set_first(part, change):
  def edit(tensors):
    name = first(tensors, part)
    tensors[name] = change(tensors[name])

  return lambda d: edit_tensors(d, edit)


DAMAGES = {
  'cut header': (lambda d: truncate(d, 20), 'safetensors: not a readable'),
  'cut tensors': (lambda d: truncate(d, 3000), 'safetensors: not a readable'),
  'empty file': (lambda d: truncate(d, 0), 'safetensors: not a readable'),
  'no tensors': (
    lambda d: (d / 'adapter_model.safetensors').unlink(),
    'safetensors: no such file',
  ),
  'pickle': (
    lambda d: (d / 'adapter_model.safetensors').rename(d / 'adapter_model.bin'),
    'adapter_model.bin is a pickle',
  ),
  'no config': (
    lambda d: (d / 'adapter_config.json').unlink(),
    'adapter_config.json: no such file',
  ),
  'config is a directory': (
    lambda d: (
      (d / 'adapter_config.json').unlink(),
      (d / 'adapter_config.json').mkdir(),
    ),
    'adapter_config.json: cannot be read',
  ),
  'not JSON': (
    lambda d: (d / 'adapter_config.json').write_text('{'),
    'adapter_config.json: not JSON',
  ),
  'a list': (
    lambda d: (d / 'adapter_config.json').write_text('[]'),
    'adapter_config.json: holds a list',
  ),
  'deep': (
    lambda d: (d / 'adapter_config.json').write_text('[' * 10**5),
    'adapter_config.json: not JSON',
  ),
  'lost tensor': (
    lambda d: edit_tensors(d, lambda t: t.pop(first(t))),
    "safetensors: no tensor 'base_model.*lora_B.weight', but",
  ),
  'another tensor': (
    lambda d: edit_tensors(
      d, lambda t: t.update({'base_model.model.score.weight': np.ones(3)})
    ),
    "tensor 'base_model.model.score.weight' is not A or B",
  ),
  'more layers': (
    lambda d: edit_tensors(
      d, lambda t: t.update({first(t).replace('.0.', '.7.'): np.ones((8, 8))})
    ),
    r"tensor '.*layers\.7\..* is not A or B.*another model",
  ),
  'transposed': (set_first('lora_A', lambda x: x.T.copy()), 'asks for rank'),
  'another rank': (lambda d: edit_config(d, r=4), 'asks for rank 4'),
  'one wider layer': (
    set_first('lora_B', lambda x: np.ones((80, 8), np.float32)),
    'all layers are as wide',
  ),
  'a vector': (set_first('lora_A', lambda x: x[0].copy()), 'wanted a matrix'),
  'whole numbers': (
    set_first('lora_A', lambda x: x.astype(np.int8)),
    'wanted a matrix of',
  ),
  'NaN': (set_first('lora_A', lambda x: x * np.nan), 'holds NaN or infinity'),
  'inf': (set_first('lora_B', lambda x: x / 0), 'holds NaN or infinity'),
  'null rank': (lambda d: edit_config(d, r=None), 'json: r is None, wanted'),
  'rank 0': (lambda d: edit_config(d, r=0), 'json: r is 0, wanted'),
  'textual rank': (lambda d: edit_config(d, r='8'), "json: r is '8', wanted"),
  'null alpha': (
    lambda d: edit_config(d, lora_alpha=None),
    'json: lora_alpha is None',
  ),
  'NaN alpha': (
    lambda d: edit_config(d, lora_alpha=float('nan')),
    'adapter_config.json: not JSON .NaN is not',
  ),
  'null targets': (
    lambda d: edit_config(d, target_modules=None),
    'json: target_modules is None',
  ),
  'no targets': (
    lambda d: edit_config(d, target_modules=[]),
    'json: target_modules is ..,',
  ),
  'targets of numbers': (
    lambda d: edit_config(d, target_modules=[1]),
    'json: target_modules is .1.',
  ),
  'null dropout': (
    lambda d: edit_config(d, lora_dropout=None),
    'json: lora_dropout is None',
  ),
  'patterns in a list': (
    lambda d: edit_config(d, alpha_pattern=['q_proj']),
    'json: alpha_pattern is',
  ),
  'null in a pattern': (
    lambda d: edit_config(d, rank_pattern={'q_proj': None}),
    'json: rank_pattern is',
  ),
  'broken expression': (
    lambda d: edit_config(d, target_modules='(q_proj'),
    'json: the pattern .* cannot be matched',
  ),
  'endless expression': (
    lambda d: edit_config(d, target_modules=r'(?:.*?){9}\d\d\d'),
    'json: the pattern .* cannot be matched',
  ),
  'another method': (
    lambda d: edit_config(d, peft_type='IA3'),
    "json: peft_type 'IA3' is not supported",
  ),
  'a field of a later PEFT': (
    lambda d: edit_config(d, use_newlora=True),
    'json: use_newlora True is not supported',
  ),
}


@pytest.fixture(scope='module')
def plain(tmp_path_factory):
  """Files of an adapter as PEFT writes them, and its base."""
  directory = tmp_path_factory.mktemp('adapter')
  config = CONFIGS['llama']
  path = tmp_path_factory.mktemp('base')
  params = decoder.init(config, jax.random.key(0))
  huggingface.save(path, config, params, dtype='float32')
  their_model((path, config, params), directory)
  return {p.name: p.read_bytes() for p in directory.iterdir()}, params


@pytest.mark.filterwarnings('ignore')
@pytest.mark.parametrize(('damage', 'message'), DAMAGES.values(), ids=DAMAGES)
def test_damaged_adapters_are_named(plain, tmp_path, damage, message):
  for name, content in plain[0].items():
    (tmp_path / name).write_bytes(content)
  damage(tmp_path)
  with pytest.raises(huggingface.ModelError, match=message) as e:
    peft.load(tmp_path, CONFIGS['llama'].num_layers)
  assert str(e.value).startswith(str(tmp_path)) and '\n' not in str(e.value)


def test_an_adapter_of_another_base_is_named(plain, tmp_path):
  for name, content in plain[0].items():
    (tmp_path / name).write_bytes(content)
  wide = decoder.DecoderConfig(**{**vars(CONFIGS['llama']), 'width': 64})
  shapes = decoder.abstract_params(wide)
  with pytest.raises(
    huggingface.ModelError, match=r'adapter_model\.safeten'
  ) as e:
    peft.load(tmp_path, wide.num_layers, shapes)
  assert 'q_proj is for (layers, in, out) (3, 32, 32)' in str(e.value)
  adapters, spec = peft.load(tmp_path, wide.num_layers)
  for put in (lora.attach, lora.merge):
    with pytest.raises(ValueError, match='belongs to another model'):
      put(shapes, adapters, spec)
  # Fewer layers were adapted than this base has, and the file says of all.
  with pytest.raises(huggingface.ModelError, match=r"no tensor '.*layers\.3\."):
    peft.load(tmp_path, 4)
