"""A model's graded answers to benchmarks: one line each, resumable.

What an answer is does not depend on which other answers there are: its seed
comes from benchmark, item and sample, so a resumed evaluation equals an
unbroken one. A line counts for a question only if text, reference and limits
are still the same.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent import futures
import dataclasses
import hashlib
import json
import os
import statistics
import time
from typing import Any

from ioa_jax.evaluation import benchmark_items, intervals, scoring
from ioa_jax.evaluation import benchmarks as benchmarks_lib

Place = tuple[str, int, int, str]
Answers = dict[Place, dict[str, Any]]
_FIELDS = frozenset(
  (
    'benchmark',
    'item',
    'seed',
    'sample',
    'key',
    'prompt',
    'completion',
    'finish_reason',
    'score',
    'reason',
  )
)
# A kill loses at most what was written since.
_SAVED_EVERY_SECONDS = 15.0


@dataclasses.dataclass(frozen=True)
class Asking:
  """How one benchmark is asked.

  Attributes:
    form: of `benchmark_items.FORMS`.
    examples: worked items before each published prompt; '' is none.
    max_tokens: of an answer.
    max_prompt_tokens: longer prompts lose their end; None keeps it.
    seeds: one answer or more for each.
    samples: of each item and seed.
  """

  form: str
  max_tokens: int
  examples: str = ''
  max_prompt_tokens: int | None = None
  seeds: tuple[int, ...] = (0,)
  samples: int = 1


@dataclasses.dataclass(frozen=True)
class Question:
  """One sample of one item.

  Attributes:
    text: what is asked, examples included.
    seed: of the benchmark's scores; `draw` is this answer's own.
    key: the hash of what the answer and its score depend on, beside the model.
  """

  item: benchmark_items.Item
  text: str
  seed: int
  sample: int
  draw: int
  key: str

  @property
  def place(self) -> Place:
    return self.item.item_id, self.seed, self.sample, self.key


def answer_seed(seed: int, benchmark: str, item_id: str, sample: int) -> int:
  text = json.dumps([seed, benchmark, item_id, sample])
  return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], 'big')


def questions(
  benchmark: benchmarks_lib.Benchmark,
  items: Sequence[benchmark_items.Item],
  asking: Asking,
) -> list[Question]:
  """Every item as often as it is asked."""
  found = []
  for item in items:
    text = item.text(asking.form, asking.examples)
    limits = [asking.form, asking.max_tokens, asking.max_prompt_tokens]
    key = benchmark_items.digest([text, item.reference, limits])
    found += [
      Question(
        item,
        text,
        seed,
        sample,
        answer_seed(seed, benchmark.name, item.item_id, sample),
        key,
      )
      for seed in asking.seeds
      for sample in range(asking.samples)
    ]
  return found


def read(lines: Sequence[str], benchmark: str) -> Answers:
  """Answers to one benchmark out of the lines of an answers file."""
  answers = {}
  for line in lines:
    row = json.loads(line)
    if row['benchmark'] == benchmark:
      answers[row['item'], row['seed'], row['sample'], row['key']] = row
  return answers


def is_whole(line: str) -> bool:
  """Whether a line was written to its end; a killed run leaves half a one."""
  try:
    row = json.loads(line)
  except json.JSONDecodeError:
    return False
  return isinstance(row, dict) and set(row) == _FIELDS


def grade(
  benchmark: benchmarks_lib.Benchmark,
  tools: benchmarks_lib.Tools,
  asked: Sequence[Question],
  completions: Iterator[Sequence[tuple[int, str, str]]],
  save: Callable[[list[dict[str, Any]]], None],
) -> None:
  """Grades completions while others are written, and saves them by and by.

  Args:
    completions: of (place in `asked`, completion, finish reason), as they end.
    save: takes rows to append; called every few seconds and at the end.
  """
  waiting: dict[futures.Future, tuple[int, str, str]] = {}

  def save_graded(graded):
    rows = [
      _row(benchmark, asked, *waiting.pop(f), *f.result()) for f in graded
    ]
    if rows:
      save(rows)

  saved_at = time.monotonic()
  with futures.ThreadPoolExecutor(os.cpu_count() or 1) as pool:
    try:
      for ended in completions:
        for i, text, finish in ended:
          job = pool.submit(benchmark.grade, tools, asked[i].item, text)
          waiting[job] = i, text, finish
        if time.monotonic() - saved_at >= _SAVED_EVERY_SECONDS:
          save_graded([f for f in waiting if f.done()])
          saved_at = time.monotonic()
    finally:
      # Also when it is interrupted: what is written is not lost. Code takes
      # long, so not all at the end.
      while waiting:
        futures.wait(waiting, _SAVED_EVERY_SECONDS)
        save_graded([f for f in waiting if f.done()])


def _row(benchmark, asked, i, text, finish, score, reason) -> dict[str, Any]:
  question = asked[i]
  return {
    'benchmark': benchmark.name,
    'item': question.item.item_id,
    'seed': question.seed,
    'sample': question.sample,
    'key': question.key,
    'prompt': question.text,
    'completion': text,
    'finish_reason': finish,
    'score': score,
    'reason': reason,
  }


def summarize(
  benchmark: benchmarks_lib.Benchmark,
  asked: Sequence[Question],
  answers: Answers,
  *,
  ks: Sequence[int],
) -> dict[str, Any]:
  """Score with its interval, over items; every question must be answered.

  Raises:
    ValueError: if an answer is missing or k is over the number of samples.
  """
  missing = [q.item.item_id for q in asked if q.place not in answers]
  if missing or not asked:
    raise ValueError(
      f'{benchmark.name}: {len(missing)} of {len(asked)} items lack answers '
      f'({missing[:3]}); run the evaluation to its end.'
    )
  rows: dict[str, list[dict[str, Any]]] = {}
  for question in asked:
    rows.setdefault(question.item.item_id, []).append(answers[question.place])
  graded = [r for row in rows.values() for r in row]
  times = len(graded) // len(rows)
  means = [statistics.fmean(r['score'] for r in row) for row in rows.values()]
  binary = benchmark.metric != 'rouge_l_stemmed_f' and times == 1
  ends = (
    intervals.wilson(round(sum(means)), len(means))
    if binary
    else intervals.bootstrap_mean(means, seed=asked[0].seed)
  )
  result = {
    'metric': benchmark.reported_metric,
    'score': statistics.fmean(means),
    'ci95': ends and list(ends),
    'interval': 'wilson' if binary else 'BCa bootstrap over items',
    'items': len(rows),
    'samples_per_item': times,
  }
  result |= _by_seed(graded)
  if benchmark.metric == 'pass@k':
    result['pass_at_k'] = {
      str(k): statistics.fmean(
        scoring.pass_at_k(times, sum(r['score'] == 1.0 for r in row), k)
        for row in rows.values()
      )
      for k in ks
    }
  result['no_answer'] = sum(r['reason'] == 'no_answer' for r in graded)
  finishes = Counter(r['finish_reason'] for r in graded)
  result['truncated'] = finishes.pop('length', 0)
  # A server's filter, its model's refusal, or nothing at all: no completions.
  finishes.pop('stop', None)
  result['withheld'] = finishes.total()
  return result


def _by_seed(graded: Sequence[dict[str, Any]]) -> dict[str, Any]:
  """The score of each seed and their spread, where there are several."""
  scores: dict[int, list[float]] = {}
  for row in graded:
    scores.setdefault(row['seed'], []).append(row['score'])
  if len(scores) == 1:
    return {}
  means = {seed: statistics.fmean(found) for seed, found in scores.items()}
  return {
    'by_seed': {str(seed): mean for seed, mean in means.items()},
    'spread_over_seeds': statistics.stdev(means.values()),
  }
