"""What the strategies did to the text, measured on lessons and on raw seeds.

Proxies, for English, that need no model and no download: they show that an
adaptation happened, not that it was good. Each is a sum and a count, divided
when it is shown.

  steps        per solution                               decompose
  words        per sentence                               plain language
  rare words   share of all words; see `common_words`     plain language
  digits       per number of the problem                  cognitive load
  numbers      per problem                                cognitive load
  template     share of steps that open with First, ...   template
  analogies    share of texts with the words of one       concretise
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
import re

from ioa_jax.records import Lesson, Seed

Sums = dict[str, dict[str, float]]  # Measure to {'sum', 'n'}.
Worked = tuple[str, Sequence[str]]  # A problem, and the steps of its solution.

_COMMON_SHARE = 0.9
_WORD = re.compile(r"[^\W\d_]+(?:'[^\W\d_]+)?")
_SENTENCE = re.compile(r'(?<=[.!?])\s+|\n+')
_NUMBER = re.compile(r'\d+(?:,\d{3})*')
_TEMPLATE = re.compile(r'(?:First|Next|Then|Therefore)\b', re.IGNORECASE)
_ANALOGY = re.compile(
  r'\b(?:imagine|pretend|picture|think of|as if|just like|(?:is|are|works?) '
  r'like|the same as when)\b',
  re.IGNORECASE,
)


def of_lessons(lessons: Iterable[Lesson], common: frozenset[str]) -> Sums:
  return _measure(((l.problem, l.solution['steps']) for l in lessons), common)


def of_seeds(seeds: Iterable[Seed], common: frozenset[str]) -> Sums:
  """Of seeds as they are; one without a written solution has no steps."""
  worked = ((s.problem, _lines(s.solution)) for s in seeds)
  return _measure(worked, common)


def common_words(seeds: Iterable[Seed]) -> frozenset[str]:
  """The fewest words that make up nine tenths of the seeds' running text.

  All others are rare. So the seeds' own share of rare words is about a tenth,
  and a lesson above that leaves their vocabulary.
  """
  counts = Counter(
    word for s in seeds for word in _words(f'{s.problem}\n{s.solution}')
  )
  common, covered, total = set(), 0, counts.total()
  # By name among equals, so that the file's order decides nothing.
  for word, n in sorted(counts.items(), key=lambda item: (-item[1], item[0])):
    if covered >= _COMMON_SHARE * total:
      break
    common.add(word)
    covered += n
  return frozenset(common)


def _measure(worked: Iterable[Worked], common: frozenset[str]) -> Sums:
  totals: dict[str, list[float]] = {
    name: [0, 0]
    for name in (
      'steps',
      'words',
      'rare words',
      'digits',
      'numbers',
      'template',
      'analogies',
    )
  }

  def add(name, amount, n):
    totals[name][0] += amount
    totals[name][1] += n

  for problem, steps in worked:
    text = '\n'.join([problem, *steps])
    sentences = [w for s in _SENTENCE.split(text) if (w := _words(s))]
    words = [word for sentence in sentences for word in sentence]
    numbers = _NUMBER.findall(problem)
    if steps:
      add('steps', len(steps), 1)
      add('template', sum(bool(_TEMPLATE.match(s)) for s in steps), len(steps))
    add('words', len(words), len(sentences))
    add('rare words', sum(word not in common for word in words), len(words))
    add('digits', sum(len(n.replace(',', '')) for n in numbers), len(numbers))
    add('numbers', len(numbers), 1)
    add('analogies', bool(_ANALOGY.search(text)), 1)
  return {name: {'sum': a, 'n': n} for name, (a, n) in totals.items()}


def _words(text: str) -> list[str]:
  return [word.casefold() for word in _WORD.findall(text)]


def _lines(text: str) -> list[str]:
  return [line.strip() for line in text.splitlines() if line.strip()]
