"""One process of several.

python -m tests.multihost_worker PORT NUM_PROCESSES PROCESS train
python -m tests.multihost_worker PORT NUM_PROCESSES PROCESS run WORKDIR CONFIG
  [STOP]

`train` trains as tests/test_step.py does and prints losses. `run` runs a whole
distillation and prints its results; the last process sends itself SIGTERM when
step STOP is done.
"""

import json
import os
import pathlib
import signal
import sys

DEVICES = {'train': 4, 'run': 2}  # Of all processes together.


def main(port, num_processes, process, what, *rest):
  num_processes, process = int(num_processes), int(process)
  os.environ['XLA_FLAGS'] = (
    f'--xla_force_host_platform_device_count={DEVICES[what] // num_processes}'
  )
  import jax

  from ioa_jax.runtime import sharding

  if num_processes > 1:
    sharding.join(f'127.0.0.1:{port}', num_processes, process)
  assert jax.process_count() == num_processes
  print(json.dumps({'train': train, 'run': run}[what](*rest)))


def train():
  import jax

  from tests import test_step

  window, state, inputs, mesh, _ = test_step.make(
    devices=4, axes={'data': 2, 'fsdp': 2}
  )
  token_losses, stages = [], []
  with jax.set_mesh(mesh):
    for _ in range(3):
      state, metrics = window(state, inputs)
      metrics = jax.device_get(metrics)
      loss_sum, count = metrics['loss_sum'], metrics['loss_count']
      token_losses += (loss_sum / count).tolist()
      stages += metrics['stage'].tolist()
  return {'token_losses': token_losses, 'stages': stages}


def run(workdir, config_file, stop=None):
  import jax
  import ml_collections

  from ioa_jax import pipeline
  from ioa_jax.phases import observing
  from ioa_jax.runtime import display as display_lib
  from ioa_jax.runtime import processes

  config = ml_collections.ConfigDict(
    json.loads(pathlib.Path(config_file).read_text())
  )
  record = observing.Observer.record

  def record_and_stop(self, metrics):
    nonlocal stop
    record(self, metrics)
    last = jax.process_index() == jax.process_count() - 1
    if stop and last and metrics['step'][-1] >= int(stop):
      stop = None
      os.kill(os.getpid(), signal.SIGTERM)

  observing.Observer.record = record_and_stop
  with display_lib.Display(quiet=not processes.is_first()) as display:
    results = pipeline.run(config, pathlib.Path(workdir), display)
  return results and results.to_dict()


if __name__ == '__main__':
  main(*sys.argv[1:])
