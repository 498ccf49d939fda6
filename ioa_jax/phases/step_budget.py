"""How many steps a run needs to read its lessons, before anything is paid."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
import dataclasses
import math
import statistics
from typing import Protocol

import ml_collections

from ioa_jax import config as config_lib
from ioa_jax.adapter import Adapter, Level
from ioa_jax.baselines import methods
from ioa_jax.domains import Domain
from ioa_jax.models.vocabulary import Codec
from ioa_jax.organizer import curriculum as organizer
from ioa_jax.records import Curriculum

AUTO = 'auto'
WORKED = 80  # Tokens of a worked answer, where seeds have none.
# A student at this share of the threshold has not mastered a module, and so
# many looks may pass it.
_NOT_MASTERED, _MOST_BY_LUCK = 0.8, 0.15


class Counted(Protocol):
  """What of a `Subject` decides how much there is to read."""

  domain: Domain
  adapter: Adapter
  codec: Codec


@dataclasses.dataclass(frozen=True, kw_only=True)
class Workload:
  """What there is to read and to pass, if every module is taught.

  Attributes:
    lessons: that the stages ask for at most, by module; remedial ones are more.
    probes: of the gate, by module.
    lesson_tokens: of one, roughly: a gate probe with its reference answer.
    step_tokens: that a step reads.
    stages: of the prerequisites that the domain declares.
    least: steps in which each stage has a probing interval, and one for each of
      its rounds.
    auto: steps of `total_steps='auto'`.
  """

  lessons: Mapping[str, int]
  probes: Mapping[str, int]
  lesson_tokens: float
  step_tokens: int
  stages: int
  least: int
  auto: int

  @property
  def epoch(self) -> float:
    """Steps that read every lesson once."""
    return sum(self.lessons.values()) * self.lesson_tokens / self.step_tokens


def measure(config: ml_collections.ConfigDict, subject: Counted) -> Workload:
  """Counts requests and tokens; asks nobody.

  Lessons by need are those that `adapter.budget_share` allows.
  """
  nothing = Level(0.0, [])
  domain, adapter = subject.domain, subject.adapter
  plan = lambda name: adapter.plan(
    name, 'stage', stage=0, round=0, level=nothing
  )
  a, t, gate = config.adapter, config.train, config.gate
  share = a.budget_share if a.supply == 'by_need' else 1.0
  names = [m.name for m in domain.MODULES]
  lessons = {k: math.ceil(share * len(plan(k))) for k in names}
  lengths = _lesson_tokens(config, domain, subject.codec)
  total = sum(lessons.values())
  mean = sum(n * lengths[k] for k, n in lessons.items()) / max(1, total)
  method = methods.of(config)
  interval = gate.probe_every_steps * (1 + method.rounds(gate.max_rounds))
  stages = 1
  if method.order not in (None, 'rounds'):
    least_modules = config.organizer.min_stage_modules
    stages = len(organizer.planned(domain.MODULES, least_modules))
  least = organizer.least_steps(
    stages, interval, config.organizer.consolidation_share
  )
  found = Workload(
    lessons=lessons,
    probes=Counter(p.module for p in domain.probes('gate', 'steps')),
    lesson_tokens=mean,
    step_tokens=t.batch_rows * t.row_length,
    stages=stages,
    least=least,
    auto=0,
  )
  steps = max(found.least, t.epochs * found.epoch)
  window = t.steps_per_window
  return dataclasses.replace(found, auto=window * math.ceil(steps / window))


def _lesson_tokens(config, domain: Domain, codec: Codec) -> dict[str, float]:
  """Of each module; what a row cannot hold is no lesson."""
  shape = config_lib.settle(config).lesson_format
  by_module: dict[str, list[int]] = {}
  for probe in domain.probes('gate', shape):
    answer = len(codec.answer(probe.reference))
    if config.domain.kind == 'text':
      seeds = domain.seeds(probe.module, config.adapter.seeds_per_module)
      if not any(seed.solution for seed in seeds):
        answer = max(WORKED, answer)
    length = min(
      config.train.row_length, len(codec.prompt(probe.prompt)) + answer
    )
    by_module.setdefault(probe.module, []).append(length)
  return {k: statistics.mean(lengths) for k, lengths in by_module.items()}


def begin(
  config: ml_collections.ConfigDict,
  subject: Counted,
  begun: Curriculum | None,
  say: Callable[[str], None],
) -> ml_collections.ConfigDict:
  """The configuration of a run, with a number of steps.

  Args:
    begun: of a run that continues: its number, whatever would be counted now.
    say: told what a run that begins should know.
  """
  if begun is not None:
    return settle(config, begun.total_steps)
  workload = measure(config, subject)
  for line in describe(config, workload):
    say(line)
  return settle(config, workload.auto)


def settle(
  config: ml_collections.ConfigDict, steps: int
) -> ml_collections.ConfigDict:
  """With `steps` in the place of 'auto'."""
  if config.train.total_steps != AUTO:
    return config
  return config_lib.load(config, {'train.total_steps': steps})


def describe(
  config: ml_collections.ConfigDict, workload: Workload
) -> list[str]:
  """Lines for people: what 'auto' comes to, and what nothing can come of."""
  lessons, w = sum(workload.lessons.values()), workload
  many = (
    f'at most {lessons:,} lessons of some {round(w.lesson_tokens)} tokens, in '
    f'steps of {w.step_tokens:,}'
  )
  steps, lines = config.train.total_steps, []
  if steps == AUTO:
    steps = w.auto
    why = f'{config.train.epochs:g} passes over {many}'
    if config.train.epochs * w.epoch < w.least:
      why = (
        f'the fewest for {w.stages} stages with their remedial rounds and the '
        f'consolidation; {steps / w.epoch:.1f} passes over {many}'
      )
    lines.append(f"train.total_steps 'auto' is {steps:,}: {why}.")
  if steps < w.epoch:
    lines.append(
      f'{steps:,} steps read {steps / w.epoch:.0%} of {many}; the others are '
      f'paid for and never read. {math.ceil(w.epoch):,} steps read each once. '
      f"Set config.train.total_steps to 'auto' ({w.auto:,}), or lower "
      'config.adapter.items_per_seed or seeds_per_module.'
    )
  lines += _few_lessons(workload)
  lines += _few_probes(config, workload)
  return lines


def _few_lessons(workload: Workload) -> list[str]:
  """Lessons are to cover what is examined."""
  few = [k for k, n in workload.lessons.items() if n < workload.probes[k]]
  if not few:
    return []
  shown = ', '.join(
    f'{k} ({workload.lessons[k]} for {workload.probes[k]} probes)' for k in few
  )
  return [
    f'Fewer lessons than gate probes, so what is examined is not covered: '
    f'{shown}. Raise config.adapter.items_per_seed or seeds_per_module, or add '
    'seeds.'
  ]


def _few_probes(config, workload: Workload) -> list[str]:
  """A gate of few probes passes who has not mastered the module."""
  gate = config.gate
  luck = lambda n: config_lib.pass_rate(
    n, gate.confidence, gate.tau_mastery, _NOT_MASTERED * gate.tau_mastery
  )
  module, fewest = min(workload.probes.items(), key=lambda item: item[1])
  if luck(fewest) <= _MOST_BY_LUCK:
    return []
  return [
    f'{module} has {fewest} gate probes: a student at {_NOT_MASTERED:.0%} of '
    f'gate.tau_mastery passes a look at them in {luck(fewest):.0%} of cases, '
    'so "mastered" says little of it. Add seeds, or raise '
    'config.gate.confidence.'
  ]
