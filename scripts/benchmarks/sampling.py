"""Useful tokens a second of writing on an accelerator, ours and torch's.

Answers end at limits that both know, as in `sample`. Each batch of `generate`
is a measurement, and the best counts. The limit of memory is what a step cannot
do without: to read all weights once, and the keys and values of each text.
"""

from __future__ import annotations

import math
import time

import numpy as np

from benchmarks import device, jobs, training
from benchmarks.shapes import Student

_MOST_SLOTS = 256


def _asked(student: Student, texts: int):
  """Prompts of mixed lengths, and how much each is answered with."""
  rng = np.random.default_rng(0)
  prompts = [
    rng.integers(3, student.config.vocab_size, n).tolist()
    for n in rng.integers(student.prompt // 8, student.prompt + 1, texts)
  ]
  limits = np.clip(rng.geometric(3 / student.answer, texts), 4, student.answer)
  return prompts, limits


def least_seconds(
  student: Student, texts: int, slots: int, bytes_per_second: float
) -> float:
  """That no sampler of so many slots can do without."""
  prompts, limits = _asked(student, texts)
  read = math.ceil(limits.sum() / slots) * 2 * student.weights
  for prompt, limit in zip(prompts, limits):
    held = np.arange(limit) + len(prompt)
    read += int(held.sum()) * student.cache_bytes
  return read / bytes_per_second


def ours(
  say: jobs.Say, student: Student, texts: int, bytes_per_second: float | None
) -> None:
  """The sampler, with a slot for each text as far as there are so many."""
  import jax

  from benchmarks import sample
  from ioa_jax.models import decoder
  from ioa_jax.runtime import sharding
  from ioa_jax.sampling import sampler as sampler_lib

  config = student.config
  prompts, limits = _asked(student, texts)
  mesh = sharding.make_mesh(devices=jax.devices()[:1])
  with jax.set_mesh(mesh):
    config = decoder.for_decoding(config)
    params = jax.jit(
      lambda key: jax.tree.map(
        lambda x: x.astype(config.dtype), decoder.init(config, key)
      )
    )(jax.random.key(0))
    slots = min(texts, _MOST_SLOTS)
    sampler = sampler_lib.Sampler(
      config,
      stop_tokens=[],
      batch_size=slots,
      max_new_tokens=student.answer,
      prompt_bucket=min(64, student.prompt),
    )
    # The first call compiles.
    seconds = [
      _seconds(lambda: sample.ours(sampler, params, prompts, limits))
      for _ in range(2)
    ]
    share = None
    if bytes_per_second:
      least = least_seconds(student, texts, slots, bytes_per_second)
      share = least / seconds[1]
    say(
      {
        'student': student.name,
        'texts': texts,
        'side': 'ioa_jax',
        'way': f'{slots} slots',
        'tokens_per_second': int(limits.sum()) / seconds[1],
        'share_of_bandwidth': share,
        'occupancy': sampler.occupancy,
        'compilations': sampler.compilations,
        'compile_seconds': seconds[0] - seconds[1],
        'peak_gib': device.peak_gib(),
      }
    )


def torch_(say: jobs.Say, student: Student, texts: int) -> None:
  """`generate` on all texts at once, and on quarters in both orders."""
  import torch

  from benchmarks import sample

  where = 'cuda' if torch.cuda.is_available() else 'cpu'
  model = training.peer_model(student, torch.bfloat16, where).eval()
  model.generation_config.eos_token_id = None
  model.generation_config.pad_token_id = 0
  prompts, limits = _asked(student, texts)
  # One batch of all has no order.
  ways = [
    (texts, 'by_limit'),
    (texts // 4, 'by_limit'),
    (texts // 4, 'by_prompt'),
  ]
  # Loads kernels; nobody's time.
  sample.theirs(model, prompts[:2], limits[:2], 2, 'by_limit')
  for size, order in ways:
    seconds = _seconds(
      lambda s=size, o=order: sample.theirs(model, prompts, limits, s, o)
    )
    say(
      {
        'student': student.name,
        'texts': texts,
        'side': 'torch',
        'way': f'batches of {size}, {order}',
        'tokens_per_second': int(limits.sum()) / seconds,
      }
    )


def _seconds(run) -> float:
  start = time.perf_counter()
  run()
  return time.perf_counter() - start
