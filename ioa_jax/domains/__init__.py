"""What can be taught."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from ioa_jax.records import KnowledgeModule, Probe, Seed


class Domain(Protocol):
  """A domain; the module `arithmetic` is one as it stands.

  Attributes:
    MODULES: prerequisites before what stands on them.
  """

  MODULES: Sequence[KnowledgeModule]

  def probes(self, split: str, answer_format: str) -> tuple[Probe, ...]:
    """Probes of a split, the same for every run.

    Args:
      split: 'gate', or what `domain.evaluate_on` names.
    """
    ...

  def seeds(self, module: str, count: int) -> tuple[Seed, ...]:
    """At most `count` examples of a module; none is a probe."""
    ...

  def score(self, completion: str, answer: str) -> float:
    """In [0, 1], however the completion got to its answer."""
    ...
