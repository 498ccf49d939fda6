"""An OpenAI-compatible server on loopback that fails on purpose, seeded.

It counts what it delivered, so a test can compare its books with the client's.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
import http.server
import json
import random
import socket
import struct
import threading
import time
from typing import Any

# Delivered whole, so the client must have it in its books exactly once.
PAID = ('good', 'slow', 'schema', 'empty')
# Charged perhaps, and impossible to store.
LOST = ('cut', 'truncated', 'duplicated')
# Refused, so free.
FREE = ('429', '500')
FAULTS = (*FREE, 'slow', *LOST, 'schema', 'empty')
PROMPT_TOKENS, COMPLETION_TOKENS = 11, 7

Reply = tuple[int, dict[str, str], dict[str, Any]]


def right_answer(prompt: str) -> str:
  """Fits the schema of the tests; the number is the prompt's last word."""
  return json.dumps({'steps': ['look'], 'answer': int(prompt.split()[-1])})


def chat_completion(response_id: str, text: str, **choice) -> dict[str, Any]:
  message = {'role': 'assistant', 'content': text}
  message |= choice.pop('message', {})
  return {
    'id': response_id,
    'object': 'chat.completion',
    'created': 0,
    'model': 'teacher',
    'choices': [
      {'index': 0, 'message': message, 'finish_reason': 'stop'} | choice
    ],
    'usage': {
      'prompt_tokens': PROMPT_TOKENS,
      'completion_tokens': COMPLETION_TOKENS,
      'total_tokens': PROMPT_TOKENS + COMPLETION_TOKENS,
    },
  }


def error(message: str, **fields) -> dict[str, Any]:
  return {'error': {'message': message, 'param': None, 'code': None} | fields}


