"""What a run would ask of its teacher and cost, before anything is sent."""

from __future__ import annotations

from collections.abc import Sequence

import ml_collections

from ioa_jax import config as config_lib
from ioa_jax.adapter import WRONG_KEPT, Level
from ioa_jax.assemble import Subject
from ioa_jax.baselines import methods
from ioa_jax.phases import diagnosis
from ioa_jax.teachers.cost import Planned, render
from ioa_jax.teachers.requests import Request


def describe(
  config: ml_collections.ConfigDict, subject: Subject, remedial_rounds: int
) -> str:
  """Lines for people: requests, tokens and dollars from low to high.

  Low is the probes alone; high teaches every module with all remedial rounds,
  and every answer is the longest allowed. Prompts are counted with the
  student's tokenizer, so tokens are the teacher's only roughly. Stages that the
  steps do not suffice for are named.
  """
  planned = _planned(config, subject, remedial_rounds)
  lines = render(planned, subject.price, subject.budget)
  misfit = diagnosis.fit(config, methods.of(config), subject.domain.MODULES)
  if not misfit:
    return lines
  return f'{lines}\nIf everything is to be taught: {misfit}'


def _planned(config, subject: Subject, remedial_rounds) -> list[Planned]:
  most = config.teacher.max_tokens
  answer_format = config_lib.settle(config).answer_format
  questions = [
    subject.adapter.question(p)
    for split in ('gate', 'held_out')
    for p in subject.domain.probes(split, answer_format)
  ]
  asked = len(questions)
  length = _mean_tokens(subject, questions)
  # An answer that does not fit is asked for again.
  served = config.teacher.kind == 'openai'
  calls = 1 + config.teacher.max_regenerations if served else 1
  planned = [
    Planned(
      'probes of the teacher', asked, asked, length, most, max_calls=calls
    )
  ]
  # As long as a remedial request gets: with wrong answers in it.
  (seed,) = subject.domain.seeds(subject.domain.MODULES[0].name, 1)
  shown = {
    'prompt': seed.problem,
    'answer': seed.answer,
    'student': seed.solution,
  }
  level = Level(0.0, [shown] * WRONG_KEPT)
  kinds = [('stage', 1), ('remedial', remedial_rounds)]
  if config.identifier.panel.learners:
    # The learner panel's lessons; a run rehearses with the same ones.
    kinds.append(('rehearsal', 1))
  for kind, times in kinds:
    if not times:
      continue
    requests = [
      item.request
      for module in subject.domain.MODULES
      for item in subject.adapter.plan(
        module.name, kind, stage=0, round=0, level=level
      )
    ]
    count = times * len(requests)
    planned.append(
      Planned(
        f'{kind} lessons',
        0,
        count,
        _mean_tokens(subject, requests),
        most,
        max_calls=calls,
      )
    )
    again = subject.adapter.confirm_samples * count
    if again:
      planned.append(
        Planned(
          f'confirming {kind} lessons', 0, again, length, most, max_calls=calls
        )
      )
  return planned


def _mean_tokens(subject: Subject, requests: Sequence[Request]) -> float:
  lengths = [len(subject.codec.prompt(r.prompt, r.system)) for r in requests]
  return sum(lengths) / max(1, len(lengths))
