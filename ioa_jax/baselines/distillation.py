"""Learning a teacher's distributions, which takes its weights.

The lessons are those of `uniform_steps`, so a difference to it is theirs.
"""

from ioa_jax.baselines.method import Method

# Hinton et al. (2015): the teacher's distribution at every token of its texts.
LOGITS = Method(distillation={'divergence': 'forward_kl'})
