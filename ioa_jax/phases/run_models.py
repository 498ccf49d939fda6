"""The models of a run directory: its student, and whom it can stand beside."""

from __future__ import annotations

import dataclasses
import json
import pathlib
from typing import Any

from ioa_jax import people
from ioa_jax.evaluation import benchmarks, final_answers
from ioa_jax.evaluation import own_items as items_lib
from ioa_jax.identifier import seed_columns
from ioa_jax.models import hub
from ioa_jax.records.results import NOT_BETTER
from ioa_jax.runtime import files, row_files, rundir


@dataclasses.dataclass(frozen=True)
class Speaker:
  """A model that can be talked to.

  Attributes:
    role: 'teacher', 'base' or 'student'.
    model: a directory or hub id.
    adapter: a LoRA directory to put over it, or None.
  """

  role: str
  model: str
  adapter: str | None = None


def find(path: str) -> pathlib.Path | None:
  """The run directory that `path` is, or None if it is none.

  Of a run in rounds it is the last round that has a student.
  """
  directory = pathlib.Path(path).expanduser()
  if _config(directory) is not None:
    return directory
  rounds = sorted(
    (p for p in directory.glob('round-*') if p.name[6:].isdecimal()),
    key=lambda p: int(p.name[6:]),
    reverse=True,
  )
  taught = [p for p in rounds if any(_exported(p, 'student'))]
  return next((p for p in taught if _config(p) is not None), None)


def student(run: pathlib.Path) -> Speaker:
  """RUN/student, or RUN/adapter over the base that it was trained on.

  One that is not better than its base has that in its name, see
  `records.Results.suffix`; who asks for the run's student means it too.

  Raises:
    ValueError: if the run has not come so far.
  """
  if found := _exported(run, 'student'):
    return Speaker('student', str(found[0]))
  if found := _exported(run, 'adapter'):
    return Speaker('student', _model(run, 'student'), str(found[0]))
  raise ValueError(
    f'{run} has neither student/ nor adapter/: the run is not finished. The '
    'command that began it continues it.'
  )


def speakers(run: pathlib.Path) -> tuple[list[Speaker], list[str]]:
  """Teacher, base and student; and a line on each that is not on this machine.

  Raises:
    ValueError: as `student`.
  """
  config = _config(run) or {}
  found, missing = [], []
  if config['teacher'].get('kind') not in ('local', None):
    kind = config['teacher']['kind']
    missing.append(f'The teacher is {kind!r}, and not on this machine.')
  else:
    _add('teacher', run, found, missing)
  _add('base', run, found, missing)
  return [*found, student(run)], missing


def _add(role: str, run, found: list[Speaker], missing: list[str]) -> None:
  model = _model(run, 'student' if role == 'base' else role)
  directory = hub.here(model)
  if directory is None:
    missing.append(f'The {role}, {model}, is not on this machine.')
  else:
    found.append(Speaker(role, str(directory)))


def _model(run: pathlib.Path, role: str) -> str:
  config = _config(run) or {}
  model = config[role].get('model')
  if model == 'builtin':
    kind = config.get('domain', {}).get('kind')
    return str(people.ASSETS.parent / str(kind) / role)
  if not isinstance(model, str) or not model:
    raise ValueError(
      f'{run / rundir.CONFIG}: no {role}.model; the file is damaged.'
    )
  return model


def _exported(run: pathlib.Path, what: str) -> list[pathlib.Path]:
  places = (run / what, run / f'{what}{NOT_BETTER}')
  return [
    p for p in places if _is_model(p) or (what == 'adapter' and p.is_dir())
  ]


def _is_model(directory: pathlib.Path) -> bool:
  return (directory / 'config.json').is_file()


def _config(directory: pathlib.Path) -> dict[str, Any] | None:
  """A run's configuration; a model's config.json is another file."""
  path = directory / rundir.CONFIG
  if not path.is_file():
    return None
  try:
    value = json.loads(files.read_text(path))
  except (json.JSONDecodeError, RecursionError):
    return None
  of_run = isinstance(value, dict) and all(
    isinstance(value.get(role), dict) for role in ('teacher', 'student')
  )
  return value if of_run else None


def own_items(run: pathlib.Path, path: pathlib.Path) -> benchmarks.Benchmark:
  """A file of problems, read and graded as the run's own.

  Columns that the file does not call as the run's seeds do are recognised.

  Raises:
    ValueError: if the run has no domain of text, or the file no answers.
  """
  config = _config(run) or {}
  domain = config.get('domain', {})
  grader = domain.get('grader')
  if domain.get('kind') != 'text' or grader not in final_answers.KINDS:
    raise ValueError(
      f'{run}: --items is for runs of text with a grader of '
      f'{", ".join(final_answers.KINDS)}; this one has domain.kind '
      f'{domain.get("kind")!r} and domain.grader {grader!r}.'
    )
  rows = row_files.read(path, ())
  there = {name for _, row in rows for name in row}
  named = {k: v for k, v in domain['columns'].items() if v in there}
  named['module'] = ''
  columns = seed_columns.recognise(rows, named, grader).columns
  if not columns['answer'] and not columns['solution']:
    raise ValueError(
      f'{path}: no column is known to hold answers; there is {sorted(there)}.'
    )
  return items_lib.benchmark(
    path, columns, grader, config['student']['max_tokens']
  )
