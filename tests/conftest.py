"""Several CPU devices for every test, and each program compiled once.

Most of the tests' time is XLA's. Runs that are killed and resumed, and workers
side by side, load what another process has compiled.
"""

import os
import pathlib

# Before JAX is imported: the flags are read once, and processes that tests
# start inherit them.
os.environ['JAX_PLATFORMS'] = 'cpu'
os.environ.setdefault('XLA_FLAGS', '--xla_force_host_platform_device_count=4')
# XLA runs independent collectives of a program at once, each device's wait in a
# thread of its own, and with as many threads as devices they can all be waiting
# for one that has none left.
os.environ.setdefault('NPROC', '32')
os.environ.setdefault(
  'JAX_COMPILATION_CACHE_DIR',
  str(pathlib.Path(__file__).parents[1] / '.pytest_cache' / 'compiled'),
)
os.environ.setdefault('JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS', '0.5')
