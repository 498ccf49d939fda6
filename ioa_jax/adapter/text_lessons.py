"""Lessons of a user's own domain: asked for, parsed, confirmed, cleaned.

A lesson is kept if it parses, belongs to its module, has an answer that the
teacher reaches again from the problem alone, in the majority of its attempts,
and is neither too long, nor a repetition, nor an item of the probes.
"""

from __future__ import annotations

import bisect
from collections import Counter
from collections.abc import Mapping, Sequence
import dataclasses
from typing import Literal

import pydantic

from ioa_jax import adapter
from ioa_jax.adapter import Ask, Level, curation, prompts
from ioa_jax.domains import Domain
from ioa_jax.domains.text import Grader, states
from ioa_jax.models.vocabulary import ChatCodec
from ioa_jax.records import DIFFICULTIES, KnowledgeModule, Lesson, Probe
from ioa_jax.teachers import structured
from ioa_jax.teachers.requests import Completion, Request, schema_text

# Scores from which a student is beyond a level of DIFFICULTIES.
_BEYOND = (0.5, 0.8)
_Text = pydantic.constr(strip_whitespace=True, min_length=1)


class _Solution(structured.Strict):
  steps: list[_Text] = pydantic.Field(min_length=1)
  final_answer: _Text
  verification: str


class _CognitiveLoad(structured.Strict):
  scale: str
  notes: str


class _Flags(structured.Strict):
  concretization: bool
  decomposition: bool
  cognitive_load: _CognitiveLoad
  format_template: bool
  simplified_language: bool


class _Metadata(structured.Strict):
  stage_id: int
  seed_style_ref: str


# What a teacher answers: METHOD §4's keys, all of them required.
class Draft(structured.Strict):
  module: str
  prereq: list[str]
  difficulty_tag: Literal['introductory', 'intermediate', 'advanced']
  problem: _Text
  solution: _Solution
  adapter_flags: _Flags
  metadata: _Metadata


@dataclasses.dataclass(frozen=True, kw_only=True)
class Item(adapter.Item):
  """One lesson of a module."""

  module: KnowledgeModule


