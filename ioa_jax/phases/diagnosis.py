"""The first phase: what both models know, and what is to be taught."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
import statistics
import time

import ml_collections
import numpy as np

from ioa_jax.assemble import Run
from ioa_jax.baselines.method import Method
from ioa_jax.evaluation import scoring
from ioa_jax.identifier import decomposition, difficulty, graphs, learner_panel
from ioa_jax.identifier import diagnosis as diagnosis_lib
from ioa_jax.identifier import responses as responses_lib
from ioa_jax.identifier.dependency import Edge
from ioa_jax.identifier.responses import Responses
from ioa_jax.organizer import curriculum as organizer
from ioa_jax.phases import exams, lessons, on_policy, served_scorer
from ioa_jax.records import (
  Curriculum,
  Diagnosis,
  Difficulty,
  ItemDifficulty,
  ItemLoss,
  KnowledgeModule,
  Probe,
  Score,
  Thresholds,
)
from ioa_jax.runtime.rundir import ITEMS
from ioa_jax.training import packing, probing


def diagnose(run: Run) -> Diagnosis:
  """P_T and P_S on the gate probes; gaps, severity and targets.

  The teacher's held-out score is measured here too, once: a run that cannot be
  judged, or that the budget does not reach to judge, ends before it begins.
  """
  start = time.monotonic()
  if misfit := fit(run.config, run.method, run.domain.MODULES):
    run.display.say(f'If everything is to be taught: {misfit}')
  on_policy.require(run)
  served_scorer.require(run)
  probes = run.probes('gate')
  teacher = exams.of_teacher(run, probes, 'probing the teacher').scores
  student, wrong, _ = exams.of_student(
    run, run.student.model.params, probes, 'probing the student'
  )
  held_out = _teacher_held_out(run)
  c = run.config.identifier
  responses = _responses(run) if c.panel.learners else None
  run.display.update(phase='reading the reference answers')
  losses = {
    reader: reader.losses(reader.model.params, probes)
    for reader in (run.student, run.teacher_reader)
    if reader is not None
  }
  student_losses = losses[run.student]
  teacher_losses = losses.get(run.teacher_reader, [None] * len(probes))
  fitted = learner_panel.fit_items(responses) if responses else None
  dependency = graphs.record(
    _known_graphs(run, teacher, responses), c.dependency
  )
  thresholds = Thresholds(c.tau_gap, c.alpha, c.target_share)
  measured = diagnosis_lib.Measured(
    teacher,
    student,
    scoring.mean_loss(probes, teacher_losses),
    scoring.mean_loss(probes, student_losses),
  )
  items = _items(run, probes, student_losses, teacher_losses, fitted)
  run.directory.write_text(
    ITEMS, ''.join(item.to_json() + '\n' for item in items)
  )
  return Diagnosis(
    domain=run.subject.name,
    modules=diagnosis_lib.diagnose_modules(
      run.domain.MODULES, measured, dependency, thresholds
    ),
    dependency=dependency,
    thresholds=thresholds,
    wrong_answers={
      k: tuple(v[: diagnosis_lib.WRONG_SHOWN]) for k, v in wrong.items()
    },
    difficulty=fitted and learner_panel.difficulties(responses, fitted),
    teacher_held_out=held_out.scores,
    teacher_grades=held_out.grades,
    # What was cached depends on how often the diagnosis was begun.
    tokens={k: v for k, v in run.counted.items() if k != 'teacher_cached'},
    seconds=time.monotonic() - start,
  )


def organise(run: Run, diagnosis: Diagnosis) -> Curriculum:
  """Stages in the zone of proximal development, with their step budgets."""
  c = run.config
  lengths: dict[str, list[int]] = {}
  for probe in run.probes('gate'):
    lengths.setdefault(probe.module, []).append(len(probe.reference))
  curriculum = organizer.organise(
    diagnosis.modules,
    organizer.Rules(**c.organizer),
    _budget(c, run.method),
    order=run.method.order,
    identified=run.method.identified,
    length={k: statistics.mean(v) for k, v in lengths.items()},
    seed=c.seed,
  )
  stages = [s.modules for s in curriculum.stages if s.kind == 'teach']
  if run.method.order != 'rounds' and (
    misfit := organizer.overrun(
      stages, c.organizer.consolidation_share, _budget(c, run.method)
    )
  ):
    run.display.say(misfit)
  return curriculum


def fit(
  config: ml_collections.ConfigDict,
  method: Method,
  modules: Sequence[KnowledgeModule],
) -> str:
  """What the steps do not suffice for if every module is to be taught.

  Nothing has been asked for yet: the stages are those of the prerequisites that
  the domain declares.
  """
  if method.order in (None, 'rounds'):
    return ''
  stages = organizer.planned(modules, config.organizer.min_stage_modules)
  share = config.organizer.consolidation_share
  return organizer.overrun(stages, share, _budget(config, method))


def _budget(
  config: ml_collections.ConfigDict, method: Method
) -> organizer.Budget:
  return organizer.Budget(
    total_steps=config.train.total_steps,
    probe_every_steps=config.gate.probe_every_steps,
    max_rounds=method.rounds(config.gate.max_rounds),
    remedial_share=config.gate.remedial_share,
  )


def _teacher_held_out(run: Run) -> exams.Marks:
  # In the format that is taught: what the teacher cannot say in it, no student
  # can learn.
  marks = exams.of_teacher(run, run.held_out_probes(), 'evaluating the teacher')
  if not scoring.mean_score(marks.scores):
    raise ValueError(
      f'the teacher {run.subject.teacher.name!r} answers no held-out probe '
      'correctly, so there is nothing to retain. Check its answers in '
      'ledger.sqlite against the domain and its grader.'
    )
  return marks


def _responses(run: Run) -> Responses:
  """The learner panel's answers; kept in the run directory."""
  path = run.directory.path / learner_panel.PANEL_FILE
  if not path.exists():
    responses_lib.save(path, _educate(run))
  responses = responses_lib.load(path)
  run.counted['panel'] += int(responses.spent)
  return responses


