"""Algorithm 1: diagnose, organise, teach stage by stage, evaluate, report.

The only module that knows the whole loop. Each artefact of the run directory is
written when it is known, so the same command continues where a run was killed.
"""

from __future__ import annotations

from collections.abc import Iterator
import contextlib
import dataclasses
import json
import pathlib
import statistics
import time
from typing import Any

import jax
import ml_collections

from ioa_jax import config as config_lib
from ioa_jax import (
  measuring,
  processes,
  projection,
  rundir,
  sharding,
  teaching,
)
from ioa_jax import progress as progress_lib
from ioa_jax import subject as subject_lib
from ioa_jax.adapter import Level, dataset
from ioa_jax.classroom import Classroom, NoLessons
from ioa_jax.evaluation import intervals, scoring
from ioa_jax.identifier import diagnosis as diagnosis_lib
from ioa_jax.identifier import graphs
from ioa_jax.models import hub, huggingface, lora, model_card, peft
from ioa_jax.organizer import curriculum as organizer
from ioa_jax.records import Lesson, Score
from ioa_jax.report import page
from ioa_jax.teachers import told
from ioa_jax.training import gate as gate_lib

Record = dict[str, Any]
_METERED = ('teacher_cached', 'teacher_scored', 'student_inferred', 'panel')


def run(
  config: ml_collections.ConfigDict,
  workdir: pathlib.Path,
  display: progress_lib.Display,
) -> Record | None:
  """Runs or continues a distillation; returns `results.json`'s content.

  None means that a signal stopped it: everything is saved, and the same call
  continues.

  Raises:
    ValueError: for a bad configuration, model, directory or checkpoint, as one
      line; a bad configuration or model leaves the directory untouched.
  """
  config_lib.validate(config)
  finished = workdir / 'results.json'
  if processes.on_first(finished.exists):
    results = processes.on_first(lambda: _finished(config, workdir))
    display.say(f'{workdir}: finished before; see its report.html.')
    return results
  with _opened(config, workdir, display) as room:
    return _run(room)


def _finished(config, workdir) -> Record:
  """Needs no model, no key and no server."""
  results = rundir.RunDirectory(workdir, config).read_json('results.json')
  if not (workdir / 'report.html').exists():
    page.write(workdir)
  return results


@contextlib.contextmanager
def _opened(config, workdir, display) -> Iterator[Classroom]:
  """All that a run holds open; nothing is written before all of it loads."""
  processes.check_same('configurations', [config_lib.to_json(config)])
  mesh = sharding.make_mesh(**config.mesh)
  subject = processes.in_all(lambda: subject_lib.open_subject(config, mesh))
  if subject.teacher_model is None and not processes.is_alone():
    subject = dataclasses.replace(
      subject, teacher=told.ToldTeacher(subject.teacher)
    )
  with rundir.claim(workdir, config) as directory, jax.set_mesh(mesh):
    yield Classroom(config, directory, subject, mesh, display)


def identify(
  config: ml_collections.ConfigDict,
  workdir: pathlib.Path,
  display: progress_lib.Display,
) -> Record:
  """Only the diagnosis, with its report; `run` continues from it.

  Raises:
    ValueError: as `run`.
  """
  config_lib.validate(config)
  with _opened(config, workdir, display) as room:
    diagnosis = room.directory.once('diagnosis.json', lambda: diagnose(room))
    page.write(room.directory.path)
  return diagnosis


def dry_run(
  config: ml_collections.ConfigDict, remedial_rounds: int | None = None
) -> str:
  """What `run` would ask of the teacher, in lines; sends and writes nothing.

  Args:
    remedial_rounds: at most; None is what the gate allows.

  Raises:
    ValueError: as `run`.
  """
  config_lib.validate(config)
  mesh = sharding.make_mesh(**config.mesh)
  if remedial_rounds is None:
    remedial_rounds = config.gate.max_rounds
  return projection.describe(
    config, subject_lib.open_subject(config, mesh), remedial_rounds
  )