class TextAdapter:
  """Lessons of a `TextDomain`.

  Args:
    description: one line, what the student is learning.
    strategies: of `prompts.STRATEGIES`, those that are on.
    personas: who writes, in turn; () is nobody in particular.
    confirm_samples: solutions by which a lesson's answer is confirmed.
    near_duplicate: similarity of problems from which one is left out.
    benchmarks: name to texts of its items, which no lesson may contain.
    row_length: tokens of a training row; a lesson takes one at most.
    reasoning_effort: see `Request`.
  """

  def __init__(
    self,
    domain: Domain,
    grader: Grader,
    codec: ChatCodec,
    *,
    description: str,
    teacher: str,
    max_tokens: int,
    temperature: float,
    strategies: Sequence[str],
    personas: Sequence[str],
    confirm_samples: int,
    seeds_per_module: int,
    per_seed: Mapping[str, int],
    row_length: int,
    near_duplicate: float,
    benchmarks: Mapping[str, Sequence[str]],
    reasoning_effort: str = '',
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
    self._reasoning_effort = reasoning_effort
    self._max_tokens = max_tokens
    self._temperature = temperature
    self._strategies = tuple(strategies)
    self._personas = tuple(personas) or ('',)
    self.confirm_samples = confirm_samples
    self._seeds_per_module = seeds_per_module
    self._per_seed = dict(per_seed)
    self._row_length = row_length
    # Of every lesson so far. A missing package shows before anything is paid.
    self._seen = curation.NearDuplicates(threshold=near_duplicate)
    self._contamination = curation.Contamination(
      {
        f'{split} probes': [p.prompt for p in domain.probes(split, '')]
        for split in ('gate', 'held_out')
      }
      | benchmarks
    )

  def _solve(self, problem: str, sample: int | None = None) -> Request:
    """`sample` None is greedy, else one of several tries."""
    return Request(
      model=self._teacher, prompt=problem,
      system=prompts.FORMS[self._grader.form].solve.format(
        closing=self._grader.closing('...')
      ),
      temperature=0.0 if sample is None else self._temperature,
      top_k=0, top_p=1.0, max_tokens=self._max_tokens,
      sample_index=sample or 0, reasoning_effort=self._reasoning_effort,
    )  # fmt: skip

  def question(self, probe: Probe) -> Request:
    return self._solve(probe.prompt)

  def plan(
    self,
    module: str,
    kind: str,
    *,
    stage: int,
    round: int,
    level: Level,
  ) -> list[Item]:
    """`per_seed[kind]` requests for each seed, the easiest first.

    Those of a stage begin at the student's own level: what it can do already
    teaches it nothing. Remedial ones are the smallest, and bridging ones skip
    no level.
    """
    unit = self._modules[module]
    seeds = self._domain.seeds(module, self._seeds_per_module)
    each = self._per_seed[kind]
    levels = DIFFICULTIES
    if kind == 'remedial':
      levels = DIFFICULTIES[:1]
    elif kind == 'stage' and level.score is not None:
      levels = DIFFICULTIES[bisect.bisect_right(_BEYOND, level.score) :]
    items = []
    for index in range(each):
      difficulty = levels[index * len(levels) // each]
      for place, seed in enumerate(seeds):
        variant = index * len(seeds) + place
        system, user = prompts.lesson(
          unit, seed, domain=self._description, kind=kind,
          form=self._grader.form, difficulty=difficulty,
          strategies=self._strategies, stage=stage, variant=variant,
          persona=self._personas[variant % len(self._personas)], level=level,
        )  # fmt: skip
        request = Request(
          model=self._teacher, prompt=user, system=system,
          temperature=self._temperature, top_k=0, top_p=1.0,
          max_tokens=self._max_tokens, sample_index=round,
          response_schema=schema_text(Draft),
          reasoning_effort=self._reasoning_effort,
        )  # fmt: skip
        items.append(
          Item(
            module=unit, seed=seed, kind=kind, stage=stage, round=round,
            request=request,
          )
        )  # fmt: skip
    return items

  def write(
    self, items: Sequence[Item], ask: Ask, earlier: Sequence[Lesson]
  ) -> tuple[list[Lesson], Counter]:
    """Asks, parses, confirms, cleans; every rejection has its reason."""
    rejected: Counter = Counter()
    drafts = []
    answers = ask([i.request for i in items], Draft)
    for item, completion in zip(items, answers, strict=True):
      lesson, reason = self._read(item, completion)
      if lesson is None:
        rejected[reason] += 1
      else:
        drafts.append(lesson)
    # What costs nothing comes first: confirming is paid for.
    drafts, dropped = self._clean(drafts)
    rejected.update(curation.count_reasons(dropped))
    drafts, rejected = adapter.agreed(drafts, rejected)
    tries = range(self.confirm_samples)
    solved = ask([self._solve(d.problem, t) for d in drafts for t in tries])
    lessons = []
    for index, lesson in enumerate(drafts):
      mine = solved[index * len(tries) : (index + 1) * len(tries)]
      key = self._key(lesson)
      agreed = sum(
        c.finish_reason == 'stop' and self._grader.is_correct(c.text, key)
        for c in mine
      )
      if 2 * agreed <= len(tries):
        rejected['unconfirmed'] += 1
        continue
      confirmed = f'{agreed} of {len(tries)} independent solutions agree'
      if self._grader.form == 'code':
        confirmed += f' with tests that trivial functions fail:\n{key}'
      lessons.append(
        dataclasses.replace(
          lesson, solution=lesson.solution | {'verification': confirmed}
        )
      )
    # New here are only those that another process wrote.
    for lesson in earlier[len(self._seen) :]:
      self._seen.add(lesson.metadata['request'], lesson.problem)
    kept, dropped = self._clean(lessons, self._seen)
    rejected.update(curation.count_reasons(dropped))
    return kept, rejected

  def _clean(self, lessons, near_duplicates=None):
    return curation.curate(
      lessons,
      count_tokens=lambda text: len(self._codec.answer(text)),
      min_tokens=8,
      max_tokens=self._row_length,
      contamination=self._contamination,
      near_duplicates=near_duplicates,
    )

  def _read(
    self, item: Item, completion: Completion
  ) -> tuple[Lesson | None, str]:
    """An unconfirmed lesson, or why there is none."""
    reason = completion.finish_reason
    draft = structured.read(completion, Draft)
    if draft is None:
      return None, 'schema' if reason == 'stop' else reason
    if draft.module != item.module.name:
      return None, 'off_stage'
    lesson = self._lesson(item, draft)
    # Read as a student's answer will be: the last line is not all of it.
    key = self._key(lesson)
    if not states(self._grader, lesson.completion, key):
      return None, 'no_answer'
    if not self._grader.proves(key):
      return None, 'proves_nothing'
    written = lesson.problem + lesson.completion
    if any(control in written for control in self._codec.control_texts):
      return None, 'control_token'
    prompt = self._codec.prompt(lesson.problem)
    answer = self._codec.answer(lesson.completion)
    # The last token is only a target.
    if len(prompt) + len(answer) - 1 > self._row_length:
      return None, 'too_long'
    return lesson, ''

  def _key(self, lesson: Lesson) -> str:
    solution = lesson.solution
    return self._grader.key(solution['final_answer'], solution['verification'])

  def _lesson(self, item: Item, draft: Draft) -> Lesson:
    """`verification` is the teacher's claim until it is confirmed."""
    solution = draft.solution
    return Lesson(
      module=item.module.name,
      prereq=tuple(draft.prereq),
      difficulty_tag=draft.difficulty_tag,
      problem=draft.problem,
      completion=self._grader.completion(solution.steps, solution.final_answer),
      solution={
        'steps': list(solution.steps),
        'final_answer': solution.final_answer,
        'verification': solution.verification,
      },
      adapter_flags=draft.adapter_flags.model_dump(),
      metadata=item.lineage(),
    )
