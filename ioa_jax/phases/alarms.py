"""Which modules have lost what they could: seen while there is time."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from ioa_jax.evaluation import scoring
from ioa_jax.records import Probing, Score


class Alarms:
  """Holds each module's score against the one that it once had.

  That is the diagnosis's for a module that was known, and for one that was
  taught the score with which its stage was mastered.

  Attributes:
    fallen: modules whose latest score is lower, by more than the interval.
  """

  def __init__(self, known: Mapping[str, Score]):
    self._could = dict(known)
    self.fallen: tuple[str, ...] = ()

  def hear(self, probing: Probing, taught: Iterable[str]) -> tuple[str, ...]:
    """Takes one probing round; returns what has fallen in it, not before it.

    Args:
      taught: modules of the round's stage.
    """
    before, fallen = self.fallen, set(self.fallen)
    for name, score in probing.scores.items():
      fallen.discard(name)
      if name not in self._could:
        continue
      _, _, high = scoring.difference({name: score}, {name: self._could[name]})
      if high < 0:
        fallen.add(name)
    if probing.decision == 'advance':
      found = probing.scores
      self._could |= {k: found[k] for k in taught if k in found}
      fallen -= set(taught)
    self.fallen = tuple(sorted(fallen))
    return tuple(name for name in self.fallen if name not in before)

  def was(self, name: str) -> Score:
    """What the module is held against."""
    return self._could[name]
