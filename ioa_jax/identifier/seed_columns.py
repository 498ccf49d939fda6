"""What a file of seeds holds: which column is what, how answers compare.

Names of columns are a first guess. What decides is whether the graders read
what the columns hold, the strictest grader first.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
import dataclasses
import re
from typing import Any

import ml_collections

from ioa_jax.domains import seed_sources, text
from ioa_jax.evaluation import code_grading, final_answers, graders
from ioa_jax.records import Seed

# What people call a column, the likeliest first; compared in lower case.
_NAMES = {
  'problem': (
    'problem',
    'question',
    'prompt',
    'instruction',
    'query',
    'exercise',
    'task',
    'text',
    'input',
  ),
  'module': (
    'module',
    'unit',
    'topic',
    'tag',
    'skill',
    'category',
    'subject',
    'type',
  ),
  # Final answers and worked ones go by the same names. Code alone is none: it
  # is graded by tests.
  'answer': (
    'answer',
    'final_answer',
    'label',
    'target',
    'gold',
    'solution',
    'worked',
    'rationale',
    'explanation',
    'output',
    'response',
    'completion',
    'reference',
  ),
}
_TRIED = 200  # Answers that graders are tried on.
_MOST = 0.9  # Share that a grader has to read.
_SEEDS_PER_TAG = 4  # With fewer to a tag on average it is none.
_FORMULA = re.compile(
  r'.*(?:\\[a-zA-Z]|[\^=])|[-+*/(). \d]*\d[a-z]?[-+*/(). \d]*$'
)
# A worked answer that says where its number is; prose has numbers as well.
_STATES_NUMBER = re.compile(
  r'(?i)####|\\boxed|\banswer\b|\d\S*(?:\s+\S+){0,2}$'
)


class Unrecognised(ValueError):
  """No column is known to hold what is needed; says which option names it."""


@dataclasses.dataclass(frozen=True)
class Found:
  """What seeds hold.

  Attributes:
    columns: as `domain.columns`; 'module' is '' without tags, 'solution' and
      'answer' are both '' where the seeds are prompts alone.
    grader: of `final_answers.KINDS`; '' where there are no answers to read.
    reasons: of each column and of the grader, how one could tell.
    unread: other columns.
  """

  columns: Mapping[str, str]
  grader: str
  reasons: Mapping[str, str]
  unread: tuple[str, ...]


def read(
  domain: ml_collections.ConfigDict, given: Mapping[str, str]
) -> seed_sources.Rows:
  """The seeds; of chats the first question and its answer are columns.

  Args:
    domain: settings, of which the columns are not read.
    given: columns that a person has named.

  Raises:
    ValueError: as one line, if they cannot be had.
  """
  get = lambda columns: seed_sources.read(
    domain.source, domain.seeds, domain.split, columns
  )
  rows = get(())
  chats = set(seed_sources.CHATS) & set(rows[0][1])
  return get(('problem',)) if chats and 'problem' not in given else rows


def recognise(
  rows: seed_sources.Rows, given: Mapping[str, str], grader: str = ''
) -> Found:
  """Finds columns and grader.

  Args:
    rows: see `seed_sources.read`; chats with their first turns as columns.
    given: columns that a person has named; '' says that there is none.
    grader: that a person has named.

  Raises:
    Unrecognised: if no column is known to hold the problems.
  """
  there = list(dict.fromkeys(str(name) for _, row in rows for name in row))
  for what, name in given.items():
    if name and name not in there:
      raise Unrecognised(
        f'config.domain.columns.{what} is {name!r}, which no seed has; there '
        f'is {there}.'
      )
  reasons = {}
  problem = given.get('problem') or _named('problem', there, rows)
  if not problem:
    raise Unrecognised(
      f'no column is known to hold the problems; there is {there}. Name it: '
      '--config.domain.columns.problem=NAME.'
    )
  reasons['problem'] = 'what is asked'
  if 'module' in given:
    module, reasons['module'] = given['module'], 'as given'
  else:
    module, reasons['module'] = _tags(there, rows, problem)
  answer, solution, kind, reason = _answers(
    {k: v for k, v in given.items() if k in ('answer', 'solution')},
    [n for n in there if n not in (problem, module)],
    rows,
    grader,
  )
  reasons['grader'] = reason
  reasons['answer'] = 'final answers' if answer else ''
  reasons['solution'] = 'worked answers' if solution else 'none is needed'
  columns = {
    'module': module,
    'problem': problem,
    'solution': solution,
    'answer': answer,
  }
  return Found(
    columns,
    grader or kind,
    reasons,
    tuple(n for n in there if n not in columns.values()),
  )


@dataclasses.dataclass(frozen=True)
class Sorted:
  """Rows that a domain can use, and the others.

  Attributes:
    rows: of those that are used.
    seeds: what they hold.
    left_out: row and reason of each other.
  """

  rows: seed_sources.Rows
  seeds: Sequence[Seed]
  left_out: Sequence[tuple[Mapping[str, Any], str]]


def usable(
  rows: seed_sources.Rows,
  columns: Mapping[str, str],
  grader: text.Grader,
  probes: int,
  modules: Collection[str] | None = None,
) -> Sorted:
  """Leaves out what `TextDomain` would not take, as too small modules.

  Args:
    probes: that a module needs in each split.
    modules: of a taxonomy; seeds of others are left out. None is any.
  """
  pairs, left_out = [], []
  for row in rows:
    try:
      (seed,) = text.read_seeds([row], columns, grader)
    except text.DomainError as e:
      left_out.append((row[1], str(e)))
      continue
    if modules is not None and seed.module not in modules:
      why = f'module {seed.module!r} is not in the taxonomy.'
      left_out.append((row[1], why))
    elif not seed.module.isprintable():
      why = f'module {seed.module!r} is not one line of plain text.'
      left_out.append((row[1], why))
    else:
      pairs.append((row, seed))
  counts = Counter(s.module for s in text.distinct(s for _, s in pairs))
  fewest = text.seeds_needed(probes)
  kept = []
  for row, seed in pairs:
    if counts[seed.module] >= fewest:
      kept.append((row, seed))
    else:
      left_out.append(
        (
          row[1],
          f'module {seed.module!r} has too few different seeds, '
          f'{counts[seed.module]}; a gate needs {fewest}.',
        )
      )
  return Sorted([r for r, _ in kept], [s for _, s in kept], left_out)


def _named(what: str, there: Sequence[str], rows) -> str:
  """The first known name under which most rows hold text; '' is none."""
  known = {name.casefold(): name for name in reversed(there)}
  for name in _NAMES[what]:
    if name in known and len(_texts(rows, known[name])) >= _MOST * len(rows):
      return known[name]
  return ''


def _tags(there, rows, problem: str) -> tuple[str, str]:
  """The column of tags, and what was seen of it."""
  known = {name.casefold(): name for name in reversed(there)}
  why = 'no column is known to tag modules'
  for name in _NAMES['module']:
    column = known.get(name)
    if column is None or column == problem:
      continue
    values = [row.get(column) for _, row in rows]
    tags = {v for v in values if isinstance(v, str) and v.strip()}
    if tags and _SEEDS_PER_TAG * len(tags) <= len(rows):
      return column, f'{len(tags)} different tags'
    why = (
      f'column {column!r} has {len(tags)} different texts in {len(rows)} rows, '
      'so it tags no modules'
    )
  return '', why


def _answers(given, there, rows, grader: str) -> tuple[str, str, str, str]:
  """Columns of answer and solution, the grader, and the reason for it."""
  known = {name.casefold(): name for name in reversed(there)}
  columns = [known[n] for n in _NAMES['answer'] if n in known]
  columns = [c for c in columns if 2 * len(_texts(rows, c)) >= len(rows)]
  if given.get('answer'):
    columns = [given['answer']]
  elif given.get('solution'):
    columns = [given['solution']]
  if not columns:
    return '', '', '', 'no column is known to hold answers'
  held = {c: _spread(_texts(rows, c)) for c in columns}
  if not given.get('solution'):
    for kind, reads in _BARE.items():
      for column in columns:
        share = _share(held[column], reads)
        if grader in ('', kind) and share >= _MOST:
          worked = _beside(column, columns, held)
          why = f'{share:.0%} of {column!r} are answers of this kind'
          return column, worked, kind, why
  if not given.get('answer'):
    for kind, reads in _WORKED.items():
      for column in columns:
        share = _share(held[column], reads)
        if grader in ('', kind) and share >= _MOST:
          why = f'{share:.0%} of {column!r} end in such an answer'
          return '', column, kind, why
  column = columns[0]
  if given.get('solution'):
    return '', column, 'last_line', 'the last line of the solution decides'
  if _share(held[column], _is_short) >= _MOST:
    return column, '', 'last_line', f'{column!r} holds a few words'
  return column, '', 'rouge_l', f'{column!r} holds open answers'


def _beside(answer: str, columns: Sequence[str], held) -> str:
  """A worked answer that goes with a final one; '' is none."""
  longer = [
    c
    for c in columns
    if c != answer and _share(held[c], lambda t: ' ' in t.strip()) >= _MOST
  ]
  return longer[0] if longer else ''


def _texts(rows, column: str) -> list[str]:
  """What a column holds as text; numbers are written out."""
  values = (text.number_text(row.get(column)) for _, row in rows)
  return [v.strip() for v in values if isinstance(v, str) and v.strip()]


def _spread(values: Sequence[str]) -> Sequence[str]:
  return values[:: max(1, len(values) // _TRIED)][:_TRIED]


def _share(values: Sequence[str], reads: Callable[[str], object]) -> float:
  return sum(bool(reads(v)) for v in values) / max(1, len(values))


def _is_short(value: str) -> bool:
  return '\n' not in value and len(value.split()) <= 5


def _is_formula(value: str) -> bool:
  # A formula in the midst of a sentence is a worked answer.
  alone = len(value.split()) <= 12 and r'\boxed' not in value
  return alone and '\n' not in value and bool(_FORMULA.match(value))


def _states_number(value: str) -> bool:
  number = final_answers.Number()
  found = number.find(value)
  return bool(
    found and number.fits(found) and _STATES_NUMBER.search(value.rstrip('. '))
  )


# A cell that is an answer and nothing else; the strictest kind first. Code is
# not run, and formulas are not compared: no sandbox and no worker are needed.
_BARE = {
  'choice': final_answers.Choice().fits,
  'number': final_answers.Number().fits,
  'code': code_grading.called_functions,
  'maths': _is_formula,
}
# A worked answer that ends in one.
_WORKED = {
  'number': _states_number,
  'maths': graders.last_boxed,
  'choice': final_answers.Choice().find,
}