def synthesize(
  config: ml_collections.ConfigDict,
  workdir: pathlib.Path,
  display: progress_lib.Display,
) -> list[Lesson]:
  """The lessons of every stage for the student as it is; trains nothing.

  Everything is asked through the ledger, so the same call goes on where it was
  stopped, and a `run` in the same directory pays for none of it again.

  Raises:
    ValueError: as `run`; also if the directory has been trained in.
  """
  config_lib.validate(config)
  with _opened(config, workdir, display) as room:
    directory, subject = room.directory, room.subject
    if (workdir / 'checkpoints').exists():
      raise ValueError(
        f'--workdir={workdir} has been trained in, and its lessons belong to '
        'that training; use another, or read its lessons.jsonl.'
      )
    diagnosis = directory.once('diagnosis.json', lambda: diagnose(room))
    curriculum = directory.once(
      'curriculum.json', lambda: organise(room, diagnosis)
    )
    # An earlier start's lessons are written again, the same, from the ledger.
    room.recall(0)
    directory.keep_lines('metrics.jsonl', lambda i, _: False)
    levels = {
      name: Level(
        m['student']['correct'] / m['student']['n'],
        diagnosis['wrong_answers'].get(name, []),
      )
      for name, m in diagnosis['modules'].items()
    }
    for stage, wanted in _first_requests(curriculum):
      room.supply(wanted, stage, 0, 0, levels)
    if not room.lessons:
      raise NoLessons(
        'no lesson of any module could be kept, so there is no data set; what '
        f'was said is in {workdir / "ledger.sqlite"}.'
      )
    dataset.write(
      directory.path / 'data', room.lessons,
      lineage={
        'domain': subject.name,
        'teacher': subject.teacher.name,
        'student whose gaps they fill': subject.student.name,
        'method': config.method,
        'seed': config.seed,
        'config sha256': config_lib.sha256(config),
        'modules without lessons': ', '.join(room.untaught) or 'none',
        'teacher tokens': room.ledger.totals()['completion_tokens'],
      },
      rejected=room.rejected,
    )  # fmt: skip
    page.write(directory.path)
    return room.lessons


def _first_requests(
  curriculum: Record,
) -> list[tuple[int, list[tuple[str, str]]]]:
  """(stage, (module, kind) pairs): each module where it first occurs."""
  rehearsed = curriculum['rehearsed']
  found, done = [], set(rehearsed)
  if rehearsed:
    found.append((0, [(k, 'rehearsal') for k in rehearsed]))
  for index, stage in enumerate(curriculum['stages']):
    new = [k for k in stage['modules'] if k not in done]
    kind = organizer.request_kind(curriculum, index)
    if new:
      found.append((index, [(k, kind) for k in new]))
    done |= set(new)
  return found


def _run(room: Classroom) -> Record | None:
  """METHOD §5."""
  directory = room.directory
  diagnosis = directory.once('diagnosis.json', lambda: diagnose(room))
  curriculum = directory.once(
    'curriculum.json', lambda: organise(room, diagnosis)
  )
  taught = teach(room, diagnosis, curriculum)
  if taught is None:
    return None
  results = evaluate(room, diagnosis, curriculum, taught)
  export(room, taught, results)
  directory.write_json('results.json', results)
  page.write(directory.path)
  return results


