"""One process of several trains as tests/test_step.py does; prints losses.

python -m tests.multihost_worker PORT NUM_PROCESSES PROCESS
"""

import json
import os
import sys


def main(port, num_processes, process):
  os.environ['XLA_FLAGS'] = (
    f'--xla_force_host_platform_device_count={4 // num_processes}'
  )
  import jax

  from ioa_jax import sharding

  if num_processes > 1:
    sharding.join(f'127.0.0.1:{port}', num_processes, process)
  from tests import test_step

  window, state, inputs, mesh, _ = test_step.make(
    devices=4, axes={'data': 2, 'fsdp': 2}
  )
  assert jax.process_count() == num_processes
  token_losses, stages = [], []
  with jax.set_mesh(mesh):
    for _ in range(3):
      state, metrics = window(state, inputs)
      metrics = jax.device_get(metrics)
      loss_sum, count = metrics['loss_sum'], metrics['loss_count']
      token_losses += (loss_sum / count).tolist()
      stages += metrics['stage'].tolist()
  print(json.dumps({'token_losses': token_losses, 'stages': stages}))


if __name__ == '__main__':
  main(*map(int, sys.argv[1:]))
