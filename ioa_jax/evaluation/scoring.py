"""Models on probes: completions to scores."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from ioa_jax.records import Probe, Score


def score(
  probes: Sequence[Probe],
  completions: Sequence[str],
  is_correct: Callable[[str, str], bool],
) -> tuple[dict[str, Score], dict[str, list[dict[str, str]]]]:
  """Scores of each module, and what was answered wrongly.

  Args:
    is_correct: takes a completion and the reference answer.

  Returns:
    Module to Score, in the order of the probes; module to wrong answers as
    `{prompt, answer, student}`.
  """
  correct: dict[str, int] = {}
  asked: dict[str, int] = {}
  wrong: dict[str, list[dict[str, str]]] = {}
  for probe, completion in zip(probes, completions, strict=True):
    right = is_correct(completion, probe.answer)
    asked[probe.module] = asked.get(probe.module, 0) + 1
    correct[probe.module] = correct.get(probe.module, 0) + right
    if not right:
      wrong.setdefault(probe.module, []).append({
        'prompt': probe.prompt, 'answer': probe.answer, 'student': completion
      })  # fmt: skip
  return {k: Score(correct[k], n) for k, n in asked.items()}, wrong


def mean_score(scores: Mapping[str, Score]) -> float:
  """Mean over modules, each weighing the same whatever its probes."""
  return sum(s.mean for s in scores.values()) / len(scores)
