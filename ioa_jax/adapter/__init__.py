"""Requests that a teacher can answer, and lessons a student can take in."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
import dataclasses
from typing import Any, Protocol

import pydantic

from ioa_jax.records import Lesson, Probe, Seed
from ioa_jax.runtime import processes
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


@dataclasses.dataclass(frozen=True, kw_only=True)
class Item:
  """One lesson to be asked for; adapters add what they know of it."""

  seed: Seed
  kind: str
  stage: int
  round: int
  request: Request

  def lineage(self) -> dict[str, Any]:
    """Where the lesson comes from, its `metadata`."""
    return {
      'stage_id': self.stage,
      'seed_style_ref': self.seed.problem,
      'kind': self.kind,
      'round': self.round,
      'teacher': self.request.model,
      'request': self.request.key(),
    }


def agreed(
  lessons: Sequence[Lesson], rejected: Counter[str]
) -> tuple[list[Lesson], Counter[str]]:
  """What the first process kept and rejected, in all of them.

  They must ask and teach the same, and a sandbox may judge by its clock.
  """
  if processes.is_alone():
    return list(lessons), rejected
  lines, rejected = processes.tell([[x.to_json() for x in lessons], rejected])
  return list(map(Lesson.from_json, lines)), Counter(rejected)


class Adapter(Protocol):
  """How the lessons of one domain are planned and written (paper, section 3.3).

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
