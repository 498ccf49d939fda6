"""What happened while teaching: the lines of `metrics.jsonl`, and progress."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from ioa_jax.records.base import AnyFloat, Count, Record, parse, record
from ioa_jax.records.lessons import Score, WrongAnswer

NotNegative = Annotated[float, Field(ge=0)]
Decision = Literal['stay', 'advance', 'remediate', 'stall']


@record
class Training(Record):
  """Steps between two probing rounds; loss in nats per completion token."""

  event: Literal['train']
  step: Count
  stage: Count
  loss: Annotated[AnyFloat, Field(alias='train/loss')]
  grad_norm: Annotated[AnyFloat, Field(alias='train/grad_norm')]
  learning_rate: Annotated[float, Field(alias='train/learning_rate')]
  tokens: Annotated[Count, Field(alias='train/tokens')]


@record
class Probing(Record):
  """One probing round and what the gate decided.

  Attributes:
    scores: of the modules that were asked.
    reopened: mastered modules that have fallen, and are taught again.
    fallen: modules that had been known or mastered and now answer less, by more
      than their interval.
  """

  event: Literal['probe']
  step: Count
  stage: Count
  round: Count
  decision: Decision
  scores: dict[str, Score]
  reopened: tuple[str, ...]
  fallen: tuple[str, ...] = ()


@record
class Sum(Record):
  """A measure's sum over `n` texts, so that sums can be added."""

  sum: float
  n: Count


@record
class Measures(Record):
  """The same measures of the seeds and of the lessons written from them."""

  seeds: dict[str, Sum]
  lessons: dict[str, Sum]


@record
class Bought(Record):
  """What one module got.

  Attributes:
    lessons: that were kept.
    teacher_tokens: of the answers to its requests, whoever paid for them and
      when; those that only confirm lessons are not in it.
  """

  lessons: Count
  teacher_tokens: Count


@record
class Supply(Record):
  """Lessons that a stage was given.

  Attributes:
    rejected: how many were not kept, by reason.
    untaught: modules of which none could be kept.
    teacher_tokens: paid for it.
    usd: what the answers behind it cost, by module; None where no price is
      known. It is the same however often the run was started.
    bought: what each module got.
    lots: by need, which lot of its lessons each module got, from 0.
  """

  event: Literal['supply']
  step: Count
  stage: Count
  kind: str
  modules: tuple[str, ...]
  lessons: Count
  rejected: dict[str, Count]
  untaught: tuple[str, ...]
  teacher_tokens: Count
  measures: Measures
  usd: dict[str, NotNegative] | None = None
  bought: dict[str, Bought] = Field(default_factory=dict)
  lots: dict[str, Count] = Field(default_factory=dict)


@record
class OnPolicyTexts(Record):
  """What the student wrote itself, for the teacher to score."""

  event: Literal['own_texts']
  step: Count
  texts: Count
  tokens: Count


@record
class HeldOut(Record):
  """The end: held-out scores before and after teaching."""

  event: Literal['held_out']
  step: Count
  before: dict[str, Score]
  after: dict[str, Score]
  teacher: dict[str, Score]


Event = Annotated[
  Training | Probing | Supply | OnPolicyTexts | HeldOut,
  Field(discriminator='event'),
]


def parse_event(line: str, where: str) -> Event:
  """A line of `metrics.jsonl`; see `Record.from_json`."""
  return parse(Event, line, where)


@record
class Progress(Record):
  """What a checkpoint knows besides arrays.

  Attributes:
    lessons, events, rejected: lines of lessons.jsonl, metrics.jsonl and
      rejected.jsonl that belong to it.
    tokens: live tokens trained on.
    counted: tokens read and written beside training, by who did.
    spent: on the teacher, as the ledger had it.
    untaught: modules of which no lesson could be had.
    files: the hash of every file that the checkpoint stands on.
    on_policy_step: when the student last wrote its own texts.
    wrong: its latest wrong answers, which remedial requests show.
  """

  lessons: Count = 0
  events: Count = 0
  rejected: Count = 0
  tokens: Count = 0
  train_seconds: float = 0.0
  synthesise_seconds: float = 0.0
  counted: dict[str, Count] = Field(default_factory=dict)
  spent: dict[str, Any] = Field(default_factory=dict)
  untaught: tuple[str, ...] = ()
  files: dict[str, str] = Field(default_factory=dict)
  on_policy_step: Count = 0
  wrong: dict[str, tuple[WrongAnswer, ...]] = Field(default_factory=dict)