def diagnose(room: Classroom) -> Record:
  """P_T and P_S on the gate probes; gaps, severity and targets.

  The teacher's held-out score is measured here too, once: a run that cannot be
  judged, or that the budget does not reach to judge, ends before it begins.
  """
  start = time.monotonic()
  probes = room.domain.probes('gate', room.answer_format)
  teacher, _ = room.ask_teacher(probes, 'probing the teacher')
  student, wrong = room.ask_student(
    room.student.params, probes, 'probing the student'
  )
  # The teacher is held to its best format, whatever the student is taught.
  held_out, _ = room.ask_teacher(
    room.domain.probes('held_out', 'steps'), 'evaluating the teacher'
  )
  if not scoring.mean_score(held_out):
    raise ValueError(
      f'the teacher {room.subject.teacher.name!r} answers no held-out probe '
      'correctly, so there is nothing to retain. Check its answers in '
      'ledger.sqlite against the domain and its grader.'
    )
  c = room.config.identifier
  responses = measuring.respond(room) if c.panel.learners else None
  room.display.update(phase='reading the reference answers')
  student_losses = room.student_losses(room.student.params, probes)
  teacher_losses = room.teacher_losses(probes)
  fitted = measuring.fit_items(responses) if responses else None
  found = diagnosis_lib.diagnose(
    room.domain.MODULES, teacher, student, wrong,
    scoring.mean_loss(probes, student_losses),
    scoring.mean_loss(probes, teacher_losses),
    domain=room.subject.name,
    dependency=graphs.record(
      measuring.known_graphs(room, teacher, responses), c.dependency
    ),
    tau_gap=c.tau_gap, alpha=c.alpha, target_share=c.target_share,
  )  # fmt: skip
  if fitted is not None:
    found['difficulty'] = measuring.difficulties(responses, fitted)
  items = measuring.items(room, probes, student_losses, teacher_losses, fitted)
  room.directory.write_text(
    'items.jsonl', ''.join(json.dumps(item) + '\n' for item in items)
  )
  return found | {
    'teacher_held_out': {k: v.to_dict() for k, v in held_out.items()},
    # What was cached depends on how often the diagnosis was begun.
    'tokens': {k: v for k, v in room.meter.items() if k != 'teacher_cached'},
    'seconds': time.monotonic() - start,
  }


def organise(room: Classroom, diagnosis: Record) -> Record:
  """Stages in the zone of proximal development, with their step budgets."""
  c = room.config
  lengths: dict[str, list[int]] = {}
  for probe in room.domain.probes('gate', room.answer_format):
    lengths.setdefault(probe.module, []).append(len(probe.reference))
  return organizer.organise(
    diagnosis, diagnosis_lib.modules_of(diagnosis),
    order=room.method.order,
    identified=room.method.identified,
    length={k: statistics.mean(v) for k, v in lengths.items()}, seed=c.seed,
    total_steps=c.train.total_steps,
    probe_every_steps=c.gate.probe_every_steps,
    max_rounds=c.gate.max_rounds if room.method.gated else 0,
    remedial_share=c.gate.remedial_share,
    **c.organizer,
  )  # fmt: skip


def teach(
  room: Classroom, diagnosis: Record, curriculum: Record
) -> teaching.Taught | None:
  """Lessons and training behind the gate, until the steps are spent."""
  phase = teaching.Teaching(room, diagnosis, curriculum)
  phase.resume()
  return phase.run()


