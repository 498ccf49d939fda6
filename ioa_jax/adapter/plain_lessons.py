"""Lessons as the published baselines get them: a problem, then its answer.

What differs between methods is how problems are asked for (`WAYS`), and whether
an answer is confirmed or taught as it comes. Length, repetition and leaks are
judged as everywhere.
"""

from __future__ import annotations

from collections.abc import Sequence
import dataclasses

import numpy as np
import pydantic

from ioa_jax import adapter
from ioa_jax.adapter import Amounts, Ask, Level, plain_prompts, prompts
from ioa_jax.adapter.examiner import Examiner
from ioa_jax.domains import Domain
from ioa_jax.domains.text import states
from ioa_jax.evaluation import code_grading
from ioa_jax.records import KnowledgeModule, Lesson, Probe, Rejected
from ioa_jax.teachers import structured
from ioa_jax.teachers.requests import Completion, Request


@dataclasses.dataclass(frozen=True, kw_only=True)
class Way:
  """How problems are asked for.

  Attributes:
    examples: seeds that a request shows.
    topics: every second request names a topic.
    rounds: parts of the stage's problems, one at the start; those of later
      ones follow what a referee found hard and easy, half of each.
  """

  examples: int
  topics: bool = False
  rounds: int = 1


WAYS = {
  # Self-Instruct shows eight, six of people and two of its own; here requests
  # are planned before answers come, so all are seeds.
  'examples': Way(examples=8),
  # LaMini shows three, with three topics in half of its requests. Its topics
  # are Wikipedia's categories, here `prompts.SETTINGS`.
  'topics': Way(examples=3, topics=True),
  # Lion's first pool is Self-Instruct's; it has three rounds.
  'rounds': Way(examples=8, rounds=3),
}


class Written(structured.Strict):
  problem: pydantic.constr(strip_whitespace=True, min_length=1)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Item(adapter.Item):
  """One problem of a module, to be written and answered."""

  module: KnowledgeModule


