"""The calls of one `answer` of an HTTP teacher: many at once, each accounted.

When to try again, what a refusal means, what a call may cost.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Sequence
import datetime
import functools
import random

from absl import logging
import pydantic

from ioa_jax.teachers import chat, rate_limits, replies
from ioa_jax.teachers.account import Account
from ioa_jax.teachers.connection import Arrival, Connection, TeacherError
from ioa_jax.teachers.ledger import BudgetExceeded
from ioa_jax.teachers.refusals import Refusal
from ioa_jax.teachers.requests import Request, worst_case_prompt_tokens

# Of longer waits it is said when they end.
_SILENT_SECONDS = 30.0


class _Stopped(Exception):
  """Another call ended the job."""


class Job:
  """A queue, workers, and the first error.

  Args:
    teacher: an `openai_http.OpenAITeacher`.
  """

  def __init__(
    self,
    teacher,
    account: Account,
    requests: Sequence[Request],
    model: type[pydantic.BaseModel] | None,
  ):
    self.error: Exception | None = None
    self._teacher = teacher
    self._settings = teacher.settings
    self._account = account
    self._queue: Iterator[Request] = iter(requests)
    self._model = model
    self._under_way = 0
    self._said_until = 0.0

  async def run(self) -> None:
    self._stop = asyncio.Event()
    self._settled = asyncio.Event()
    key = self._teacher.api_key()
    async with Connection(self._settings, key) as self._connection:
      workers = range(self._settings.max_concurrency)
      await asyncio.gather(*(self._work() for _ in workers))

  async def _work(self):
    """Answers requests until none is left or the job is stopped.

    After an error the other workers still receive and store what is on its
    way: it is paid for.
    """
    try:
      while not self._stop.is_set():
        request = next(self._queue, None)
        if request is None:
          return
        await self._answer(request)
    except _Stopped:
      pass
    except Exception as e:
      e.__context__ = None  # The client's exception holds the headers.
      self.error = self.error or e
      self._stop.set()
      self._settled.set()  # Nobody waits for what will not come.

  async def _answer(self, request: Request) -> None:
    """Stores an answer or an outcome."""
    repair: list[dict[str, str]] = []
    for left in reversed(range(1 + self._settings.max_regenerations)):
      prompt_tokens = worst_case_prompt_tokens(request, repair)
      call, reply = await self._call(request, repair, prompt_tokens)
      answer, why, estimated = replies.completion(
        reply, request, prompt_tokens, self._model
      )
      if estimated:
        self._teacher.say_once(
          f'its usage cannot be counted by ({estimated}). Where a number is '
          'missing or impossible, tokens are counted as bytes, which is more.'
        )
      again = left and answer.finish_reason in ('empty', 'schema')
      if not again:
        self._account.settle(call, request, answer)
        self._has_settled()
        return
      self._account.reject(call, answer, why or 'empty')
      self._has_settled()
      logging.info(
        '%s: %s answer, asked again.', request.describe(), answer.finish_reason
      )
      repair = []
      if answer.finish_reason == 'schema' and reply.text:
        repair = chat.repair_turns(
          answer.discarded, why, request.response_schema
        )

  async def _call(self, request, repair, prompt_tokens):
    """One paid reply and its reserved call."""
    failures, dialect = 0, self._teacher.dialect
    while True:
      body = chat.body(request, dialect, repair)
      send = functools.partial(self._connection.send, body)
      arrival, call = await self._sent(request, prompt_tokens, send)
      if arrival.reply is not None:
        self._teacher.accepts(dialect)
        return call, arrival.reply
      self._over(call, arrival.maybe_charged)
      if arrival.fatal is not None:
        raise arrival.fatal
      if arrival.refusal is not None:
        narrower = dialect.narrowed(arrival.refusal, request)
        if narrower is not None:
          if narrower.is_guess:
            logging.info('%s: tried without a schema.', request.describe())
          else:
            self._teacher.refuses(
              dialect, narrower, self._connection.clean(arrival.refusal.message)
            )
          dialect = narrower
          continue
      if arrival.refusal is not None and not arrival.refusal.may_pass():
        raise await final(
          arrival.refusal,
          request.describe(),
          self._teacher,
          self._connection,
        )
      failures += 1
      # A guess that brought no answer is not held on to.
      dialect = self._teacher.dialect
      await self._back_off(failures, arrival, request)

  async def _sent(
    self,
    request: Request,
    prompt_tokens: int,
    send: Callable[[], Awaitable[Arrival]],
  ) -> tuple[Arrival, int]:
    """What came of sending once, and the call that was reserved for it."""
    # Servers count four characters as a token, and all that may be written;
    # of a text to be scored the tokens are known.
    estimate = prompt_tokens / (1 if request.score else 4) + request.max_tokens
    limiter = self._teacher.limiter
    while (wait := limiter.try_acquire(estimate)) > 0:
      told = limiter.told_seconds(estimate)
      if told > self._settings.max_retry_after_seconds:
        raise _too_long(self._settings, told, 'its limit is used up until then')
      await self._pause(wait)
    arrival = Arrival()
    try:
      call = await self._reserve(request, prompt_tokens)
      arrival = await send()
    finally:
      limiter.finish(estimate, arrival.headers)
    return arrival, call

  async def _reserve(self, request, prompt_tokens):
    """Counts the call's worst case, waiting for others to turn out cheaper."""
    while True:
      if self._stop.is_set():
        raise _Stopped
      settled = self._settled
      try:
        call = self._account.reserve(request, prompt_tokens)
      except BudgetExceeded:
        if not self._under_way:
          raise
        await settled.wait()
      else:
        self._under_way += 1
        return call

  def _over(self, call, maybe_charged):
    """Ends a call without an answer."""
    if maybe_charged:
      self._account.lose(call, maybe_charged)
    else:
      self._account.release(call)
    self._has_settled()

  def _has_settled(self):
    self._under_way -= 1
    self._settled.set()
    self._settled = asyncio.Event()

  async def _back_off(self, failures, arrival, request):
    s, refusal = self._settings, arrival.refusal
    failure = arrival.failure
    if refusal is not None:
      failure = f'{refusal.status} {self._connection.clean(refusal.message)}'
    told = rate_limits.retry_after_seconds(arrival.headers)
    if told is not None and told > s.max_retry_after_seconds:
      raise _too_long(s, told, failure)
    if failures >= s.max_attempts:
      raise TeacherError(
        f'{s.base_url} failed {failures} times for {request.describe()}, last: '
        f'{failure}. Start again to go on; what was answered is stored. '
        'teacher.max_attempts allows more.'
      )
    grown = s.first_backoff_seconds * 2 ** (failures - 1)
    wait = random.uniform(0, min(s.max_backoff_seconds, grown))
    if told is not None:
      # It holds for everyone, and the jitter keeps us from coming back as one.
      self._teacher.limiter.pause(told)
      wait += told
    logging.info(
      '%s: attempt %d of %d failed (%s), again in %.1f s.',
      self._teacher.name,
      failures,
      s.max_attempts,
      failure,
      wait,
    )
    await self._pause(wait)

  async def _pause(self, seconds):
    now = asyncio.get_running_loop().time()
    if seconds > _SILENT_SECONDS and now + seconds > self._said_until + 1:
      self._said_until = now + seconds
      logging.warning(
        '%s: nothing is sent until %s (%.0f s), as its limits want it.',
        self._teacher.name,
        _clock(seconds),
        seconds,
      )
    try:
      async with asyncio.timeout(seconds):
        await self._stop.wait()
    except TimeoutError:
      return
    raise _Stopped


