"""The calls of one `ask` to an HTTP teacher: many at once, each accounted for.

What the `openai` client must not decide alone: when to try again, what a call
may cost, what a refusal means. Its own retries are off.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
import json
import random
from typing import Any

from absl import logging

from ioa_jax.teachers import chat, rate_limits
from ioa_jax.teachers.ledger import BudgetExceeded
from ioa_jax.teachers.requests import (
  Completion,
  Request,
  worst_case_prompt_tokens,
)

try:
  import openai
except ImportError as e:
  raise ImportError(
    "An HTTP teacher needs the openai client: pip install 'ioa_jax[http]'."
  ) from e

_RETRIED = (408, 409, 429)  # and 5xx
# A gateway gave up on a server that may have gone on, and charged.
_MAYBE_CHARGED = (408, 502, 504, 524)


class TeacherError(ValueError):
  """The server cannot be used as configured; one line with the remedy."""


class _Stopped(Exception):
  """Another call ended the job."""


class Job:
  """One `ask`: a queue, workers, and the first error."""

  def __init__(self, teacher, account, requests, model):
    self.error: Exception | None = None
    self._teacher = teacher
    self._settings = teacher.settings
    self._account = account
    self._queue: Iterator[Request] = iter(requests)
    self._model = model
    self._key = teacher.api_key()
    self._under_way = 0

  async def run(self) -> None:
    s = self._settings
    self._stop = asyncio.Event()
    self._settled = asyncio.Event()
    async with openai.AsyncOpenAI(
      api_key=self._key,
      base_url=s.base_url,
      max_retries=0,
      timeout=openai.Timeout(
        s.timeout_seconds, connect=s.connect_timeout_seconds
      ),
    ) as self._client:
      await asyncio.gather(*(self._work() for _ in range(s.max_concurrency)))

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
      call, answer, why = await self._call(request, repair)
      again = left and answer.finish_reason in ('empty', 'schema')
      if not again:
        self._account.settle(call, request, answer)
        self._has_settled()
        return
      self._account.reject(call, answer, why or 'empty')
      self._has_settled()
      logging.info('%s: %s answer, asked again.', request.describe(),
                   answer.finish_reason)  # fmt: skip
      repair = []
      if answer.finish_reason == 'schema':
        repair = chat.repair_turns(
          answer.discarded, why, request.response_schema
        )

  async def _call(self, request, repair) -> tuple[int, Completion, str]:
    """One paid reply: its reserved call, the answer, why it does not fit."""
    prompt_tokens = worst_case_prompt_tokens(request, repair)
    # Servers count four characters as a token, and all that may be written.
    estimate = prompt_tokens / 4 + request.max_tokens
    failures = 0
    while True:
      while (wait := self._teacher.limiter.try_acquire(estimate)) > 0:
        await self._pause(wait)
      headers: Any = {}
      try:
        call = await self._reserve(request, prompt_tokens)
        failure, reply, headers = await self._send(request, repair, call)
      finally:
        self._teacher.limiter.finish(estimate, headers)
      if reply is not None:
        return call, *chat.completion(
          reply, worst_prompt_tokens=prompt_tokens,
          max_tokens=request.max_tokens, response_model=self._model,
        )  # fmt: skip
      if failure is None:
        continue  # A narrower dialect is tried at once.
      failures += 1
      if failures >= self._settings.max_attempts:
        raise TeacherError(
          f'{self._settings.base_url} failed {failures} times for '
          f'{request.describe()}, last: {failure}. Start again to go on; what '
          'was answered is stored. teacher.max_attempts allows more.'
        )
      await self._back_off(failures, failure, headers)

  async def _send(self, request, repair, call):
    """Sends once; (failure worth another attempt, reply, headers)."""
    dialect = self._teacher.dialect
    body = chat.body(request, dialect, repair)
    create = self._client.chat.completions.with_raw_response.create
    headers: Any = {}
    try:
      async with asyncio.timeout(self._settings.timeout_seconds):
        raw = await create(**body)
      headers = raw.headers
      self._teacher.connected = True
      return None, chat.parse(self._without_key(raw.content)), headers
    except openai.APIStatusError as e:
      self._teacher.connected = True
      code, headers = e.status_code, e.response.headers
      if e.code == 'content_filter':
        return None, _filtered(), headers
      self._over(call, f'{code}' if code in _MAYBE_CHARGED else '')
      if (code in _RETRIED or code >= 500) and e.code != 'insufficient_quota':
        return f'{code} {self._clean(e.message)}', None, headers
      if code in (400, 422) and self._narrow(dialect, e):
        return None, None, headers
      raise await self._refusal(e, request) from None
    except openai.APIConnectionError as e:
      cause = e.__cause__ or e
      reached = type(cause).__name__ not in ('ConnectError', 'ConnectTimeout')
      what = self._clean(f'{type(cause).__name__} {cause}')
      self._over(call, what if reached else '')
      if not reached and not self._teacher.connected:
        raise TeacherError(
          f'{self._settings.base_url} cannot be reached ({what}). Start the '
          'server or correct teacher.base_url.'
        ) from None
      return f'connection: {what}', None, headers
    except TimeoutError:
      what = f'no whole answer in {self._settings.timeout_seconds:g} s'
      self._over(call, what)
      return what, None, headers
    except chat.DamagedReply as e:
      # Its beginning, for whoever wants to know what came instead.
      self._over(call, f'{e}: {self._clean(raw.text)}')
      return str(e), None, headers

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

  def _over(self, call, maybe_charged_because):
    """Ends a call without an answer."""
    if maybe_charged_because:
      self._account.lose(call, maybe_charged_because)
    else:
      self._account.release(call)
    self._has_settled()

  def _has_settled(self):
    self._under_way -= 1
    self._settled.set()
    self._settled = asyncio.Event()

  def _narrow(self, sent, e):
    """Whether a parameter was refused that can be left out."""
    narrower = sent.narrowed(str(e.param or ''), e.message)
    if narrower is None:
      return False
    if self._teacher.dialect == sent:  # Else another call found it out.
      logging.warning('%s refuses a parameter, sent without from now on: %s',
                      self._teacher.name, self._clean(e.message))  # fmt: skip
      self._teacher.dialect = narrower
    return True

  async def _back_off(self, failures, failure, headers):
    s = self._settings
    cap = min(
      s.max_backoff_seconds, s.first_backoff_seconds * 2 ** (failures - 1)
    )
    wait = random.uniform(0, cap)
    told = rate_limits.retry_after_seconds(headers)
    if told is not None:
      if told > s.max_retry_after_seconds:
        raise TeacherError(
          f'{s.base_url} asks to wait {told:.0f} s ({failure}), longer than '
          'teacher.max_retry_after_seconds. Start again later; what was '
          'answered is stored.'
        )
      # It holds for everyone, and the jitter keeps us from coming back as one.
      self._teacher.limiter.pause(told)
      wait += told
    logging.info(
      '%s: attempt %d of %d failed (%s), again in %.1f s.',
      self._teacher.name, failures, s.max_attempts, failure, wait,
    )  # fmt: skip
    await self._pause(wait)

  async def _pause(self, seconds):
    try:
      async with asyncio.timeout(seconds):
        await self._stop.wait()
    except TimeoutError:
      return
    raise _Stopped

  async def _refusal(self, e, request) -> TeacherError:
    """What a status that will not change means, and what to do about it."""
    s, name, code = self._settings, self._teacher.name, e.status_code
    said = self._clean(e.message)
    key = (
      f'the key in ${s.api_key_env}' if s.api_key_env else 'a call without key'
    )
    if code == 401:
      # The server's words are left out: some quote the key.
      return TeacherError(
        f'{s.base_url} refuses {key} (401). Put a valid key into the '
        'environment variable that teacher.api_key_env names.'
      )
    if code == 403:
      return TeacherError(
        f'{s.base_url} does not let {key} use {name!r} (403: {said}). Ask for '
        'access, or choose another teacher.model.'
      )
    if code == 404:
      return TeacherError(
        f'{s.base_url} does not know the model {name!r}, or the address lacks '
        f'its version path such as /v1 (404: {said}). {await self._served()}'
      )
    if code == 429:
      return TeacherError(
        f'{s.base_url}: the quota of {key} is used up ({said}). Add credit and '
        'start again; what was answered is stored.'
      )
    return TeacherError(
      f'{s.base_url} refuses {request.describe()} ({code}: {said}). Correct '
      'the request or the teacher settings; what was answered is stored.'
    )

  async def _served(self) -> str:
    try:
      models = await self._client.models.list(timeout=5.0)
      names = sorted(m.id for m in models.data)
    except (openai.OpenAIError, AttributeError, TypeError):
      names = []
    if not names:
      return 'Correct teacher.model or teacher.base_url.'
    return f'It serves {", ".join(names[:5])}; correct teacher.model.'

  def _clean(self, text: str) -> str:
    """One short line that cannot hold the key."""
    text = self._without_key(text.encode()).decode()
    return ' '.join(text.split())[:300]

  def _without_key(self, content: bytes) -> bytes:
    """A server may send back what it was sent; the ledger must not keep it."""
    if not self._settings.api_key_env:
      return content
    return content.replace(self._key.encode(), b'[key]')


def _filtered() -> chat.Reply:
  """Azure refuses a prompt with a 400, unpaid; elsewhere it is an ending."""
  return chat.Reply.model_validate_json(json.dumps({
    'choices': [{'message': {}, 'finish_reason': 'content_filter'}],
    'usage': {'prompt_tokens': 0, 'completion_tokens': 0},
  }))  # fmt: skip
