"""Published sizes, by name; the values of each repository's `config.json`.

They say what a model will need (`compile_check`, memory estimates, random
initialisation) before anything is downloaded. Loading reads the directory's own
`config.json` and nothing here.
"""

from __future__ import annotations

import dataclasses

from ioa_jax.models import decoder, rope
from ioa_jax.models.architectures import Layer


@dataclasses.dataclass(frozen=True)
class Preset:
  """A published model.

  Attributes:
    repository: its id on the Hugging Face hub.
    num_params: what the hub counts, tied embeddings once.
  """

  repository: str
  num_params: int
  config: decoder.DecoderConfig


def _qwen25(size, num_params, **sizes):
  config = decoder.DecoderConfig(
    **{
      'head_width': 128,
      'rope_theta': 1e6,
      'norm_eps': 1e-6,
      'architecture': 'qwen2',
      'max_positions': 32_768,
    }
    | sizes
  )
  return Preset(f'Qwen/Qwen2.5-{size}', num_params, config)


def _llama3(name, num_params, *, factor, **sizes):
  config = decoder.DecoderConfig(
    vocab_size=128_256,
    num_kv_heads=8,
    rope_theta=5e5,
    rope_scaling=rope.Llama3(
      factor=factor,
      low_freq_factor=1.0,
      high_freq_factor=4.0,
      original_max_position_embeddings=8192,
    ),
    norm_eps=1e-5,
    max_positions=131_072,
    **sizes,
  )
  return Preset(f'meta-llama/{name}', num_params, config)


def _qwen3(size, num_params, *, width, num_layers, num_heads, **sizes):
  config = decoder.DecoderConfig(
    architecture='qwen3',
    vocab_size=151_936,
    width=width,
    num_layers=num_layers,
    num_heads=num_heads,
    num_kv_heads=8,
    head_width=128,
    rope_theta=1e6,
    norm_eps=1e-6,
    max_positions=40_960,
    **sizes,
  )
  return Preset(f'Qwen/Qwen3-{size}', num_params, config)


def _gemma3(size, num_params, *, window, **sizes):
  local = Layer(window=window, theta=1e4)
  config = decoder.DecoderConfig(
    architecture='gemma3_text',
    layer_pattern=(local,) * 5 + (Layer(),),
    head_width=256,
    query_scale=256**-0.5,
    rope_theta=1e6,
    norm_eps=1e-6,
    **sizes,
  )
  return Preset(f'google/gemma-3-{size}', num_params, config)


