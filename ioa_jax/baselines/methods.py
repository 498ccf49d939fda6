"""IOA and the other ways to spend the same tokens, by name.

All share the teacher, the student, the optimizer, the number of steps and the
evaluation, so a difference is the method's.
"""

from __future__ import annotations

from typing import Any

import ml_collections

from ioa_jax.baselines import (
  cascod,
  controls,
  distillation,
  dss,
  lion,
  self_instruct,
  star_agents,
)
from ioa_jax.baselines.method import Method

METHODS: dict[str, Method] = {
  'ioa': Method(order='prerequisites', gated=True, weighting='need'),
  **controls.CONTROLS,
  'self_instruct': self_instruct.METHOD,
  'lion': lion.METHOD,
  'dss': dss.METHOD,
  'cascod': cascod.METHOD,
  'star_agents': star_agents.METHOD,
  'logit_distillation': distillation.LOGITS,
  'on_policy_distillation': distillation.ON_POLICY,
}


def answer_format(config: ml_collections.ConfigDict) -> str:
  """The format of probes: the method's, else the configured."""
  return METHODS[config.method].answer_format or config.adapter.answer_format


def lesson_format(config: ml_collections.ConfigDict) -> str:
  """The format of lessons: the method's, else that of the probes."""
  return METHODS[config.method].lesson_format or answer_format(config)


def distillation_fields(config: ml_collections.ConfigDict) -> dict[str, Any]:
  """`config.distillation`, and the method's where it is off there."""
  set_here = {k: v for k, v in config.distillation.items() if v}
  if config.distillation.divergence == 'none':
    del set_here['divergence']
  method = METHODS[config.method].distillation
  return {**config.distillation, **method, **set_here}
