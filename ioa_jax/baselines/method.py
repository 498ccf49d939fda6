"""What can differ between methods that share everything else.

What they decide in the place of the configuration is in
`ioa_jax.config.methods`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
import dataclasses

from ioa_jax.baselines.answers import Answers
from ioa_jax.models.vocabulary import Codec
from ioa_jax.records import Lesson
from ioa_jax.training import packing


@dataclasses.dataclass(frozen=True)
class Evidence:
  """What a selection of lessons can go by, in the order of the lessons.

  Attributes:
    student, teacher: instruction-following difficulty for either, the loss of a
      solution given its problem, as a share of its loss without; None where a
      model's weights are not here.
    marks: of a judge, from 1 to 10, None for a lesson without one; None where a
      verifier has judged before.
  """

  student: Sequence[float]
  teacher: Sequence[float] | None
  marks: Sequence[int | None] | None


Examples = Callable[[Lesson, Codec, Answers], Sequence[packing.Example]]
Select = Callable[[Sequence[Lesson], Evidence], list[Lesson]]


def read_and_answer(
  lesson: Lesson, codec: Codec, answers: Answers
) -> list[packing.Example]:
  """The problem is read, the solution learned, every token alike."""
  del answers
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
      the answers are; 'random'; 'rounds', one stage of everything in rounds of
      equal steps; or None, one stage of everything.
    gated: a stage is left by mastery and remediated without it; else it takes
      its share of the steps.
    weighting: 'need' re-weighs modules at every probing round, 'gap' keeps the
      weights of the diagnosis, 'uniform' treats all alike, 'contrast' gives
      what the student fails and what it can an equal half, re-measured.
    identified: only deficient modules are targets, and known ones are
      rehearsed; else all that the teacher can teach are taught.
    rounds_of_its_own: that bring new lessons, whatever the gate says.
    examples: a lesson as sequences with the weight of each token.
    max_examples: sequences that it makes of a lesson at most.
    select: which of the lessons are taught; None teaches all.
  """

  order: str | None = None
  gated: bool = False
  weighting: str = 'uniform'
  identified: bool = True
  rounds_of_its_own: int = 0
  examples: Examples = read_and_answer
  max_examples: int = 1
  select: Select | None = None

  def rounds(self, most: int) -> int:
    """Rounds of a stage that bring lessons; remedial ones with a gate."""
    return most if self.gated else self.rounds_of_its_own
