"""The teacher as a judge of answers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import pydantic

from ioa_jax.adapter import plain_prompts
from ioa_jax.identifier.decomposition import Asking
from ioa_jax.teachers import structured
from ioa_jax.teachers.requests import Completion, Request

_Mark = Annotated[int, pydantic.Field(ge=1, le=10)]


class Marks(structured.Strict):
  first: _Mark
  second: _Mark


class Mark(structured.Strict):
  mark: _Mark


class Referee:
  """Asks for marks and reads them; an answer that is none is no mark.

  Args:
    asking: of the teacher; a judge decodes greedily.
  """

  def __init__(self, asking: Asking):
    self._asking = asking

  def compare(self, problem: str, teacher: str, student: str) -> list[Request]:
    """Two requests, one for each order: judges prefer a place."""
    return [
      self._request(plain_prompts.compare(problem, *pair), Marks)
      for pair in ((teacher, student), (student, teacher))
    ]

  def lead(self, completions: Sequence[Completion]) -> float | None:
    """By how many marks the teacher is ahead, over both orders of `compare`.

    None unless both could be read.
    """
    one, other = (structured.read(c, Marks) for c in completions)
    if one is None or other is None:
      return None
    return (one.first - one.second + other.second - other.first) / 2

  def judge(self, problem: str, answer: str) -> Request:
    return self._request(plain_prompts.mark(problem, answer), Mark)

  def mark(self, completion: Completion) -> int | None:
    """Of `judge`, from 1 to 10."""
    found = structured.read(completion, Mark)
    return found and found.mark

  def _request(self, prompt: str, schema) -> Request:
    return self._asking.request(
      prompt, schema, sample=None, system=plain_prompts.JUDGE
    )
