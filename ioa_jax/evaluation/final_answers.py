"""Final answers of free text: where one stands, whether it is right.

One class for each kind of answer, each a `domains.text.Grader`.
"""

from __future__ import annotations

from ioa_jax.evaluation import graders, maths


class Number:
  """A number, as in GSM8K."""

  def find(self, text: str) -> str | None:
    return graders.extract_number(text)

  def is_correct(self, completion: str, answer: str) -> bool:
    return graders.grade_number(completion, answer).correct

  def closing(self, answer: str) -> str:
    return f'The answer is {answer}.'


class Maths:
  r"""A formula in `\boxed{}`, as in MATH; needs the extra `eval`."""

  def __init__(self):
    self._checker = maths.Checker()

  def find(self, text: str) -> str | None:
    return graders.last_boxed(text)

  def is_correct(self, completion: str, answer: str) -> bool:
    return self._checker.grade(completion, answer).correct

  def closing(self, answer: str) -> str:
    return f'The answer is $\\boxed{{{answer}}}$.'


class Choice:
  """One of the letters A to D, as in GPQA."""

  _LETTERS = 'ABCD'

  def find(self, text: str) -> str | None:
    return graders.extract_choice(text, self._LETTERS)

  def is_correct(self, completion: str, answer: str) -> bool:
    return graders.grade_choice(completion, answer, self._LETTERS).correct

  def closing(self, answer: str) -> str:
    return f'The answer is ({answer}).'


class LastLine:
  """The last line, without regard to case."""

  def find(self, text: str) -> str | None:
    lines = text.strip().splitlines()
    return lines[-1].strip() if lines else None

  def is_correct(self, completion: str, answer: str) -> bool:
    found = self.find(completion)
    return found is not None and found.casefold() == answer.strip().casefold()

  def closing(self, answer: str) -> str:
    return answer


KINDS = {
  'number': Number,
  'maths': Maths,
  'choice': Choice,
  'last_line': LastLine,
}
