"""Teacher and student before the same probes, and their marks."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

from ioa_jax.assemble import Run
from ioa_jax.evaluation import scoring
from ioa_jax.models import decoder
from ioa_jax.records import Attempt, Probe, Score, WrongAnswers
from ioa_jax.runtime import processes


class Marks(NamedTuple):
  """What an exam came to.

  Attributes:
    scores: of each module.
    wrong: of each module, the worst first.
    grades: probe to its grade in [0, 1]; one without an answer has none.
  """

  scores: dict[str, Score]
  wrong: WrongAnswers
  grades: dict[str, float]


def of_student(
  run: Run, params: decoder.Params, probes: Sequence[Probe], phase: str
) -> Marks:
  """Greedy answers of a student, graded."""
  return attempts(run, params, probes, phase)[0]


def attempts(
  run: Run, params: decoder.Params, probes: Sequence[Probe], phase: str
) -> tuple[Marks, list[Attempt]]:
  """`of_student`, and the answers themselves."""
  written = run.student.answers(params, probes, phase)
  marks = _graded(run, probes, [w.text for w in written])
  return marks, [
    Attempt(w.text, marks.grades[probe.probe_id], w.truncated)
    for probe, w in zip(probes, written, strict=True)
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
  judged = None
  if run.config.domain.grader == 'judge':
    # Outside of what the first process does alone: all hear the judge.
    judged = run.subject.judge.scores(probes, texts)

  def grade():
    grades = judged or [
      run.domain.score(text, p.answer)
      for p, text in zip(probes, texts, strict=True)
    ]
    scores, wrong = scoring.score(probes, texts, grades)
    of_probes = {p.probe_id: float(g) for p, g in zip(probes, grades)}
    return {k: v.to_dict() for k, v in scores.items()}, wrong, of_probes

  scores, *rest = processes.on_first(grade)
  return Marks({k: Score(**v) for k, v in scores.items()}, *rest)
