"""Rows of files: JSON lines, JSON arrays, CSV, each also gzipped.

Every mistake in a file is one ValueError line that names file and line, so a
half-read benchmark is never scored.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
import csv
import gzip
import io
import json
import pathlib
from typing import Any
import zlib

Row = Mapping[str, Any]


def find(data_dir: pathlib.Path, names: Sequence[str]) -> pathlib.Path:
  """The first of `names` under `data_dir`, as written or gzipped.

  Raises:
    ValueError: naming what was looked for and what the folder holds.
  """
  for name in names:
    for path in (data_dir / name, data_dir / f'{name}.gz'):
      if path.is_file():
        return path
  folder = (data_dir / names[0]).parent
  there = sorted(p.name for p in folder.iterdir()) if folder.is_dir() else None
  raise ValueError(
    f'{data_dir}: none of {", ".join(names)} (or .gz); {folder} '
    + (f'holds {there}.' if there is not None else 'does not exist.')
  )


def _text(path: pathlib.Path) -> str:
  try:
    data = path.read_bytes()
    if path.suffix == '.gz':
      data = gzip.decompress(data)
  except (OSError, EOFError, zlib.error) as e:
    raise ValueError(f'{path}: cannot be read ({e}).') from None
  try:
    return data.decode('utf-8-sig')
  except UnicodeDecodeError as e:
    line = data[: e.start].count(b'\n') + 1
    raise ValueError(
      f'{path}:{line}: byte 0x{data[e.start]:02x} is not UTF-8; convert the '
      'file.'
    ) from None


def _rows(path: pathlib.Path) -> Iterator[tuple[int, Any]]:
  """Rows with the line (for an array: the number) of each."""
  text = _text(path)
  name = path.name.removesuffix('.gz')
  if name.endswith('.csv'):
    # A field may be as long as the file; the limit is for all of Python.
    csv.field_size_limit(max(csv.field_size_limit(), len(text)))
    reader = csv.DictReader(io.StringIO(text, newline=''), strict=True)
    try:
      for row in reader:
        yield reader.line_num, row
    except csv.Error as e:
      raise ValueError(f'{path}:{reader.line_num}: not CSV ({e}).') from None
    return
  if text.lstrip().startswith('['):
    try:
      yield from enumerate(json.loads(text), 1)
    except json.JSONDecodeError as e:
      raise ValueError(f'{path}:{e.lineno}: not JSON ({e.msg}).') from None
    except (RecursionError, ValueError) as e:  # Numbers of endless digits.
      raise ValueError(f'{path}: not JSON ({e}).') from None
    return
  # Not splitlines: JSON strings may hold U+2028 and the like.
  for number, line in enumerate(text.split('\n'), 1):
    if not line.strip():
      continue
    try:
      yield number, json.loads(line)
    except (ValueError, RecursionError) as e:
      raise ValueError(
        f'{path}:{number}: not JSON ({getattr(e, "msg", e)}): {line[:60]!r}.'
      ) from None


def read(
  path: pathlib.Path, columns: Sequence[str | tuple[str, ...]]
) -> list[tuple[str, Row]]:
  """All rows, each with its place in the file (for later messages).

  Args:
    columns: what every row must have; a tuple names alternatives.

  Raises:
    ValueError: for a malformed, empty or mismatching file.
  """
  return checked(str(path), _rows(path), columns)


def checked(
  source: str,
  numbered: Iterable[tuple[int, Any]],
  columns: Sequence[str | tuple[str, ...]],
) -> list[tuple[str, Row]]:
  """Rows with their places, each an object with `columns`; see `read`."""
  rows = []
  for number, row in numbered:
    where = f'{source}:{number}'
    if not isinstance(row, dict):
      raise ValueError(
        f'{where}: a row must be an object, not {type(row).__name__}.'
      )
    for column in columns:
      names = (column,) if isinstance(column, str) else column
      if not any(n in row for n in names):
        raise ValueError(
          f'{where}: no column {" or ".join(map(repr, names))}; there is '
          f'{sorted(map(str, row))}.'
        )
    rows.append((where, row))
  if not rows:
    raise ValueError(f'{source}: no rows.')
  return rows


def text_field(where: str, row: Row, *names: str) -> str:
  """The first of `names` that is there, as text.

  Raises:
    ValueError: if it is of another type or empty.
  """
  name = next((n for n in names if row.get(n) is not None), names[0])
  value = row.get(name)
  if not isinstance(value, str) or not value.strip():
    raise ValueError(
      f'{where}: {name!r} must be text, not {type(value).__name__} '
      f'{str(value)[:40]!r}.'
    )
  return value


def list_field(where: str, row: Row, name: str) -> list[str]:
  value = row[name]
  if (
    not isinstance(value, list)
    or not value
    or not all(isinstance(v, str) for v in value)
  ):
    raise ValueError(
      f'{where}: {name!r} must be a list of texts, not {str(value)[:40]!r}.'
    )
  return value