def _educate(run: Run) -> Responses:
  """A module of which the teacher wrote no lesson is taught to nobody."""
  c = run.config
  examples = lessons.examples(run, lessons.rehearsals(run))
  for name in run.names:
    if name not in examples:
      run.display.say(
        f'{name}: the teacher wrote no lesson that could be kept, so no '
        'learner of the panel is taught it; what it stands on stays unknown.'
      )
  if not examples:
    raise ValueError(
      'the teacher wrote no lesson that could be kept, so there is nothing to '
      'teach a panel; see ledger.sqlite for its answers.'
    )
  packed = {
    k: packing.pack(examples[name], c.train.row_length)
    for k, name in enumerate(run.names)
    if name in examples
  }
  bank = probing.build(
    run.gate_examples(), c.train.row_length, c.identifier.panel.batch_rows
  )
  run.display.update(phase='teaching the learner panel', done=0, total=0)
  return learner_panel.educate(
    learner_panel.make_program(c, run.student.model.config, run.subject.lora),
    run.student.model.params,
    packed,
    bank,
    run.names,
    run.mesh,
    learners=c.identifier.panel.learners,
    seed=c.seed,
  )


def _known_graphs(
  run: Run, teacher: Mapping[str, Score], responses: Responses | None
) -> dict[str, graphs.Graph]:
  """The given graph, the teacher's if it was asked for, and the panel's.

  Raises:
    ValueError: if the teacher's proposal cannot be used, or the panel says
      nothing of any pair.
  """
  c = run.config.identifier
  given = [
    (needed, m.name) for m in run.domain.MODULES for needed in m.prerequisites
  ]
  found = {'given': graphs.stated(given, run.names)}
  if c.dependency == 'teacher':
    found['teacher'] = graphs.stated(_proposed(run), run.names)
  if responses is not None:
    found |= learner_panel.estimate(
      responses,
      np.array([teacher[n].mean or 0.0 for n in run.names]),
      learner_panel.Thresholds(
        tau_high=c.tau_high,
        tau_low=c.tau_low,
        tau_dep=c.tau_dep,
        tau_effect=c.tau_effect,
        min_learners=c.min_learners,
      ),
      response=c.panel.response,
      seed=run.config.seed,
      needed=c.dependency,
    )
  for name, graph in found.items():
    for a, b in graph.removed:
      run.display.say(f'{name} graph: {a} -> {b} closed a circle; removed.')
  return found


def _proposed(run: Run) -> Sequence[Edge]:
  """What the teacher thinks stands on what."""
  c = run.config
  asking = decomposition.Asking(
    run.subject.teacher.name,
    c.teacher.max_tokens,
    c.teacher.temperature,
    c.teacher.reasoning_effort,
  )
  request = decomposition.prerequisites(
    asking, c.domain.description, run.domain.MODULES
  )
  (completion,) = run.ask([request], decomposition.Ordering)
  try:
    return decomposition.read_prerequisites(completion, run.domain.MODULES)
  except decomposition.BadProposal as e:
    raise ValueError(
      f'the teacher proposed prerequisites that cannot be used ({e}). Choose '
      'another identifier.dependency, or another teacher.'
    ) from None


def _items(
  run: Run,
  probes: Sequence[Probe],
  student: Sequence[scoring.Loss | None],
  teacher: Sequence[scoring.Loss | None],
  fit: difficulty.ItemFit | None,
) -> Iterator[ItemDifficulty]:
  """How hard every gate probe is for whom.

  Args:
    student, teacher: losses of the probes' reference answers.
    fit: of the panel's answers to them.
  """
  place = {}
  if fit is not None:
    place = learner_panel.item_places(
      run.gate_examples(), run.config.train.row_length
    )
  for probe, of_student, of_teacher in zip(
    probes, student, teacher, strict=True
  ):
    of_panel = None
    if fit is not None:
      example = run.student.example(probe.prompt, probe.reference)
      i = place[*example.prompt, *example.completion]
      of_panel = Difficulty(
        float(fit.difficulty_I[i]), float(fit.difficulty_se_I[i])
      )
    yield ItemDifficulty(
      module=probe.module,
      prompt=probe.prompt,
      reference=probe.reference,
      student=_item_loss(of_student),
      teacher=_item_loss(of_teacher),
      difficulty=of_panel,
    )


def _item_loss(loss: scoring.Loss | None) -> ItemLoss | None:
  return loss and ItemLoss(loss.nats / loss.tokens, loss.tokens)
