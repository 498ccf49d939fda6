"""A first configuration for seeds of one's own, with a reason for each line."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
import dataclasses
import math
from typing import Any

import ml_collections

from ioa_jax import config as config_lib
from ioa_jax import subject as subject_lib
from ioa_jax.adapter import Adapter
from ioa_jax.domains import Domain, text
from ioa_jax.evaluation import final_answers
from ioa_jax.models import hub, vocabulary
from ioa_jax.models.vocabulary import Codec
from ioa_jax.phases import projection, step_budget
from ioa_jax.records import Seed
from ioa_jax.runtime import terminal
from ioa_jax.teachers.requests import Budget, Price

CHARACTERS_PER_TOKEN = 3.5  # Of English and sums; only projections use it.
_TEMPLATE_TOKENS = 24  # Of a chat template around a question.
_SURE_PROBES = 8
_LONGEST_ROW = 2048  # What small students read at least.
_STUDENT = 'HuggingFaceTB/SmolLM2-135M-Instruct'

# Setting to its value and the reason for it.
Reasoned = Mapping[str, tuple[Any, str]]


class RoughCodec:
  """Token counts of a student whose tokenizer is not here."""

  stop_tokens = (0,)
  prompt_bucket = 64
  control_texts = ()

  def prompt(self, text: str, system: str = '') -> list[int]:
    return [0] * (_TEMPLATE_TOKENS + rough_tokens(system + text))

  def answer(self, text: str) -> list[int]:
    return [0] * rough_tokens(text)

  def decode(self, tokens: Sequence[int]) -> str:
    raise NotImplementedError('only counts are known')


@dataclasses.dataclass(frozen=True)
class Untaught:
  """See `projection.Projected`; nothing of it is loaded."""

  domain: Domain
  adapter: Adapter
  codec: Codec
  budget: Budget
  price: Price
  judge: None = None


@dataclasses.dataclass(frozen=True)
class Layout:
  """What a domain's seeds come to.

  Attributes:
    seeds: of each module, equal problems once.
    fewest: probes of the smallest module, in each split.
    lesson_tokens: of one, roughly.
    longest_answer: tokens that 95 % of the answers keep to, roughly.
  """

  seeds: Mapping[str, int]
  fewest: int
  lesson_tokens: int
  longest_answer: int


def rough_tokens(text: str) -> int:
  return math.ceil(len(text) / CHARACTERS_PER_TOKEN)


def layout(seeds: Sequence[Seed]) -> Layout:
  """Counts of seeds that a domain can use."""
  distinct = text.distinct(seeds)
  counts = Counter(s.module for s in distinct)
  answers = sorted(
    rough_tokens(s.solution) or max(step_budget.WORKED, rough_tokens(s.answer))
    for s in distinct
  )
  tokens = sum(rough_tokens(s.problem) for s in distinct) + sum(answers)
  return Layout(
    dict(counts),
    min(text.num_probes(n) for n in counts.values()),
    _TEMPLATE_TOKENS + tokens // len(distinct),
    answers[min(len(answers) - 1, round(0.95 * len(answers)))],
  )


def budgets(found: Layout, config: ml_collections.ConfigDict) -> Reasoned:
  """What follows from how many seeds there are, and how long."""
  probes = min(_SURE_PROBES, found.fewest)
  smallest = min(found.seeds, key=found.seeds.get)
  about = f'the smallest module, {smallest}, has {found.seeds[smallest]} seeds'
  if probes < _SURE_PROBES:
    needed = text.seeds_needed(_SURE_PROBES)
    about += f'; {needed} would give a gate {_SURE_PROBES}'
  answer = max(192, _rounded(1.5 * found.longest_answer, 64))
  longest = found.lesson_tokens + answer
  row = min(_LONGEST_ROW, max(512, _rounded(longest, 256)))
  settings: dict[str, tuple[Any, str]] = {
    'domain.min_probes': (probes, about),
    'gate.min_probes': (probes, 'fewer answers are no evidence'),
    'student.max_tokens': (
      min(answer, row),
      f'95 % of worked answers take at most some {found.longest_answer}',
    ),
    'train.row_length': (row, 'a problem and its answer fit'),
  }
  settings['train.total_steps'] = (
    step_budget.AUTO,
    f'train.epochs ({config.train.epochs:g}) passes over all lessons, and time '
    'for every stage; --dry_run says how many that is',
  )
  return settings


def people(config: ml_collections.ConfigDict) -> Reasoned:
  """Who teaches and who learns, where nobody has said it."""
  settings = {}
  if not config.teacher.model:
    settings['teacher.model'] = ('NAME', 'put here what its server calls it')
  if not config.student.model:
    settings['student.model'] = (
      _STUDENT,
      'small enough for two CPU cores; a directory or another hub id',
    )
  return settings


def describe(config: ml_collections.ConfigDict) -> str:
  """Steps, requests, tokens and dollars in lines, as far as they are known."""
  grader = final_answers.KINDS[config.domain.grader]()
  domain = subject_lib.text_domain(config, grader)
  directory = hub.here(config.student.model)
  codec = vocabulary.ChatCodec(directory) if directory else RoughCodec()
  teacher = config.teacher
  untaught = Untaught(
    domain,
    subject_lib.text_adapter(
      config,
      domain,
      subject_lib.text_examiner(config, domain, grader, codec, teacher.model),
    ),
    codec,
    Budget(teacher.max_completion_tokens, teacher.max_usd or None),
    Price(**teacher.price),
  )
  asked = projection.describe(config, untaught, config.gate.max_rounds)
  config = step_budget.begin(config, untaught, None, lambda line: None)
  lines = [
    f'{config.train.total_steps} steps of {config.train.batch_rows} rows of '
    f'{config.train.row_length} tokens. The teacher is asked, at least and at '
    'most:',
    *(f'  {line}' for line in asked.splitlines()),
  ]
  if not any(teacher.price.values()):
    lines.append(
      'Dollars are unknown until teacher.price is set (per million tokens).'
    )
  if directory is None:
    lines.append('Tokens are guessed, as the student is not on this machine.')
  return '\n'.join(lines)


def source(settings: Reasoned, about: Sequence[str]) -> str:
  """The file: Python that only says what differs from the defaults.

  Args:
    about: lines for people, at its top.
  """
  lines = [f'# {_comment(line)}'.rstrip() for line in about]
  lines += [
    '',
    'from ioa_jax import config as config_lib',
    '',
    '',
    'def get_config():',
    '  return config_lib.get(',
    '    {',
  ]
  for path, (value, reason) in settings.items():
    lines.append(f'      {path!r}: {value!r},  # {_comment(reason)}')
  return '\n'.join([*lines, '    }', '  )', ''])


def _comment(text: str) -> str:
  """Names of files and columns are a stranger's: they stay in their line."""
  return terminal.printable(' '.join(text.split()))


def without_default_columns(settings: Reasoned) -> Reasoned:
  """Columns that are called as the defaults say need no line."""
  fields = config_lib.fields()
  return {
    path: (value, reason)
    for path, (value, reason) in settings.items()
    if 'columns' not in path or value != fields[path].default
  }


def _rounded(value: float, step: int) -> int:
  return step * math.ceil(value / step)
