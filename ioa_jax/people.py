"""Who teaches, who learns and who judges: weights, servers, recordings."""

from __future__ import annotations

import dataclasses
import pathlib

import jax
import ml_collections

from ioa_jax.domains import Domain, text
from ioa_jax.evaluation import judging
from ioa_jax.models import (
  decoder,
  hub,
  loading,
  vocabulary,
)
from ioa_jax.models.lora import LoraSpec
from ioa_jax.models.vocabulary import Codec
from ioa_jax.sampling import sampler as sampler_lib
from ioa_jax.teachers import Teacher, local, replay
from ioa_jax.teachers.ledger import Ledger
from ioa_jax.teachers.requests import Budget, Price

ASSETS = pathlib.Path(__file__).parent / 'assets' / 'arithmetic'


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
  model = load(c, 'teacher', mesh)
  codec = vocabulary.ChatCodec(model.directory)
  return local_teacher(config, model, codec), model, codec, budget, price


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


def open_judge(config: ml_collections.ConfigDict) -> judging.Judge | None:
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


def load(
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


def local_teacher(config, model: loading.Model, codec: Codec):
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