PRESETS = {
  'qwen2.5-0.5b': _qwen25(
    '0.5B',
    494_032_768,
    vocab_size=151_936,
    width=896,
    num_layers=24,
    num_heads=14,
    num_kv_heads=2,
    head_width=64,
    mlp_width=4864,
  ),
  'qwen2.5-1.5b': _qwen25(
    '1.5B',
    1_543_714_304,
    vocab_size=151_936,
    width=1536,
    num_layers=28,
    num_heads=12,
    num_kv_heads=2,
    mlp_width=8960,
    max_positions=131_072,
  ),
  'qwen2.5-3b': _qwen25(
    '3B',
    3_085_938_688,
    vocab_size=151_936,
    width=2048,
    num_layers=36,
    num_heads=16,
    num_kv_heads=2,
    mlp_width=11_008,
  ),
  'qwen2.5-7b': _qwen25(
    '7B',
    7_615_616_512,
    vocab_size=152_064,
    width=3584,
    num_layers=28,
    num_heads=28,
    num_kv_heads=4,
    mlp_width=18_944,
    max_positions=131_072,
    tie_embeddings=False,
  ),
  # The one Qwen2.5 size here with Llama's epsilon.
  'qwen2.5-14b': _qwen25(
    '14B',
    14_770_033_664,
    vocab_size=152_064,
    width=5120,
    num_layers=48,
    num_heads=40,
    num_kv_heads=8,
    mlp_width=13_824,
    max_positions=131_072,
    tie_embeddings=False,
    norm_eps=1e-5,
  ),
  'llama-3.1-8b': _llama3(
    'Llama-3.1-8B',
    8_030_261_248,
    factor=8.0,
    width=4096,
    num_layers=32,
    num_heads=32,
    head_width=128,
    mlp_width=14_336,
    tie_embeddings=False,
  ),
  'llama-3.2-1b': _llama3(
    'Llama-3.2-1B',
    1_235_814_400,
    factor=32.0,
    width=2048,
    num_layers=16,
    num_heads=32,
    head_width=64,
    mlp_width=8192,
  ),
  'llama-3.2-3b': _llama3(
    'Llama-3.2-3B',
    3_212_749_824,
    factor=32.0,
    width=3072,
    num_layers=28,
    num_heads=24,
    head_width=128,
    mlp_width=8192,
  ),
  'smollm2-135m': Preset(
    'HuggingFaceTB/SmolLM2-135M-Instruct',
    134_515_008,
    decoder.DecoderConfig(
      vocab_size=49_152,
      width=576,
      num_layers=30,
      num_heads=9,
      num_kv_heads=3,
      head_width=64,
      mlp_width=1536,
      rope_theta=1e5,
      max_positions=8192,
    ),
  ),
  'smollm3-3b': Preset(
    'HuggingFaceTB/SmolLM3-3B',
    3_075_098_624,
    decoder.DecoderConfig(
      architecture='smollm3',
      layer_pattern=(Layer(),) * 3 + (Layer(rotates=False),),
      vocab_size=128_256,
      width=2048,
      num_layers=36,
      num_heads=16,
      num_kv_heads=4,
      head_width=128,
      mlp_width=11_008,
      rope_theta=5e6,
      norm_eps=1e-6,
      max_positions=65_536,
    ),
  ),
  'qwen3-0.6b': _qwen3(
    '0.6B',
    596_049_920,
    width=1024,
    num_layers=28,
    num_heads=16,
    mlp_width=3072,
  ),
  'qwen3-1.7b': _qwen3(
    '1.7B',
    1_720_574_976,
    width=2048,
    num_layers=28,
    num_heads=16,
    mlp_width=6144,
  ),
  'qwen3-4b': _qwen3(
    '4B',
    4_022_468_096,
    width=2560,
    num_layers=36,
    num_heads=32,
    mlp_width=9728,
  ),
  'qwen3-8b': _qwen3(
    '8B',
    8_190_735_360,
    width=4096,
    num_layers=36,
    num_heads=32,
    mlp_width=12_288,
    tie_embeddings=False,
  ),
  'qwen3-14b': _qwen3(
    '14B',
    14_768_307_200,
    width=5120,
    num_layers=40,
    num_heads=40,
    mlp_width=17_408,
    tie_embeddings=False,
  ),
  'gemma-3-1b': _gemma3(
    '1b-it',
    999_885_952,
    window=512,
    vocab_size=262_144,
    width=1152,
    num_layers=26,
    num_heads=4,
    num_kv_heads=1,
    mlp_width=6912,
    max_positions=32_768,
  ),
  # Of its 4.3 billion parameters those that read text.
  'gemma-3-4b': _gemma3(
    '4b-it',
    3_880_263_168,
    window=1024,
    vocab_size=262_208,
    width=2560,
    num_layers=34,
    num_heads=8,
    num_kv_heads=4,
    mlp_width=10_240,
    rope_scaling=rope.Linear(8.0),
    max_positions=131_072,
  ),
  'mistral-7b-v0.3': Preset(
    'mistralai/Mistral-7B-Instruct-v0.3',
    7_248_023_552,
    decoder.DecoderConfig(
      architecture='mistral',
      vocab_size=32_768,
      width=4096,
      num_layers=32,
      num_heads=32,
      num_kv_heads=8,
      head_width=128,
      mlp_width=14_336,
      rope_theta=1e6,
      tie_embeddings=False,
      max_positions=32_768,
    ),
  ),
  # The first version, and the one with a sliding window.
  'mistral-7b-v0.1': Preset(
    'mistralai/Mistral-7B-Instruct-v0.1',
    7_241_732_096,
    decoder.DecoderConfig(
      architecture='mistral',
      layer_pattern=(Layer(window=4096),),
      vocab_size=32_000,
      width=4096,
      num_layers=32,
      num_heads=32,
      num_kv_heads=8,
      head_width=128,
      mlp_width=14_336,
      rope_theta=1e4,
      tie_embeddings=False,
      max_positions=32_768,
    ),
  ),
}
