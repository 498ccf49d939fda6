"""config.json as transformers reads it."""

import json

import jax.numpy as jnp
import numpy as np
import pytest

from ioa_jax.models import decoder, huggingface, presets, rope
from tests import tiny_models

QWEN_CARD = {
  'type': 'yarn',
  'factor': 4.0,
  'original_max_position_embeddings': 32_768,
}
# What a file says about RoPE, in old words and new, and in both.
ROPES = {
  'old': {'rope_theta': 5e5},
  'new': {'rope_parameters': {'rope_theta': 5e5, 'rope_type': 'default'}},
  'neither': {},
  'card on an old file': {'rope_theta': 1e6, 'rope_scaling': QWEN_CARD},
  'card on an export': {
    'rope_theta': 1e6,
    'rope_scaling': QWEN_CARD,
    'rope_parameters': {'rope_theta': 1e6, 'rope_type': 'default'},
  },
  'both, the theta only in the new': {
    'rope_scaling': QWEN_CARD,
    'rope_parameters': {'rope_theta': 1e6, 'rope_type': 'default'},
  },
  'both, two thetas': {
    'rope_theta': 7e5,
    'rope_scaling': QWEN_CARD | {'rope_theta': 3e5},
    'rope_parameters': {'rope_theta': 1e6, 'rope_type': 'default'},
  },
  'null beside new': {
    'rope_scaling': None,
    'rope_parameters': QWEN_CARD | {'rope_theta': 1e6},
  },
  'yarn without a length': {
    'rope_scaling': {'rope_type': 'yarn', 'factor': 8.0},
    'max_position_embeddings': 4096,
  },
  'yarn, length outside': {
    'rope_scaling': {'rope_type': 'yarn', 'factor': 8.0},
    'original_max_position_embeddings': 2048,
  },
  'yarn with all': {
    'rope_scaling': QWEN_CARD
    | {'attention_factor': 1.5, 'beta_fast': 16.0, 'beta_slow': 2.0}
  },
  'yarn with mscale': {
    'rope_scaling': QWEN_CARD | {'mscale': 0.7, 'mscale_all_dim': 1.3}
  },
  'yarn untruncated': {'rope_scaling': QWEN_CARD | {'truncate': False}},
  'yarn by 3': {'rope_scaling': QWEN_CARD | {'factor': 3.0}},
  'linear': {'rope_scaling': {'type': 'linear', 'factor': 3.0}},
  'dynamic': {
    'rope_scaling': {'type': 'dynamic', 'factor': 3.0},
    'max_position_embeddings': 512,
  },
  'llama3': {
    'rope_scaling': {
      'rope_type': 'llama3',
      'factor': 8.0,
      'low_freq_factor': 1.0,
      'high_freq_factor': 4.0,
    },
    'max_position_embeddings': 8192,
  },
}
SIZES = {
  'hidden_size': 64,
  'num_attention_heads': 2,
  'num_key_value_heads': 2,
  'head_dim': 128,
  'intermediate_size': 8,
  'num_hidden_layers': 2,
  'pad_token_id': 0,
  'vocab_size': 16,
  'rms_norm_eps': 1e-6,
  'max_position_embeddings': 131_072,
}


