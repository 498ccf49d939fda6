"""Which weights a run exports: the last, or better ones that it had before."""

from __future__ import annotations

from collections.abc import Mapping
import dataclasses
from typing import Any

from ioa_jax.assemble import Run
from ioa_jax.evaluation import scoring
from ioa_jax.phases import exams
from ioa_jax.records import Score
from ioa_jax.training.trainer import Trainer


@dataclasses.dataclass(frozen=True)
class Kept:
  """What trains (all weights, or adapters), and the step it is of."""

  step: int
  trained: Any


def choose(run: Run, trainer: Trainer) -> Kept:
  """The last weights, unless earlier ones answer more gate probes.

  More is more than the interval: of weights that answer alike, those that were
  taught longest are taken. The held-out probes have no say, so they still tell
  how good the choice is.
  """
  step, best = trainer.best()
  last = Kept(trainer.step, trainer.trained())
  if best is None or step == last.step:
    return last
  scores = [
    _exam(run, trainer, trained, what)
    for trained, what in ((last.trained, 'last'), (best, 'best'))
  ]
  if not lost(*scores):
    return last
  after, before = map(scoring.mean_score, scores)
  run.display.say(
    f'The last weights answer {after:.0%} of the gate probes, those after '
    f'{step} steps {before:.0%}; '
    + (
      'these are exported.'
      if step
      else 'that is the student as it came, and it is exported.'
    )
  )
  return Kept(step, best)


def _exam(run, trainer, trained, what) -> dict[str, Score]:
  marks = exams.of_student(
    run,
    trainer.assembled(trained),
    run.probes('gate'),
    f'probing the {what} weights',
  )
  return marks.scores


def lost(last: Mapping[str, Score], best: Mapping[str, Score]) -> bool:
  """Whether the last weights answer less, by more than the interval."""
  _, _, high = scoring.difference(last, best)
  return high < 0
