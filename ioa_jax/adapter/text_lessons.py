"""Lessons of a user's own domain: asked for, parsed, confirmed, cleaned.

A lesson is kept if it parses, belongs to its module, has an answer that the
teacher reaches again from the problem alone, in the majority of its attempts,
and is neither too long, nor a repetition, nor an item of the probes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
import dataclasses
import json
from typing import Literal

import json_repair
import pydantic

from ioa_jax.adapter import Ask, Level, curation, prompts
from ioa_jax.domains import Domain
from ioa_jax.evaluation.final_answers import FinalAnswer
from ioa_jax.models.vocabulary import Codec
from ioa_jax.records import DIFFICULTIES, KnowledgeModule, Lesson, Probe, Seed
from ioa_jax.teachers.requests import Completion, Request, schema_text

_Text = pydantic.constr(strip_whitespace=True, min_length=1)


class _Strict(pydantic.BaseModel):
  model_config = pydantic.ConfigDict(extra='forbid')


class _Solution(_Strict):
  steps: list[_Text] = pydantic.Field(min_length=1)
  final_answer: _Text
  verification: str


class _CognitiveLoad(_Strict):
  scale: str
  notes: str


class _Flags(_Strict):
  concretization: bool
  decomposition: bool
  cognitive_load: _CognitiveLoad
  format_template: bool
  simplified_language: bool


class _Metadata(_Strict):
  stage_id: int
  seed_style_ref: str


class Draft(_Strict):
  """What a teacher answers: METHOD §4's keys, all of them required."""

  module: str
  prereq: list[str]
  difficulty_tag: Literal['introductory', 'intermediate', 'advanced']
  problem: _Text
  solution: _Solution
  adapter_flags: _Flags
  metadata: _Metadata


def parse(text: str) -> Draft | None:
  """The draft in a teacher's answer, repaired if it is nearly JSON."""
  for read in (json.loads, json_repair.loads):
    try:
      return Draft.model_validate(read(text))
    except (ValueError, TypeError, RecursionError):
      continue
  return None


@dataclasses.dataclass(frozen=True)
class Item:
  """One lesson to be asked for."""

  module: KnowledgeModule
  seed: Seed
  kind: str
  stage: int
  round: int
  request: Request


