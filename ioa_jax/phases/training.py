"""The trainer of a run: diagnosis and curriculum as state and inputs."""

from __future__ import annotations

from collections.abc import Callable
import dataclasses
import functools
import math

import jax
import numpy as np
import optax

from ioa_jax.adapter import Level, lots
from ioa_jax.assemble import Run
from ioa_jax.models import decoder, lora
from ioa_jax.phases import on_policy
from ioa_jax.phases.served_scorer import ServedScorer
from ioa_jax.records import Curriculum, Diagnosis, Progress
from ioa_jax.runtime import sharding
from ioa_jax.training import (
  alignment,
  decoded_probes,
  distillation,
  optimizer,
  probing,
  spans,
)
from ioa_jax.training import curriculum as curriculum_lib
from ioa_jax.training import gate as gate_lib
from ioa_jax.training import step as step_lib
from ioa_jax.training import supply as supply_lib
from ioa_jax.training import trainer as trainer_lib
from ioa_jax.training.trainer import Rows, Trainer

Score = Callable[[Rows], Rows]

# Slabs divide over any power of two of devices up to this one, so that they
# have the same shape, and a checkpoint of them can be taken up, on all.
_ROW_SHARDS = 256


@dataclasses.dataclass(frozen=True)
class Taught:
  """The outcome: the final state and what it took.

  Attributes:
    step: of the weights that are the outcome, see `guarding.choose`.
    params: of the taught student, for decoder and sampler.
    adapters: what trained, if not all of it did.
  """

  state: step_lib.TrainState
  step: int
  params: decoder.Params
  adapters: lora.Adapters | None
  progress: Progress
  compilations: int


def make_trainer(
  run: Run, diagnosis: Diagnosis, curriculum: Curriculum
) -> tuple[Trainer, optax.Schedule]:
  """The trainer before its first step, and its learning rates."""
  c = run.config
  tx, learning_rate = optimizer.make(
    optimizer.Recipe(**c.optimizer), c.train.total_steps
  )
  spec, student = run.subject.lora, run.student.model
  writes = run.settled.distillation['on_policy_every_steps'] > 0
  scorer, objective = _distillation(run)
  plan = _plan(run, diagnosis, curriculum)
  inputs = trainer_lib.make_inputs(
    _empty_curriculum(run, scored=scorer is not None, writes=writes),
    _mix(run, diagnosis, curriculum),
    plan,
    _bank(run),
    trainer_lib.Pace(
      seed=c.seed,
      total_steps=c.train.total_steps,
      probe_every_steps=c.gate.probe_every_steps,
      average_decay=c.train.average_decay,
      ending_steps=round(c.train.ending_share * c.train.total_steps),
    ),
    run.mesh,
    base=None if spec is None else student.params,
    distillation=objective,
  )
  trained = student.params
  if spec is not None:
    trained = lora.init(spec, student.params, jax.random.key(c.seed))
  state = trainer_lib.make_state(
    trained,
    tx,
    [diagnosis.modules[name].student for name in run.names],
    plan,
    run.mesh,
    averages=c.train.average_decay > 0,
    on_policy=writes,
    keep_best=c.train.keep_best,
  )
  if c.adapter.supply == 'by_need':
    state, inputs = trainer_lib.supply_by_need(
      state, inputs, _terms(run, curriculum), run.mesh
    )
  program = step_lib.Program(
    student.config,
    tx,
    batch_rows=c.train.batch_rows,
    microbatches=c.train.microbatches,
    lora=spec,
  )
  window = trainer_lib.make_window(
    program, state, run.mesh, c.train.steps_per_window
  )
  return Trainer(
    window, state, inputs, run.names, run.mesh, _counting(run, scorer)
  ), learning_rate


def _plan(run: Run, diagnosis: Diagnosis, curriculum: Curriculum):
  c = run.config.gate
  rules = gate_lib.Rules(
    tau_mastery=c.tau_mastery,
    confidence=c.confidence,
    sequential=c.sequential,
    reopen=c.reopen,
    min_probes=c.min_probes,
    max_rounds=run.method.rounds(c.max_rounds),
    on_stall=c.on_stall,
    gated=run.method.gated,
  )
  scores = [diagnosis.modules[name].teacher for name in run.names]
  teacher_score_K = np.asarray([s.correct / s.n for s in scores])
  return gate_lib.make_plan(
    curriculum.stages, run.names, teacher_score_K, rules
  )


def _terms(run: Run, curriculum: Curriculum) -> supply_lib.Terms:
  c = run.config.adapter
  taught = {name for stage in curriculum.stages for name in stage.modules}
  return supply_lib.make_terms(
    [
      lots.count(
        run.adapter.plan(name, 'stage', stage=0, round=0, level=Level()),
        c.lot_items_per_seed,
      )
      for name in run.names
    ],
    [name in taught for name in run.names],
    share=c.budget_share,
    passes=c.passes_per_lot,
  )


