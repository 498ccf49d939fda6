"""From the configuration to what is taught, by whom, to whom.

A `Subject` is all that can be loaded without a run directory; a `Run` is a
subject with its directory, ledger and display, open for as long as it goes on.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
import dataclasses
import pathlib
import types

from etils import epath
import jax
import ml_collections
import pydantic

from ioa_jax import config as config_lib
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
from ioa_jax.baselines import methods
from ioa_jax.baselines.answers import Answers, Formulas, Texts
from ioa_jax.baselines.method import Method
from ioa_jax.domains import Domain, arithmetic, composition, seed_sources, text
from ioa_jax.domains import tokenizer as tokenizer_lib
from ioa_jax.evaluation import benchmarks, final_answers, judging
from ioa_jax.identifier import decomposition
from ioa_jax.models import (
  checks,
  contents,
  decoder,
  hub,
  loading,
  vocabulary,
)
from ioa_jax.models.lora import LoraSpec
from ioa_jax.models.vocabulary import Codec
from ioa_jax.records import Models, Probe
from ioa_jax.runtime import processes
from ioa_jax.runtime.display import Display
from ioa_jax.runtime.rundir import (
  JUDGEMENTS,
  LEDGER,
  MODELS,
  RunDirectory,
)
from ioa_jax.runtime.trackers import Trackers
from ioa_jax.sampling import sampler as sampler_lib
from ioa_jax.student import Limits, Reader, Student
from ioa_jax.teachers import Teacher, local, replay
from ioa_jax.teachers.client import Client
from ioa_jax.teachers.ledger import Ledger
from ioa_jax.teachers.requests import Budget, Completion, Price, Request
from ioa_jax.training import packing
from ioa_jax.training.gate import normal_quantile

ASSETS = pathlib.Path(__file__).parent / 'assets' / 'arithmetic'
_BUILT_IN = {
  'arithmetic': (arithmetic, arithmetic_lessons.ArithmeticAdapter),
  'composition': (composition, composition_lessons.CompositionAdapter),
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Given:
  """Objects that a caller hands in, where the configuration says 'given'."""

  domain: Domain | None = None
  grader: text.Grader | None = None
  teacher: Teacher | None = None

  def take(self, what: str, field: str):
    """The object for `field`.

    Raises:
      ValueError: if there is none, as on the command line.
    """
    found = getattr(self, what)
    if found is None:
      raise ValueError(
        f"config.{field} is 'given', which is a {what} that is handed in from "
        f'Python: ioa.distill(..., {what}=...).'
      )
    return found


NOTHING_GIVEN = Given()


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

  @property
  def teacher_params(self) -> int | None:
    """How many, None if they are not known."""
    return self.teacher_model and self.teacher_model.num_params


@dataclasses.dataclass(frozen=True)
class Run:
  """What a run holds open.

  Attributes:
    method: how its lessons are ordered, weighed and made.
    settled: what the configuration comes to with the method.
    counted: tokens read and written beside training, by who did:
      'student_inferred' and 'teacher_scored' for probes, likelihoods and own
      texts, 'panel' by the learners; 'teacher_cached' counts answers that were
      in the ledger before.
    teacher_reader: its likelihoods; None if its weights are not here.
    trackers: where its numbers go besides its files.
  """

  config: ml_collections.ConfigDict
  subject: Subject
  directory: RunDirectory
  client: Client
  mesh: jax.sharding.Mesh
  display: Display
  counted: Counter[str]
  method: Method
  settled: config_lib.Settled
  student: Student
  teacher_reader: Reader | None
  trackers: Trackers

  @property
  def domain(self) -> Domain:
    return self.subject.domain

  @property
  def adapter(self) -> Adapter:
    return self.subject.adapter

  @property
  def names(self) -> list[str]:
    """Of the modules, in the order of the K axis."""
    return [m.name for m in self.domain.MODULES]

  @property
  def checkpoint_dir(self) -> epath.Path:
    """Where all processes write their part of a checkpoint."""
    there = self.config.run.checkpoint_dir
    return epath.Path(there or self.directory.shared / 'checkpoints')

  def probes(self, split: str) -> tuple[Probe, ...]:
    """In the format that the student answers in."""
    return self.domain.probes(split, self.settled.answer_format)

  def held_out_probes(self) -> tuple[Probe, ...]:
    """Those that the run is judged by, `domain.evaluate_on`."""
    return self.probes(self.config.domain.evaluate_on)

  def gate_examples(self) -> list[list[packing.Example]]:
    """The gate probes of every module with their reference answers."""
    probes = self.probes('gate')
    return [
      [
        self.student.example(p.prompt, p.reference)
        for p in probes
        if p.module == name
      ]
      for name in self.names
    ]

  def ask(
    self,
    requests: Sequence[Request],
    response_model: type[pydantic.BaseModel] | None = None,
    *,
    for_lessons: bool = False,
  ) -> list[Completion]:
    """The teacher's completions, through the ledger and within the budget."""
    self.display.update(done=0, total=len(requests))

    def on_progress(done, total):
      spent = self.client.totals()
      self.display.update(
        done=done,
        total=total,
        teacher_tokens=spent['completion_tokens'],
        teacher_usd=spent['price_usd'],
      )

    before = self.client.cached
    completions = self.client.ask(
      requests,
      response_model,
      on_progress,
      for_lessons=for_lessons,
      on_wait=lambda line: self.display.update(batches=line),
    )
    self.display.update(batches='')
    self.counted['teacher_cached'] += self.client.cached - before
    return completions

  def ask_for_lessons(
    self,
    requests: Sequence[Request],
    response_model: type[pydantic.BaseModel] | None = None,
  ) -> list[Completion]:
    """As `ask`; with `teacher.batch` the answers may come hours later."""
    return self.ask(requests, response_model, for_lessons=True)


