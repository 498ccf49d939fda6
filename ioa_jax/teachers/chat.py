"""The chat protocol: a request as a body, a body as an answer.

Servers differ in what they accept. A `Dialect` says what is sent; each refusal
narrows it once, so what a model accepts is sent and nothing else is assumed.
"""

from __future__ import annotations

from collections.abc import Sequence
import dataclasses
import json
import re
from typing import Any

import pydantic

from ioa_jax.teachers import structured
from ioa_jax.teachers.requests import Completion, Request

# Families that refuse sampling parameters, and those of them without a system
# role. Others are found out from the server's refusal.
_REASONING = re.compile(r'(?:^|/)o[134](?:-|$)')
_WITHOUT_SYSTEM = re.compile(r'(?:^|/)o1-(?:mini|preview)')
# Ends of a generation that broke off on the server's side.
_BROKE_OFF = ('insufficient_system_resource', 'error', 'abort')
_SCHEMA_PROMPT = (
  'Answer with one JSON value and nothing else. It must match this JSON '
  'schema:\n{}'
)


class DamagedReply(ValueError):
  """A 200 response that is not a chat completion: cut, garbled, a stream."""


@dataclasses.dataclass(frozen=True)
class Dialect:
  """What is sent.

  Attributes:
    token_fields: names of the limit, the next one tried when one is refused.
    sampling: temperature and top_p.
    top_k, min_p: not part of the protocol, but most servers of open models
      take them.
    system_role: else the system prompt opens the first user message.
    json_schema: `response_format`; else the schema is put into the prompt.
  """

  token_fields: tuple[str, ...] = ('max_tokens', 'max_completion_tokens')
  sampling: bool = True
  top_k: bool = True
  min_p: bool = True
  system_role: bool = True
  json_schema: bool = True
  reasoning_effort: bool = True

  @classmethod
  def of(cls, model: str) -> Dialect:
    if _REASONING.search(model):
      return cls(
        token_fields=('max_completion_tokens', 'max_tokens'), sampling=False,
        top_k=False, min_p=False,
        system_role=not _WITHOUT_SYSTEM.search(model),
      )  # fmt: skip
    return cls()

  def narrowed(self, param: str, message: str) -> Dialect | None:
    """Without what a 400 or 422 complains about; None if it is not known."""
    # The server's field says it best; its prose may quote anything.
    return self._without(param) or self._without(message)

  def _without(self, complaint: str) -> Dialect | None:
    text = complaint.lower()
    if re.search(r'too large|context length|maximum|exceed', text):
      return None  # The value is refused, not the parameter.
    changes: dict[str, Any] = {}
    if re.search(r'max_(completion_)?tokens', text):
      if len(self.token_fields) > 1:
        changes = {'token_fields': self.token_fields[1:]}
    elif re.search(r'response_format|json_schema|structured output', text):
      changes = {'json_schema': False}
    elif 'reasoning_effort' in text:
      changes = {'reasoning_effort': False}
    elif 'top_k' in text:
      changes = {'top_k': False}
    elif 'min_p' in text:
      changes = {'min_p': False}
    elif re.search(r'temperature|top_p', text):
      changes = {'sampling': False}
    elif re.search(r'\brole\b|system (message|prompt|role)', text):
      changes = {'system_role': False}
    narrower = dataclasses.replace(self, **changes)
    return narrower if narrower != self else None


def body(
  request: Request, dialect: Dialect, repair: Sequence[dict[str, str]] = ()
) -> dict[str, Any]:
  """Keyword arguments of `client.chat.completions.create`.

  Args:
    repair: turns after the prompt: an unfit answer and what was wrong with it.
  """
  messages = request.messages()
  if request.system and not dialect.system_role:
    system, first, *rest = messages
    joined = f'{system["content"]}\n\n{first["content"]}'
    messages = [{'role': 'user', 'content': joined}, *rest]
  values: dict[str, Any] = {'model': request.model}
  extra: dict[str, Any] = {}
  if request.response_schema:
    schema = json.loads(request.response_schema)
    if dialect.json_schema:
      values['response_format'] = {
        'type': 'json_schema',
        'json_schema': {
          'name': re.sub(r'\W', '_', schema.get('title', 'answer'))[:64],
          'schema': schema,
          'strict': _is_strict(schema),
        },
      }
    else:
      asked = _SCHEMA_PROMPT.format(request.response_schema)
      last = messages[-1]
      messages[-1] = last | {'content': f'{last["content"]}\n\n{asked}'}
  values['messages'] = [*messages, *repair]
  values[dialect.token_fields[0]] = request.max_tokens
  if dialect.sampling:
    values['temperature'] = request.temperature
    if request.top_p != 1.0:
      values['top_p'] = request.top_p
  if request.top_k and dialect.top_k:
    extra['top_k'] = request.top_k
  if request.min_p and dialect.min_p:
    extra['min_p'] = request.min_p
  if request.stop:
    values['stop'] = list(request.stop)
  if request.reasoning_effort and dialect.reasoning_effort:
    values['reasoning_effort'] = request.reasoning_effort
  return values | ({'extra_body': extra} if extra else {})


