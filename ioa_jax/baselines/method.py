"""What can differ between methods that share everything else."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
import dataclasses
from typing import Any

from ioa_jax.models.vocabulary import Codec
from ioa_jax.records import Lesson
from ioa_jax.training import packing

Examples = Callable[[Lesson, Codec], Sequence[packing.Example]]
Select = Callable[
  [Sequence[Lesson], Sequence[float], Sequence[float]], list[Lesson]
]


def read_and_answer(lesson: Lesson, codec: Codec) -> list[packing.Example]:
  """The problem is read, the solution learned, every token alike."""
  return [
    packing.Example(
      codec.prompt(lesson.problem), codec.answer(lesson.completion)
    )
  ]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Method:
  """What a method does with problems, lessons and steps.

  Attributes:
    order: of the stages: 'prerequisites'; 'length', easy to hard by how long
      the answers are; 'random'; or None, one stage of everything.
    gated: a stage is left by mastery and remediated without it; else it takes
      its share of the steps.
    weighting: 'need' re-weighs modules at every probing round, 'gap' keeps the
      weights of the diagnosis, 'uniform' treats all alike, 'contrast' gives
      what the student fails and what it can an equal half, re-measured.
    identified: only deficient modules are targets; else all that the teacher
      can teach are.
    answer_format: 'steps' or 'direct', of probes; None is the configured one.
    lesson_format: likewise, of lessons; None is that of the probes.
    adapted: lessons are adapted to the student (here: smallest operands first).
    confirmed: a lesson needs confirmation; else what was answered is taught.
    examples: a lesson as sequences with the weight of each token.
    max_examples: sequences that it makes of a lesson at most.
    select: which of the lessons are taught, by the nats per token that the base
      student and the teacher give each solution; None teaches all.
    distillation: fields of `config.distillation` for a config that leaves them
      off ('none' or 0).
  """

  order: str | None = None
  gated: bool = False
  weighting: str = 'uniform'
  identified: bool = True
  answer_format: str | None = None
  lesson_format: str | None = None
  adapted: bool = True
  confirmed: bool = True
  examples: Examples = read_and_answer
  max_examples: int = 1
  select: Select | None = None
  distillation: Mapping[str, Any] = dataclasses.field(default_factory=dict)
