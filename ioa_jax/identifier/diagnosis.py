"""What the student does not know, as the record `diagnosis.json`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
import dataclasses

from ioa_jax.evaluation import intervals
from ioa_jax.identifier import gaps, graphs
from ioa_jax.records import (
  Dependency,
  KnowledgeModule,
  ModuleDiagnosis,
  Score,
  Thresholds,
)

WRONG_SHOWN = 3


@dataclasses.dataclass(frozen=True)
class Measured:
  """What both models were found to know, by module.

  Attributes:
    teacher, student: scores on the gate probes.
    teacher_loss, student_loss: nats per token of the reference answers, of
      modules where they are known.
  """

  teacher: Mapping[str, Score]
  student: Mapping[str, Score]
  teacher_loss: Mapping[str, float]
  student_loss: Mapping[str, float]


def diagnose_modules(
  modules: Sequence[KnowledgeModule],
  measured: Measured,
  dependency: Dependency,
  thresholds: Thresholds,
) -> dict[str, ModuleDiagnosis]:
  """Gaps, severity and targets from measured scores (paper, Eqs. 2, 4-6).

  Args:
    dependency: its edges become the prerequisites.
  """
  strengths = {(e.source, e.target): e.strength for e in dependency.edges}
  modules = graphs.apply(modules, list(strengths))
  gap = {
    m.name: gaps.gap(measured.teacher[m.name], measured.student[m.name])
    for m in modules
  }
  teachable = {k: v for k, v in gap.items() if v is not None}
  severities = gaps.severity(teachable, strengths, thresholds.alpha)
  deficient, targets = gaps.select_targets(
    teachable,
    severities,
    modules,
    tau_gap=thresholds.tau_gap,
    target_share=thresholds.target_share,
  )

  def status(name):
    if name not in teachable:
      return 'unteachable'
    if name in targets:
      return 'target'
    return 'deficient' if name in deficient else 'known'

  return {
    m.name: ModuleDiagnosis(
      description=m.description,
      prerequisites=m.prerequisites,
      level=m.level,
      teacher=measured.teacher[m.name],
      student=measured.student[m.name],
      student_loss=measured.student_loss.get(m.name),
      teacher_loss=measured.teacher_loss.get(m.name),
      teacher_ci95=_interval(measured.teacher[m.name]),
      student_ci95=_interval(measured.student[m.name]),
      gap=gap[m.name],
      severity=severities.get(m.name),
      status=status(m.name),
    )
    for m in modules
  }


def modules_of(
  diagnosed: Mapping[str, ModuleDiagnosis],
) -> tuple[KnowledgeModule, ...]:
  """The modules with the prerequisites that the diagnosis settled on."""
  return tuple(
    KnowledgeModule(name, m.description, m.prerequisites, m.level)
    for name, m in diagnosed.items()
  )


def _interval(score: Score) -> tuple[float, float] | None:
  return intervals.wilson(score.correct, score.n) if score.n else None
