"""The ledger's file: its tables, its versions, and what to do about damage."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import pathlib
import sqlite3
from typing import Any

from absl import logging

_VERSION = 3
# Read as it is, and carried over when it is written to.
_UNSEALED = 2
# What a fingerprint is of, in order, with the types that are stored.
SEALED = {
  'key': str,
  'request': str,
  'text': str,
  'finish_reason': str,
  'prompt_tokens': int,
  'completion_tokens': int,
  'reasoning': str,
  'discarded': str,
  'price_usd': float,
  'response_id': str,
}
# The sums are kept by triggers: checking a budget does not read every call,
# and holds whichever thread or process wrote last.
_ADD = """
  INSERT INTO sums VALUES (NEW.state, 1, NEW.prompt_tokens,
    NEW.completion_tokens, NEW.price_usd)
  ON CONFLICT (state) DO UPDATE SET calls = calls + 1,
    prompt_tokens = prompt_tokens + NEW.prompt_tokens,
    completion_tokens = completion_tokens + NEW.completion_tokens,
    price_usd = price_usd + NEW.price_usd;
"""
_SUBTRACT = """
  UPDATE sums SET calls = calls - 1,
    prompt_tokens = prompt_tokens - OLD.prompt_tokens,
    completion_tokens = completion_tokens - OLD.completion_tokens,
    price_usd = price_usd - OLD.price_usd
  WHERE state = OLD.state;
"""
_CALLS = f"""
CREATE TABLE calls (
  id INTEGER PRIMARY KEY, key TEXT NOT NULL, state TEXT NOT NULL,
  prompt_tokens INTEGER NOT NULL, completion_tokens INTEGER NOT NULL,
  price_usd REAL NOT NULL, response_id TEXT NOT NULL DEFAULT '',
  note TEXT NOT NULL DEFAULT '');
CREATE INDEX calls_of_key ON calls (key);
CREATE TABLE sums (
  state TEXT PRIMARY KEY, calls INTEGER, prompt_tokens INTEGER,
  completion_tokens INTEGER, price_usd REAL);
CREATE TRIGGER call_added AFTER INSERT ON calls BEGIN {_ADD} END;
CREATE TRIGGER call_removed AFTER DELETE ON calls BEGIN {_SUBTRACT} END;
CREATE TRIGGER call_changed AFTER UPDATE ON calls BEGIN
  {_SUBTRACT} {_ADD} END;
