"""What is taught and what is learned from: modules, seeds, probes, lessons."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, NotRequired, Self

import pydantic
from pydantic import Field

# Of pydantic itself; it wants this one before Python 3.12.
from typing_extensions import TypedDict

from ioa_jax.records.base import CONFIG, Count, Record, record

DIFFICULTIES = ('introductory', 'intermediate', 'advanced')


@record
class KnowledgeModule(Record):
  """One unit of what a domain teaches.

  Attributes:
    name: unique, `category/module`.
    description: one line for people.
    prerequisites: names of the modules this one stands on.
    level: 0 for modules without prerequisites, else 1 + the deepest of them.
  """

  name: str
  description: str
  prerequisites: tuple[str, ...]
  level: int


@record
class Seed(Record):
  """An example problem of a module that requests imitate in style.

  Attributes:
    solution: as it was written by whoever made the seed; '' is unknown.
  """

  module: str
  problem: str
  answer: str
  solution: str = ''


@record
class Probe(Record):
  """A question whose answer is known; it never appears in training text.

  Attributes:
    probe_id: unique, `split/module/index`.
    module: the module it measures.
    prompt: what the model reads.
    reference: one full correct completion, in the format lessons use.
    answer: the span that is scored.
  """

  probe_id: str
  module: str
  prompt: str
  reference: str
  answer: str


@record
class Score(Record):
  """Probe outcomes of one model on one module.

  Sum and count travel apart, so an empty measurement has no value rather than
  the value 0.

  Attributes:
    correct: sum of the probes' scores, each in [0, 1]; where an answer is
      right or wrong, the number of right ones.
    n: number of probes.
  """

  correct: Annotated[float, Field(ge=0)]
  n: Count

  @pydantic.model_validator(mode='after')
  def _at_most_all(self) -> Self:
    # Sums of shares are rounded.
    if self.correct > self.n * (1 + 1e-6):
      raise ValueError('0 <= correct <= n')
    return self

  @property
  def mean(self) -> float | None:
    return self.correct / self.n if self.n else None


class WrongAnswer(TypedDict):
  """A probe that a student did not answer rightly, and what it said."""

  __pydantic_config__ = CONFIG

  prompt: str
  answer: str
  student: str


WrongAnswers = Mapping[str, Sequence[WrongAnswer]]


class Solution(TypedDict):
  """The steps of a lesson, and how its answer was confirmed."""

  __pydantic_config__ = CONFIG

  steps: list[str]
  final_answer: str
  verification: str


class CognitiveLoad(TypedDict):
  """How large a lesson's problem is."""

  __pydantic_config__ = CONFIG

  scale: str
  notes: str


class AdapterFlags(TypedDict):
  """Which of the five strategies a lesson applies."""

  __pydantic_config__ = CONFIG

  concretization: bool
  decomposition: bool
  cognitive_load: CognitiveLoad
  format_template: bool
  simplified_language: bool


class Lineage(TypedDict):
  """Where a lesson comes from; `request` is a key of the ledger.

  `trains` is the module of the problem, where a remedial lesson is of a call.
  """

  __pydantic_config__ = CONFIG

  stage_id: int
  seed_style_ref: str
  kind: str
  round: int
  teacher: str
  request: str
  trains: NotRequired[str]


@record
class Lesson(Record):
  """One synthetic item, with the paper's keys and its lineage.

  Attributes:
    module: the module it teaches.
    prereq: modules whose skill it uses.
    difficulty_tag: one of DIFFICULTIES.
    problem: the text the student reads (the prompt).
    completion: the text the student learns to write.
    solution: steps, final answer, and how the answer was confirmed.
    adapter_flags: which strategies the item applies.
    metadata: where it comes from.
  """

  module: str
  prereq: tuple[str, ...]
  difficulty_tag: str
  problem: str
  completion: str
  solution: Solution
  adapter_flags: AdapterFlags
  metadata: Lineage


@record
class Rejected(Record):
  """A lesson that was not kept: a line of `rejected.jsonl`.

  Attributes:
    module: that it was asked for.
    kind, stage, round: of the request.
    request: its key in the ledger.
    reason: one word, for counts.
    evidence: what shows it, '' if the reason says all.
    text: of the lesson, or what the teacher said instead of one.
  """

  module: str
  kind: str
  stage: Count
  round: Count
  request: str
  reason: str
  evidence: str
  text: str