class FaultyServer:
  """Runs in a thread while used as a context.

  Args:
    fault_rate: share of requests that meet one of FAULTS. Which one depends on
      the seed, the prompt and how often it was asked, not on timing.
    respond: takes over completely: (body, headers) to (status, headers, JSON).
    port: 0 takes any that is free.

  Attributes:
    asked: the first user message of each request, in order of arrival.
    bodies: the requests' bodies.
    paid: ids of whole replies that were sent.
    met: how often each of FAULTS (and 'good') was met.
    most_at_once: the highest number of requests under way together.
  """

  def __init__(
    self,
    *,
    fault_rate: float = 0.0,
    seed: int = 0,
    latency_seconds: float = 0.0,
    respond: Callable[[dict[str, Any], Any], Reply] | None = None,
    port: int = 0,
  ):
    self.asked: list[str] = []
    self.bodies: list[dict[str, Any]] = []
    self.paid: list[str] = []
    self.met: Counter[str] = Counter()
    self.most_at_once = 0
    self._fault_rate = fault_rate
    self._seed = seed
    self._latency_seconds = latency_seconds
    self._respond = respond
    self._under_way = 0
    self._times: Counter[str] = Counter()
    self._lock = threading.Lock()
    handler = type('Handler', (_Handler,), {'owner': self})
    self._server = _Server(('127.0.0.1', port), handler)
    self.url = f'http://127.0.0.1:{self._server.server_port}/v1'

  def __enter__(self):
    self._thread = threading.Thread(
      target=self._server.serve_forever, args=(0.02,)
    )
    self._thread.start()
    return self

  def __exit__(self, *exception):
    self._server.shutdown()
    self._thread.join()
    self._server.server_close()

  def handle(self, handler: _Handler, body: dict[str, Any]) -> None:
    prompt = next(m['content'] for m in body['messages'] if m['role'] == 'user')
    with self._lock:
      self.asked.append(prompt)
      self.bodies.append(body)
      time_of_prompt = self._times[prompt]
      self._times[prompt] += 1
      self._under_way += 1
      self.most_at_once = max(self.most_at_once, self._under_way)
    try:
      time.sleep(self._latency_seconds)
      if self._respond:
        status, headers, reply = self._respond(body, handler.headers)
        handler.send(status, json.dumps(reply).encode(), headers)
      else:
        self._meet(handler, prompt, time_of_prompt)
    finally:
      with self._lock:
        self._under_way -= 1

  def _meet(self, handler, prompt, time_of_prompt):
    rng = random.Random(f'{self._seed} {prompt} {time_of_prompt}')
    fault = 'good'
    if rng.random() < self._fault_rate:
      fault = rng.choice(FAULTS)
    response_id = f'chatcmpl-{prompt.replace(" ", "-")}-{time_of_prompt}'
    with self._lock:
      self.met[fault] += 1
      if fault in PAID:
        self.paid.append(response_id)
    text = {'schema': '{"steps": "none"}', 'empty': ''}.get(
      fault, right_answer(prompt)
    )
    whole = json.dumps(chat_completion(response_id, text)).encode()
    if fault == '429':
      wait = {'Retry-After': f'{rng.uniform(0.005, 0.03):.3f}'}
      handler.send(429, json.dumps(error('slow down')).encode(), wait)
    elif fault == '500':
      handler.send(500, json.dumps(error('out of order')).encode())
    elif fault == 'truncated':
      handler.send(200, whole[: len(whole) // 2])
    elif fault == 'cut':
      handler.send(200, whole, cut_at=rng.randrange(len(whole)))
    elif fault == 'slow':
      handler.send(200, whole, seconds=0.15)
    elif fault == 'duplicated':
      handler.send(
        200, _stream(response_id, text), {'Content-Type': 'text/event-stream'}
      )
    else:
      handler.send(200, whole)


def _stream(response_id, text):
  """Deltas of four characters, one of them twice."""
  deltas = [text[i : i + 4] for i in range(0, len(text), 4)]
  deltas.insert(1, deltas[0])
  chunks = [
    {
      'id': response_id,
      'object': 'chat.completion.chunk',
      'choices': [{'index': 0, 'delta': {'content': d}, 'finish_reason': None}],
    }
    for d in deltas
  ]
  lines = [f'data: {json.dumps(c)}\n\n' for c in chunks]
  return ''.join([*lines, 'data: [DONE]\n\n']).encode()


class _Server(http.server.ThreadingHTTPServer):
  daemon_threads = True
  block_on_close = False
  # With the default of 5 the kernel drops connections under load, and their
  # clients wait for minutes.
  request_queue_size = 256

  def handle_error(self, request, client_address):
    """A client that was killed is no error of ours."""


class _Handler(http.server.BaseHTTPRequestHandler):
  owner: FaultyServer
  protocol_version = 'HTTP/1.1'
  # Else each reply waits 40 ms for the acknowledgement of its headers.
  disable_nagle_algorithm = True

  def do_POST(self):
    size = int(self.headers['Content-Length'])
    self.owner.handle(self, json.loads(self.rfile.read(size)))

  def do_GET(self):
    models = {'object': 'list', 'data': [{'id': 'teacher', 'object': 'model'}]}
    self.send(200, json.dumps(models).encode())

  def send(self, status, content, headers=None, *, cut_at=None, seconds=0.0):
    """Sends a reply, whole or until `cut_at`, at once or over `seconds`."""
    self.send_response(status)
    headers = {'Content-Type': 'application/json'} | (headers or {})
    for name, value in headers.items():
      self.send_header(name, value)
    self.send_header('Content-Length', str(len(content)))
    self.end_headers()
    if cut_at is not None:
      self.wfile.write(content[:cut_at])
      self.wfile.flush()
      # Closing with lingering off resets the connection.
      self.connection.setsockopt(
        socket.SOL_SOCKET, socket.SO_LINGER, struct.pack('ii', 1, 0)
      )
      self.close_connection = True
      return
    pieces = 10 if seconds else 1
    size = -(-len(content) // pieces)
    for i in range(0, len(content), size):
      time.sleep(seconds / pieces)
      self.wfile.write(content[i : i + size])

  def log_message(self, *arguments):
    """Silent: the tests read the server's books instead."""
