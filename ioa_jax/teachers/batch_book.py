"""The batches that are under way, in the ledger's file.

A batch is written down before anything of it is sent, with a name of ours that
the server keeps as well. Each of its lines is a call of the ledger, counted at
its worst case; a line is open for as long as its call is `sent`. So whenever a
process dies, the next one knows which batch to look for and which of its lines
are still to be stored.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
import dataclasses
import uuid

from ioa_jax.teachers.ledger_database import Database, insert_sent
from ioa_jax.teachers.ledger_file import LedgerError
from ioa_jax.teachers.requests import Request

# Made when the first batch is: a ledger without one is as it always was.
_TABLES = (
  'CREATE TABLE IF NOT EXISTS batches (name TEXT PRIMARY KEY, '
  'server TEXT NOT NULL, size INTEGER NOT NULL, file_id TEXT NOT NULL '
  "DEFAULT '', batch_id TEXT NOT NULL DEFAULT '')",
  'CREATE TABLE IF NOT EXISTS batch_lines (call INTEGER PRIMARY KEY, '
  'batch TEXT NOT NULL, request TEXT NOT NULL)',
)


@dataclasses.dataclass(frozen=True)
class Line:
  """A request in a batch.

  Attributes:
    prompt_tokens, price_usd: at most.
    call: of the ledger; 0 is not reserved yet.
  """

  request: Request
  prompt_tokens: int
  price_usd: float = 0.0
  call: int = 0


@dataclasses.dataclass
class Batch:
  """A batch that is not over.

  Attributes:
    name: ours; in the server's metadata and in the file's name.
    server: the base_url that it was sent to.
    file_id: '' before the file is on the server.
    batch_id: '' before the server's name for the batch is known.
    size: how many lines it was sent with.
    lines: those that are open, by the request's key.
  """

  name: str
  server: str
  file_id: str
  batch_id: str
  size: int
  lines: dict[str, Line]


class BatchBook:
  """Args:
  database: the ledger's.
  check: raises BudgetExceeded for (prompt tokens, completion tokens, dollars)
    that do not fit any more.
  """

  def __init__(
    self, database: Database, check: Callable[[int, int, float], None]
  ):
    self._db = database
    self._check = check

  def begin(self, server: str, lines: Sequence[Line]) -> Batch:
    """Reserves as many lines as are affordable, from the front; durable.

    Raises:
      BudgetExceeded: before the first. Nothing is written.
    """
    batch = Batch(f'ioa-{uuid.uuid4().hex}', server, '', '', 0, {})
    with self._db.transaction() as db:
      for table in _TABLES:
        db.execute(table)
      db.execute(
        'INSERT INTO batches (name, server, size) VALUES (?, ?, ?)',
        (batch.name, server, len(lines)),
      )
      for line in lines:
        request = line.request
        worst = line.prompt_tokens, request.max_tokens, line.price_usd
        try:
          self._check(*worst)
        except ValueError:
          if not batch.lines:
            raise
          break
        call = insert_sent(db, request.key(), *worst)
        db.execute(
          'INSERT INTO batch_lines VALUES (?, ?, ?)',
          (call, batch.name, request.to_json()),
        )
        batch.lines[request.key()] = dataclasses.replace(line, call=call)
      batch.size = len(batch.lines)
      db.execute(
        'UPDATE batches SET size = ? WHERE name = ?', (batch.size, batch.name)
      )
    return batch

  def release(self, lines: Sequence[Line]) -> None:
    """The server has not worked on these lines, so they cost nothing."""
    # Together, since sqlite gives the number of the last call again.
    calls = [(line.call,) for line in lines]
    with self._db.transaction() as db:
      db.executemany('DELETE FROM batch_lines WHERE call = ?', calls)
      db.executemany('DELETE FROM calls WHERE id = ?', calls)

  def note(self, batch: Batch) -> None:
    """Writes down what the server calls the batch and its file; durable."""
    with self._db.transaction() as db:
      db.execute(
        'UPDATE batches SET file_id = ?, batch_id = ? WHERE name = ?',
        (batch.file_id, batch.batch_id, batch.name),
      )

  def close(self, name: str) -> None:
    """Forgets a batch; open lines may be charged, and stay counted."""
    with self._db.transaction() as db:
      db.execute(
        "UPDATE calls SET state = 'lost', note = 'batch given up' "
        "WHERE state = 'sent' AND id IN "
        '(SELECT call FROM batch_lines WHERE batch = ?)',
        (name,),
      )
      db.execute('DELETE FROM batch_lines WHERE batch = ?', (name,))
      db.execute('DELETE FROM batches WHERE name = ?', (name,))

  def names(self) -> list[str]:
    """Of all batches under way, also of damaged ones."""
    return [name for name, *_ in self._rows()]

  def under_way(self) -> list[Batch]:
    """Batches of this and of earlier starts, with their open lines.

    Raises:
      LedgerError: a line was changed by something else than this program.
    """
    return [Batch(*row, self._lines(row[0])) for row in self._rows()]

  def _rows(self) -> list[tuple]:
    if not self._db.rows(
      "SELECT 1 FROM sqlite_schema WHERE name = 'batch_lines'"
    ):
      return []
    return self._db.rows(
      'SELECT name, server, file_id, batch_id, size FROM batches ORDER BY rowid'
    )

  def _lines(self, name: str) -> dict[str, Line]:
    found = {}
    for call, text, key, prompt_tokens, price_usd in self._db.rows(
      'SELECT id, request, key, prompt_tokens, price_usd FROM batch_lines '
      "JOIN calls ON id = call WHERE batch = ? AND state = 'sent' ORDER BY id",
      (name,),
    ):
      try:
        request = Request.from_json(text)
      except (ValueError, TypeError):
        request = None
      if request is None or request.key() != key:
        raise LedgerError(
          f'a request of the batch {name} was damaged after it was written '
          'down. Put a backup of the ledger in its place, or give the batch '
          'up, whose answers are then paid for again: python '
          'scripts/ledger.py RUN --give_up_batches'
        )
      found[key] = Line(request, prompt_tokens, price_usd, call)
    return found
