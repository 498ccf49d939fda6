"""Requests and lessons of the domain of operations that call each other.

What the kinds of request differ in:

  stage, rehearsal  problems as difficult as the probes, all of their range
  bridging          one notch above what the student can do
  remedial          the first wrong call of each of the student's wrong answers,
                    from its smallest instances up to the one that failed

Lessons of what others call are worked and at once in turns: a call shows only
its result, so its value must be known. The solution is the teacher's, and is
kept only if the verifier confirms it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
import dataclasses

import numpy as np

from ioa_jax.adapter import Level, practice, verified_lessons
from ioa_jax.domains import composition, operations
from ioa_jax.records import DIFFICULTIES, Lesson, Probe

_MODULES = {m.name: m for m in composition.MODULES}
_NAMES = list(_MODULES)
_KINDS = ('stage', 'remedial', 'bridging', 'rehearsal')  # Order decides draws.
_PRACTICE = len(_KINDS)  # Draws of its own.
# Of the difficulties in [0, 1]: how far bridging goes beyond the student, and
# the least range that problems are drawn from.
_NOTCH = 0.25
_LEAST_RANGE = 0.1
# Where a range holds no further problem, it grows upwards by these.
_WIDER = (0.0, 0.1, 0.3, 1.0)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Item(verified_lessons.Item):
  """One solution to be asked for.

  Attributes:
    way: 'steps' or 'direct'.
  """

  problem: operations.Problem
  way: str

  def verify(self, text: str) -> str:
    return composition.verify_lesson(self.problem, self.way, text)

  def lesson(self, text: str) -> Lesson:
    return _lesson(self, text)


@dataclasses.dataclass(frozen=True)
class _Wanted:
  """A problem to be drawn: of which module, asked how, how difficult."""

  module: str
  way: str
  low: float
  high: float


class CompositionAdapter(verified_lessons.VerifiedAdapter):
  """Lessons of the domain, see the top."""

  def practice(self, module: str, round: int) -> tuple[Probe, ...]:
    """New training problems as probes are asked, others in each round."""
    rng = np.random.default_rng(
      [self._seed, _NAMES.index(module), round, _PRACTICE]
    )
    found = []
    for i in range(practice.COUNT):
      problem = composition.training_problem(module, rng)
      way = composition.way_of(module, i, self._answer_format)
      found.append(
        Probe(
          probe_id=f'practice/{module}/{round}/{i}',
          module=module,
          prompt=problem.prompt(way),
          reference=problem.completion(way),
          answer=problem.answer,
        )
      )
    return tuple(found)

  def plan(
    self, module: str, kind: str, *, stage: int, round: int, level: Level
  ) -> list[Item]:
    """New problems for each seed, as the kind asks for.

    Problems do not repeat within a call; where no other is left there are
    fewer.
    """
    # First lessons do not depend on when they come, so that methods which order
    # differently are taught from the same ones.
    when = stage if kind == 'remedial' else 0
    rng = np.random.default_rng(
      [self._seed, _NAMES.index(module), when, round, _KINDS.index(kind)]
    )
    seeds = composition.seeds(module, self._amounts.seeds_per_module)
    total = len(seeds) * self._amounts.per_seed(kind)
    problems: dict[str, tuple[operations.Problem, str]] = {}
    for wanted in self._wanted(module, kind, total, level):
      problem = _draw(wanted, rng, problems)
      if problem:
        problems[problem.prompt(wanted.way)] = problem, wanted.way
    if self._smallest_first and kind == 'stage':
      by_difficulty = lambda item: item[1][0].difficulty
      problems = dict(sorted(problems.items(), key=by_difficulty))
    return [
      Item(
        problem=problem,
        way=way,
        kind=kind,
        seed=seeds[index % len(seeds)],
        stage=stage,
        round=round,
        request=self._request(prompt),
      )
      for index, (prompt, (problem, way)) in enumerate(problems.items())
    ]

  def _wanted(
    self, module: str, kind: str, total: int, level: Level
  ) -> Iterator[_Wanted]:
    if kind == 'remedial':
      anything = _Wanted(module, self._answer_format, 0.0, 1.0)
      failed = _failed_calls(level) or [anything]
      for index in range(total):
        yield _instance(failed, index, total)
      return
    low, high = 0.0, 1.0
    if kind == 'bridging':
      # A student that solves a share of the problems solves the easiest ones.
      low = min(level.score or 0.0, 1 - _NOTCH)
      high = low + _NOTCH
    for index in range(total):
      way = composition.way_of(module, index, self._answer_format)
      yield _Wanted(module, way, low, high)


def _failed_calls(level: Level) -> list[_Wanted]:
  """What went wrong first in each wrong answer, up to where it failed.

  A call failed at once; what is not a call's fault failed as it was asked.
  """
  found = {}
  for wrong in level.wrong:
    problem = operations.parse(wrong['prompt'][:-1])
    if problem is None:
      continue
    failed = composition.first_wrong_call(problem, wrong['student'])
    if failed is not None:
      module, call = failed
      asked = 'steps' if wrong['prompt'].endswith(':') else 'direct'
      way = asked if call == problem else 'direct'
      found[module, way] = max(call.difficulty, found.get((module, way), 0.0))
  return [_Wanted(*key, 0.0, high) for key, high in found.items()]


def _instance(failed: Sequence[_Wanted], index: int, total: int) -> _Wanted:
  """The calls in turns, the smallest instances of each first."""
  wanted = failed[index % len(failed)]
  rounds = -(-total // len(failed))
  at = index // len(failed) / rounds
  high = max(wanted.high, _LEAST_RANGE)
  low = at * (high - _LEAST_RANGE)
  return dataclasses.replace(wanted, low=low, high=low + _LEAST_RANGE)


def _draw(wanted: _Wanted, rng, taken) -> operations.Problem | None:
  """As it is wanted, or a little more difficult; none that is taken."""
  for wider in _WIDER:
    for _ in range(20):
      problem = operations.draw(
        wanted.module, rng, wanted.low, min(1.0, wanted.high + wider)
      )
      if problem.prompt(wanted.way) in taken:
        continue
      if not composition.is_reserved(problem):
        return problem
  return None


def _lesson(item: Item, text: str) -> Lesson:
  """A lesson of the module that it was asked for.

  A remedial one may be of what that module calls; its own module is told.
  """
  problem = item.problem
  tag = DIFFICULTIES[min(2, int(3 * problem.difficulty))]
  return Lesson(
    module=item.seed.module,
    prereq=_MODULES[item.seed.module].prerequisites,
    difficulty_tag=tag,
    problem=item.request.prompt,
    completion=text,
    solution={
      'steps': text.split(';'),
      'final_answer': composition.final_answer(text),
      'verification': 'every call recomputed, answer compared exactly',
    },
    adapter_flags={
      'concretization': False,
      'decomposition': problem.is_worked(item.way),
      'cognitive_load': {
        'scale': tag,
        'notes': f'{item.kind}: {problem.module} of {list(problem.operands)}',
      },
      'format_template': True,
      'simplified_language': False,
    },
    metadata={**item.lineage(), 'trains': problem.module},
  )
