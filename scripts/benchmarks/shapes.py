"""Students that an accelerator is measured with; small ones on CPU."""

from __future__ import annotations

import dataclasses

from ioa_jax.models import decoder, presets


@dataclasses.dataclass(frozen=True, kw_only=True)
class Student:
  """A model, and how it is trained and asked here.

  Attributes:
    config: computes in bfloat16.
    length, rows, microbatches: of a batch, packed.
    steps: optimizer steps of a turn, which is one window.
    texts: how many are sampled; each a measurement of its own.
    prompt, answer: most tokens of each. Answers have a third of it on average.
  """

  name: str
  config: decoder.DecoderConfig
  length: int = 4096
  rows: int = 8
  microbatches: int = 1
  steps: int = 2
  texts: tuple[int, ...] = (64, 512)
  prompt: int = 256
  answer: int = 384

  @property
  def weights(self) -> int:
    """Those that a token is multiplied with."""
    c = self.config
    count = decoder.num_params(c)
    return count if c.tie_embeddings else count - c.vocab_size * c.width

  @property
  def flops_per_token(self) -> int:
    """Of training. Attention counts whole, as is usual, though causal; what
    rematerialisation computes again does not count."""
    c = self.config
    attention = 12 * c.num_layers * c.num_heads * c.head_width * self.length
    return 6 * self.weights + attention

  @property
  def cache_bytes(self) -> int:
    """Keys and values of one token."""
    c = self.config
    return 2 * 2 * c.num_layers * c.num_kv_heads * c.head_width


def _published(name: str, remat: str, microbatches: int) -> Student:
  config = dataclasses.replace(
    presets.PRESETS[name].config, dtype='bfloat16', remat=remat
  )
  return Student(name=name, config=config, microbatches=microbatches)


def small(architecture: str, **changes) -> decoder.DecoderConfig:
  """A few layers with grouped queries, wide enough for every kernel."""
  sizes = {
    'vocab_size': 512,
    'width': 256,
    'num_layers': 2,
    'num_heads': 4,
    'num_kv_heads': 2,
    'head_width': 64,
    'mlp_width': 512,
  }
  return decoder.DecoderConfig(**sizes | changes, architecture=architecture)


_TINY = Student(
  name='tiny',
  config=small('qwen2', width=64, head_width=16, dtype='bfloat16'),
  length=128,
  rows=4,
  microbatches=2,
  texts=(8,),
  prompt=16,
  answer=24,
)


def students(on_cpu: bool) -> tuple[Student, ...]:
  """From small to large. What is kept and what is made again in the backward
  pass is chosen for 80 GB."""
  if on_cpu:
    return (_TINY,)
  return (
    _published('smollm2-135m', 'dots', 1),
    _published('qwen2.5-0.5b', 'dots', 2),
    _published('qwen2.5-1.5b', 'dots', 4),
    _published('qwen2.5-3b', 'full', 8),
  )


def sampled(on_cpu: bool) -> tuple[Student, ...]:
  """Those of `students` that write."""
  of = students(on_cpu)
  return of if on_cpu else (of[1], of[3])
