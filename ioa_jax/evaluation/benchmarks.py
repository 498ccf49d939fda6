"""Benchmarks: where their files are, and how answers are graded.

What compares with lm-evaluation-harness, and how far, is in docs/benchmarks.md.
"""

from __future__ import annotations

from collections.abc import Callable
import dataclasses
import hashlib
import pathlib

from ioa_jax.evaluation import benchmark_items, code_grading, graders, maths
from ioa_jax.evaluation import sandbox as sandbox_lib
from ioa_jax.evaluation.benchmark_items import Item
from ioa_jax.runtime import row_files as files


@dataclasses.dataclass(frozen=True)
class Examples:
  """Where worked items for a few-shot prompt are, which are never scored.

  Attributes:
    hub: as `Benchmark.hub`; None if no dataset has them.
    files: as `Benchmark.files`.
    is_one: whether an item of these files may be one.
  """

  hub: tuple[str, str, str] | None
  files: tuple[str, ...]
  is_one: Callable[[Item], bool] = lambda item: True


class Tools:
  """What graders hold open; started when first needed, closed together."""

  def __init__(self, sandbox: sandbox_lib.Sandbox | None = None):
    self._sandbox = sandbox
    self._maths: maths.Checker | None = None

  @property
  def sandbox(self) -> sandbox_lib.Sandbox:
    if self._sandbox is None:
      self._sandbox = sandbox_lib.Sandbox()
    return self._sandbox

  @property
  def maths(self) -> maths.Checker:
    if self._maths is None:
      self._maths = maths.Checker()
    return self._maths

  def __enter__(self) -> Tools:
    return self

  def __exit__(self, *exc) -> None:
    if self._maths is not None:
      self._maths.close()


