"""An accelerator proves itself: five parts, each bounded, one command.

What a part finds is in OUT/PART.json at once, and summary.md at the end is
the whole, with the device named. A part that fails or takes too long is said
so, and the others go on. Nothing here needs a network: weights are random, or
those of the built-in domain, and peers are measured where they are installed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
import json
import os
import pathlib
import time

from benchmarks import (
  correctness,
  device,
  jobs,
  probing,
  sampling,
  science,
  shapes,
  summary,
  training,
)
from ioa_jax import config as config_lib
from ioa_jax.runtime import files

PARTS = ('device', 'correctness', 'training', 'sampling', 'gate', 'science')

# A run of the built-in domain to its end, as small as one is.
_SMALL = {
  'teacher.batch_size': 64,
  'student.batch_size': 64,
  'adapter.seeds_per_module': 2,
  'adapter.items_per_seed': 2,
  'adapter.rehearsal_items_per_seed': 1,
  'train.total_steps': 20,
  'train.batch_rows': 8,
  'train.steps_per_window': 10,
  'gate.probe_every_steps': 10,
  'identifier.panel.learners': 0,
}
_LEAST_RETENTION = 0.95
_MOST_SHARES = 2.0


def measure(
  minutes: float, directory: pathlib.Path, say: Callable[[str], None]
) -> list[str]:
  """All parts, in as many minutes; `say` is told how far it is.

  Returns:
    What went wrong: jobs that ended early, and checks that are not right.
  """
  end = time.monotonic() + 60 * minutes
  # Of each job's process; three quarters are JAX's own choice.
  os.environ.setdefault('XLA_PYTHON_CLIENT_MEM_FRACTION', '0.92')
  directory.mkdir(parents=True, exist_ok=True)
  found = {part: {'found': [], 'ended_early': []} for part in PARTS}
  keep = lambda part: files.write_text(
    directory / f'{part}.json', json.dumps(found[part], indent=2) + '\n'
  )
  for part in PARTS:
    keep(part)

  def run(job: jobs.Job, seconds: float) -> None:
    mine, start, count = found[job.part], time.monotonic(), 0

    def take(row):
      nonlocal count
      count += 1
      mine['found'].append(row)
      keep(job.part)

    reason = jobs.run(job, seconds, take)
    if reason is not None:
      ended = {'job': job.name, 'reason': reason, 'found': count}
      mine['ended_early'].append(ended)
      keep(job.part)
    say(
      f'{job.part}, {job.name}: {reason or "done"}, '
      f'{time.monotonic() - start:.0f} s'
    )

  run(_DEVICE, 0.2 * (end - time.monotonic()))
  if not found['device']['found']:
    raise ValueError(
      f'no device: {found["device"]["ended_early"][0]["reason"]}'
    )
  todo = list(_jobs(found['device']['found'][0], directory))
  while todo:
    job, *rest = todo
    # Most take less than their share of what is left, so one may take more.
    share = min(1.0, _MOST_SHARES * job.weight / sum(j.weight for j in todo))
    run(job, share * max(0.0, end - time.monotonic()))
    todo = rest
  files.write_text(directory / 'summary.md', summary.markdown(found))
  return summary.wrong(found)


_DEVICE = jobs.Job('device', 'facts', device.describe, (), 0.0)


def _jobs(facts: dict, directory: pathlib.Path) -> Iterator[jobs.Job]:
  """Every other job, in order."""
  on_cpu = facts['platform'] == 'cpu'
  size = correctness.size(on_cpu)
  memory = facts['memory_limit_gib']
  bandwidth = facts['copy_gb_per_second'] * 1e9
  has_peer = facts['torch'] is not None and facts['transformers'] is not None
  yield jobs.Job('correctness', 'checks', correctness.measure, (size,), 16)
  changes = _SMALL if on_cpu else {}
  least = 0.0 if on_cpu else _LEAST_RETENTION
  place = str(directory / 'quickstart')
  compiled = str(directory / 'compiled')
  arguments = (place, compiled, changes, least)
  yield jobs.Job(
    'correctness', 'quickstart', correctness.quickstart, arguments, 14
  )
  for student in shapes.students(on_cpu):
    arguments = (student, memory)
    name = student.name
    yield jobs.Job('training', name, training.ours, arguments, 10)
    if has_peer:
      yield jobs.Job(
        'training', f'{name}, torch', training.torch_, arguments, 5
      )
  for student in shapes.sampled(on_cpu):
    for texts in student.texts:
      name = f'{student.name}, {texts} texts'
      arguments = (student, texts, bandwidth)
      yield jobs.Job('sampling', name, sampling.ours, arguments, 8)
      if has_peer:
        arguments = (student, texts)
        yield jobs.Job(
          'sampling', f'{name}, torch', sampling.torch_, arguments, 7
        )
  student = shapes.students(on_cpu)[-1]
  every_steps = config_lib.get('smollm2_135m').gate.probe_every_steps
  arguments = (student, memory, every_steps)
  yield jobs.Job('gate', student.name, probing.measure, arguments, 10)
  # Models are too small to fill a device, so cores are what a run needs.
  at_once = 1 if on_cpu else max(1, facts['cpu_cores'] - 2)
  steps = (20,) if on_cpu else science.STEPS
  place = str(directory / 'science')
  arguments = (place, compiled, changes, steps, at_once)
  yield jobs.Job('science', 'runs', science.measure, arguments, 20)
