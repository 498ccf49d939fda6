"""Every completion a teacher was paid for, durable before it is used.

One sqlite file in WAL mode. The key of a row is the hash of the full request,
so a restart asks for nothing twice and finds everything it asked for.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
import dataclasses
import hashlib
import json
import pathlib
import sqlite3
from typing import Any

_VERSION = 1
_SCHEMA = """
CREATE TABLE IF NOT EXISTS meta (version INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS completions (
  key TEXT PRIMARY KEY, request TEXT NOT NULL, text TEXT NOT NULL,
  finish_reason TEXT NOT NULL, prompt_tokens INTEGER NOT NULL,
  completion_tokens INTEGER NOT NULL);
"""


class LedgerError(ValueError):
  """The ledger file cannot be used as it is."""


class BudgetExceeded(ValueError):
  """The next request could cross the budget; nothing was sent."""


@dataclasses.dataclass(frozen=True)
class Request:
  """All that determines a completion; its hash is the ledger's key."""

  model: str
  prompt: str
  temperature: float
  top_k: int
  top_p: float
  max_tokens: int
  sample_index: int = 0

  def key(self) -> str:
    text = json.dumps(dataclasses.asdict(self), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()

  def seed(self) -> int:
    """The sampler's seed: the same request has the same text anywhere."""
    return int(self.key()[:8], 16)


@dataclasses.dataclass(frozen=True)
class Completion:
  """A teacher's answer. `finish_reason` is 'stop' or 'length'."""

  text: str
  finish_reason: str
  prompt_tokens: int
  completion_tokens: int


class Ledger:
  """The open file. Single writer."""

  def __init__(self, path: pathlib.Path):
    self._path = path
    try:
      self._db = sqlite3.connect(path)
      self._db.execute('PRAGMA journal_mode=WAL')
      # FULL: a commit is on disk before its completion is used.
      self._db.execute('PRAGMA synchronous=FULL')
      self._db.executescript(_SCHEMA)
      row = self._db.execute('SELECT version FROM meta').fetchone()
    except sqlite3.DatabaseError as e:
      raise LedgerError(
        f'{path}: not a readable ledger ({e}). Move it aside; completions in '
        'it are then paid for again.'
      ) from e
    if row is None:
      self._db.execute('INSERT INTO meta VALUES (?)', (_VERSION,))
      self._db.commit()
    elif row[0] != _VERSION:
      raise LedgerError(
        f'{path}: ledger version {row[0]}, this program reads {_VERSION}. Use '
        'the version that wrote it, or another work directory.'
      )

  def find(self, requests: Sequence[Request]) -> list[Completion | None]:
    """The stored completion of each request, or None."""
    found = []
    for request in requests:
      row = self._db.execute(
        'SELECT text, finish_reason, prompt_tokens, completion_tokens '
        'FROM completions WHERE key = ?',
        (request.key(),),
      ).fetchone()
      found.append(Completion(*row) if row else None)
    return found

  def store(self, pairs: Iterable[tuple[Request, Completion]]) -> None:
    """Writes in one transaction; durable when this returns."""
    with self._db:
      self._db.executemany(
        'INSERT OR IGNORE INTO completions VALUES (?, ?, ?, ?, ?, ?)',
        [
          (r.key(), json.dumps(dataclasses.asdict(r), sort_keys=True), c.text,
           c.finish_reason, c.prompt_tokens, c.completion_tokens)
          for r, c in pairs
        ],
      )  # fmt: skip

  def totals(self) -> dict[str, Any]:
    """Calls and tokens paid for so far, over all starts of the run."""
    calls, prompt, completion = self._db.execute(
      'SELECT COUNT(*), COALESCE(SUM(prompt_tokens), 0), '
      'COALESCE(SUM(completion_tokens), 0) FROM completions'
    ).fetchone()
    return {
      'calls': calls,
      'prompt_tokens': prompt,
      'completion_tokens': completion,
    }

  def close(self) -> None:
    self._db.close()
