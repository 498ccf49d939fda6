"""How a run ended: `results.json`."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from ioa_jax.records.base import Count, Interval, Record, record
from ioa_jax.records.events import Bought

# Ends the names of what is exported of a student that did not gain.
NOT_BETTER = '_not_better'
Outcome = Literal['mastered', 'unmastered', 'untaught', 'not_reached']


@record
class TeacherResult(Record):
  """Score: mean over modules on the held-out probes; `params` may be secret."""

  name: str
  params: Count | None
  score: float


@record
class StudentResult(Record):
  """Scores: mean over modules on the held-out probes.

  `truncated_*` is how many of those answers were cut off; None of runs that
  did not count them.
  """

  name: str
  params: Count
  score_before: float
  score_after: float
  truncated_before: Count | None = None
  truncated_after: Count | None = None


@record
class Attempt(Record):
  """What a student wrote to a probe.

  Attributes:
    score: how right it is, in [0, 1].
    truncated: whether `student.max_tokens` cut it off.
  """

  text: str
  score: Annotated[float, Field(ge=0, le=1)]
  truncated: bool


@record
class Answered(Record):
  """A held-out probe before and after teaching: a line of `answers.jsonl`."""

  module: str
  probe_id: str
  prompt: str
  answer: str
  before: Attempt
  after: Attempt


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
class Grades(Record):
  """Of the answers to one held-out probe; the teacher may have none."""

  teacher: float | None
  before: float
  after: float


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
class Steps(Record):
  """Training steps.

  Attributes:
    planned: `train.total_steps`.
    taken: fewer where all was mastered before.
    exported: after which the exported weights were kept. Fewer than `taken`
      where the last weights had lost what these could; 0 is the student as it
      came.
  """

  planned: Count
  taken: Count
  exported: Count


@record
class JudgeResult(Record):
  """What a judge said of the held-out answers, before and after teaching.

  Attributes:
    pairs: answers that were held against a reference, each in both orders.
    unjudged: of them, without an opinion in one of the orders; they score 0.
    wins, losses: of the answer, in the mean of both orders.
    ties: in both orders.
    flips: the judge preferred whatever stood first, or whatever stood second.
    self_agreement: share of pairs on which both orders say the same.
    prefers_first: share of preferences for what stood first; 0.5 is fair.
    rouge_l_agreement: share on which ROUGE-L, at the score from which it
      confirms a lesson, says what the judge says.
    rouge_l_tau: Kendall's rank correlation of both scores.
    completion_tokens, price_usd: of all that the judge was asked.
  """

  name: str
  pairs: Count
  unjudged: Count
  wins: Count
  ties: Count
  losses: Count
  flips: Count
  self_agreement: float | None
  prefers_first: float | None
  rouge_l_agreement: float | None
  rouge_l_tau: float | None
  completion_tokens: Count
  price_usd: float


@record
class Spending(Record):
  """Dollars for lessons of one module, by stage and kind.

  Attributes:
    stage: from 0, as everywhere in files.
    kind: of the supply, such as 'stage' or 'remedial'.
  """

  module: str
  stage: Count
  kind: str
  usd: Annotated[float, Field(ge=0)]


@record
class Money(Record):
  """What the teacher cost, where its prices are known.

  Attributes:
    total_usd: all answered calls; calls that came to nothing are in it.
    lessons: what of it was paid for lessons, and their confirmation.
    other_usd: the rest: probes, modules, prerequisites, and lost calls.
  """

  total_usd: Annotated[float, Field(ge=0)]
  other_usd: Annotated[float, Field(ge=0)]
  lessons: tuple[Spending, ...]


@record
class Results(Record):
  """`results.json`.

  Attributes:
    retention: the student's score after teaching over the teacher's, both in
      the format that is taught.
    verdict: whether it is better than it was.
    grades: of every held-out probe, by its name.
    reopened: mastered modules that fell and were taught again, how often.
    lessons: that were kept.
    compilations: of the training step; 1.
    seconds: by phase, and 'total'.
    judge: None where the probes' answers are not judged.
    money: None where no price is known.
  """

  domain: str
  method: str
  answer_format: str
  teacher: TeacherResult
  student: StudentResult
  retention: float
  verdict: Verdict
  modules: dict[str, ModuleResult]
  grades: dict[str, Grades]
  stages: tuple[StageResult, ...]
  reopened: dict[str, Count]
  forgetting: tuple[Recall, ...]
  tokens: TokenCounts
  lessons: Count
  steps: Steps
  compilations: Count
  seconds: dict[str, float]
  config_sha256: str
  seed: Count
  judge: JudgeResult | None = None
  money: Money | None = None

  @property
  def suffix(self) -> str:
    """Ends the names of what is exported: nobody takes it by mistake."""
    return '' if self.verdict.difference > 0 else NOT_BETTER
