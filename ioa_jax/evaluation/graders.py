"""Completions to verdicts: numbers, multiple choice, ROUGE-L.

Where an answer stands is found by `number_answers`, `choice_answers` and
`last_boxed`. Maths equivalence is in `maths`, code in `code_grading`: both need
another process. A completion in which no answer is found is wrong, with the
reason `no_answer`; nothing is guessed from it.
"""

from __future__ import annotations

import dataclasses
from fractions import Fraction
import re

from ioa_jax.evaluation import (
  answer_text,
  choice_answers,
  number_answers,
  number_chains,
  overlap,
)

_MAX_NUMBER_CHARS = 64
# ASCII digits only (`\d` takes every script's); commas only between groups of
# three, so `1,23` is no number. No exponent: `1e99999999` would cost gigabytes.
_NUMBER = re.compile(
  r'[-+]?\$?(?:(?:[0-9]{1,3}(?:,[0-9]{3})+|[0-9]+)(?:\.[0-9]+)?'
  r'(?:\s*/\s*[0-9]+)?|\.[0-9]+)'
)
_MINUS = str.maketrans({'−': '-', '–': '-'})
last_boxed = answer_text.last_boxed
rouge_l_stemmed_f = overlap.rouge_l_stemmed_f


@dataclasses.dataclass(frozen=True)
class Verdict:
  """One graded completion.

  Attributes:
    correct: the decision.
    reason: 'equal', 'different', 'no_answer', or what stopped the grader.
    extracted: the span that was compared, '' if none was found.
  """

  correct: bool
  reason: str
  extracted: str


def parse_number(text: str) -> Fraction | None:
  """The exact value of a decimal or fraction with optional sign, $, commas."""
  text = text.translate(_MINUS).strip().rstrip('.').replace('\\$', '$')
  text = text.removesuffix('\\%').removesuffix('%').strip()
  if len(text) > _MAX_NUMBER_CHARS or not _NUMBER.fullmatch(text):
    return None
  try:
    return Fraction(re.sub(r'[$,\s]', '', text))
  except (ValueError, ZeroDivisionError):
    return None


def gsm8k_gold(answer: str) -> str:
  """What follows `####` in a GSM8K reference.

  Raises:
    ValueError: if there is no such mark or no number after it.
  """
  _, mark, final = answer.rpartition('####')
  if not mark or parse_number(final) is None:
    raise ValueError(f'no number after #### in {answer[-60:]!r}.')
  return final.strip()


def extract_number(completion: str) -> str | None:
  """The answer of a word problem, as written where `parse_number` reads that.

  Else its value: `18000000` for 18 million, `3/4` for three quarters.
  """
  found = number_answers.find(completion)
  return None if found is None or found.value is None else _written(found)


def _written(found: number_chains.Found) -> str:
  read = parse_number(found.text) == found.value
  return found.text if read else str(found.value)


def grade_number(completion: str, gold: str) -> Verdict:
  """Whether the completion's number equals the gold, exactly.

  Raises:
    ValueError: if the gold is no number.
  """
  want = parse_number(gold)
  if want is None:
    raise ValueError(f'gold {gold!r} is not a number.')
  found = number_answers.find(completion)
  if found is None or found.value is None:
    return Verdict(False, 'no_answer', '')
  equal = found.value == want
  return Verdict(equal, 'equal' if equal else 'different', _written(found))


def extract_choice(completion: str, letters: str) -> str | None:
  """The chosen letter, or None: see `choice_answers`."""
  return choice_answers.find(completion, letters)


def grade_choice(completion: str, gold: str, letters: str = 'ABCD') -> Verdict:
  """Whether the chosen letter is the gold one.

  Raises:
    ValueError: if the gold is not one of the letters.
  """
  if len(gold) != 1 or gold not in letters:
    raise ValueError(f'gold {gold!r} is not one of {letters!r}.')
  found = extract_choice(completion, letters)
  if found is None:
    return Verdict(False, 'no_answer', '')
  return Verdict(
    found == gold, 'equal' if found == gold else 'different', found
  )
