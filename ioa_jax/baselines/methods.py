"""IOA and the other ways to spend the same tokens, by name.

All share the teacher, the student, the optimizer, the number of steps and the
evaluation, so a difference is the method's. What a method decides in the place
of the configuration is in `ioa_jax.config.methods`.
"""

from __future__ import annotations

import ml_collections

from ioa_jax.baselines import (
  cascod,
  controls,
  distillation,
  dss,
  lamini,
  lion,
  self_instruct,
  star_agents,
)
from ioa_jax.baselines.method import Method

METHODS: dict[str, Method] = {
  'ioa': Method(order='prerequisites', gated=True, weighting='need'),
  **controls.CONTROLS,
  'self_instruct': self_instruct.METHOD,
  'lamini': lamini.METHOD,
  'lion': lion.METHOD,
  'dss': dss.METHOD,
  'cascod': cascod.METHOD,
  'star_agents': star_agents.METHOD,
  'logit_distillation': distillation.LOGITS,
  'on_policy_distillation': distillation.ON_POLICY,
}

# Where text is another matter than formulas.
_TEXT = {'lion': lion.TEXT}


def of(config: ml_collections.ConfigDict) -> Method:
  """The method of a configuration, on its domain."""
  found = METHODS[config.method]
  is_text = config.domain.kind == 'text'
  return _TEXT.get(config.method, found) if is_text else found