@pytest.mark.parametrize('kind', ['llama', 'qwen2', 'qwen3', 'smollm3'])
@pytest.mark.parametrize('said', ROPES.values(), ids=list(ROPES))
def test_rope_is_that_of_transformers(tmp_path, said, kind):
  """Cosines and sines, up to and past the original length."""
  torch = pytest.importorskip('torch')
  transformers = pytest.importorskip('transformers')
  raw = {'model_type': kind} | SIZES | said
  (tmp_path / 'config.json').write_text(json.dumps(raw))
  config = huggingface.read_config(tmp_path)
  hf = transformers.AutoConfig.from_pretrained(tmp_path)
  model = transformers.AutoModel.from_config(hf)
  # One text of this length; what dynamic RoPE turns on lies past 512.
  last = 800 if 'dynamic' in str(said) else 120_000
  position = np.array([[0, 1, 7, 500, last - 1]])
  cos, sin = model.rotary_emb(torch.zeros(1), torch.tensor(position))
  got = rope.tables(
    jnp.asarray(position),
    jnp.full(position.shape, last),
    head_width=config.head_width,
    theta=config.rope_theta,
    scaling=config.rope_scaling,
  )
  # An angle near 1e5 has a resolution of 8e-3 in float32, and cosines of such
  # angles differ in their last digits from library to library.
  for ours, theirs in zip(got, (cos, sin), strict=True):
    half = theirs[..., : config.head_width // 2].numpy()
    np.testing.assert_allclose(ours, half, atol=2e-4, rtol=0)


# The settings of published files that say what a model computes.
PUBLISHED = {
  'qwen3-0.6b': {
    'model_type': 'qwen3',
    'attention_bias': False,
    'head_dim': 128,
    'hidden_act': 'silu',
    'hidden_size': 1024,
    'intermediate_size': 3072,
    'max_position_embeddings': 40960,
    'max_window_layers': 28,
    'num_attention_heads': 16,
    'num_hidden_layers': 28,
    'num_key_value_heads': 8,
    'rms_norm_eps': 1e-06,
    'rope_scaling': None,
    'rope_theta': 1000000,
    'sliding_window': None,
    'tie_word_embeddings': True,
    'use_sliding_window': False,
    'vocab_size': 151936,
  },
  'gemma-3-1b': {
    'model_type': 'gemma3_text',
    'attention_bias': False,
    'attn_logit_softcapping': None,
    'final_logit_softcapping': None,
    'head_dim': 256,
    'hidden_activation': 'gelu_pytorch_tanh',
    'hidden_size': 1152,
    'intermediate_size': 6912,
    'max_position_embeddings': 32768,
    'num_attention_heads': 4,
    'num_hidden_layers': 26,
    'num_key_value_heads': 1,
    'query_pre_attn_scalar': 256,
    'rms_norm_eps': 1e-06,
    'rope_local_base_freq': 10000,
    'rope_scaling': None,
    'rope_theta': 1000000,
    'sliding_window': 512,
    'sliding_window_pattern': 6,
    'vocab_size': 262144,
  },
  'gemma-3-4b': {
    'model_type': 'gemma3',
    'text_config': {
      'hidden_size': 2560,
      'intermediate_size': 10240,
      'model_type': 'gemma3_text',
      'num_hidden_layers': 34,
      'rope_scaling': {'factor': 8.0, 'rope_type': 'linear'},
      'sliding_window': 1024,
    },
    'vision_config': {'hidden_size': 1152},
  },
  'mistral-7b-v0.1': {
    'model_type': 'mistral',
    'hidden_act': 'silu',
    'hidden_size': 4096,
    'intermediate_size': 14336,
    'max_position_embeddings': 32768,
    'num_attention_heads': 32,
    'num_hidden_layers': 32,
    'num_key_value_heads': 8,
    'rms_norm_eps': 1e-05,
    'rope_theta': 10000.0,
    'sliding_window': 4096,
    'tie_word_embeddings': False,
    'vocab_size': 32000,
  },
  'mistral-7b-v0.3': {
    'model_type': 'mistral',
    'hidden_act': 'silu',
    'hidden_size': 4096,
    'intermediate_size': 14336,
    'max_position_embeddings': 32768,
    'num_attention_heads': 32,
    'num_hidden_layers': 32,
    'num_key_value_heads': 8,
    'rms_norm_eps': 1e-05,
    'rope_theta': 1000000.0,
    'sliding_window': None,
    'tie_word_embeddings': False,
    'vocab_size': 32768,
  },
  'smollm3-3b': {
    'model_type': 'smollm3',
    'attention_bias': False,
    'hidden_act': 'silu',
    'hidden_size': 2048,
    'intermediate_size': 11008,
    'max_position_embeddings': 65536,
    'mlp_bias': False,
    'no_rope_layer_interval': 4,
    'no_rope_layers': [1, 1, 1, 0] * 9,
    'num_attention_heads': 16,
    'num_hidden_layers': 36,
    'num_key_value_heads': 4,
    'rms_norm_eps': 1e-06,
    'rope_scaling': None,
    'rope_theta': 5000000.0,
    'sliding_window': None,
    'use_sliding_window': False,
    'vocab_size': 128256,
  },
}


@pytest.mark.parametrize('name', PUBLISHED)
def test_published_files_are_their_presets(tmp_path, name):
  (tmp_path / 'config.json').write_text(json.dumps(PUBLISHED[name]))
  assert huggingface.read_config(tmp_path) == presets.PRESETS[name].config


@pytest.mark.parametrize(
  'part', ['language_model.model', 'model.language_model']
)
def test_the_text_of_a_model_with_images_is_read(tmp_path, part):
  """Under the names of transformers 4 and 5; and what it leaves is known."""
  import safetensors.numpy

  config = tiny_models.CONFIGS['gemma3_text']
  params = tiny_models.random_params(config)
  huggingface.save(tmp_path, config, params, dtype='float32')
  path = tmp_path / 'model.safetensors'
  tensors = {
    name.replace('model', part, 1): value
    for name, value in safetensors.numpy.load_file(path).items()
  }
  tensors['vision_tower.x'] = np.ones(2, np.float32)
  safetensors.numpy.save_file(tensors, path)
  text = json.loads((tmp_path / 'config.json').read_text())
  raw = {'model_type': 'gemma3', 'text_config': text}
  (tmp_path / 'config.json').write_text(json.dumps(raw))
  assert huggingface.read_config(tmp_path) == config
  loaded = huggingface.load_params(tmp_path, config)
  np.testing.assert_array_equal(
    loaded['layers']['mlp_out_norm']['scale'],
    params['layers']['mlp_out_norm']['scale'],
  )
  tensors['audio_tower.x'] = np.ones(2, np.float32)
  safetensors.numpy.save_file(tensors, path)
  with pytest.raises(huggingface.ModelError, match='audio_tower.x.* no place'):
    huggingface.load_params(tmp_path, config)


def test_a_config_of_an_unknown_architecture_is_named():
  with pytest.raises(ValueError, match=r"architecture 'gpt' unknown; choose"):
    decoder.DecoderConfig(1, 1, 1, 1, 1, 2, 1, architecture='gpt')
