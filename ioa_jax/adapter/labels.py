"""Answers for prompts that have none: what most samples of a teacher say.

A prompt on whose answer no majority agrees is unsure, and its samples are kept
for a person to decide.
"""

from __future__ import annotations

from collections.abc import Sequence
import dataclasses

from ioa_jax.adapter import examiner
from ioa_jax.domains.text import Grader, states
from ioa_jax.identifier.decomposition import Asking
from ioa_jax.teachers.requests import Completion, Request


@dataclasses.dataclass(frozen=True)
class Label:
  """What a teacher says to one prompt.

  Attributes:
    answer: that most samples agree with; '' is unsure.
    solution: of the first of them, '' where it is the answer itself.
    said: the answer of each sample, '' where it has none.
    agreed: how many samples agree with the commonest answer.
  """

  answer: str
  solution: str
  said: tuple[str, ...]
  agreed: int


def requests(
  asking: Asking, grader: Grader, problem: str, samples: int
) -> list[Request]:
  """Independent tries at one problem.

  Raises:
    ValueError: for answers that no solution states, as tests of code; or if
      the tries would be one.
  """
  if grader.form == 'code':
    raise ValueError(
      "config.domain.grader is 'code', whose answers are tests, and no teacher "
      'can label prompts with those; add a column of tests.'
    )
  if samples > 1 and asking.temperature == 0:
    raise ValueError(
      f'config.teacher.temperature is 0, so {samples} samples would be one; '
      'set it above 0, or --samples=1.'
    )
  return [examiner.solving(asking, grader, problem, s) for s in range(samples)]


def agreed(grader: Grader, completions: Sequence[Completion]) -> Label:
  """The answer of more than half of all samples, those without one included."""
  whole = [c.text if c.finish_reason == 'stop' else '' for c in completions]
  said = [grader.find(text) or '' for text in whole]
  said = [a if a and grader.fits(a) else '' for a in said]
  best, most = 0, 0
  for index, answer in enumerate(said):
    count = sum(states(grader, t, answer) for t in whole) if answer else 0
    if count > most:
      best, most = index, count
  if 2 * most <= len(completions):
    return Label('', '', tuple(said), most)
  solution = '' if grader.form == 'open' else whole[best].strip()
  return Label(said[best], solution, tuple(said), most)
