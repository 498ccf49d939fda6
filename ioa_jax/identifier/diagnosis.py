"""What the student does not know, as the record `diagnosis.json`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ioa_jax.evaluation import intervals
from ioa_jax.identifier import gaps, graphs
from ioa_jax.records import KnowledgeModule, Score

_WRONG_SHOWN = 3


def diagnose(
  modules: Sequence[KnowledgeModule],
  teacher: Mapping[str, Score],
  student: Mapping[str, Score],
  wrong_answers: Mapping[str, list[dict[str, str]]],
  student_loss: Mapping[str, float],
  teacher_loss: Mapping[str, float],
  *,
  domain: str,
  dependency: Mapping[str, Any],
  tau_gap: float,
  alpha: float,
  target_share: float,
) -> dict[str, Any]:
  """Gaps, severity and targets from measured scores (METHOD §2).

  Args:
    student_loss, teacher_loss: nats per token of the reference answers, of
      modules where they are known.
    dependency: of `graphs.record`; its edges become the prerequisites.
  """
  strengths = {(e['from'], e['to']): e['strength'] for e in dependency['edges']}
  modules = graphs.apply(modules, list(strengths))
  measured = {
    m.name: gaps.gap(teacher[m.name], student[m.name]) for m in modules
  }
  teachable = {k: v for k, v in measured.items() if v is not None}
  severities = gaps.severity(teachable, strengths, alpha)
  deficient, targets = gaps.select_targets(
    teachable, severities, modules, tau_gap=tau_gap, target_share=target_share
  )

  def status(name):
    if name not in teachable:
      return 'unteachable'
    if name in targets:
      return 'target'
    return 'deficient' if name in deficient else 'known'

  return {
    'domain': domain,
    'modules': {
      m.name: {
        'description': m.description,
        'prerequisites': list(m.prerequisites),
        'level': m.level,
        'teacher': teacher[m.name].to_dict(),
        'student': student[m.name].to_dict(),
        'student_loss': student_loss.get(m.name),
        'teacher_loss': teacher_loss.get(m.name),
        'teacher_ci95': _interval(teacher[m.name]),
        'student_ci95': _interval(student[m.name]),
        'gap': measured[m.name],
        'severity': severities.get(m.name),
        'status': status(m.name),
      }
      for m in modules
    },
    'dependency': dict(dependency),
    'thresholds': {
      'tau_gap': tau_gap, 'alpha': alpha, 'target_share': target_share
    },
    'wrong_answers': {
      k: list(v[:_WRONG_SHOWN]) for k, v in wrong_answers.items()
    },
  }  # fmt: skip


def modules_of(diagnosis: Mapping[str, Any]) -> tuple[KnowledgeModule, ...]:
  """The modules with the prerequisites that the diagnosis settled on."""
  return tuple(
    KnowledgeModule(
      name, m['description'], tuple(m['prerequisites']), m['level']
    )
    for name, m in diagnosis['modules'].items()
  )


def _interval(score: Score) -> list[float] | None:
  return list(intervals.wilson(score.correct, score.n)) if score.n else None
