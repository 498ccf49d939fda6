"""From the configuration to what is taught, by whom, to whom."""

from __future__ import annotations

from collections import Counter
import dataclasses
import pathlib

import jax
import ml_collections

from ioa_jax import seed_sources
from ioa_jax.adapter import Adapter, arithmetic_lessons, text_lessons
from ioa_jax.baselines import methods
from ioa_jax.domains import Domain, arithmetic, text
from ioa_jax.domains import tokenizer as tokenizer_lib
from ioa_jax.evaluation import benchmarks, final_answers
from ioa_jax.models import decoder, hub, loading, vocabulary
from ioa_jax.models.lora import LoraSpec
from ioa_jax.models.vocabulary import Codec
from ioa_jax.sampling import sampler as sampler_lib
from ioa_jax.teachers import Teacher, local, replay
from ioa_jax.teachers.requests import Budget, Price
from ioa_jax.training.setup import gate_z

ASSETS = pathlib.Path(__file__).parent / 'assets' / 'arithmetic'


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

  @property
  def teacher_params(self) -> int | None:
    """How many, None if they are not known."""
    return self.teacher_model and self.teacher_model.num_params


def open_subject(
  config: ml_collections.ConfigDict, mesh: jax.sharding.Mesh
) -> Subject:
  """Loads everything that `config` names.

  Raises:
    ValueError: naming the model, file or field that cannot be used.
  """
  open_domain = {'arithmetic': _arithmetic, 'text': _text}
  subject = open_domain[config.domain.kind](config, mesh)
  asked = Counter(p.module for p in subject.domain.probes('gate', 'steps'))
  module, fewest = min(asked.items(), key=lambda item: item[1])
  if fewest < config.gate.min_probes:
    raise ValueError(
      f'config.gate.min_probes is {config.gate.min_probes} and module '
      f'{module!r} has {fewest} gate probes, so it could never be mastered. '
      'Lower it, or add seeds.'
    )
  # A teacher that is always right sets the highest bar.
  z = gate_z(config.gate.confidence)
  best, tau = fewest / (fewest + z * z), config.gate.tau_mastery
  if best < tau:
    raise ValueError(
      f'config.gate.confidence is {config.gate.confidence} and module '
      f'{module!r} has {fewest} gate probes: if all were answered right the '
      f'bound would be {best:.3f}, below config.gate.tau_mastery {tau}. Lower '
      'one of them, or add seeds.'
    )
  distillation = methods.distillation_fields(config)
  if methods.METHODS[config.method].select is not None:
    # The teacher's likelihoods are of the student's tokens.
    vocabulary.shared_vocabulary(
      subject.teacher_model.directory, subject.student.directory
    )
  if distillation['divergence'] != 'none':
    return _with_one_vocabulary(subject, distillation['top_k'])
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


def _arithmetic(config, mesh) -> Subject:
  teacher_model = _load(config.teacher, 'teacher', mesh)
  student = _load(config.student, 'student', mesh)
  teacher_codec = tokenizer_lib.DigitCodec(teacher_model.tokenizer)
  teacher = _recorded_first(
    config.teacher, _local_teacher(config, teacher_model, teacher_codec)
  )
  method = methods.METHODS[config.method]
  adapter = arithmetic_lessons.ArithmeticAdapter(
    seed=config.seed,
    teacher=teacher.name,
    max_tokens=config.teacher.max_tokens,
    answer_format=methods.lesson_format(config),
    smallest_first=config.adapter.smallest_first and method.adapted,
    confirmed=method.confirmed,
    seeds_per_module=config.adapter.seeds_per_module,
    per_seed=_per_seed(config.adapter),
  )
  return Subject(
    'arithmetic', arithmetic, adapter, teacher, teacher_model, teacher_codec,
    student, tokenizer_lib.DigitCodec(student.tokenizer),
    Budget(config.teacher.max_completion_tokens), Price(), lora_spec(config),
  )  # fmt: skip


