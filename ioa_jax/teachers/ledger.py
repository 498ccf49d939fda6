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

Every completion has a fingerprint of its row. One that fails it is never used
and never asked for again but with a person's consent (`repair`). A job claims
the file while it asks, so that two of them pay for nothing twice.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
import contextlib
import dataclasses
import functools
import json
import pathlib
from typing import Any

from absl import logging

from ioa_jax.teachers import finish, ledger_database, ledger_file
from ioa_jax.teachers.batch_book import BatchBook
from ioa_jax.teachers.ledger_file import LedgerError
from ioa_jax.teachers.requests import Budget, Completion, Request

_SUMS = (
  'SELECT state, calls, prompt_tokens, completion_tokens, price_usd FROM sums'
)
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
    connection = (
      ledger_file.open_read_only(path)
      if read_only
      else ledger_file.open_to_write(path, begin_new=begin_new)
    )
    self._known_damaged: list[str] | None = None
    self._sealed = ledger_file.is_sealed(connection)
    self._db = ledger_database.Database(path, connection)
    columns = [*ledger_file.SEALED, 'fingerprint' if self._sealed else "''"]
    self._select = f'SELECT {", ".join(columns)} FROM completions'

  def find(self, requests: Sequence[Request]) -> list[Completion | None]:
    """The stored completion of each request, or None.

    Raises:
      LedgerError: one was changed by something else than this program.
    """
    found = []
    for request in requests:
      key = request.key()
      rows = self._db.rows(f'{self._select} WHERE key = ?', (key,))
      if rows and (self._is_damaged(rows[0]) or rows[0][0] != key):
        raise self._damaged(key)
      # What is not there may be what no longer is under its key.
      if not rows and (others := self._damaged_keys()):
        raise self._damaged(others[0])
      found.append(_completion(rows[0]) if rows else None)
    return found

  def _damaged(self, key: str) -> LedgerError:
    return LedgerError(
      f'{self._path}: the answer {key[:12]!r} was damaged after it was stored, '
      'and is not used. Put a backup of the file in its place, or set such '
      'answers aside and pay for them again: '
      f'python scripts/ledger.py {self._path} --repair'
    )

  def _damaged_keys(self) -> list[str]:
    """Of answers that were damaged before the file was opened; read once."""
    if self._known_damaged is None:
      self._known_damaged = [
        str(row[0])
        for (rowid,) in self._db.rows('SELECT rowid FROM completions')
        for row in self._db.rows(f'{self._select} WHERE rowid = ?', (rowid,))
        if self._is_damaged(row)
      ]
    return self._known_damaged

  def _is_damaged(self, row: Sequence[Any]) -> bool:
    *values, seal = row
    expected = ledger_file.fingerprint(*values)
    # A row of an older version has none, but it has its types.
    return not expected or seal != (expected if self._sealed else '')

  def claimed(self) -> contextlib.AbstractContextManager[None]:
    """While this is held no other job asks; see `ledger_database.claim`."""
    return ledger_database.claim(self._path)

  def copy_to(self, path: pathlib.Path) -> None:
    """A whole copy in a new file, also of what is still in the log."""
    self._db.copy_to(path)

  def repair(self) -> list[str]:
    """Sets damaged answers aside, to be asked for again: their keys."""
    keys = []
    for rowid, *row in self._db.rows(
      f'SELECT rowid, {", ".join(ledger_file.SEALED)}, fingerprint '
      'FROM completions'
    ):
      if self._is_damaged(row):
        keys.append(str(row[0]))
        with self._db.transaction() as db:
          db.execute(
            'INSERT INTO damaged (key, row) VALUES (?, ?)',
            (keys[-1], json.dumps(row, default=repr)),
          )
          db.execute('DELETE FROM completions WHERE rowid = ?', (rowid,))
    self._known_damaged = None
    return keys

  def store(self, pairs: Iterable[tuple[Request, Completion]]) -> None:
    """Writes answers that no call was reserved for; durable on return."""
    with self._db.transaction() as db:
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
    with self._db.transaction('NORMAL') as db:
      self.check(budget, prompt_tokens, completion_tokens, price_usd)
      return ledger_database.insert_sent(
        db, request.key(), prompt_tokens, completion_tokens, price_usd
      )

  def batches(self, budget: Budget) -> BatchBook:
    """The book of what is asked in batches, within `budget`."""
    return BatchBook(self._db, functools.partial(self.check, budget))

  def spent(self) -> tuple[int, int, float]:
    """Prompt and completion tokens and dollars; what may be charged as well."""
    sums = _sums(self._db.rows(_SUMS))
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
    with self._db.transaction() as db:
      now, lost = _sums(db.execute(_SUMS).fetchall()), {}
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
    with self._db.transaction() as db:
      # Another process may have answered the same request meanwhile.
      new = _insert(db, request, answer)
      self._close_call(
        db,
        call,
        'stored' if new else 'rejected',
        answer,
        '' if new else 'already answered',
      )

  def reject(self, call: int, answer: Completion, why: str) -> None:
    """Records a paid answer that is not used; durable when this returns."""
    note = json.dumps(
      {'why': why, 'discarded': answer.discarded, 'reasoning': answer.reasoning}
    )
    with self._db.transaction() as db:
      self._close_call(db, call, 'rejected', answer, note)

  def _close_call(self, db, call, state, answer, note):
    db.execute(
      'UPDATE calls SET state = ?, prompt_tokens = ?, completion_tokens = ?, '
      'price_usd = ?, response_id = ?, note = ? WHERE id = ?',
      (state, *_usage(answer), answer.response_id, note, call),
    )

  def lose(self, call: int, why: str) -> None:
    """The server may have charged this call, and its answer did not arrive."""
    with self._db.transaction('NORMAL') as db:
      db.execute(
        "UPDATE calls SET state = 'lost', note = ? WHERE id = ?", (why, call)
      )

  def release(self, call: int) -> None:
    """The server did not take the call, so it cost nothing."""
    with self._db.transaction('NORMAL') as db:
      db.execute('DELETE FROM calls WHERE id = ?', (call,))

  def totals(self) -> dict[str, Any]:
    """What was paid for so far, over all starts of the run.

    Returns:
      `completions` stored; `calls`, `prompt_tokens`, `completion_tokens` and
      `price_usd` of answered calls; `unsettled` with the same four of calls
      that may have been charged, at their worst case.
    """
    ((completions,),) = self._db.rows('SELECT COUNT(*) FROM completions')
    sums = self._db.rows(_SUMS)
    paid = _sums(sums, ('stored', 'rejected', 'carried'))
    unsettled = _sums(sums, ('sent', 'lost'))
    return {'completions': completions, **paid, 'unsettled': unsettled}

  def entries(self, prefix: str = '') -> Iterator[dict[str, Any]]:
    """Stored completions whose key begins with `prefix`, in order of storing.

    Yields:
      `key`, `request` (a dict), and the fields of a Completion.
    """
    rowids = self._db.rows(
      'SELECT rowid FROM completions WHERE substr(key, 1, ?) = ? '
      'ORDER BY rowid',
      (len(prefix), prefix),
    )
    for rowid in rowids:
      for row in self._db.rows(f'{self._select} WHERE rowid = ?', rowid):
        request = None if self._is_damaged(row) else _request(row[1])
        if request is None:
          logging.warning(
            '%s: the answer %.12s is damaged and left out.', self._path, row[0]
          )
          continue
        answer = dataclasses.asdict(_completion(row))
        yield {'key': row[0], 'request': request, **answer}

  def request(self, key: str) -> dict[str, Any] | None:
    """What was asked under a key; None if it is not known or damaged."""
    rows = self._db.rows(f'{self._select} WHERE key = ?', (key,))
    return _request(rows[0][1]) if rows else None

  def drop(self, keys: Sequence[str]) -> None:
    """Forgets answers; they are asked and paid for again when needed."""
    with self._db.transaction() as db:
      db.executemany(
        'DELETE FROM completions WHERE key = ?', [(k,) for k in keys]
      )

  def close(self) -> None:
    self._db.close()


