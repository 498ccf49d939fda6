"""Targets to a timed curriculum: the record `curriculum.json`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
import dataclasses
import math

from ioa_jax.identifier import diagnosis as diagnosis_lib
from ioa_jax.identifier import gaps
from ioa_jax.organizer import stages as stages_lib
from ioa_jax.records import (
  Curriculum,
  KnowledgeModule,
  ModuleDiagnosis,
  Stage,
  Zone,
  ZpdCheck,
)


class NothingToTeach(ValueError):
  """No module is deficient: the student already knows what the teacher does."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Rules:
  """How stages are made, `config.organizer`.

  Attributes:
    tau_zpd, zpd: see `stages.zpd_check`.
    response: what a student's readiness for a module is: 'exact', its score on
      the gate probes, or 'likelihood', which the reference answers have for it
      (per token), and which still differs where every score is 0.
    min_stage_modules: stages of fewer are merged, since little material is
      learned by heart; 1 never puts a prerequisite beside what needs it.
    consolidation_share: of all steps, for all targets together at the end.
  """

  tau_zpd: float
  zpd: str
  response: str
  min_stage_modules: int
  consolidation_share: float


@dataclasses.dataclass(frozen=True, kw_only=True)
class Budget:
  """The optimizer steps that stages share.

  Attributes:
    remedial_share: steps of a remedial round, as a share of the stage's own.
  """

  total_steps: int
  probe_every_steps: int
  max_rounds: int
  remedial_share: float


def organise(
  diagnosed: Mapping[str, ModuleDiagnosis],
  rules: Rules,
  budget: Budget,
  *,
  order: str | None,
  identified: bool,
  length: Mapping[str, float],
  seed: int,
) -> Curriculum:
  """Stages with their step budgets (paper, section 3.2).

  Steps are shared among stages by the gaps they hold, since a stage with more
  to learn needs longer; all remedial rounds of all stages fit beside the share
  of consolidation, unless `overrun` says that they cannot. What stages save by
  passing early goes to the last one, which consolidates all targets together.

  Args:
    order: 'prerequisites'; or as many stages of the same sizes by 'length',
      shortest first, or at 'random'; None gives one stage of everything, held
      to the end; 'rounds' one of everything whose rounds are equally long.
    identified: False makes known modules targets as well; else they are
      rehearsed.
    length: of each module's answers, in any unit.
    seed: of a random order.

  Raises:
    NothingToTeach: if no module is a target.
  """
  of_status = lambda status: [
    k for k, m in diagnosed.items() if m.status == status
  ]
  targets, known = of_status('target'), of_status('known')
  _require_targets(targets, known)
  if order in (None, 'rounds'):
    everything = [k for k in diagnosed if k in {*targets, *known}]
    student = _readiness(diagnosed, everything, rules.response)
    timed = [_stage(everything, 'consolidate', student, budget.total_steps, 0)]
    if order == 'rounds':
      steps = _equal_rounds(budget)
      timed.insert(0, _stage(everything, 'teach', student, steps, steps))
    # Known modules have the lessons that they have beside stages, so methods
    # differ in order and weights and not in what there is to read.
    rehearsed = known if identified else []
    return _curriculum(timed, rehearsed, [], rules, budget)
  if not identified:
    targets, known = [k for k in diagnosed if k in {*targets, *known}], []
  student = _readiness(diagnosed, targets, rules.response)
  zone = dict(tau_zpd=rules.tau_zpd, zpd=rules.zpd)
  graph = gaps.prerequisite_graph(diagnosis_lib.modules_of(diagnosed))
  ordered_stages = stages_lib.build_stages(
    targets, graph, student, min_modules=rules.min_stage_modules, **zone
  )
  if order != 'prerequisites':
    ordered_stages = stages_lib.reorder(ordered_stages, order, length, seed)
  checks = stages_lib.check_stages(ordered_stages, student, **zone)
  need = [
    sum(diagnosed[k].gap for k in s) if identified else len(s)
    for s in ordered_stages
  ]
  steps = _shared(need, rules.consolidation_share, budget)
  timed = [
    _stage(names, 'teach', student, own, _remedial_steps(own, budget))
    for names, own in zip(ordered_stages, steps, strict=True)
  ]
  timed.append(_stage(targets, 'consolidate', student, budget.total_steps, 0))
  return _curriculum(timed, known, checks, rules, budget)


def _require_targets(targets, known):
  if not targets and not known:
    raise NothingToTeach(
      'the teacher answers no gate probe of any module correctly, so it cannot '
      'teach them. Check its answers in ledger.sqlite against the domain and '
      'its grader.'
    )
  if not targets:
    raise NothingToTeach(
      'no module has a gap above identifier.tau_gap; the student already knows '
      'what this domain teaches. Lower --config.identifier.tau_gap or choose '
      'another domain.'
    )


