"""The house rules that can be counted."""

import ast
import pathlib
import re

import pytest
import yaml

import ioa_jax

PACKAGE = pathlib.Path(ioa_jax.__file__).parent
ROOT = PACKAGE.parent
FILES = sorted([*PACKAGE.rglob('*.py'), *(ROOT / 'scripts').rglob('*.py')])
# What holds a protocol or a format open may be larger.
LARGE = ('domains', 'teachers')


def _nodes(kind):
  for path in FILES:
    for node in ast.walk(ast.parse(path.read_text(encoding='utf-8'))):
      if isinstance(node, kind):
        yield path.relative_to(ROOT), node


def _lines(node):
  return node.end_lineno - node.lineno + 1


def _num_parameters(function):
  a = function.args
  names = [x.arg for x in (*a.posonlyargs, *a.args, *a.kwonlyargs)]
  return len(names) - (names[:1] in (['self'], ['cls']))


def test_classes_are_small():
  large = {
    f'{path}: {node.name}': _lines(node)
    for path, node in _nodes(ast.ClassDef)
    if _lines(node) > 200 and not set(path.parts) & set(LARGE)
  }
  assert not large


def test_functions_take_at_most_eight_parameters():
  many = {
    f'{path}: {node.name}': _num_parameters(node)
    for path, node in _nodes((ast.FunctionDef, ast.AsyncFunctionDef))
    if _num_parameters(node) > 8
  }
  assert not many


@pytest.mark.parametrize(
  'name,most', [('pipeline.py', 200), ('teaching.py', 250)]
)
def test_the_loop_is_on_a_page(name, most):
  assert len((PACKAGE / name).read_text().splitlines()) <= most


def test_few_files_are_loose():
  loose = [p.name for p in PACKAGE.glob('*.py') if p.name != '__init__.py']
  assert len(loose) <= 9, loose


def test_the_formatter_decides():
  tests = sorted((ROOT / 'tests').glob('*.py'))
  skips = sum(
    len(re.findall('fmt: *skip', p.read_text())) for p in [*FILES, *tests]
  )
  assert skips <= 60


def test_no_comment_refers_to_a_file_that_is_not_here():
  for path in FILES:
    for name in re.findall(r'\b[\w/]+\.md\b', path.read_text()):
      found = [ROOT / name, ROOT / 'docs' / name]
      # What a run or a data set writes of itself.
      written = name in ('README.md', 'table.md', 'summary.md')
      assert written or any(p.exists() for p in found), f'{path}: {name}'


def test_the_citation_is_of_this_package_and_its_paper():
  cited = yaml.safe_load((ROOT / 'CITATION.cff').read_text())
  readme = (ROOT / 'README.md').read_text()
  (paper,) = cited['references']
  assert cited['cff-version'] == '1.2.0' and cited['license'] in readme
  assert paper['title'] in ' '.join(readme.split()) and paper['url'] in readme
