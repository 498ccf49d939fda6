"""Does the device compute what the CPU computes? With random weights.

Each check says its error and the limit. Errors are norms of a difference over
the norm of the reference, which is the CPU's in float32.
"""

from __future__ import annotations

from collections.abc import Iterator
import contextlib
import dataclasses
import functools
import time
import traceback

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import jobs, shapes
from ioa_jax.models import attention, decoder
from ioa_jax.records import Stage
from ioa_jax.runtime import sharding
from ioa_jax.sampling import logits as logits_lib
from ioa_jax.sampling import sampler as sampler_lib
from ioa_jax.training import gate as gate_lib
from ioa_jax.training import losses, packing

# Two orders of summing in float32, and in the 10 bits that GPUs take for
# float32 where nothing is said.
_FLOAT32, _TF32 = 3e-4, 1e-2
# A device may err in bfloat16 twice as much as the CPU, which keeps more digits
# between operations that it fuses.
_AS_ON_CPU = 2.0
# What a greedy token may lack to the likeliest, in deviations of the logits.
_NEAR_TIE = {'float32': 1e-3, 'bfloat16': 0.1}


@dataclasses.dataclass(frozen=True)
class Size:
  """Tokens of a row, texts that are written at once, tokens of an answer."""

  length: int
  slots: int
  answer: int


def size(on_cpu: bool) -> Size:
  """Kernels of accelerators want whole blocks of 512 tokens."""
  return Size(128, 8, 8) if on_cpu else Size(1024, 64, 48)


def measure(say: jobs.Say, size: Size) -> None:
  """All checks; one that fails to run is said as such.

  Raises:
    ValueError: at the end, if a check could not be run.
  """
  broken = []
  for check in (_models, _kernel, _sampler, _gate):
    try:
      for name, error, limit in check(size):
        say(
          {
            'check': name,
            'error': error if np.isfinite(error) else None,
            'limit': limit,
            # An error that is no number is not right.
            'right': bool(error <= limit),
          }
        )
    except Exception as e:
      traceback.print_exc()
      broken.append(f'{check.__name__[1:]}: {" ".join(str(e).split())[:200]}')
  if broken:
    raise ValueError('; '.join(broken))


@contextlib.contextmanager
def _on(platform: str | None) -> Iterator[None]:
  """On the first device of a platform, or of the default one."""
  device = jax.devices(platform)[0]
  mesh = sharding.make_mesh(devices=[device])
  with jax.default_device(device), jax.set_mesh(mesh):
    yield


def _error(found, reference) -> float:
  """Of whole trees; infinite where something is no number."""
  norm = lambda leaves: np.sqrt(
    sum(float(np.sum(np.square(x, dtype=np.float64))) for x in leaves)
  )
  a, b = (
    [np.asarray(x, np.float64) for x in jax.tree.leaves(jax.device_get(t))]
    for t in (found, reference)
  )
  error = norm([x - y for x, y in zip(a, b, strict=True)]) / norm(b)
  return float(error) if np.isfinite(error) else float('inf')


