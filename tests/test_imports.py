"""Data flows down the rooms: each imports only rooms before it."""

import ast
import pathlib

import pytest

import ioa_jax

PACKAGE = pathlib.Path(ioa_jax.__file__).parent
ROOMS = (
  'records', 'domains', 'models', 'sharding', 'sampling', 'teachers',
  'evaluation', 'identifier', 'organizer', 'adapter', 'training', 'baselines',
  'report',
)  # fmt: skip
# Sharding is a table that the decoder reads, so it stands beside models; who
# of several processes does what, all rooms may ask.
LEVEL = {room: i for i, room in enumerate(ROOMS)}
LEVEL |= {'sharding': 2, 'processes': 0, 'config': -1}
TOP = (
  'rundir', 'progress', 'seed_sources', 'subject', 'projection',
  'classroom', 'measuring', 'teaching', 'pipeline', 'commands', 'runtime',
  'collectives', 'plans', 'rounds',
)  # fmt: skip


def _imports(path):
  for node in ast.walk(ast.parse(path.read_text())):
    if isinstance(node, ast.ImportFrom) and node.module:
      if node.module == 'ioa_jax':
        yield from (alias.name for alias in node.names)
      elif node.module.startswith('ioa_jax.'):
        yield node.module.split('.')[1]
    elif isinstance(node, ast.Import):
      for alias in node.names:
        if alias.name.startswith('ioa_jax.'):
          yield alias.name.split('.')[1]


def _room(path):
  return path.relative_to(PACKAGE).parts[0].removesuffix('.py')


FILES = sorted(p for p in PACKAGE.rglob('*.py') if p.name != '__init__.py')


@pytest.mark.parametrize(
  'path', FILES, ids=lambda p: str(p.relative_to(PACKAGE))
)
def test_imports_only_earlier_rooms(path):
  room = _room(path)
  if room in TOP:
    return
  assert room in LEVEL, f'{path.name} is in no room of DESIGN; name its place.'
  upward = {i for i in _imports(path) if LEVEL.get(i, 99) > LEVEL[room]}
  assert not upward, f'{path.relative_to(PACKAGE)} imports {sorted(upward)}'


def test_the_walk_sees_an_upward_import(tmp_path):
  file = tmp_path / 'x.py'
  file.write_text(
    'from ioa_jax.report import page\nimport ioa_jax.training.gate'
  )
  assert set(_imports(file)) == {'report', 'training'}


def test_no_room_is_named_utils():
  assert not [p for p in FILES if p.stem in ('utils', 'helpers', 'common')]
