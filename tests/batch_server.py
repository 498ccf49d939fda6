"""The files and batches of an OpenAI-compatible server, on loopback.

Shapes and rules are those of the protocol: a file is uploaded as a form, a
batch is checked as a whole before it begins, results stand in two files in any
order. `FaultyServer` answers chats beside it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
import email.parser
import email.policy
import itertools
import json
import random
import threading
from typing import Any
import urllib.parse

from tests import faulty_server
from tests.faulty_server import chat_completion, error, right_answer

# What a batch goes through, one state each time it is looked at.
COURSE = ('validating', 'in_progress', 'in_progress', 'finalizing', 'completed')


class BatchServer(faulty_server.FaultyServer):
  """Also has /v1/files and /v1/batches.

  Args:
    course: states of a batch, the last one repeated.
    answer: (body, time of asking) to an output line's `response` or `error`, or
      None for a line that was not worked on.
    mangle: changes the text of a file of results before it is sent.
    meet: called with (method, path, number of such calls before) ahead of any
      work; it may return a reply, which then stands for it.
    after: the same, after the work and before the reply is sent.
    keeps_metadata: whether a batch's metadata is kept.

  Attributes:
    files: id to (name, content).
    batches: id to batch.
    worked_on: how often each prompt was answered, which is what is paid for.
  """

  def __init__(
    self,
    *,
    course=COURSE,
    answer: Callable[[dict, int], dict | None] | None = None,
    mangle: Callable[[str], str] = lambda text: text,
    meet: Callable[[str, str, int], Any] = lambda *_: None,
    after: Callable[[str, str, int], Any] = lambda *_: None,
    keeps_metadata: bool = True,
    **options,
  ):
    super().__init__(**options)
    handler = type('Handler', (_Handler,), {'owner': self})
    self._server.RequestHandlerClass = handler
    self.files: dict[str, tuple[str, str]] = {}
    self.batches: dict[str, dict[str, Any]] = {}
    self.worked_on: Counter[str] = Counter()
    self.calls: Counter[tuple[str, str]] = Counter()
    self.course = course
    self._answer = answer or good
    self._mangle = mangle
    self._before_work, self._after_work = meet, after
    self._keeps_metadata = keeps_metadata
    self._numbers = itertools.count(1)
    self._lock_of_batches = threading.RLock()

  def route(self, method: str, path: str, body: bytes, headers) -> Any:
    """(status, text or JSON) of a request."""
    url = urllib.parse.urlsplit(path)
    place = url.path.removeprefix('/v1/').split('/')
    kind = '/'.join([place[0], *place[2:]]) + ('/ID' * (len(place) > 1))
    with self._lock_of_batches:
      before = self.calls[method, kind]
      self.calls[method, kind] += 1
    if (met := self._before_work(method, kind, before)) is not None:
      return met
    with self._lock_of_batches:
      query = dict(urllib.parse.parse_qsl(url.query))
      reply = self._work(method, place, query, body, headers)
    return self._after_work(method, kind, before) or reply

  def _work(self, method, place, query, body, headers):
    match method, place:
      case 'POST', ['files']:
        return self._upload(body, headers)
      case 'GET', ['files', name, 'content']:
        if name not in self.files:
          return 404, error(f'No such File object: {name}')
        content = self.files[name][1]
        return 200, self._mangle(content) if 'output' in name else content
      case 'POST', ['batches']:
        return self._create(json.loads(body))
      case 'GET', ['batches']:
        return self._list(query)
      case 'GET', ['batches', name]:
        return self._look(name)
    return 404, error('Not Found')

  def _upload(self, body, headers):
    message = email.parser.BytesParser(policy=email.policy.HTTP).parsebytes(
      f'Content-Type: {headers["Content-Type"]}\r\n\r\n'.encode() + body
    )
    parts = {
      p.get_param('name', header='content-disposition'): p
      for p in message.iter_parts()
    }
    assert parts['purpose'].get_payload(decode=True) == b'batch'
    content = parts['file'].get_payload(decode=True).decode()
    name = f'file-{next(self._numbers)}'
    self.files[name] = parts['file'].get_filename(), content
    return 200, {
      'id': name,
      'object': 'file',
      'bytes': len(content),
      'created_at': 0,
      'filename': parts['file'].get_filename(),
      'purpose': 'batch',
      'status': 'processed',
    }

  def _create(self, asked):
    if asked['input_file_id'] not in self.files:
      return 400, error('No such File object', param='input_file_id')
    assert asked['endpoint'] == '/v1/chat/completions'
    assert asked['completion_window'] == '24h'
    name = f'batch_{next(self._numbers)}'
    lines = self.lines(asked['input_file_id'])
    self.batches[name] = {
      'id': name,
      'object': 'batch',
      'endpoint': asked['endpoint'],
      'input_file_id': asked['input_file_id'],
      'completion_window': '24h',
      'created_at': 0,
      'status': 'validating',
      'output_file_id': None,
      'error_file_id': None,
      'errors': None,
      'metadata': asked.get('metadata') if self._keeps_metadata else None,
      'request_counts': {'total': len(lines), 'completed': 0, 'failed': 0},
      'looks': 0,
    }
    return 200, self._shown(name)

  def lines(self, file_id: str) -> list[dict]:
    return list(map(json.loads, self.files[file_id][1].splitlines()))

  def _shown(self, name):
    return {k: v for k, v in self.batches[name].items() if k != 'looks'}

  def _list(self, query):
    newest_first = list(self.batches)[::-1]
    begin = 0
    if 'after' in query:
      begin = newest_first.index(query['after']) + 1
    # A small page, so that there are several.
    page = newest_first[begin : begin + min(2, int(query.get('limit', 20)))]
    return 200, {
      'object': 'list',
      'data': [self._shown(name) for name in page],
      'first_id': page[0] if page else None,
      'last_id': page[-1] if page else None,
      'has_more': begin + len(page) < len(newest_first),
    }

  def _look(self, name):
    if name not in self.batches:
      return 404, error(f'No batch found with id {name!r}.')
    batch = self.batches[name]
    before = batch['status']
    batch['looks'] += 1
    batch['status'] = self.course[min(batch['looks'], len(self.course)) - 1]
    ends = ('completed', 'expired', 'cancelled')
    if batch['status'] in ends and before not in ends:
      self._finish(batch)
    if batch['status'] == 'failed':
      batch['errors'] = {
        'object': 'list',
        'data': [{'code': 'invalid_json_line', 'message': 'line 1', 'line': 1}],
      }
    return 200, self._shown(name)

  def _finish(self, batch):
    """Half of the lines of a batch that is cut short are worked on."""
    lines = self.lines(batch['input_file_id'])
    assert len({x['custom_id'] for x in lines}) == len(lines)
    done = len(lines) if batch['status'] == 'completed' else len(lines) // 2
    good_lines, bad_lines = [], []
    for number, asked in enumerate(lines):
      said = None
      if number < done:
        prompt = prompt_of(asked['body'])
        said = self._answer(asked['body'], self.worked_on[prompt])
        if said and (said.get('response') or {}).get('status_code') == 200:
          self.worked_on[prompt] += 1
      if said is None:
        code = f'batch_{batch["status"]}'
        said = {'response': None, 'error': {'code': code, 'message': code}}
      ok = (said.get('response') or {}).get('status_code') == 200
      row = {'id': f'batch_req_{number}', 'custom_id': asked['custom_id']}
      row |= {'response': None, 'error': None} | said
      (good_lines if ok else bad_lines).append(json.dumps(row))
    for field, rows in (
      ('output_file_id', good_lines),
      ('error_file_id', bad_lines),
    ):
      if rows:
        random.Random(len(rows)).shuffle(rows)
        file_id = f'file-{field.partition("_")[0]}-{next(self._numbers)}'
        self.files[file_id] = file_id, ''.join(f'{x}\n' for x in rows)
        batch[field] = file_id
    batch['request_counts'] |= {
      'completed': len(good_lines),
      'failed': len(bad_lines),
    }


def prompt_of(body: dict) -> str:
  return next(m['content'] for m in body['messages'] if m['role'] == 'user')


def good(body: dict, time: int) -> dict:
  """A right answer, whose id tells when it was given."""
  prompt = prompt_of(body)
  return answered(f'{prompt} #{time}', right_answer(prompt))


def answered(name: str, text: str, **choice) -> dict:
  return {
    'response': {
      'status_code': 200,
      'request_id': 'r',
      'body': chat_completion(name, text, **choice),
    },
    'error': None,
  }


def refused(status: int, message: str, **fields) -> dict:
  return {
    'response': {
      'status_code': status,
      'request_id': 'r',
      'body': error(message, **fields),
    },
    'error': None,
  }


class _Handler(faulty_server._Handler):
  def do_POST(self):
    if self.path.endswith('/chat/completions'):
      super().do_POST()
      return
    size = int(self.headers['Content-Length'])
    self._route('POST', self.rfile.read(size))

  def do_GET(self):
    if self.path.endswith('/models'):
      super().do_GET()
      return
    self._route('GET', b'')

  def _route(self, method, body):
    status, reply = self.owner.route(method, self.path, body, self.headers)
    if status == 'cut':
      self.send(200, json.dumps(reply).encode(), cut_at=10)
      return
    text = reply if isinstance(reply, str) else json.dumps(reply)
    self.send(status, text.encode())
