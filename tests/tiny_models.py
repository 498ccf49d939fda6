"""One small model of each architecture, and of each way to stretch RoPE."""

import jax
import numpy as np

from ioa_jax.models import decoder, rope
from ioa_jax.models.architectures import Layer


def _config(**fields):
  small = dict(
    vocab_size=40,
    width=32,
    num_layers=3,
    num_heads=4,
    num_kv_heads=2,
    head_width=16,
    mlp_width=48,
    rope_theta=1e6,
    norm_eps=1e-6,
    max_positions=32_768,
  )
  return decoder.DecoderConfig(**small | fields)


_LOCAL = Layer(window=5, theta=1e4)

CONFIGS = {
  'llama': _config(
    rope_theta=5e5,
    norm_eps=1e-5,
    tie_embeddings=False,
    max_positions=131_072,
    rope_scaling=rope.Llama3(32.0, 1.0, 4.0, 8192),
  ),
  'qwen2': _config(architecture='qwen2', num_layers=2, head_width=8),
  'qwen3': _config(architecture='qwen3'),
  'mistral': _config(
    architecture='mistral',
    layer_pattern=(Layer(window=5),),
    tie_embeddings=False,
  ),
  'smollm3': _config(
    architecture='smollm3', layer_pattern=(Layer(), Layer(rotates=False))
  ),
  'gemma3_text': _config(
    architecture='gemma3_text',
    layer_pattern=(_LOCAL, _LOCAL, Layer()),
    num_layers=4,
    query_scale=24**-0.5,
    logit_cap=8.0,
    rope_scaling=rope.Linear(8.0),
  ),
}
# The same architectures as some people have them.
VARIANTS = {
  'qwen2_yarn': _config(
    architecture='qwen2',
    max_positions=64,
    rope_scaling=rope.Yarn(
      4.0, 16, rope.yarn_attention_factor(4.0, None, None)
    ),
  ),
  'qwen3_window': _config(
    architecture='qwen3', layer_pattern=(Layer(), Layer(), Layer(window=5))
  ),
  'llama_linear': _config(rope_scaling=rope.Linear(4.0)),
  'llama_dynamic': _config(rope_scaling=rope.Dynamic(2.0, 8), max_positions=8),
  'mistral_full': _config(architecture='mistral', tie_embeddings=False),
}


def random_params(config, scale=1.0, dtype=np.float32, seed=0):
  rng = np.random.default_rng(seed)
  return jax.tree.map(
    lambda x: (scale * rng.normal(size=x.shape)).astype(dtype),
    decoder.abstract_params(config),
  )
