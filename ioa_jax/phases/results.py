"""The last phase: held-out scores, the account, and the student itself."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
import pathlib
import time

import jax

from ioa_jax import config as config_lib
from ioa_jax.assemble import Run
from ioa_jax.evaluation import intervals, scoring
from ioa_jax.models import (
  hub,
  huggingface,
  lora,
  model_card,
  peft,
  vocabulary,
)
from ioa_jax.phases import exams
from ioa_jax.phases.tracking import Tracking
from ioa_jax.phases.training import Taught
from ioa_jax.records import (
  Answered,
  Bought,
  Curriculum,
  Diagnosis,
  Event,
  Grades,
  HeldOut,
  ModuleResult,
  Money,
  Probing,
  Recall,
  Results,
  Score,
  Spending,
  StageResult,
  Steps,
  StudentResult,
  Supply,
  TeacherResult,
  TokenCounts,
  Verdict,
  parse_event,
)
from ioa_jax.runtime import files
from ioa_jax.runtime.rundir import ANSWERS, METRICS
from ioa_jax.teachers.requests import Price
from ioa_jax.training import gate as gate_lib


def evaluate(
  run: Run, diagnosis: Diagnosis, curriculum: Curriculum, taught: Taught
) -> Results:
  """Held-out scores of teacher, student before and after; the account."""
  start = time.monotonic()
  judge = run.subject.judge if run.config.domain.grader == 'judge' else None
  if judge is not None:
    judge.begin_tally()
  teacher, progress = diagnosis.teacher_held_out, taught.progress
  answered = _answered(run, taught)
  run.directory.write_text(
    ANSWERS, ''.join(a.to_json() + '\n' for a in answered)
  )
  modules, scores = _modules(run, teacher, taught, answered)
  _tell(run, taught, teacher, *scores)
  before_score, after_score = map(scoring.mean_score, scores)
  teacher_score = scoring.mean_score(teacher)
  seconds = {
    'diagnose': diagnosis.seconds,
    'synthesise': progress.synthesise_seconds,
    'train': progress.train_seconds,
    'evaluate': time.monotonic() - start,
  }
  return Results(
    domain=diagnosis.domain,
    method=run.config.method,
    answer_format=run.settled.answer_format,
    teacher=TeacherResult(
      run.subject.teacher.name, run.subject.teacher_params, teacher_score
    ),
    student=StudentResult(
      run.student.model.name,
      run.student.model.num_params,
      before_score,
      after_score,
      sum(a.before.truncated for a in answered),
      sum(a.after.truncated for a in answered),
    ),
    retention=after_score / teacher_score,
    verdict=compare(*scores),
    modules=modules,
    grades={
      a.probe_id: Grades(
        diagnosis.teacher_grades.get(a.probe_id), a.before.score, a.after.score
      )
      for a in answered
    },
    stages=_stages(curriculum, taught.state.gate, progress.untaught),
    reopened={
      name: int(alarms)
      for name, alarms in zip(run.names, taught.state.gate.alarms_K)
      if alarms
    },
    forgetting=_forgetting(run),
    tokens=_tokens(run, progress.tokens),
    lessons=progress.lessons,
    steps=Steps(
      planned=run.config.train.total_steps,
      taken=int(taught.state.step),
      exported=taught.step,
    ),
    compilations=taught.compilations,
    seconds=seconds | {'total': sum(seconds.values())},
    config_sha256=config_lib.sha256(run.config),
    seed=run.config.seed,
    judge=judge and judge.tally(),
    money=_money(run),
  )


def _tell(
  run: Run,
  taught: Taught,
  teacher: dict[str, Score],
  before: dict[str, Score],
  after: dict[str, Score],
) -> None:
  """The last line of metrics.jsonl, and what the trackers are told last."""
  step = int(taught.state.step)
  event = HeldOut('held_out', step, before, after, teacher)
  run.directory.append_lines(METRICS, [event.to_json()])
  Tracking(run).follow()


def _money(run: Run) -> Money | None:
  """Dollars by module, stage and kind, where prices are known."""
  if run.subject.price == Price():
    return None
  sums: Counter[tuple[str, int, str]] = Counter()
  for event in _events(run):
    if isinstance(event, Supply):
      for module, usd in (event.usd or {}).items():
        sums[module, event.stage, event.kind] += usd
  total = run.client.totals()['price_usd']
  return Money(
    total_usd=total,
    # Sums of floats may differ in their last digit.
    other_usd=max(0.0, total - sum(sums.values())),
    lessons=tuple(Spending(*key, usd) for key, usd in sums.items()),
  )


def _answered(run: Run, taught: Taught) -> list[Answered]:
  """Every held-out probe with what the student wrote before and after."""
  probes = run.held_out_probes()
  base = run.student.model.params
  _, before = exams.attempts(run, base, probes, 'evaluating the base student')
  _, after = exams.attempts(
    run, taught.params, probes, 'evaluating the student'
  )
  return [
    Answered(p.module, p.probe_id, p.prompt, p.answer, b, a)
    for p, b, a in zip(probes, before, after, strict=True)
  ]


def _modules(
  run: Run,
  teacher: dict[str, Score],
  taught: Taught,
  answered: Sequence[Answered],
) -> tuple[dict[str, ModuleResult], tuple[dict[str, Score], dict[str, Score]]]:
  """Every module's result, and the scores before and after."""
  probes = run.held_out_probes()
  base = run.student.model.params
  before = scoring.of_modules(probes, [a.before.score for a in answered])
  after = scoring.of_modules(probes, [a.after.score for a in answered])
  run.display.update(phase='reading the reference answers')
  loss = lambda params: scoring.mean_loss(
    probes, run.student.losses(params, probes)
  )
  loss_before, loss_after = loss(base), loss(taught.params)
  bought = _bought(run)
  modules = {
    name: ModuleResult(
      teacher=teacher[name].mean,
      before=before[name].mean,
      after=after[name].mean,
      ci95=intervals.wilson(after[name].correct, after[name].n),
      n=after[name].n,
      loss_before=loss_before.get(name),
      loss_after=loss_after.get(name),
      bought=bought[name],
    )
    for name in run.names
  }
  return modules, (before, after)


