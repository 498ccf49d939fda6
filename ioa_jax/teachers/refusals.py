"""What a server says when it does not answer, in whatever shape it says it.

An error is an object, a text, a list, FastAPI's `detail`, HTML, plain text, or
stands in a body of status 200. Its words are found in all of them.
"""

from __future__ import annotations

from collections.abc import Iterator
import dataclasses
import html
import json
import re
from typing import Any

_SHOWN_CHARS = 400
# Where servers put their words, the likeliest first.
_WORDS = (
  'message',
  'msg',
  'detail',
  'error',
  'errors',
  'error_message',
  'raw',
  'description',
  'details',
  'fieldViolations',
  'metadata',
  'reason',
  'title',
)
_RETRIED = (408, 409, 425, 429)  # and 5xx
# A gateway gave up on a server that may have gone on, and charged.
_MAYBE_CHARGED = (408, 502, 504, 524)
_UNFIT = re.compile(
  r'json_validate_failed|failed_generation|failed to generate json'
  r'|generated json does not match|failed to validate (the )?json'
  r'|did not match (the )?(json )?schema'
)
_USED_UP = re.compile(
  r'insufficient[_ ](quota|balance|credit|fund)|billing|payment|out of credit'
  r'|credit balance|not enough (credit|balance)|quota_exceeded'
)
_STATUS = (
  (429, r'rate_?limit|resource_?exhausted|too_?many|throttl'),
  (402, r'insufficient|billing|payment|quota'),
  (401, r'authentication|unauthenticated|invalid_api_key|unauthorized'),
  (403, r'permission|forbidden'),
  (404, r'not_?found'),
  (400, r'invalid|bad_?request|unsupported'),
)


@dataclasses.dataclass(frozen=True)
class Refusal:
  """An error of a server.

  Attributes:
    message: its words, on one line.
    param: the field that it complains about, where it names one.
    code: its own name for the error, where it has one.
    generated: what the model wrote, where the server refuses just that.
  """

  status: int
  message: str
  param: str = ''
  code: str = ''
  generated: str = ''

  def is_filter(self) -> bool:
    """Whether the prompt is refused for what it says (Azure: unpaid)."""
    return self.code == 'content_filter'

  def is_unfit(self) -> bool:
    """Whether the model was asked, and what it wrote does not fit."""
    if not 400 <= self.status < 500:
      return False
    return bool(_UNFIT.search(f'{self.code} {self.message}'.lower()))

  def is_used_up(self) -> bool:
    """Whether there is no more money: waiting does not help."""
    # Of a limit per minute some speak as of a quota; their codes do not.
    said = self.code if self.status == 429 else f'{self.code} {self.message}'
    return self.status == 402 or (
      self.status in (400, 403, 429) and bool(_USED_UP.search(said.lower()))
    )

  def may_pass(self) -> bool:
    """Whether the same call is worth another try."""
    passing = self.status in _RETRIED or self.status >= 500
    return passing and not self.is_used_up()

  def maybe_charged(self) -> bool:
    return self.status in _MAYBE_CHARGED


def read(status: int, text: str) -> Refusal:
  """The error in the body of a response that is not 200."""
  try:
    value = json.loads(text, strict=False)
  except (ValueError, RecursionError):
    value = _plain(text)
  return _refusal(status, value)


def inside(value: Any) -> Refusal | None:
  """The error in a body of status 200, or None."""
  if isinstance(value, list) and len(value) == 1:
    value = value[0]
  if not isinstance(value, dict) or value.get('choices'):
    return None
  error = value.get('error') or value.get('errors') or value.get('detail')
  if not error and str(value.get('object')) != 'error':
    return None
  refusal = _refusal(500, value)
  return dataclasses.replace(refusal, status=_status(value, refusal))


def _status(value, refusal) -> int:
  """The status that the response should have had."""
  for inner in _objects(value):
    for name in ('code', 'status', 'status_code'):
      number = str(inner.get(name, ''))
      if re.fullmatch(r'[45]\d\d', number):
        return int(number)
  said = refusal.code.lower()
  return next((s for s, words in _STATUS if re.search(words, said)), 500)


def _refusal(status: int, value: Any) -> Refusal:
  objects = list(_objects(value))
  codes = [
    c
    for o in objects
    for n in ('code', 'type', 'error_type', 'status')
    if isinstance(c := o.get(n), str) and c
  ]
  params = [p for o in objects if isinstance(p := o.get('param'), str) and p]
  places = [
    '.'.join(map(str, place))
    for o in objects
    if isinstance(place := o.get('loc'), list)
  ]
  generated = [
    g for o in objects if isinstance(g := o.get('failed_generation'), str)
  ]
  words = list(dict.fromkeys([*places, *_words(value)]))
  message = ': '.join(words) if words else _compact(value)
  return Refusal(
    status,
    ' '.join(message.split())[:_SHOWN_CHARS] or 'no words',
    param=(params or places or [''])[0],
    code=' '.join(dict.fromkeys(codes))[:100],
    generated=(generated or [''])[0],
  )


def _objects(value: Any, depth: int = 4) -> Iterator[dict[str, Any]]:
  """The objects of an error from the outside in, not too many of them."""
  if isinstance(value, dict):
    yield value
    inner = [value.get(name) for name in _WORDS] if depth else []
  else:
    inner = value[:8] if isinstance(value, list) and depth else []
  for x in inner:
    yield from _objects(x, depth - 1)


def _words(value: Any, depth: int = 5) -> Iterator[str]:
  if isinstance(value, str):
    if value.strip():
      yield value[:_SHOWN_CHARS]
  elif isinstance(value, list) and depth:
    for x in value[:8]:
      yield from _words(x, depth - 1)
  elif isinstance(value, dict) and depth:
    for name in _WORDS:
      yield from _words(value.get(name), depth - 1)


def _plain(text: str) -> str:
  """The words of a text that may be HTML."""
  text = text[:100_000]
  if re.match(r'\s*<', text):
    text = re.sub(
      r'(?is)<(script|style)\b[^<]*(?:<(?!/\1)[^<]*)*</\1[^>]*>', ' ', text
    )
    text = html.unescape(re.sub(r'<[^<>]*>', ' ', text))
  return text


def _compact(value: Any) -> str:
  return '' if value in (None, '') else json.dumps(value)[:_SHOWN_CHARS]
