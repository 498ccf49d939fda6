"""Two processes of two devices train as one process of four."""

import json
import os
import pathlib
import socket
import subprocess
import sys

import numpy as np
import pytest

from ioa_jax import sharding

ROOT = pathlib.Path(__file__).parents[1]


def train(num_processes):
  """Losses and stages as each process saw them."""
  with socket.socket() as s:
    s.bind(('127.0.0.1', 0))
    port = s.getsockname()[1]
  workers = [
    subprocess.Popen(
      [
        sys.executable, '-m', 'tests.multihost_worker',
        str(port), str(num_processes), str(process),
      ],
      cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
      env=os.environ | {'JAX_PLATFORMS': 'cpu', 'PYTHONPATH': str(ROOT)},
    )
    for process in range(num_processes)
  ]  # fmt: skip
  try:
    ended = [worker.communicate(timeout=300) for worker in workers]
  finally:
    for worker in workers:
      worker.kill()
  for worker, (_, said) in zip(workers, ended):
    assert worker.returncode == 0, said
  return [json.loads(out.splitlines()[-1]) for out, _ in ended]


@pytest.mark.slow
def test_two_processes_train_as_one():
  (want,) = train(1)
  for got in train(2):
    # One window: later, sums in another order have moved the weights.
    np.testing.assert_allclose(
      got['token_losses'][:10], want['token_losses'][:10], rtol=0, atol=1e-6
    )
    assert got['stages'] == want['stages']
  assert len(set(want['stages'])) > 1


def test_a_run_that_cannot_be_joined_says_how():
  with pytest.raises(ValueError, match='give each --coordinator=HOST:PORT'):
    sharding.join()


def test_fetch_of_one_process_is_its_value():
  tree = {'a': np.arange(3), 'b': np.float32(2.0)}
  assert sharding.fetch(tree)['a'].tolist() == [0, 1, 2]
