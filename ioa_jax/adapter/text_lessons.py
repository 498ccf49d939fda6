"""Lessons of a user's own domain: asked for, parsed, confirmed, cleaned.

A lesson is kept if it parses, belongs to its module, has an answer that the
teacher reaches again from the problem alone, in the majority of its attempts,
and is neither too long, nor a repetition, nor an item of the probes.
"""

from __future__ import annotations

import bisect
from collections.abc import Mapping, Sequence
import dataclasses

from ioa_jax import adapter
from ioa_jax.adapter import (
  Amounts,
  Ask,
  Level,
  curation,
  practice,
  prompts,
)
from ioa_jax.adapter.drafts import Draft, Item, Reader
from ioa_jax.domains import Domain
from ioa_jax.domains.text import Grader
from ioa_jax.evaluation.judging import Judge, Pair
from ioa_jax.identifier.decomposition import Asking
from ioa_jax.models.vocabulary import ChatCodec
from ioa_jax.records import DIFFICULTIES, Lesson, Probe, Rejected
from ioa_jax.teachers.requests import Completion, Request, schema_text

_ALL = 1_000_000  # Seeds.
_SPLITS = ('gate', 'held_out')
# Scores from which a student is beyond a level of DIFFICULTIES.
_BEYOND = (0.5, 0.8)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Checks:
  """What a lesson has to pass.

  Attributes:
    confirm_samples: solutions by which a lesson's answer is confirmed.
    near_duplicate: similarity of problems, in (0, 1], from which one is left
      out.
    contamination: of `contamination.DECIDED_BY`.
    benchmarks: name to texts of its items, which no lesson may give away.
    row_length: tokens of a training row; a lesson takes one at most.
  """

  confirm_samples: int
  near_duplicate: float
  contamination: str
  benchmarks: Mapping[str, Sequence[str]]
  row_length: int


