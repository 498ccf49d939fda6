"""IOA and the other ways to spend the same tokens, as one table of switches.

All share the teacher, the lessons' format, the student, the optimizer, the
number of steps and the evaluation, so a difference is the method's.
"""

from __future__ import annotations

import dataclasses

import ml_collections


@dataclasses.dataclass(frozen=True)
class Method:
  """What a method does with the lessons.

  Attributes:
    ordered: stages by prerequisites; else one stage of everything.
    gated: a stage is left by mastery and remediated without it; else it takes
      its share of the steps.
    weighting: 'need' re-weighs modules at every probing round, 'gap' keeps the
      weights of the diagnosis, 'uniform' treats all modules alike.
    answer_format: 'steps' or 'direct', or None for the configured one.
  """

  ordered: bool
  gated: bool
  weighting: str
  answer_format: str | None = None


METHODS = {
  'ioa': Method(ordered=True, gated=True, weighting='need'),
  # Controls: what order, gate and re-measuring are each worth.
  'ordered_no_gate': Method(ordered=True, gated=False, weighting='need'),
  'need_weighted': Method(ordered=False, gated=False, weighting='need'),
  'gap_weighted': Method(ordered=False, gated=False, weighting='gap'),
  'uniform_steps': Method(ordered=False, gated=False, weighting='uniform'),
  'uniform_direct': Method(
    ordered=False, gated=False, weighting='uniform', answer_format='direct'
  ),
}


def answer_format(config: ml_collections.ConfigDict) -> str:
  """The format of lessons and probes: the method's, else the configured."""
  return METHODS[config.method].answer_format or config.adapter.answer_format
