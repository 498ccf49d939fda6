"""A run directory belongs to one configuration and survives being killed."""

import json
import os
import subprocess
import sys

import ml_collections
import pytest

from ioa_jax import config as config_lib
from ioa_jax.runtime import rundir


def make(**changes):
  return ml_collections.ConfigDict(
    {'seed': 0, 'gate': {'tau_mastery': 0.9}} | changes
  )


def test_the_same_configuration_may_come_back(tmp_path):
  rundir.RunDirectory(tmp_path / 'r', make())
  rundir.RunDirectory(tmp_path / 'r', make())
  assert json.loads((tmp_path / 'r/config.json').read_text())['seed'] == 0


def test_another_configuration_is_refused_with_the_difference(tmp_path):
  rundir.RunDirectory(tmp_path, make())
  before = (tmp_path / 'config.json').read_bytes()
  other = make(seed=1, gate={'tau_mastery': 0.8})
  with pytest.raises(
    config_lib.ConfigError,
    match=r'gate.tau_mastery: 0.9 -> 0.8; seed: 0 -> 1\)',
  ):
    rundir.RunDirectory(tmp_path, other)
  assert (tmp_path / 'config.json').read_bytes() == before


def test_a_foreign_directory_is_left_alone(tmp_path):
  (tmp_path / 'thesis.tex').write_text('x')
  with pytest.raises(config_lib.ConfigError, match='not a run of this program'):
    rundir.RunDirectory(tmp_path, make())
  assert os.listdir(tmp_path) == ['thesis.tex']


def test_an_unwritable_place_is_one_clear_line(tmp_path):
  # A file where a directory should be: refused for root as well.
  (tmp_path / 'file').write_text('')
  with pytest.raises(config_lib.ConfigError, match='cannot be written'):
    rundir.RunDirectory(tmp_path / 'file' / 'run', make())


def test_damaged_files_are_named(tmp_path):
  directory = rundir.RunDirectory(tmp_path, make())
  (tmp_path / 'diagnosis.json').write_text('{"a": ')
  with pytest.raises(config_lib.ConfigError, match='diagnosis.json is damaged'):
    directory.read_json('diagnosis.json')
  (tmp_path / 'config.json').write_text('{')
  with pytest.raises(config_lib.ConfigError, match='config.json is damaged'):
    rundir.RunDirectory(tmp_path, make())


def test_once_computes_once(tmp_path):
  directory = rundir.RunDirectory(tmp_path, make())
  assert directory.once('x.json', lambda: {'a': 1}) == {'a': 1}
  assert directory.once('x.json', lambda: 1 / 0) == {'a': 1}


def test_a_half_written_line_and_later_ones_are_dropped(tmp_path):
  directory = rundir.RunDirectory(tmp_path, make())
  directory.append_lines('m.jsonl', ['{"step": 1}', '{"step": 2}'])
  with open(tmp_path / 'm.jsonl', 'a') as file:
    file.write('{"step": 3')
  directory.keep_lines('m.jsonl', lambda i, line: json.loads(line)['step'] < 2)
  assert directory.read_lines('m.jsonl') == ['{"step": 1}']


def test_a_reader_never_sees_half_a_file(tmp_path):
  """Kills a writer at random moments; the file is always one whole version."""
  script = (
    'import sys, pathlib, ml_collections\n'
    'from ioa_jax import rundir\n'
    'd = rundir.RunDirectory(pathlib.Path(sys.argv[1]), '
    'ml_collections.ConfigDict({"seed": 0}))\n'
    'print("ready", flush=True)\n'
    'i = 0\n'
    'while True:\n'
    '  i += 1\n'
    '  d.write_json("x.json", [i] * 20000)\n'
  )
  for _ in range(3):
    process = subprocess.Popen(
      [sys.executable, '-c', script, str(tmp_path)], stdout=subprocess.PIPE
    )
    process.stdout.readline()
    while not (tmp_path / 'x.json').exists():
      pass
    process.kill()
    process.wait()
    value = json.loads((tmp_path / 'x.json').read_text())
    assert len(value) == 20000 and len(set(value)) == 1


def test_two_processes_never_share_a_directory(tmp_path):
  directory = rundir.RunDirectory(tmp_path, make())
  enter = (
    'import pathlib, sys, ml_collections\n'
    'from ioa_jax import rundir\n'
    f'config = ml_collections.ConfigDict({make().to_dict()!r})\n'
    'try:\n'
    '  with rundir.RunDirectory(pathlib.Path(sys.argv[1]), config).locked():\n'
    '    print("in")\n'
    'except ValueError as e:\n'
    '  print(e)\n'
  )

  def other():
    done = subprocess.run(
      [sys.executable, '-c', enter, tmp_path], capture_output=True, text=True
    )
    return done.stdout

  with directory.locked():
    assert 'in use by another process' in other()
  assert other() == 'in\n'


def test_how_a_run_is_carried_out_may_change_between_starts(tmp_path):
  """A spent budget is raised, a server moves: the ledger must stay in use."""
  start = make(teacher={'max_usd': 1.0, 'base_url': 'a', 'model': 'm'})
  rundir.RunDirectory(tmp_path, start)
  moved = make(teacher={'max_usd': 9.0, 'base_url': 'b', 'model': 'm'})
  rundir.RunDirectory(tmp_path, moved)
  kept = json.loads((tmp_path / 'config.json').read_text())
  assert kept['teacher'] == {'max_usd': 9.0, 'base_url': 'b', 'model': 'm'}
  other = make(teacher={'max_usd': 9.0, 'base_url': 'b', 'model': 'n'})
  with pytest.raises(config_lib.ConfigError, match="model: 'm' -> 'n'\\)"):
    rundir.RunDirectory(tmp_path, other)


def test_lines_are_what_was_appended_whatever_is_in_them(tmp_path):
  directory = rundir.RunDirectory(tmp_path, make())
  lines = [json.dumps(f'a{c}b', ensure_ascii=False)
           for c in '\u2028\u2029\x85\x0b\x1c']  # fmt: skip
  directory.append_lines('x.jsonl', lines)
  assert directory.read_lines('x.jsonl') == lines


@pytest.mark.parametrize('left', ['.writable', '.config.json.tmp'])
def test_a_kill_during_the_first_write_blocks_nothing(tmp_path, left):
  (tmp_path / left).write_text('')
  rundir.RunDirectory(tmp_path, make())
  assert (tmp_path / 'config.json').exists()
