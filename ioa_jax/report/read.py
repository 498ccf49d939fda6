"""A run directory to records: every file checked, none required.

A run that is still going on, or that was stopped, has only some of the files.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
import contextlib
import dataclasses
import json
import pathlib
from typing import Any, TypeVar

from ioa_jax.records import (
  Answered,
  Curriculum,
  Diagnosis,
  Event,
  Lesson,
  Results,
  Standing,
  Start,
  parse_event,
)
from ioa_jax.runtime import files
from ioa_jax.teachers.ledger import Ledger, LedgerError

T = TypeVar('T')

# What each file tells, for the sentence that says it is not there yet.
FILES = {
  'config.json': 'is written when the run is started',
  'diagnosis.json': 'is written when teacher and student have been probed',
  'curriculum.json': 'is written when the stages are planned',
  'lessons.jsonl': 'grows as the teacher writes lessons',
  'metrics.jsonl': 'grows as the student trains',
  'results.json': 'is written when the run ends',
}


@dataclasses.dataclass(frozen=True)
class Run:
  """One run as its files tell it; None or () where a file is not there.

  Attributes:
    name: of the directory, without where it lies.
    config_text: the file as it is.
  """

  name: str
  config: Mapping[str, Any] | None
  config_text: str | None
  diagnosis: Diagnosis | None
  curriculum: Curriculum | None
  lessons: tuple[Lesson, ...]
  events: tuple[Event, ...]
  results: Results | None
  answers: tuple[Answered, ...]
  starts: tuple[Start, ...]
  standing: Standing | None
  absent: tuple[str, ...]


def read(workdir: pathlib.Path) -> Run:
  """Reads and checks what there is.

  Raises:
    ValueError: if it is not a run directory, or a file is damaged; names the
      file, and the line or field.
  """
  absent = tuple(name for name in FILES if not (workdir / name).is_file())
  if len(absent) == len(FILES):
    raise ValueError(
      f'{workdir} holds none of {", ".join(FILES)}: it is not a run directory. '
      'Give the --workdir of a run.'
    )
  diagnosis = _record(workdir / 'diagnosis.json', Diagnosis.from_json)
  _check_edges(diagnosis, workdir / 'diagnosis.json')
  config_text = _text(workdir / 'config.json')
  return Run(
    name=workdir.resolve().name,
    config=_config(config_text, workdir / 'config.json'),
    config_text=config_text,
    diagnosis=diagnosis,
    curriculum=_record(workdir / 'curriculum.json', Curriculum.from_json),
    lessons=_lines(workdir / 'lessons.jsonl', Lesson.from_json),
    events=_lines(workdir / 'metrics.jsonl', parse_event),
    results=_record(workdir / 'results.json', Results.from_json),
    answers=_lines(workdir / 'answers.jsonl', Answered.from_json),
    starts=_lines(workdir / 'starts.jsonl', Start.from_json),
    standing=_record(workdir / 'standing.json', Standing.from_json),
    absent=absent,
  )


def requests(workdir: pathlib.Path, keys: Iterable[str]) -> dict[str, str]:
  """The prompts behind lessons, by key; without those that are not known."""
  try:
    ledger = Ledger(workdir / 'ledger.sqlite', read_only=True)
  except LedgerError:
    return {}  # A report of what there is: the ledger may lie elsewhere.
  with contextlib.closing(ledger):
    found = {key: ledger.request(key) for key in keys}
  return {
    key: '\n\n'.join(filter(None, [asked.get('system'), asked['prompt']]))
    for key, asked in found.items()
    if asked is not None
  }


def _check_edges(diagnosis: Diagnosis | None, path: pathlib.Path) -> None:
  for index, edge in enumerate(diagnosis.dependency.edges if diagnosis else ()):
    for end, name in (('from', edge.source), ('to', edge.target)):
      if name not in diagnosis.modules:
        raise ValueError(
          f'{path}: dependency.edges[{index}].{end} is {name!r}, which is '
          'not one of modules.'
        )


def _text(path: pathlib.Path) -> str | None:
  if not path.is_file():
    return None
  return files.read_text(path)


def _config(text: str | None, path: pathlib.Path) -> Any:
  """The configuration as it is: of any version, and perhaps edited since."""
  if text is None:
    return None
  try:
    value = json.loads(text)
  except (json.JSONDecodeError, RecursionError) as e:
    raise ValueError(f'{path}: not JSON ({e}); the file is damaged.') from None
  if not isinstance(value, dict):
    raise ValueError(f'{path}: the value is no object; the file is damaged.')
  return value


def _record(path: pathlib.Path, make: Callable[[str, str], T]) -> T | None:
  text = _text(path)
  return None if text is None else make(text, str(path))


def _lines(path: pathlib.Path, make: Callable[[str, str], T]) -> tuple[T, ...]:
  # Not splitlines: U+2028 and its kind are legal inside a JSON string.
  lines = (_text(path) or '').split('\n')
  return tuple(
    make(line, f'{path} line {i}')
    for i, line in enumerate(lines, 1)
    if line.strip()
  )
