"""Self-Instruct (Wang et al., ACL 2023, arXiv:2212.10560), as far as it goes.

The teacher's plain answers to new problems in the style of seed problems, each
problem once, all modules alike; answers are taught as they come.

On text the teacher writes the problems: a request shows eight of the series,
and what repeats an earlier problem is dropped before it is answered.
Adaptations: all eight are seeds (the paper mixes in two of its own), and
near-duplicates are found as for every method (the paper: ROUGE-L from 0.7). On
built-in domains the domain draws the problems, and answers are direct.
"""

from ioa_jax.baselines.method import Method

METHOD = Method(identified=False)