"""
_DAMAGED = 'CREATE TABLE damaged (key TEXT NOT NULL, row TEXT NOT NULL);'
_CREATE = f"""
BEGIN;
CREATE TABLE meta (version INTEGER NOT NULL);
INSERT INTO meta VALUES ({_VERSION});
CREATE TABLE completions (
  key TEXT PRIMARY KEY, request TEXT NOT NULL, text TEXT NOT NULL,
  finish_reason TEXT NOT NULL, prompt_tokens INTEGER NOT NULL,
  completion_tokens INTEGER NOT NULL,
  reasoning TEXT NOT NULL DEFAULT '', discarded TEXT NOT NULL DEFAULT '',
  price_usd REAL NOT NULL DEFAULT 0, response_id TEXT NOT NULL DEFAULT '',
  fingerprint TEXT NOT NULL DEFAULT '');
{_CALLS}
{_DAMAGED}
COMMIT;
"""
_CORRUPT = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)


class LedgerError(ValueError):
  """The ledger file cannot be used as it is."""


def open_to_write(path: pathlib.Path, *, begin_new: bool) -> sqlite3.Connection:
  """The file in its newest layout, made if it was never there.

  Args:
    begin_new: see `ledger.Ledger`.

  Raises:
    LedgerError: damaged (it is set aside), set aside before, not a ledger, of
      another version.
  """
  try:
    db = _checked(_open(path, begin_new), path)
    try:
      db.execute('PRAGMA journal_mode=WAL')
      _seal(db)
      _mend(db, path)
    except BaseException:
      db.close()
      raise
    return db
  except (sqlite3.Error, OSError) as e:
    raise LedgerError(f'{path}: cannot be opened as a ledger ({e}).') from e


def open_read_only(path: pathlib.Path) -> sqlite3.Connection:
  """The file as it is; needs no permission to write.

  Raises:
    LedgerError: absent, damaged, not a ledger, of another version.
  """
  if not path.exists():
    raise LedgerError(f'{path}: no such ledger.')
  uri = path.absolute().as_uri()
  options = {'uri': True, 'timeout': 30, 'check_same_thread': False}
  try:
    db = sqlite3.connect(f'{uri}?mode=ro', **options)
    try:
      db.execute('SELECT * FROM sqlite_schema')
    except sqlite3.OperationalError:
      # In a directory that cannot be written, a WAL file opens only as one
      # that nobody changes.
      db.close()
      db = sqlite3.connect(f'{uri}?immutable=1', **options)
    return _checked(db, path)
  except sqlite3.Error as e:
    raise LedgerError(f'{path}: cannot be opened as a ledger ({e}).') from e


def _open(path, begin_new):
  damage = _damage(path)
  if damage:
    aside = set_aside(path)
    what = f'{path} is damaged ({damage}); it was kept as {aside.name}'
    if not begin_new:
      raise LedgerError(f'{what}. {_how_to_begin(path)}')
    logging.warning('%s, and a new ledger begins.', what)
  elif not path.exists() and not begin_new:
    aside = sorted(path.parent.glob(f'{path.stem}.corrupt-*{path.suffix}'))
    if aside:
      raise LedgerError(
        f'{path} is missing: it was damaged and kept as {aside[-1].name}. '
        + _how_to_begin(path)
      )
  if not path.exists():
    _create(path)
  return sqlite3.connect(
    path, timeout=30, isolation_level=None, check_same_thread=False
  )


def fingerprint(*row: Any) -> str:
  """Of a row's values in the order of SEALED; '' if one has another type."""
  if [type(x) for x in row] != list(SEALED.values()):
    return ''
  text = json.dumps(row, ensure_ascii=False)
  return hashlib.sha256(text.encode('utf-8', 'surrogatepass')).hexdigest()


def is_sealed(db: sqlite3.Connection) -> bool:
  """Whether its rows have fingerprints."""
  return db.execute('SELECT version FROM meta').fetchone() == (_VERSION,)


def _seal(db) -> None:
  """Gives the rows of an older version their fingerprints."""
  if is_sealed(db):
    return
  db.create_function('fingerprint', -1, fingerprint, deterministic=True)
  db.execute('BEGIN IMMEDIATE')
  try:
    if not is_sealed(db):  # Else another process was first.
      db.execute(
        'ALTER TABLE completions ADD COLUMN '
        "fingerprint TEXT NOT NULL DEFAULT ''"
      )
      columns = ', '.join(SEALED)
      db.execute(f'UPDATE completions SET fingerprint = fingerprint({columns})')
      db.execute(_DAMAGED)
      db.execute(f'UPDATE meta SET version = {_VERSION}')
    db.execute('COMMIT')
  except BaseException:
    db.execute('ROLLBACK')
    raise


def _mend(db, path) -> None:
  """Rebuilds what only repeats the rows: indices and sums."""
  ((sound,), *_) = db.execute('PRAGMA integrity_check(1)').fetchall()
  if sound != 'ok':
    logging.warning('%s: its indices are damaged and were rebuilt.', path)
    db.execute('REINDEX')
  names = 'calls, prompt_tokens, completion_tokens, price_usd'
  counted = (
    'SELECT state, COUNT(*), CAST(TOTAL(prompt_tokens) AS INTEGER), '
    'CAST(TOTAL(completion_tokens) AS INTEGER), TOTAL(price_usd) FROM calls '
    'GROUP BY state'
  )
  kept = f'SELECT state, {names} FROM sums WHERE calls != 0'
  if _agree(db.execute(counted).fetchall(), db.execute(kept).fetchall()):
    return
  db.execute('BEGIN IMMEDIATE')
  # Again: another process may have written meanwhile.
  if not _agree(db.execute(counted).fetchall(), db.execute(kept).fetchall()):
    logging.warning('%s: its sums are damaged and were counted again.', path)
    db.execute('DELETE FROM sums')
    db.execute(f'INSERT INTO sums (state, {names}) {counted}')
  db.execute('COMMIT')


