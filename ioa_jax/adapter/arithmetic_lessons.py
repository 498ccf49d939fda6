"""Requests and lessons of the built-in domain.

The strategies that mean something here: *decompose* (ask for one level of
steps, each prerequisite a single call), *manage cognitive load* (smallest
operands first), *one fixed template*. Concretisation and plain language have no
meaning in bare formulas and are flagged false.

The problem of an item is an instance in the style of its seed; the solution is
the teacher's, and is kept only if the verifier confirms it.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from ioa_jax.adapter import Level, verified_lessons
from ioa_jax.domains import arithmetic
from ioa_jax.records import Lesson, Probe

_NAMES = [m.name for m in arithmetic.MODULES]
_KINDS = ('stage', 'remedial', 'bridging', 'rehearsal')  # Order decides draws.

# Operand sizes of a stage's items, smallest first; remedial items are minimal;
# bridging items climb without leaving a level out.
_SIZES = {
  'stage': (0.25, 0.5, 1.0, 1.0),
  'rehearsal': (1.0,),
  'remedial': (0.5, 1.0),
  'bridging': (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.8, 1.0),
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Item(verified_lessons.Item):
  """One solution to be asked for."""

  problem: arithmetic.Problem
  answer_format: str

  def verify(self, text: str) -> str:
    return arithmetic.verify_lesson(self.problem, self.answer_format, text)

  def lesson(self, text: str) -> Lesson:
    return _lesson(self, text)


class ArithmeticAdapter(verified_lessons.VerifiedAdapter):
  """Lessons of the built-in domain, see the top."""

  def practice(self, module: str, round: int) -> tuple[Probe, ...]:
    """None: requests of this domain show nothing that the student wrote."""
    del module, round
    return ()

  def plan(
    self,
    module: str,
    kind: str,
    *,
    stage: int,
    round: int,
    level: Level,
  ) -> list[Item]:
    """New problems for each seed, smallest first.

    Problems do not repeat within a call; a module with a small pool gives
    fewer. The student's level is not needed: every problem of a module
    exercises each of its calls.
    """
    del level
    # First lessons do not depend on when they come, so that methods which order
    # differently are taught from the same ones.
    when = stage if kind == 'remedial' else 0
    rng = np.random.default_rng(
      [self._seed, _NAMES.index(module), when, round, _KINDS.index(kind)]
    )
    seeds = arithmetic.seeds(module, self._amounts.seeds_per_module)
    sizes = _SIZES[kind] if self._smallest_first else (1.0,)
    total = len(seeds) * self._amounts.per_seed(kind)
    items: dict[str, Item] = {}
    for index in range(total):
      size = sizes[index * len(sizes) // total]
      for _ in range(20):
        problem = arithmetic.training_problem(module, rng, size)
        if problem.text not in items:
          items[problem.text] = Item(
            problem=problem,
            answer_format=self._answer_format,
            kind=kind,
            seed=seeds[index % len(seeds)],
            stage=stage,
            round=round,
            request=self._request(problem.prompt(self._answer_format)),
          )
          break
    return list(items.values())


def _lesson(item: Item, text: str) -> Lesson:
  problem = item.problem
  module = next(m for m in arithmetic.MODULES if m.name == problem.module)
  decomposed = item.answer_format == 'steps'
  return Lesson(
    module=problem.module,
    prereq=module.prerequisites,
    difficulty_tag=problem.difficulty_tag,
    problem=item.request.prompt,
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
    metadata=item.lineage(),
  )
