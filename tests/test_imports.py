"""Data flows down: each package imports only packages before it."""

import ast
import pathlib

import pytest

import ioa_jax

PACKAGE = pathlib.Path(ioa_jax.__file__).parent
# In the order in which they may be imported; a package or a file at the top.
PACKAGES = (
  'config',
  'records',
  'runtime',
  'domains',
  'models',
  'sampling',
  'teachers',
  'evaluation',
  'training',
  'identifier',
  'organizer',
  'adapter',
  'baselines',
  'report',
  'student',
  'people',
  'subject',
  'assemble',
  'phases',
  'teaching',
  'pipeline',
  'api',
  'experiments',
  'commands',
)
LEVEL = {name: i for i, name in enumerate(PACKAGES)}


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


def _package(path):
  return path.relative_to(PACKAGE).parts[0].removesuffix('.py')


FILES = sorted(p for p in PACKAGE.rglob('*.py') if p.name != '__init__.py')


@pytest.mark.parametrize(
  'path', FILES, ids=lambda p: str(p.relative_to(PACKAGE))
)
def test_imports_only_earlier_packages(path):
  package = _package(path)
  assert package in LEVEL, f'{path.name} has no place in PACKAGES; name it.'
  upward = {i for i in _imports(path) if LEVEL.get(i, 99) > LEVEL[package]}
  assert not upward, f'{path.relative_to(PACKAGE)} imports {sorted(upward)}'


def test_the_walk_sees_an_upward_import(tmp_path):
  file = tmp_path / 'x.py'
  file.write_text(
    'from ioa_jax.report import page\nimport ioa_jax.training.gate'
  )
  assert set(_imports(file)) == {'report', 'training'}


def test_no_package_is_named_utils():
  assert not [p for p in FILES if p.stem in ('utils', 'helpers', 'common')]
