"""CasCoD (Dai et al., EMNLP 2024, arXiv:2405.19842).

Question to rationale, then question and rationale to answer, `1 - alpha` and
`alpha` of the loss; rationales that end in a wrong answer are left out. The two
passes of its inference are one here: a greedy rationale is followed by the
answer that it conditions. An adaptation on text: its problems are a data set's,
here the teacher writes them as for Self-Instruct, and as many.
"""

from __future__ import annotations

from ioa_jax.baselines.answers import Answers
from ioa_jax.baselines.method import Method
from ioa_jax.models.vocabulary import Codec
from ioa_jax.records import Lesson
from ioa_jax.training import packing

ALPHA = 0.5


def examples(
  lesson: Lesson, codec: Codec, answers: Answers
) -> list[packing.Example]:
  """One sequence, whose two parts weigh as much as `ALPHA` says."""
  prompt = codec.prompt(lesson.problem)
  whole = codec.answer(lesson.completion)
  before = codec.answer(answers.rationale(lesson))[:-1]  # Without the end.
  # A piece that spans both parts is of the answer.
  rationale = next(
    (i for i, (a, b) in enumerate(zip(before, whole)) if a != b), len(before)
  )
  answer = len(whole) - rationale
  if not rationale:
    return [packing.Example(prompt, whole)]
  weights = [(1 - ALPHA) * len(whole) / rationale] * rationale
  weights += [ALPHA * len(whole) / answer] * answer
  return [packing.Example(prompt, whole, weights)]


METHOD = Method(examples=examples, identified=False)
