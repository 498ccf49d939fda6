"""Lion (Jiang et al., EMNLP 2023, arXiv:2305.12870).

Rounds of imitating, telling hard from easy, and generating as much hard as easy
material. Here the referee is the exact verifier on the gate probes, a round is
a probing round, and hard and easy modules get half of the batch each, in
proportion to what the student fails and to what it can. Answers are in steps,
as its prompts ask for detail.
"""

from ioa_jax.baselines.method import Method

METHOD = Method(weighting='contrast')
