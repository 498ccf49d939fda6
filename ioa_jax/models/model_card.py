"""README.md of an exported student: what it is, what it scores, and from what.

Rendered from `results.json` of the run and a small dictionary on the lineage of
its data; nothing is claimed that is not in them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_RESULTS_ROWS = (
  ('score before', 'student', 'score_before'),
  ('score after', 'student', 'score_after'),
  ('score of the teacher', 'teacher', 'score'),
)


def render(
  name: str,
  *,
  results: Mapping[str, Any],
  lineage: Mapping[str, Any],
  base_model: str | None = None,
) -> str:
  """The card as Markdown with the hub's YAML header.

  Args:
    results: of the run, its `results.json`; absent entries are left out.
    lineage: flat, e.g. teacher, seeds, lessons, ledger digest, config digest.
    base_model: hub id of what the student was before, if it is on the hub.
  """
  header = ['library_name: transformers', 'pipeline_tag: text-generation']
  if base_model:
    header.append(f'base_model: {base_model}')
  header += ['tags:', '- distillation', '- ioa_jax']
  teacher = results.get('teacher', {}).get('name')
  lines = ['---', *header, '---', '', f'# {name}', '']
  lines.append(
    'A student distilled'
    + (f' from {teacher}' if teacher else '')
    + ' with ioa_jax: its gaps were measured, ordered, and taught behind a '
    'mastery gate.'
  )
  lines += ['', '## Results', '']
  rows = [
    (label, results[part][field])
    for label, part, field in _RESULTS_ROWS
    if results.get(part, {}).get(field) is not None
  ]
  if results.get('retention') is not None:
    rows.append(('retention (after / teacher)', results['retention']))
  if rows:
    lines += ['| | |', '|---|---|']
    lines += [f'| {label} | {_show(value)} |' for label, value in rows]
  else:
    lines.append('The run recorded no scores.')
  modules = results.get('modules', {})
  if modules:
    lines += [
      '',
      'By module, on held-out probes (95 % interval of the last column):',
      '',
      '| module | probes | teacher | before | after |',
      '|---|---|---|---|---|',
    ]
    for module, m in modules.items():
      interval = m.get('ci95')
      span = f' ({_show(interval[0])}–{_show(interval[1])})' if interval else ''
      lines.append(
        f'| {module} | {m.get("n", "?")} | {_show(m.get("teacher"))} '
        f'| {_show(m.get("before"))} | {_show(m.get("after"))}{span} |'
      )
  lines += ['', '## Data', '']
  lines += [f'- {key}: {_show(value)}' for key, value in lineage.items()] or [
    'The run recorded no lineage.'
  ]
  return '\n'.join(lines) + '\n'


def _show(value: Any) -> str:
  if value is None:
    return '–'
  return f'{value:.3f}' if isinstance(value, float) else str(value)
