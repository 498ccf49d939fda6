"""LiveCodeBench: rows to test cases, and what its solutions may take for given.

Field names as published (`code_generation_lite`): test cases are JSON, private
ones also zlib-compressed, pickled and base64-encoded.
"""

from __future__ import annotations

import ast
import base64
import binascii
import functools
import importlib
import io
import json
import pickle
import types
from typing import Any
import warnings
import zlib

# An archive of tests is a few MB; a bomb is stopped here.
_MAX_BYTES = 256 << 20

# What chat models are told before the question, word for word.
SYSTEM_MESSAGE = (
  'You are an expert Python programmer. You will be given a question (problem '
  'specification) and will generate a correct Python program that matches the '
  'specification and passes all tests.'
)
# Modules whose names its solutions use without an import, in the order in which
# the harness takes them: builtins come late and win over `pow` of math.
_MODULES = (
  'string re datetime collections heapq bisect copy math random statistics '
  'itertools functools operator io sys json builtins typing'
).split()
_RECURSION_LIMIT = 50_000
# With these a program can reach names that its text does not show.
_DYNAMIC = frozenset(('eval', 'exec', 'globals', 'locals', 'vars', 'compile'))


@functools.cache
def _exports() -> dict[str, str]:
  """Names of the modules to the module that they are taken from."""
  found = {}
  for name in _MODULES:
    module: types.ModuleType = importlib.import_module(name)
    public = [n for n in dir(module) if not n.startswith('_')]
    found |= dict.fromkeys(getattr(module, '__all__', public), name)
  return found


def preamble(source: str) -> str:
  """Imports that the harness puts before a solution, as far as it uses them.

  All of them would be most of what a short program costs.
  """
  try:
    with warnings.catch_warnings():
      warnings.simplefilter('ignore')
      tree = ast.parse(source)
  except (SyntaxError, ValueError, RecursionError, MemoryError):
    return ''  # It does not run anyway.
  used = {n.id for n in ast.walk(tree) if isinstance(n, ast.Name)}
  if used & _DYNAMIC:
    lines = [f'from {name} import *' for name in _MODULES]
    modules = _MODULES
  else:
    lines = [
      f'from {module} import {name}'
      for name, module in _exports().items()
      if name in used and name not in _MODULES and module != 'builtins'
    ]
    modules = [name for name in _MODULES if name in used]
  lines += [f'import {name}' for name in modules]
  limit = f'import sys\nsys.setrecursionlimit({_RECURSION_LIMIT})\n'
  return '\n'.join([*lines, limit])


class _TextOnly(pickle.Unpickler):
  """Unpickles text; a pickle that names any class is refused."""

  def find_class(self, module, name):
    raise pickle.UnpicklingError(f'names {module}.{name}')


def _decode(text: str) -> Any:
  try:
    return json.loads(text)
  except json.JSONDecodeError:
    pass
  stream = zlib.decompressobj()
  data = stream.decompress(base64.b64decode(text, validate=True), _MAX_BYTES)
  if stream.unconsumed_tail:
    raise ValueError(f'more than {_MAX_BYTES} bytes')
  return json.loads(_TextOnly(io.BytesIO(data)).load())


def test_cases(where: str, row: dict[str, Any]) -> list[dict[str, str]]:
  """Public and private cases: `{input, output, testtype}`.

  Raises:
    ValueError: naming row and field.
  """
  cases = []
  for name in ('public_test_cases', 'private_test_cases'):
    value = row.get(name) or '[]'
    try:
      found = value if isinstance(value, list) else _decode(value)
      for case in found:
        if case['testtype'] not in ('stdin', 'functional'):
          raise ValueError(f'testtype {case["testtype"]!r}')
        cases.append({k: case[k] for k in ('input', 'output', 'testtype')})
    except (
      ValueError,
      KeyError,
      TypeError,
      binascii.Error,
      zlib.error,
      pickle.UnpicklingError,
      EOFError,
      AttributeError,
    ) as e:
      raise ValueError(
        f'{where}: {name!r} is no list of cases ({e}).'
      ) from None
  if not cases:
    raise ValueError(f'{where}: no test cases.')
  return cases


def functional(
  where: str, row: dict[str, Any], cases: list[dict[str, str]]
) -> tuple[str, list[tuple[list, Any]]]:
  """The function's name and `(arguments, expected)` of each case."""
  try:
    metadata = row.get('metadata') or '{}'
    if isinstance(metadata, str):
      metadata = json.loads(metadata)
    return metadata['func_name'], [
      (
        [json.loads(line) for line in c['input'].split('\n')],
        json.loads(c['output']),
      )
      for c in cases
    ]
  except (ValueError, KeyError, TypeError, AttributeError) as e:
    raise ValueError(
      f'{where}: a functional problem needs metadata.func_name and JSON cases '
      f'({e!r}).'
    ) from None
