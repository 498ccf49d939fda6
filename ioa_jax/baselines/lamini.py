"""LaMini (Wu et al., EACL 2024, arXiv:2304.14402).

Problems that a chat model writes, half of them from examples alone and half
from examples and a topic, each answered once by the same model, and taught as
answered, all modules alike. Adaptations on text: a topic is one of eight places
instead of a category of Wikipedia, and one problem is asked for at a time.

Built-in domains draw their problems, so topics mean nothing there. What stays
apart from Self-Instruct is the answer: a chat model's, with its steps.
"""

from ioa_jax.baselines.method import Method

METHOD = Method(identified=False)
