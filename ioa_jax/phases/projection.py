"""What a run would ask of its teacher and cost, before anything is sent."""

from __future__ import annotations

from collections.abc import Sequence

import ml_collections
import numpy as np

from ioa_jax import config as config_lib
from ioa_jax.adapter import WRONG_KEPT, Item, Level, lots
from ioa_jax.assemble import Subject
from ioa_jax.teachers.cost import Planned, render
from ioa_jax.teachers.requests import Request
from ioa_jax.training.supply import make_terms


def describe(
  config: ml_collections.ConfigDict, subject: Subject, remedial_rounds: int
) -> str:
  """Lines for people: requests, tokens and dollars from low to high.

  Low is the probes alone; high teaches every module with all remedial rounds,
  and every answer is the longest allowed. Prompts are counted with the
  student's tokenizer, so tokens are the teacher's only roughly.
  """
  planned = _planned(config, subject, remedial_rounds)
  return render(planned, subject.price, subject.budget)


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
    plans = [
      subject.adapter.plan(module.name, kind, stage=0, round=0, level=level)
      for module in subject.domain.MODULES
    ]
    prompt = _mean_tokens(
      subject, [item.request for items in plans for item in items]
    )
    counts = {f'{kind} lessons': times * sum(map(len, plans))}
    if kind == 'stage' and config.adapter.supply == 'by_need':
      counts = _in_lots(config, plans)
    again = subject.adapter.confirm_samples
    for what, count in counts.items():
      planned.append(Planned(what, 0, count, prompt, most, max_calls=calls))
      if again and count:
        planned.append(
          Planned(
            f'confirming {what}',
            0,
            again * count,
            length,
            most,
            max_calls=calls,
          )
        )
  return planned


def _in_lots(config, plans: Sequence[Sequence[Item]]) -> dict[str, int]:
  """Requests of the first lots, and of all others that the budget allows."""
  c, each = config.adapter, config.adapter.lot_items_per_seed
  lots_K = [lots.count(items, each) for items in plans]
  taught_K = np.ones(len(plans), bool)
  terms = make_terms(
    lots_K, taught_K, share=c.budget_share, passes=c.passes_per_lot
  )
  sizes = [
    [len(lots.take(items, i, each)) for i in range(n)]
    for items, n in zip(plans, lots_K)
  ]
  others = sorted(size for of_module in sizes for size in of_module[1:])
  most = int(terms.budget) - len(plans)
  return {
    'first lessons of a stage': sum(of_module[0] for of_module in sizes),
    'lessons by need': sum(others[len(others) - most :]),
  }


def _mean_tokens(subject: Subject, requests: Sequence[Request]) -> float:
  lengths = [len(subject.codec.prompt(r.prompt, r.system)) for r in requests]
  return sum(lengths) / max(1, len(lengths))
