"""Plans: many runs of one configuration, several at a time, resumable.

A plan is a Python file with `get_plan()`, see configs/experiments/. Each run is
a process and a directory of its own, so one that is finished is not run again
and one that was killed continues. What a teacher answered in a finished run of
a seed is not asked again in the next; every run still counts it as its own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
import concurrent.futures
import dataclasses
import datetime
import hashlib
import importlib.metadata
import json
import os
import pathlib
import platform
import queue
import signal
import subprocess
import sys
import threading
from typing import Any

import ml_collections

from ioa_jax import config as config_lib
from ioa_jax.experiments import comparison
from ioa_jax.records import Results
from ioa_jax.runtime import commandline, files, terminal
from ioa_jax.teachers.ledger import Ledger
from ioa_jax.teachers.requests import Completion, Request

# Of the package that this is, and not of another one in the current directory.
DISTILL = (sys.executable, '-P', '-m', 'ioa_jax.commands', 'distill')
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
    rivals: runs, the best of which the page's answer is about; () is all.
    groups: name to modules whose mean score is shown by itself; the answer is
      about the first.
    cores_per_run: CPU cores that a run is held to; sums in another number of
      threads round differently, so it belongs to the result. 0 holds none.
    says: what the plan asks, for the head of its page.
    untried: what it does not answer.
  """

  config: str
  runs: Mapping[str, Changes]
  seeds: Sequence[int] = (0,)
  changes: Changes = dataclasses.field(default_factory=dict)
  rivals: Sequence[str] = ()
  groups: Mapping[str, Sequence[str]] = dataclasses.field(default_factory=dict)
  cores_per_run: int = 0
  says: str = ''
  untried: Sequence[str] = ()


@dataclasses.dataclass(frozen=True)
class Job:
  """One run: its name in the plan, its seed, its directory, its flags.

  Attributes:
    config: what the flags come to.
  """

  name: str
  seed: int
  directory: pathlib.Path
  flags: tuple[str, ...]
  config: ml_collections.ConfigDict

  def command(self) -> list[str]:
    return [*DISTILL, *self.flags, f'--workdir={self.directory}']


def load(spec: str | pathlib.Path) -> Plan:
  """Reads a plan and checks every configuration in it.

  Args:
    spec: a Python file with get_plan(), or the name of a plan that ships.

  Raises:
    ValueError: naming the file, the run and the field.
  """
  path = str(spec)
  fields = config_lib.call(path, 'get_plan', folder='experiments')
  known = {f.name for f in dataclasses.fields(Plan)}
  if unknown := sorted(set(fields) - known):
    raise ValueError(f'{path}: {unknown} unknown; a plan has {sorted(known)}.')
  if not fields.get('config') or not fields.get('runs'):
    raise ValueError(f'{path}: a plan has a config and at least one run.')
  plan = Plan(**fields)
  if absent := sorted(set(plan.rivals) - set(plan.runs)):
    raise ValueError(f'{path}: rivals {absent} are no runs of the plan.')
  for name, changes in plan.runs.items():
    try:
      config_lib.load(plan.config, {**plan.changes, **changes})
    except ValueError as e:
      raise ValueError(f'{path}: run {name!r}: {e}') from None
  return plan


