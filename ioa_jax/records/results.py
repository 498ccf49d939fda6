"""How a run ended: `results.json`."""

from __future__ import annotations

from typing import Literal

from ioa_jax.records.base import Count, Interval, Record, record
from ioa_jax.records.events import Bought

Outcome = Literal['mastered', 'unmastered', 'untaught', 'not_reached']


@record
class TeacherResult(Record):
  """Score: mean over modules on the held-out probes; `params` may be secret."""

  name: str
  params: Count | None
  score: float


@record
class StudentResult(Record):
  """Scores: mean over modules on the held-out probes."""

  name: str
  params: Count
  score_before: float
  score_after: float


@record
class ModuleResult(Record):
  """Held-out scores of one module.

  Attributes:
    ci95: Wilson interval of `after`, over the `n` probes.
    loss_before, loss_after: nats per token of the reference answers; None
      where they are unknown.
    bought: its lessons and what they took; None was not written.
  """

  teacher: float
  before: float
  after: float
  ci95: Interval
  n: Count
  loss_before: float | None
  loss_after: float | None
  bought: Bought | None = None


@record
class StageResult(Record):
  """How a stage ended; `untaught` are its modules without any lesson."""

  modules: tuple[str, ...]
  untaught: tuple[str, ...]
  kind: Literal['teach', 'consolidate']
  steps: Count
  remedial_rounds: Count
  outcome: Outcome


@record
class Verdict(Record):
  """Whether the student is better than it was.

  Attributes:
    kind: 'better' and 'worse' where the interval says so; 'mixed' is better in
      the mean with modules that fell; 'unclear' where the interval holds 0.
    difference: mean held-out score after minus before.
    ci95: its interval, over probes.
    fallen: modules that fell by more than their interval.
  """

  kind: Literal['better', 'mixed', 'unclear', 'worse']
  difference: float
  ci95: Interval
  fallen: tuple[str, ...]


@record
class Recall(Record):
  """Every module's gate score when a stage had ended; None was not asked."""

  after_stage: Count
  step: Count
  scores: dict[str, float | None]


@record
class TokenCounts(Record):
  """Tokens of a run; `teacher_cached` counts answers.

  Attributes:
    student_train: live tokens trained on.
    teacher_generated: written by the teacher.
    teacher_cached: answers that were in the ledger before.
    teacher_scored: read by the teacher to score texts.
    student_inferred: read or written for probes, scores and own texts.
    panel: that the learner panel trained on and was probed with.
  """

  student_train: Count
  teacher_generated: Count
  teacher_cached: Count
  teacher_scored: Count
  student_inferred: Count
  panel: Count


@record
class Results(Record):
  """`results.json`.

  Attributes:
    retention: the student's score after teaching over the teacher's.
    verdict: whether it is better than it was.
    reopened: mastered modules that fell and were taught again, how often.
    lessons: that were kept.
    compilations: of the training step; 1.
    seconds: by phase, and 'total'.
  """

  domain: str
  method: str
  answer_format: str
  teacher: TeacherResult
  student: StudentResult
  retention: float
  verdict: Verdict
  modules: dict[str, ModuleResult]
  stages: tuple[StageResult, ...]
  reopened: dict[str, Count]
  forgetting: tuple[Recall, ...]
  tokens: TokenCounts
  lessons: Count
  compilations: Count
  seconds: dict[str, float]
  config_sha256: str
  seed: Count
