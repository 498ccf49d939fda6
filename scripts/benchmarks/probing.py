"""What the gate costs at a student's size, on an accelerator.

A probing round inside the step beside the steps between two rounds; and beside
decoding the same probes.
"""

from __future__ import annotations

import statistics
import time

from benchmarks import jobs, training
from benchmarks.shapes import Student

_MODULES, _PROBES, _TURNS = 4, 24, 3


def measure(
  say: jobs.Say, student: Student, memory_gib: float | None, every_steps: int
) -> None:
  """One step with a round, one without, and the round's probes decoded.

  Args:
    every_steps: how often a run probes.
  """
  import numpy as np

  from benchmarks import window as window_lib
  from ioa_jax.training import packing
  from ioa_jax.training import probing as probing_lib

  rng = np.random.default_rng(0)
  tokens = lambda n: rng.integers(3, student.config.vocab_size, n).tolist()
  examples = [
    [
      packing.Example(tokens(student.prompt), tokens(student.answer // 3))
      for _ in range(_PROBES)
    ]
    for _ in range(_MODULES)
  ]
  bank = probing_lib.build(
    examples, student.length, student.rows // student.microbatches
  )
  made = training.make_window(
    student,
    memory_gib,
    bank,
    _MODULES,
    num_steps=1,
    probe_every_steps=window_lib.NEVER,
  )
  step, probing = _seconds(*made)
  say(
    {
      'student': student.name,
      'probes': _MODULES * _PROBES,
      'step_seconds': step,
      'round_seconds': probing - step,
      'every_steps': every_steps,
      'share_of_training': (probing - step) / (every_steps * step),
    }
  )
  del made  # What trains leaves the device.
  prompts = [e.prompt for module in examples for e in module]
  seconds = _decoding(student, prompts)
  say(
    {
      'student': student.name,
      'probes': _MODULES * _PROBES,
      'decode_seconds': seconds,
      'decode_over_round': seconds / (probing - step),
    }
  )


def _seconds(window, state, inputs, mesh) -> tuple[float, float]:
  """Of a step, and of one with a round: one program, medians in turns."""
  import jax
  import numpy as np

  from ioa_jax.training import trainer as trainer_lib

  every = trainer_lib.place({'x': np.int32(1)}, mesh)['x']
  ways = (inputs, inputs.replace(probe_every_steps=every))
  seconds = [], []
  with jax.set_mesh(mesh):
    for turn in range(1 + _TURNS):
      for taken, way in zip(seconds, ways):
        start = time.perf_counter()
        state, metrics = window(state, way)
        metrics = jax.device_get(metrics)
        if turn:  # The first one compiles.
          taken.append(time.perf_counter() - start)
        probed = int((metrics['probed_K'] > 0).sum())
        if probed != (_MODULES if way is ways[1] else 0):
          raise ValueError(f'{probed} modules were probed')
  return tuple(map(statistics.median, seconds))


def _decoding(student: Student, prompts) -> float:
  """Seconds to write an answer of average length to each."""
  import jax
  import numpy as np

  from benchmarks import sample
  from ioa_jax.models import decoder
  from ioa_jax.sampling import sampler as sampler_lib

  config = decoder.for_decoding(student.config)
  params = jax.jit(
    lambda key: jax.tree.map(
      lambda x: x.astype(config.dtype), decoder.init(config, key)
    )
  )(jax.random.key(0))
  answer = student.answer // 3
  sampler = sampler_lib.Sampler(
    config,
    stop_tokens=[],
    batch_size=len(prompts),
    max_new_tokens=answer,
    prompt_bucket=min(64, student.prompt),
  )
  limits = np.full(len(prompts), answer)
  for _ in range(2):  # The first one compiles.
    start = time.perf_counter()
    sample.ours(sampler, params, prompts, limits)
    seconds = time.perf_counter() - start
  return seconds