class TextAdapter:
  """Lessons of a `TextDomain`.

  Args:
    description: one line, what the student is learning.
    strategies: of `prompts.STRATEGIES`, those that are on.
    confirm_samples: solutions by which a lesson's answer is confirmed.
    near_duplicate: similarity of problems from which one is left out.
    max_lesson_tokens: of problem and solution, by the student's tokenizer.
  """

  def __init__(
    self,
    domain: Domain,
    grader: FinalAnswer,
    codec: Codec,
    *,
    description: str,
    teacher: str,
    max_tokens: int,
    temperature: float,
    strategies: Sequence[str],
    confirm_samples: int,
    seeds_per_module: int,
    per_seed: Mapping[str, int],
    max_lesson_tokens: int,
    near_duplicate: float,
  ):
    unknown = sorted(set(strategies) - set(prompts.STRATEGIES))
    if unknown:
      raise ValueError(
        f'config.adapter.strategies: {unknown} unknown; choose of '
        f'{list(prompts.STRATEGIES)}.'
      )
    self._domain = domain
    self._grader = grader
    self._codec = codec
    self._modules = {m.name: m for m in domain.MODULES}
    self._description = description
    self._teacher = teacher
    self._max_tokens = max_tokens
    self._temperature = temperature
    self._strategies = tuple(strategies)
    self.confirm_samples = confirm_samples
    self._seeds_per_module = seeds_per_module
    self._per_seed = dict(per_seed)
    self._max_lesson_tokens = max_lesson_tokens
    self._near_duplicate = near_duplicate
    self._probes = {
      f'{split} probes': [p.prompt for p in domain.probes(split, '')]
      for split in ('gate', 'held_out')
    }

  def _solve(self, problem: str, sample: int | None = None) -> Request:
    """`sample` None is greedy, else one of several tries."""
    return Request(
      model=self._teacher, prompt=problem,
      system=prompts.SOLVE.format(closing=self._grader.closing('...')),
      temperature=0.0 if sample is None else self._temperature,
      top_k=0, top_p=1.0, max_tokens=self._max_tokens,
      sample_index=sample or 0,
    )  # fmt: skip

  def question(self, probe: Probe) -> Request:
    return self._solve(probe.prompt)

  def max_lessons(self, rounds: int) -> int:
    first = max(v for k, v in self._per_seed.items() if k != 'remedial')
    again = self._per_seed['remedial']
    return self._seeds_per_module * (first + rounds * again)

  def plan(
    self,
    module: str,
    kind: str,
    *,
    stage: int,
    round: int,
    level: Level,
  ) -> list[Item]:
    """`per_seed[kind]` requests for each seed, the easiest first."""
    unit = self._modules[module]
    seeds = self._domain.seeds(module, self._seeds_per_module)
    each = self._per_seed[kind]
    items = []
    for index in range(each):
      difficulty = (
        DIFFICULTIES[0] if kind == 'remedial'
        else DIFFICULTIES[index * len(DIFFICULTIES) // each]
      )  # fmt: skip
      for place, seed in enumerate(seeds):
        system, user = prompts.lesson(
          unit, seed, domain=self._description, kind=kind,
          difficulty=difficulty, strategies=self._strategies, stage=stage,
          variant=index * len(seeds) + place, level=level,
        )  # fmt: skip
        request = Request(
          model=self._teacher, prompt=user, system=system,
          temperature=self._temperature, top_k=0, top_p=1.0,
          max_tokens=self._max_tokens, sample_index=round,
          response_schema=schema_text(Draft),
        )  # fmt: skip
        items.append(Item(unit, seed, kind, stage, round, request))
    return items

  def write(
    self, items: Sequence[Item], ask: Ask, earlier: Sequence[Lesson]
  ) -> tuple[list[Lesson], Counter]:
    """Asks, parses, confirms, cleans; every rejection has its reason."""
    rejected: Counter = Counter()
    drafts = []
    answers = ask([i.request for i in items], Draft)
    for item, completion in zip(items, answers, strict=True):
      draft, reason = self._read(item, completion)
      if draft is None:
        rejected[reason] += 1
      else:
        drafts.append((item, draft))
    tries = range(self.confirm_samples)
    solved = ask([self._solve(d.problem, t) for _, d in drafts for t in tries])
    lessons = []
    for index, (item, draft) in enumerate(drafts):
      mine = solved[index * len(tries) : (index + 1) * len(tries)]
      agreed = sum(
        c.finish_reason == 'stop'
        and self._grader.is_correct(c.text, draft.solution.final_answer)
        for c in mine
      )
      if 2 * agreed <= len(tries):
        rejected['unconfirmed'] += 1
        continue
      lessons.append(self._lesson(item, draft, f'{agreed} of {len(tries)}'))
    seen = curation.NearDuplicates(threshold=self._near_duplicate)
    for lesson in earlier:
      seen.add(lesson.metadata['request'], lesson.problem)
    kept, dropped = curation.curate(
      lessons,
      count_tokens=lambda text: len(self._codec.answer(text)),
      min_tokens=8,
      max_tokens=self._max_lesson_tokens,
      contamination=curation.Contamination(self._probes),
      near_duplicates=seen,
    )
    rejected.update(curation.count_reasons(dropped))
    return kept, rejected

  def _read(
    self, item: Item, completion: Completion
  ) -> tuple[Draft | None, str]:
    """The draft, or why there is none."""
    if completion.finish_reason != 'stop':
      return None, completion.finish_reason
    draft = parse(completion.text)
    if draft is None:
      return None, 'schema'
    if draft.module != item.module.name:
      return None, 'off_stage'
    stated = self._grader.closing(draft.solution.final_answer)
    try:
      # An answer that the grader cannot read back is none.
      readable = self._grader.is_correct(stated, draft.solution.final_answer)
    except ValueError:
      readable = False
    return (draft, '') if readable else (None, 'no_answer')

  def _lesson(self, item: Item, draft: Draft, confirmed: str) -> Lesson:
    solution = draft.solution
    closing = self._grader.closing(solution.final_answer)
    return Lesson(
      module=item.module.name,
      prereq=tuple(draft.prereq),
      difficulty_tag=draft.difficulty_tag,
      problem=draft.problem,
      completion='\n'.join([*solution.steps, closing]),
      solution={
        'steps': list(solution.steps),
        'final_answer': solution.final_answer,
        'verification': f'{confirmed} independent solutions agree',
      },
      adapter_flags=draft.adapter_flags.model_dump(),
      metadata={
        'stage_id': item.stage,
        'seed_style_ref': item.seed.problem,
        'kind': item.kind,
        'round': item.round,
        'teacher': item.request.model,
        'request': item.request.key(),
      },
    )
