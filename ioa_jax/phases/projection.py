"""What a run would ask of its teacher and cost, before anything is sent."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import ml_collections

from ioa_jax import config as config_lib
from ioa_jax.adapter import WRONG_KEPT, Adapter, Level
from ioa_jax.domains import Domain
from ioa_jax.models.vocabulary import Codec
from ioa_jax.teachers.cost import Planned, render
from ioa_jax.teachers.requests import Budget, Price, Request


class Projected(Protocol):
  """What of a `Subject` decides how much the teacher is asked."""

  domain: Domain
  adapter: Adapter
  codec: Codec
  budget: Budget
  price: Price


def describe(
  config: ml_collections.ConfigDict, subject: Projected, remedial_rounds: int
) -> str:
  """Lines for people: requests, tokens and dollars from low to high.

  Low is the probes alone; high teaches every module with all remedial rounds,
  and every answer is the longest allowed. Prompts are counted with the
  student's tokenizer, so tokens are the teacher's only roughly.
  """
  planned = _planned(config, subject, remedial_rounds)
  return render(planned, subject.price, subject.budget)


def _planned(config, subject: Projected, remedial_rounds) -> list[Planned]:
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


def _mean_tokens(subject: Projected, requests: Sequence[Request]) -> float:
  lengths = [len(subject.codec.prompt(r.prompt, r.system)) for r in requests]
  return sum(lengths) / max(1, len(lengths))
