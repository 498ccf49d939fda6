"""The built-in domain of operations that call each other; see `operations`.

Probes. Each module reserves problems for three splits: 'gate' decides mastery,
'development' is what defaults are chosen on, 'held_out' is for final tables. No
training text contains a reserved problem, neither as its problem nor as a call
of its answer: `training_problem` draws again until that holds. In the last part
of the held-out probes nothing was ever shown: each of their calls, the calls of
those, and so on, is reserved as well.

A module that others call is probed in both ways, worked and at once: who calls
it must know the value.
"""

from __future__ import annotations

from collections.abc import Iterator
import functools
import itertools

import numpy as np

from ioa_jax.domains import arithmetic, operations, tokenizer
from ioa_jax.domains.operations import MODULES as MODULES
from ioa_jax.domains.operations import Problem
from ioa_jax.records import Probe, Seed

SPLITS = {'gate': 64, 'development': 48, 'held_out': 64}
UNSEEN = 24  # The last ones of 'held_out'.
# What the shipped base student has seen. The teacher has seen everything.
EASY_MODULES = tuple(m.name for m in MODULES[:4])
MULTI_STEP = tuple(m.name for m in MODULES if m.level)
_SPLIT_SEED = 20261128  # Which problems are probes; never a run's seed.
_NAMES = [m.name for m in MODULES]
# Answers of both built-in domains end alike.
final_answer = arithmetic.final_answer
is_correct = arithmetic.is_correct
score = arithmetic.score


def build_tokenizer():
  """Digits, marks of the grammar and of `generic` texts, and a token a word."""
  return tokenizer.build('0123456789+-|=:;,@<', operations.WORDS)


def _atoms(problem: Problem) -> Iterator[Problem]:
  """A problem, its calls, their calls, and so on."""
  yield problem.canonical
  for call in problem.calls:
    yield from _atoms(call)


def _unseen(name: str) -> Iterator[Problem]:
  """Problems of few numbers, the same in modules that draw from the same ones.

  So what they are made of takes little from the lessons.
  """
  arity = operations.arity(name)
  count = 2 * UNSEEN if arity == 1 else 8
  rng = np.random.default_rng([_SPLIT_SEED, 2, arity])
  numbers = (np.arange(count) + rng.random(count)) / count
  grid = list(itertools.product(numbers, repeat=arity))
  for index in rng.permutation(len(grid)):
    yield operations.at(name, grid[index])


@functools.cache
def _reserved() -> tuple[dict[str, list[Problem]], frozenset[Problem]]:
  """The probes of every module, and what no training text may show."""
  probes, hidden = {}, set()
  total = sum(SPLITS.values())
  for index, name in enumerate(_NAMES):
    rng = np.random.default_rng([_SPLIT_SEED, index])
    chosen: dict[Problem, Problem] = {}
    while len(chosen) < total - UNSEEN:
      problem = operations.draw(name, rng)
      chosen.setdefault(problem.canonical, problem)
    for problem in _unseen(name):
      if len(chosen) < total:
        chosen.setdefault(problem.canonical, problem)
    assert len(chosen) == total, name
    probes[name] = list(chosen.values())
    hidden.update(chosen)
    for problem in probes[name][-UNSEEN:]:
      hidden.update(_atoms(problem))
  return probes, frozenset(hidden)


def is_reserved(problem: Problem) -> bool:
  """Whether training on `problem`, in any format, would show a probe or what
  the last held-out ones are made of."""
  hidden = _reserved()[1]
  shown = (problem, *problem.calls)
  return any(p.canonical in hidden for p in shown)


def training_problem(
  module: str, rng: np.random.Generator, low: float = 0.0, high: float = 1.0
) -> Problem:
  """Draws a problem that neither is nor contains a reserved one.

  Args:
    module: name of the module.
    rng: NumPy generator, advanced.
    low, high: difficulties of the operands, in [0, 1].

  Raises:
    ValueError: if there is none so difficult.
  """
  for _ in range(1000):
    problem = operations.draw(module, rng, low, high)
    if not is_reserved(problem):
      return problem
  raise ValueError(
    f'{module}: no free problem of difficulty {low} to {high}; every draw of '
    '1000 is a probe or contains one. Use a wider range.'
  )


def probes(split: str, answer_format: str = 'steps') -> tuple[Probe, ...]:
  """All probes of a split, one of SPLITS, grouped by module.

  Splits and training text are disjoint; they do not depend on a run's seed, so
  scores of different runs are comparable.
  """
  before = sum(SPLITS[s] for s in list(SPLITS)[: list(SPLITS).index(split)])
  return tuple(
    Probe(
      probe_id=f'{split}/{name}/{i}',
      module=name,
      prompt=problem.prompt(way),
      reference=problem.completion(way),
      answer=problem.answer,
    )
    for name, problems in _reserved()[0].items()
    for i, problem in enumerate(problems[before : before + SPLITS[split]])
    for way in [way_of(name, i, answer_format)]
  )


def way_of(module: str, index: int, answer_format: str) -> str:
  """In turns for what others call, whose value must be known at once."""
  if module in operations.CALLED and index % 2:
    return 'direct'
  return answer_format


def is_unseen(probe: Probe) -> bool:
  """Whether no lesson shows anything that its worked answer is made of."""
  split, _, rest = probe.probe_id.partition('/')
  index = int(rest.rpartition('/')[2])
  return split == 'held_out' and index >= SPLITS[split] - UNSEEN


def seeds(module: str, count: int) -> tuple[Seed, ...]:
  """Example problems of a module, never probes, the same for every run."""
  rng = np.random.default_rng([_SPLIT_SEED, 1, _NAMES.index(module)])
  found = (training_problem(module, rng) for _ in range(count))
  return tuple(Seed(module, p.text, p.answer) for p in found)


def _stated(completion: str) -> Iterator[tuple[Problem | None, str]]:
  """The calls that a text states, None for what is no call, and results."""
  for part in completion.split(';'):
    left, _, result = part.rpartition('=')
    yield operations.parse(left), result


def first_wrong_call(
  problem: Problem, completion: str
) -> tuple[str, Problem] | None:
  """Where an answer goes wrong: what should have been known, and was not.

  Args:
    completion: worked or at once; may be anything.

  Returns:
    The module and the problem of the first call whose result is false; of
    `problem` itself where its calls are true and it is not solved, or are no
    calls. None if the answer is right.
  """
  if is_correct(completion, problem.answer):
    return None
  for call, result in _stated(completion):
    if call is None:
      break
    if result != call.answer:
      return call.module, call
  return problem.module, problem


def steps_hold(completion: str) -> bool:
  """Whether a worked answer is a chain of calls, and each of them true."""
  return all(
    call is not None and result == call.answer
    for call, result in _stated(completion)
  )


def verify_lesson(problem: Problem, answer_format: str, text: str) -> str:
  """'' if a teacher's completion may become a lesson, else the reason not."""
  shown = [call for call, _ in _stated(text) if call is not None]
  if any(call.canonical in _reserved()[1] for call in shown):
    return 'contains_probe'
  if not is_correct(text, problem.answer):
    return 'wrong_answer'
  if problem.is_worked(answer_format) and not steps_hold(text):
    return 'wrong_step'
  return ''
