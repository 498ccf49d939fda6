"""How much of a teacher's score a student has, where both are comparable."""

from __future__ import annotations

from collections.abc import Mapping
import json
import pathlib
from typing import Any

from ioa_jax.runtime import files

RESULTS = 'results.json'
# Of how a score was measured, what must be the same for both. Weights that are
# here have a dtype, and a served model's is not known.
_CONDITIONS = ('prompt', 'shots', 'examples_sha256', 'items', 'metric')


def read_results(folder: pathlib.Path) -> dict[str, Any]:
  """Results of benchmarks by name.

  Raises:
    ValueError: if there are none, or they are damaged.
  """
  path = folder / RESULTS
  if not path.exists():
    raise ValueError(f'{path}: no such file; score the teacher there first.')
  try:
    return dict(json.loads(files.read_text(path))['benchmarks'])
  except (ValueError, TypeError, KeyError) as e:
    raise ValueError(
      f'{path}: is damaged ({e!r}); delete it. Every benchmark that is '
      'named again is scored from the answers beside it.'
    ) from None


def require_comparable(
  benchmark: str,
  student: Mapping[str, Any],
  teacher: Mapping[str, Any] | None,
  folder: pathlib.Path,
) -> None:
  """Raises ValueError, naming what differs, if a ratio would mean nothing.

  Args:
    student, teacher: results, of the former at least how it is measured; None
      if the teacher has none.
    folder: of the teacher's scores.
  """
  if teacher is None:
    raise ValueError(
      f'{folder / RESULTS}: has no score of {benchmark}; score the teacher on '
      'it there first.'
    )
  try:
    there, here = _measured(teacher), _measured(student)
    float(teacher['score'])
  except (KeyError, TypeError, AttributeError, ValueError) as e:
    raise ValueError(
      f'{folder / RESULTS}: {benchmark} is damaged ({e!r}); score the teacher '
      'on it again.'
    ) from None
  if differ := [k for k in here if here[k] != there.get(k)]:
    shown = '; '.join(f'{k} {there.get(k)!r} and {here[k]!r}' for k in differ)
    raise ValueError(
      f'{benchmark}: teacher and student are not asked alike, so their ratio '
      f'means nothing ({shown}). Score both with the same flags and files.'
    )


def _measured(result: Mapping[str, Any]) -> dict[str, Any]:
  decoding = {k: v for k, v in result['decoding'].items() if k != 'dtype'}
  # Files are compared by content; they may lie elsewhere.
  contents = {'files': sorted(result['files'].values())}
  return {k: result[k] for k in _CONDITIONS} | decoding | contents


def of(
  student: Mapping[str, Any], teacher: Mapping[str, Any]
) -> dict[str, Any]:
  """The ratio, None where the teacher scored nothing, and of whose score."""
  score = float(teacher['score'])
  return {
    'retention': student['score'] / score if score > 0 else None,
    'teacher_score': score,
    'teacher': teacher['model'],
  }
