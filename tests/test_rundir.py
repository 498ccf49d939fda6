"""A run directory belongs to one configuration and survives being killed."""

import json
import os
import subprocess
import sys

import ml_collections
import pytest

from ioa_jax import config as config_lib
from ioa_jax.records import StrongEdge
from ioa_jax.runtime import rundir


def make(**changes):
  return ml_collections.ConfigDict(
    {'seed': 0, 'gate': {'tau_mastery': 0.9}} | changes
  )


def begin(path, config):
  """A run that was begun, and is at work no longer."""
  directory = rundir.RunDirectory(path, config)
  with directory.locked():
    return directory


def test_the_same_configuration_may_come_back(tmp_path):
  begin(tmp_path / 'r', make())
  begin(tmp_path / 'r', make())
  assert json.loads((tmp_path / 'r/config.json').read_text())['seed'] == 0


def test_another_configuration_is_refused_with_the_difference(tmp_path):
  begin(tmp_path, make())
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


EDGE = StrongEdge('a', 'b', 0.5)


def _as_directory(path):
  path.unlink()
  path.mkdir()


DAMAGE = {
  'cut': lambda path: path.write_bytes(path.read_bytes()[:-7]),
  'emptied': lambda path: path.write_bytes(b''),
  'null': lambda path: path.write_text('null'),
  'a list': lambda path: path.write_text('[]'),
  'another object': lambda path: path.write_text('{"x": 1}'),
  'binary': lambda path: path.write_bytes(b'\xff\xfe\x00'),
  'nested': lambda path: path.write_text('[' * 100_000),
  'nested objects': lambda path: path.write_text('{"a":' * 100_000),
  'a huge number': lambda path: path.write_text('1' * 5000),
  'a directory': _as_directory,
}


@pytest.mark.parametrize('damage', DAMAGE)
@pytest.mark.parametrize('name', ['config.json', 'edge.json'])
def test_damaged_files_are_named_in_one_line(tmp_path, name, damage):
  directory = begin(tmp_path, make())
  directory.write_record('edge.json', EDGE)
  DAMAGE[damage](tmp_path / name)
  others = {p: p.read_bytes() for p in tmp_path.iterdir() if p.name != name}
  what = name
  if name == 'config.json' and damage == 'another object':
    what = 'belongs to another configuration'
  with pytest.raises(config_lib.ConfigError, match=what) as raised:
    begin(tmp_path, make()).read_record('edge.json', StrongEdge)
  assert len(str(raised.value).splitlines()) == 1
  assert len(str(raised.value)) < 600
  assert {p: p.read_bytes() for p in others} == others


def test_once_computes_once(tmp_path):
  directory = rundir.RunDirectory(tmp_path, make())
  assert directory.once('x.json', StrongEdge, lambda: EDGE) == EDGE
  assert directory.once('x.json', StrongEdge, lambda: 1 / 0) == EDGE


def test_a_half_written_line_and_later_ones_are_dropped(tmp_path):
  directory = rundir.RunDirectory(tmp_path, make())
  directory.append_lines('m.jsonl', ['{"step": 1}', '{"step": 2}'])
  with open(tmp_path / 'm.jsonl', 'a') as file:
    file.write('{"step": 3')
  directory.truncate('m.jsonl', 1)
  assert directory.read_lines('m.jsonl') == ['{"step": 1}']
  assert directory.num_lines('m.jsonl') == 1
  with pytest.raises(config_lib.ConfigError, match='has 1 lines and the check'):
    directory.truncate('m.jsonl', 2)


def _swap(path):
  first, second, *rest = path.read_text().split('\n')
  path.write_text('\n'.join([second, first, *rest]))


