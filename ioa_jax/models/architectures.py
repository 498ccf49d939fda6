"""What each architecture has that Llama has not: a table, and layers' kinds.

All are one decoder: RMSNorm, rotary positions, grouped-query attention and a
gated feed-forward. `docs/architectures.md` says how another one is added.
"""

from __future__ import annotations

from collections.abc import Sequence
import dataclasses


@dataclasses.dataclass(frozen=True)
class Architecture:
  """Differences from Llama, by the `model_type` of `config.json`.

  Attributes:
    class_name: transformers' and vLLM's.
    qkv_bias: queries, keys and values have biases.
    qk_norm: heads of queries and keys are normed before they turn.
    out_norms: attention and feed-forward are normed again before they are
      added to the residual.
    norms_from_one: a norm's scale is stored as its distance from one, and
      applied in float32.
    activation: of the gate, 'silu' or 'gelu_tanh'.
    scales_embeddings: embeddings are multiplied by the root of their width.
  """

  class_name: str
  qkv_bias: bool = False
  qk_norm: bool = False
  out_norms: bool = False
  norms_from_one: bool = False
  activation: str = 'silu'
  scales_embeddings: bool = False


ARCHITECTURES = {
  'llama': Architecture('LlamaForCausalLM'),
  'qwen2': Architecture('Qwen2ForCausalLM', qkv_bias=True),
  'qwen3': Architecture('Qwen3ForCausalLM', qk_norm=True),
  'mistral': Architecture('MistralForCausalLM'),
  'smollm3': Architecture('SmolLM3ForCausalLM'),
  'gemma3_text': Architecture(
    'Gemma3ForCausalLM',
    qk_norm=True,
    out_norms=True,
    norms_from_one=True,
    activation='gelu_tanh',
    scales_embeddings=True,
  ),
}


@dataclasses.dataclass(frozen=True)
class Layer:
  """How one layer attends.

  Attributes:
    window: tokens that a query sees, itself included; None is all before it.
    rotates: whether queries and keys turn with their positions.
    theta: base of its own for the rotation, unscaled; None is the model's.
  """

  window: int | None = None
  rotates: bool = True
  theta: float | None = None


def shortest_pattern(layers: Sequence[Layer]) -> tuple[Layer, ...]:
  """The shortest beginning of `layers` that, repeated, gives all of them."""
  layers = tuple(layers)
  for size in range(1, len(layers)):
    if all(layers[i] == layers[i % size] for i in range(len(layers))):
      return layers[:size]
  return layers