@dataclasses.dataclass(frozen=True)
class Benchmark:
  """One benchmark.

  Attributes:
    hub: dataset id, configuration ('' is the only one) and split; None if no
      dataset on the hub has these items in plain columns.
    files: where its file may be under the data directory, best first.
    columns: what its rows must have; tuples are alternatives.
    metric: 'accuracy' | 'pass@k' | 'rouge_l_stemmed_f'.
    stops: texts that end an answer.
    max_tokens: of an answer.
    to_item: (place in the file, row) to item, None for a row without an answer
      to grade against (one published MATH file has three).
    grade: (tools, item, completion) to (score in [0, 1], reason).
    is_scored: whether an item of the file counts in published scores.
    examples: for few-shot prompts; None if no published score has them.
  """

  name: str
  hub: tuple[str, str, str] | None
  files: tuple[str, ...]
  columns: tuple[str | tuple[str, ...], ...]
  metric: str
  stops: tuple[str, ...]
  max_tokens: int
  to_item: Callable[[str, files.Row], Item | None]
  grade: Callable[[Tools, Item, str], tuple[float, str]]
  is_scored: Callable[[Item], bool] = lambda item: True
  examples: Examples | None = None

  @property
  def reported_metric(self) -> str:
    """As results name it."""
    return 'pass@1' if self.metric == 'pass@k' else self.metric

  def load(self, data_dir: pathlib.Path | None) -> tuple[list[Item], list[str]]:
    """Every item in the file's order, and the places of rows left out.

    Args:
      data_dir: where the files are; None reads the hub.

    Raises:
      ValueError: one line that names file, line and what is wrong.
    """
    path, rows = self._rows(data_dir, self.hub, self.files)
    items, left_out = [], []
    for where, row in rows:
      item = self.to_item(where, row)
      if item is None:
        left_out.append(where)
      else:
        items.append(item)
    if not items:
      raise ValueError(f'{path}: no row has an answer.')
    if self.name == 'vicuna':
      items = benchmark_items.with_answers(items, data_dir)
    seen: set[str] = set()
    for item in items:
      if item.item_id in seen:
        raise ValueError(f'{path}: the item {item.item_id!r} is there twice.')
      seen.add(item.item_id)
    return items, left_out

  def first_examples(self, data_dir: pathlib.Path | None, count: int) -> str:
    """The first worked items of the split that is not scored, as a prompt.

    Raises:
      ValueError: if there are no examples, or too few.
    """
    if not count:
      return ''
    if self.examples is None:
      raise ValueError(
        f'--shots={count}: {self.name} has no examples; published scores of it '
        'are zero-shot. Evaluate it by itself with --shots=0.'
      )
    path, rows = self._rows(data_dir, self.examples.hub, self.examples.files)
    found = []
    for where, row in rows:
      item = self.to_item(where, row)
      if item is not None and item.example and self.examples.is_one(item):
        found.append(item.example)
      if len(found) == count:
        return ''.join(found)
    raise ValueError(
      f'--shots={count}: {path} has {len(found)} worked items that are not '
      'scored.'
    )

  def sources(self, data_dir: pathlib.Path | None) -> dict[str, str]:
    """The files that `load` reads, each with its SHA-256.

    A dataset of the hub has no file; its digest is that of the items.
    """
    if data_dir is None:
      return {
        f'{self.hub[0]}[{self.hub[2]}]': benchmark_items.digest(
          [(i.prompt, i.reference) for i in self.load(None)[0]]
        )
      }
    paths = [files.find(data_dir, self.files)]
    if self.name == 'vicuna':
      paths.append(files.find(data_dir, benchmark_items.VICUNA_ANSWERS))
    return {
      str(path): hashlib.sha256(path.read_bytes()).hexdigest() for path in paths
    }

  def _rows(
    self,
    data_dir: pathlib.Path | None,
    hub: tuple[str, str, str] | None,
    names: tuple[str, ...],
  ) -> tuple[str | pathlib.Path, list[tuple[str, files.Row]]]:
    """Where rows are, and each with its place; None reads the hub."""
    if data_dir is not None:
      path = files.find(data_dir, names)
      return path, files.read(path, self.columns)
    if hub is None:
      raise ValueError(
        f'{self.name}: no dataset on the hub has its items; name a folder with '
        f'{" or ".join(names)} (--data_dir, config.domain.benchmark_dir).'
      )
    import datasets  # Takes a second.

    name, config, split = hub
    try:
      rows = list(datasets.load_dataset(name, config or None, split=split))
    except Exception as e:  # Hubs, gates and builders fail in many types.
      reason = (str(e).strip() or repr(e)).splitlines()[0][:200]
      raise ValueError(
        f'{self.name}: {name} cannot be read from the hub '
        f'({type(e).__name__}: {reason}). Log in if it is gated, or name a '
        'folder of files (--data_dir, config.domain.benchmark_dir).'
      ) from None
    place = f'{name}[{split}]'
    return place, files.checked(place, enumerate(rows, 1), self.columns)

  def require(self, tools: Tools) -> None:
    """Checks what grading needs, before anything is generated.

    Raises:
      ValueError: naming the missing package or isolation.
    """
    if self.metric == 'pass@k':
      tools.sandbox  # noqa: B018
    elif self.metric == 'rouge_l_stemmed_f':
      graders.rouge_l_stemmed_f('a', ['a'])
    elif self.grade is _grade_maths:
      tools.maths  # noqa: B018


def _verdict(verdict: graders.Verdict) -> tuple[float, str]:
  return float(verdict.correct), verdict.reason


def _grade_number(tools, item, completion):
  del tools
  return _verdict(graders.grade_number(completion, item.reference['gold']))


def _grade_maths(tools, item, completion):
  return _verdict(tools.maths.grade(completion, item.reference['gold']))


def _grade_choice(tools, item, completion):
  del tools
  return _verdict(graders.grade_choice(completion, item.reference['gold']))


def _grade_rouge(tools, item, completion):
  del tools
  score = graders.rouge_l_stemmed_f(completion, item.reference['references'])
  return score, 'rouge_l_stemmed_f'


def _grade_humaneval(tools, item, completion):
  return _verdict(
    code_grading.grade_humaneval(tools.sandbox, completion, **item.reference)
  )


def _grade_mbpp(tools, item, completion):
  return _verdict(
    code_grading.grade_mbpp(tools.sandbox, completion, **item.reference)
  )


def _grade_livecodebench(tools, item, completion):
  reference = dict(item.reference)
  if reference.pop('kind') == 'functional':
    grade = code_grading.grade_functional
  else:
    grade = code_grading.grade_stdin
  return _verdict(grade(tools.sandbox, completion, **reference))


