"""Lion (Jiang et al., EMNLP 2023, arXiv:2305.12870).

Rounds of imitating, telling hard from easy, and generating as much hard as easy
material.

On text (`TEXT`) there are the paper's three rounds, of equal steps and equal
parts of the lessons. Between them the student answers problems of its lessons;
a referee, the teacher, gives marks to its answers and the teacher's own, in
both orders, and a problem is hard if the teacher leads by a mark or more, in
the mean. Half of the new problems follow hard ones, half easy ones.
Adaptations: a round learns from what came before it too, not from its own
problems alone; the referee sees at most `JUDGED` problems of a module in a
round.

On built-in domains (`METHOD`) the referee is the exact verifier on the gate
probes, a round is a probing round, and hard and easy modules get half of the
batch each, in proportion to what the student fails and to what it can. Answers
are in steps, as its prompts ask for detail.
"""

from ioa_jax.baselines.method import Method

HARD_FROM = 1.0  # Marks by which the teacher leads; tau of the paper.
JUDGED = 16

METHOD = Method(weighting='contrast', identified=False)
TEXT = Method(order='rounds', rounds_of_its_own=2, identified=False)
