"""Self-Instruct (Wang et al., ACL 2023, arXiv:2212.10560), as far as it goes.

The teacher's plain answers to new problems in the style of seed problems, each
problem once, all modules alike; answers are taught as they come. The original
has the model write the problems; here the domain draws them, so LaMini (Wu et
al., EACL 2024, arXiv:2304.14402), which writes from examples and from topics
and answers each once, comes to the same data and has no entry of its own.
"""

from ioa_jax.baselines.method import Method

METHOD = Method()