def _is_strict(schema: Any) -> bool:
  """Whether OpenAI's strict mode takes it: objects closed, all required."""
  if isinstance(schema, list):
    return all(map(_is_strict, schema))
  if not isinstance(schema, dict):
    return True
  properties = schema.get('properties')
  if isinstance(properties, dict) and (
    schema.get('additionalProperties') is not False
    or set(schema.get('required', ())) != set(properties)
  ):
    return False
  return all(map(_is_strict, schema.values()))


class _Usage(pydantic.BaseModel):
  prompt_tokens: int
  completion_tokens: int


class _Message(pydantic.BaseModel):
  content: str | None = None
  refusal: str | None = None
  # DeepSeek's name, and the later one of vLLM and OpenRouter.
  reasoning_content: str | None = None
  reasoning: str | None = None


class _Choice(pydantic.BaseModel):
  message: _Message
  finish_reason: str | None = None


class Reply(pydantic.BaseModel):
  """What is read of a chat completion; all else in it is ignored."""

  id: str | None = None
  choices: list[_Choice] = pydantic.Field(min_length=1)
  usage: _Usage | None = None


def parse(content: bytes) -> Reply:
  """The reply in a response's body.

  Raises:
    DamagedReply: with what is wrong with it.
  """
  if content.lstrip().startswith((b'data:', b'event:', b':')):
    # Streams are not asked for: deltas carry no number, so a repeated one
    # cannot be told from a word that the model wrote twice.
    raise DamagedReply('an event stream that was not asked for')
  try:
    reply = Reply.model_validate_json(content)
  except pydantic.ValidationError as e:
    raise DamagedReply(f'not a chat completion ({_first_error(e)})') from None
  if reply.choices[0].finish_reason in _BROKE_OFF:
    raise DamagedReply(
      f'generation broke off ({reply.choices[0].finish_reason})'
    )
  return reply


def completion(
  reply: Reply,
  *,
  worst_prompt_tokens: int,
  max_tokens: int,
  response_model: type[pydantic.BaseModel] | None,
) -> tuple[Completion, str]:
  """The answer in a reply, and why it does not fit (with 'schema').

  A reply without usage counts at its worst case.
  """
  choice = reply.choices[0]
  reasoning, text = split_reasoning(choice.message.content or '')
  apart = choice.message.reasoning_content or choice.message.reasoning or ''
  reasoning = '\n'.join(r for r in (apart, reasoning) if r)
  finish, why, mended_from = choice.finish_reason or 'stop', '', ''
  if choice.message.refusal:
    finish, text = 'refusal', choice.message.refusal
  elif finish == 'stop' and not text.strip():
    finish = 'empty'
  elif finish == 'stop' and response_model is not None:
    text = _without_fence(text)
    try:
      response_model.model_validate_json(text)
    except pydantic.ValidationError as e:
      # Mending is free, and asking again is not.
      mended = structured.parse(text, response_model)
      if mended is None:
        finish, why = 'schema', _first_error(e)
      else:
        mended_from, text = text, mended.model_dump_json()
  usage = reply.usage or _Usage(
    prompt_tokens=worst_prompt_tokens, completion_tokens=max_tokens
  )
  answer = Completion(
    text=text if finish == 'stop' else '',
    finish_reason=finish,
    prompt_tokens=usage.prompt_tokens,
    completion_tokens=usage.completion_tokens,
    reasoning=reasoning,
    discarded=mended_from if finish == 'stop' else text,
    response_id=reply.id or '',
  )
  return answer, why


def split_reasoning(content: str) -> tuple[str, str]:
  """(reasoning, answer) of a text that may think aloud in <think> tags.

  Templates of some models open the tag in the prompt, so that only its end is
  in the answer. A tag that never ends leaves no answer.
  """
  opened = content.lstrip().startswith('<think>')
  head, end, tail = content.partition('</think>')
  if opened:
    head = head.lstrip().removeprefix('<think>')
    return head.strip(), tail.lstrip()
  if end and '<think>' not in head:
    return head.strip(), tail.lstrip()
  return '', content


def repair_turns(
  discarded: str, why: str, response_schema: str
) -> list[dict[str, str]]:
  """Asks again, giving a greedy model, too, a reason to answer otherwise.

  The schema is in it: some servers accept `response_format` and ignore it, so
  that the model has not seen one yet.
  """
  asked = _SCHEMA_PROMPT.format(response_schema)
  return [
    {'role': 'assistant', 'content': discarded},
    {'role': 'user', 'content': f'That does not fit ({why}). {asked}'},
  ]


def _without_fence(text: str) -> str:
  fenced = re.fullmatch(r'\s*```\w*\n(.*?)\n?```\s*', text, re.DOTALL)
  return fenced[1] if fenced else text.strip()


def _first_error(e: pydantic.ValidationError) -> str:
  first = e.errors(include_url=False, include_input=False)[0]
  place = '.'.join(map(str, first['loc']))
  return f'{place}: {first["msg"]}' if place else first['msg']