def open_run(
  config: ml_collections.ConfigDict,
  subject: Subject,
  directory: RunDirectory,
  mesh: jax.sharding.Mesh,
  display: Display,
) -> Run:
  """A subject in its run directory.

  Raises:
    ValueError: if a model is not what it was when the run began.
  """
  processes.in_all(lambda: _require_models(subject, directory))
  if subject.judge is not None:
    subject.judge.open(
      Ledger(directory.path / JUDGEMENTS),
      lambda done, total: display.update(done=done, total=total),
    )
  counted: Counter[str] = Counter()
  limits = lambda c: Limits(c.batch_size, c.max_tokens, config.train.row_length)
  teacher_reader = None
  if subject.teacher_model is not None:
    teacher_reader = Reader(
      subject.teacher_model,
      subject.teacher_codec,
      limits(config.teacher),
      counted,
      'teacher_scored',
    )
  return Run(
    config=config,
    subject=subject,
    directory=directory,
    client=Client(
      subject.teacher,
      Ledger(directory.path / LEDGER),
      subject.budget,
      price=subject.price,
      recording=subject.recording,
      # A model here is one over all devices, which every process asks.
      broadcast=subject.teacher_model is None,
    ),
    mesh=mesh,
    display=display,
    counted=counted,
    method=methods.of(config),
    settled=config_lib.settle(config),
    student=Student(
      subject.student, subject.codec, limits(config.student), counted, display
    ),
    teacher_reader=teacher_reader,
    trackers=Trackers(
      # One of several processes tells what all of them do.
      config.run.trackers if processes.is_first() else (),
      directory.path,
      config.to_dict(),
      display.say,
    ),
  )


def _require_models(subject: Subject, directory: RunDirectory) -> None:
  """Names tell nothing: weights can be replaced between two starts."""
  models = [subject.student, subject.teacher_model]

  def digests():
    return Models(*[m and contents.digests(m.source) for m in models])

  recorded = directory.read_record(MODELS, Models)
  if recorded is None:
    directory.write_record(MODELS, digests())
    return
  pairs = zip([recorded.student, recorded.teacher], models, strict=True)
  for known, model in pairs:
    if known is not None and model is not None:
      contents.check_same(known, model.source)


