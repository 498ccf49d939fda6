"""Requests and lessons of the built-in domain: METHOD §4 for arithmetic.

The strategies that mean something here: *decompose* (ask for one level of
steps, each prerequisite a single call), *manage cognitive load* (smallest
operands first), *one fixed template*. Concretisation and plain language have no
meaning in bare formulas and are flagged false.

The problem of an item is an instance in the style of its seed; the solution is
the teacher's, and is kept only if the verifier confirms it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
import dataclasses

import numpy as np

from ioa_jax.domains import arithmetic
from ioa_jax.records import Lesson, Seed
from ioa_jax.teachers.ledger import Completion, Request

# Operand sizes of a stage's items, smallest first; remedial items are minimal;
# bridging items climb without leaving a level out.
_SIZES = {
  'stage': (0.25, 0.5, 1.0, 1.0),
  'rehearsal': (1.0,),
  'remedial': (0.5, 1.0),
  'bridging': (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.8, 1.0),
}


@dataclasses.dataclass(frozen=True)
class Item:
  """One lesson to be asked for."""

  problem: arithmetic.Problem
  answer_format: str
  kind: str
  seed: Seed
  stage_id: int
  round: int

  def request(self, teacher_name: str, max_tokens: int) -> Request:
    """Greedy: a confirmed solution has one form, so sampling adds errors."""
    return Request(
      model=teacher_name,
      prompt=self.problem.prompt(self.answer_format),
      temperature=0.0, top_k=0, top_p=1.0, max_tokens=max_tokens,
    )  # fmt: skip


def plan_items(
  module: str,
  seeds: Sequence[Seed],
  *,
  kind: str,
  items_per_seed: int,
  answer_format: str,
  smallest_first: bool,
  stage_id: int,
  round: int,
  rng: np.random.Generator,
) -> list[Item]:
  """`items_per_seed` new problems for each seed (Eq. 1's J), smallest first.

  Problems do not repeat within a call; a module with a small pool gives fewer.
  """
  sizes = _SIZES[kind] if smallest_first else (1.0,)
  total = len(seeds) * items_per_seed
  items: dict[str, Item] = {}
  for index in range(total):
    size = sizes[index * len(sizes) // total]
    for _ in range(20):
      problem = arithmetic.training_problem(module, rng, size)
      if problem.text not in items:
        items[problem.text] = Item(
          problem, answer_format, kind, seeds[index % len(seeds)], stage_id,
          round,
        )  # fmt: skip
        break
  return list(items.values())


def curate(
  items: Sequence[Item],
  requests: Sequence[Request],
  completions: Sequence[Completion],
) -> tuple[list[Lesson], Counter]:
  """Confirmed lessons with their lineage, and why the others were rejected."""
  lessons, rejected = [], Counter()
  for item, request, completion in zip(items, requests, completions):
    if completion.finish_reason != 'stop':
      rejected['truncated'] += 1
      continue
    text = completion.text
    reason = arithmetic.verify_lesson(item.problem, item.answer_format, text)
    if reason:
      rejected[reason] += 1
      continue
    lessons.append(_lesson(item, request, text))
  return lessons, rejected


def _lesson(item: Item, request: Request, text: str) -> Lesson:
  problem = item.problem
  module = next(m for m in arithmetic.MODULES if m.name == problem.module)
  decomposed = item.answer_format == 'steps'
  return Lesson(
    module=problem.module,
    prereq=module.prerequisites,
    difficulty_tag=problem.difficulty_tag,
    problem=request.prompt,
    completion=text,
    solution={
      'steps': text.split(';'),
      'final_answer': arithmetic.final_answer(text),
      'verification': 'every call recomputed, answer compared exactly',
    },
    adapter_flags={
      'concretization': False,
      'decomposition': decomposed and arithmetic.has_steps(problem.module),
      'cognitive_load': {
        'scale': problem.difficulty_tag,
        'notes': f'{item.kind}: operands {list(problem.operands)}',
      },
      'format_template': True,
      'simplified_language': False,
    },
    metadata={
      'stage_id': item.stage_id,
      'seed_style_ref': item.seed.problem,
      'kind': item.kind,
      'round': item.round,
      'teacher': request.model,
      'request': request.key(),
    },
  )
