"""What a run would ask of its teacher and cost, before anything is sent."""

from __future__ import annotations

from collections.abc import Sequence
import functools
from typing import Protocol

import ml_collections
import numpy as np

from ioa_jax import config as config_lib
from ioa_jax.adapter import WRONG_KEPT, Adapter, Item, Level, lots
from ioa_jax.baselines import methods
from ioa_jax.domains import Domain
from ioa_jax.evaluation import judging
from ioa_jax.models.vocabulary import Codec
from ioa_jax.phases import diagnosis, on_policy, step_budget
from ioa_jax.teachers.cost import Planned, render
from ioa_jax.teachers.requests import Budget, Price, Request
from ioa_jax.training.supply import make_terms


class Projected(Protocol):
  """What of a `Subject` decides how much the teacher is asked."""

  domain: Domain
  adapter: Adapter
  codec: Codec
  budget: Budget
  price: Price
  judge: judging.Judge | None


def describe(
  config: ml_collections.ConfigDict, subject: Projected, remedial_rounds: int
) -> str:
  """Lines for people: requests, tokens and dollars from low to high.

  Low is the probes alone; high teaches every module with all remedial rounds,
  and every answer is the longest allowed. Prompts are counted with the
  student's tokenizer, so tokens are the teacher's only roughly. Stages that the
  steps do not suffice for are named, and so is what nothing can come of.
  """
  counted: list[str] = []
  config = step_budget.begin(config, subject, None, counted.append)
  planned = _planned(config, subject, remedial_rounds)
  lines = render(planned, subject.price, subject.budget)
  lines = '\n'.join([lines, *counted])
  misfit = diagnosis.fit(config, methods.of(config), subject.domain.MODULES)
  if misfit:
    lines += f'\nIf everything is to be taught: {misfit}'
  if subject.judge is None:
    return lines
  asking = subject.judge.asking
  judged = _judged(config, subject, planned, remedial_rounds)
  return f'{lines}\njudge:\n{render(judged, asking.price, asking.budget)}'


def _judged(
  config, subject: Projected, planned: Sequence[Planned], remedial_rounds: int
) -> list[Planned]:
  """What a judge is asked: each pair of answers in both orders."""
  probes = {
    split: subject.domain.probes(split, 'steps')
    for split in ('gate', 'held_out')
  }
  gate, held_out = map(len, probes.values())
  pairs = [
    judging.Pair(p.prompt, p.reference, p.reference)
    for p in (*probes['gate'], *probes['held_out'])
  ]
  length = _mean_tokens(subject, [subject.judge.request(p) for p in pairs])
  ask = functools.partial(
    Planned,
    prompt_tokens=length,
    max_tokens=subject.judge.asking.max_tokens,
    max_calls=1 + config.teacher.max_regenerations,
  )
  lessons = sum(
    p.high_requests for p in planned if p.purpose.startswith('confirming')
  )
  found = [ask('confirming lessons', 0, 2 * lessons)]
  if config.domain.grader == 'judge':
    # The teacher on both, the student before; both students at the end.
    low = gate + held_out + gate + 2 * held_out
    probings = config.train.total_steps // config.gate.probe_every_steps
    practised = sum(
      len(subject.adapter.practice(m.name, 1)) for m in subject.domain.MODULES
    )
    high = low + probings * gate + remedial_rounds * practised
    found.append(ask('scoring answers', 2 * low, 2 * high))
  return found


def _planned(config, subject: Projected, remedial_rounds) -> list[Planned]:
  most = config.teacher.max_tokens
  answer_format = config_lib.settle(config).answer_format
  questions = [
    subject.adapter.question(p)
    for split in ('gate', config.domain.evaluate_on)
    for p in subject.domain.probes(split, answer_format)
  ]
  asked = len(questions)
  length = _mean_tokens(subject, questions)
  # An answer that does not fit is asked for again.
  served = config.teacher.kind == 'openai'
  calls = 1 + config.teacher.max_regenerations if served else 1
  batch = config.teacher.batch
  planned = [
    Planned(
      'probes of the teacher',
      asked,
      asked,
      length,
      most,
      max_calls=calls,
      in_batches=batch == 'all',
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
  lessons = 0
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
    lessons += sum(counts.values())
    again = subject.adapter.confirm_samples
    for what, count in counts.items():
      planned.append(
        Planned(
          what,
          0,
          count,
          prompt,
          most,
          max_calls=calls,
          in_batches=batch != 'never',
        )
      )
      if again and count:
        planned.append(
          Planned(
            f'confirming {what}',
            0,
            again * count,
            length,
            most,
            max_calls=calls,
            in_batches=batch != 'never',
          )
        )
  if served and config_lib.settle(config).distills:
    planned += _scored(config, subject, lessons, length)
  return planned


def _scored(config, subject, lessons: int, prompt: float) -> list[Planned]:
  """Texts that a server scores: lessons, and what the student writes."""
  d, modules = config_lib.settle(config).distillation, subject.domain.MODULES
  planned = functools.partial(
    Planned,
    # A text is as long as its answer gets, and no longer than a row.
    prompt_tokens=min(
      prompt + config.teacher.max_tokens, config.train.row_length + 1
    ),
    max_tokens=1,
  )
  # The first of them is about what the server can do.
  texts = 1 + lessons * methods.of(config).max_examples
  found = [planned('scoring lessons', 1, texts)]
  if every := d['on_policy_every_steps']:
    rounds = config.train.total_steps // every
    own = (
      rounds
      * len(modules)
      * on_policy.texts_per_module(config, d, len(modules))
    )
    found.append(planned("scoring the student's texts", 0, own))
  return found


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


def _mean_tokens(subject: Projected, requests: Sequence[Request]) -> float:
  lengths = [len(subject.codec.prompt(r.prompt, r.system)) for r in requests]
  return sum(lengths) / max(1, len(lengths))