@pytest.mark.parametrize(
  'change,message',
  [
    (lambda p: _swap(p / 'lessons.jsonl'), 'lessons.jsonl has been changed'),
    (lambda p: (p / 'items.jsonl').unlink(), 'items.jsonl is missing'),
    (
      lambda p: (p / 'curriculum.json').write_text('{}'),
      'curriculum.json has been changed',
    ),
    (
      lambda p: (p / 'metrics.jsonl').write_text('m1\nM2\n'),
      'metrics.jsonl has been changed',
    ),
  ],
)
def test_a_checkpoint_vouches_for_what_it_stands_on(tmp_path, change, message):
  directory = begin(tmp_path, make())
  for name in ('diagnosis.json', 'curriculum.json', 'items.jsonl'):
    directory.write_text(name, name)
  directory.append_lines('lessons.jsonl', ['a', 'b'])
  directory.append_lines('metrics.jsonl', ['m1', 'm2'])
  known = directory.digests()
  # What was written later is cut off, and changes nothing.
  directory.append_lines('lessons.jsonl', ['c'])
  again = begin(tmp_path, make())
  again.truncate('lessons.jsonl', 2)
  again.truncate('metrics.jsonl', 2)
  again.require(known)
  change(tmp_path)
  with pytest.raises(config_lib.ConfigError, match=message):
    begin(tmp_path, make()).require(known)


def test_a_reader_never_sees_half_a_file(tmp_path):
  """Kills a writer at random moments; the file is always one whole version."""
  script = (
    'import sys, pathlib, ml_collections\n'
    'from ioa_jax.runtime import rundir\n'
    'd = rundir.RunDirectory(pathlib.Path(sys.argv[1]), '
    'ml_collections.ConfigDict({"seed": 0}))\n'
    'print("ready", flush=True)\n'
    'i = 0\n'
    'while True:\n'
    '  i += 1\n'
    '  d.write_text("x.json", str([i] * 20000))\n'
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
  start = make(teacher={'base_url': 'a'})
  other = make(teacher={'base_url': 'b'})
  directory = rundir.RunDirectory(tmp_path, start)
  enter = (
    'import pathlib, sys, ml_collections\n'
    'from ioa_jax.runtime import rundir\n'
    f'config = ml_collections.ConfigDict({other.to_dict()!r})\n'
    'try:\n'
    '  with rundir.RunDirectory(pathlib.Path(sys.argv[1]), config).locked():\n'
    '    print("in")\n'
    'except ValueError as e:\n'
    '  print(e)\n'
  )

  def come():
    done = subprocess.run(
      [sys.executable, '-c', enter, tmp_path], capture_output=True, text=True
    )
    return done.stdout

  with directory.locked():
    assert 'in use by another process' in come()
    # What may change between starts was not changed by who was refused.
    kept = json.loads((tmp_path / 'config.json').read_text())
    assert kept['teacher']['base_url'] == 'a'
  assert come() == 'in\n'


def test_how_a_run_is_carried_out_may_change_between_starts(tmp_path):
  """A spent budget is raised, a server moves: the ledger must stay in use."""
  start = make(teacher={'max_usd': 1.0, 'base_url': 'a', 'model': 'm'})
  begin(tmp_path, start)
  moved = make(teacher={'max_usd': 9.0, 'base_url': 'b', 'model': 'm'})
  begin(tmp_path, moved)
  kept = json.loads((tmp_path / 'config.json').read_text())
  assert kept['teacher'] == {'max_usd': 9.0, 'base_url': 'b', 'model': 'm'}
  other = make(teacher={'max_usd': 9.0, 'base_url': 'b', 'model': 'n'})
  with pytest.raises(config_lib.ConfigError, match="model: 'm' -> 'n'\\)"):
    rundir.RunDirectory(tmp_path, other)


def test_lines_are_what_was_appended_whatever_is_in_them(tmp_path):
  directory = rundir.RunDirectory(tmp_path, make())
  lines = [
    json.dumps(f'a{c}b', ensure_ascii=False) for c in '\u2028\u2029\x85\x0b\x1c'
  ]
  directory.append_lines('x.jsonl', lines)
  assert directory.read_lines('x.jsonl') == lines


@pytest.mark.parametrize('left', ['.writable', '.config.json.tmp', '.lock'])
def test_a_kill_during_the_first_write_blocks_nothing(tmp_path, left):
  (tmp_path / left).write_text('')
  begin(tmp_path, make())
  assert (tmp_path / 'config.json').exists()
