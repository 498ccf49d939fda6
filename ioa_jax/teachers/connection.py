"""One call to an OpenAI-compatible server, and what came of it.

The `openai` client sends. Its own retries are off, its HTTP client is bounded,
and whatever happens comes back as a value.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
import dataclasses
from typing import Any

from ioa_jax.teachers import http_client, refusals, replies
from ioa_jax.teachers.redaction import Redaction
from ioa_jax.teachers.refusals import Refusal
from ioa_jax.teachers.replies import Reply

try:
  import openai
except ImportError as e:
  raise ImportError(
    "An HTTP teacher needs the openai client: pip install 'ioa_jax[http]'."
  ) from e

_SHOWN_CHARS = 300


class TeacherError(ValueError):
  """The server cannot be used as configured; one line with the remedy."""


@dataclasses.dataclass(frozen=True)
class Arrival:
  """What came of a call: one of `reply`, `refusal`, `failure`, `fatal`.

  Attributes:
    text: the body of a response of status 200, without the key.
    failure: what broke, and may work another time.
    fatal: what will not change, with the remedy.
    maybe_charged: why the server may charge it, though nothing arrived.
  """

  headers: Mapping[str, str] = dataclasses.field(default_factory=dict)
  text: str = ''
  reply: Reply | None = None
  refusal: Refusal | None = None
  failure: str = ''
  fatal: TeacherError | None = None
  maybe_charged: str = ''

  @property
  def is_whole(self) -> bool:
    """Whether `text` is what was asked for, as far as the status says."""
    return not (self.reply or self.refusal or self.failure or self.fatal)


class Connection:
  """Used as an asynchronous context.

  Args:
    settings: see `openai_http.Settings`.
    key: sent, and taken out of everything that comes back.
  """

  def __init__(self, settings: Any, key: str):
    self._settings = settings
    self._redact = Redaction(key)
    self._answered = False
    self._client = openai.AsyncOpenAI(
      api_key=key,
      base_url=settings.base_url,
      max_retries=0,
      http_client=http_client.BoundedClient(
        settings.base_url,
        settings.max_reply_bytes,
        settings.connect_timeout_seconds,
      ),
    )

  async def __aenter__(self) -> Connection:
    return self

  async def __aexit__(self, *exception) -> None:
    await self._client.close()

  async def send(self, body: dict[str, Any]) -> Arrival:
    """Asks for a chat completion, once."""
    arrival = await self.exchange(
      lambda c: c.chat.completions.with_raw_response.create(**body)
    )
    if not arrival.is_whole:
      return arrival
    return self.read(arrival.text, arrival.headers)

  async def exchange(
    self, call: Callable[[openai.AsyncOpenAI], Awaitable[Any]]
  ) -> Arrival:
    """Calls once; raises nothing of the server's making.

    Args:
      call: of the client, one of those `with_raw_response`.
    """
    limit = self._settings.timeout_seconds
    try:
      async with asyncio.timeout(limit):
        raw = await call(self._client)
    except openai.APIStatusError as e:
      self._answered = True
      text = self._redact(replies.decode(e.response.content))
      refusal = refusals.read(e.status_code, text)
      return _refused(refusal, e.response.headers)
    except TimeoutError:
      what = f'no whole answer in {limit:g} s'
      return Arrival(failure=what, maybe_charged=what)
    except (openai.APIConnectionError, http_client.HttpError) as e:
      return self._broken(e.__cause__ or e)
    self._answered = True
    return Arrival(raw.headers, self._redact(replies.decode(raw.content)))

  def read(
    self, text: str, headers: Mapping[str, str], status: int = 200
  ) -> Arrival:
    """The body of a completion: an answer, an error, or neither."""
    if status != 200:
      return _refused(refusals.read(status, text), headers)
    try:
      value = replies.load(text)
      refusal = refusals.inside(value)
      if refusal is not None:
        return _refused(refusal, headers)
      return Arrival(headers, reply=replies.read(value))
    except replies.DamagedReply as e:
      # Its beginning, for whoever wants to know what came instead.
      charged = f'{e}: {self.clean(text)}'
      return Arrival(headers, failure=self.clean(str(e)), maybe_charged=charged)

  def _broken(self, cause: BaseException) -> Arrival:
    s = self._settings
    what = self.clean(f'{type(cause).__name__} {cause}')
    if isinstance(cause, http_client.SentElsewhere):
      fatal = TeacherError(
        f'{s.base_url}: {self.clean(str(cause))}. Nothing is sent there; '
        'correct teacher.base_url.'
      )
      return Arrival(fatal=fatal)
    if isinstance(cause, http_client.TooLarge):
      fatal = TeacherError(
        f'{s.base_url} sends {cause}, which no answer is. Correct '
        'teacher.base_url, or raise teacher.max_reply_bytes.'
      )
      return Arrival(fatal=fatal, maybe_charged=what)
    if type(cause).__name__ not in ('ConnectError', 'ConnectTimeout'):
      return Arrival(failure=f'connection: {what}', maybe_charged=what)
    if self._answered:
      return Arrival(failure=f'connection: {what}')
    fatal = TeacherError(
      f'{s.base_url} cannot be reached ({what}). Start the server or correct '
      'teacher.base_url.'
    )
    return Arrival(fatal=fatal)

  async def served(self) -> str:
    """A sentence on the models that the server has, for who asked in vain."""
    try:
      async with asyncio.timeout(5):
        raw = await self._client.models.with_raw_response.list()
      value = replies.load(self._redact(replies.decode(raw.content)))
      names = sorted(str(m['id']) for m in value['data'])
    except (
      openai.OpenAIError,
      http_client.HttpError,
      TimeoutError,
      ValueError,
      KeyError,
      TypeError,
    ):
      names = []
    if not names:
      return 'Correct teacher.model or teacher.base_url.'
    shown = self.clean(', '.join(names[:5]))
    return f'It serves {shown}; correct teacher.model.'

  def clean(self, text: str) -> str:
    """One short line without the key and without what steers a terminal."""
    text = self._redact(text)
    printable = ''.join(c if c.isprintable() else ' ' for c in text[:2000])
    return ' '.join(printable.split())[:_SHOWN_CHARS].rstrip('.')


def _refused(refusal: Refusal, headers: Mapping[str, str]) -> Arrival:
  """An error; some of them are answers."""
  if refusal.is_filter():
    # Azure refuses a prompt with a 400, unpaid; elsewhere it is an ending.
    return Arrival(headers, reply=Reply(finish='content_filter', unpaid=True))
  if refusal.is_unfit():
    # The model was asked and may be paid; what it wrote may do all the same.
    reply = Reply(text=refusal.generated, unfit=refusal.message)
    return Arrival(headers, reply=reply)
  charged = f'{refusal.status}' if refusal.maybe_charged() else ''
  return Arrival(headers, refusal=refusal, maybe_charged=charged)
