"""Learning a teacher's distributions, which takes its weights.

The lessons are those of `uniform_steps`, so a difference to it is theirs.
"""

from ioa_jax.baselines.method import Method

# Hinton et al. (2015): the teacher's distribution at every token of its texts.
LOGITS = Method()

# GKD (Agarwal et al., 2024, arXiv:2306.13649): also at what the student writes.
ON_POLICY = Method()
