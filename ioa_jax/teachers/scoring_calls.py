"""The calls of one `answer` that has texts scored, each of them accounted."""

from __future__ import annotations

import asyncio
import re

from absl import logging
import httpx2

from ioa_jax.teachers import openai_calls, refusals, replies, scoring
from ioa_jax.teachers.connection import Arrival, TeacherError
from ioa_jax.teachers.requests import Completion, Request

# vLLM: "Requested prompt logprobs of 64, which is greater than max allowed: 20"
_TOO_MANY = re.compile(
  r'logprobs?.*(greater|exceed|at most|less than|max|limit|range)'
)
# What servers say to what they do not have.
_UNKNOWN = (400, 404, 405, 422, 501)


class ScoringJob(openai_calls.Job):
  """As `Job`, of requests with `score`.

  The first one finds out which protocol the server has; the others wait.
  """

  async def run(self) -> None:
    self._finding = asyncio.Lock()
    await super().run()

  async def _answer(self, request: Request) -> None:
    teacher = self._teacher
    if teacher.scoring is None:
      async with self._finding:
        if self._stop.is_set():
          return
        if teacher.scoring is None:
          await self._find(request)
          return
    if why := await self._score(request, teacher.scoring):
      raise _not_offered(self._settings, [why])

  async def _find(self, request: Request) -> None:
    """Scores a text by the first protocol that the server has."""
    tried = []
    for way in scoring.WAYS:
      why = await self._score(request, way)
      if not why:
        self._teacher.scoring = way
        logging.info(
          '%s scores texts as %s does.', self._teacher.name, way.name
        )
        return
      tried.append(why)
    raise _not_offered(self._settings, tried)

  async def _score(self, request: Request, way: scoring.Way) -> str:
    """Stores what comes of a text; else why this way is not the server's."""
    url = way.url(self._settings.base_url)
    send = lambda: self._connection.exchange(
      lambda client: client.post(
        url, body=way.body(request), cast_to=httpx2.Response
      )
    )
    failures, prompt_tokens = 0, len(scoring.tokens(request))
    while True:
      arrival, call = await self._sent(request, prompt_tokens, send)
      if arrival.is_whole:
        arrival, answer, why = self._read(arrival, way, request)
        if answer is not None and not why:
          self._account.settle(call, request, answer)
          self._has_settled()
          return ''
        if answer is not None:
          self._account.reject(call, answer, str(why))
          self._has_settled()
          if isinstance(why, scoring.NotOffered):
            return f'{url}: {why}'
          raise _unusable(url, request, self._connection.clean(str(why)))
      self._over(call, arrival.maybe_charged)
      if arrival.fatal is not None:
        raise arrival.fatal
      refusal = arrival.refusal
      if refusal is not None and not refusal.may_pass():
        said = f'{refusal.status}: {self._connection.clean(refusal.message)}'
        if _TOO_MANY.search(refusal.message.lower()):
          raise _too_many(url, request, said)
        if refusal.status in _UNKNOWN and self._teacher.scoring is None:
          return f'{url}: {said}'
        raise await openai_calls.final(
          refusal, request.describe(), self._teacher, self._connection
        )
      if arrival.reply is not None:
        raise _unusable(url, request, f'refused ({arrival.reply.finish})')
      failures += 1
      await self._back_off(failures, arrival, request)

  def _read(
    self, arrival: Arrival, way: scoring.Way, request: Request
  ) -> tuple[Arrival, Completion | None, ValueError | None]:
    """What a whole body says: a paid answer, and what is wrong with it."""
    try:
      value = replies.load(arrival.text)
    except replies.DamagedReply as e:
      said = self._connection.clean(f'{e}: {arrival.text[:200]}')
      damaged = Arrival(arrival.headers, failure=said, maybe_charged=said)
      return damaged, None, None
    refusal = refusals.inside(value)
    if refusal is not None:
      return Arrival(arrival.headers, refusal=refusal), None, None
    try:
      text = scoring.read(way, value, request)
    except (scoring.NotOffered, scoring.Unusable) as e:
      return arrival, scoring.completion(value, request, ''), e
    return arrival, scoring.completion(value, request, text), None


def _not_offered(settings, tried) -> TeacherError:
  return TeacherError(
    f'{settings.base_url} gives no log-probabilities of texts '
    f'({"; ".join(tried)}), and distillation.divergence learns from them. Use '
    "vLLM, SGLang or a local teacher, or set distillation.divergence to 'none'."
  )


def _too_many(url: str, request: Request, said: str) -> TeacherError:
  return TeacherError(
    f'{url} does not give {request.score} log-probabilities of a token '
    f'({said}). Lower distillation.top_k, or raise the limit of the server '
    f'(vLLM: --max-logprobs {request.score}).'
  )


def _unusable(url: str, request: Request, why: str) -> TeacherError:
  return TeacherError(
    f'{url} does not score {request.describe()} as it was asked: {why}. '
    'Nothing of it is used. Correct the server, or learn from a local teacher; '
    'what was scored before is stored.'
  )