def evaluate(
  room: Classroom,
  diagnosis: Record,
  curriculum: Record,
  taught: teaching.Taught,
) -> Record:
  """Held-out scores of teacher, student before and after; the run's account."""
  start = time.monotonic()
  probes = room.domain.probes('held_out', room.answer_format)
  teacher = {
    k: Score.from_dict(v) for k, v in diagnosis['teacher_held_out'].items()
  }
  before, _ = room.ask_student(
    room.student.params, probes, 'evaluating the base student'
  )
  after, _ = room.ask_student(taught.params, probes, 'evaluating the student')
  loss_before = scoring.mean_loss(
    probes, room.student_losses(room.student.params, probes)
  )
  loss_after = scoring.mean_loss(
    probes, room.student_losses(taught.params, probes)
  )
  account = taught.account
  seconds = {
    'diagnose': diagnosis['seconds'],
    'synthesise': account.synthesise_seconds,
    'train': account.train_seconds,
    'evaluate': time.monotonic() - start,
  }
  teacher_score = scoring.mean_score(teacher)
  after_score = scoring.mean_score(after)
  return {
    'domain': diagnosis['domain'],
    'method': room.config.method,
    'answer_format': room.answer_format,
    'teacher': {
      'name': room.subject.teacher.name,
      'params': room.subject.teacher_params,
      'score': teacher_score,
    },
    'student': {
      'name': room.student.name,
      'params': room.student.num_params,
      'score_before': scoring.mean_score(before),
      'score_after': after_score,
    },
    'retention': after_score / teacher_score,
    'modules': {
      name: {
        'teacher': teacher[name].mean,
        'before': before[name].mean,
        'after': after[name].mean,
        'ci95': list(intervals.wilson(after[name].correct, after[name].n)),
        'n': after[name].n,
        # Nats per token of the reference answers; None where they are unknown.
        'loss_before': loss_before.get(name),
        'loss_after': loss_after.get(name),
      }
      for name in room.names
    },
    'stages': _stages(curriculum, taught.state.gate, room.untaught),
    # Mastered modules that fell later and were taught again, and how often.
    'reopened': {
      name: int(alarms)
      for name, alarms in zip(room.names, taught.state.gate.alarms_K)
      if alarms
    },
    'forgetting': _forgetting(room),
    'tokens': {
      'student_train': account.tokens,
      'teacher_generated': room.ledger.totals()['completion_tokens'],
      **{name: room.meter[name] for name in _METERED},
    },
    'lessons': account.lessons,
    'compilations': taught.compilations,
    'seconds': seconds | {'total': sum(seconds.values())},
    'config_sha256': config_lib.sha256(room.config),
    'seed': room.config.seed,
  }


def _stages(
  curriculum: Record, gate: gate_lib.GateState, untaught: list[str]
) -> list[Record]:
  """The recorded outcome of every stage."""
  outcome_S, steps_S, rounds_S = jax.device_get(
    (gate.outcome_S, gate.steps_S, gate.rounds_S)
  )
  found = []
  for s, stage in enumerate(curriculum['stages']):
    without = [name for name in stage['modules'] if name in untaught]
    outcome = gate_lib.OUTCOMES[outcome_S[s]]
    if outcome == 'pending':
      # The steps can end before a stage does, or before it begins.
      outcome = 'unmastered' if steps_S[s] else 'not_reached'
    elif outcome == 'mastered' and without:
      # The gate saw what was left of it; Eq. 9 is about all of it.
      outcome = 'unmastered'
    found.append({
      'modules': stage['modules'],
      # Of these, what no lesson could be had of.
      'untaught': without,
      'kind': stage['kind'],
      'steps': int(steps_S[s]),
      'remedial_rounds': int(rounds_S[s]),
      'outcome': outcome,
    })  # fmt: skip
  return found


def _forgetting(room: Classroom) -> list[Record]:
  """Every module's gate score whenever all were probed: at each stage's end."""
  rows = []
  for line in room.directory.read_lines('metrics.jsonl'):
    event = json.loads(line)
    if event['event'] == 'probe' and len(event['scores']) == len(room.names):
      rows.append({
        'after_stage': event['stage'],
        'step': event['step'],
        'scores': {
          k: s['correct'] / s['n'] for k, s in event['scores'].items()
        },
      })  # fmt: skip
  # A stage of all modules is probed whole every time; its end is what counts.
  return list({row['after_stage']: row for row in rows}.values())


def export(room: Classroom, taught: teaching.Taught, results: Record) -> None:
  """The student as a Hugging Face directory, with a card of the run."""
  params = taught.params
  if taught.adapters is not None:
    spec = room.subject.lora
    peft.save(
      room.directory.path / 'adapter', taught.adapters, spec,
      base_model=hub.reference(
        room.config.student.model, room.student.directory
      ),
    )  # fmt: skip
    params = lora.merge(room.student.params, taught.adapters, spec)
  huggingface.save(
    room.directory.path / 'student',
    room.student.config,
    params,
    dtype=room.config.student.export_dtype,
    source=room.student.directory,
    card=model_card.render(
      room.student.name,
      results=results,
      lineage={
        'domain': results['domain'],
        'teacher': room.subject.teacher.name,
        'lessons': results['lessons'],
        'config sha256': results['config_sha256'],
      },
    ),
  )