def jobs(
  plan: Plan, workdir: pathlib.Path, seeds: Sequence[int]
) -> Iterator[Job]:
  """Every run of the plan, all of one seed before the next: a plan that is
  stopped half-way has whole comparisons."""
  if not seeds or len(set(seeds)) < len(seeds):
    raise ValueError(f'seeds {seeds}: wanted at least one, none twice.')
  for seed in seeds:
    for name, changes in plan.runs.items():
      changes = {**plan.changes, **changes, 'seed': seed}
      flags = [
        f'--config.{field}={value}'
        for field, value in config_lib.flatten(changes).items()
      ]
      yield Job(
        name,
        seed,
        workdir / f'{name}-{seed}',
        (f'--config={plan.config}', *flags),
        config_lib.load(plan.config, changes),
      )


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
      what is under way is let finish, and the same call goes on. Also for a
      directory of another configuration.
  """
  cores: queue.SimpleQueue = queue.SimpleQueue()
  for held in _cores(at_once, cores_per_run):
    cores.put(held)
  waiting = [j for j in todo if not _finished(j)]
  (workdir / 'teacher').mkdir(parents=True, exist_ok=True)
  wanted = {_shared(workdir, job) for job in waiting}
  for shared in wanted:
    Ledger(shared).close()
  for job in todo:
    if job not in waiting and _shared(workdir, job) in wanted:
      # It may have been killed after its end and before this.
      _share(job.directory / 'ledger.sqlite', _shared(workdir, job))
  done = len(todo) - len(waiting)
  if done:
    say(f'{done} of {len(todo)} runs were finished before.')
  counted, lock = iter(range(done + 1, len(todo) + 1)), threading.Lock()
  running: set[subprocess.Popen] = set()

  def one(job: Job) -> None:
    held = cores.get()
    try:
      _run(job, workdir, held, running)
    finally:
      cores.put(held)
    file = job.directory / 'results.json'
    results = Results.from_json(files.read_text(file), str(file))
    with lock:
      say(
        f'{next(counted)} of {len(todo)}: {job.name}, seed {job.seed}: '
        f'retention {results.retention:.3f}, '
        f'{results.seconds["total"]:.0f} s'
      )

  # A run's process gets Ctrl-C from the terminal itself, and SIGTERM from here;
  # both have it save.
  stop = signal.signal(signal.SIGTERM, signal.default_int_handler)
  pool = concurrent.futures.ThreadPoolExecutor(at_once)
  try:
    futures = [pool.submit(one, job) for job in waiting]
    concurrent.futures.wait(
      futures, return_when=concurrent.futures.FIRST_EXCEPTION
    )
  except BaseException:
    # First, or an ended run's thread would begin the next one.
    pool.shutdown(wait=False, cancel_futures=True)
    for process in list(running):
      process.terminate()
    raise
  finally:
    pool.shutdown(cancel_futures=True)
    signal.signal(signal.SIGTERM, stop)
  for future in futures:
    if not future.cancelled():
      future.result()


def compare(
  plan: Plan,
  todo: Sequence[Job],
  workdir: pathlib.Path,
  *,
  title: str,
  command: str,
  at_once: int,
) -> dict[str, Any]:
  """Executes jobs of a plan, and writes and returns their comparison."""
  execute(
    todo,
    workdir,
    at_once=at_once,
    cores_per_run=plan.cores_per_run,
    say=terminal.say,
  )
  return comparison.write(
    workdir,
    [(job.name, job.directory) for job in todo],
    comparison.About(
      title=title,
      says=plan.says,
      rivals=plan.rivals,
      untried=plan.untried,
      groups=plan.groups,
      provenance=provenance(command, todo),
    ),
  )


def _finished(job: Job) -> bool:
  """Whether there are results, and of this configuration.

  Raises:
    ValueError: for a run of another one; its numbers are not the plan's.
  """
  config = job.directory / 'config.json'
  if not config.exists():
    return False
  try:
    there = json.loads(files.read_text(config))
  except json.JSONDecodeError as e:
    raise ValueError(
      f'{config} is damaged ({e}); use another --workdir.'
    ) from None
  changed = config_lib.difference(
    there, json.loads(config_lib.to_json(job.config))
  )
  if changed:
    raise ValueError(
      f'{job.directory} is a run of another configuration '
      f'({"; ".join(changed[:3])}); use another --workdir for another plan.'
    )
  return (job.directory / 'results.json').exists()


def _shared(workdir: pathlib.Path, job: Job) -> pathlib.Path:
  """The ledger of what any run of a seed was answered by the same teacher.

  Requests know a teacher by its name alone, so every setting of it counts.
  """
  teacher = config_lib.to_json(job.config.teacher)
  digest = hashlib.sha256(teacher.encode()).hexdigest()[:8]
  return workdir / 'teacher' / f'{job.seed}-{digest}.sqlite'


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


def _run(
  job: Job,
  workdir: pathlib.Path,
  held: set[int] | None,
  running: set[subprocess.Popen],
) -> None:
  """One run to its end; its process is in `running` meanwhile."""
  shared = _shared(workdir, job)
  # A plan that names a recording of its own means that one.
  flags = (
    []
    if job.config.teacher.recording
    else [f'--config.teacher.recording={shared}']
  )
  if held:
    # Of this thread; the process that it starts inherits them.
    os.sched_setaffinity(0, held)
  # Compiled programs are the same in all runs of a shape.
  env = {'JAX_COMPILATION_CACHE_DIR': str(workdir / 'compiled'), **os.environ}
  _note_commit(job)
  log = workdir / f'{job.directory.name}.log'
  with log.open('w', encoding='utf-8') as file:
    process = subprocess.Popen(
      [*job.command(), *flags], stdout=file, stderr=subprocess.STDOUT, env=env
    )
    running.add(process)
    code = process.wait()
    running.discard(process)
  # A student that is not better than its base is a result too.
  ended = code in (0, commandline.NOT_BETTER)
  if not ended or not (job.directory / 'results.json').exists():
    end = ' '.join(log.read_text(encoding='utf-8', errors='replace').split())[
      -500:
    ]
    raise ValueError(f'{job.name}, seed {job.seed}: it ended early: {end}')
  _share(job.directory / 'ledger.sqlite', shared)


def _commits_file(job: Job) -> pathlib.Path:
  """Beside the run: which commits it was started with, one a line."""
  return job.directory.with_name(f'{job.directory.name}.commits')


def _note_commit(job: Job) -> None:
  file = _commits_file(job)
  before = file.read_text(encoding='utf-8') if file.exists() else ''
  if (commit := _commit()) not in before.splitlines():
    files.write_text(file, f'{before}{commit}\n')


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
    if isinstance(v, list)
    else v
    for k, v in request.items()
  }


def provenance(command: str, todo: Sequence[Job]) -> dict[str, str]:
  """Where numbers come from: command, commits, machine, date."""
  started = {
    line
    for file in map(_commits_file, todo)
    for line in (
      file.read_text(encoding='utf-8').splitlines()
      if file.exists()
      else ['unknown']
    )
  }
  return {
    'command': command,
    'commit of the runs': ', '.join(sorted(started)),
    'commit of this page': _commit(),
    # Without starting JAX: the runs need the device.
    'machine': f'{os.cpu_count()} CPU cores, {platform.machine()}, '
    f'jax {importlib.metadata.version("jax")}',
    'date': datetime.date.today().isoformat(),
  }


def _commit() -> str:
  """Of the code that runs; 'with changes' where files differ from it."""
  here = pathlib.Path(__file__).parent
  git = lambda *args: subprocess.run(
    ['git', '-C', str(here), *args], capture_output=True, text=True, check=False
  ).stdout.strip()
  commit = git('rev-parse', '--short', 'HEAD') or 'no repository'
  # Untracked files cannot change what a tracked configuration does.
  if git('status', '--porcelain', '--untracked-files=no'):
    commit += ' with changes'
  return commit
