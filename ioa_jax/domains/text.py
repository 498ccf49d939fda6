"""A user's own domain: seed items in a file, each tagged with a module.

Which columns of the seeds hold what is configured:

  problem   what is asked
  solution  a worked answer, which ends in the final one; '' if there is none
  answer    the final answer, text or a number; '' takes it from the solution
  module    the tag, `category/module`

Solution or answer there must be; beside an answer a solution may be missing.

A taxonomy file describes the modules and what each stands on, see `taxonomy`.
Without one, modules are the tags in the order of the file, and nothing stands
on anything.

Items are split 8:2 within each module, in an order that their texts decide and
the file does not; the smaller part is halved into gate and held-out probes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
import decimal
import hashlib
import itertools
import numbers
import pathlib
from typing import Any, Protocol

from ioa_jax.domains import taxonomy as taxonomy_lib
from ioa_jax.domains.taxonomy import DomainError
from ioa_jax.records import KnowledgeModule, Probe, Seed

COLUMNS = ('problem', 'solution', 'answer', 'module')
_VALIDATION_SHARE = 0.2
_MAX_DIGITS = 100
_SHOWN = 200  # Characters of a bad value.
_UNTAGGED = (
  ' If the seeds have no tags, scripts/map_seeds.py has the teacher propose '
  'modules from domain.description and sort the seeds into them.'
)


class TextDomain:
  """See the module's docstring.

  Args:
    rows: seeds, each with its place in the file (for messages).
    taxonomy: a file, or None.
    max_probes: of a module and split; more are left unused.
    min_probes: a module with fewer in a split is an error, since its score
      would say nothing.

  Raises:
    DomainError: naming file, line and what is wanted.
  """

  def __init__(
    self,
    rows: Iterable[tuple[str, Mapping[str, Any]]],
    taxonomy: pathlib.Path | None,
    *,
    columns: Mapping[str, str],
    grader: Grader,
    min_probes: int,
    max_probes: int,
  ):
    self._grader = grader
    for column in ('module', 'problem'):
      if not columns[column]:
        raise DomainError(
          f'domain.columns.{column} is empty; name a column.'
          + (_UNTAGGED if column == 'module' else '')
        )
    if not columns['solution'] and not columns['answer']:
      raise DomainError(
        'domain.columns.solution and domain.columns.answer are empty, so '
        'nothing says what is right; name a column for one of them.'
      )
    items = distinct(read_seeds(rows, columns, grader))
    tags = Counter(item.module for item in items)
    self.MODULES = (
      tuple(KnowledgeModule(name, name, (), 0) for name in tags)
      if taxonomy is None
      else taxonomy_lib.read(taxonomy)
    )
    names = [m.name for m in self.MODULES]
    unknown = sorted(set(tags) - set(names))
    if unknown:
      raise DomainError(
        f'{sum(tags[u] for u in unknown)} seeds are tagged '
        f'{unknown[:3]}, which {taxonomy} does not name. Add the modules, or '
        'correct the tags.'
      )
    self._seeds: dict[str, tuple[Seed, ...]] = {}
    self._probes: dict[str, dict[str, tuple[Probe, ...]]] = {
      'gate': {},
      'held_out': {},
    }
    for name in names:
      mine = [s for s in items if s.module == name]
      mine.sort(key=lambda s: _digest(s.problem))
      parts = _split(mine)
      for split in ('gate', 'held_out'):
        chosen = parts[split][:max_probes]
        if len(chosen) < min_probes:
          raise DomainError(
            f'domain.seeds: module {name!r} has {len(mine)} seeds, so '
            f'{len(chosen)} {split} probes, wanted {min_probes}. Add seeds '
            f'({seeds_needed(min_probes)} are enough), merge the module into '
            'another, or lower domain.min_probes.'
          )
        self._probes[split][name] = tuple(self._probe(split, s) for s in chosen)
      self._seeds[name] = tuple(parts['train'])

  def _probe(self, split: str, seed: Seed) -> Probe:
    """A seed without a solution has the answer alone for a reference.

    Not of code, where the answer is tests and no completion.
    """
    reference = seed.solution
    if not reference and self._grader.form != 'code':
      reference = self._grader.completion((), seed.answer)
    name = f'{split}/{seed.module}/{_digest(seed.problem)[:8]}'
    return Probe(name, seed.module, seed.problem, reference, seed.answer)

  def probes(self, split: str, answer_format: str) -> tuple[Probe, ...]:
    """See `Domain`; there is one format of answers."""
    del answer_format
    by_module = self._probes[split]
    return tuple(p for m in self.MODULES for p in by_module[m.name])

  def seeds(self, module: str, count: int) -> tuple[Seed, ...]:
    return self._seeds[module][:count]

  def score(self, completion: str, answer: str) -> float:
    return self._grader.score(completion, answer)


class Grader(Protocol):
  """How a final answer is found in a text, and compared.

  Attributes:
    form: of `adapter.prompts.FORMS`, how such answers are asked for.
  """

  form: str

  def find(self, text: str) -> str | None:
    """The final answer that a text states, or None."""
    ...

  def fits(self, answer: str) -> bool:
    """Whether it is an answer of this kind; runs nothing of it."""
    ...

  def score(self, completion: str, answer: str) -> float:
    """How right a completion is, in [0, 1]; of a probe.

    Raises:
      ValueError: if `answer` is none of this kind.
    """
    ...

  def is_correct(self, completion: str, answer: str) -> bool:
    """Whether what a text states agrees with `answer`; of a lesson.

    Raises:
      ValueError: if `answer` is none of this kind.
    """
    ...

  def key(self, final_answer: str, verification: str) -> str:
    """What solutions of a lesson are compared with."""
    ...

  def proves(self, key: str) -> bool:
    """Whether agreeing with `key` takes knowing something."""
    ...

  def closing(self, answer: str) -> str:
    """The end of a lesson, from which its answer is read."""
    ...

  def completion(self, steps: Sequence[str], answer: str) -> str:
    """What a student learns to write."""
    ...


def states(grader: Grader, text: str, answer: str) -> bool:
  """Whether `grader` reads `answer` from `text`; False if it is no answer."""
  try:
    return grader.is_correct(text, answer)
  except ValueError:
    return False


def num_probes(num_seeds: int) -> int:
  """How many probes a module of so many seeds has in each split."""
  parts = _split(range(num_seeds))
  return min(len(parts['gate']), len(parts['held_out']))


def seeds_needed(probes: int) -> int:
  """The fewest seeds of a module that give so many probes in each split."""
  return next(n for n in itertools.count() if num_probes(n) >= probes)


def _split(items: Sequence) -> dict[str, list]:
  """Training, gate and held-out parts of one module's items, in hash order."""
  held = round(len(items) * _VALIDATION_SHARE)
  gate = held // 2
  return {
    'gate': list(items[:gate]),
    'held_out': list(items[gate:held]),
    'train': list(items[held:]),
  }


