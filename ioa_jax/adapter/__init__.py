"""Requests that a teacher can answer, and lessons a student can take in."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
import dataclasses
from typing import Protocol

import pydantic

from ioa_jax.records import Lesson, Probe
from ioa_jax.teachers.requests import Completion, Request

WRONG_KEPT = 3  # Wrong answers of a module that a remedial request shows.


class Ask(Protocol):
  """Puts requests to the teacher, through the ledger."""

  def __call__(
    self,
    requests: Sequence[Request],
    response_model: type[pydantic.BaseModel] | None = None,
  ) -> list[Completion]:
    """Completions in order; `response_model` belongs to a response_schema."""
    ...


@dataclasses.dataclass(frozen=True)
class Level:
  """Where the student stands in one module.

  Attributes:
    score: the latest, in [0, 1]; None if it was never measured.
    wrong: latest wrong answers, `{prompt, answer, student}`.
  """

  score: float | None = None
  wrong: Sequence[Mapping[str, str]] = ()


class Item(Protocol):
  """One lesson to be asked for."""

  request: Request


class Adapter(Protocol):
  """How the lessons of one domain are planned and written (METHOD §4).

  Attributes:
    confirm_samples: further requests by which a lesson is confirmed.
  """

  confirm_samples: int

  def question(self, probe: Probe) -> Request:
    """The probe as it is put to the teacher."""
    ...

  def plan(
    self,
    module: str,
    kind: str,
    *,
    stage: int,
    round: int,
    level: Level,
  ) -> list[Item]:
    """Items to be written; the same ones whenever this is called.

    Args:
      kind: 'stage', 'remedial', 'bridging' or 'rehearsal'.
    """
    ...

  def write(
    self, items: Sequence[Item], ask: Ask, earlier: Sequence[Lesson]
  ) -> tuple[list[Lesson], Counter]:
    """Confirmed lessons, and how many were rejected for each reason.

    Args:
      earlier: all lessons of the run so far, which new ones must not repeat.
    """
    ...

  def max_lessons(self, rounds: int) -> int:
    """Lessons that one module can get in all, with `rounds` remedial ones."""
    ...
