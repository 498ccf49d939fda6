"""A teacher's lesson as it comes: its schema, and whether it can be one."""

from __future__ import annotations

import dataclasses
from typing import Literal

import pydantic

from ioa_jax import adapter
from ioa_jax.adapter import contamination
from ioa_jax.adapter.examiner import Examiner
from ioa_jax.domains.text import Grader, states
from ioa_jax.records import KnowledgeModule, Lesson
from ioa_jax.teachers import structured
from ioa_jax.teachers.requests import Completion

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


# What a teacher answers, with all of these keys.
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
  """One lesson of a module.

  Attributes:
    practised: problems that the request shows, which the lesson must not
      repeat.
  """

  module: KnowledgeModule
  practised: tuple[str, ...] = ()


class Reader:
  """Reads lessons of one kind of answers, for one student."""

  def __init__(self, examiner: Examiner):
    self._examiner = examiner
    self._grader = examiner.grader

  def read(
    self, item: Item, completion: Completion
  ) -> tuple[Lesson | None, str]:
    """An unconfirmed lesson, or why there is none."""
    reason = completion.finish_reason
    draft = structured.read(completion, Draft)
    if draft is None:
      return None, 'schema' if reason == 'stop' else reason
    if draft.module != item.module.name:
      return None, 'off_stage'
    lesson = _lesson(item, draft, self._grader)
    # Read as a student's answer will be: the last line is not all of it.
    key = self.key(lesson)
    if not states(self._grader, lesson.completion, key):
      return None, 'no_answer'
    if not self._grader.proves(key):
      return None, 'proves_nothing'
    if item.practised:
      shown = contamination.Contamination({'practised': item.practised})
      if shown.find(lesson.problem) is not None:
        return None, 'repeats_practice'
    reason = self._examiner.unfit(lesson.problem, lesson.completion)
    return (None if reason else lesson), reason

  def key(self, lesson: Lesson) -> str:
    """What solutions of the lesson are compared with."""
    solution = lesson.solution
    return self._grader.key(solution['final_answer'], solution['verification'])


def _lesson(item: Item, draft: Draft, grader: Grader) -> Lesson:
  """`verification` is the teacher's claim until it is confirmed."""
  solution = draft.solution
  return Lesson(
    module=item.module.name,
    prereq=tuple(draft.prereq),
    difficulty_tag=draft.difficulty_tag,
    problem=draft.problem,
    completion=grader.completion(solution.steps, solution.final_answer),
    solution={
      'steps': list(solution.steps),
      'final_answer': solution.final_answer,
      'verification': solution.verification,
    },
    adapter_flags=draft.adapter_flags.model_dump(),
    metadata=item.lineage(),
  )
