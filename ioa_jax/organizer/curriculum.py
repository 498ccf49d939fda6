"""Targets to a timed curriculum: the record `curriculum.json`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
import dataclasses
import math
from typing import Any

from ioa_jax.identifier import gaps
from ioa_jax.organizer import stages as stages_lib
from ioa_jax.records import KnowledgeModule


class NothingToTeach(ValueError):
  """No module is deficient: the student already knows what the teacher does."""


def organise(
  diagnosis: dict[str, Any],
  modules: Sequence[KnowledgeModule],
  *,
  order: str | None,
  identified: bool,
  length: Mapping[str, float],
  seed: int,
  tau_zpd: float,
  zpd: str,
  response: str,
  min_stage_modules: int,
  total_steps: int,
  consolidation_share: float,
  probe_every_steps: int,
  max_rounds: int,
  remedial_share: float,
) -> dict[str, Any]:
  """Stages with their step budgets (METHOD §3).

  Steps are shared among stages by the gaps they hold, since a stage with more
  to learn needs longer. What stages save by passing early goes to the last
  one, which consolidates all targets together.

  Args:
    order: 'prerequisites'; or as many stages of the same sizes by 'length',
      shortest first, or at 'random'; None gives one stage of everything, held
      to the end.
    identified: False makes known modules targets as well.
    length: of each module's answers, in any unit.
    seed: of a random order.
    response: what a student's readiness for a module is: 'exact', its score on
      the gate probes, or 'likelihood', which the reference answers have for it
      (per token), and which still differs where every score is 0.
    min_stage_modules: stages of fewer are merged, since little material is
      learned by heart; 1 never puts a prerequisite beside what needs it.
    remedial_share: steps of a remedial round, as a share of the stage's own.
  """
  named = diagnosis['modules']
  targets = [m.name for m in modules if named[m.name]['status'] == 'target']
  known = [m.name for m in modules if named[m.name]['status'] == 'known']
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
  zone = {'mode': zpd, 'tau': tau_zpd, 'response': response}
  if order is None:
    everything = [
      m.name for m in modules if m.name in targets or m.name in known
    ]
    student = _readiness(named, everything, response)
    only = _stage(everything, 'consolidate', student, total_steps, 0)
    return _curriculum([only], [], [], zone, total_steps)
  if not identified:
    targets, known = [m.name for m in modules if m.name in targets + known], []
  student = _readiness(named, targets, response)
  ordered_stages = stages_lib.build_stages(
    targets, gaps.prerequisite_graph(modules), student,
    tau_zpd=tau_zpd, zpd=zpd, min_modules=min_stage_modules,
  )  # fmt: skip
  if order != 'prerequisites':
    ordered_stages = stages_lib.reorder(ordered_stages, order, length, seed)
  checks = stages_lib.check_stages(
    ordered_stages, student, tau_zpd=tau_zpd, zpd=zpd
  )
  need = [
    sum(named[k]['gap'] for k in s) if identified else len(s)
    for s in ordered_stages
  ]
  teach_steps = total_steps * (1 - consolidation_share)
  timed = []
  for names, gap in zip(ordered_stages, need):
    budget = teach_steps * gap / sum(need)
    own = budget / (1 + max_rounds * remedial_share)
    # Whole probing intervals: a budget that ends between two probes would run
    # on to the next one anyway.
    own = max(1, round(own / probe_every_steps)) * probe_every_steps
    extra = round(own * remedial_share / probe_every_steps) * probe_every_steps
    timed.append(
      _stage(names, 'teach', student, own, max(extra, probe_every_steps))
    )
  timed.append(_stage(targets, 'consolidate', student, total_steps, 0))
  return _curriculum(timed, known, checks, zone, total_steps)


def request_kind(curriculum: Mapping[str, Any], stage: int) -> str:
  """'bridging' where the step up from the stage before is too high."""
  checks = curriculum['zpd']['checks']
  if 0 < stage <= len(checks) and not checks[stage - 1]['holds']:
    return 'bridging'
  return 'stage'


def _readiness(named, names, response) -> dict[str, float]:
  """How far the student is in each module, in [0, 1]."""
  if response == 'exact':
    return {
      k: named[k]['student']['correct'] / named[k]['student']['n']
      for k in names
    }
  if unknown := [k for k in names if named[k]['student_loss'] is None]:
    raise ValueError(
      "config.organizer.response is 'likelihood' and modules "
      f'{unknown} have no gate probe with a reference answer that fits a row '
      "(train.row_length); set it to 'exact'."
    )
  return {k: math.exp(-named[k]['student_loss']) for k in names}


def _curriculum(stages, rehearsed, checks, zone, total_steps):
  return {
    'stages': stages,
    'zpd': {**zone, 'checks': [dataclasses.asdict(c) for c in checks]},
    'rehearsed': rehearsed,
    'total_steps': total_steps,
  }


def _stage(names, kind, student, max_steps, remedial_steps):
  scores = [student[k] for k in names]
  return {
    'modules': list(names),
    'kind': kind,
    'readiness': sum(scores) / len(scores),
    'max_steps': max_steps,
    'remedial_steps': remedial_steps,
  }
