"""Compiling for a TPU without one; in a process of its own."""

import json
import os
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[1]
SMALL = (
  '--config=configs/smollm2_135m.py',
  '--config.student.model=smollm2-135m',
  '--config.mesh.data=1',
  '--config.mesh.fsdp=-1',
  '--config.train.batch_rows=8',
  '--config.train.row_length=64',
  '--config.train.steps_per_window=2',
  '--rows=64',
)


def run(*arguments):
  return subprocess.run(
    [sys.executable, 'scripts/compile_check.py', *arguments],
    cwd=ROOT,
    capture_output=True,
    text=True,
    env=os.environ | {'JAX_PLATFORMS': 'cpu', 'PYTHONPATH': str(ROOT)},
  )


@pytest.mark.slow
@pytest.mark.parametrize(
  ('rank', 'axis', 'length'),
  [(0, 'fsdp', 64), (16, 'fsdp', 64), (0, 'sequence', 2048)],
)
def test_a_small_student_compiles_for_a_tpu(rank, axis, length):
  """Split over rows, or by tokens: then each chip has a block of queries."""
  pytest.importorskip('libtpu', reason="pip install -e '.[test]'")
  done = run(
    *SMALL,
    '--topology=v5e:2x2',
    '--programs=train',
    f'--config.student.lora.rank={rank}',
    '--config.mesh.fsdp=1',
    f'--config.mesh.{axis}=4',
    f'--config.train.row_length={length}',
  )
  assert done.returncode == 0, done.stderr
  (found,) = map(json.loads, done.stdout.splitlines())
  one = {'data': 1, 'fsdp': 1, 'sequence': 1, 'tensor': 1}
  assert found['fits'] and found['mesh'] == one | {axis: 4}
  # Weights, their average, the best of it and two moments in float32, or a
  # frozen base and little else, a quarter on each chip. Padding in layouts adds
  # some.
  trained = 5 * 4 * found['params'] if rank == 0 else 4 * found['params']
  assert found['hbm_gib']['arguments'] == pytest.approx(
    trained / 4 / 2**30, rel=0.25
  )


@pytest.mark.parametrize(
  ('arguments', 'message'),
  [
    (['--topology=v9:2x2'], 'wanted GENERATION:AxB'),
    (['--topology=v5e'], 'wanted GENERATION:AxB'),
    (['--programs=sing'], "--programs: ['sing']"),
    (['--programs=panel'], 'config.identifier.panel.learners is 0'),
    (['--config.student.model=gpt-2'], "config.student.model is 'gpt-2'"),
  ],
)
def test_a_mistake_is_one_line(arguments, message):
  done = run(*SMALL, *arguments)
  assert done.returncode == 2, done.stderr
  lines = [x for x in done.stderr.splitlines() if x.startswith('error: ')]
  assert len(lines) == 1 and message in lines[0]
