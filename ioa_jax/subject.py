"""What is taught, by whom and to whom: all that needs no run directory."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
import dataclasses
import pathlib
import types
from typing import Any

import jax
import ml_collections

from ioa_jax import config as config_lib
from ioa_jax import people
from ioa_jax.adapter import (
  Adapter,
  Amounts,
  arithmetic_lessons,
  composition_lessons,
  plain_lessons,
  prompts,
  text_lessons,
)
from ioa_jax.adapter.examiner import Checks, Examiner
from ioa_jax.adapter.referee import Referee
from ioa_jax.baselines.answers import Answers, Formulas, Texts
from ioa_jax.domains import Domain, arithmetic, composition, seed_sources, text
from ioa_jax.domains import tokenizer as tokenizer_lib
from ioa_jax.evaluation import benchmarks, final_answers, judging
from ioa_jax.identifier import decomposition
from ioa_jax.models import (
  checks,
  loading,
  vocabulary,
)
from ioa_jax.models.lora import LoraSpec
from ioa_jax.models.vocabulary import Codec
from ioa_jax.teachers import Teacher
from ioa_jax.teachers.ledger import Ledger
from ioa_jax.teachers.requests import Budget, Price
from ioa_jax.training.gate import normal_quantile

_BUILT_IN = {
  'arithmetic': (arithmetic, arithmetic_lessons.ArithmeticAdapter),
  'composition': (composition, composition_lessons.CompositionAdapter),
}


@dataclasses.dataclass(frozen=True)
class Subject:
  """What is taught and how; fixed before a run begins.

  Attributes:
    name: of the domain, for people.
    domain: modules, seeds, probes, verdicts.
    adapter: its requests and lessons.
    teacher: who answers requests.
    teacher_model: its weights, None if they are not on this machine.
    teacher_codec: how it reads and writes text, with its weights.
    student: before it has learnt anything.
    codec: how the student reads and writes text.
    budget: hard limits of all that the teacher is asked.
    price: of a served teacher.
    lora: what trains of the student; None is all of it.
    recording: a ledger whose answers are taken before the teacher is asked.
    answers: what lessons' answers are made of.
    referee: the teacher as a judge of answers; None where a verifier is.
    judge: of open answers; it is opened with the run.
    one_vocabulary: False if teacher and student, whose distributions are
      compared, have different tokens.
  """

  name: str
  domain: Domain
  adapter: Adapter
  teacher: Teacher
  teacher_model: loading.Model | None
  teacher_codec: Codec | None
  student: loading.Model
  codec: Codec
  budget: Budget
  price: Price
  lora: LoraSpec | None
  recording: Ledger | None
  answers: Answers
  referee: Referee | None = None
  judge: judging.Judge | None = None
  one_vocabulary: bool = True

  @property
  def teacher_params(self) -> int | None:
    """How many, None if they are not known."""
    return self.teacher_model and self.teacher_model.num_params


def open_subject(
  config: ml_collections.ConfigDict,
  mesh: jax.sharding.Mesh,
  given: people.Given = people.NOTHING_GIVEN,
) -> Subject:
  """Loads everything that `config` names.

  Raises:
    ValueError: naming the model, file or field that cannot be used.
  """
  if config.domain.kind == 'text':
    subject = _text(config, mesh, given)
  else:
    subject = _built_in(config, mesh)
  for model in filter(None, [subject.student, subject.teacher_model]):
    checks.length(
      config.train.row_length,
      model.config.max_positions,
      'a row (config.train.row_length)',
      model.source,
    )
  asked = Counter(p.module for p in subject.domain.probes('gate', 'steps'))
  module, fewest = min(asked.items(), key=lambda item: item[1])
  if fewest < config.gate.min_probes:
    raise ValueError(
      f'config.gate.min_probes is {config.gate.min_probes} and module '
      f'{module!r} has {fewest} gate probes, so it could never be mastered. '
      'Lower it, or add seeds.'
    )
  # A teacher that is always right sets the highest bar.
  z = normal_quantile(config.gate.confidence)
  best, tau = fewest / (fewest + z * z), config.gate.tau_mastery
  if best < tau:
    raise ValueError(
      f'config.gate.confidence is {config.gate.confidence} and module '
      f'{module!r} has {fewest} gate probes: if all were answered right the '
      f'bound would be {best:.3f}, below config.gate.tau_mastery {tau}. Lower '
      'one of them, or add seeds.'
    )
  settled = config_lib.settle(config)
  if settled.distills:
    return _comparable(subject, settled.distillation)
  return subject


def _comparable(subject: Subject, distillation: Mapping[str, Any]) -> Subject:
  """Teacher and student whose distributions can be compared."""
  top_k = distillation['top_k']
  try:
    return _with_one_vocabulary(subject, top_k)
  except vocabulary.DifferentVocabularies as e:
    if distillation['across_vocabularies'] == 'refuse':
      raise ValueError(
        f"{e} Set config.distillation.across_vocabularies='spans' to compare "
        'spans of equal text, or learn the text alone '
        "(config.distillation.divergence='none')."
      ) from None
  fewest = min(
    model.config.vocab_size
    for model in (subject.teacher_model, subject.student)
  )
  _check_top_k(top_k, fewest)
  return dataclasses.replace(subject, one_vocabulary=False)


def _check_top_k(top_k: int, count: int) -> None:
  if top_k >= count:
    raise ValueError(
      f'config.distillation.top_k is {top_k} and the models have {count} '
      'tokens, of which at least one must be left for the rest; lower it.'
    )


def _with_one_vocabulary(subject: Subject, top_k: int) -> Subject:
  """Teacher and student over the same tokens, whatever pads either.

  A server is asked about its tokens, see `phases.served_scorer`.
  """
  teacher, student = subject.teacher_model, subject.student
  if teacher is None:
    count = len(vocabulary.token_texts(student.directory))
  else:
    count = vocabulary.shared_vocabulary(teacher.directory, student.directory)
  _check_top_k(top_k, count)
  only = lambda model: dataclasses.replace(
    model, config=dataclasses.replace(model.config, num_tokens=count)
  )
  return dataclasses.replace(
    subject, teacher_model=teacher and only(teacher), student=only(student)
  )


def _built_in(config, mesh) -> Subject:
  kind = config.domain.kind
  domain, open_adapter = _BUILT_IN[kind]
  assets = people.ASSETS.parent / kind
  teacher_model = people.load(config.teacher, 'teacher', mesh, assets)
  student = people.load(config.student, 'student', mesh, assets)
  teacher_codec = tokenizer_lib.DigitCodec(teacher_model.tokenizer)
  teacher = people.local_teacher(config, teacher_model, teacher_codec)
  settled = config_lib.settle(config)
  adapter = open_adapter(
    seed=config.seed,
    teacher=teacher.name,
    max_tokens=config.teacher.max_tokens,
    answer_format=settled.lesson_format,
    smallest_first=settled.smallest_first,
    confirmed=settled.confirmed,
    amounts=_amounts(config.adapter),
  )
  return Subject(
    kind,
    domain,
    adapter,
    teacher,
    teacher_model,
    teacher_codec,
    student,
    tokenizer_lib.DigitCodec(student.tokenizer),
    Budget(config.teacher.max_completion_tokens),
    Price(),
    people.lora_spec(config),
    people.recording(config),
    Formulas(),
  )


def seed_rows(config: ml_collections.ConfigDict) -> seed_sources.Rows:
  """The rows that `config.domain` names, with the columns that it needs.

  Raises:
    ValueError: naming file, line and column.
  """
  c = config.domain
  # The domain misses the module itself, and says where tags come from.
  needed = {k: v for k, v in c.columns.items() if v and k != 'module'}
  default = config_lib.fields()['domain.columns.solution'].default
  if c.columns.answer and c.columns.solution == default:
    # Beside an answer nobody named it, and nobody needs it.
    del needed['solution']
  return seed_sources.read(c.source, c.seeds, c.split, list(needed.values()))


def text_domain(
  config: ml_collections.ConfigDict, grader: text.Grader
) -> text.TextDomain:
  """The domain that `config.domain` names.

  Raises:
    ValueError: naming file, line and what is wanted.
  """
  c = config.domain
  rows = seed_rows(config)
  return text.TextDomain(
    rows,
    pathlib.Path(c.taxonomy) if c.taxonomy else None,
    columns=c.columns,
    grader=grader,
    min_probes=c.min_probes,
    max_probes=c.max_probes,
  )


def _text(config, mesh, given: people.Given) -> Subject:
  c = config.domain
  student = people.load(config.student, 'student', mesh)
  codec = vocabulary.ChatCodec(
    student.directory, thinking=config.student.thinking
  )
  if c.grader == 'given':
    grader = given.take('grader', 'domain.grader')
  else:
    grader = final_answers.KINDS[c.grader]()
  if c.source == 'given':
    domain = given.take('domain', 'domain.source')
  else:
    domain = text_domain(config, grader)
  benchmark_dir = pathlib.Path(c.benchmark_dir) if c.benchmark_dir else None
  tasks = {
    name: [i.task for i in benchmarks.get(name).load(benchmark_dir)[0]]
    for name in c.benchmarks
  }
  teacher, teacher_model, teacher_codec, budget, price = people.open_teacher(
    config, mesh, given
  )
  judge = people.open_judge(config)
  examiner = text_examiner(
    config, domain, grader, codec, teacher.name, tasks, judge
  )
  return Subject(
    c.name,
    domain,
    text_adapter(config, domain, examiner),
    teacher,
    teacher_model,
    teacher_codec,
    student,
    codec,
    budget,
    price,
    people.lora_spec(config),
    people.recording(config),
    Texts(grader),
    Referee(examiner.asking),
    judge,
  )


def text_examiner(
  config: ml_collections.ConfigDict,
  domain: Domain,
  grader: text.Grader,
  codec: Codec,
  teacher: str,
  benchmark_tasks: Mapping[str, Sequence[str]] = types.MappingProxyType({}),
  judge: judging.Judge | None = None,
) -> Examiner:
  """Of lessons of a domain of text; solutions are those of `teacher`."""
  return Examiner(
    domain,
    grader,
    codec,
    decomposition.Asking(
      teacher,
      config.teacher.max_tokens,
      config.teacher.temperature,
      config.teacher.reasoning_effort,
    ),
    Checks(
      confirm_samples=config.adapter.confirm_samples,
      near_duplicate=config.adapter.near_duplicate,
      contamination=config.adapter.contamination,
      benchmarks=benchmark_tasks,
      row_length=config.train.row_length,
    ),
    judge,
  )


def text_adapter(
  config: ml_collections.ConfigDict, domain: Domain, examiner: Examiner
) -> Adapter:
  """As the method has lessons written."""
  amounts = _amounts(config.adapter)
  plain = config_lib.settle(config).plain
  if plain is None:
    style = prompts.Style(
      description=config.domain.description,
      strategies=config.adapter.strategies,
      personas=config.adapter.personas,
    )
    return text_lessons.TextAdapter(
      domain, examiner, style=style, amounts=amounts
    )
  return plain_lessons.PlainAdapter(
    domain,
    examiner,
    way=plain.way,
    amounts=amounts,
    confirmed=plain.confirmed,
    judged=plain.judged,
  )


def _amounts(config) -> Amounts:
  names = [f.name for f in dataclasses.fields(Amounts)]
  return Amounts(**{name: config[name] for name in names})