def _is_unicode(text: str) -> bool:
  try:
    text.encode()
  except UnicodeEncodeError:
    return False
  return True


def _digest(text: str) -> str:
  return hashlib.sha256(' '.join(text.split()).encode()).hexdigest()


def distinct(items: Iterable[Seed]) -> list[Seed]:
  """The first of equal problems, so that none is in two splits."""
  found: dict[str, Seed] = {}
  for seed in items:
    found.setdefault(_digest(seed.problem), seed)
  return list(found.values())


def read_seeds(
  rows: Iterable[tuple[str, Mapping[str, Any]]],
  columns: Mapping[str, str],
  grader: Grader,
) -> Iterator[Seed]:
  """One seed of each row, in their order.

  Raises:
    DomainError: for a row that is none; naming its place and the column.
  """
  for where, row in rows:
    value = {
      column: _field(where, row, column, columns)
      if columns[column] and not _spared(row, column, columns)
      else ''
      for column in COLUMNS
    }
    answer = value['answer'] or grader.find(value['solution'])
    if not answer:
      raise DomainError(
        f'{where}: domain.grader finds no final answer in the solution. Name '
        'its column in domain.columns.answer.'
      )
    if not grader.fits(answer):
      raise DomainError(
        f'{where}: {_shown(answer)} is not an answer that domain.grader can '
        'compare.'
      )
    yield Seed(value['module'], value['problem'], answer, value['solution'])


def _spared(row, column: str, columns: Mapping[str, str]) -> bool:
  """Whether a solution is missing that nobody needs."""
  value = row.get(columns[column])
  blank = value is None or (isinstance(value, str) and not value.strip())
  return column == 'solution' and bool(columns['answer']) and blank


def _field(where, row, column: str, columns: Mapping[str, str]) -> str:
  """The text of one column; of answers and solutions also a number."""
  name = columns[column]
  value = row.get(name)
  if column in ('answer', 'solution'):
    value = number_text(value)
  if not isinstance(value, str) or not value.strip():
    held = '' if value is None else f' (it holds {_shown(value)})'
    raise DomainError(
      f'{where}: column {name!r} is missing or no text{held}; there is '
      f'{_shown(sorted(map(str, row)))}. domain.columns.{column} names the one '
      'to read.' + (_UNTAGGED if column == 'module' else '')
    )
  if not _is_unicode(value):
    raise DomainError(
      f'{where}: column {name!r} holds half a character (a lone surrogate '
      'such as \\ud800); correct the text.'
    )
  return value.strip()


def number_text(value: Any) -> Any:
  """A number in digits: 42, 2.5, 5 for 5.0, no 1e+20. Others as they are."""
  if isinstance(value, bool) or not isinstance(value, numbers.Number):
    return value
  try:
    number = decimal.Decimal(str(value))
    exact = number.is_finite() and abs(number.adjusted()) < _MAX_DIGITS
  except (decimal.InvalidOperation, ValueError):  # Complex, or endless digits.
    return value
  if not exact:
    return value
  if not number:
    return '0'  # Also of -0.0.
  text = f'{number:f}'
  return text.rstrip('0').rstrip('.') if '.' in text else text


def _shown(value: Any) -> str:
  text = repr(value)
  return text if len(text) <= _SHOWN else text[:_SHOWN] + '...'