def planned(
  modules: Sequence[KnowledgeModule], min_modules: int
) -> list[list[str]]:
  """The stages if everything is to be taught, before anything is measured."""
  names = [m.name for m in modules]
  graph = gaps.prerequisite_graph(modules)
  even = dict.fromkeys(names, 1.0)
  return stages_lib.build_stages(
    names, graph, even, tau_zpd=0.0, zpd='readiness', min_modules=min_modules
  )


def overrun(
  stages: Sequence[Sequence[str]], consolidation_share: float, budget: Budget
) -> str:
  """Which stages cannot have their steps, and what would help; '' if all can.

  A stage and each of its remedial rounds take a probing interval at least.
  """
  every, rounds = budget.probe_every_steps, budget.max_rounds
  least, room = every * (1 + rounds), _room(consolidation_share, budget)
  fits = room // least
  if len(stages) <= fits:
    return ''
  late = ', '.join(name for stage in stages[fits:] for name in stage)
  enough = least_steps(len(stages), least, consolidation_share)
  return (
    f'{len(stages)} stages with {rounds} remedial rounds each take at least '
    f'{len(stages) * least} steps (gate.probe_every_steps is {every}), and '
    f'{room} are left beside consolidation. Stages from number {fits + 1} on '
    f'take what was meant for it, or come too late: {late}. Set '
    f'config.train.total_steps to {enough} (it is {budget.total_steps}), or '
    'lower config.gate.probe_every_steps or config.gate.max_rounds.'
  )


def least_steps(
  num_stages: int, interval: int, consolidation_share: float
) -> int:
  """Of a run whose stages have one interval each, remedial rounds included."""
  return math.ceil(num_stages * interval / (1 - consolidation_share))


def _room(consolidation_share: float, budget: Budget) -> int:
  """Steps of all stages with their rounds."""
  # Not one less for a share that no binary fraction is (600 * 0.9).
  return math.floor(budget.total_steps * (1 - consolidation_share) + 1e-6)


def _shared(
  need: Sequence[float], consolidation_share: float, budget: Budget
) -> list[int]:
  """Steps of each stage before remediation, by need, in whole probing
  intervals: a budget that ends between two probes would run on to the next one
  anyway. One interval each is the least, whether or not it fits."""
  every = budget.probe_every_steps
  room = _room(consolidation_share, budget)

  def longest(steps: Sequence[int]) -> int:
    rounds = budget.max_rounds
    return sum(own + rounds * _remedial_steps(own, budget) for own in steps)

  steps = [every] * len(need)
  open_stages = [i for i, n in enumerate(need) if n > 0]
  while open_stages:
    poorest = min(open_stages, key=lambda i: (steps[i] / need[i], i))
    steps[poorest] += every
    if longest(steps) > room:
      steps[poorest] -= every
      open_stages.remove(poorest)
  return steps


def _remedial_steps(own: int, budget: Budget) -> int:
  """Of each round of a stage with so many steps."""
  every = budget.probe_every_steps
  return max(1, round(own * budget.remedial_share / every)) * every


def _equal_rounds(budget: Budget) -> int:
  """Steps of each round, whole probing intervals; the rest comes after them."""
  every = budget.probe_every_steps
  return max(1, budget.total_steps // ((budget.max_rounds + 1) * every)) * every


def _readiness(diagnosed, names, response) -> dict[str, float]:
  """How far the student is in each module, in [0, 1]."""
  if response == 'exact':
    return {k: diagnosed[k].student.mean for k in names}
  if unknown := [k for k in names if diagnosed[k].student_loss is None]:
    raise ValueError(
      "config.organizer.response is 'likelihood' and modules "
      f'{unknown} have no gate probe with a reference answer that fits a row '
      "(train.row_length); set it to 'exact'."
    )
  return {k: math.exp(-diagnosed[k].student_loss) for k in names}


def _curriculum(
  stages: Sequence[Stage],
  rehearsed: Sequence[str],
  checks: Sequence[ZpdCheck],
  rules: Rules,
  budget: Budget,
) -> Curriculum:
  zone = Zone(rules.zpd, rules.tau_zpd, rules.response, tuple(checks))
  return Curriculum(tuple(stages), zone, tuple(rehearsed), budget.total_steps)


def _stage(names, kind, student, max_steps, remedial_steps) -> Stage:
  readiness = sum(student[k] for k in names) / len(names)
  return Stage(tuple(names), kind, readiness, max_steps, remedial_steps)