def _agree(counted, kept) -> bool:
  def key(row):
    return tuple(map(str, row[:-1]))

  # Prices are sums of floats in another order.
  close = lambda a, b: (
    isinstance(b, (int, float)) and abs(a - b) <= (1e-6 * max(1.0, abs(a)))
  )
  counted, kept = sorted(counted, key=key), sorted(kept, key=key)
  return list(map(key, counted)) == list(map(key, kept)) and all(
    close(a[-1], b[-1]) for a, b in zip(counted, kept)
  )


def _checked(db, path):
  """`db` if it is a ledger that this program reads; closed otherwise."""
  try:
    try:
      (version,) = db.execute('SELECT version FROM meta').fetchone()
    except (sqlite3.OperationalError, TypeError):
      raise LedgerError(
        f'{path}: a sqlite file, but not a ledger. Choose another place.'
      ) from None
    if version not in (_UNSEALED, _VERSION):
      raise LedgerError(
        f'{path}: ledger version {version}, this program reads {_UNSEALED} '
        f'and {_VERSION}. Use the version that wrote it, or another work '
        'directory.'
      )
  except BaseException:
    db.close()
    raise
  return db


def _damage(path: pathlib.Path) -> str:
  """What is wrong with the file; '' if it is sound or was never there."""
  log = path.with_name(path.name + '-wal')
  if not path.exists():
    # Left alone, sqlite would replay this log into the new file.
    left = log.exists() and log.stat().st_size > 0
    return 'the file is gone, its write-ahead log is there' * left
  if path.stat().st_size == 0:
    # sqlite takes an empty file for a new database.
    return 'the file is empty'
  with contextlib.closing(sqlite3.connect(path, timeout=30)) as db:
    try:
      ((result,),) = db.execute('PRAGMA quick_check(1)').fetchall()
    except sqlite3.DatabaseError as e:
      if getattr(e, 'sqlite_errorcode', 0) & 0xFF in _CORRUPT:
        return str(e)
      raise
  return '' if result == 'ok' else ' '.join(result.split())


def set_aside(path: pathlib.Path) -> pathlib.Path:
  """Renames a ledger and its log to `ledger.corrupt-N.sqlite`: the new path."""
  n = 1
  while True:
    aside = path.with_name(f'{path.stem}.corrupt-{n}{path.suffix}')
    ends = ('', '-wal', '-shm')
    if not any(aside.with_name(aside.name + end).exists() for end in ends):
      break
    n += 1
  for end in ends:
    with contextlib.suppress(FileNotFoundError):
      os.rename(f'{path}{end}', f'{aside}{end}')
  # What marks it as set aside even where only a log was left.
  aside.touch()
  return aside


def _how_to_begin(path):
  return (
    'Put a backup in its place, or begin a new one, which pays for everything '
    f'again: python scripts/ledger.py {path.parent} --begin_new'
  )


def _create(path: pathlib.Path) -> None:
  """A whole new ledger or none, wherever the process dies."""
  temporary = path.with_name(f'.{path.name}.{os.getpid()}.new')
  temporary.unlink(missing_ok=True)
  try:
    with contextlib.closing(sqlite3.connect(temporary)) as db:
      db.executescript(_CREATE)
    with contextlib.suppress(FileExistsError):  # Another process was first.
      os.link(temporary, path)
  finally:
    temporary.unlink(missing_ok=True)
  # The name, too, must survive a power cut before anything is paid for.
  directory = os.open(path.parent, os.O_RDONLY)
  try:
    os.fsync(directory)
  finally:
    os.close(directory)
