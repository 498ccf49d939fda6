"""Requests that a server answers in batches: sent, waited for, stored.

A batch goes through states, each in the ledger before the next begins:

  begun      its lines are counted at their worst case; nothing was sent
  uploaded   the file is on the server; the batch may have been created
  created    the server's name for it is known
  ended      its lines are stored, one after the other

Whoever comes after a dead process goes on from there. Between `uploaded` and
`created` the server is asked for the batch, so that none is created twice.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence
import threading

from absl import logging
import pydantic

from ioa_jax.runtime import signals
from ioa_jax.teachers import batch_protocol, chat, openai_calls, replies
from ioa_jax.teachers.account import Account
from ioa_jax.teachers.batch_book import Batch, Line
from ioa_jax.teachers.batch_server import LOOKS, BatchServer, Refused
from ioa_jax.teachers.connection import Arrival, TeacherError
from ioa_jax.teachers.ledger import BudgetExceeded
from ioa_jax.teachers.requests import Request, worst_case_prompt_tokens

# Fewer than servers take: the results of a batch are read at once.
_MOST_LINES, _MOST_BYTES = 5_000, 100 * 2**20
_WATCH_SECONDS = 0.1


class BatchJob:
  """What one `answer` asks in batches.

  Args:
    teacher: an `openai_http.OpenAITeacher`.
    account: at the price of a batch.
    poll_seconds: between two looks at a batch, after the first ones.
  """

  def __init__(
    self,
    teacher,
    account: Account,
    requests: Sequence[Request],
    model: type[pydantic.BaseModel] | None,
    poll_seconds: float,
  ):
    self._teacher = teacher
    self._settings = teacher.settings
    self._account = account
    self._requests = {r.key(): r for r in requests}
    self._model = model
    self._poll_seconds = poll_seconds
    self._interrupted = threading.Event()
    self._shown: dict[str, str] = {}
    self._answered: set[str] = set()
    self._failures: Counter[str] = Counter()
    self._unfit: Counter[str] = Counter()
    self._repair: dict[str, list[dict[str, str]]] = {}
    # What a line was sent with; of an earlier start's, the same first guess.
    self._first_dialect = teacher.dialect
    self._dialects: dict[str, chat.Dialect] = {}
    self._guesses: dict[str, chat.Dialect] = {}
    self._moved = False
    self._error: TeacherError | None = None

  def left(self) -> list[Request]:
    """What was asked and is not answered yet."""
    return [r for k, r in self._requests.items() if k not in self._answered]

  def interrupt(self) -> None:
    """Ends the waiting from another thread; all that was written down stays."""
    self._interrupted.set()

  async def run(self, begin: bool) -> None:
    """Collects what earlier starts sent of these requests.

    Args:
      begin: whether to send the others as well.

    Raises:
      KeyboardInterrupt: soon after a signal.
      BudgetExceeded, TeacherError: everything that was answered is stored.
    """
    async with BatchServer(self._teacher) as self._server:
      work = asyncio.ensure_future(self._work(begin))
      watch = asyncio.ensure_future(self._watch())
      try:
        await asyncio.wait((work, watch), return_when=asyncio.FIRST_COMPLETED)
        if not work.done():
          raise KeyboardInterrupt
        work.result()
      except (KeyboardInterrupt, asyncio.CancelledError):
        logging.warning(
          '%s: what was sent in batches goes on at the server; the same '
          'command takes up its answers.',
          self._teacher.name,
        )
        raise
      finally:
        work.cancel()
        watch.cancel()
        await asyncio.gather(work, watch, return_exceptions=True)

  async def _watch(self) -> None:
    """A signal that training turns into a wish must end this wait as well."""
    while not (self._interrupted.is_set() or signals.is_stopping()):
      await asyncio.sleep(_WATCH_SECONDS)

  async def _work(self, begin: bool) -> None:
    await self._finish_all([(batch, '') for batch in self._earlier()])
    while begin and (left := self.left()):
      self._moved = False
      await self._finish_all(self._begin(left))
      if not self._moved:
        raise TeacherError(
          f'{self._settings.base_url}: a batch of {len(left)} requests brought '
          'nothing that could be used. Start again to try once more, or set '
          "teacher.batch to 'never'."
        )

  def _earlier(self) -> list[Batch]:
    """Batches that hold what is asked now.

    Others are left to whoever asks for them, who knows their schema.

    Raises:
      TeacherError: one lies on another server.
    """
    found = []
    for batch in self._account.batches.under_way():
      if not batch.lines:
        self._account.batches.close(batch.name)
      elif batch.lines.keys() & self._requests.keys():
        if batch.server != self._settings.base_url:
          raise TeacherError(
            f'{batch.name}, a batch of {batch.size} requests, is under way on '
            f'{batch.server}, and teacher.base_url is '
            f'{self._settings.base_url}. Set it back, or give the batch up, '
            'whose answers are then paid for again: python scripts/ledger.py '
            'RUN --give_up_batches'
          )
        found.append(batch)
    return found

  def _begin(self, left: Sequence[Request]) -> list[tuple[Batch, str]]:
    """As many batches as the budget allows, each with its file."""
    found: list[tuple[Batch, str]] = []
    while left:
      texts, size = {}, 0
      for request in left[:_MOST_LINES]:
        text = self._line(request)
        size += len(text.encode())
        if texts and size > _MOST_BYTES:
          break
        texts[request] = text
      worst = [(r, self._most_prompt_tokens(r)) for r in texts]
      try:
        batch = self._account.begin_batch(self._settings.base_url, worst)
      except BudgetExceeded:
        if not found:
          raise
        break
      sent = [t for r, t in texts.items() if r.key() in batch.lines]
      found.append((batch, ''.join(sent)))
      if len(sent) < len(texts):
        break
      left = left[len(texts) :]
    return found

  def _line(self, request: Request) -> str:
    key = request.key()
    dialect = self._guesses.pop(key, self._teacher.dialect)
    self._dialects[key] = dialect
    repair = self._repair.get(key, ())
    return f'{batch_protocol.line(request, dialect, repair)}\n'

  def _most_prompt_tokens(self, request: Request) -> int:
    repair = self._repair.get(request.key(), ())
    return worst_case_prompt_tokens(request, repair)

  async def _finish_all(self, batches: Sequence[tuple[Batch, str]]) -> None:
    """Raises the first error; the other batches go on at the next start."""
    tasks = [asyncio.ensure_future(self._finish(*b)) for b in batches]
    try:
      for task in asyncio.as_completed(tasks):
        await task
    finally:
      for task in tasks:
        task.cancel()
      await asyncio.gather(*tasks, return_exceptions=True)
    if self._error is not None:
      raise self._error

  async def _finish(self, batch: Batch, file: str) -> None:
    if not batch.batch_id and not await self._submit(batch, file):
      return
    ended = await self._ended(batch)
    await self._store(batch, ended)
    self._account.batches.close(batch.name)
    if ended is not None and ended.name == 'cancelled':
      raise TeacherError(
        f'{self._settings.base_url}: the batch {batch.batch_id} was cancelled '
        'on the server. What was answered is stored; start again to have the '
        'rest asked.'
      )
    if ended is not None and ended.name == 'failed':
      said = self._server.connection.clean(f'{ended.code} {ended.message}')
      raise TeacherError(
        f'{self._settings.base_url} refuses the batch {batch.batch_id} '
        f'({said}). Correct what it names, start again later, or set '
        "teacher.batch to 'never'; what was answered is stored."
      )

  async def _submit(self, batch: Batch, file: str) -> bool:
    """Uploads and creates the batch, or finds that it was; False: neither.

    Args:
      file: '' of an earlier start's batch, which is not sent from here.
    """
    if not (file or batch.file_id):
      # Without a file there can be no batch: nothing was ever sent.
      self._release(batch)
      return False
    try:
      if file:
        try:
          batch.file_id = await self._server.upload(batch.name, file)
        except TeacherError:
          self._release(batch)
          raise
        self._account.batches.note(batch)
      else:
        batch.batch_id = await self._server.find(batch)
      batch.batch_id = batch.batch_id or await self._server.create(batch)
    except Refused as e:
      self._release(batch)
      if not file and e.status in (400, 404):
        return False  # The file of an earlier start is no longer there.
      raise
    self._account.batches.note(batch)
    return True

  def _release(self, batch: Batch) -> None:
    """The server has taken no line of it."""
    self._account.batches.release(list(batch.lines.values()))
    self._account.batches.close(batch.name)

  async def _ended(self, batch: Batch) -> batch_protocol.Status | None:
    """The status in which a batch has ended; None: the server has lost it."""
    looks = 0
    show = lambda status: self._show(batch, status)
    while True:
      status = await self._server.status(batch, show)
      if status is None or status.has_ended:
        return status
      await asyncio.sleep(min(self._poll_seconds, 2.0 ** min(looks, 20)))
      looks += 1

  def _show(self, batch: Batch, status: batch_protocol.Status) -> None:
    """Where the batches stand, in the server's words."""
    counts = ''
    if status.total:
      counts = f' {status.completed or 0}/{status.total}'
      counts += f', {status.failed} failed' if status.failed else ''
    said = self._server.connection.clean(status.name)[:40]
    self._shown[batch.name] = f'{batch.batch_id[:24]} {said}{counts}'
    self._account.on_wait('; '.join(self._shown.values()))

  async def _store(
    self, batch: Batch, ended: batch_protocol.Status | None
  ) -> None:
    """Brings every open line to its end."""
    found: dict[str, batch_protocol.Result] = {}
    for look in range(1, 1 + LOOKS):
      found = await self._results(batch, ended)
      missing = len(batch.lines) - len(found)
      if not missing or ended is None or ended.name != 'completed':
        break
      if look < LOOKS:
        # What the server has is not paid for again because a file was cut.
        await self._server.pause(look)
    not_begun = _was_not_begun(ended, batch, len(found))
    for key, line in batch.lines.items():
      if key in found:
        await self._settle(key, line, found[key])
      elif not_begun:
        self._account.batches.release([line])
      else:
        self._account.lose(line.call, 'not in the results of its batch')
      await asyncio.sleep(0)  # So that a signal is seen.

  async def _results(
    self, batch: Batch, ended: batch_protocol.Status | None
  ) -> dict[str, batch_protocol.Result]:
    """By key, of lines that are open; the first of several counts."""
    found: dict[str, batch_protocol.Result] = {}
    odd: Counter[str] = Counter()
    ids = [ended.output_file_id, ended.error_file_id] if ended else []
    longest = max(x.request.max_tokens for x in batch.lines.values())
    for file_id in filter(None, ids):
      text = await self._server.content(file_id, batch.size, longest)
      for result in batch_protocol.results(text):
        if result is None:
          odd['cannot be read'] += 1
        elif result.custom_id in found:
          odd['came twice'] += 1
        elif result.custom_id in batch.lines:
          found[result.custom_id] = result
        else:
          # Stored by an earlier start before it died, or of nobody.
          odd['are not open'] += 1
    for what, count in odd.items():
      logging.info('%s: %d lines %s.', batch.name, count, what)
    return found

  async def _settle(
    self, key: str, line: Line, result: batch_protocol.Result
  ) -> None:
    if not result.status:
      self._account.batches.release([line])
      return
    arrival = self._server.connection.read(result.text, {}, result.status)
    if arrival.reply is None:
      if arrival.maybe_charged:
        self._account.lose(line.call, arrival.maybe_charged)
      else:
        self._account.batches.release([line])
      await self._note_failure(key, line.request, arrival)
      return
    self._moved = True
    self._teacher.accepts(self._dialects.get(key, self._first_dialect))
    answer, why, _ = replies.completion(
      arrival.reply, line.request, line.prompt_tokens, self._model
    )
    left = self._settings.max_regenerations - self._unfit[key]
    if answer.finish_reason not in ('empty', 'schema') or left <= 0:
      self._account.settle(line.call, line.request, answer)
      self._answered.add(key)
      return
    self._unfit[key] += 1
    self._account.reject(line.call, answer, why or 'empty')
    self._repair.pop(key, None)
    if answer.finish_reason == 'schema' and arrival.reply.text:
      self._repair[key] = chat.repair_turns(
        answer.discarded, why, line.request.response_schema
      )

  async def _note_failure(
    self, key: str, request: Request, arrival: Arrival
  ) -> None:
    """Whether a line that was not answered is worth another batch."""
    refusal = arrival.refusal
    dialect = self._dialects.get(key, self._first_dialect)
    narrower = refusal and dialect.narrowed(refusal, request)
    if narrower:
      self._moved = True
      if narrower.is_guess:
        self._guesses[key] = narrower
      else:
        said = self._server.connection.clean(refusal.message)
        self._teacher.refuses(dialect, narrower, said)
      return
    self._failures[key] += 1
    if refusal is not None and not refusal.may_pass():
      error = await openai_calls.final(
        refusal, request.describe(), self._teacher, self._server.connection
      )
    elif self._failures[key] >= self._settings.max_attempts:
      error = TeacherError(
        f'{self._settings.base_url} failed {self._failures[key]} times for '
        f'{request.describe()}, last: {self._server.words(arrival)}. Start '
        'again to go on; what was answered is stored. teacher.max_attempts '
        'allows more.'
      )
    else:
      return
    self._error = self._error or error


def _was_not_begun(
  ended: batch_protocol.Status | None, batch: Batch, found: int
) -> bool:
  """Whether lines without a result were not worked on, as the server says.

  What it calls completed and does not deliver may be charged.
  """
  if ended is None or ended.name == 'completed':
    return False
  if ended.completed is None:
    return ended.name == 'failed'
  stored_before = batch.size - len(batch.lines)
  return ended.completed <= found + stored_before
