"""The parts of a lesson's answer, label and rationale, and how to ask for them.

What DSS and CasCoD tell apart. Built-in domains ask for a value with `=`; text
is read by its grader.
"""

from __future__ import annotations

from typing import Protocol

from ioa_jax.domains.text import Grader
from ioa_jax.records import Lesson


class Answers(Protocol):
  """How the answers of a domain are made."""

  def label(self, lesson: Lesson) -> str:
    """The answer alone, as a student writes it."""
    ...

  def rationale(self, lesson: Lesson) -> str:
    """What stands before the final answer; '' if nothing does."""
    ...

  def label_prompt(self, problem: str) -> str:
    """Asks for the answer alone; evaluation asks so."""
    ...

  def rationale_prompt(self, problem: str) -> str:
    """Asks for all of the solution."""
    ...


class Formulas:
  """Of the built-in domains; see `domains.arithmetic`."""

  def label(self, lesson: Lesson) -> str:
    return lesson.solution['final_answer']

  def rationale(self, lesson: Lesson) -> str:
    return lesson.completion.rpartition(lesson.solution['final_answer'])[0]

  def label_prompt(self, problem: str) -> str:
    return problem[:-1] + '='

  def rationale_prompt(self, problem: str) -> str:
    return problem


class Texts:
  """Of text: the answer stands at the end, as the grader reads it."""

  def __init__(self, grader: Grader):
    self._grader = grader

  def label(self, lesson: Lesson) -> str:
    return self._grader.completion((), lesson.solution['final_answer'])

  def rationale(self, lesson: Lesson) -> str:
    text = lesson.completion
    # A number may be written in another way than it was read (1,000).
    cut = text.rfind(lesson.solution['final_answer'])
    return text[: cut if cut >= 0 else text.rfind('\n') + 1]

  def label_prompt(self, problem: str) -> str:
    return problem

  def rationale_prompt(self, problem: str) -> str:
    return f'[rationale] {problem}'
