"""What is said to a teacher about lessons.

Rendered by code, so that a change is a change of the request's hash, and
compared with golden files in the tests.
"""

from __future__ import annotations

from collections.abc import Sequence
import dataclasses
import json
from typing import Any

from ioa_jax.adapter import Level
from ioa_jax.adapter.levels import Difficulty
from ioa_jax.records import KnowledgeModule, Seed

STRATEGIES = {
  'concretise': (
    'Concretise: show an abstract idea first in a small story or a picture of '
    'things one can count, then in symbols.'
  ),
  'decompose': (
    'Decompose: extract what is given, relate it, formulate, solve, verify; '
    'one calculation in each step.'
  ),
  'cognitive_load': (
    'Manage cognitive load: the fewest facts that still show the idea, and no '
    'larger numbers than the difficulty asks for; nothing that is not needed.'
  ),
  'template': (
    'One fixed form: every step is one line that begins with "First,", "Next," '
    'or "Therefore,".'
  ),
  'plain_language': (
    'Plain language: short sentences, common words, no more than 15 words each.'
  ),
}

# Different places make for different problems; the item's index chooses.
SETTINGS = (
  'a market stall',
  'a school trip',
  'a kitchen',
  'a building site',
  'a garden',
  'a sports club',
  'a library',
  'a train journey',
)

_KIND = {
  'stage': 'Write one new problem of this unit.',
  'rehearsal': (
    'Write one new problem of this unit, for a student who knows it already '
    'and must not forget it.'
  ),
  'remedial': (
    'The student has practised this unit and still fails. Write one new '
    'problem that trains exactly what went wrong below, and nothing else.'
  ),
  'bridging': (
    'The step up to this unit is high. Write one new problem that is only one '
    'notch harder than what the student can do.'
  ),
}

_EXAMPLE: dict[str, Any] = {
  'module': 'category/unit',
  'prereq': ['category/other_unit'],
  'difficulty_tag': 'introductory | intermediate | advanced',
  'problem': 'the whole question',
  'solution': {
    'steps': ['First, ...', 'Next, ...', 'Therefore, ...'],
  },
  'adapter_flags': {
    'concretization': True,
    'decomposition': True,
    'cognitive_load': {'scale': 'small', 'notes': 'what was kept small'},
    'format_template': True,
    'simplified_language': True,
  },
  'metadata': {'stage_id': 0, 'seed_style_ref': 'what the example shows'},
}


@dataclasses.dataclass(frozen=True)
class Form:
  """How answers of one kind are asked for.

  Attributes:
    solve: system prompt of who answers a problem; takes `closing`.
    problem: what a problem needs, '' if nothing.
    lesson: what a lesson's steps need besides, '' if nothing.
    final_answer, verification: what these fields of a lesson hold.
  """

  solve: str
  problem: str = ''
  lesson: str = ''
  final_answer: str = 'the answer alone'
  verification: str = 'how the answer was checked'


_SOLVE = (
  'Solve the problem. Reason step by step, one calculation a line. End with a '
  'line of its own in exactly this form:\n{closing}'
)
FORMS = {
  'value': Form(_SOLVE),
  'choice': Form(
    'Answer the question. Reason step by step, one thought a line. End with a '
    'line of its own in exactly this form, with the letter of your choice:\n'
    '{closing}',
    'The problem ends in four choices, one a line, that begin with (A), (B), '
    '(C) and (D); exactly one is right.',
    final_answer='the letter alone',
  ),
  'code': Form(
    'Write Python that does what is asked. Say in short lines what you do, '
    'then end with all of the code in one block:\n{closing}',
    'The problem names the Python function to write and its arguments, and '
    'shows two calls with what they return.',
    '"steps" say how it is done, without code.',
    'the whole Python code, without a fence',
    'at least four assertions, one a line, that call the function: assert '
    'f(2) == 4. They fail for a function that always returns the same, and '
    'nothing but assertions and imports is in them',
  ),
  'open': Form(
    'Do what is asked. Write the answer only: complete, and no longer than '
    'needed.',
    'The problem can be answered from general knowledge or from what it '
    'contains.',
    '"steps" say what the answer has to cover.',
    'the whole answer, as it should be written',
  ),
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Style:
  """What all requests of a run share.

  Attributes:
    description: one line, what the student is learning.
    strategies: of STRATEGIES, those that are on.
    personas: who writes, in turn; () is nobody in particular.
  """

  description: str
  strategies: Sequence[str]
  personas: Sequence[str]

  def __post_init__(self):
    unknown = sorted(set(self.strategies) - set(STRATEGIES))
    if unknown:
      raise ValueError(
        f'config.adapter.strategies: {unknown} unknown; choose of '
        f'{list(STRATEGIES)}.'
      )

  def system(self, variant: int) -> str:
    """The system message of the item with that number."""
    rules = '\n'.join(f'- {STRATEGIES[s]}' for s in self.strategies)
    persona = self.personas and self.personas[variant % len(self.personas)]
    return (
      'You write lessons for a small language model that is learning '
      f'{self.description}. It imitates what it reads, so every line must be '
      'correct and must be needed.'
      + (f' Write as {persona} would.' if persona else '')
      + (f'\nFor every lesson:\n{rules}' if rules else '')
    )


def lesson(
  module: KnowledgeModule,
  seed: Seed,
  *,
  kind: str,
  form: str,
  difficulty: Difficulty,
  stage: int,
  variant: int,
  level: Level,
) -> str:
  """The user message that asks for one lesson.

  Args:
    kind: 'stage', 'remedial', 'bridging' or 'rehearsal'.
    form: of FORMS.
    difficulty: that is asked for.
    variant: tells apart the items of one seed, and chooses their setting.
    level: the student's, on this unit; only a remedial request shows what
      went wrong, and a rehearsal is the same for any student.
  """
  prerequisites = ', '.join(module.prerequisites) or 'nothing'
  setting = SETTINGS[variant % len(SETTINGS)]
  parts = [
    f'Unit: {module.name} ({module.description}). It stands on: '
    f'{prerequisites}.',
    ' '.join(
      filter(None, (_KIND[kind], FORMS[form].problem, FORMS[form].lesson))
    ),
    f'Difficulty: {difficulty.says}. Setting: {setting}. Variant '
    f'{variant + 1}.',
  ]
  if level.score is not None and kind != 'rehearsal':
    parts.append(
      f'The student answers {level.score:.0%} of such problems correctly.'
    )
  if kind == 'remedial' and level.wrong:
    parts.append('What went wrong:')
    parts += [
      f'- Problem: {clip(w["prompt"])}\n  Right answer: {clip(w["answer"])}\n'
      f'  The student wrote: {clip(w["student"])}'
      for w in level.wrong
    ]
  parts += [
    'An example of the style, not to be copied:',
    f'{seed.problem}\nAnswer: {seed.answer}',
    'Answer with one JSON object and nothing else, with all of these keys. '
    f'"module" is "{module.name}", "stage_id" is {stage}, "difficulty_tag" is '
    f'"{difficulty.tag}", each flag says whether you did so:',
    json.dumps(_example(FORMS[form]), indent=1),
  ]
  return '\n\n'.join(parts)


def _example(form: Form) -> dict[str, Any]:
  solution = _EXAMPLE['solution'] | {
    'final_answer': form.final_answer,
    'verification': form.verification,
  }
  return _EXAMPLE | {'solution': solution}


def clip(text: str, limit: int = 300) -> str:
  """Student text is of any length and shape; a request shows its beginning."""
  one_line = ' '.join(text.split())
  return one_line if len(one_line) <= limit else one_line[: limit - 3] + '...'