def open_subject(
  config: ml_collections.ConfigDict,
  mesh: jax.sharding.Mesh,
  given: Given = NOTHING_GIVEN,
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
    return _with_one_vocabulary(subject, settled.distillation['top_k'])
  return subject


def _with_one_vocabulary(subject: Subject, top_k: int) -> Subject:
  """Teacher and student over the same tokens, whatever pads either."""
  teacher, student = subject.teacher_model, subject.student
  count = vocabulary.shared_vocabulary(teacher.directory, student.directory)
  if top_k >= count:
    raise ValueError(
      f'config.distillation.top_k is {top_k} and the models have {count} '
      'tokens, of which at least one must be left for the rest; lower it.'
    )
  only = lambda model: dataclasses.replace(
    model, config=dataclasses.replace(model.config, num_tokens=count)
  )
  return dataclasses.replace(
    subject, teacher_model=only(teacher), student=only(student)
  )


def _built_in(config, mesh) -> Subject:
  kind = config.domain.kind
  domain, open_adapter = _BUILT_IN[kind]
  assets = ASSETS.parent / kind
  teacher_model = _load(config.teacher, 'teacher', mesh, assets)
  student = _load(config.student, 'student', mesh, assets)
  teacher_codec = tokenizer_lib.DigitCodec(teacher_model.tokenizer)
  teacher = _local_teacher(config, teacher_model, teacher_codec)
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
    lora_spec(config),
    recording(config),
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


def _text(config, mesh, given: Given) -> Subject:
  c = config.domain
  student = _load(config.student, 'student', mesh)
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
  teacher, teacher_model, teacher_codec, budget, price = open_teacher(
    config, mesh, given
  )
  judge = _open_judge(config)
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
    lora_spec(config),
    recording(config),
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


def open_teacher(
  config: ml_collections.ConfigDict,
  mesh: jax.sharding.Mesh,
  given: Given = NOTHING_GIVEN,
) -> tuple[Teacher, loading.Model | None, Codec | None, Budget, Price]:
  """The teacher of free text, weights and codec if here, limits, prices.

  Raises:
    ValueError: naming the field, file or variable that is missing.
  """
  c = config.teacher
  price = Price(**c.price)
  budget = Budget(
    max_completion_tokens=c.max_completion_tokens, max_usd=c.max_usd or None
  )
  if c.kind == 'replay':
    teacher = replay.ReplayTeacher(pathlib.Path(c.recording), c.model)
    return teacher, None, None, budget, price
  if c.kind == 'given':
    return given.take('teacher', 'teacher.kind'), None, None, budget, price
  if c.kind == 'openai':
    teacher = _served(config, c.model, c.base_url, c.api_key_env, c.batch)
    return teacher, None, None, budget, price
  model = _load(c, 'teacher', mesh)
  codec = vocabulary.ChatCodec(model.directory)
  return _local_teacher(config, model, codec), model, codec, budget, price


def _served(
  config: ml_collections.ConfigDict,
  model: str,
  base_url: str,
  api_key_env: str,
  batch: str = 'never',
) -> Teacher:
  """A model on a server, asked as hard as `config.teacher` allows."""
  try:
    from ioa_jax.teachers import batch_teacher, openai_http
  except ImportError as e:
    raise ValueError(f'a model on a server is configured: {e}') from None
  c = config.teacher
  settings = openai_http.Settings(
    base_url=base_url,
    api_key_env=api_key_env,
    max_concurrency=c.max_concurrency,
    max_attempts=c.max_attempts,
    max_retry_after_seconds=c.max_retry_after_seconds,
    # 0 sets no limit.
    requests_per_minute=c.requests_per_minute or None,
    tokens_per_minute=c.tokens_per_minute or None,
    timeout_seconds=c.timeout_seconds,
    max_regenerations=c.max_regenerations,
    max_reply_bytes=c.max_reply_bytes,
  )
  direct = openai_http.OpenAITeacher(model, settings)
  return batch_teacher.BatchTeacher(direct, batch)


def _open_judge(config: ml_collections.ConfigDict) -> judging.Judge | None:
  """The model that compares open answers, if there is one.

  Raises:
    ValueError: naming the field, file or variable that is missing.
  """
  c = config.judge
  if not c.model:
    return None
  return judging.Judge(
    judging.Asking(
      teacher=_served(config, c.model, c.base_url, c.api_key_env),
      max_tokens=c.max_tokens,
      reasoning_effort=c.reasoning_effort,
      budget=Budget(c.max_completion_tokens, c.max_usd or None),
      price=Price(**c.price),
      recording=Ledger(pathlib.Path(c.recording), read_only=True)
      if c.recording
      else None,
    )
  )


def recording(config: ml_collections.ConfigDict) -> Ledger | None:
  """The ledger whose answers are taken before the teacher is asked.

  Raises:
    LedgerError: if it cannot be read.
  """
  c = config.teacher
  # A teacher that is a recording has no other.
  live = c.recording and c.kind != 'replay'
  return Ledger(pathlib.Path(c.recording), read_only=True) if live else None


def lora_spec(config: ml_collections.ConfigDict) -> LoraSpec | None:
  """What trains of the student; rank 0 trains all weights."""
  spec = config.student.lora
  return LoraSpec(**spec) if spec.rank else None


def _amounts(config) -> Amounts:
  names = [f.name for f in dataclasses.fields(Amounts)]
  return Amounts(**{name: config[name] for name in names})


def _load(
  config, role: str, mesh: jax.sharding.Mesh, assets: pathlib.Path = ASSETS
) -> loading.Model:
  """`config.model`: a directory, a hub id, or 'builtin'."""
  trains_whole = role == 'student' and not config.lora.rank
  quantization = config.quantization if role == 'student' else ''
  if config.model == 'builtin':
    directory, name = assets / role, f'builtin-{role}'
  else:
    directory = hub.locate(config.model)
    name = pathlib.Path(config.model).name
  return loading.load(
    directory,
    name,
    scan_unroll=config.scan_unroll,
    remat=config.remat,
    dtype=config.dtype,
    quantization=quantization,
    mesh=mesh,
    # Weights that do not train are kept as they are computed with.
    param_dtype='float32' if trains_whole else config.dtype,
  )


def _local_teacher(config, model: loading.Model, codec: Codec):
  sampler = sampler_lib.Sampler(
    decoder.for_decoding(model.config),
    stop_tokens=codec.stop_tokens,
    batch_size=config.teacher.batch_size,
    max_new_tokens=config.teacher.max_tokens,
    prompt_bucket=codec.prompt_bucket,
  )
  return local.LocalTeacher(
    model.name,
    model.params,
    sampler,
    codec=codec,
    tokenizer_json=model.tokenizer.to_str(),
    vocab_size=model.config.vocab_size,
  )
