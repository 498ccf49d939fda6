"""What a JSON file must look like, and where it does not.

A shape is plain data: a type, a `{field: shape}` dict, a one-element list, or
one of the small records below. `check` raises at the first difference and names
the field, so that nothing half-valid reaches a chart.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any


@dataclasses.dataclass(frozen=True)
class MapOf:
  """An object with free keys, such as module names."""

  value: Any


@dataclasses.dataclass(frozen=True)
class OneOf:
  """One of these strings."""

  values: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class Maybe:
  """null is allowed; with `absent`, so is leaving the field out."""

  value: Any
  absent: bool = False


@dataclasses.dataclass(frozen=True)
class Loose:
  """A number that may be NaN or infinite: what a failed step reports."""


@dataclasses.dataclass(frozen=True)
class Counts:
  """`{"correct": number, "n": int}` with 0 <= correct <= n."""


@dataclasses.dataclass(frozen=True)
class Interval:
  """`[low, high]` with low <= high."""


_NAMES = {
  str: 'a string', int: 'a whole number', float: 'a number', dict: 'an object',
  bool: 'true or false', list: 'a list',
}  # fmt: skip


def check(value: Any, shape: Any, where: str) -> None:
  """Checks `value` against `shape`; unknown extra fields are allowed.

  Args:
    where: file, and line if there is one; the field is added to it.

  Raises:
    ValueError: `where: field.path is X, wanted Y`.
  """
  _check(value, shape, where, '')


def _check(value, shape, where, path):
  wanted = None
  if isinstance(shape, Maybe):
    if value is not None:
      _check(value, shape.value, where, path)
  elif isinstance(shape, dict):
    _of_type(value, dict, where, path)
    for name, child in shape.items():
      if name in value:
        _check(value[name], child, where, _join(path, name))
      elif not (isinstance(child, Maybe) and child.absent):
        raise ValueError(
          f'{where}: field {_join(path, name)} is missing; the file is damaged '
          'or was written by another version.'
        )
  elif isinstance(shape, MapOf):
    _of_type(value, dict, where, path)
    for name, child in value.items():
      _check(child, shape.value, where, _join(path, name))
  elif isinstance(shape, list):
    _of_type(value, list, where, path)
    for index, child in enumerate(value):
      _check(child, shape[0], where, f'{path}[{index}]')
  elif isinstance(shape, OneOf):
    if value not in shape.values:
      wanted = 'one of ' + ', '.join(shape.values)
  elif isinstance(shape, Counts):
    _check(value, {'correct': float, 'n': int}, where, path)
    if not 0 <= value['correct'] <= value['n']:
      wanted = '0 <= correct <= n'
  elif isinstance(shape, Interval):
    _check(value, [float], where, path)
    if len(value) != 2 or value[0] > value[1]:
      wanted = '[low, high]'
  elif isinstance(shape, Loose):
    if not _is_number(value):
      wanted = 'a number'
  else:
    _of_type(value, shape, where, path)
  if wanted:
    raise _error(value, wanted, where, path)


def _of_type(value, kind, where, path):
  if kind is float:
    right = _is_number(value) and math.isfinite(value)
  elif kind is int:
    right = isinstance(value, int) and not isinstance(value, bool)
  else:
    right = isinstance(value, kind)
  if not right:
    raise _error(value, _NAMES[kind], where, path)


def _is_number(value):
  # True is an int in Python and never a measurement.
  return isinstance(value, (int, float)) and not isinstance(value, bool)


def _join(path, name):
  return f'{path}.{name}' if path else name


def _error(value, wanted, where, path):
  shown = repr(value)
  shown = shown if len(shown) <= 60 else shown[:57] + '...'
  return ValueError(
    f'{where}: {path or "the value"} is {shown}, wanted {wanted}.'
  )