def _mbpp_split(first: int, last: int) -> Callable[[Item], bool]:
  """MBPP has one file, and its splits are ranges of task ids."""
  ids = {str(i) for i in range(first, last + 1)}
  return lambda item: item.item_id in ids


BENCHMARKS = {
  b.name: b
  for b in (
    Benchmark(
      'gsm8k',
      ('openai/gsm8k', 'main', 'test'),
      ('gsm8k/test.jsonl',),
      ('question', 'answer'),
      'accuracy',
      ('Question:',),
      512,
      benchmark_items.gsm8k,
      _grade_number,
      examples=Examples(
        ('openai/gsm8k', 'main', 'train'), ('gsm8k/train.jsonl',)
      ),
    ),
    Benchmark(
      'math',
      ('HuggingFaceH4/MATH-500', '', 'test'),
      (
        'math/test.jsonl',
        'math/math500_test.jsonl',
        'math/test.json',
      ),
      (('problem',), ('answer', 'solution')),
      'accuracy',
      ('Problem:',),
      1024,
      benchmark_items.boxed,
      _grade_maths,
      # MATH-500 has no training split.
      examples=Examples(
        None,
        ('math/train.jsonl', 'math/train.json', 'math/rllm_math_train.json'),
      ),
    ),
    Benchmark(
      'aime2024',
      ('HuggingFaceH4/aime_2024', '', 'train'),
      ('aime2024/test.jsonl', 'aime2024/aime2024.jsonl', 'aime2024/test.csv'),
      (('problem', 'Problem'), ('answer', 'Answer')),
      'accuracy',
      ('Problem:',),
      2048,
      benchmark_items.boxed,
      _grade_maths,
    ),
    Benchmark(
      'humaneval',
      ('openai/openai_humaneval', '', 'test'),
      ('humaneval/HumanEval.jsonl',),
      ('task_id', 'prompt', 'test', 'entry_point'),
      'pass@k',
      (),
      512,
      benchmark_items.humaneval,
      _grade_humaneval,
    ),
    Benchmark(
      'mbpp',
      ('google-research-datasets/mbpp', 'full', 'test'),
      ('mbpp/mbpp_test.jsonl', 'mbpp/mbpp.jsonl', 'mbpp/sanitized-mbpp.json'),
      ('task_id', ('text', 'prompt'), 'code', 'test_list'),
      'pass@k',
      ('[DONE]',),
      512,
      benchmark_items.mbpp,
      _grade_mbpp,
      is_scored=_mbpp_split(11, 510),
      # The prompt split; the first of it is in no published prompt.
      examples=Examples(
        ('google-research-datasets/mbpp', 'full', 'prompt'),
        ('mbpp/mbpp.jsonl',),
        _mbpp_split(2, 10),
      ),
    ),
    Benchmark(
      'livecodebench',
      None,
      ('livecodebench/test.jsonl', 'livecodebench/test6.jsonl'),
      ('question_id', 'question_content', 'public_test_cases'),
      'pass@k',
      (),
      2048,
      benchmark_items.livecodebench,
      _grade_livecodebench,
    ),
    Benchmark(
      'dolly',
      None,
      ('dolly/valid1000_full.jsonl', 'dolly/valid.jsonl'),
      ('instruction', ('output', 'response')),
      'rouge_l_stemmed_f',
      (),
      512,
      benchmark_items.instruction,
      _grade_rouge,
    ),
    Benchmark(
      'vicuna',
      None,
      ('vicuna/question.jsonl',),
      ('question_id', 'text'),
      'rouge_l_stemmed_f',
      (),
      512,
      benchmark_items.vicuna,
      _grade_rouge,
    ),
    Benchmark(
      'gpqa_diamond',
      ('Idavidrein/gpqa', 'gpqa_diamond', 'train'),
      ('gpqa/gpqa_diamond.csv', 'gpqa/gpqa_diamond.jsonl'),
      (
        'Question',
        'Correct Answer',
        'Incorrect Answer 1',
        'Incorrect Answer 2',
        'Incorrect Answer 3',
      ),
      'accuracy',
      (),
      1024,
      benchmark_items.gpqa,
      _grade_choice,
    ),
  )
}


def get(name: str) -> Benchmark:
  if name not in BENCHMARKS:
    raise ValueError(f'benchmark {name!r}; there are {sorted(BENCHMARKS)}.')
  return BENCHMARKS[name]
