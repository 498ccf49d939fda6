"""The run directory: one configuration, every artefact, safe to be killed.

Files are replaced whole or appended to in complete lines; a restart cuts the
append-only ones back to what the checkpoint it resumes from has seen.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
import contextlib
import fcntl
import json
import os
import pathlib
from typing import Any

import ml_collections

from ioa_jax import config as config_lib

# Of the first writes, before there is a config.json.
_LEFT_BY_A_KILL = {'.writable', '.config.json.tmp'}


class RunDirectory:
  """A claimed work directory.

  Raises:
    ConfigError: if it cannot be written or belongs to another configuration;
      nothing is changed then.
  """

  def __init__(self, path: pathlib.Path, config: ml_collections.ConfigDict):
    self.path = path
    try:
      path.mkdir(parents=True, exist_ok=True)
      probe = path / '.writable'
      probe.touch()
      probe.unlink()
    except OSError as e:
      raise config_lib.ConfigError(
        f'--workdir={path} cannot be written ({e.strerror}); choose another.'
      ) from None
    file = path / 'config.json'
    new = config_lib.to_json(config)
    if not file.exists():
      others = {p.name for p in path.iterdir()} - _LEFT_BY_A_KILL
      if others:
        raise config_lib.ConfigError(
          f'--workdir={path} holds {sorted(others)[:3]} and no config.json, so '
          'it is not a run of this program; choose an empty directory.'
        )
      self.write_text('config.json', new)
      return
    try:
      old = json.loads(file.read_text())
    except json.JSONDecodeError as e:
      raise config_lib.ConfigError(
        f'{file} is damaged ({e}); restore it or choose another --workdir.'
      ) from None
    changed = config_lib.difference(old, json.loads(new))
    if changed:
      shown = '; '.join(changed[:5]) + ('; ...' if len(changed) > 5 else '')
      raise config_lib.ConfigError(
        f'--workdir={path} belongs to another configuration ({shown}). Use '
        'another --workdir, or the configuration it was started with.'
      )
    if file.read_text() != new:
      self.write_text('config.json', new)  # Operational fields only.

  @contextlib.contextmanager
  def locked(self):
    """Keeps other processes out; the lock ends with this one, however it ends.

    Raises:
      ConfigError: if another process is at work here.
    """
    with open(self.path / '.lock', 'w', encoding='utf-8') as file:
      try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
      except BlockingIOError:
        raise config_lib.ConfigError(
          f'--workdir={self.path} is in use by another process; wait for its '
          'end, or choose another.'
        ) from None
      yield

  def write_text(self, name: str, text: str) -> None:
    """Replaces a file whole: a reader sees the old or the new one."""
    temporary = self.path / f'.{name}.tmp'
    with open(temporary, 'w', encoding='utf-8') as file:
      file.write(text)
      file.flush()
      os.fsync(file.fileno())
    os.replace(temporary, self.path / name)

  def write_json(self, name: str, value: Any) -> None:
    self.write_text(
      name, json.dumps(value, indent=2, ensure_ascii=False) + '\n'
    )

  def read_json(self, name: str) -> Any | None:
    """The file's value, or None if the run has not come so far."""
    path = self.path / name
    if not path.exists():
      return None
    try:
      return json.loads(path.read_text(encoding='utf-8'))
    except json.JSONDecodeError as e:
      raise config_lib.ConfigError(
        f'{path} is damaged ({e}); delete it to compute it again.'
      ) from None

  def once(self, name: str, compute: Callable[[], Any]) -> Any:
    """`read_json(name)`, computed and written first if it is not there."""
    value = self.read_json(name)
    if value is None:
      self.write_json(name, compute())
      value = self.read_json(name)
    return value

  def append_lines(self, name: str, lines: Iterable[str]) -> None:
    text = ''.join(line + '\n' for line in lines)
    with open(self.path / name, 'a', encoding='utf-8') as file:
      file.write(text)
      file.flush()
      os.fsync(file.fileno())

  def keep_lines(self, name: str, keep: Callable[[int, str], bool]) -> None:
    """Drops what a resumed run will write again, and a half-written line."""
    path = self.path / name
    if not path.exists():
      return
    lines = path.read_text(encoding='utf-8').split('\n')[:-1]
    kept = [line for i, line in enumerate(lines) if keep(i, line)]
    self.write_text(name, ''.join(line + '\n' for line in kept))

  def read_lines(self, name: str) -> list[str]:
    path = self.path / name
    if not path.exists():
      return []
    # Not `splitlines`: JSON strings may hold U+2028 and its like.
    return path.read_text(encoding='utf-8').split('\n')[:-1]
