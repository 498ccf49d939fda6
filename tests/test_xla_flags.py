"""Advice about flags: who gets it, and that XLA knows every flag of it."""

import os
import subprocess
import sys

import pytest

from ioa_jax.runtime import xla_flags

XLA = [a.value for a in xla_flags.TABLE if a.variable == 'XLA_FLAGS']
LIBTPU = [a.value for a in xla_flags.TABLE if a.variable == 'LIBTPU_INIT_ARGS']


def said(platform, kind='', devices=1, **environ):
  return list(xla_flags.advice(platform, kind, devices, environ))


@pytest.mark.parametrize(
  'devices,words',
  [
    (('cpu', 'cpu', 8), []),
    (('tpu', 'TPU v5 lite', 8), []),
    (('tpu', 'TPU v6 lite', 8), ['LIBTPU_INIT_ARGS']),
    (('gpu', 'NVIDIA H100 80GB HBM3', 1), ['XLA_PYTHON_CLIENT_MEM_FRACTION']),
    (
      ('gpu', 'NVIDIA H100 80GB HBM3', 8),
      ['XLA_FLAGS', 'XLA_PYTHON_CLIENT_MEM_FRACTION'],
    ),
  ],
)
def test_each_device_gets_its_own(devices, words):
  lines = said(*devices)
  assert len(lines) == len(words)
  for line, word in zip(lines, words):
    assert f' {word}=' in line


@pytest.mark.parametrize('a', xla_flags.TABLE, ids=lambda a: a.variable)
def test_what_is_set_is_not_said_again(a):
  kind = 'TPU v6 lite' if a.platform == 'tpu' else ''
  flag = a.value.partition('=')[0]
  other = f'--x=1 {flag}=0' if flag.startswith('--') else '0.5'
  line = f'{a.variable}={a.value}'
  assert any(line in x for x in said(a.platform, kind, 8))
  for value in (a.value, other):
    lines = said(a.platform, kind, 8, **{a.variable: value})
    assert not any(line in x for x in lines)


@pytest.mark.parametrize('flags', [' '.join(XLA), '--xla_gpu_no_such_flag=1'])
def test_xla_knows_the_flags(flags):
  """It ends the process for one that it does not know, on any platform."""
  done = subprocess.run(
    [sys.executable, '-c', 'import jax; jax.devices()'],
    env=os.environ | {'XLA_FLAGS': flags, 'JAX_PLATFORMS': 'cpu'},
    capture_output=True,
    text=True,
  )
  if 'no_such_flag' in flags:
    assert 'Unknown flag' in done.stderr
  else:
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_libtpu_knows_the_flags():
  pytest.importorskip('libtpu', reason="pip install -e '.[test]'")
  program = (
    'from jax.experimental import topologies\n'
    "topologies.get_topology_desc('v6e:2x4', 'tpu')"
  )
  environ = {
    'TPU_SKIP_MDS_QUERY': '1',
    'TPU_ACCELERATOR_TYPE': 'v6e-8',
    'TPU_WORKER_HOSTNAMES': 'localhost',
    'ALLOW_MULTIPLE_LIBTPU_LOAD': '1',
    'JAX_PLATFORMS': 'cpu',
  }

  def run(flags):
    return subprocess.run(
      [sys.executable, '-c', program],
      env=os.environ | environ | {'LIBTPU_INIT_ARGS': flags},
      capture_output=True,
      text=True,
    )

  done = run(' '.join(LIBTPU))
  assert done.returncode == 0, done.stderr
  assert 'Unknown' in run('--xla_tpu_no_such_flag=1').stderr
