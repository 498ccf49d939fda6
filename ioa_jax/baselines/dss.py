"""Distilling Step-by-Step (Hsieh et al., ACL 2023, arXiv:2305.02301).

Two tasks for each problem, told apart by the prompt: the label alone and the
rationale, `alpha` and `1 - alpha` of the loss. The label is where the teacher's
rationale ended. As in the paper, the student is asked for labels only.

Adaptations on text: the label's prompt is the problem as every student is asked
it, and `[rationale]` stands before the other alone; problems are written as for
Self-Instruct, and as many, where the paper has a data set's.
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
  """The label and the rationale; the former only if there are no steps."""
  label = codec.answer(answers.label(lesson))
  direct = codec.prompt(answers.label_prompt(lesson.problem))
  rationale = codec.answer(lesson.completion)
  if rationale == label:
    return [packing.Example(direct, label)]
  # The mean over each task's tokens counts, scaled so that a token weighs 1 in
  # the mean.
  total = len(label) + len(rationale)
  return [
    packing.Example(direct, label, [ALPHA * total / len(label)] * len(label)),
    packing.Example(
      codec.prompt(answers.rationale_prompt(lesson.problem)),
      rationale,
      [(1 - ALPHA) * total / len(rationale)] * len(rationale),
    ),
  ]


METHOD = Method(examples=examples, max_examples=2, identified=False)
