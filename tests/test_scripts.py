"""Scripts as a person starts them: help, mistakes, one line, exit code 2."""

import os
import pathlib
import runpy
import subprocess
import sys

import pytest

from ioa_jax import config as config_lib

ROOT = pathlib.Path(__file__).parents[1]
CONFIG = '--config=configs/quickstart.py'


def run(*arguments, script='distill.py'):
  return subprocess.run(
    [sys.executable, f'scripts/{script}', *arguments],
    cwd=ROOT,
    capture_output=True,
    text=True,
    timeout=120,
    env=os.environ | {'JAX_PLATFORMS': 'cpu'},
  )


@pytest.mark.parametrize(
  'arguments,message',
  [
    (
      ['--config.gate.tau_mastrey=0.9'],
      'no such field; the nearest is config.gate.tau_mastery',
    ),
    (['--config.tau_mastery=0.9'], 'nearest is config.gate.tau_mastery'),
    (
      ['--config.gate.tau_mastery=1.5'],
      'tau_mastery is 1.5, wanted a number in (0, 1]',
    ),
    (
      ['--config.gate.min_probes=0'],
      'min_probes is 0, wanted a whole number >= 1',
    ),
    (['--config.gate.tau_mastery=high'], 'high'),
    (['--config.gate.confidence=0.999'], 'has 32 gate probes: if all were'),
    (
      ['--config.teacher.model=/nonexistent'],
      '/nonexistent: no such directory',
    ),
    (['--config.mesh.fsdp=7'], 'mesh data'),
  ],
  ids=lambda v: v[0] if isinstance(v, list) else '',
)
def test_a_mistake_is_one_line_and_leaves_nothing(tmp_path, arguments, message):
  workdir = tmp_path / 'run'
  done = run(CONFIG, f'--workdir={workdir}', *arguments)
  assert done.returncode == 2, done.stderr
  lines = [x for x in done.stderr.splitlines() if x.startswith('error: ')]
  assert len(lines) == 1 and message in lines[0]
  assert 'Traceback' not in done.stderr
  assert not workdir.exists()


def test_missing_arguments_and_files(tmp_path):
  done = run(CONFIG)
  assert done.returncode == 2 and '--workdir' in done.stderr
  done = run('--config=configs/nothing.py', f'--workdir={tmp_path}')
  assert done.returncode == 2 and 'nothing.py' in done.stderr
  assert 'Traceback' not in done.stderr


def test_a_directory_of_another_configuration(tmp_path):
  config = runpy.run_path(str(ROOT / 'configs/quickstart.py'))['get_config']()
  config.seed = 5
  (tmp_path / 'config.json').write_text(config_lib.to_json(config))
  done = run(CONFIG, f'--workdir={tmp_path}')
  assert done.returncode == 2
  assert 'seed: 5 -> 0' in done.stderr
  assert os.listdir(tmp_path) == ['config.json']


def test_processes_need_someone_to_meet_at(tmp_path):
  done = run(CONFIG, f'--workdir={tmp_path}', '--num_processes=2')
  assert done.returncode == 2
  assert 'are for --coordinator=HOST:PORT' in done.stderr


def test_help_says_what_and_how():
  done = run('--helpfull')
  text = done.stdout + done.stderr
  assert 'resumable' in text and '--workdir' in text and 'report.html' in text


@pytest.mark.parametrize(
  'script,arguments,message',
  [
    (
      'benchmark.py',
      ['nothing'],
      "wanted train, gate, sample or accelerator, got ['not",
    ),
    ('benchmark.py', ['sample', '--peer=tunix'], 'tunix has train only'),
    ('benchmark.py', ['accelerator'], 'add --output_dir=OUT'),
    (
      'gsm8k_seeds.py',
      [f'--input={__file__}', '--output_dir=/dev/null/x'],
      'test_scripts.py',
    ),
  ],
)
def test_scripts_beside_distill_end_in_one_line_too(script, arguments, message):
  done = run(*arguments, script=script)
  assert done.returncode == 2 and 'Traceback' not in done.stderr
  (line,) = [x for x in done.stderr.splitlines() if x.startswith('error: ')]
  assert message in line
