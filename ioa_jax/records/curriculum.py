"""What the Organizer planned: `curriculum.json`."""

from __future__ import annotations

from typing import Literal

from ioa_jax.records.base import Count, Record, record


@record
class Stage(Record):
  """One stage and its budget.

  Attributes:
    kind: 'teach' is left by mastery, 'consolidate' is held to the end.
    readiness: mean of the student's before teaching, in [0, 1].
    max_steps: optimizer steps before remediation.
    remedial_steps: that each remedial round adds.
  """

  modules: tuple[str, ...]
  kind: Literal['teach', 'consolidate']
  readiness: float
  max_steps: Count
  remedial_steps: Count


@record
class ZpdCheck(Record):
  """Eq. 8 for one pair of neighbouring stages.

  Attributes:
    before, after: mean student scores of the two stages.
    limit: what the drop (readiness) or rise (literal) may be at most.
    holds: whether it is within the limit.
  """

  before: float
  after: float
  limit: float
  holds: bool


@record
class Zone(Record):
  """The zone of proximal development: which rule, and how it came out."""

  mode: str
  tau: float
  response: str
  checks: tuple[ZpdCheck, ...]


@record
class Curriculum(Record):
  """`curriculum.json`.

  Attributes:
    rehearsed: modules that the student knows and must not forget; they have
      few lessons, also where one stage is of everything.
  """

  stages: tuple[Stage, ...]
  zpd: Zone
  rehearsed: tuple[str, ...]
  total_steps: Count

  def request_kind(self, stage: int) -> str:
    """'bridging' where the step up from the stage before is too high."""
    checks = self.zpd.checks
    if 0 < stage <= len(checks) and not checks[stage - 1].holds:
      return 'bridging'
    return 'stage'
