"""A teacher behind an OpenAI-compatible server: o1, DeepSeek, vLLM, llama.cpp.

The `openai` client sends; what it must not decide alone is here: how many calls
at once, when to try again, what a call may cost, what counts as an answer.
Every paid call is in the ledger before its answer is used.

The key is read from the environment when it is needed and kept nowhere.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
import concurrent.futures
import dataclasses
import math
import os
import re
from typing import Any
import urllib.parse

from absl import logging
import httpx2
import pydantic

from ioa_jax.teachers import (
  chat,
  http_client,
  openai_calls,
  rate_limits,
  scoring,
  scoring_calls,
)
from ioa_jax.teachers.account import Account
from ioa_jax.teachers.connection import TeacherError
from ioa_jax.teachers.requests import Request

_FEWEST = {
  'max_concurrency': 1,
  'max_attempts': 1,
  'max_regenerations': 0,
  'max_reply_bytes': 1024,
  'timeout_seconds': 1e-3,
  'connect_timeout_seconds': 1e-3,
  'first_backoff_seconds': 0,
  'max_backoff_seconds': 0,
  'max_retry_after_seconds': 0,
  'requests_per_minute': 1e-3,
  'tokens_per_minute': 1,
}


@dataclasses.dataclass(frozen=True)
class Settings:
  """How to reach a server and how hard to press it.

  Attributes:
    base_url: with its version path, as in 'http://127.0.0.1:8000/v1'.
    api_key_env: name of the environment variable with the key; '' sends none.
    timeout_seconds: of one whole answer, however slowly its bytes come.
    max_attempts: of one call, on 408, 409, 429, 5xx and broken connections.
    first_backoff_seconds: doubled by each attempt, with full jitter.
    max_retry_after_seconds: a server that asks for more ends the job.
    requests_per_minute, tokens_per_minute: None leaves it to the server.
    max_regenerations: further answers after one that is empty or does not fit
      its schema.
    max_reply_bytes: of a response, unpacked.
  """

  base_url: str
  api_key_env: str = 'OPENAI_API_KEY'
  max_concurrency: int = 16
  requests_per_minute: float | None = None
  tokens_per_minute: float | None = None
  timeout_seconds: float = 600.0
  connect_timeout_seconds: float = 10.0
  max_attempts: int = 8
  first_backoff_seconds: float = 0.5
  max_backoff_seconds: float = 60.0
  max_retry_after_seconds: float = 600.0
  max_regenerations: int = 2
  max_reply_bytes: int = 16 * 2**20

  def __post_init__(self):
    _check_address(self.base_url)
    if self.api_key_env and not re.fullmatch(r'[A-Za-z_]\w*', self.api_key_env):
      raise TeacherError(
        'teacher.api_key_env is not the name of an environment variable. Put '
        'the key into one and its name here; a key itself must never stand in '
        'a config.'
      )
    for name, fewest in _FEWEST.items():
      value = getattr(self, name)
      if value is not None and not fewest <= value < math.inf:
        raise TeacherError(
          f'teacher.{name} is {value}, wanted a finite number >= {fewest}.'
        )


def _check_address(base_url: str) -> None:
  # Not shown: what is wrong with it may be a secret.
  wanted = 'wanted something like http://127.0.0.1:8000/v1.'
  try:
    url = urllib.parse.urlsplit(base_url)
    # A property that is checked when it is read.
    valid = url.scheme in ('http', 'https') and url.hostname and url.port != 0
    valid = valid and base_url.isprintable() and ' ' not in base_url
    httpx2.URL(base_url)
  except (ValueError, httpx2.InvalidURL):
    raise TeacherError(
      f'teacher.base_url cannot be read, its port or host is no valid one; '
      f'{wanted}'
    ) from None
  if not valid:
    raise TeacherError(f'teacher.base_url is not an http(s) address; {wanted}')
  if url.username or url.password or url.query or url.fragment:
    raise TeacherError(
      'teacher.base_url must not carry a user, a password, a query or a '
      'fragment: it is written to config.json. Keys come from the environment '
      'only; name the variable in teacher.api_key_env.'
    )


class OpenAITeacher:
  """Answers requests over HTTP, many at a time, each through the ledger.

  Args:
    name: the model, as the server calls it.

  Raises:
    TeacherError: if the environment variable of the key is not set.
  """

  def __init__(self, name: str, settings: Settings):
    self.name = name
    self.settings = settings
    self.dialect = chat.Dialect.of(name)
    self.limiter = rate_limits.RateLimiter(
      settings.requests_per_minute,
      settings.tokens_per_minute,
      max_wait_seconds=settings.max_retry_after_seconds,
    )
    # How it scores texts, once that is known.
    self.scoring: scoring.Way | None = None
    self._said: set[str] = set()
    # Fail now rather than after an hour's preparation.
    self.api_key()
    try:
      http_client.BoundedClient(settings.base_url, 0, 1.0)
    except ValueError as e:
      raise TeacherError(f'{settings.base_url}: {e}') from None

  def api_key(self) -> str:
    variable = self.settings.api_key_env
    if not variable:
      return (
        'none'  # The client wants something; servers without keys ignore it.
      )
    key = os.environ.get(variable, '').strip()
    if not key:
      raise TeacherError(
        f'the environment variable {variable} is not set. It must hold the key '
        f'for {self.settings.base_url}; teacher.api_key_env names another, or '
        "'' for a server without keys."
      )
    if not (key.isascii() and key.isprintable()) or ' ' in key:
      raise TeacherError(
        f'the environment variable {variable} holds something that cannot be '
        'sent as a key (spaces or special characters). Set it again.'
      )
    return key

  def say_once(self, what: str) -> None:
    if what not in self._said:
      self._said.add(what)
      logging.warning('%s: %s', self.name, what)

  def refuses(self, sent: chat.Dialect, narrower: chat.Dialect, said: str):
    """A parameter is left out from now on, as a server's words want it."""
    if self.dialect == sent:  # Else another call found it out.
      logging.warning(
        '%s refuses a parameter, sent without from now on: %s', self.name, said
      )
      self.dialect = narrower

  def accepts(self, sent: chat.Dialect) -> None:
    """A guess at what a server refuses was right."""
    if sent.is_guess and self.dialect.json_schema:
      self.dialect = dataclasses.replace(self.dialect, json_schema=False)
      logging.warning(
        '%s refuses the schema, which stands in the prompt from now on.',
        self.name,
      )

  def answer(
    self,
    requests: Sequence[Request],
    account: Account,
    response_model: type[pydantic.BaseModel] | None,
  ) -> None:
    """As `Teacher.answer`, `max_concurrency` requests at once.

    Raises:
      BudgetExceeded: before the call that could cross the budget.
      TeacherError: the server refuses us or fails too often. In both cases
        everything that was answered is stored.
    """
    kinds = ((openai_calls.Job, False), (scoring_calls.ScoringJob, True))
    for kind, scores in kinds:
      mine = [r for r in requests if bool(r.score) == scores]
      if mine:
        job = kind(self, account, mine, response_model)
        run(job.run)
        if job.error is not None:
          raise job.error


def run(
  coroutine: Callable[[], Any], interrupt: Callable[[], None] = lambda: None
) -> None:
  """`asyncio.run`, also where a loop runs already, as in a notebook.

  Args:
    interrupt: ends it early, from another thread.
  """
  try:
    asyncio.get_running_loop()
  except RuntimeError:
    asyncio.run(coroutine())
    return
  with concurrent.futures.ThreadPoolExecutor(1) as executor:
    pending = executor.submit(lambda: asyncio.run(coroutine()))
    try:
      pending.result()
    except BaseException:
      interrupt()
      raise
