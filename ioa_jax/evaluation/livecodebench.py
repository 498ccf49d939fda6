"""LiveCodeBench rows to test cases.

Field names as published (`code_generation_lite`): test cases are JSON, private
ones also zlib-compressed, pickled and base64-encoded.
"""

from __future__ import annotations

import base64
import binascii
import io
import json
import pickle
from typing import Any
import zlib

# An archive of tests is a few MB; a bomb is stopped here.
_MAX_BYTES = 256 << 20


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
      ValueError, KeyError, TypeError, binascii.Error, zlib.error,
      pickle.UnpicklingError, EOFError, AttributeError,
    ) as e:  # fmt: skip
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
      ([json.loads(line) for line in c['input'].split('\n')],
       json.loads(c['output']))
      for c in cases
    ]  # fmt: skip
  except (ValueError, KeyError, TypeError, AttributeError) as e:
    raise ValueError(
      f'{where}: a functional problem needs metadata.func_name and JSON cases '
      f'({e!r}).'
    ) from None