class TextAdapter:
  """Lessons of a `TextDomain`.

  Args:
    asking: of lessons and of their confirmations.
    style: how lessons are asked for.
    amounts: how many.
    checks: what they have to pass.
    judge: of open answers; None leaves their confirmation to the grader.
  """

  def __init__(
    self,
    domain: Domain,
    grader: Grader,
    codec: ChatCodec,
    *,
    asking: Asking,
    style: prompts.Style,
    amounts: Amounts,
    checks: Checks,
    judge: Judge | None = None,
  ):
    self._domain = domain
    self._grader = grader
    self._codec = codec
    self._modules = {m.name: m for m in domain.MODULES}
    self._asking = asking
    self._style = style
    self._amounts = amounts
    self._checks = checks
    self._decides = judge or grader
    self.confirm_samples = checks.confirm_samples
    self._contamination = _contamination(domain, checks)
    self._probes = frozenset(
      p.prompt for split in _SPLITS for p in domain.probes(split, '')
    )
    self._repeats = curation.Repeats(checks.near_duplicate)
    self._reader = Reader(grader, codec, checks.row_length)

  def _solve(self, problem: str, sample: int | None = None) -> Request:
    """`sample` None is greedy, else one of several tries."""
    return Request(
      model=self._asking.teacher,
      prompt=problem,
      system=prompts.FORMS[self._grader.form].solve.format(
        closing=self._grader.closing('...')
      ),
      temperature=0.0 if sample is None else self._asking.temperature,
      top_k=0,
      top_p=1.0,
      max_tokens=self._asking.max_tokens,
      sample_index=sample or 0,
      reasoning_effort=self._asking.reasoning_effort,
    )

  def question(self, probe: Probe) -> Request:
    return self._solve(probe.prompt)

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
    """Requests for each seed, the easiest first.

    Those of a stage begin at the student's own level: what it can do already
    teaches it nothing. Remedial ones are the smallest, and bridging ones skip
    no level.
    """
    unit = self._modules[module]
    seeds = self._domain.seeds(module, self._amounts.seeds_per_module)
    each = self._amounts.per_seed(kind)
    # A probe that is shown would come back as a lesson.
    level = dataclasses.replace(
      level, wrong=[w for w in level.wrong if w['prompt'] not in self._probes]
    )
    practised = tuple(w['prompt'] for w in level.wrong if kind == 'remedial')
    levels = _difficulties(kind, level)
    items = []
    for index in range(each):
      difficulty = levels[index * len(levels) // each]
      for place, seed in enumerate(seeds):
        variant = index * len(seeds) + place
        prompt = prompts.lesson(
          unit,
          seed,
          kind=kind,
          form=self._grader.form,
          difficulty=difficulty,
          stage=stage,
          variant=variant,
          level=level,
        )
        items.append(
          Item(
            module=unit,
            seed=seed,
            kind=kind,
            stage=stage,
            round=round,
            request=self._ask_for(prompt, variant, round),
            practised=practised,
          )
        )
    return items

  def _ask_for(self, prompt: str, variant: int, round: int) -> Request:
    return Request(
      model=self._asking.teacher,
      prompt=prompt,
      system=self._style.system(variant),
      temperature=self._asking.temperature,
      top_k=0,
      top_p=1.0,
      max_tokens=self._asking.max_tokens,
      sample_index=round,
      response_schema=schema_text(Draft),
      reasoning_effort=self._asking.reasoning_effort,
    )

  def write(
    self, items: Sequence[Item], ask: Ask, earlier: Sequence[Lesson]
  ) -> tuple[list[Lesson], list[Rejected]]:
    """Asks, parses, confirms, cleans; every rejection has its reason."""
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
    drafts, dropped = self._clean(drafts, of_request)
    drafts, rejected = adapter.agreed(drafts, rejected + dropped)
    tries = range(self.confirm_samples)
    solved = ask([self._solve(d.problem, t) for d in drafts for t in tries])
    tried = [(d.problem, self._reader.key(d)) for d in drafts for _ in tries]
    agreeing = _agreeing(self._decides, tried, solved)
    lessons = []
    for index, lesson in enumerate(drafts):
      mine = slice(index * len(tries), (index + 1) * len(tries))
      confirmed = self._confirm(lesson, sum(agreeing[mine]))
      if confirmed is None:
        item = of_request[lesson.metadata['request']]
        said = '\n---\n'.join(c.text for c in solved[mine])
        rejected.append(item.rejected('unconfirmed', _text(lesson), said))
      else:
        lessons.append(confirmed)
    kept, dropped = self._clean(lessons, of_request, self._repeats.of(earlier))
    return kept, rejected + dropped

  def _confirm(self, lesson: Lesson, agreed: int) -> Lesson | None:
    """The lesson if most solutions agree with it, and says so."""
    if 2 * agreed <= self.confirm_samples:
      return None
    confirmed = _confirmation(self._decides, agreed, self.confirm_samples)
    if self._grader.form == 'code':
      key = self._reader.key(lesson)
      confirmed += f' with tests that trivial functions fail:\n{key}'
    return dataclasses.replace(
      lesson, solution=lesson.solution | {'verification': confirmed}
    )

  def _clean(
    self,
    lessons: Sequence[Lesson],
    of_request: Mapping[str, Item],
    near_duplicates: curation.NearDuplicates | None = None,
  ) -> tuple[list[Lesson], list[Rejected]]:
    kept, dropped = curation.curate(
      lessons,
      count_tokens=lambda text: len(self._codec.answer(text)),
      min_tokens=8,
      max_tokens=self._checks.row_length,
      contamination=self._contamination,
      near_duplicates=near_duplicates,
    )
    return kept, [
      of_request[lessons[r.index].metadata['request']].rejected(
        r.reason,
        _text(lessons[r.index]),
        r.evidence,
      )
      for r in dropped
    ]


def _agreeing(
  decides: Judge | Grader,
  lessons: Sequence[tuple[str, str]],
  solved: Sequence[Completion],
) -> list[bool]:
  """Whether each solution confirms its lesson; a judge is asked for all.

  An open lesson must not lose to a solution in either order: that two texts
  overlap says nothing of their truth.

  Args:
    lessons: problem and key of the lesson behind each solution.
  """
  tried = [
    (*lesson, c.text, c.finish_reason == 'stop')
    for lesson, c in zip(lessons, solved)
  ]
  if not isinstance(decides, Judge):
    return [
      whole and decides.is_correct(text, key) for _, key, text, whole in tried
    ]
  judged = iter(
    decides.compare([Pair(*pair) for *pair, whole in tried if whole])
  )
  return [whole and next(judged).holds for *_, whole in tried]


def _confirmation(decides: Judge | Grader, agreed: int, tried: int) -> str:
  of = f'{agreed} of {tried} independent solutions'
  if isinstance(decides, Judge):
    return f'{decides.name} prefers it or a tie to {of}'
  return f'{of} agree'


def _difficulties(kind: str, level: Level) -> Sequence[str]:
  if kind == 'remedial':
    return DIFFICULTIES[:1]
  if kind == 'stage' and level.score is not None:
    return DIFFICULTIES[bisect.bisect_right(_BEYOND, level.score) :]
  return DIFFICULTIES


def _contamination(domain: Domain, checks: Checks) -> curation.Contamination:
  return curation.Contamination(
    {
      f'{split} probes': [p.prompt for p in domain.probes(split, '')]
      for split in _SPLITS
    }
    | checks.benchmarks,
    seeds=[
      seed.problem
      for module in domain.MODULES
      for seed in domain.seeds(module.name, _ALL)
    ],
    decided_by=checks.contamination,
  )


def _text(lesson: Lesson) -> str:
  return f'{lesson.problem}\n{lesson.completion}'
