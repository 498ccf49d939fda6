"""What the Identifier found: `diagnosis.json` and `items.jsonl`."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from ioa_jax.records.base import Count, Interval, Record, record
from ioa_jax.records.lessons import Score, WrongAnswer

STATUSES = ('known', 'deficient', 'target', 'unteachable')
Status = Literal['known', 'deficient', 'target', 'unteachable']


@record
class ModuleDiagnosis(Record):
  """One module before teaching.

  Attributes:
    teacher, student: scores on the gate probes.
    student_loss, teacher_loss: nats per token of the reference answers; None
      where they are not known.
    teacher_ci95, student_ci95: Wilson intervals of the scores.
    gap: Eq. 2; None is unteachable.
    severity: Eq. 4.
  """

  description: str
  prerequisites: tuple[str, ...]
  level: int
  teacher: Score
  student: Score
  student_loss: float | None
  teacher_loss: float | None
  teacher_ci95: Interval | None
  student_ci95: Interval | None
  gap: float | None
  severity: float | None
  status: Status


@record
class Edge(Record):
  """`source` must come before `target`."""

  source: Annotated[str, Field(alias='from')]
  target: Annotated[str, Field(alias='to')]


@record
class StrongEdge(Edge):
  """With Dep(source -> target) of Eq. 3; None where it was not measured."""

  strength: float | None


@record
class PairEstimate(StrongEdge):
  """What was measured of a pair, edge or not.

  Attributes:
    effect: of the source on the target's score, in points.
    learners: how many there were on either side.
  """

  ci95: tuple[float, float]
  effect: float
  learners: tuple[int, int]


@record
class GraphRecord(Record):
  """Prerequisites from one source.

  Attributes:
    removed: edges that went to break cycles.
    undefined: pairs with too little evidence for an estimate.
  """

  edges: tuple[StrongEdge, ...]
  removed: tuple[Edge, ...]
  undefined: Count
  pairs: tuple[PairEstimate, ...]


@record
class Agreement(Record):
  """How far the orders that two graphs imply are the same.

  Attributes:
    found, wanted, hits: pairs of the first, of the second, of both.
  """

  first: str
  second: str
  precision: float | None
  recall: float | None
  f1: float | None
  found: Count
  wanted: Count
  hits: Count


@record
class Dependency(Record):
  """The graph that was chosen, beside all that are known."""

  source: str
  note: str
  edges: tuple[StrongEdge, ...]
  removed: tuple[Edge, ...]
  graphs: dict[str, GraphRecord]
  agreement: tuple[Agreement, ...]


@record
class Thresholds(Record):
  """What the targets were chosen with: Eqs. 4 to 6."""

  tau_gap: float
  alpha: float
  target_share: float


@record
class Difficulty(Record):
  """On the panel's scale of ability: an item's, or the mean over `items`."""

  mean: float
  se: float


@record
class ModuleDifficulty(Difficulty):
  """The mean over the module's items."""

  items: Count


@record
class Diagnosis(Record):
  """`diagnosis.json`.

  Attributes:
    wrong_answers: the student's worst, of each module.
    difficulty: of each module on the learner panel; None without a panel, and
      for a module whose items do not tell learners apart.
    teacher_held_out: the teacher's scores on the held-out probes.
    teacher_grades: likewise, probe to grade; one without an answer has none.
    tokens: read and written meanwhile, by who did.
  """

  domain: str
  modules: dict[str, ModuleDiagnosis]
  dependency: Dependency
  thresholds: Thresholds
  wrong_answers: dict[str, tuple[WrongAnswer, ...]]
  difficulty: dict[str, ModuleDifficulty | None] | None
  teacher_held_out: dict[str, Score]
  teacher_grades: dict[str, float]
  tokens: dict[str, Count]
  seconds: float


@record
class ItemLoss(Record):
  """Of one reference answer."""

  nats_per_token: float
  tokens: Count


@record
class ItemDifficulty(Record):
  """A line of `items.jsonl`: how hard one gate probe is, and for whom.

  Attributes:
    student, teacher: None where the answer is unknown or too long, or the
      model's weights are not here.
    difficulty: on the learner panel; None without one.
  """

  module: str
  prompt: str
  reference: str
  student: ItemLoss | None
  teacher: ItemLoss | None
  difficulty: Difficulty | None
