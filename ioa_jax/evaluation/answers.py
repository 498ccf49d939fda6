"""A model's graded answers to benchmarks: one line each, resumable.

What an answer is does not depend on which other answers there are: its seed
comes from benchmark, item and sample, so a resumed evaluation equals an
unbroken one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent import futures
import dataclasses
import hashlib
import json
import os
import statistics
from typing import Any

from ioa_jax.evaluation import benchmarks as benchmarks_lib
from ioa_jax.evaluation import intervals, scoring

Answers = dict[tuple[str, int], dict[str, Any]]
_FIELDS = frozenset(
  (
    'benchmark',
    'item',
    'sample',
    'prompt',
    'completion',
    'finish_reason',
    'score',
    'reason',
  )
)


@dataclasses.dataclass(frozen=True)
class Question:
  """One sample of one item, still to be answered."""

  item: benchmarks_lib.Item
  sample: int
  seed: int


def answer_seed(seed: int, benchmark: str, item_id: str, sample: int) -> int:
  text = json.dumps([seed, benchmark, item_id, sample])
  return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], 'big')


def read(lines: Sequence[str], benchmark: str) -> Answers:
  """Answers to one benchmark out of the lines of an answers file."""
  answers = {}
  for line in lines:
    row = json.loads(line)
    if row['benchmark'] == benchmark:
      answers[row['item'], row['sample']] = row
  return answers


def is_whole(line: str) -> bool:
  """Whether a line was written to its end; a killed run leaves half a one."""
  try:
    row = json.loads(line)
  except json.JSONDecodeError:
    return False
  return isinstance(row, dict) and set(row) == _FIELDS


def unanswered(
  items: Sequence[benchmarks_lib.Item],
  answers: Answers,
  *,
  benchmark: str,
  samples: int,
  seed: int,
) -> list[Question]:
  return [
    Question(item, sample, answer_seed(seed, benchmark, item.item_id, sample))
    for item in items
    for sample in range(samples)
    if (item.item_id, sample) not in answers
  ]


def grade(
  benchmark: benchmarks_lib.Benchmark,
  tools: benchmarks_lib.Tools,
  questions: Sequence[Question],
  batches: Iterator[Sequence[tuple[str, str]]],
  save: Callable[[list[dict[str, Any]]], None],
) -> None:
  """Grades completions batch by batch; each batch is saved before the next.

  Args:
    batches: of (completion, finish reason), in the questions' order.
    save: takes rows to append.
  """
  done = 0
  with futures.ThreadPoolExecutor(os.cpu_count() or 1) as pool:
    for batch in batches:
      asked = questions[done : done + len(batch)]
      texts = [benchmark.cut(text) for text, _ in batch]
      scores = pool.map(
        lambda q, t: benchmark.grade(tools, q.item, t), asked, texts
      )
      save(
        [
          {
            'benchmark': benchmark.name,
            'item': q.item.item_id,
            'sample': q.sample,
            'prompt': q.item.prompt,
            'completion': text,
            'finish_reason': finish,
            'score': score,
            'reason': reason,
          }
          for q, text, (_, finish), (score, reason) in zip(
            asked, texts, batch, scores
          )
        ]
      )
      done += len(batch)


def summarize(
  benchmark: benchmarks_lib.Benchmark,
  items: Sequence[benchmarks_lib.Item],
  answers: Answers,
  *,
  samples: int,
  ks: Sequence[int],
  seed: int,
) -> dict[str, Any]:
  """Score with its interval, over items; every item must be answered.

  Raises:
    ValueError: if an answer is missing or k is over the number of samples.
  """
  rows = {
    i.item_id: [answers.get((i.item_id, s)) for s in range(samples)]
    for i in items
  }
  missing = [name for name, row in rows.items() if None in row]
  if missing or not rows:
    raise ValueError(
      f'{benchmark.name}: {len(missing)} of {len(rows)} items lack answers '
      f'({missing[:3]}); run the evaluation to its end.'
    )
  means = [statistics.fmean(r['score'] for r in row) for row in rows.values()]
  binary = benchmark.metric != 'rouge_l_stemmed_f' and samples == 1
  result = {
    'metric': 'pass@1' if benchmark.metric == 'pass@k' else benchmark.metric,
    'score': statistics.fmean(means),
    'ci95': list(
      intervals.wilson(round(sum(means)), len(means))
      if binary
      else intervals.bootstrap_mean(means, seed=seed)
    ),
    'interval': 'wilson' if binary else 'bootstrap over items',
    'items': len(rows),
    'samples_per_item': samples,
  }
  if benchmark.metric == 'pass@k':
    result['pass_at_k'] = {
      str(k): statistics.fmean(
        scoring.pass_at_k(samples, sum(r['score'] == 1.0 for r in row), k)
        for row in rows.values()
      )
      for k in ks
    }
  graded = [r for row in rows.values() for r in row]
  result['no_answer'] = sum(r['reason'] == 'no_answer' for r in graded)
  result['truncated'] = sum(r['finish_reason'] == 'length' for r in graded)
  return result
