"""Whole built-in runs: methods at several budgets, as many seeds as time has.

Each run is a process, several at a time: models are so small that one leaves
most of a device idle. All runs of a seed are begun before the next seed's, so
what is done at the end can be compared.
"""

from __future__ import annotations

import os
import pathlib

from benchmarks import jobs
from ioa_jax.experiments import comparison, plans
from ioa_jax.records import Results
from ioa_jax.runtime import files

METHODS = ('ioa', 'lion', 'self_instruct', 'uniform_steps')
STEPS = (500, 1000, 2000)
_SEEDS = 20  # The most that a comparison takes.


def measure(
  say: jobs.Say,
  workdir: str,
  compiled: str,
  changes: dict,
  steps: tuple[int, ...],
  at_once: int,
) -> None:
  """Runs until it is ended; says each run, and each seed's table is written.

  Args:
    compiled: where programs are kept that any run compiled.
    changes: of all runs' settings.
    at_once: runs at a time.
  """
  # Runs share the device, so none may take its memory beforehand.
  os.environ['XLA_PYTHON_CLIENT_PREALLOCATE'] = 'false'
  os.environ['JAX_COMPILATION_CACHE_DIR'] = compiled
  plan = plans.Plan(
    config='quickstart',
    changes=changes,
    runs={
      f'{method}_{n}': {'train.total_steps': n, 'method': method}
      for n in steps
      for method in METHODS
    },
    says='What do methods reach with few steps?',
  )
  place = pathlib.Path(workdir)
  todo = list(plans.jobs(plan, place, range(_SEEDS)))
  for start in range(0, len(todo), at_once):
    some = todo[start : start + at_once]
    plans.execute(
      some, place, at_once=at_once, cores_per_run=0, say=lambda text: None
    )
    for job in some:
      say(_row(job))
    whole = (start + len(some)) // len(plan.runs)
    if whole:
      _write(plan, todo[: whole * len(plan.runs)], place)


def _row(job: plans.Job) -> dict:
  file = job.directory / 'results.json'
  results = Results.from_json(files.read_text(file), str(file))
  return {
    'method': job.config.method,
    'steps': job.config.train.total_steps,
    'seed': job.seed,
    'retention': results.retention,
    'seconds': results.seconds['total'],
  }


def _write(plan: plans.Plan, done, place: pathlib.Path) -> None:
  """table.md, table.json and comparison.html, of whole seeds."""
  comparison.write(
    place,
    [(job.name, job.directory) for job in done],
    title='accelerator',
    says=plan.says,
    untried=plan.untried,
    groups=plan.groups,
    provenance=plans.provenance('python scripts/benchmark.py accelerator'),
  )
