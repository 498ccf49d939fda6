"""Tokens a second of training, beside others, in turns."""

from __future__ import annotations

from collections.abc import Sequence
import dataclasses
import multiprocessing
import pathlib
import resource
import statistics
import time
import timeit

from benchmarks import sides
from benchmarks.work import NUM_LESSONS, PRODUCT, SHAPES, Work


def measure(
  shape: str, peer: str, rounds: int, lengths: Sequence[int] = ()
) -> dict:
  """Tokens a second of one optimizer step: clip, AdamW, all weights.

  Args:
    lengths: of lessons, in tokens; without them every row is full.
  """
  work = dataclasses.replace(SHAPES[shape], lessons=tuple(lengths))
  names = ['ioa_jax'] + ([] if peer == 'none' else [peer])
  found = _in_turns({n: sides.SIDES[n] for n in names}, work, rounds)
  # Each weight of a product is used in three products of two operations a
  # token; attention's two products count whole, as is usual, though causal.
  w = work
  weights = w.layers * (4 * w.width**2 + 3 * w.width * w.mlp)
  weights += w.vocab * w.width
  flops_per_token = 6 * weights + 12 * w.layers * w.width * w.length
  peak = max(side['peak_flops'] for side in found.values())
  result = {'benchmark': 'train', 'shape': shape, 'peak_gflops': peak / 1e9}
  for name, side in found.items():
    speed = statistics.median(side['tokens_per_second'])
    result[name] = {
      'tokens_per_second': speed,
      'peak_memory_gib': side['peak_memory_gib'],
    }
    if not lengths:
      result[name]['share_of_peak'] = flops_per_token * speed / peak
  if peer != 'none':
    result['ratio'] = statistics.median(
      ours / theirs
      for ours, theirs in zip(
        found['ioa_jax']['tokens_per_second'],
        found[peer]['tokens_per_second'],
      )
    )
  return result


def lesson_lengths(path: str, model: str | None) -> list[int]:
  """Tokens of question and answer together.

  Raises:
    ValueError: naming what is missing.
  """
  import tokenizers

  from ioa_jax.runtime import row_files

  file = pathlib.Path(model or '') / 'tokenizer.json'
  if model is None or not file.exists():
    raise ValueError(
      f'--lessons is counted by a tokenizer: {file} is not there; add '
      '--model=DIR.'
    )
  rows = row_files.read(pathlib.Path(path), ('question', 'answer'))
  texts = [f'{x["question"]}\n{x["answer"]}' for _, x in rows]
  if len(texts) < NUM_LESSONS:
    raise ValueError(
      f'--lessons={path} has {len(texts)} lessons, wanted {NUM_LESSONS} or '
      'more.'
    )
  tokenizer = tokenizers.Tokenizer.from_file(str(file))
  return [len(e.ids) for e in tokenizer.encode_batch(texts)]


def _in_turns(sides, work: Work, rounds: int) -> dict[str, dict]:
  """Has a process for each side run its steps when it is its turn."""
  context = multiprocessing.get_context('spawn')
  pipes, processes = {}, []
  try:
    for name, make in sides.items():
      pipes[name], theirs = context.Pipe()
      process = context.Process(target=_serve, args=(make, work, theirs))
      process.start()
      theirs.close()
      processes.append(process)
    found = {name: {'tokens_per_second': []} for name in sides}
    for _ in range(rounds):
      for name, pipe in pipes.items():
        pipe.send(True)
        found[name]['tokens_per_second'].append(pipe.recv())
    for name, pipe in pipes.items():
      pipe.send(False)
      found[name] |= pipe.recv()
  finally:
    for pipe in pipes.values():
      pipe.close()
    for process in processes:
      process.join()
  return found


def _serve(make, work, pipe):
  """Answers True with a turn's tokens a second, and False with the rest."""
  run, product = make(work)
  run()  # Compiles, and touches what is allocated late.
  seconds = []
  try:
    while pipe.recv():
      seconds.append(timeit.timeit(product, number=1))
      start = time.monotonic()
      tokens = run()
      pipe.send(tokens / (time.monotonic() - start))
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    pipe.send(
      {'peak_flops': 2 * PRODUCT**3 / min(seconds), 'peak_memory_gib': memory}
    )
  except EOFError:  # The other side failed and says why.
    return
