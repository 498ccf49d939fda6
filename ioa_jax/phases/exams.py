"""Teacher and student before the same probes, and their marks."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from ioa_jax.assemble import Run
from ioa_jax.evaluation import scoring
from ioa_jax.models import decoder
from ioa_jax.records import Attempt, Probe, Score, WrongAnswers
from ioa_jax.runtime import processes

Marks = tuple[dict[str, Score], WrongAnswers]


def of_student(
  run: Run, params: decoder.Params, probes: Sequence[Probe], phase: str
) -> Marks:
  """Greedy answers of a student, graded."""
  written = run.student.answers(params, probes, phase)
  return _graded(run, probes, [w.text for w in written])


def attempts(
  run: Run, params: decoder.Params, probes: Sequence[Probe], phase: str
) -> list[Attempt]:
  """Greedy answers of a student, each with its grade."""
  written = run.student.answers(params, probes, phase)
  texts = [w.text for w in written]
  grades = processes.on_first(
    lambda: scoring.grades(probes, texts, run.domain.score)
  )
  return [
    Attempt(w.text, grade, w.truncated)
    for w, grade in zip(written, grades, strict=True)
  ]


def of_teacher(run: Run, probes: Sequence[Probe], phase: str) -> Marks:
  """The teacher's scores; its answers are in the ledger like any others.

  Raises:
    ValueError: if more than `teacher.max_unanswered_share` of a module's
      probes, or all, got no answer (cut off, filtered, refused). Fewer are
      left out: no answer is no evidence.
  """
  run.display.update(phase=phase)
  completions = run.ask([run.adapter.question(p) for p in probes])
  answered, asked, silent = [], Counter(), Counter()
  for probe, completion in zip(probes, completions, strict=True):
    asked[probe.module] += 1
    if completion.text or completion.finish_reason == 'stop':
      answered.append((probe, completion.text))
    else:
      silent[probe.module, completion.finish_reason] += 1
  most = run.config.teacher.max_unanswered_share
  for module, number in asked.items():
    reasons = {r: n for (name, r), n in silent.items() if name == module}
    count = sum(reasons.values())
    if count > most * number or count == number:
      raise ValueError(
        f'{module}: {count} of {number} probes got no answer from the '
        f'teacher ({", ".join(reasons)}), so its score is unknown. Raise '
        'teacher.max_tokens, use another teacher, or bear more of it: '
        f'teacher.max_unanswered_share is {most}.'
      )
  return _graded(run, *zip(*answered))


def _graded(run, probes, texts) -> Marks:
  """Graded once: what a sandbox says may hang on a clock."""

  def grade():
    scores, wrong = scoring.score(probes, texts, run.domain.score)
    return {k: v.to_dict() for k, v in scores.items()}, wrong

  scores, wrong = processes.on_first(grade)
  return {k: Score(**v) for k, v in scores.items()}, wrong
