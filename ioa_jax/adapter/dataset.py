"""Lessons as a data set that any trainer takes: messages with their lineage."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
import json
import pathlib
from typing import Any

from ioa_jax.records import Lesson
from ioa_jax.runtime import files

FILE = 'lessons_messages.jsonl'
SAVED = 'hf_dataset'


def row(lesson: Lesson) -> dict[str, Any]:
  """One example: `messages` is what trainers read, the rest is lineage."""
  return {
    'messages': [
      {'role': 'user', 'content': lesson.problem},
      {'role': 'assistant', 'content': lesson.completion},
    ],
    'module': lesson.module,
    'prereq': list(lesson.prereq),
    'difficulty_tag': lesson.difficulty_tag,
    'final_answer': lesson.solution['final_answer'],
    'verification': lesson.solution['verification'],
    'kind': lesson.metadata['kind'],
    'stage': lesson.metadata['stage_id'],
    'seed_problem': lesson.metadata['seed_style_ref'],
    'teacher': lesson.metadata['teacher'],
    'request': lesson.metadata['request'],
  }


def write(
  directory: pathlib.Path,
  lessons: Sequence[Lesson],
  *,
  lineage: Mapping[str, Any],
  rejected: Mapping[str, int],
) -> None:
  """Writes `directory`: JSON lines, a saved `datasets.Dataset`, a data card.

  The directory is there whole or not at all; an older one is replaced.

  Args:
    lineage: flat, for the card: domain, teacher, config digest, and so on.
    rejected: reason to number of lessons that were left out.
  """
  import datasets  # Takes a second.

  rows = [row(lesson) for lesson in lessons]
  with files.whole(directory) as temporary:
    temporary.mkdir(parents=True)
    (temporary / FILE).write_text(
      ''.join(json.dumps(r, ensure_ascii=False) + '\n' for r in rows),
      encoding='utf-8',
    )
    datasets.Dataset.from_list(rows).save_to_disk(str(temporary / SAVED))
    (temporary / 'README.md').write_text(
      card(lessons, lineage=lineage, rejected=rejected), encoding='utf-8'
    )


def card(
  lessons: Sequence[Lesson],
  *,
  lineage: Mapping[str, Any],
  rejected: Mapping[str, int],
) -> str:
  """The data card as Markdown with the hub's YAML header."""
  modules = Counter(lesson.module for lesson in lessons)
  kinds = Counter(lesson.metadata['kind'] for lesson in lessons)
  # The tests of code follow, of each lesson its own.
  checks = Counter(
    lesson.solution['verification'].partition('\n')[0].rstrip(':')
    for lesson in lessons
  )
  lines = [
    '---',
    'task_categories:',
    '- text-generation',
    'tags:',
    '- synthetic',
    '- distillation',
    '- ioa_jax',
    'configs:',
    '- config_name: default',
    f'  data_files: {FILE}',
    '---',
    '',
    f'# Lessons: {lineage["domain"]}',
    '',
    'Written by a teacher model for the gaps of one student, in the order of '
    'a curriculum, and kept only where the answer was confirmed. Synthetic '
    'text: the terms of the teacher and of the seeds apply to it.',
    '',
    '## Origin',
    '',
    *(f'- {key}: {value}' for key, value in lineage.items()),
    '',
    '## Content',
    '',
    f'`{FILE}` holds one example a line, `{SAVED}/` the same for '
    '`datasets.load_from_disk`. `messages` is the conversation; `request` is '
    "the key of the teacher's answer in the run's ledger.sqlite.",
    '',
    f'{len(lessons)} lessons: '
    + ', '.join(f'{n} {kind}' for kind, n in kinds.items())
    + '.',
    '',
    '| module | lessons |',
    '|---|---|',
    *(f'| {name} | {n} |' for name, n in modules.items()),
    '',
    '## Curation',
    '',
    'Confirmed by:',
    '',
    *(f'- {check}: {n}' for check, n in checks.most_common()),
    '',
    'Left out, by reason:',
    '',
    *([f'- {reason}: {n}' for reason, n in rejected.items()] or ['- nothing']),
    '',
  ]
  return '\n'.join(lines)
