"""What the gate costs, for `benchmark.py gate`; at the quickstart's size.

A thousand probes answered inside the step, beside decoding and comparing text;
and windows of training with a probing round, beside the same windows without
one. Both are one program: how often it probes is data.
"""

import functools
import statistics
import timeit

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import window as window_lib
from ioa_jax import config as config_lib
from ioa_jax.domains import arithmetic
from ioa_jax.domains import tokenizer as tokenizer_lib
from ioa_jax.models import loading
from ioa_jax.people import ASSETS
from ioa_jax.sampling import logits as logits_lib
from ioa_jax.sampling import sampler as sampler_lib
from ioa_jax.training import optimizer, packing, probing
from ioa_jax.training import trainer as trainer_lib

_NAMES = [m.name for m in arithmetic.MODULES]
# Modules of a probing round: early stages of the quickstart have 2 or 3, the
# last 8.
_ASKED = (3, 8)
_WINDOWS = 8  # In alternation, for each of `rounds`.
_timed = functools.partial(timeit.timeit, number=1)  # Seconds.


def measure(rounds: int) -> dict:
  """Medians over `rounds` turns of each."""
  config = config_lib.get('quickstart')
  student = loading.load(
    ASSETS / 'student', 'student', scan_unroll=config.student.scan_unroll
  )
  codec = tokenizer_lib.DigitCodec(student.tokenizer)
  return {
    'benchmark': 'gate',
    **_beside_decoding(config, student, codec, rounds),
    'share_of_training': {
      f'{n} of {len(_NAMES)} modules': _share(config, student, codec, n, rounds)
      for n in _ASKED
    },
  }


def _examples(codec, probes):
  """Of each module."""
  return [
    [
      packing.Example(codec.prompt(p.prompt), codec.answer(p.reference))
      for p in probes
      if p.module == name
    ]
    for name in _NAMES
  ]


def _beside_decoding(config, student, codec, rounds):
  probes = [
    p
    for split in ('gate', 'held_out')
    for p in arithmetic.probes(split, 'steps')
  ][:1000]
  bank = probing.build(
    _examples(codec, probes), config.train.row_length, config.train.batch_rows
  )
  ask_K = jnp.ones(len(_NAMES), bool)
  in_step = jax.jit(
    lambda params, bank, plan: probing.probe_modules(
      student.config, params, bank, ask_K, plan
    )
  )
  sampler = sampler_lib.Sampler(
    student.config,
    stop_tokens=codec.stop_tokens,
    batch_size=config.student.batch_size,
    max_new_tokens=config.student.max_tokens,
    prompt_bucket=codec.prompt_bucket,
  )
  greedy = logits_lib.Sampling(max_tokens=config.student.max_tokens)
  prompts = [codec.prompt(p.prompt) for p in probes]

  def decode():
    texts = [
      codec.decode(g.tokens)
      for g in sampler(
        student.params, prompts, [greedy] * len(probes), [0] * len(probes)
      )
    ]
    return sum(t == p.reference for t, p in zip(texts, probes))

  plan = window_lib.endless_plan(_NAMES, _NAMES)
  inside = lambda: int(
    jax.device_get(in_step(student.params, bank, plan)[0]).sum()
  )
  # Both once to compile, and to see that they say the same.
  if inside() != decode():
    raise ValueError('the step and the sampler disagree on the probes')
  seconds = [(_timed(inside), _timed(decode)) for _ in range(rounds)]
  return {
    'probes': len(probes),
    'in_step_seconds': statistics.median(a for a, _ in seconds),
    'decode_seconds': statistics.median(b for _, b in seconds),
    'ratio': statistics.median(b / a for a, b in seconds),
  }


def _share(config, student, codec, num_asked, rounds):
  """Time of probing the last `num_asked` modules over that of the steps."""
  c = config.train
  examples = _examples(codec, arithmetic.probes('gate', 'steps'))
  tx, _ = optimizer.make(optimizer.Recipe(**config.optimizer), c.total_steps)
  window, state, inputs, mesh = window_lib.make(
    student.config,
    student.params,
    tx,
    dict(zip(_NAMES, examples)),
    window_lib.endless_plan(_NAMES, _NAMES[-num_asked:]),
    probing.build(examples, c.row_length, c.batch_rows),
    window_lib.Shape(
      row_length=c.row_length,
      batch_rows=c.batch_rows,
      num_steps=config.gate.probe_every_steps,
      probe_every_steps=config.gate.probe_every_steps,
      average_decay=c.average_decay,
      replay_share=c.replay_share,
    ),
  )
  never = np.int32(window_lib.NEVER)
  never = trainer_lib.place({'x': never}, mesh)['x']
  without = inputs.replace(probe_every_steps=never)

  def run(inputs, probed):
    nonlocal state
    state, metrics = window(state, inputs)
    if int((metrics['probed_K'] > 0).sum()) != probed:
      raise ValueError('a window has not probed what it should')

  with jax.set_mesh(mesh):
    run(inputs, num_asked)  # Compiles.
    seconds = [
      (
        _timed(lambda: run(inputs, num_asked)),
        _timed(lambda: run(without, 0)),
      )
      for _ in range(_WINDOWS * rounds)
    ]
  return statistics.median(a / b - 1 for a, b in seconds)
