"""A server's files and batches: each operation with its retries.

What costs nothing to send again is sent again until it works. Creating a batch
costs, so after a doubtful answer the server is asked whether it has it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
import dataclasses
from typing import Any

from ioa_jax.teachers import (
  batch_protocol,
  openai_calls,
  rate_limits,
  replies,
)
from ioa_jax.teachers.batch_book import Batch
from ioa_jax.teachers.connection import Arrival, Connection, TeacherError

_MOST_PAGES = 100
# A batch that was just created may not be in every list yet.
LOOKS = 3
# Of a line of results: what surrounds an answer, and its tokens; a file of more
# is no answer to what was asked.
_LINE_BYTES, _TOKEN_BYTES = 2**12, 2**5
_RESULTS = 'the results of a batch'

Call = Callable[[Any], Awaitable[Any]]


class Refused(TeacherError):
  """The server does not take it, and will not.

  Attributes:
    status: of its response.
  """

  def __init__(self, message: str, status: int):
    super().__init__(message)
    self.status = status


class BatchServer:
  """Used as an asynchronous context.

  Args:
    teacher: an `openai_http.OpenAITeacher`.
  """

  def __init__(self, teacher):
    self._teacher = teacher
    self._settings = teacher.settings
    self.connection = Connection(self._settings, teacher.api_key())

  async def __aenter__(self) -> BatchServer:
    return self

  async def __aexit__(self, *exception) -> None:
    await self.connection.__aexit__(*exception)

  async def require_offer(self) -> None:
    """Raises TeacherError if the server has no batches; costs nothing."""
    arrival = await self._insist(
      lambda c: c.batches.with_raw_response.list(limit=1), 'its batches'
    )
    try:
      batch_protocol.page(arrival.text, '', '')
    except replies.DamagedReply as e:
      raise self._not_offered(str(e)) from None

  def _not_offered(self, why: str) -> TeacherError:
    return TeacherError(
      f'{self._settings.base_url} does not offer batches ({why}), and '
      "teacher.batch asks for them. Set it to 'never'; no batch was paid for."
    )

  async def upload(self, name: str, lines: str) -> str:
    """The server's name for a file of requests; a file costs nothing."""
    file = (f'{name}.jsonl', lines.encode(), 'application/jsonl')
    arrival = await self._insist(
      lambda c: c.files.with_raw_response.create(file=file, purpose='batch'),
      'a file of requests',
    )
    try:
      return batch_protocol.identifier(replies.load(arrival.text))
    except replies.DamagedReply as e:
      raise self._not_offered(f'an uploaded file has {e}') from None

  async def create(self, batch: Batch) -> str:
    """The server's name for the batch, which it creates once.

    Raises:
      Refused: there is no such batch.
      TeacherError: there may be one.
    """
    create = lambda c: c.batches.with_raw_response.create(
      input_file_id=batch.file_id,
      endpoint=batch_protocol.ENDPOINT,
      completion_window=batch_protocol.WINDOW,
      metadata={batch_protocol.NAME: batch.name},
    )
    arrival = Arrival()
    for failures in range(1, 1 + self._settings.max_attempts):
      arrival = await self.connection.exchange(create)
      if arrival.is_whole:
        try:
          return batch_protocol.status(arrival.text).batch_id
        except replies.DamagedReply as e:
          arrival = Arrival(failure=str(e))
      await self._require_passing(arrival, 'a batch')
      await self.pause(failures, arrival)
      # It may be there all the same: a gateway gave up, a connection broke.
      if found := await self.find(batch):
        return found
    raise self._failed(arrival, 'a batch')

  async def find(self, batch: Batch) -> str:
    """The server's name for a batch that it may have; '' if it has none."""
    for look in range(1, 1 + LOOKS):
      if found := await self._find_once(batch):
        return found
      if look < LOOKS:
        await self.pause(look)
    return ''

  async def _find_once(self, batch: Batch) -> str:
    last = ''
    for _ in range(_MOST_PAGES):
      after = {'after': last} if last else {}
      arrival = await self._insist(
        lambda c, after=after: c.batches.with_raw_response.list(
          limit=100, **after
        ),
        'its batches',
      )
      try:
        page = batch_protocol.page(arrival.text, batch.name, batch.file_id)
      except replies.DamagedReply as e:
        raise self._not_offered(str(e)) from None
      if page.found or not page.last or page.last == last:
        return page.found
      last = page.last
    raise TeacherError(
      f'{self._settings.base_url} lists more than {_MOST_PAGES} pages of '
      f'batches, and {batch.name} is not among them; whether it was created is '
      'unknown. Start again, or give it up: python scripts/ledger.py RUN '
      '--give_up_batches'
    )

  async def status(
    self, batch: Batch, on_status: Callable[[batch_protocol.Status], None]
  ) -> batch_protocol.Status | None:
    """The next status that the server tells; None: it knows no such batch."""
    what = 'a question about a batch'
    for failures in range(1, 1 + self._settings.max_attempts):
      arrival = await self.connection.exchange(
        lambda c: c.batches.with_raw_response.retrieve(batch.batch_id)
      )
      if arrival.is_whole:
        try:
          found = batch_protocol.status(arrival.text)
          on_status(found)
          return found
        except replies.DamagedReply as e:
          arrival = Arrival(failure=str(e))
      # A batch of just now may not be known everywhere yet.
      gone = arrival.refusal is not None and arrival.refusal.status == 404
      if not gone:
        await self._require_passing(arrival, what)
      elif failures == self._settings.max_attempts:
        return None
      await self.pause(failures, arrival)
    raise self._failed(arrival, what)

  async def content(self, file_id: str, lines: int, max_tokens: int) -> str:
    """A file of so many results at most; '' if it is gone."""
    most = lines * (_LINE_BYTES + _TOKEN_BYTES * max_tokens)
    s = self._settings
    wide = dataclasses.replace(s, max_reply_bytes=s.max_reply_bytes + most)
    try:
      async with Connection(wide, self._teacher.api_key()) as connection:
        arrival = await self._insist(
          lambda c: c.files.with_raw_response.content(file_id),
          _RESULTS,
          connection,
        )
    except Refused as e:
      if e.status == 404:
        return ''
      raise
    return arrival.text

  async def _insist(
    self, call: Call, what: str, connection: Connection | None = None
  ) -> Arrival:
    """A whole response to what costs nothing to send again.

    Raises:
      TeacherError: the server does not offer it, or fails too often.
    """
    arrival = Arrival()
    for failures in range(1, 1 + self._settings.max_attempts):
      arrival = await (connection or self.connection).exchange(call)
      if arrival.is_whole:
        return arrival
      await self._require_passing(arrival, what)
      await self.pause(failures, arrival)
    raise self._failed(arrival, what)

  async def _require_passing(self, arrival: Arrival, what: str) -> None:
    """Raises what will not change."""
    if arrival.fatal is not None:
      raise arrival.fatal
    if arrival.reply is not None:
      raise TeacherError(
        f'{self._settings.base_url} answers to {what} as to a chat. Correct '
        'teacher.base_url.'
      )
    refusal = arrival.refusal
    if refusal is None or (refusal.may_pass() and refusal.status != 501):
      return
    said = self.connection.clean(refusal.message)
    if refusal.status in (404, 405, 501) and what != _RESULTS:
      error = self._not_offered(f'{what}: {refusal.status} {said}')
    else:
      error = await openai_calls.final(
        refusal, what, self._teacher, self.connection
      )
    raise Refused(str(error), refusal.status)

  def _failed(self, arrival: Arrival, what: str) -> TeacherError:
    return TeacherError(
      f'{self._settings.base_url} failed {self._settings.max_attempts} times '
      f'for {what}, last: {self.words(arrival)}. Start again to go on; what '
      'was answered is stored, and a batch that is under way is found again. '
      'teacher.max_attempts allows more.'
    )

  def words(self, arrival: Arrival) -> str:
    """What went wrong, on a line that can be shown."""
    refusal = arrival.refusal
    if refusal is None:
      return self.connection.clean(arrival.failure)
    return self.connection.clean(f'{refusal.status} {refusal.message}')

  async def pause(self, failures: int, arrival: Arrival | None = None) -> None:
    """Waits as long as the server asks, or longer with each failure."""
    s = self._settings
    told = rate_limits.retry_after_seconds(arrival.headers) if arrival else 0.0
    grown = min(s.max_backoff_seconds, s.first_backoff_seconds * 2**failures)
    await asyncio.sleep(min(max(told or 0.0, grown), s.max_retry_after_seconds))
