"""The chat protocol: a request as a body.

Servers differ in what they accept. A `Dialect` says what is sent; each refusal
narrows it once, so what a model accepts is sent and nothing else is assumed.
"""

from __future__ import annotations

from collections.abc import Sequence
import dataclasses
import json
import re
from typing import Any

from ioa_jax.teachers.refusals import Refusal
from ioa_jax.teachers.requests import Request

# Families that refuse sampling parameters, and those of them without a system
# role. Others are found out from the server's refusal.
_REASONING = re.compile(r'(?:^|/)o[134](?:-|$)')
_WITHOUT_SYSTEM = re.compile(r'(?:^|/)o1-(?:mini|preview)')
# What is refused is a value and no field: nothing is left out for it.
_TOO_LONG = re.compile(
  r'context[ _](length|window|size)|maximum context|reduce the length'
  r'|(prompt|input|request|payload)[^.]{0,40} too (long|large)|too many tokens'
)
_VALUE = re.compile(r'too large|maximum|exceed|at most|less than')
# A template that cannot render a role fails with 500; routers that find no
# server for a parameter say 404.
_NARROWING = (400, 404, 422, 500, 501)
# Fields of a Dialect and what servers call them, in the order they are tried.
_COMPLAINTS = (
  ('token_fields', r'max_(completion_|new_)?tokens'),
  ('reasoning_effort', r'reasoning'),
  ('top_k', r'top_k'),
  ('min_p', r'min_p'),
  (
    'json_schema',
    r'response[ _]?(format|schema)|json[ _-]?(schema|mode|object)'
    r'|structured|grammar|guid(ed|ance)|outlines|constrain|\bschema'
    r'|text\.format|additionalproperties|regex|unimplemented keys',
  ),
  ('sampling', r'temperature|top_p|sampling param'),
  (
    'system_role',
    r'\broles?\b|system[ _](message|prompt|role|instruction)|developer'
    r'|template|jinja|[\'"`]system',
  ),
)
_SCHEMA_PROMPT = (
  'Answer with one JSON value and nothing else. It must match this JSON '
  'schema:\n{}'
)


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
    is_guess: the server did not say what it refused.
  """

  token_fields: tuple[str, ...] = ('max_tokens', 'max_completion_tokens')
  sampling: bool = True
  top_k: bool = True
  min_p: bool = True
  system_role: bool = True
  json_schema: bool = True
  reasoning_effort: bool = True
  is_guess: bool = False

  @classmethod
  def of(cls, model: str) -> Dialect:
    if _REASONING.search(model):
      return cls(
        token_fields=('max_completion_tokens', 'max_tokens'),
        sampling=False,
        top_k=False,
        min_p=False,
        system_role=not _WITHOUT_SYSTEM.search(model),
      )
    return cls()

  def narrowed(self, refusal: Refusal, request: Request) -> Dialect | None:
    """Without what a server complains about; None if that is not known."""
    if refusal.status not in _NARROWING:
      return None
    # The server's field says it best; its prose may quote anything.
    narrower = self._without(refusal.param, request) or self._without(
      refusal.message, request
    )
    if narrower is not None:
      return narrower
    # A schema is what servers refuse in words of their own.
    is_vague = refusal.status in (400, 422, 501)
    asks = bool(request.response_schema) and self.json_schema
    if is_vague and asks and not _TOO_LONG.search(refusal.message.lower()):
      return dataclasses.replace(self, json_schema=False, is_guess=True)
    return None

  def _without(self, complaint: str, request: Request) -> Dialect | None:
    text = complaint.lower()
    if not text or _TOO_LONG.search(text):
      return None
    for field, pattern in _COMPLAINTS:
      if not re.search(pattern, text):
        continue
      if field == 'token_fields':
        if len(self.token_fields) > 1 and not _VALUE.search(text):
          return dataclasses.replace(self, token_fields=self.token_fields[1:])
      elif getattr(self, field) and self._sends(field, request):
        return dataclasses.replace(self, **{field: False})
    return None

  def _sends(self, field: str, request: Request) -> bool:
    return bool(
      {
        'json_schema': request.response_schema,
        'reasoning_effort': request.reasoning_effort,
        'top_k': request.top_k,
        'min_p': request.min_p,
        'sampling': True,
        'system_role': request.system,
      }[field]
    )


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