class PlainAdapter:
  """Problems and answers of a `TextDomain`, adapted to nobody.

  Args:
    examiner: of what is kept.
    way: of WAYS.
    amounts: how many.
    confirmed: an answer needs confirmation; else it is taught as it comes.
    judged: requests by which a lesson is judged later, for cost estimates.
  """

  def __init__(
    self,
    domain: Domain,
    examiner: Examiner,
    *,
    way: str,
    amounts: Amounts,
    confirmed: bool,
    judged: int,
  ):
    self._domain = domain
    self._examiner = examiner
    self._modules = {m.name: m for m in domain.MODULES}
    self._way = WAYS[way]
    self._amounts = amounts
    self._confirmed = confirmed
    self.confirm_samples = (
      1 + judged + confirmed * examiner.checks.confirm_samples
    )

  def question(self, probe: Probe) -> Request:
    return self._examiner.solve(probe.prompt)

  def practice(self, module: str, round: int) -> tuple[Probe, ...]:
    """None: requests show no wrong answers."""
    del module, round
    return ()

  def plan(
    self,
    module: str,
    kind: str,
    *,
    stage: int,
    round: int,
    level: Level,
  ) -> list[Item]:
    """Requests in the style of each seed; of rounds, those of one of them."""
    way = self._way
    seeds = self._domain.seeds(module, self._amounts.seeds_per_module)
    in_rounds = way.rounds > 1 and kind != 'rehearsal'
    # Rounds are parts of one amount, so that every method gets as many.
    each = self._amounts.per_seed('stage' if in_rounds else kind)
    numbers = range(each * len(seeds))
    if in_rounds:
      numbers = numbers[round % way.rounds :: way.rounds]
    items = []
    for place, number in enumerate(numbers):
      seed = seeds[number % len(seeds)]
      items.append(
        Item(
          module=self._modules[module],
          seed=seed,
          kind=kind,
          stage=stage,
          round=round,
          request=self._request(
            self._prompt(seeds, number, place, level), number
          ),
        )
      )
    return items

  def _prompt(self, seeds, number: int, place: int, level: Level) -> str:
    """Of one problem; `place` counts those of a call."""
    form = self._examiner.grader.form
    if level.hard or level.easy:
      pools = {'hard': level.hard, 'easy': level.easy}
      how = ('hard', 'easy')[place % 2]
      if not pools[how]:
        (how,) = {'hard', 'easy'} - {how}
      pool = pools[how]
      return plain_prompts.after(pool[place // 2 % len(pool)], form, how)
    # Its own seed, and others that are drawn.
    own = number % len(seeds)
    others = np.random.default_rng(number).permutation(len(seeds))
    order = [own, *(i for i in others if i != own)][: self._way.examples]
    shown = [seeds[i].problem for i in order]
    topic = ''
    if self._way.topics and number % 2:
      topic = prompts.SETTINGS[number // 2 % len(prompts.SETTINGS)]
    return plain_prompts.like(shown, form, topic)

  def _request(self, prompt: str, number: int) -> Request:
    return self._examiner.asking.request(
      prompt, Written, sample=number, system=plain_prompts.SYSTEM
    )

  def write(
    self, items: Sequence[Item], ask: Ask, earlier: Sequence[Lesson]
  ) -> tuple[list[Lesson], list[Rejected]]:
    """Asks for problems, drops those that repeat or leak, asks for answers."""
    examiner = self._examiner
    of_request = {item.request.key(): item for item in items}
    problems, rejected = self._problems(items, ask, earlier)
    answers = ask(
      [examiner.solve(x, module=item.module.name) for item, x in problems]
    )
    lessons = []
    for (item, problem), answer in zip(problems, answers, strict=True):
      lesson, reason = self._read(item, problem, answer)
      if lesson is None:
        said = answer.text or answer.discarded
        rejected.append(item.rejected(reason, f'{problem}\n{said}'))
      else:
        lessons.append(lesson)
    lessons, dropped = examiner.clean(lessons, of_request)
    lessons, rejected = adapter.agreed(lessons, rejected + dropped)
    if self._confirmed:
      keyed = [(x, x.solution['final_answer']) for x in lessons]
      lessons, dropped = examiner.confirmed(keyed, ask, of_request)
      rejected += dropped
    return lessons, rejected

  def _problems(
    self, items, ask, earlier
  ) -> tuple[list[tuple[Item, str]], list[Rejected]]:
    """What may be answered: new, and no item of the probes."""
    kept, rejected = [], []
    known = self._examiner.repeats.of(earlier)
    written = ask([i.request for i in items], Written)
    for item, completion in zip(items, written, strict=True):
      found = structured.read(completion, Written)
      if found is None:
        said = completion.text or completion.discarded
        reason = completion.finish_reason
        reason = 'schema' if reason == 'stop' else reason
        rejected.append(item.rejected(reason, said))
        continue
      problem = found.problem
      leak = self._examiner.contamination.find(problem)
      if leak is not None:
        rejected.append(item.rejected('contaminated', problem, leak))
        continue
      repeated = known.add(item.request.key(), problem)
      if repeated is not None:
        rejected.append(item.rejected('near_duplicate', problem, repeated))
        continue
      kept.append((item, problem))
    return kept, rejected

  def _read(
    self, item: Item, problem: str, answer: Completion
  ) -> tuple[Lesson | None, str]:
    """A lesson of what was answered, or why there is none."""
    if answer.finish_reason != 'stop':
      return None, answer.finish_reason
    text, grader = answer.text.strip(), self._examiner.grader
    # The answer of code is its tests, which nobody wrote here.
    is_code = grader.form == 'code'
    final = code_grading.extract_code(text) if is_code else grader.find(text)
    if not final or not (is_code or states(grader, text, final)):
      return None, 'no_answer'
    if reason := self._examiner.unfit(problem, text):
      return None, reason
    return Lesson(
      module=item.module.name,
      prereq=item.module.prerequisites,
      difficulty_tag='intermediate',
      problem=problem,
      completion=text,
      solution={
        'steps': text.splitlines(),
        'final_answer': final,
        'verification': 'none: taught as it was answered',
      },
      adapter_flags={
        'concretization': False,
        'decomposition': False,
        'cognitive_load': {'scale': 'as it came', 'notes': ''},
        'format_template': False,
        'simplified_language': False,
      },
      metadata=item.lineage(),
    ), ''
