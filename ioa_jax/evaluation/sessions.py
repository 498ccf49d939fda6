"""One model's evaluation in a folder: what is asked, what is kept, the scores.

The folder belongs to one model and one way of sampling, both by content. Each
benchmark's result says what it was measured with.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
import contextlib
import dataclasses
import importlib.metadata
import json
import pathlib
import time
from typing import Any, Protocol

import ml_collections

import ioa_jax
from ioa_jax import config as config_lib
from ioa_jax.evaluation import answers as answers_lib
from ioa_jax.evaluation import benchmark_items, retention
from ioa_jax.evaluation import benchmarks as benchmarks_lib
from ioa_jax.runtime import rundir
from ioa_jax.runtime.display import Display
from ioa_jax.sampling import logits as logits_lib

ANSWERS, RESULTS = 'answers.jsonl', retention.RESULTS
# What graded answers depend on, beside this package.
_LIBRARIES = ('jax', 'transformers', 'tokenizers')


@dataclasses.dataclass(frozen=True)
class Decoding:
  """How answers are drawn, the same for all benchmarks of a folder.

  Attributes:
    seeds: each is a whole evaluation; the score is their mean.
    samples: answers of each item and seed.
    max_tokens: of an answer; None is each benchmark's own.
    max_prompt_tokens: longer prompts lose their end; None keeps it.
  """

  temperature: float = 0.0
  top_p: float = 1.0
  seeds: tuple[int, ...] = (0,)
  samples: int = 1
  max_tokens: int | None = None
  max_prompt_tokens: int | None = None


# evaluate_main.py and scripts/*/eval of MiniLLM (Gu et al., arXiv:2306.08543):
# 512 tokens for both, of which prompts are padded or cut to 256.
MINILLM = Decoding(
  temperature=1.0,
  seeds=(10, 20, 30, 40, 50),
  max_tokens=256,
  max_prompt_tokens=256,
)


@dataclasses.dataclass(frozen=True)
class Exam:
  """A benchmark's items, and worked ones to show before them.

  Attributes:
    shots: how many are in `examples`.
    left_out: rows of the file without an answer to grade by.
    sources: what was read, with its SHA-256.
  """

  benchmark: benchmarks_lib.Benchmark
  items: Sequence[benchmark_items.Item]
  shots: int
  examples: str
  left_out: int
  sources: dict[str, str]


def read_exam(
  benchmark: benchmarks_lib.Benchmark,
  data_dir: pathlib.Path | None,
  *,
  shots: int = 0,
  limit: int | None = None,
  all_items: bool = False,
) -> Exam:
  """A benchmark out of its files.

  Args:
    data_dir: where they are; None reads the hub.
    limit: only so many items; None is all.
    all_items: also those that published scores leave out.

  Raises:
    ValueError: for files or examples that are missing or damaged.
  """
  items, left_out = benchmark.load(data_dir)
  if not all_items:
    items = [i for i in items if benchmark.is_scored(i)]
    if not items:
      raise ValueError(
        f'{benchmark.name}: its file has none of the items that published '
        'scores count; name another file, or give --all_items.'
      )
  return Exam(
    benchmark,
    items[:limit],
    shots,
    benchmark.first_examples(data_dir, shots),
    len(left_out),
    benchmark.sources(data_dir),
  )


class Subject(Protocol):
  """Who is scored: `respondent.Local` or `served.Served`.

  Attributes:
    name: as a person wrote it.
    usual_form: of `benchmark_items.FORMS`.
    dtype: of the arithmetic; None is not known.
  """

  name: str
  usual_form: str
  dtype: str | None

  def identity(self) -> Mapping[str, str]:
    """What makes it another model than others."""
    ...

  def description(self) -> dict[str, Any]:
    """What results say of it."""
    ...

  def scope(self) -> contextlib.AbstractContextManager[Any]:
    """Held while it answers."""
    ...

  def check(self, asking: answers_lib.Asking) -> None:
    """Raises ValueError for what it cannot be asked."""
    ...

  def open(self, folder: pathlib.Path) -> Any:
    """Something with `answers`, see `respondent.Respondent.answers`."""
    ...


class Session:
  """A model that is scored in a folder.

  Args:
    form: of `benchmark_items.FORMS`; None is the one that is usual for it.
    teacher_scores: the folder of another model's scores, for retention.

  Raises:
    ConfigError: if the folder belongs to another model or way of sampling.
  """

  def __init__(
    self,
    path: pathlib.Path,
    subject: Subject,
    decoding: Decoding,
    *,
    form: str | None,
    teacher_scores: pathlib.Path | None = None,
  ):
    self._subject, self._decoding = subject, decoding
    self._form = form or subject.usual_form
    self._teacher_scores = teacher_scores
    self._teacher = (
      retention.read_results(teacher_scores) if teacher_scores else {}
    )
    self._sampling = {
      'temperature': decoding.temperature,
      'top_p': decoding.top_p,
      'seeds': list(decoding.seeds),
    } | ({'dtype': subject.dtype} if subject.dtype else {})
    # A configuration has no dots in its names.
    model = {
      name.replace('.', '_'): value
      for name, value in subject.identity().items()
    }
    identity = {'model': model, 'sampling': self._sampling}
    try:
      self.directory = rundir.RunDirectory(
        path, ml_collections.ConfigDict(identity)
      )
    except config_lib.ConfigError as e:
      # A folder of scores is no run.
      raise config_lib.ConfigError(
        str(e).replace('--workdir', '--output_dir')
      ) from None
    self._respondent: Any = None

  def run(
    self,
    exam: Exam,
    tools: benchmarks_lib.Tools,
    ks: Sequence[int],
    display: Display,
  ) -> dict[str, Any]:
    """Asks what is not answered yet, and writes the score down.

    Call it while `directory` is locked.
    """
    start = time.monotonic()
    name = exam.benchmark.name
    asking = self._asking(exam)
    conditions = self._conditions(exam, asking)
    if self._teacher_scores:
      retention.require_comparable(
        name,
        conditions
        | {'items': len(exam.items), 'metric': exam.benchmark.reported_metric},
        self._teacher.get(name),
        self._teacher_scores,
      )
    asked = answers_lib.questions(exam.benchmark, exam.items, asking)
    answers = answers_lib.read(self._lines(), name)
    missing = [q for q in asked if q.place not in answers]
    if missing:
      self._answer(exam.benchmark, asking, missing, tools, display)
      answers = answers_lib.read(self._lines(), name)
    result = answers_lib.summarize(exam.benchmark, asked, answers, ks=ks)
    result |= {
      'rows_without_answer': exam.left_out,
      'new_answers': len(missing),
      'seconds': round(time.monotonic() - start, 1),
    } | conditions
    if self._teacher_scores:
      result |= retention.of(result, self._teacher[name])
    self._write(name, result)
    return result

  def _asking(self, exam: Exam) -> answers_lib.Asking:
    if exam.shots and self._form not in ('plain', 'chat'):
      raise ValueError(
        f'--shots={exam.shots}: examples stand before a published prompt, and '
        f'this model is asked in the form {self._form!r}; give --prompt=plain '
        'or --prompt=chat.'
      )
    decoding = self._decoding
    asking = answers_lib.Asking(
      form=self._form,
      examples=exam.examples,
      max_tokens=decoding.max_tokens or exam.benchmark.max_tokens,
      max_prompt_tokens=decoding.max_prompt_tokens,
      seeds=decoding.seeds,
      samples=decoding.samples,
    )
    self._subject.check(asking)
    return asking

  def _lines(self) -> list[str]:
    """Answers that were written whole; others are dropped from the file."""
    lines = self.directory.read_lines(ANSWERS)
    whole = [line for line in lines if answers_lib.is_whole(line)]
    path = self.directory.path / ANSWERS
    text = ''.join(line + '\n' for line in whole)
    if path.exists() and path.stat().st_size != len(text.encode()):
      self.directory.write_text(ANSWERS, text)
    return whole

  def _answer(self, benchmark, asking, missing, tools, display) -> None:
    if self._respondent is None:
      display.update(phase='loading the model', done=0, total=0)
      self._respondent = self._subject.open(self.directory.path)
    published = asking.form in ('plain', 'chat')
    completions = self._respondent.answers(
      missing,
      asking,
      logits_lib.Sampling(
        temperature=self._decoding.temperature, top_p=self._decoding.top_p
      ),
      # They end what continues a published prompt; an assistant may say them.
      benchmark.stops if published else (),
    )

    def shown():
      done = 0
      display.update(phase=benchmark.name, done=0, total=len(missing))
      for ended in completions:
        yield ended
        done += len(ended)
        display.update(done=done)

    # Weights are read outside of it, as a run does.
    with self._subject.scope():
      answers_lib.grade(
        benchmark,
        tools,
        missing,
        shown(),
        lambda rows: self.directory.append_lines(
          ANSWERS, (json.dumps(r, ensure_ascii=False) for r in rows)
        ),
      )

  def _conditions(self, exam, asking) -> dict[str, Any]:
    """What somebody needs to measure the same again."""
    return {
      'prompt': asking.form,
      'shots': exam.shots,
      'examples_sha256': benchmark_items.digest(exam.examples),
      'files': exam.sources,
      'model': self._subject.description(),
      'decoding': self._sampling
      | {
        'samples': asking.samples,
        'max_tokens': asking.max_tokens,
        'max_prompt_tokens': asking.max_prompt_tokens,
      },
      'versions': {'ioa_jax': ioa_jax.__version__}
      | {name: importlib.metadata.version(name) for name in _LIBRARIES},
    }

  def _write(self, name: str, result: dict[str, Any]) -> None:
    """Beside the other benchmarks' results."""
    path = self.directory.path / RESULTS
    kept = retention.read_results(path.parent) if path.exists() else {}
    value = {'model': self._subject.name, 'benchmarks': kept | {name: result}}
    self.directory.write_text(
      RESULTS, json.dumps(value, indent=2, ensure_ascii=False) + '\n'
    )
