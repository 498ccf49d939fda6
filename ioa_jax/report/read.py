"""A run directory to plain values: every file checked, none required.

This is the contract of the run directory as far as a reader is concerned. A run
that is still going on, or that was stopped, has only some of the files.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
import dataclasses
import json
import pathlib
from typing import Any

from ioa_jax.records import Lesson
from ioa_jax.report.shapes import (
  Counts,
  Interval,
  Loose,
  MapOf,
  Maybe,
  OneOf,
  check,
)

STATUSES = ('known', 'deficient', 'target', 'unteachable')
DECISIONS = ('stay', 'advance', 'remediate', 'stall')
OUTCOMES = ('mastered', 'unmastered', 'untaught', 'not_reached')

# What each file tells, for the sentence that says it is not there yet.
FILES = {
  'config.json': 'is written when the run is started',
  'diagnosis.json': 'is written when teacher and student have been probed',
  'curriculum.json': 'is written when the stages are planned',
  'lessons.jsonl': 'grows as the teacher writes lessons',
  'metrics.jsonl': 'grows as the student trains',
  'results.json': 'is written when the run ends',
}

_STAGE = {'modules': [str], 'kind': str}

_DIAGNOSIS = {
  'domain': str,
  'modules': MapOf(
    {
      'description': str,
      'prerequisites': [str],
      'level': int,
      'teacher': Counts(),
      'student': Counts(),
      'student_loss': Maybe(float, absent=True),
      'teacher_loss': Maybe(float, absent=True),
      'teacher_ci95': Maybe(Interval(), absent=True),
      'student_ci95': Maybe(Interval(), absent=True),
      'gap': Maybe(float),
      'severity': Maybe(float),
      'status': OneOf(STATUSES),
    }
  ),
  'dependency': {
    'source': str,
    'note': Maybe(str, absent=True),
    'edges': [{'from': str, 'to': str, 'strength': Maybe(float)}],
    'removed': Maybe([{'from': str, 'to': str}], absent=True),
    'graphs': Maybe(
      MapOf(
        {
          'edges': [{'from': str, 'to': str, 'strength': Maybe(float)}],
          'removed': [{'from': str, 'to': str}],
          'undefined': int,
        }
      ),
      absent=True,
    ),
    'agreement': Maybe(
      [{'first': str, 'second': str, 'f1': Maybe(float), 'hits': int}],
      absent=True,
    ),
  },
  'thresholds': MapOf(float),
  'wrong_answers': MapOf([{'prompt': str, 'answer': str, 'student': str}]),
}

_CURRICULUM = {
  'stages': [
    {**_STAGE, 'readiness': float, 'max_steps': int, 'remedial_steps': int}
  ],
  'zpd': {
    'mode': str,
    'tau': float,
    'response': Maybe(str, absent=True),
    'checks': [
      {'before': float, 'after': float, 'limit': float, 'holds': bool}
    ],
  },
  'rehearsed': [str],
  'total_steps': int,
}

_SUM = {'sum': float, 'n': int}

_EVENTS = {
  'train': {
    'step': int,
    'stage': int,
    'train/loss': Loose(),
    'train/tokens': int,
  },
  'probe': {
    'step': int,
    'stage': int,
    'round': int,
    'decision': OneOf(DECISIONS),
    'scores': MapOf(Counts()),
    'reopened': Maybe([str], absent=True),
  },
  'supply': {
    'step': int,
    'stage': int,
    'kind': str,
    'modules': [str],
    'lessons': int,
    'rejected': MapOf(int),
    'untaught': Maybe([str], absent=True),
    'teacher_tokens': int,
    # Of lessons and of the seeds that they were written from.
    'measures': Maybe(
      {'seeds': MapOf(_SUM), 'lessons': MapOf(_SUM)}, absent=True
    ),
  },
  # What the student wrote, for the teacher to score.
  'own_texts': {'step': int, 'texts': int, 'tokens': int},
}

_RESULTS = {
  'teacher': {'name': str, 'params': Maybe(int), 'score': float},
  'student': {
    'name': str,
    'params': int,
    'score_before': float,
    'score_after': float,
  },
  'retention': float,
  'modules': MapOf(
    {
      'teacher': float,
      'before': float,
      'after': float,
      'ci95': Interval(),
      'n': int,
      # Nats per token of the reference answers.
      'loss_before': Maybe(float, absent=True),
      'loss_after': Maybe(float, absent=True),
    }
  ),
  'stages': [
    {
      **_STAGE,
      'untaught': Maybe([str], absent=True),
      'steps': int,
      'remedial_rounds': int,
      'outcome': OneOf(OUTCOMES),
    }
  ],
  'forgetting': [
    {'after_stage': int, 'step': int, 'scores': MapOf(Maybe(float))}
  ],
  'tokens': {
    'student_train': int,
    'teacher_generated': int,
    'teacher_cached': int,
    'teacher_scored': Maybe(int, absent=True),
    'student_inferred': Maybe(int, absent=True),
    'panel': Maybe(int, absent=True),
  },
  'lessons': int,
  'compilations': int,
  'seconds': MapOf(float),
  'config_sha256': str,
  'seed': int,
  'command': Maybe(str, absent=True),
}

_LESSON = {
  'module': str,
  'prereq': [str],
  'difficulty_tag': str,
  'problem': str,
  'completion': str,
  'solution': {'steps': [str], 'final_answer': str, 'verification': str},
  'adapter_flags': {
    'concretization': bool,
    'decomposition': bool,
    'cognitive_load': {'scale': str, 'notes': str},
    'format_template': bool,
    'simplified_language': bool,
  },
  'metadata': {'kind': str},
}


@dataclasses.dataclass(frozen=True)
class Run:
  """One run as its files tell it; None or () where a file is not there.

  Attributes:
    name: of the directory, without where it lies.
    config_text: the file as it is, because its hash is the run's identity.
  """

  name: str
  config: Mapping[str, Any] | None
  config_text: str | None
  diagnosis: Mapping[str, Any] | None
  curriculum: Mapping[str, Any] | None
  lessons: tuple[Lesson, ...]
  events: tuple[Mapping[str, Any], ...]
  results: Mapping[str, Any] | None
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
  config_text = _text(workdir / 'config.json')
  diagnosis = _object(workdir / 'diagnosis.json', _DIAGNOSIS)
  _check_edges(diagnosis, workdir / 'diagnosis.json')
  return Run(
    name=workdir.resolve().name,
    config=_object(workdir / 'config.json', {}),
    config_text=config_text,
    diagnosis=diagnosis,
    curriculum=_object(workdir / 'curriculum.json', _CURRICULUM),
    lessons=_lines(workdir / 'lessons.jsonl', _lesson),
    events=_lines(workdir / 'metrics.jsonl', _event),
    results=_object(workdir / 'results.json', _RESULTS),
    absent=absent,
  )


def _check_edges(diagnosis, path):
  for index, edge in enumerate(
    diagnosis['dependency']['edges'] if diagnosis else []
  ):
    for end in ('from', 'to'):
      if edge[end] not in diagnosis['modules']:
        raise ValueError(
          f'{path}: dependency.edges[{index}].{end} is {edge[end]!r}, which is '
          'not one of modules.'
        )


def _text(path: pathlib.Path) -> str | None:
  if not path.is_file():
    return None
  try:
    return path.read_text(encoding='utf-8')
  except UnicodeDecodeError as e:
    raise ValueError(
      f'{path}: not UTF-8 text at byte {e.start}; the file is damaged.'
    ) from None


def _parse(text: str, where: str) -> Any:
  try:
    return json.loads(text)
  except (json.JSONDecodeError, RecursionError) as e:
    raise ValueError(f'{where}: not JSON ({e}); the file is damaged.') from None


def _object(path: pathlib.Path, shape) -> Any:
  text = _text(path)
  if text is None:
    return None
  value = _parse(text, str(path))
  check(value, shape, str(path))
  return value


def _lines(path: pathlib.Path, make: Callable[[Any, str], Any]) -> tuple:
  # Not splitlines: U+2028 and its kind are legal inside a JSON string.
  lines = (_text(path) or '').split('\n')
  return tuple(
    make(_parse(line, f'{path} line {i}'), f'{path} line {i}')
    for i, line in enumerate(lines, 1)
    if line.strip()
  )


def _lesson(value: Any, where: str) -> Lesson:
  check(value, _LESSON, where)
  try:
    return Lesson.from_dict(value)
  except ValueError as e:
    raise ValueError(f'{where}: {e}') from None


def _event(value: Any, where: str) -> Mapping[str, Any]:
  check(value, {'event': OneOf(tuple(_EVENTS))}, where)
  check(value, _EVENTS[value['event']], where)
  return value