def _insert(db, request: Request, completion: Completion) -> bool:
  """Whether the answer is new."""
  stored = dataclasses.asdict(completion)
  stored |= {'key': request.key(), 'request': request.to_json()}
  # As sqlite gives them back: a price of 0 is 0.0.
  row = [kind(stored[name]) for name, kind in ledger_file.SEALED.items()]
  marks = ', '.join('?' * (len(row) + 1))
  cursor = db.execute(
    f'INSERT OR IGNORE INTO completions ({", ".join(ledger_file.SEALED)}, '
    f'fingerprint) VALUES ({marks})',
    (*row, ledger_file.fingerprint(*row)),
  )
  return cursor.rowcount == 1


def _completion(row: Sequence[Any]) -> Completion:
  values = dict(zip(ledger_file.SEALED, row))
  answer = Completion(**{n: values[n] for n in _COLUMNS})
  end = finish.name(answer.finish_reason)
  if end == 'stop' and not answer.text and answer.discarded.strip():
    # An end under another name, which an earlier version took for none.
    return dataclasses.replace(
      answer, text=answer.discarded, finish_reason='stop', discarded=''
    )
  if end == 'length':
    return dataclasses.replace(answer, finish_reason='length')
  return answer


def _request(text: str) -> dict[str, Any] | None:
  try:
    request = json.loads(text)
  except (ValueError, RecursionError):
    return None
  is_ours = isinstance(request, dict) and {'model', 'prompt'} <= set(request)
  return request if is_ours else None


def _usage(c: Completion) -> tuple[int, int, float]:
  return c.prompt_tokens, c.completion_tokens, c.price_usd


def _sums(rows, states: Sequence[str] | None = None) -> dict[str, Any]:
  kept = [r[1:] for r in rows if states is None or r[0] in states]
  names = ('calls', 'prompt_tokens', 'completion_tokens', 'price_usd')
  return {n: sum(r[i] for r in kept) for i, n in enumerate(names)}
