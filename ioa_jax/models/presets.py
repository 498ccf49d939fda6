"""Published sizes, by name; the values of each repository's `config.json`.

They say what a model will need (`compile_check`, memory estimates, random
initialisation) before anything is downloaded. Loading reads the directory's own
`config.json` and nothing here.
"""

from __future__ import annotations

import dataclasses

from ioa_jax.models import decoder, rope


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
      'qkv_bias': True,
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
    rope_scaling=rope.RopeScaling(
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


PRESETS = {
  'qwen2.5-0.5b': _qwen25(
    '0.5B', 494_032_768, vocab_size=151_936, width=896, num_layers=24,
    num_heads=14, num_kv_heads=2, head_width=64, mlp_width=4864,
  ),
  'qwen2.5-1.5b': _qwen25(
    '1.5B', 1_543_714_304, vocab_size=151_936, width=1536, num_layers=28,
    num_heads=12, num_kv_heads=2, mlp_width=8960, max_positions=131_072,
  ),
  'qwen2.5-3b': _qwen25(
    '3B', 3_085_938_688, vocab_size=151_936, width=2048, num_layers=36,
    num_heads=16, num_kv_heads=2, mlp_width=11_008,
  ),
  'qwen2.5-7b': _qwen25(
    '7B', 7_615_616_512, vocab_size=152_064, width=3584, num_layers=28,
    num_heads=28, num_kv_heads=4, mlp_width=18_944, max_positions=131_072,
    tie_embeddings=False,
  ),
  # The one Qwen2.5 size here with Llama's epsilon.
  'qwen2.5-14b': _qwen25(
    '14B', 14_770_033_664, vocab_size=152_064, width=5120, num_layers=48,
    num_heads=40, num_kv_heads=8, mlp_width=13_824, max_positions=131_072,
    tie_embeddings=False, norm_eps=1e-5,
  ),
  'llama-3.1-8b': _llama3(
    'Llama-3.1-8B', 8_030_261_248, factor=8.0, width=4096, num_layers=32,
    num_heads=32, head_width=128, mlp_width=14_336, tie_embeddings=False,
  ),
  'llama-3.2-1b': _llama3(
    'Llama-3.2-1B', 1_235_814_400, factor=32.0, width=2048, num_layers=16,
    num_heads=32, head_width=64, mlp_width=8192,
  ),
  'llama-3.2-3b': _llama3(
    'Llama-3.2-3B', 3_212_749_824, factor=32.0, width=3072, num_layers=28,
    num_heads=24, head_width=128, mlp_width=8192,
  ),
  'smollm2-135m': Preset(
    'HuggingFaceTB/SmolLM2-135M-Instruct', 134_515_008,
    decoder.DecoderConfig(
      vocab_size=49_152, width=576, num_layers=30, num_heads=9,
      num_kv_heads=3, head_width=64, mlp_width=1536, rope_theta=1e5,
      max_positions=8192,
    ),
  ),
}  # fmt: skip
