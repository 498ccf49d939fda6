"""One's own file as a benchmark, asked and graded as a run does it."""

from __future__ import annotations

from collections.abc import Mapping
import pathlib

from ioa_jax.domains import text
from ioa_jax.evaluation import benchmarks, final_answers
from ioa_jax.evaluation.benchmark_items import Item


def benchmark(
  path: pathlib.Path,
  columns: Mapping[str, str],
  grader: str,
  max_tokens: int,
) -> benchmarks.Benchmark:
  """The file's problems, the bare problem being what is asked.

  Args:
    columns: as `domain.columns`; modules are not read.
    grader: of `final_answers.KINDS`.
    max_tokens: of an answer.
  """
  grades = final_answers.KINDS[grader]()
  columns = {**columns, 'module': ''}

  def to_item(where, row):
    # Raises for a row without an answer: a half-read file is not scored.
    (seed,) = text.read_seeds([(where, row)], columns, grades)
    return Item(
      item_id=where.rpartition(':')[2],
      prompt=seed.problem,
      reference={'answer': seed.answer},
      task=seed.problem,
      instruct=seed.problem,
      trained=seed.problem,
    )

  def grade(tools, item, completion):
    del tools
    right = grades.score(completion, item.reference['answer'])
    return right, 'equal' if right == 1 else 'different'

  return benchmarks.Benchmark(
    name=path.name.split('.')[0],
    hub=None,
    files=(path.name,),
    columns=(columns['problem'],),
    metric='rouge_l_stemmed_f' if grader == 'rouge_l' else 'accuracy',
    stops=(),
    max_tokens=max_tokens,
    to_item=to_item,
    grade=grade,
  )
