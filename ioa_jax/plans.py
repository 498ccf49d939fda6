"""Plans: many runs of one configuration, several at a time, resumable.

A plan is a Python file with `get_plan()`, see configs/experiments/. Each run is
a process and a directory of its own, so one that is finished is not run again
and one that was killed continues. What a teacher answered in one run of a seed
is not asked again in another; every run still counts it as its own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
import concurrent.futures
import dataclasses
import datetime
import json
import os
import pathlib
import platform
import queue
import runpy
import subprocess
import sys
import threading
from typing import Any

import jax

from ioa_jax import config as config_lib
from ioa_jax.teachers.ledger import Ledger
from ioa_jax.teachers.requests import Completion, Request

DISTILL = pathlib.Path(__file__).parents[1] / 'scripts' / 'distill.py'
Changes = Mapping[str, Any]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Plan:
  """What is compared.

  Attributes:
    config: the configuration that all runs change.
    runs: name to changes, dotted field to value. The first is what the others
      are compared with.
    seeds: each for every run.
    changes: of all runs.
    groups: name to modules whose mean score is shown by itself.
    cores_per_run: CPU cores that a run is held to; sums in another number of
      threads round differently, so it belongs to the result. 0 holds none.
    says: what the plan asks, for the head of its page.
    untried: what it does not answer.
  """

  config: str
  runs: Mapping[str, Changes]
  seeds: Sequence[int] = (0,)
  changes: Changes = dataclasses.field(default_factory=dict)
  groups: Mapping[str, Sequence[str]] = dataclasses.field(default_factory=dict)
  cores_per_run: int = 0
  says: str = ''
  untried: Sequence[str] = ()


@dataclasses.dataclass(frozen=True)
class Job:
  """One run: its name in the plan, its seed, its directory, its flags."""

  name: str
  seed: int
  directory: pathlib.Path
  flags: tuple[str, ...]

  def command(self) -> list[str]:
    return [
      sys.executable, str(DISTILL), *self.flags, f'--workdir={self.directory}'
    ]  # fmt: skip


def load(path: pathlib.Path) -> Plan:
  """Reads a plan and checks every configuration in it.

  Raises:
    ValueError: naming the file, the run and the field.
  """
  if not path.exists():
    raise ValueError(f'--plan={path}: no such file; see configs/experiments/.')
  get_plan = runpy.run_path(str(path)).get('get_plan')
  if get_plan is None:
    raise ValueError(f'--plan={path}: it has no get_plan().')
  fields = get_plan()
  known = {f.name for f in dataclasses.fields(Plan)}
  if unknown := sorted(set(fields) - known):
    raise ValueError(f'{path}: {unknown} unknown; a plan has {sorted(known)}.')
  plan = Plan(**fields)
  for name, changes in plan.runs.items():
    try:
      check(plan.config, {**plan.changes, **changes})
    except (ValueError, KeyError, TypeError, AttributeError) as e:
      raise ValueError(f'{path}: run {name!r}: {e}') from None
  return plan


def check(config: str, changes: Changes) -> None:
  """Raises ValueError for a configuration that cannot be run."""
  values = runpy.run_path(config)['get_config']()
  for field in changes:
    if field not in config_lib.flatten(values):
      raise ValueError(
        f'{config} has no field {field}; the nearest is '
        f'{config_lib.nearest(field, values)}.'
      )
  values.update_from_flattened_dict(dict(changes))
  config_lib.validate(values)


def jobs(
  plan: Plan, workdir: pathlib.Path, seeds: Sequence[int]
) -> Iterator[Job]:
  """Every run of the plan, all of one seed before the next: a plan that is
  stopped half-way has whole comparisons."""
  for seed in seeds:
    for name, changes in plan.runs.items():
      flags = [f'--config={plan.config}', f'--config.seed={seed}']
      flags += [
        f'--config.{field}={_flag(value)}'
        for field, value in {**plan.changes, **changes}.items()
      ]
      yield Job(name, seed, workdir / f'{name}-{seed}', tuple(flags))


def _flag(value: Any) -> str:
  """A value as its flag takes it; tuples as Python writes them."""
  return repr(value) if isinstance(value, tuple) else str(value)


def execute(
  todo: Sequence[Job],
  workdir: pathlib.Path,
  *,
  at_once: int,
  cores_per_run: int,
  say: Callable[[str], None],
) -> None:
  """Runs every job to its end; what is finished is left as it is.

  Raises:
    ValueError: for the first run that fails, with the end of what it wrote;
      the others are let finish, and the same call goes on.
  """
  (workdir / 'teacher').mkdir(parents=True, exist_ok=True)
  for seed in {job.seed for job in todo}:
    Ledger(_shared(workdir, seed)).close()
  cores: queue.SimpleQueue = queue.SimpleQueue()
  for held in _cores(at_once, cores_per_run):
    cores.put(held)
  waiting = [j for j in todo if not (j.directory / 'results.json').exists()]
  done = len(todo) - len(waiting)
  if done:
    say(f'{done} of {len(todo)} runs were finished before.')
  counted, lock = iter(range(done + 1, len(todo) + 1)), threading.Lock()

  def one(job: Job) -> None:
    held = cores.get()
    try:
      _run(job, workdir, held)
    finally:
      cores.put(held)
    results = json.loads((job.directory / 'results.json').read_text())
    with lock:
      say(
        f'{next(counted)} of {len(todo)}: {job.name}, seed {job.seed}: '
        f'retention {results["retention"]:.3f}, '
        f'{results["seconds"]["total"]:.0f} s'
      )

  with concurrent.futures.ThreadPoolExecutor(at_once) as pool:
    futures = [pool.submit(one, job) for job in waiting]
    concurrent.futures.wait(
      futures, return_when=concurrent.futures.FIRST_EXCEPTION
    )
    for future in futures:
      future.cancel()
  for future in futures:
    if not future.cancelled():
      future.result()


def _shared(workdir: pathlib.Path, seed: int) -> pathlib.Path:
  """The ledger of what any run of a seed was answered."""
  return workdir / 'teacher' / f'{seed}.sqlite'


def _cores(at_once: int, cores_per_run: int) -> list[set[int] | None]:
  """The cores of each run that goes at the same time, None for any."""
  if not cores_per_run:
    return [None] * at_once
  mine = sorted(os.sched_getaffinity(0))
  if at_once * cores_per_run > len(mine):
    raise ValueError(
      f'--jobs={at_once}: the plan holds each run to {cores_per_run} cores and '
      f'{len(mine)} are here; at most --jobs={len(mine) // cores_per_run}.'
    )
  return [
    set(mine[i * cores_per_run : (i + 1) * cores_per_run])
    for i in range(at_once)
  ]


def _run(job: Job, workdir: pathlib.Path, held: set[int] | None) -> None:
  shared = _shared(workdir, job.seed)
  # Compiled programs are the same in all runs of a shape.
  env = {'JAX_COMPILATION_CACHE_DIR': str(workdir / 'compiled'), **os.environ}
  log = workdir / f'{job.directory.name}.log'
  with log.open('w') as file:
    done = subprocess.run(
      [*job.command(), f'--config.teacher.recording={shared}'],
      stdout=file, stderr=subprocess.STDOUT, env=env, check=False,
      preexec_fn=held and (lambda: os.sched_setaffinity(0, held)),
    )  # fmt: skip
  if done.returncode or not (job.directory / 'results.json').exists():
    end = ' '.join(log.read_text().split())[-500:]
    raise ValueError(f'{job.name}, seed {job.seed}: it ended early: {end}')
  _share(job.directory / 'ledger.sqlite', shared)


def _share(own: pathlib.Path, shared: pathlib.Path) -> None:
  """Adds a run's answers to those that the next runs may take."""
  names = [f.name for f in dataclasses.fields(Completion)]
  source, target = Ledger(own, read_only=True), Ledger(shared)
  try:
    target.store(
      (Request(**_tuples(e['request'])), Completion(**{n: e[n] for n in names}))
      for e in source.entries()
    )
  finally:
    source.close()
    target.close()


def _tuples(request: Mapping[str, Any]) -> dict[str, Any]:
  """JSON has no tuples, and a request's key must not change."""
  return {
    k: tuple(tuple(x) if isinstance(x, list) else x for x in v)
    if isinstance(v, list) else v
    for k, v in request.items()
  }  # fmt: skip


def provenance(command: str) -> dict[str, str]:
  """Where numbers come from: command, commit, machine, date."""
  here = pathlib.Path(__file__).parent
  git = lambda *args: subprocess.run(
    ['git', '-C', str(here), *args], capture_output=True, text=True, check=False
  ).stdout.strip()
  commit = git('rev-parse', '--short', 'HEAD') or 'no repository'
  # Untracked files cannot change what a tracked configuration does.
  if git('status', '--porcelain', '--untracked-files=no'):
    commit += ' with changes'
  return {
    'command': command,
    'commit': commit,
    'machine': f'{os.cpu_count()} CPU cores, {platform.machine()}, '
    f'{jax.default_backend()}, jax {jax.__version__}',
    'date': datetime.date.today().isoformat(),
  }
