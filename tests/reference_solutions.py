"""Reference solutions through the graders, whole or broken.

All of them, with timings (the tests take samples):

  python tests/reference_solutions.py ../shared/data [bubblewrap|namespaces]
"""

from concurrent import futures
import gzip
import json
import os
import pathlib
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).parent.parent))

from ioa_jax.evaluation import benchmarks, code_grading
from ioa_jax.evaluation import sandbox as sandbox_lib

_MUTATION = """
def _mutate(value):
  if isinstance(value, bool):
    return not value
  if isinstance(value, (int, float, complex)):
    return value + 1
  if isinstance(value, str):
    return value + 'x'
  if isinstance(value, list):
    return value + [0]
  if isinstance(value, tuple):
    return value + (0,)
  if isinstance(value, dict):
    return {**value, 'mutated': 0}
  if isinstance(value, (set, frozenset)):
    return value | {'mutated'}
  return 0
def _broken(function):
  return lambda *args, **kwargs: _mutate(function(*args, **kwargs))
"""


def mutated(source: str, names: list[str]) -> str:
  """The same functions, each with another returned value."""
  broken = ''.join(f'{n} = _broken({n})\n' for n in names)
  return source.replace('\r', '') + _MUTATION + broken


def _solutions(data: pathlib.Path, name: str) -> dict[str, str]:
  """Reference solutions as the completions of a model."""
  if name == 'humaneval':
    with gzip.open(data / 'humaneval/HumanEval.jsonl.gz', 'rt') as file:
      rows = [json.loads(line) for line in file]
    return {r['task_id']: r['canonical_solution'] for r in rows}
  with open(data / 'mbpp/mbpp.jsonl', encoding='utf-8') as file:
    rows = [json.loads(line) for line in file]
  return {str(r['task_id']): r['code'] for r in rows}


def grade(
  data: pathlib.Path,
  name: str,
  tools: benchmarks.Tools,
  every: int = 1,
) -> dict[str, tuple[str, str]]:
  """Item to reasons: of the reference, of its mutation."""
  benchmark = benchmarks.get(name)
  items, _ = benchmark.load(data)
  solutions = _solutions(data, name)

  def one(item):
    completion = solutions[item.item_id]
    if name == 'humaneval':
      entry = item.reference['entry_point']
      source = code_grading.function_source(
        item.reference['prompt'], completion, entry
      )
      # After the marker that makes it a whole function, not a continuation.
      broken = f'```python\n{mutated(source, [entry])}```'
    else:
      broken = mutated(completion, item.reference['functions'])
    return tuple(
      benchmark.grade(tools, item, text)[1] for text in (completion, broken)
    )

  items = items[::every]
  with futures.ThreadPoolExecutor(os.cpu_count()) as pool:
    return dict(zip((i.item_id for i in items), pool.map(one, items)))


def main() -> None:
  data = pathlib.Path(sys.argv[1])
  backend = sys.argv[2] if len(sys.argv) > 2 else None
  with benchmarks.Tools(sandbox_lib.Sandbox(backend=backend)) as tools:
    print('backend', tools.sandbox.backend)
    for name in ('humaneval', 'mbpp'):
      start = time.monotonic()
      reasons = grade(data, name, tools)
      seconds = time.monotonic() - start
      rejected = {k: r for k, (r, _) in reasons.items() if r != 'equal'}
      survived = [k for k, (_, r) in reasons.items() if r == 'equal']
      print(
        f'{name}: {len(reasons) - len(rejected)} of {len(reasons)} accepted '
        f'(rejected: {rejected}); {len(survived)} mutations accepted '
        f'{survived}; {2 * len(reasons)} executions in {seconds:.1f} s'
      )


if __name__ == '__main__':
  main()