def _text(config, mesh) -> Subject:
  c = config.domain
  student = _load(config.student, 'student', mesh)
  codec = vocabulary.ChatCodec(student.directory)
  grader = final_answers.KINDS[c.grader]()
  rows = seed_sources.read(
    c.source,
    c.seeds,
    c.split,
    # The domain misses the module itself, and says where tags come from.
    [v for k, v in c.columns.items() if v and k != 'module'],
  )
  domain = text.TextDomain(
    rows,
    pathlib.Path(c.taxonomy) if c.taxonomy else None,
    columns=c.columns, grader=grader, min_probes=c.min_probes,
    max_probes=c.max_probes,
  )  # fmt: skip
  benchmark_dir = pathlib.Path(c.benchmark_dir) if c.benchmark_dir else None
  tasks = {
    name: [i.task for i in benchmarks.get(name).load(benchmark_dir)[0]]
    for name in c.benchmarks
  }
  teacher, teacher_model, teacher_codec, budget, price = open_teacher(
    config, mesh
  )
  adapter = text_lessons.TextAdapter(
    domain, grader, codec,
    description=c.description,
    teacher=teacher.name,
    max_tokens=config.teacher.max_tokens,
    temperature=config.teacher.temperature,
    strategies=config.adapter.strategies,
    personas=config.adapter.personas,
    confirm_samples=config.adapter.confirm_samples,
    seeds_per_module=config.adapter.seeds_per_module,
    per_seed=_per_seed(config.adapter),
    row_length=config.train.row_length,
    near_duplicate=config.adapter.near_duplicate,
    benchmarks=tasks,
  )  # fmt: skip
  return Subject(
    c.name, domain, adapter, teacher, teacher_model, teacher_codec, student,
    codec, budget, price, lora_spec(config),
  )  # fmt: skip


def open_teacher(
  config: ml_collections.ConfigDict, mesh: jax.sharding.Mesh
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
  if c.kind == 'openai':
    try:
      from ioa_jax.teachers import openai_http
    except ImportError as e:
      raise ValueError(f"config.teacher.kind is 'openai': {e}") from None
    settings = openai_http.Settings(
      base_url=c.base_url, api_key_env=c.api_key_env,
      max_concurrency=c.max_concurrency, max_attempts=c.max_attempts,
      max_retry_after_seconds=c.max_retry_after_seconds,
    )  # fmt: skip
    # Prices of zero are prices that nobody set: no money can be counted.
    known = price if price != Price() else None
    teacher = openai_http.OpenAITeacher(c.model, settings, known)
    if c.max_usd and known is None:
      raise ValueError(
        'config.teacher.max_usd is set and config.teacher.price is not, so it '
        'could not be kept; set the prices (US dollars per million tokens).'
      )
    return _recorded_first(c, teacher), None, None, budget, price
  model = _load(c, 'teacher', mesh)
  codec = vocabulary.ChatCodec(model.directory)
  teacher = _recorded_first(c, _local_teacher(config, model, codec))
  return teacher, model, codec, budget, price


def _recorded_first(config, teacher: Teacher) -> Teacher:
  if not config.recording:
    return teacher
  return replay.RecordedFirst(teacher, pathlib.Path(config.recording))


def lora_spec(config: ml_collections.ConfigDict) -> LoraSpec | None:
  """What trains of the student; rank 0 trains all weights."""
  spec = config.student.lora
  return LoraSpec(**spec) if spec.rank else None


def _per_seed(config) -> dict[str, int]:
  """Items for each seed, by the kind of request."""
  return {
    'stage': config.items_per_seed,
    'bridging': config.items_per_seed,
    'remedial': config.remedial_items_per_seed,
    'rehearsal': config.rehearsal_items_per_seed,
  }


def _load(config, role: str, mesh: jax.sharding.Mesh) -> loading.Model:
  """`config.model`: a directory, a hub id, or 'builtin'."""
  trains_whole = role == 'student' and not config.lora.rank
  quantization = config.quantization if role == 'student' else ''
  if quantization and trains_whole:
    raise ValueError(
      f'config.student.quantization is {quantization!r} and all weights train; '
      'set config.student.lora.rank, as only weights that do not train can be '
      'quantised.'
    )
  if config.model == 'builtin':
    directory, name = ASSETS / role, f'builtin-{role}'
  else:
    directory = hub.locate(config.model)
    name = pathlib.Path(config.model).name
  return loading.load(
    directory, name, scan_unroll=config.scan_unroll, remat=config.remat,
    dtype=config.dtype, quantization=quantization, mesh=mesh,
    # Weights that do not train are kept as they are computed with.
    param_dtype='float32' if trains_whole else config.dtype,
  )  # fmt: skip


def _local_teacher(config, model: loading.Model, codec: Codec):
  sampler = sampler_lib.Sampler(
    decoder.for_decoding(model.config),
    stop_tokens=codec.stop_tokens,
    batch_size=config.teacher.batch_size,
    max_new_tokens=config.teacher.max_tokens,
    prompt_bucket=codec.prompt_bucket,
  )
  return local.LocalTeacher(
    model.name, model.params, sampler, codec=codec,
    tokenizer_json=model.tokenizer.to_str(),
    config=model.config, batch_size=config.teacher.batch_size,
  )  # fmt: skip
