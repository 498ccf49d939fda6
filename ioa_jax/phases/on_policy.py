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


def write(
  run: Run, trainer: Trainer, lessons: Sequence[Lesson]
) -> OnPolicyTexts:
  """The student, as it is, writes on from the problems of some lessons.

  Its texts take the place of its earlier ones.
  """
  key = jax.random.key(run.config.seed)
  key = jax.random.fold_in(key, learning.ON_POLICY)
  key = jax.random.fold_in(key, trainer.step)
  most = int(trainer.inputs.curriculum.on_policy.capacity_K[0])
  asked: list[tuple[str, Sequence[int]]] = []
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
