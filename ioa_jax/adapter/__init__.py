"""Requests that a teacher can answer, and lessons a student can take in."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
import dataclasses
from typing import Any, Protocol

import pydantic

from ioa_jax.records import Lesson, Probe, Rejected, Seed
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
    wrong: latest wrong answers to practice items, `{prompt, answer, student}`;
      see `practice`. A probe among them is not shown to the teacher.
    hard, easy: problems of earlier lessons that a referee sorted.
  """

  score: float | None = None
  wrong: Sequence[Mapping[str, str]] = ()
  hard: Sequence[str] = ()
  easy: Sequence[str] = ()


@dataclasses.dataclass(frozen=True, kw_only=True)
class Amounts:
  """How much is asked for; the fields of `config.adapter`.

  Attributes:
    seeds_per_module: examples that requests imitate, at most.
    items_per_seed: lessons for each, of a stage (Eq. 1's J).
    rehearsal_items_per_seed, remedial_items_per_seed: of the other kinds.
  """

  seeds_per_module: int
  items_per_seed: int
  rehearsal_items_per_seed: int
  remedial_items_per_seed: int

  def per_seed(self, kind: str) -> int:
    """Lessons for each seed by one call of `Adapter.plan`."""
    return {
      'stage': self.items_per_seed,
      'bridging': self.items_per_seed,
      'remedial': self.remedial_items_per_seed,
      'rehearsal': self.rehearsal_items_per_seed,
    }[kind]


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

  def rejected(self, reason: str, text: str, evidence: str = '') -> Rejected:
    return Rejected(
      module=self.seed.module,
      kind=self.kind,
      stage=self.stage,
      round=self.round,
      request=self.request.key(),
      reason=reason,
      evidence=evidence,
      text=text,
    )


def agreed(
  lessons: Sequence[Lesson], rejected: Sequence[Rejected]
) -> tuple[list[Lesson], list[Rejected]]:
  """What the first process kept and rejected, in all of them.

  They must ask and teach the same, and a sandbox may judge by its clock.
  """
  if processes.is_alone():
    return list(lessons), list(rejected)
  kept, left_out = processes.tell(
    [[x.to_json() for x in lessons], [x.to_json() for x in rejected]]
  )
  return (
    list(map(Lesson.from_json, kept)),
    list(map(Rejected.from_json, left_out)),
  )


class Adapter(Protocol):
  """How the lessons of one domain are planned and written.

  Attributes:
    confirm_samples: further requests that a lesson takes at most, by which it
      is answered, confirmed or judged.
  """

  confirm_samples: int

  def question(self, probe: Probe) -> Request:
    """The probe as it is put to the teacher."""
    ...

  def practice(self, module: str, round: int) -> Sequence[Probe]:
    """What the student answers before remedial lessons are planned.

    None is a probe, since requests show what it gets wrong; () where they show
    nothing.
    """
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
  ) -> tuple[list[Lesson], list[Rejected]]:
    """Confirmed lessons, and the others with the reason.

    What is kept depends on the arguments alone, and not on earlier calls.

    Args:
      earlier: all lessons of the run so far, which new ones must not repeat.
    """
    ...
