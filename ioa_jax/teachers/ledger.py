"""Every completion a teacher was paid for, durable before it is used.

One sqlite file in WAL mode with two tables. `completions` has one answer per
request, found by the hash of the full request, so a restart asks for nothing
twice. `calls` has one row for each call that cost or may have cost something:

  sent      on its way; counted at its worst case until settled. A row left
            behind by a killed process stays: the server may have charged it.
  lost      the connection broke after sending: likewise counted in full.
  stored    its answer is in `completions`.
  rejected  paid for and not usable (wrong schema, empty); `note` has it.
  carried   spent by earlier starts whose ledger is gone.

Dropping a completion leaves its calls: the money stays spent.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
import contextlib
import dataclasses
import json
import pathlib
import sqlite3
import threading
from typing import Any

from ioa_jax.teachers import ledger_file
from ioa_jax.teachers.ledger_file import LedgerError
from ioa_jax.teachers.requests import Budget, Completion, Request

_COLUMNS = tuple(f.name for f in dataclasses.fields(Completion))


class BudgetExceeded(ValueError):
  """The next request could cross the budget; nothing was sent."""


class Ledger:
  """The open file. Any thread may call; writes go one at a time.

  Args:
    begin_new: also begin a new ledger where the old one is damaged (it is set
      aside first) or was set aside before. Without it that is an error, since
      a new ledger means paying for everything again.
    read_only: never writes, migrates or creates.

  Raises:
    LedgerError: no such file (read only), another version, damaged.
  """

  def __init__(
    self,
    path: pathlib.Path,
    *,
    begin_new: bool = False,
    read_only: bool = False,
  ):
    self._path = path
    self._lock = threading.RLock()
    self._db = (
      ledger_file.open_read_only(path)
      if read_only
      else ledger_file.open_to_write(path, begin_new=begin_new)
    )

  @contextlib.contextmanager
  def _transaction(self, synchronous: str = 'FULL'):
    """Commits on leaving; with FULL, to the disk."""
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

  def _rows(self, query: str, values: Sequence[Any] = ()) -> list[tuple]:
    with self._lock:
      try:
        return self._db.execute(query, values).fetchall()
      except sqlite3.Error as e:
        raise LedgerError(f'{self._path}: cannot be read ({e}).') from e

  def find(self, requests: Sequence[Request]) -> list[Completion | None]:
    """The stored completion of each request, or None."""
    query = f'SELECT {", ".join(_COLUMNS)} FROM completions WHERE key = ?'
    found = [self._rows(query, (r.key(),)) for r in requests]
    return [Completion(*rows[0]) if rows else None for rows in found]

  def copy_to(self, path: pathlib.Path) -> None:
    """A whole copy in a new file, also of what is still in the log."""
    try:
      with self._lock, contextlib.closing(sqlite3.connect(path)) as target:
        self._db.backup(target)
    except sqlite3.Error as e:
      raise LedgerError(f'{path}: cannot be written ({e}).') from e

  def store(self, pairs: Iterable[tuple[Request, Completion]]) -> None:
    """Writes answers that no call was reserved for; durable on return."""
    with self._transaction() as db:
      for request, completion in pairs:
        if _insert(db, request, completion):
          db.execute(
            'INSERT INTO calls (key, state, prompt_tokens, completion_tokens, '
            "price_usd, response_id) VALUES (?, 'stored', ?, ?, ?, ?)",
            (request.key(), *_usage(completion), completion.response_id),
          )

  def reserve(
    self,
    request: Request,
    *,
    prompt_tokens: int,
    completion_tokens: int,
    price_usd: float,
    budget: Budget,
  ) -> int:
    """Counts a call at its worst case, before it is sent.

    Returns:
      The call, for exactly one of `settle`, `reject`, `lose`, `release`.

    Raises:
      BudgetExceeded: all that was spent, what is under way and this call could
        together cross the budget. Nothing is written.
    """
    # NORMAL: survives the process, which is what the count is for; only an
    # answer is worth waiting for the disk.
    with self._transaction('NORMAL') as db:
      self.check(budget, prompt_tokens, completion_tokens, price_usd)
      return db.execute(
        'INSERT INTO calls (key, state, prompt_tokens, completion_tokens, '
        "price_usd) VALUES (?, 'sent', ?, ?, ?)",
        (request.key(), prompt_tokens, completion_tokens, price_usd),
      ).lastrowid

  def spent(self) -> tuple[int, int, float]:
    """Prompt and completion tokens and dollars; what may be charged as well."""
    with self._lock:
      sums = _sums(self._db)
    return sums['prompt_tokens'], sums['completion_tokens'], sums['price_usd']

  def check(
    self,
    budget: Budget,
    prompt_tokens: int,
    completion_tokens: int,
    price_usd: float,
  ) -> None:
    """Whether this much more is within the budget.

    Raises:
      BudgetExceeded: it is not.
    """
    prompt, completion, usd = self.spent()
    crossed = budget.crossed_by(completion + completion_tokens, usd + price_usd)
    if crossed:
      raise BudgetExceeded(
        f'teacher budget: teacher.{", teacher.".join(crossed)} does not '
        f'allow the next call, which may take {prompt_tokens} prompt and '
        f'{completion_tokens} completion tokens; spent or under way are '
        f'{prompt} and {completion} (${usd:.4f}). Raise it; what was paid for '
        'is kept.'
      )

  def carry(self, before: Mapping[str, Any]) -> None:
    """Counts what an earlier start had spent and this file does not know of.

    The file was deleted, or an older one was put in its place.

    Args:
      before: `totals()` as they were then.
    """
    with self._transaction() as db:
      now, lost = _sums(db), {}
      for name in ('prompt_tokens', 'completion_tokens', 'price_usd'):
        had = before[name] + before['unsettled'][name]
        lost[name] = max(0, had - now[name])
      # Prices are sums of floats in some order.
      if lost['completion_tokens'] or lost['price_usd'] > 1e-6:
        db.execute(
          'INSERT INTO calls (key, state, prompt_tokens, completion_tokens, '
          "price_usd, note) VALUES ('', 'carried', ?, ?, ?, "
          "'spent before this ledger began')",
          tuple(lost.values()),
        )

  def settle(self, call: int, request: Request, answer: Completion) -> None:
    """Stores the answer of a reserved call; durable when this returns."""
    with self._transaction() as db:
      # Another process may have answered the same request meanwhile.
      new = _insert(db, request, answer)
      self._close_call(db, call, 'stored' if new else 'rejected', answer,
                       '' if new else 'already answered')  # fmt: skip

  def reject(self, call: int, answer: Completion, why: str) -> None:
    """Records a paid answer that is not used; durable when this returns."""
    note = json.dumps({
      'why': why, 'discarded': answer.discarded, 'reasoning': answer.reasoning
    })  # fmt: skip
    with self._transaction() as db:
      self._close_call(db, call, 'rejected', answer, note)

  def _close_call(self, db, call, state, answer, note):
    db.execute(
      'UPDATE calls SET state = ?, prompt_tokens = ?, completion_tokens = ?, '
      'price_usd = ?, response_id = ?, note = ? WHERE id = ?',
      (state, *_usage(answer), answer.response_id, note, call),
    )

  def lose(self, call: int, why: str) -> None:
    """The server may have charged this call, and its answer did not arrive."""
    with self._transaction('NORMAL') as db:
      db.execute(
        "UPDATE calls SET state = 'lost', note = ? WHERE id = ?", (why, call)
      )

  def release(self, call: int) -> None:
    """The server did not take the call, so it cost nothing."""
    with self._transaction('NORMAL') as db:
      db.execute('DELETE FROM calls WHERE id = ?', (call,))

  def totals(self) -> dict[str, Any]:
    """What was paid for so far, over all starts of the run.

    Returns:
      `completions` stored; `calls`, `prompt_tokens`, `completion_tokens` and
      `price_usd` of answered calls; `unsettled` with the same four of calls
      that may have been charged, at their worst case.
    """
    with self._lock:
      ((completions,),) = self._rows('SELECT COUNT(*) FROM completions')
      paid = _sums(self._db, ('stored', 'rejected', 'carried'))
      unsettled = _sums(self._db, ('sent', 'lost'))
    return {'completions': completions, **paid, 'unsettled': unsettled}

  def entries(self, prefix: str = '') -> Iterator[dict[str, Any]]:
    """Stored completions whose key begins with `prefix`, in order of storing.

    Yields:
      `key`, `request` (a dict), and the fields of a Completion.
    """
    columns = ('key', 'request', *_COLUMNS)
    keys = self._rows(
      'SELECT key FROM completions WHERE substr(key, 1, ?) = ? ORDER BY rowid',
      (len(prefix), prefix),
    )
    query = f'SELECT {", ".join(columns)} FROM completions WHERE key = ?'
    for key in keys:
      for row in self._rows(query, key):
        entry = dict(zip(columns, row))
        yield entry | {'request': json.loads(entry['request'])}

  def drop(self, keys: Sequence[str]) -> None:
    """Forgets answers; they are asked and paid for again when needed."""
    with self._transaction() as db:
      db.executemany(
        'DELETE FROM completions WHERE key = ?', [(k,) for k in keys]
      )

  def close(self) -> None:
    self._db.close()


def _insert(db, request: Request, completion: Completion) -> bool:
  """Whether the answer is new."""
  marks = ', '.join('?' * len(_COLUMNS))
  cursor = db.execute(
    f'INSERT OR IGNORE INTO completions (key, request, {", ".join(_COLUMNS)}) '
    f'VALUES (?, ?, {marks})',
    (request.key(), request.to_json(), *dataclasses.astuple(completion)),
  )
  return cursor.rowcount == 1


def _usage(c: Completion) -> tuple[int, int, float]:
  return c.prompt_tokens, c.completion_tokens, c.price_usd


def _sums(db, states: Sequence[str] | None = None) -> dict[str, Any]:
  rows = db.execute('SELECT * FROM sums').fetchall()
  kept = [r[1:] for r in rows if states is None or r[0] in states]
  names = ('calls', 'prompt_tokens', 'completion_tokens', 'price_usd')
  return {n: sum(r[i] for r in kept) for i, n in enumerate(names)}