def _mix(run: Run, diagnosis: Diagnosis, curriculum: Curriculum):
  return curriculum_lib.make_mix(
    np.asarray([diagnosis.modules[name].gap or 0.0 for name in run.names]),
    np.asarray([name in curriculum.rehearsed for name in run.names]),
    weighting=run.method.weighting,
    replay_share=run.config.train.replay_share,
    need_floor=run.config.train.need_floor,
    needs_KxK=np.asarray(
      [
        [other in diagnosis.modules[name].prerequisites for other in run.names]
        for name in run.names
      ]
    ),
    readiness_power=run.config.train.readiness_power,
    easy_first_share=run.config.train.easy_first_share,
  )


def _empty_curriculum(run: Run, *, scored: bool, writes: bool):
  """Slabs that hold every lesson that the run can ask for."""
  c, d, k = run.config, run.settled.distillation, len(run.names)
  # A sequence never takes more than a row, so this many rows always suffice.
  rows = (
    run.method.max_examples
    * c.adapter.seeds_per_module
    * (
      max(c.adapter.items_per_seed, c.adapter.rehearsal_items_per_seed)
      + run.method.rounds(c.gate.max_rounds) * c.adapter.remedial_items_per_seed
    )
  )
  allocate = functools.partial(
    curriculum_lib.allocate,
    length=c.train.row_length,
    multiple_of=math.lcm(_ROW_SHARDS, sharding.num_row_shards(run.mesh)),
    top_k=d['top_k'] if scored else 0,
    spans=not run.subject.one_vocabulary,
  )
  if not writes:
    return allocate([rows] * k)
  written = allocate([on_policy.texts_per_module(c, d, k)] * k)
  return allocate([rows] * k).replace(on_policy=written)


def _bank(run: Run) -> probing.ProbeBank | decoded_probes.DecodedBank | None:
  """Probes for the step, unless answers need a grader."""
  c, shards = run.config, sharding.num_row_shards(run.mesh)
  if c.gate.scoring == 'graded':
    return None
  if c.gate.scoring == 'decoded':
    codec, probes = run.student.codec, run.probes('gate')
    return decoded_probes.build(
      [
        [
          (codec.prompt(p.prompt), codec.span(p.answer))
          for p in probes
          if p.module == name
        ]
        for name in run.names
      ],
      marker=codec.answer_marker,
      stop_tokens=codec.stop_tokens,
      max_new_tokens=c.student.max_tokens,
      multiple_of=shards,
    )
  return probing.build(
    run.gate_examples(),
    c.train.row_length,
    c.train.batch_rows // c.train.microbatches,
    multiple_of=shards,
  )


def _distillation(run: Run):
  """The teacher as a scorer and what is learned from it, or neither."""
  d = run.settled.distillation
  if not run.settled.distills:
    return None, None
  objective = distillation.make_objective(
    divergence=d['divergence'],
    beta=d['beta'],
    weight=d['weight'],
    temperature=d['temperature'],
    on_policy_share=d['on_policy_share'],
  )
  if run.subject.one_vocabulary:
    return _scorer(run), objective
  scorer = _span_scorer(run)
  if d['across_vocabularies'] == 'ranked_spans':
    objective = objective.replace(alone_V=scorer.alone_V)
  return scorer, objective


def _span_scorer(run: Run) -> spans.SpanScorer:
  """A teacher that cuts text into other tokens than the student."""
  d, subject = run.settled.distillation, run.subject
  teacher = subject.teacher_model
  tokenization = lambda model, codec: alignment.Tokenization(
    model.tokenizer, codec, model.config.vocab_size
  )
  return spans.SpanScorer(
    teacher.config,
    teacher.params,
    tokenization(subject.student, subject.codec),
    tokenization(teacher, subject.teacher_codec),
    k=d['top_k'],
    batch_rows=_scored_rows(run),
    ranked=d['across_vocabularies'] == 'ranked_spans',
    counted=run.counted,
  )


def _scorer(run: Run) -> Score:
  """The teacher as a scorer: its weights, or its server."""
  k, teacher = run.settled.distillation['top_k'], run.subject.teacher_model
  if teacher is None:
    return ServedScorer(run, k)
  return distillation.Scorer(
    teacher.config, teacher.params, k=k, batch_rows=_scored_rows(run)
  )


def _scored_rows(run: Run) -> int:
  """That a local teacher reads at once, over all devices."""
  shards = sharding.num_row_shards(run.mesh)
  return -(-run.config.teacher.batch_size // shards) * shards


def _counting(run: Run, scorer: Score | None) -> Score:
  """Rows with what the teacher thinks of them, if it is learned from."""
  if scorer is None:
    return lambda rows: rows
  if not run.subject.one_vocabulary:
    return scorer  # It counts what it reads itself.

  def score(rows: Rows) -> Rows:
    run.counted['teacher_scored'] += int((rows['segment'] > 0).sum())
    return scorer(rows)

  return score
