"""IOA and the other ways to spend the same tokens, by name.

All share the teacher, the student, the optimizer, the number of steps and the
evaluation, so a difference is the method's. What a method decides in the place
of the configuration is in `ioa_jax.config.methods`.
"""

from __future__ import annotations

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
