"""Lessons of a user's own domain: asked for, parsed, confirmed, cleaned.

A lesson is kept if it parses, belongs to its module, and the examiner has
nothing against it.
"""

from __future__ import annotations

from collections.abc import Sequence
import dataclasses

from ioa_jax import adapter
from ioa_jax.adapter import Amounts, Ask, Level, levels, practice, prompts
from ioa_jax.adapter.drafts import Draft, Item, Reader
from ioa_jax.adapter.examiner import SPLITS, Examiner
from ioa_jax.domains import Domain
from ioa_jax.records import DIFFICULTIES, Lesson, Probe, Rejected
from ioa_jax.teachers.requests import Request

_ALL = 1_000_000  # Seeds.


class TextAdapter:
  """Lessons of a `TextDomain`.

  Args:
    examiner: of what is kept.
    style: how lessons are asked for.
    amounts: how many.
  """

  def __init__(
    self,
    domain: Domain,
    examiner: Examiner,
    *,
    style: prompts.Style,
    amounts: Amounts,
  ):
    self._domain = domain
    self._examiner = examiner
    self._modules = {m.name: m for m in domain.MODULES}
    self._style = style
    self._amounts = amounts
    self.confirm_samples = examiner.checks.confirm_samples
    probes = [p for s in SPLITS for p in domain.probes(s, '')]
    self._probes = frozenset(p.prompt for p in probes)
    self._scales = {
      name: levels.Scale.of(
        [
          *(s.problem for s in domain.seeds(name, _ALL)),
          *(p.prompt for p in probes if p.module == name),
        ]
      )
      for name in self._modules
    }
    self._reader = Reader(examiner)

  def question(self, probe: Probe) -> Request:
    return self._examiner.solve(probe.prompt)

  def practice(self, module: str, round: int) -> tuple[Probe, ...]:
    """Training seeds, others in each round; see `practice`."""
    return practice.items(self._domain, module, round=round)

  def plan(
    self,
    module: str,
    kind: str,
    *,
    stage: int,
    round: int,
    level: Level,
  ) -> list[Item]:
    """Requests for each seed, the easiest first; see `levels.wanted`."""
    unit, scale = self._modules[module], self._scales[module]
    seeds = self._domain.seeds(module, self._amounts.seeds_per_module)
    each = self._amounts.per_seed(kind)
    # A probe that is shown would come back as a lesson.
    level = dataclasses.replace(
      level, wrong=[w for w in level.wrong if w['prompt'] not in self._probes]
    )
    practised = tuple(w['prompt'] for w in level.wrong if kind == 'remedial')
    tags = levels.wanted(kind, level, scale, each * len(seeds))
    # Each seed gets neighbouring levels.
    wanted = sorted(
      (DIFFICULTIES.index(tags[place * each + index]), index, place)
      for index in range(each)
      for place in range(len(seeds))
    )
    items = []
    for difficulty, index, place in wanted:
      variant = index * len(seeds) + place
      prompt = prompts.lesson(
        unit,
        seeds[place],
        kind=kind,
        form=self._examiner.grader.form,
        difficulty=scale.difficulty(DIFFICULTIES[difficulty]),
        stage=stage,
        variant=variant,
        level=level,
      )
      items.append(
        Item(
          module=unit,
          seed=seeds[place],
          kind=kind,
          stage=stage,
          round=round,
          request=self._ask_for(prompt, variant, round),
          practised=practised,
        )
      )
    return items

  def _ask_for(self, prompt: str, variant: int, round: int) -> Request:
    return self._examiner.asking.request(
      prompt, Draft, sample=round, system=self._style.system(variant)
    )

  def write(
    self, items: Sequence[Item], ask: Ask, earlier: Sequence[Lesson]
  ) -> tuple[list[Lesson], list[Rejected]]:
    """Asks, parses, confirms, cleans; every rejection has its reason."""
    examiner = self._examiner
    rejected: list[Rejected] = []
    drafts = []
    answers = ask([i.request for i in items], Draft)
    for item, completion in zip(items, answers, strict=True):
      lesson, reason = self._reader.read(item, completion)
      if lesson is None:
        said = completion.text or completion.discarded
        rejected.append(item.rejected(reason, said))
      else:
        drafts.append(lesson)
    # What costs nothing comes first: confirming is paid for.
    of_request = {item.request.key(): item for item in items}
    drafts, dropped = examiner.clean(drafts, of_request)
    drafts, rejected = adapter.agreed(drafts, rejected + dropped)
    lessons, unconfirmed = examiner.confirmed(
      [(d, self._reader.key(d)) for d in drafts], ask, of_request
    )
    kept, dropped = examiner.clean(
      lessons, of_request, examiner.repeats.of(earlier)
    )
    return kept, rejected + unconfirmed + dropped
