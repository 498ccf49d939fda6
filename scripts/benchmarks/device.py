"""The device that is measured: its name, its memory, and two peaks of it."""

from __future__ import annotations

import functools
import importlib.metadata
import os
import platform
import timeit

from benchmarks import jobs

_LIBRARIES = ('jax', 'jaxlib', 'flax', 'torch', 'transformers')
# Sides of the product, and bytes that are copied, by whether it is a CPU.
_SIDE = {True: 512, False: 8192}
_BYTES = {True: 2**26, False: 2**32}
_PRODUCTS = 4  # In a row, so that starting one costs nothing.


def describe(say: jobs.Say) -> None:
  """What stands beside every number."""
  import jax

  device = jax.devices()[0]
  cores = len(os.sched_getaffinity(0))
  on_cpu = device.platform == 'cpu'
  say(
    {
      'device': f'{platform.machine()} CPU, {cores} cores'
      if on_cpu
      else device.device_kind,
      'platform': device.platform,
      'devices': jax.device_count(),
      'cpu_cores': cores,
      'python': platform.python_version(),
      'memory_limit_gib': gib((device.memory_stats() or {}).get('bytes_limit')),
      **{name: version(name) for name in _LIBRARIES},
      'bf16_matmul_tflops': _matmul_flops(_SIDE[on_cpu]) / 1e12,
      'copy_gb_per_second': _copy_bytes(_BYTES[on_cpu]) / 1e9,
    }
  )


def version(name: str) -> str | None:
  """Of an installed package; None where it is not."""
  try:
    return importlib.metadata.version(name)
  except importlib.metadata.PackageNotFoundError:
    return None


def gib(num_bytes: int | None) -> float | None:
  return None if num_bytes is None else num_bytes / 2**30


def peak_gib() -> float | None:
  """The most memory of the first device so far; None where none is counted."""
  import jax

  return gib((jax.devices()[0].memory_stats() or {}).get('peak_bytes_in_use'))


def _best(run, at_least: int) -> float:
  run()  # Compiles.
  return min(timeit.repeat(run, number=1, repeat=at_least))


def _matmul_flops(side: int) -> float:
  """A second, of products of square bf16 matrices."""
  import jax
  import jax.numpy as jnp

  square = jax.random.normal(jax.random.key(0), (side, side), jnp.bfloat16)

  @jax.jit
  def product(x):
    for _ in range(_PRODUCTS):
      x = x @ square
    return x

  best = _best(lambda: product(square).block_until_ready(), 5)
  return _PRODUCTS * 2 * side**3 / best


def _copy_bytes(size: int) -> float:
  """Read and written a second, together."""
  import jax
  import jax.numpy as jnp

  x = jnp.zeros(size, jnp.int8)
  add = functools.partial(jax.jit(lambda x: x + 1), x)
  return 2 * size / _best(lambda: add().block_until_ready(), 5)


def needed_bytes(compiled) -> int:
  """What a compiled program takes, as `compile_check.py` says it."""
  memory = compiled.memory_analysis()
  # Donated arguments become outputs in place.
  outputs = memory.output_size_in_bytes - memory.alias_size_in_bytes
  return memory.argument_size_in_bytes + memory.temp_size_in_bytes + outputs
