"""Two processes do what one does with as many devices."""

import json
import os
import pathlib
import socket
import subprocess
import sys

import numpy as np
import pytest

from ioa_jax import config as config_lib
from ioa_jax.runtime import processes, sharding
from tests import faulty_server, test_text_pipeline, word_problem_teacher
from tests.test_pipeline import exported

ROOT = pathlib.Path(__file__).parents[1]

files = test_text_pipeline.files


def work(num_processes, *what):
  """What each process prints."""
  with socket.socket() as s:
    s.bind(('127.0.0.1', 0))
    port = s.getsockname()[1]
  workers = [
    subprocess.Popen(
      [
        sys.executable,
        '-m',
        'tests.multihost_worker',
        str(port),
        str(num_processes),
        str(process),
        *map(str, what),
      ],
      cwd=ROOT,
      stdout=subprocess.PIPE,
      stderr=subprocess.PIPE,
      text=True,
      env=os.environ | {'JAX_PLATFORMS': 'cpu', 'PYTHONPATH': str(ROOT)},
    )
    for process in range(num_processes)
  ]
  try:
    ended = [worker.communicate(timeout=1200) for worker in workers]
  finally:
    for worker in workers:
      worker.kill()
  for worker, (_, said) in zip(workers, ended):
    assert worker.returncode == 0, said
  return [json.loads(out.splitlines()[-1]) for out, _ in ended]


@pytest.mark.slow
def test_two_processes_train_as_one():
  (want,) = work(1, 'train')
  for got in work(2, 'train'):
    # One window: later, sums in another order have moved the weights.
    np.testing.assert_allclose(
      got['token_losses'][:10], want['token_losses'][:10], rtol=0, atol=1e-6
    )
    assert got['stages'] == want['stages']
  assert len(set(want['stages'])) > 1


def first_losses(workdir):
  events = [
    json.loads(line)
    for line in (workdir / 'metrics.jsonl').read_text().splitlines()
  ]
  return [e['train/loss'] for e in events if e['event'] == 'train'][:2]


@pytest.mark.slow
def test_two_processes_distill_as_one_and_stop_together(files, tmp_path):
  """A served teacher, adapters, split weights, probes that the host grades."""
  one, two = tmp_path / 'one', tmp_path / 'two'
  config = test_text_pipeline.config(
    files, **{'train.total_steps': 12, 'gate.max_rounds': 0}
  )
  config.mesh.update(data=1, fsdp=2)
  file = tmp_path / 'config.json'
  with faulty_server.FaultyServer(
    respond=word_problem_teacher.respond
  ) as server:
    config.teacher.base_url = server.url
    file.write_text(config_lib.to_json(config))
    (want,) = work(1, 'run', one, file)
    asked_by_one = len(server.asked)
    # Only the second process is asked to stop.
    assert work(2, 'run', two, file, 6) == [None, None]
    assert (two / 'checkpoints').exists()
    assert not (two / 'results.json').exists()
    got, followed = work(2, 'run', two, file)
    assert len(server.asked) == 2 * asked_by_one  # Nobody asked twice.
  assert (one / 'lessons.jsonl').read_text() == (
    two / 'lessons.jsonl'
  ).read_text()
  # Later, sums in another order have moved the weights.
  assert first_losses(two) == pytest.approx(first_losses(one), abs=1e-6)
  for results in (want, got, followed):
    results['losses'] = [
      module.pop(key)
      for module in results['modules'].values()
      for key in ('loss_before', 'loss_after')
    ]
  assert followed.pop('losses') == got['losses']
  assert got.pop('losses') == pytest.approx(want.pop('losses'), abs=1e-3)
  for results in (want, got, followed):
    del results['seconds'], results['tokens']['teacher_cached']
  assert got == want
  # Who follows does not pay.
  for results in (got, followed):
    del results['tokens']['teacher_generated']
  assert followed == got
  names = lambda path: {p.name for p in path.iterdir()}
  assert names(two) == names(one)
  for name in ('student', 'adapter'):
    assert names(exported(two, name)) == names(exported(one, name))


def refuse_in(process, where):
  if process == where:
    raise ValueError(f'refused in {process}')


def refuse_in_all(port, process):
  """Run by itself, see below: an error of the first is one of all."""
  sharding.join(f'127.0.0.1:{port}', 2, int(process))

  def refuse():
    raise config_lib.ConfigError('no')

  with pytest.raises(config_lib.ConfigError, match='^no$'):
    processes.on_first(refuse, errors=[config_lib.ConfigError])
  assert processes.any_of(process == '1')
  assert processes.tell({'from': process}) == {'from': '0'}
  with pytest.raises(ValueError, match='different seeds'):
    processes.check_same('seeds', [process])
  with pytest.raises(
    ValueError, match='refused in 1' if process == '1' else 'another process'
  ):
    processes.in_all(lambda: refuse_in(process, '1'))


def test_an_error_of_the_first_process_is_one_of_all():
  call = 'import sys; from tests import test_multihost as t; '
  with socket.socket() as s:
    s.bind(('127.0.0.1', 0))
    port = s.getsockname()[1]
  workers = [
    subprocess.Popen(
      [sys.executable, '-c', f'{call} t.refuse_in_all({port}, "{i}")'],
      cwd=ROOT,
      env=os.environ | {'JAX_PLATFORMS': 'cpu'},
    )
    for i in range(2)
  ]
  try:
    assert [worker.wait(timeout=600) for worker in workers] == [0, 0]
  finally:
    for worker in workers:
      worker.kill()


def test_a_run_that_cannot_be_joined_says_how():
  with pytest.raises(ValueError, match='give each --coordinator=HOST:PORT'):
    sharding.join()


def test_one_process_is_all_of_them():
  tree = {'a': np.arange(3), 'b': np.float32(2.0)}
  assert sharding.fetch(tree)['a'].tolist() == [0, 1, 2]
  assert processes.is_first() and processes.any_of(True)
  assert not processes.any_of(False)
  assert processes.tell({'a': 1}) == {'a': 1}
  assert processes.on_first(lambda: 3) == 3
  processes.check_same('requests', ['a'])
  assert processes.in_all(lambda: 4) == 4
