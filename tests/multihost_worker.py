r"""One process of several, on two devices in all.

python -m tests.multihost_worker PORT NUM_PROCESSES PROCESS \
  WORKDIR CONFIG [STOP]

Runs a whole distillation and prints its results; the last process sends itself
SIGTERM when step STOP is done.
"""

import json
import os
import pathlib
import signal
import sys

DEVICES = 2


def main(port, num_processes, process, *rest):
  num_processes, process = int(num_processes), int(process)
  os.environ['XLA_FLAGS'] = (
    f'--xla_force_host_platform_device_count={DEVICES // num_processes}'
  )
  import jax

  from ioa_jax import sharding

  if num_processes > 1:
    sharding.join(f'127.0.0.1:{port}', num_processes, process)
  assert jax.process_count() == num_processes
  print(json.dumps(run(*rest)))


def run(workdir, config_file, stop=None):
  import jax
  import ml_collections

  from ioa_jax import pipeline, processes, progress, teaching

  config = ml_collections.ConfigDict(
    json.loads(pathlib.Path(config_file).read_text())
  )
  observe = teaching.Teaching.observe

  def observe_and_stop(self, state, metrics):
    nonlocal stop
    observe(self, state, metrics)
    last = jax.process_index() == jax.process_count() - 1
    if stop and last and int(state.step) >= int(stop):
      stop = None
      os.kill(os.getpid(), signal.SIGTERM)

  teaching.Teaching.observe = observe_and_stop
  with progress.Display(quiet=not processes.is_first()) as display:
    try:
      return pipeline.run(config, pathlib.Path(workdir), display)
    except ValueError as e:
      return {'error': str(e)}


if __name__ == '__main__':
  main(*sys.argv[1:])
