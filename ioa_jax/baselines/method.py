"""What can differ between methods that share everything else.

What they decide in the place of the configuration is in
`ioa_jax.config.methods`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
import dataclasses

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
    examples: a lesson as sequences with the weight of each token.
    max_examples: sequences that it makes of a lesson at most.
    select: which of the lessons are taught, by the nats per token that the base
      student and the teacher give each solution; None teaches all.
  """

  order: str | None = None
  gated: bool = False
  weighting: str = 'uniform'
  identified: bool = True
  examples: Examples = read_and_answer
  max_examples: int = 1
  select: Select | None = None

  def rounds(self, most: int) -> int:
    """Remedial rounds of a stage: none without a gate."""
    return most if self.gated else 0
