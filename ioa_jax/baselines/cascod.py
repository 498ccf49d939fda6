"""CasCoD (Dai et al., EMNLP 2024, arXiv:2405.19842).

Question to rationale, then question and rationale to answer, `1 - alpha` and
`alpha` of the loss. The two passes of its inference are one here: a greedy
rationale is followed by the answer that it conditions.
"""

from __future__ import annotations

from ioa_jax.baselines.method import Method
from ioa_jax.models.vocabulary import Codec
from ioa_jax.records import Lesson
from ioa_jax.training import packing

ALPHA = 0.5


def examples(lesson: Lesson, codec: Codec) -> list[packing.Example]:
  """One sequence, whose two parts weigh as much as `ALPHA` says."""
  prompt = codec.prompt(lesson.problem)
  whole = codec.answer(lesson.completion)
  before = lesson.completion.rpartition(lesson.solution['final_answer'])[0]
  rationale = len(codec.answer(before)) - 1  # Without the end.
  answer = len(whole) - rationale
  if not rationale:
    return [packing.Example(prompt, whole)]
  weights = [(1 - ALPHA) * len(whole) / rationale] * rationale
  weights += [ALPHA * len(whole) / answer] * answer
  return [packing.Example(prompt, whole, weights)]


METHOD = Method(examples=examples)
