"""The ledger's connection to its file, for many threads and several jobs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
import contextlib
import fcntl
import pathlib
import sqlite3
import threading
from typing import Any

from absl import logging

from ioa_jax.teachers.ledger_file import LedgerError


class Database:
  """Any thread may call; writes go one at a time."""

  def __init__(self, path: pathlib.Path, connection: sqlite3.Connection):
    self._path = path
    self._lock = threading.RLock()
    self._db = connection

  @contextlib.contextmanager
  def transaction(
    self, synchronous: str = 'FULL'
  ) -> Iterator[sqlite3.Connection]:
    """Commits on leaving; with FULL, to the disk.

    Raises:
      LedgerError: it cannot be written.
    """
    with self._lock:
      try:
        self._db.execute(f'PRAGMA synchronous={synchronous}')
        self._db.execute('BEGIN IMMEDIATE')
        try:
          yield self._db
          self._db.execute('COMMIT')
        except BaseException:
          if self._db.in_transaction:
            self._db.execute('ROLLBACK')
          raise
      except sqlite3.Error as e:
        raise LedgerError(
          f'{self._path}: cannot be written ({e}); what was stored is kept.'
        ) from e

  def rows(self, query: str, values: Sequence[Any] = ()) -> list[tuple]:
    """All rows of a query.

    Raises:
      LedgerError: it cannot be read.
    """
    with self._lock:
      try:
        return self._db.execute(query, values).fetchall()
      except sqlite3.Error as e:
        raise LedgerError(f'{self._path}: cannot be read ({e}).') from e

  def copy_to(self, path: pathlib.Path) -> None:
    """A whole copy in a new file, also of what is still in the log."""
    try:
      with self._lock, contextlib.closing(sqlite3.connect(path)) as target:
        self._db.backup(target)
    except sqlite3.Error as e:
      raise LedgerError(f'{path}: cannot be written ({e}).') from e

  def close(self) -> None:
    self._db.close()


def insert_sent(
  db: sqlite3.Connection,
  key: str,
  prompt_tokens: int,
  completion_tokens: int,
  price_usd: float,
) -> int:
  """A call on its way, at its worst case, within a transaction: its number."""
  return db.execute(
    'INSERT INTO calls (key, state, prompt_tokens, completion_tokens, '
    "price_usd) VALUES (?, 'sent', ?, ?, ?)",
    (key, prompt_tokens, completion_tokens, price_usd),
  ).lastrowid


@contextlib.contextmanager
def claim(ledger: pathlib.Path) -> Iterator[None]:
  """Keeps other jobs out while one asks through a ledger.

  The claim ends with this process, however it ends.

  Raises:
    LedgerError: the file's directory does not allow it.
  """
  path = ledger.with_name(f'.{ledger.name}.lock')
  try:
    file = open(path, 'a', encoding='utf-8')
  except OSError as e:
    raise LedgerError(f'{path}: cannot be written ({e.strerror}).') from None
  with file:
    try:
      fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
      logging.warning(
        '%s: another job asks through this ledger; its answers are waited for, '
        'so that nothing is paid twice.',
        ledger,
      )
      fcntl.flock(file, fcntl.LOCK_EX)
    yield