def _bought(run: Run) -> dict[str, Bought]:
  """What every module got over the whole run."""
  found = [e.bought for e in _events(run) if isinstance(e, Supply)]
  none = Bought(0, 0)
  return {
    name: Bought(
      sum(x.get(name, none).lessons for x in found),
      sum(x.get(name, none).teacher_tokens for x in found),
    )
    for name in run.names
  }


def compare(before: dict[str, Score], after: dict[str, Score]) -> Verdict:
  """Whether the student is better than it was; a worse one is never praised."""
  difference, low, high = scoring.difference(after, before)
  fallen = tuple(
    k for k in before if scoring.difference(after, {k: before[k]})[2] < 0
  )
  kind = 'unclear'
  if high < 0:
    kind = 'worse'
  elif low > 0:
    kind = 'mixed' if fallen else 'better'
  return Verdict(kind, difference, (low, high), fallen)


def _tokens(run: Run, trained: int) -> TokenCounts:
  counted = run.counted
  return TokenCounts(
    student_train=trained,
    teacher_generated=run.client.totals()['completion_tokens'],
    teacher_cached=counted['teacher_cached'],
    teacher_scored=counted['teacher_scored'],
    student_inferred=counted['student_inferred'],
    panel=counted['panel'],
  )


def _stages(
  curriculum: Curriculum, gate: gate_lib.GateState, untaught: Sequence[str]
) -> tuple[StageResult, ...]:
  """The recorded outcome of every stage."""
  outcome_S, steps_S, rounds_S = jax.device_get(
    (gate.outcome_S, gate.steps_S, gate.rounds_S)
  )
  found = []
  for s, stage in enumerate(curriculum.stages):
    without = tuple(name for name in stage.modules if name in untaught)
    outcome = gate_lib.OUTCOMES[outcome_S[s]]
    if outcome == 'pending':
      # The steps can end before a stage does, or before it begins.
      outcome = 'unmastered' if steps_S[s] else 'not_reached'
    elif outcome == 'mastered' and without:
      # The gate saw what was left of it; Eq. 9 is about all of it.
      outcome = 'unmastered'
    found.append(
      StageResult(
        modules=stage.modules,
        untaught=without,
        kind=stage.kind,
        steps=int(steps_S[s]),
        remedial_rounds=int(rounds_S[s]),
        outcome=outcome,
      )
    )
  return tuple(found)


def _forgetting(run: Run) -> tuple[Recall, ...]:
  """Every module's gate score whenever all were probed: at each stage's end."""
  rows: dict[int, Recall] = {}
  for event in _events(run):
    if isinstance(event, Probing) and len(event.scores) == len(run.names):
      # A stage of all modules is probed whole every time; its end is what
      # counts.
      rows[event.stage] = Recall(
        after_stage=event.stage,
        step=event.step,
        scores={k: s.mean for k, s in event.scores.items()},
      )
  return tuple(rows.values())


def _events(run: Run) -> Iterator[Event]:
  for i, line in enumerate(run.directory.read_lines(METRICS), 1):
    yield parse_event(line, f'{run.directory.path / METRICS} line {i}')


def export(run: Run, taught: Taught, results: Results) -> None:
  """The student as a Hugging Face directory, with a card of the run.

  One that is not better than its base has another name, see `Results.suffix`.
  """
  run.display.update(phase='writing the student')
  params, base = taught.params, run.student.model
  if taught.adapters is not None:
    spec = run.subject.lora
    peft.save(
      run.directory.path / f'adapter{results.suffix}',
      taught.adapters,
      spec,
      base_model=hub.reference(run.config.student.model, base.source),
    )
    params = lora.merge_by_layer(base.params, taught.adapters, spec)
  target = run.directory.path / f'student{results.suffix}'
  huggingface.save(
    target,
    base.config,
    params,
    dtype=run.config.student.export_dtype,
    source=base.directory,
  )
  if run.config.domain.kind == 'text':
    # Whoever serves it asks as it was taught.
    vocabulary.set_thinking(target, run.config.student.thinking)
  reference = hub.reference(run.config.student.model, base.source)
  card = model_card.render(
    base.name,
    results=results.to_dict(),
    # Where it lies here is nobody else's business.
    base_model=None if pathlib.Path(reference).is_absolute() else reference,
    lineage={
      'domain': results.domain,
      'teacher': results.teacher.name,
      'lessons': results.lessons,
      'config sha256': results.config_sha256,
    },
  )
  files.write_text(target / 'README.md', card)
