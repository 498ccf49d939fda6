"""Run directories that a report must show well: good, bad, unfinished, text,
and one of thirty modules. Each is `synthetic_run`, changed."""

from __future__ import annotations

import pathlib
from typing import Any

from ioa_jax.evaluation.intervals import wilson
from tests import synthetic_run

START = {
  'date': '2026-11-28T12:00:00+00:00',
  'command': 'python scripts/distill.py --config=configs/quickstart.py '
  '--workdir=runs/quickstart --config.gate.tau_mastery=0.95',
  'commit': 40 * 'a',
  'versions': {'ioa_jax': '0.1.0', 'python': '3.11.7', 'jax': '0.10.2'},
  'devices': '4 x NVIDIA H100',
  'processes': 1,
}
STANDING = {
  'state': 'finished',
  'date': '2026-11-28T13:30:00+00:00',
  'phase': 'writing the student',
  'why': '',
  'elapsed_seconds': 751.3,
  'left_seconds': None,
}
_STORY = (
  'Mrs Osei sells mangoes at the market. On Monday she fills {n} baskets with '
  'eight mangoes each and gives three mangoes to her neighbour, who has helped '
  'her to carry them. How many mangoes does she have left to sell, if two of '
  'those that remain fall from the table and are spoilt? '
)
_PROMPT = (
  'You write lessons for a student who is weak in multiplication.\n\n'
  'Example problem: ' + _STORY.format(n=5) + '\n\nWrite one more, worked out '
  'in steps that open with First, Next, Finally; plain words, short sentences.'
)


def good(path: pathlib.Path) -> dict[str, Any]:
  """A finished run that says who did it, where it stands, what it cost."""
  files = synthetic_run.write(path)
  supplies = [e for e in files['metrics.jsonl'] if e['event'] == 'supply']
  bridged = [e for e in supplies if e['kind'] == 'stage' and e['stage'] > 1]
  for event in bridged:
    event['kind'] = 'bridging'
  lessons = [
    {'module': m, 'stage': e['stage'], 'kind': e['kind'], 'usd': 0.125}
    for e in supplies
    for m in e['modules']
  ]
  total = 0.125 * len(lessons) + 0.5
  files['results.json']['money'] = {
    'total_usd': total,
    'other_usd': 0.5,
    'lessons': lessons,
  }
  files['starts.jsonl'] = [START]
  files['standing.json'] = dict(STANDING)
  synthetic_run.save(path, files)
  return files


def bad(path: pathlib.Path) -> dict[str, Any]:
  """The student is worse than it was."""
  files = good(path)
  results = files['results.json']
  for m in results['modules'].values():
    m['before'], m['after'] = m['after'], m['before']
    m['ci95'] = list(wilson(round(m['after'] * m['n']), m['n']))
  student = results['student']
  student['score_before'], student['score_after'] = (
    student['score_after'],
    student['score_before'],
  )
  results['retention'] = student['score_after'] / results['teacher']['score']
  results['verdict'] = {
    'kind': 'worse',
    'difference': student['score_after'] - student['score_before'],
    'ci95': [-0.62, -0.5],
    'fallen': [k for k, m in results['modules'].items() if m['after'] < 0.5],
  }
  synthetic_run.save(path, files)
  return files


def unfinished(path: pathlib.Path, state: str = 'failed') -> dict[str, Any]:
  """It has come to the third stage, and is running, stopped or failed."""
  files = good(path)
  del files['results.json']
  (path / 'results.json').unlink()
  files['metrics.jsonl'] = [
    e for e in files['metrics.jsonl'] if e['step'] < 500
  ]
  why = {
    'failed': 'teacher budget: the next call could cross max_usd 2.',
    'stopped': 'SIGTERM',
    'running': '',
  }[state]
  files['standing.json'] |= {
    'state': state,
    'phase': 'writing lessons',
    'why': why,
    'left_seconds': 1260.0 if state == 'running' else None,
  }
  synthetic_run.save(path, files)
  return files


def text(path: pathlib.Path) -> dict[str, Any]:
  """Prose of a served teacher: long problems, steps, wrong answers."""
  files = good(path)
  results = files['results.json']
  results['teacher'] |= {'name': 'a-hosted-model', 'params': None}
  for i, lesson in enumerate(files['lessons.jsonl']):
    lesson['problem'] = _STORY.format(n=i + 2)
    steps = [
      f'First, find how many mangoes there are: {i + 2} x 8 = {8 * (i + 2)}.',
      'Next, take away the three that she gives to her neighbour.',
      'Finally, take away the two that are spoilt.',
    ]
    lesson['completion'] = '\n'.join(steps)
    lesson['solution'] |= {'steps': steps, 'final_answer': f'{8 * i + 11}'}
    lesson['adapter_flags'] |= {'decomposition': True, 'concretization': True}
  for wrong in files['diagnosis.json']['wrong_answers'].values():
    for w in wrong:
      w |= {'prompt': _STORY.format(n=7), 'student': 'She has 7 x 8 = 54.'}
  synthetic_run.save(path, files)
  return files


def wide(path: pathlib.Path) -> dict[str, Any]:
  """Thirty modules, with names as long as people give them."""
  files = good(path)
  names = synthetic_run.NAMES
  more = [f'{n}_of_several_quantities' for n in names] + [
    f'{n}_in_words' for n in names[:6]
  ]
  copies: dict[str, list[str]] = {}
  for copy in more:
    first = copy.removesuffix('_of_several_quantities')
    copies.setdefault(first.removesuffix('_in_words'), []).append(copy)
  files = {k: _widened(v, copies) for k, v in files.items()}
  synthetic_run.save(path, files)
  return files


def _widened(value: Any, copies: dict[str, list[str]]) -> Any:
  """Every module's value for its copies as well."""
  if isinstance(value, list):
    found = [_widened(v, copies) for v in value]
    if value and all(isinstance(v, str) for v in value):
      found += [c for v in value for c in copies.get(v, ())]
    for one in value:
      if isinstance(one, dict) and one.get('module') in copies:
        found += [{**one, 'module': c} for c in copies[one['module']]]
      if isinstance(one, dict) and one.get('to') in copies:
        found += [{**one, 'to': c} for c in copies[one['to']]]
    return found
  if isinstance(value, dict):
    found = {k: _widened(v, copies) for k, v in value.items()}
    for name in [k for k in value if k in copies]:
      found |= {copy: found[name] for copy in copies[name]}
    return found
  return value


KINDS = {
  'good': good,
  'bad': bad,
  'unfinished': unfinished,
  'text': text,
  'wide': wide,
}
