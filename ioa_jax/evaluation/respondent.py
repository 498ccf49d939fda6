"""A model that is asked benchmarks: questions to completions, as they end."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
import contextlib
import dataclasses
import functools
import pathlib
from typing import Any

import jax

from ioa_jax.evaluation.answers import Asking, Question
from ioa_jax.models import (
  checks,
  contents,
  decoder,
  loading,
  vocabulary,
  weights,
)
from ioa_jax.runtime.rundir import CONFIG
from ioa_jax.sampling import guides
from ioa_jax.sampling import logits as logits_lib
from ioa_jax.sampling import sampler as sampler_lib

_PROMPT_BUCKET = 64


@dataclasses.dataclass(frozen=True)
class Local:
  """What is known of a model whose weights are here.

  Attributes:
    name: as a person wrote it.
    directory: of the model.
    dtype: of weights and arithmetic.
    batch_size: texts that are written at once.
    mesh: where the weights lie.
  """

  name: str
  directory: pathlib.Path
  dtype: str
  batch_size: int
  mesh: jax.sharding.Mesh

  @functools.cached_property
  def _digests(self) -> dict[str, str]:
    return contents.digests(self.directory)

  @property
  def usual_form(self) -> str:
    return usual_form(self.directory)

  def identity(self) -> dict[str, str]:
    """The contents of its files."""
    return self._digests

  def description(self) -> dict[str, Any]:
    return {'name': self.name, 'sha256': self._digests}

  def scope(self) -> contextlib.AbstractContextManager[Any]:
    return jax.set_mesh(self.mesh)

  def check(self, asking: Asking) -> None:
    """It can be asked in any way."""

  def open(self, folder: pathlib.Path) -> Respondent:
    """Reads the weights; `folder` is for those who keep something."""
    del folder
    return Respondent(
      self.directory,
      self.name,
      dtype=self.dtype,
      mesh=self.mesh,
      batch_size=self.batch_size,
    )


class Respondent:
  """Weights and tokenizer, and the programs that write.

  Args:
    directory: of the model.
    dtype: of weights and arithmetic.
    mesh: where the weights lie; the caller puts it in scope.
    batch_size: texts that are written at once.

  Raises:
    ModelError: for a model that cannot be used.
  """

  def __init__(
    self,
    directory: pathlib.Path,
    name: str,
    *,
    dtype: str,
    mesh: jax.sharding.Mesh,
    batch_size: int,
  ):
    self._model = loading.load(
      directory, name, dtype=dtype, param_dtype=dtype, mesh=mesh
    )
    # Of weights in Orbax format the small files lie deeper.
    self._stop_tokens = vocabulary.stop_tokens(self._model.directory)
    self._batch_size = batch_size
    self._chat: vocabulary.ChatCodec | None = None

  def _codec(self, form: str) -> vocabulary.ChatCodec | loading.Model:
    if form == 'plain':
      return self._model
    if self._chat is None:
      self._chat = vocabulary.ChatCodec(self._model.directory)
    return self._chat

  def answers(
    self,
    questions: Sequence[Question],
    asking: Asking,
    sampling: logits_lib.Sampling,
    stops: Sequence[str],
  ) -> Iterator[list[tuple[int, str, str]]]:
    """Yields what ended, as (place in `questions`, text, finish reason).

    Args:
      sampling: its `max_tokens` is not read, but that of `asking`.
      stops: texts that end an answer, and are no part of it.

    Raises:
      ModelError: before anything is written, for a prompt without room.
    """
    codec = self._codec(asking.form)
    prompts = [self._prompt(codec, q, asking) for q in questions]
    room = self._model.config.max_positions
    settings = [
      dataclasses.replace(
        sampling, max_tokens=min(asking.max_tokens, room - len(prompt))
      )
      for prompt in prompts
    ]
    # With no stop text a guide ends nothing, and the host still looks at what
    # has ended every few steps: answers are saved while others are written.
    watching = [guides.StopTexts(codec.decode, stops) for _ in questions]
    sampler = sampler_lib.Sampler(
      decoder.for_decoding(self._model.config),
      stop_tokens=self._stop_tokens,
      batch_size=self._batch_size,
      max_new_tokens=asking.max_tokens,
      prompt_bucket=_PROMPT_BUCKET,
    )
    for ended in sampler.finished(
      self._model.params,
      prompts,
      settings,
      [q.draw for q in questions],
      watching,
    ):
      yield [
        (
          i,
          watching[i].cut(codec.decode(generation.tokens)),
          'stop' if generation.stopped else 'length',
        )
        for i, generation in ended
      ]

  def _prompt(self, codec, question: Question, asking: Asking) -> list[int]:
    if asking.form == 'plain':
      tokens = codec.encode(question.text)
    else:
      tokens = codec.prompt(question.text)
    tokens = tokens[: asking.max_prompt_tokens]
    checks.length(
      len(tokens) + 1,
      self._model.config.max_positions,
      f'item {question.item.item_id} with one token of an answer',
      self._model.source,
    )
    return tokens


def usual_form(directory: pathlib.Path) -> str:
  """'trained' for the student of a run of free text, else 'plain'.

  Raises:
    ModelError: for a configuration of the run that cannot be read.
  """
  path = directory.resolve().parent / CONFIG
  if directory.resolve().name != 'student' or not path.exists():
    return 'plain'
  domain = weights.read_json(path).get('domain')
  is_text = isinstance(domain, dict) and domain.get('kind') == 'text'
  return 'trained' if is_text else 'plain'
