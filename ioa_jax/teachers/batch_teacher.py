"""A served teacher that is asked in batches where that is wanted."""

from __future__ import annotations

from collections.abc import Sequence
import functools
from typing import Literal

import pydantic

from ioa_jax.teachers import openai_http
from ioa_jax.teachers.account import Account
from ioa_jax.teachers.batch_calls import BatchJob
from ioa_jax.teachers.batch_server import BatchServer
from ioa_jax.teachers.requests import Request

_POLL_SECONDS = 30.0


class BatchTeacher:
  """Asks at once, or in batches for less.

  Args:
    direct: asks at once, and knows the server.
    which: requests go into batches; 'lessons' are those of an account
      `for_lessons`. What an earlier start has in a batch is waited for in any
      case, since it is paid for.
  """

  def __init__(
    self,
    direct: openai_http.OpenAITeacher,
    which: Literal['never', 'lessons', 'all'],
    *,
    poll_seconds: float = _POLL_SECONDS,
  ):
    self.name = direct.name
    self._direct = direct
    self._which = which
    self._poll_seconds = poll_seconds
    self._is_offered = which == 'never'

  def answer(
    self,
    requests: Sequence[Request],
    account: Account,
    response_model: type[pydantic.BaseModel] | None,
  ) -> None:
    """As `Teacher.answer`.

    Raises:
      KeyboardInterrupt: a signal ended the wait for a batch, which goes on; so
        does whoever asks for the same again.
      TeacherError: as `OpenAITeacher.answer`; also, before anything is paid,
        if the server offers no batches.
    """
    if not self._is_offered:
      openai_http.run(self._require_offer)
      self._is_offered = True
    wanted = self._which == 'all' or (
      self._which == 'lessons' and account.for_lessons
    )
    # Servers score texts at once and not in batches.
    scored = [r for r in requests if r.score]
    left = requests = [r for r in requests if not r.score]
    if scored:
      self._direct.answer(scored, account, response_model)
    if not requests:
      return
    if wanted or account.batches.under_way():
      job = BatchJob(
        self._direct,
        account.in_batches(),
        requests,
        response_model,
        self._poll_seconds,
      )
      openai_http.run(functools.partial(job.run, begin=wanted), job.interrupt)
      left = job.left()
    if left:
      self._direct.answer(left, account, response_model)

  async def _require_offer(self) -> None:
    async with BatchServer(self._direct) as server:
      await server.require_offer()
