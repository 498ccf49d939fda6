"""Texts that the student writes itself, for the teacher to score (GKD)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
import math
from typing import Any

import jax
import ml_collections
import numpy as np

from ioa_jax.assemble import Run
from ioa_jax.phases.lessons import examples
from ioa_jax.records import Lesson, OnPolicyTexts
from ioa_jax.training import gate as gate_lib
from ioa_jax.training import learning, packing
from ioa_jax.training.trainer import Trainer


def texts_per_module(
  config: ml_collections.ConfigDict,
  distillation: Mapping[str, Any],
  modules: int,
) -> int:
  """How many are written of each module at a time.

  As many as rows are drawn until the next ones come.
  """
  drawn = distillation['on_policy_every_steps'] * (
    distillation['on_policy_share'] * config.train.batch_rows
  )
  return math.ceil(drawn / modules)


def require(run: Run) -> None:
  """Raises ValueError for a schedule by which nothing would ever be written."""
  schedule = run.settled.distillation['schedule']
  most = run.config.gate.max_rounds
  if schedule == 'remedial' and not run.method.rounds(most):
    raise ValueError(
      "config.distillation.schedule is 'remedial', and with config.method "
      f'{run.config.method!r} and config.gate.max_rounds {most} there are no '
      'remedial rounds. Change one of them.'
    )


def update(
  run: Run, trainer: Trainer, lessons: Sequence[Lesson], last: int
) -> OnPolicyTexts | None:
  """Has the student write, if texts are due by `distillation.schedule`.

  Where the schedule wants none, those that there are are taught no more.

  Args:
    last: step at which it wrote before; 0 if it has not.
  """
  every = run.settled.distillation['on_policy_every_steps']
  if not every:
    return None
  names = _wanted(run, trainer)
  if not names:
    held = trainer.inputs.curriculum.on_policy.count_K
    if np.asarray(held).any():
      trainer.replace_on_policy({})
    return None
  if trainer.step - last < every:
    return None
  return _write(run, trainer, lessons, names)


def _wanted(run: Run, trainer: Trainer) -> Sequence[str]:
  """Modules that the student is to write texts of."""
  d = run.settled.distillation
  gate, plan = trainer.state.gate, trainer.inputs.plan
  in_stage_K = np.asarray(gate_lib.in_stage(gate, plan))
  if d['schedule'] == 'remedial':
    failed_K = in_stage_K & ~np.asarray(gate_lib.mastered(gate, plan))
    chosen = np.flatnonzero(failed_K & (int(gate.round) > 0))
    return [run.names[k] for k in chosen]
  if d['schedule'] == 'after':
    ratio_K = np.asarray(gate_lib.ratio(gate, plan))
    stands = (ratio_K[in_stage_K] >= d['on_policy_above']).all()
    return run.names if stands else ()
  return run.names


def _write(
  run: Run,
  trainer: Trainer,
  lessons: Sequence[Lesson],
  names: Sequence[str],
) -> OnPolicyTexts:
  """The student, as it is, writes on from the problems of some lessons.

  Its texts take the place of its earlier ones.
  """
  key = jax.random.key(run.config.seed)
  key = jax.random.fold_in(key, learning.ON_POLICY)
  key = jax.random.fold_in(key, trainer.step)
  most = int(trainer.inputs.curriculum.on_policy.capacity_K[0])
  asked: list[tuple[str, Sequence[int]]] = []
  lessons = [x for x in lessons if x.module in names]
  for name, texts in examples(run, lessons).items():
    here = jax.random.fold_in(key, run.names.index(name))
    order = np.asarray(jax.random.permutation(here, len(texts)))
    asked += [(name, texts[i].prompt) for i in np.resize(order, most)]
  written = run.student.texts(
    trainer.live_params(),
    [prompt for _, prompt in asked],
    np.asarray(jax.random.bits(key, len(asked))).tolist(),
  )
  grouped: dict[str, list[packing.Example]] = {}
  for (name, _), text in zip(asked, written, strict=True):
    grouped.setdefault(name, []).append(text)
  trainer.replace_on_policy(grouped)
  return OnPolicyTexts(
    event='own_texts',
    step=trainer.step,
    texts=len(written),
    tokens=sum(len(text.completion) for text in written),
  )