def _too_long(settings, seconds: float, why: str) -> TeacherError:
  return TeacherError(
    f'{settings.base_url} asks to wait {seconds:.0f} s, until '
    f'{_clock(seconds)} ({why}), longer than teacher.max_retry_after_seconds '
    f'({settings.max_retry_after_seconds:g}). Start again later; what was '
    'answered is stored.'
  )


async def final(
  refusal: Refusal, what: str, teacher, connection: Connection
) -> TeacherError:
  """What a refusal that will not change means, and what to do about it.

  Args:
    what: was sent, for people.
    teacher: an `openai_http.OpenAITeacher`.
  """
  s, name, code = teacher.settings, teacher.name, refusal.status
  said = connection.clean(refusal.message)
  key = (
    f'the key in ${s.api_key_env}' if s.api_key_env else 'a call without key'
  )
  if code == 401:
    # The server's words are left out: some quote a part of the key.
    return TeacherError(
      f'{s.base_url} refuses {key} (401). Put a valid key into the '
      'environment variable that teacher.api_key_env names.'
    )
  if refusal.is_used_up():
    return TeacherError(
      f'{s.base_url}: the quota of {key} is used up ({code}: {said}). Add '
      'credit and start again; what was answered is stored.'
    )
  if code == 403:
    return TeacherError(
      f'{s.base_url} does not let {key} use {name!r} (403: {said}). Ask for '
      'access, or choose another teacher.model.'
    )
  if code == 404:
    return TeacherError(
      f'{s.base_url} does not know the model {name!r}, or the address lacks '
      'its version path such as /v1 '
      f'(404: {said}). {await connection.served()}'
    )
  return TeacherError(
    f'{s.base_url} refuses {what} ({code}: {said}). Correct '
    'the request or the teacher settings; what was answered is stored.'
  )


def _clock(seconds: float) -> str:
  """When a wait of so long ends, in the machine's own time."""
  # A server may say anything; the calendar ends.
  end = datetime.datetime.now() + datetime.timedelta(seconds=min(seconds, 1e9))
  return f'{end:%Y-%m-%d %H:%M:%S}'