def _texts(vocab_size: int, size: Size) -> dict[str, np.ndarray]:
  """Rows of several texts, one with padding behind them."""
  rng = np.random.default_rng(0)
  examples = [
    packing.Example(*np.split(rng.integers(3, vocab_size, n), [n // 3]))
    for n in (np.array([0.4, 0.3, 0.25, 0.7, 0.12]) * size.length).astype(int)
  ]
  return packing.pack(examples, size.length)


def _models(size: Size) -> Iterator[tuple[str, float, float]]:
  """Logits and gradients of a small Llama and a small Qwen2.5."""
  for architecture in ('llama', 'qwen2'):
    config = shapes.small(architecture)
    rows = _texts(config.vocab_size, size)
    with _on('cpu'):
      params = jax.device_get(decoder.init(config, jax.random.key(0)))
    half = dataclasses.replace(config, dtype='bfloat16')
    reference = _outcome(config, params, rows, 'cpu', 'highest')
    cpu_half = _outcome(half, params, rows, 'cpu', 'default')
    ways = {
      'float32': (config, 'highest', [_FLOAT32] * 2),
      'float32 as it comes': (config, 'default', [_TF32] * 2),
      'bfloat16': (
        half,
        'default',
        [_AS_ON_CPU * _error(x, y) for x, y in zip(cpu_half, reference)],
      ),
    }
    for name, (way, precision, limits) in ways.items():
      found = _outcome(way, params, rows, None, precision)
      for what, x, y, limit in zip(
        ('logits', 'gradients'), found, reference, limits
      ):
        yield f'{architecture}, {name}: {what}', _error(x, y), limit


def _outcome(config, params, rows, platform, precision):
  """Logits and gradients, of one device."""

  def loss(params):
    hidden = decoder.forward(
      config, params, rows['token'], rows['segment'], rows['position']
    )
    total, count = losses.token_cross_entropy(
      config, params, hidden, rows['target'], rows['weight']
    )
    logits = decoder.unembed(config, params, hidden)
    # Padding has no text and is never read.
    logits *= (rows['segment'] > 0)[..., None]
    return total / count, logits

  with _on(platform), jax.default_matmul_precision(precision):
    (_, logits), grads = jax.jit(jax.value_and_grad(loss, has_aux=True))(params)
    return jax.device_get((logits, grads))


def _kernel(size: Size) -> Iterator[tuple[str, float, float]]:
  """The device's attention, with packing and grouped queries."""
  segment = _texts(8, size)['segment']
  for heads, groups, width in ((8, 2, 64), (4, 1, 128)):
    shape = lambda h, w=width: (*segment.shape, h, w)
    rng = np.random.default_rng(heads)
    given = [
      rng.standard_normal(shape(h)).astype(jnp.bfloat16)
      for h in (heads, groups, groups, heads)
    ]
    full = [x.astype(np.float32) for x in given]
    plain, kernel = attention.attend, attention.attend_rows
    reference = _attended(plain, full, segment, 'cpu', 'highest')
    cpu = _attended(plain, given, segment, 'cpu', 'default')
    found = _attended(kernel, given, segment, None, 'default')
    for what, x, y, z in zip(('', ', backward'), found, reference, cpu):
      yield (
        f"attention of the device's kernel, {heads} heads of {width} in "
        f'{groups} groups{what}',
        _error(x, y),
        _AS_ON_CPU * _error(z, y),
      )


def _attended(attend, given, segment, platform, precision):
  """Outputs and gradients of one device."""
  # Padding has no text and is never read.
  live = (segment > 0)[..., None, None]
  scale = given[0].shape[-1] ** -0.5

  def both(q, k, v, d_out):
    out, pull = jax.vjp(
      lambda *qkv: attend(*qkv, segment, scale=scale) * live, q, k, v
    )
    return out, pull(d_out)

  with _on(platform), jax.default_matmul_precision(precision):
    return jax.device_get(jax.jit(both)(*given))


def _sampler(size: Size) -> Iterator[tuple[str, float, float]]:
  """Every greedy token is the full forward pass's likeliest, or as likely."""
  for dtype, precision in (('float32', 'highest'), ('bfloat16', 'default')):
    config = shapes.small('qwen2', dtype=dtype)
    with _on(None), jax.default_matmul_precision(precision):
      # Wider than at initialisation: fewer near ties.
      params = jax.jit(
        lambda key, c=config: jax.tree.map(
          lambda x: 2 * x.astype(c.dtype), decoder.init(c, key)
        )
      )(jax.random.key(1))
      yield (
        f'greedy texts of the sampler, {size.slots} at once, {dtype}',
        _lack(config, params, size),
        _NEAR_TIE[dtype],
      )


def _lack(config, params, size: Size) -> float:
  """The most that a written token lacks, in deviations of the logits."""
  rng = np.random.default_rng(0)
  prompts = [
    rng.integers(3, config.vocab_size, n).tolist()
    for n in rng.integers(4, 2 * size.answer, 2 * size.slots)
  ]
  decoding = decoder.for_decoding(config)
  sampler = sampler_lib.Sampler(
    decoding,
    stop_tokens=[],
    batch_size=size.slots,
    max_new_tokens=size.answer,
    prompt_bucket=32,
  )
  greedy = logits_lib.Sampling(max_tokens=size.answer)
  written = sampler(
    params, prompts, [greedy] * len(prompts), [0] * len(prompts)
  )
  rows = packing.pack(
    [packing.Example(p, g.tokens) for p, g in zip(prompts, written)],
    4 * size.answer,
  )

  @jax.jit
  def lack(params, rows):
    hidden = decoder.forward(
      config, params, rows['token'], rows['segment'], rows['position']
    )
    logits = decoder.unembed(config, params, hidden).astype(jnp.float32)
    own = jnp.take_along_axis(logits, rows['target'][..., None], -1)[..., 0]
    answers = rows['weight'] > 0
    return jnp.max((logits.max(-1) - own) * answers) / jnp.std(logits)

  return float(lack(params, rows))


def _gate(size: Size) -> Iterator[tuple[str, float, float]]:
  """One history, judged on the device and operation by operation on the CPU."""
  del size  # It is the same everywhere.
  rounds, num_modules = 24, 8
  names = [f'm{i}' for i in range(num_modules)]
  stages = [
    Stage(tuple(names[i : i + 2]), 'teach', 0.5, 4, 2)
    for i in range(0, num_modules, 2)
  ]
  rules = gate_lib.Rules(
    tau_mastery=0.8,
    confidence=0.8,
    sequential=False,
    reopen=True,
    min_probes=16,
    max_rounds=1,
    on_stall='advance',
  )
  made = gate_lib.make_plan(stages, names, np.full(num_modules, 0.95), rules)
  # Students that learn: from round to round more answers are right.
  rng = np.random.default_rng(0)
  skill = np.linspace(0.7, 1.0, rounds)[:, None]
  right = rng.binomial(32, np.broadcast_to(skill, (rounds, num_modules)))

  def turn(plan, gate, right_K):
    gate = gate_lib.count_step(gate)
    ask_K = gate_lib.asked(gate, plan)
    gate, decision = gate_lib.decide(
      gate,
      plan,
      jnp.float32(right_K) * ask_K,
      32 * ask_K,
      jnp.ones(num_modules, jnp.int32),
    )
    return gate_lib.resume(gate, gate.needs_data), decision

  def history(right):
    plan = jax.tree.map(jnp.asarray, made)
    start = gate_lib.init(plan, jnp.zeros(num_modules), jnp.zeros(num_modules))
    return jax.lax.scan(functools.partial(turn, plan), start, right)

  with _on(None):
    found = jax.device_get(jax.jit(history)(right))
  with _on('cpu'), jax.disable_jit():
    reference = jax.device_get(history(right))
  if len(np.unique(reference[1])) < 3:
    raise ValueError('the history has too few kinds of decisions')
  different = jax.tree.map(lambda x, y: np.sum(x != y), found, reference)
  yield (
    f'decisions of the gate over {rounds} rounds that differ',
    float(sum(jax.tree.leaves(different))),
    0.0,
  )


def quickstart(
  say: jobs.Say, workdir: str, compiled: str, changes, limit: float
) -> None:
  """The shipped run to its end; `limit` is the least retention.

  Args:
    compiled: where its programs are kept, for the runs that come later.
  """
  import ioa_jax as ioa

  jax.config.update('jax_compilation_cache_dir', compiled)
  start = time.perf_counter()
  run = ioa.distill(ioa.config('quickstart', changes), workdir, quiet=True)
  say(
    {
      'check': 'quickstart',
      'seconds': time.perf_counter() - start,
      'retention': run.retention,
      'limit': limit,
      'right': run.retention >= limit,
    }
  )
