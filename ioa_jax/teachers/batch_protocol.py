"""The batch protocol as texts: lines out, a status, lines back.

Shapes: https://platform.openai.com/docs/api-reference/batch, and the types of
the `openai` package. What a server says is read for what is in it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
import dataclasses
import json
import re
from typing import Any

from ioa_jax.teachers import chat, replies
from ioa_jax.teachers.requests import Request

ENDPOINT = '/v1/chat/completions'
# The only one that there is; a server may take longer all the same.
WINDOW = '24h'
# In the metadata of a batch, where an earlier start finds it again.
NAME = 'ioa_jax_batch'
_ENDED = ('completed', 'failed', 'expired', 'cancelled')
# Of a line that nobody worked on.
_NOT_BEGUN = ('batch_expired', 'batch_cancelled')
_ID = re.compile(r'[\w.:=+~-]{1,200}', re.ASCII)


def line(
  request: Request, dialect: chat.Dialect, repair: Sequence[dict[str, str]] = ()
) -> str:
  """One line of the input file, without its end."""
  values = chat.body(request, dialect, repair)
  # What `openai` puts into the body by itself.
  body = values | values.pop('extra_body', {})
  body.pop('extra_body', None)
  return json.dumps(
    {
      'custom_id': request.key(),
      'method': 'POST',
      'url': ENDPOINT,
      'body': body,
    }
  )


@dataclasses.dataclass(frozen=True)
class Status:
  """What a server says of a batch.

  Attributes:
    name: its state; one that is not known is one of waiting.
    completed, failed, total: lines; None where it does not say.
    output_file_id, error_file_id: '' where there is none.
    message: what was wrong with the batch as a whole.
  """

  batch_id: str
  name: str
  completed: int | None
  failed: int | None
  total: int | None
  output_file_id: str
  error_file_id: str
  message: str
  code: str

  @property
  def has_ended(self) -> bool:
    return self.name in _ENDED


def status(text: str) -> Status:
  """The status in a response.

  Raises:
    DamagedReply: it is no batch.
  """
  value = replies.load(text)
  if not isinstance(value, dict) or not isinstance(value.get('status'), str):
    raise replies.DamagedReply('not a batch (no status)')
  counts = value.get('request_counts')
  counts = counts if isinstance(counts, dict) else {}
  first = _first_error(value.get('errors'))
  return Status(
    batch_id=identifier(value),
    name=value['status'].lower(),
    completed=_count(counts.get('completed')),
    failed=_count(counts.get('failed')),
    total=_count(counts.get('total')),
    output_file_id=_id(value.get('output_file_id')),
    error_file_id=_id(value.get('error_file_id')),
    message=str(first.get('message') or ''),
    code=str(first.get('code') or ''),
  )


def identifier(value: Any) -> str:
  """The id of a file or a batch.

  Raises:
    DamagedReply: it has none that could stand in an address.
  """
  found = _id(value.get('id')) if isinstance(value, dict) else ''
  if not found:
    raise replies.DamagedReply('no id')
  return found


def _id(value: Any) -> str:
  fits = isinstance(value, str) and _ID.fullmatch(value)
  return value if fits and value.strip('.') else ''


def _count(value: Any) -> int | None:
  fits = isinstance(value, int) and not isinstance(value, bool) and value >= 0
  return value if fits else None


def _first_error(errors: Any) -> dict[str, Any]:
  found = errors.get('data') if isinstance(errors, dict) else errors
  first = found[0] if isinstance(found, list) and found else None
  return first if isinstance(first, dict) else {}


@dataclasses.dataclass(frozen=True)
class Page:
  """A part of a server's list of batches.

  Attributes:
    found: the id of the batch that was looked for; '' if it is not here.
    last: where the next part begins; '' if this is the end.
  """

  found: str
  last: str


def page(text: str, name: str, file_id: str) -> Page:
  """Looks for a batch of ours by its name, or by its file.

  Raises:
    DamagedReply: it is no list of batches.
  """
  value = replies.load(text)
  data = value.get('data') if isinstance(value, dict) else None
  if not isinstance(data, list):
    raise replies.DamagedReply('not a list of batches')
  for entry in data:
    if not isinstance(entry, dict):
      continue
    metadata = entry.get('metadata')
    named = isinstance(metadata, dict) and metadata.get(NAME) == name
    # Some servers do not keep metadata, and a file is of one batch only.
    if named or (file_id and entry.get('input_file_id') == file_id):
      return Page(identifier(entry), '')
  more = value.get('has_more') is True and data
  return Page('', identifier(data[-1]) if more else '')


@dataclasses.dataclass(frozen=True)
class Result:
  """A line that came back.

  Attributes:
    custom_id: of the line that went out.
    status: of the response in it; 0 if nobody worked on the line.
    text: the response's body.
  """

  custom_id: str
  status: int
  text: str


def results(text: str) -> Iterator[Result | None]:
  """Lines of an output or an error file; None is one that cannot be read."""
  # Not `splitlines`: JSON may hold U+2028 as it is.
  for row in text.split('\n'):
    if row.strip():
      yield _result(row)


def _result(row: str) -> Result | None:
  try:
    value = replies.load(row)
  except replies.DamagedReply:
    return None
  if not isinstance(value, dict) or not isinstance(value.get('custom_id'), str):
    return None
  custom_id = value['custom_id']
  response, error = value.get('response'), value.get('error')
  if isinstance(response, dict):
    status_code, body = response.get('status_code'), response.get('body')
    if isinstance(status_code, int) and 100 <= status_code < 600:
      text = body if isinstance(body, str) else json.dumps(body)
      return Result(custom_id, status_code, text)
    return None
  if isinstance(error, dict) and error.get('code') in _NOT_BEGUN:
    return Result(custom_id, 0, '')
  return Result(custom_id, 200, json.dumps({'error': error})) if error else None
