"""Models on probes: completions to scores."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
import math
from typing import NamedTuple

from ioa_jax.evaluation import intervals
from ioa_jax.records import Probe, Score


def score(
  probes: Sequence[Probe],
  completions: Sequence[str],
  grades: Sequence[float],
) -> tuple[dict[str, Score], dict[str, list[dict[str, str]]]]:
  """Scores of each module, and what was answered wrongly.

  Args:
    grades: how right each completion is, in [0, 1].

  Returns:
    Module to Score, in the order of the probes; module to what was not wholly
    right as `{prompt, answer, student}`, the worst first.

  Raises:
    ValueError: if a grade is no number in [0, 1].
  """
  wrong: dict[str, list[tuple[float, dict[str, str]]]] = {}
  for probe, completion, right in zip(probes, completions, grades, strict=True):
    if not 0 <= right <= 1:  # NaN compares with nothing.
      raise ValueError(
        f'a score of {right} for {probe.prompt[:60]!r}; wanted 0 to 1.'
      )
    if right < 1:
      answered = {
        'prompt': probe.prompt,
        'answer': probe.answer,
        'student': completion,
      }
      wrong.setdefault(probe.module, []).append((right, answered))
  worst_first = {
    k: [answered for _, answered in sorted(v, key=lambda pair: pair[0])]
    for k, v in wrong.items()
  }
  return of_modules(probes, grades), worst_first


def of_modules(
  probes: Sequence[Probe], marks: Sequence[float]
) -> dict[str, Score]:
  """The grades of each module together, in the order of the probes."""
  correct: dict[str, float] = {}
  asked: dict[str, int] = {}
  for probe, mark in zip(probes, marks, strict=True):
    asked[probe.module] = asked.get(probe.module, 0) + 1
    correct[probe.module] = correct.get(probe.module, 0) + mark
  return {k: Score(correct[k], n) for k, n in asked.items()}


def mean_score(scores: Mapping[str, Score]) -> float:
  """Mean over modules, each weighing the same whatever its probes."""
  return sum(s.mean for s in scores.values()) / len(scores)


def difference(
  after: Mapping[str, Score], before: Mapping[str, Score]
) -> tuple[float, float, float]:
  """`intervals.mean_difference` over the modules of `before`."""
  counts = lambda scores: [(scores[k].correct, scores[k].n) for k in before]
  return intervals.mean_difference(counts(after), counts(before))


class Loss(NamedTuple):
  """Of one reference answer: nats, summed over its tokens."""

  nats: float
  tokens: int


def mean_loss(
  probes: Sequence[Probe], losses: Sequence[Loss | None]
) -> dict[str, float]:
  """Nats per token, of modules that have a loss.

  Over tokens and not over answers, which differ in length.
  """
  total: dict[str, Loss] = {}
  for probe, loss in zip(probes, losses, strict=True):
    if loss is not None:
      nats, tokens = total.get(probe.module, Loss(0.0, 0))
      total[probe.module] = Loss(nats + loss.nats, tokens + loss.tokens)
  return {name: nats / tokens for name, (nats, tokens) in total.items()}


def pass_at_k(num_samples: int, num_correct: int, k: int) -> float:
  """The unbiased estimate of Chen et al. (2021), arXiv:2107.03374, Eq. 1.

  The share of k-subsets of the samples with a correct one in it; 1 - (1 - p)^k
  with p = c/n would be too low.

  Raises:
    ValueError: with fewer samples than k.
  """
  if not 0 <= num_correct <= num_samples or not 1 <= k <= num_samples:
    raise ValueError(
      f'pass@{k}: {num_correct} correct of {num_samples} samples; k must be '
      'between 1 and the number of samples.'
    )
  wrong = num_samples - num_correct
  return 1.0 - math.comb(wrong, k) / math.comb(num_samples, k)
