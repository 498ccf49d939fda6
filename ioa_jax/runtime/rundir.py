"""The run directory: one configuration, every artefact, safe to be killed.

Files are replaced whole or appended to in complete lines; a restart cuts the
append-only ones back to what the checkpoint it resumes from has seen.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
import contextlib
import fcntl
import hashlib
import json
import os
import pathlib
import shutil
import sqlite3
import tempfile
from typing import Any, TypeVar

import jax
import ml_collections

from ioa_jax import config as config_lib
from ioa_jax.records.base import Record
from ioa_jax.runtime import files, processes

LEDGER, LESSONS, METRICS = 'ledger.sqlite', 'lessons.jsonl', 'metrics.jsonl'
CONFIG, DIAGNOSIS = 'config.json', 'diagnosis.json'
CURRICULUM, MODELS = 'curriculum.json', 'models.json'
ITEMS, REJECTED = 'items.jsonl', 'rejected.jsonl'
ANSWERS, JUDGEMENTS = 'answers.jsonl', 'judge.sqlite'
STARTS, STANDING = 'starts.jsonl', 'standing.json'
# What training reads: files that grow with it, and files that do not change.
GROWING = (LESSONS, METRICS, REJECTED)
FOUNDATION = (DIAGNOSIS, CURRICULUM, ITEMS)
# Of the first writes, before there is a config.json.
_LOCK = '.lock'
_LEFT_BY_A_KILL = {'.writable', '.config.json.tmp', _LOCK}
_COPY = '.ledger.copy'
T = TypeVar('T', bound=Record)


class RunDirectory:
  """A work directory of one configuration.

  Attributes:
    path: where this process writes.
    shared: where all processes of a run write together, their checkpoints;
      `path` itself but for processes that only follow, see `claim`.

  Raises:
    ConfigError: if it cannot be written or belongs to another configuration;
      nothing is changed then.
  """

  def __init__(
    self,
    path: pathlib.Path,
    config: ml_collections.ConfigDict,
    shared: pathlib.Path | None = None,
  ):
    self.path, self.shared = path, shared or path
    self._config = config_lib.to_json(config)
    # Of the files that grow: how many lines, and their hash so far.
    self._grown: dict[str, tuple[int, Any]] = {}
    try:
      path.mkdir(parents=True, exist_ok=True)
      probe = path / '.writable'
      probe.touch()
      probe.unlink()
    except OSError as e:
      raise config_lib.ConfigError(
        f'--workdir={path} cannot be written ({e.strerror}); choose another.'
      ) from None
    self._require_own()

  def _require_own(self) -> None:
    """Raises unless the directory is empty or of this configuration."""
    file = self.path / CONFIG
    if not file.exists():
      others = {p.name for p in self.path.iterdir()} - _LEFT_BY_A_KILL
      if others:
        raise config_lib.ConfigError(
          f'--workdir={self.path} holds {sorted(others)[:3]} and no '
          'config.json, so it is not a run of this program; choose an empty '
          'directory.'
        )
      return
    try:
      old = json.loads(files.read_text(file))
      if not isinstance(old, dict):
        raise ValueError('no object')
      changed = config_lib.difference(old, json.loads(self._config))
    except (ValueError, RecursionError) as e:
      raise config_lib.ConfigError(
        f'{file} is damaged ({" ".join(str(e).split())[:200]}); restore it or '
        'choose another --workdir.'
      ) from None
    if changed:
      shown = '; '.join(changed[:5]) + ('; ...' if len(changed) > 5 else '')
      raise config_lib.ConfigError(
        f'--workdir={self.path} belongs to another configuration ({shown}). '
        'Use another --workdir, or the configuration it was started with.'
      )

  @contextlib.contextmanager
  def locked(self):
    """Keeps other processes out; the lock ends with this one, however it ends.

    Raises:
      ConfigError: if another process is at work here; it is not disturbed.
    """
    with open(self.path / _LOCK, 'w', encoding='utf-8') as file:
      try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
      except BlockingIOError:
        raise config_lib.ConfigError(
          f'--workdir={self.path} is in use by another process; wait for its '
          'end, or choose another.'
        ) from None
      # Another one may have begun here, or changed what may change.
      self._require_own()
      path = self.path / CONFIG
      if not path.exists() or files.read_text(path) != self._config:
        self.write_text(CONFIG, self._config)
      yield

  def write_text(self, name: str, text: str) -> None:
    """Replaces a file whole: a reader sees the old or the new one."""
    files.write_text(self.path / name, text)

  def write_record(self, name: str, value: Record) -> None:
    """Replaces a file by a record, as JSON for people."""
    # Through one line, which has the names of the file's fields.
    text = json.dumps(json.loads(value.to_json()), indent=2, ensure_ascii=False)
    self.write_text(name, text + '\n')

  def read_record(self, name: str, kind: type[T]) -> T | None:
    """The file's record, or None if the run has not come so far.

    Raises:
      ConfigError: naming the file and the field that is damaged.
    """
    path = self.path / name
    if not path.exists():
      return None
    try:
      return kind.from_json(files.read_text(path), str(path))
    except ValueError as e:
      raise config_lib.ConfigError(
        f'{e} Delete it to compute it again.'
      ) from None

  def once(self, name: str, kind: type[T], compute: Callable[[], T]) -> T:
    """`read_record(name)`, computed and written first if it is not there."""
    value = self.read_record(name, kind)
    if value is None:
      self.write_record(name, compute())
      value = self.read_record(name, kind)
    return value

  def append_lines(self, name: str, lines: Iterable[str]) -> None:
    """Adds whole lines, on the disk when this returns."""
    lines = list(lines)
    text = ''.join(line + '\n' for line in lines)
    count, digest = self._grown_so_far(name)
    with open(self.path / name, 'a', encoding='utf-8') as file:
      file.write(text)
      file.flush()
      os.fsync(file.fileno())
    digest.update(text.encode())
    self._grown[name] = count + len(lines), digest

  def truncate(self, name: str, count: int) -> None:
    """Drops what a resumed run will write again, and a half-written line.

    Args:
      count: lines that stay.

    Raises:
      ConfigError: if there are fewer.
    """
    lines = self.read_lines(name)
    if len(lines) < count:
      raise config_lib.ConfigError(
        f'{self.path / name} has {len(lines)} lines and the checkpoint '
        f'{count}; restore the file, or start in another --workdir.'
      )
    if (self.path / name).exists():
      self.write_text(name, ''.join(line + '\n' for line in lines[:count]))
    self._grown.pop(name, None)

  def num_lines(self, name: str) -> int:
    """Whole lines of a file that grows, 0 if there is none."""
    return self._grown_so_far(name)[0]

  def _grown_so_far(self, name: str):
    if name not in self._grown:
      lines = self.read_lines(name)
      text = ''.join(line + '\n' for line in lines)
      self._grown[name] = len(lines), hashlib.sha256(text.encode())
    return self._grown[name]

  def read_lines(self, name: str) -> list[str]:
    """Whole lines; a half-written last one is none."""
    path = self.path / name
    if not path.exists():
      return []
    # Not `splitlines`: JSON strings may hold U+2028 and its like.
    return files.read_text(path).split('\n')[:-1]

  def digests(self) -> dict[str, str]:
    """The hash of every file that training stands on, as it is now."""
    found = {name: self._grown_so_far(name)[1].hexdigest() for name in GROWING}
    for name in FOUNDATION:
      if (self.path / name).exists():
        data = (self.path / name).read_bytes()
        found[name] = hashlib.sha256(data).hexdigest()
    return found

  def require(self, digests: Mapping[str, str]) -> None:
    """Raises ConfigError for a file that is not what a checkpoint knew."""
    now = self.digests()
    for name, digest in digests.items():
      if now.get(name) != digest:
        what = 'has been changed' if name in now else 'is missing'
        raise config_lib.ConfigError(
          f'{self.path / name} {what} since the checkpoint that stands on it; '
          'restore the file, or start in another --workdir.'
        )


@contextlib.contextmanager
def claim(
  path: pathlib.Path, config: ml_collections.ConfigDict
) -> Iterator[RunDirectory]:
  """The run directory, locked, for as long as this lasts.

  Of several processes the first one has it. The others have directories of
  their own, which begin as copies and are thrown away: so all read the same,
  and one writes. All need to see `path`, as each writes its part of a
  checkpoint there.

  Raises:
    ConfigError: as `RunDirectory` and its `locked`; in all processes.
  """
  with contextlib.ExitStack() as stack:
    mine: list[RunDirectory] = []

    def open_first():
      mine.append(RunDirectory(path, config))
      stack.enter_context(mine[0].locked())
      return [] if processes.is_alone() else _offer(path)

    def open_here():
      if mine:
        return mine[0]
      own = stack.enter_context(tempfile.TemporaryDirectory())
      return _copy(path, names, pathlib.Path(own), config)

    names = processes.on_first(open_first, errors=[config_lib.ConfigError])
    directory = processes.in_all(open_here)  # Then all have copied.
    if mine:
      (path / _COPY).unlink(missing_ok=True)
    yield directory


def _offer(path) -> list[str]:
  """Names of the files that the others are to copy."""
  names = [
    file.name
    for file in path.iterdir()
    if file.is_file() and not file.name.startswith(('.', LEDGER))
  ]
  if (path / LEDGER).exists():
    # The file alone may lack what is in its log.
    (path / _COPY).unlink(missing_ok=True)
    with (
      contextlib.closing(sqlite3.connect(path / LEDGER)) as ledger,
      contextlib.closing(sqlite3.connect(path / _COPY)) as copy,
    ):
      ledger.backup(copy)
    names.append(_COPY)
  return names


def _copy(path, names, own, config) -> RunDirectory:
  try:
    for name in names:
      shutil.copyfile(path / name, own / (LEDGER if name == _COPY else name))
  except OSError as e:
    raise config_lib.ConfigError(
      f'--workdir={path}: process {jax.process_index()} does not see what '
      f'process 0 has there ({e.strerror}); it must be on a file system that '
      'all processes share.'
    ) from None
  return RunDirectory(own, config, shared=path)
