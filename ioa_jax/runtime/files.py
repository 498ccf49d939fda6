"""Files and directories that are there whole or not at all."""

from __future__ import annotations

from collections.abc import Iterator
import contextlib
import os
import pathlib
import shutil


@contextlib.contextmanager
def whole(path: pathlib.Path) -> Iterator[pathlib.Path]:
  """A place to write a file or a directory, which then takes `path`'s.

  A reader sees the old one or the new one, and a kill leaves the old one. What
  is written is on the disk before it takes its place.
  """
  temporary = path.with_name(f'.{path.name}.tmp')
  _remove(temporary)
  yield temporary
  if temporary.is_dir():
    # A directory cannot replace one that has files.
    _remove(path)
  else:
    with open(temporary, 'rb') as file:
      os.fsync(file.fileno())
  os.replace(temporary, path)


def write_text(path: pathlib.Path, text: str) -> None:
  """Replaces a file by `text`, whole."""
  with whole(path) as temporary:
    temporary.write_text(text, encoding='utf-8')


def _remove(path: pathlib.Path) -> None:
  if path.is_dir():
    shutil.rmtree(path)
  else:
    path.unlink(missing_ok=True)


def read_text(path: pathlib.Path) -> str:
  """A file's text.

  Raises:
    ValueError: naming the file, if it cannot be read or is no UTF-8.
  """
  try:
    return path.read_text(encoding='utf-8')
  except OSError as e:
    raise ValueError(f'{path} cannot be read ({e.strerror}).') from None
  except UnicodeDecodeError as e:
    raise ValueError(
      f'{path}: not UTF-8 text at byte {e.start}; the file is damaged.'
    ) from None
