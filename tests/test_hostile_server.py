"""A server that means no good, or only does things its own way."""

import contextlib
import json
import re
import time

import hypothesis
from hypothesis import strategies as st
import pytest

pytest.importorskip('openai', reason='needs the extra `http`')

from ioa_jax.teachers import (
  chat,
  openai_http,
  rate_limits,
  redaction,
  refusals,
  replies,
  structured,
)
from ioa_jax.teachers import ledger as ledger_lib
from ioa_jax.teachers.client import Client
from ioa_jax.teachers.openai_http import OpenAITeacher, TeacherError
from ioa_jax.teachers.requests import Budget, Price, Request
from tests.faulty_server import FaultyServer, chat_completion, error
from tests.hostile_replies import REPLIES, TEXT
from tests.killed_client import Answer, request, settings

KEY = 'sk-do/not"show\\me-0123456789'


class HostileServer(FaultyServer):
  """Sends a body as it is."""

  def __init__(self, status, headers, body):
    super().__init__()
    self._said = status, headers, body

  def _meet(self, handler, prompt, time_of_prompt):
    status, headers, body = self._said
    if not isinstance(body, bytes):
      body = json.dumps(body).encode()
    handler.send(status, body, headers)


@pytest.fixture
def ledger(tmp_path):
  ledger = ledger_lib.Ledger(tmp_path / 'ledger.sqlite')
  yield ledger
  ledger.close()


def plain(prompt='problem 1', **fields) -> Request:
  return Request('teacher', prompt, 0.7, 0, 1.0, max_tokens=64, **fields)


def ask(url, ledger, requests, model=None, **fields):
  fields = {
    'max_attempts': 2,
    'max_regenerations': 0,
    'max_reply_bytes': 2**20,
  } | fields
  teacher = OpenAITeacher('teacher', settings(url, **fields))
  client = Client(teacher, ledger, Budget(), price=Price(1.0, 1.0))
  return client.ask(requests, model)


@pytest.mark.parametrize(
  ('status', 'headers', 'body', 'outcome'),
  [row[1:] for row in REPLIES],
  ids=[row[0] for row in REPLIES],
)
def test_a_reply_is_an_answer_an_outcome_or_one_line(
  ledger, status, headers, body, outcome
):
  begun = time.monotonic()
  with HostileServer(status, headers, body) as server:
    if re.fullmatch(r'[a-z_]+', outcome):
      (answer,) = ask(server.url, ledger, [plain()])
      assert answer.finish_reason == outcome.replace('answer', 'stop')
      if outcome == 'answer':
        assert answer.text.startswith(TEXT)
      assert len(server.asked) == 1
      assert 0 < answer.completion_tokens <= 64
    else:
      with pytest.raises(TeacherError, match=outcome) as caught:
        ask(server.url, ledger, [plain()])
      assert re.fullmatch(
        r'[^\x00-\x1f\x7f-\x9f\u202a-\u202e]{20,900}', str(caught.value)
      )
  assert time.monotonic() - begun < 10
  # Whatever it was, the books can be kept.
  assert 0 <= ledger.totals()['completion_tokens'] <= 64


# Refusals of the schema, in words of many servers.

SCHEMA_REFUSALS = [
  (400, error('This response_format type is unavailable now')),
  (
    400,
    {
      'object': 'error',
      'message': 'The provided JSON schema contains '
      'features not supported by xgrammar.',
    },
  ),
  (400, error('Grammar error: Unimplemented keys: ["minItems"]')),
  (400, error('Failed to initialize samplers: failed to parse grammar')),
  (422, {'error': 'Grammar is not supported', 'error_type': 'validation'}),
  (400, {'message': 'Failed to compile json schema: unsupported'}),
  (
    400,
    [
      {
        'error': {
          'message': 'Invalid JSON payload received. Unknown name '
          '"additionalProperties" at \'generation_config\'',
          'code': 400,
        }
      }
    ],
  ),
  (
    422,
    {
      'detail': [
        {
          'type': 'extra_forbidden',
          'msg': 'Extra inputs are not permitted',
          'loc': ['body', 'response_format'],
        }
      ]
    },
  ),
  (500, error('Structured outputs need a guided decoding backend')),
  (501, {'detail': 'not implemented'}),
  (404, error('No endpoints found that support response_format')),
  (400, b'Bad Request'),
  (400, b'<html><body>Bad Request</body></html>'),
]


def _sends(handler, value, status=200):
  body = value if isinstance(value, bytes) else json.dumps(value).encode()
  handler.send(status, body, {})


class Picky(FaultyServer):
  """Refuses what `dislikes` finds in a body, and answers the rest."""

  def __init__(self, dislikes, status, value, text='{"steps":[],"answer":3}'):
    super().__init__()
    self._rule = dislikes, status, value
    self._text = text

  def _meet(self, handler, prompt, time_of_prompt):
    dislikes, status, value = self._rule
    if dislikes(self.bodies[-1]):
      _sends(handler, value, status)
    else:
      _sends(handler, chat_completion('id', self._text))


@pytest.mark.parametrize(('status', 'value'), SCHEMA_REFUSALS)
def test_a_schema_refused_in_any_words_goes_into_the_prompt(
  ledger, status, value
):
  server = Picky(lambda body: 'response_format' in body, status, value)
  with server:
    answers = ask(
      server.url,
      ledger,
      [request(i) for i in range(4)],
      Answer,
      max_concurrency=1,
    )
  assert {a.finish_reason for a in answers} == {'stop'}
  # Once, and for all that follow.
  assert len(server.bodies) == 5
  assert '"answer"' in server.bodies[1]['messages'][0]['content']
  assert ledger.totals()['unsettled']['calls'] == 0


PARAMETERS = [
  ('temperature', 400, error("'temperature' is deprecated for this model")),
  (
    'temperature',
    422,
    {
      'detail': [
        {
          'loc': ['body', 'temperature'],
          'msg': 'Extra inputs are not permitted',
        }
      ]
    },
  ),
  (
    'top_k',
    400,
    [{'error': {'message': 'Unknown name "top_k": Cannot find field.'}}],
  ),
  ('min_p', 400, b'min_p is not a parameter'),
  ('max_tokens', 400, error('Unsupported parameter: max_tokens')),
  ('reasoning_effort', 400, error('Unrecognized: reasoning_effort')),
  ('system', 400, error('System role not supported')),
  ('system', 500, {'error': 'TemplateError: roles must alternate user/model'}),
  ('system', 400, error('Developer instruction is not enabled for gemma')),
  ('system', 422, {'detail': "Unexpected role 'system'"}),
  ('system', 500, b'jinja2.exceptions.UndefinedError in chat template'),
]


@pytest.mark.parametrize(('name', 'status', 'value'), PARAMETERS)
def test_a_refused_parameter_is_left_out(ledger, name, status, value):
  def dislikes(body):
    if name == 'system':
      return body['messages'][0]['role'] == 'system'
    return name in body

  what = Request(
    'teacher',
    'problem 1',
    0.5,
    5,
    0.9,
    64,
    system='Teach.',
    min_p=0.1,
    reasoning_effort='low',
  )
  with Picky(dislikes, status, value, TEXT) as server:
    (answer,) = ask(server.url, ledger, [what])
  assert answer.text == TEXT and len(server.bodies) == 2
  # Nothing else is left out.
  second = server.bodies[1]
  others = {'temperature', 'top_k', 'min_p', 'reasoning_effort'} - {name}
  assert others <= second.keys() and (name == 'system' or name not in second)


def test_too_long_a_prompt_is_no_refusal_of_a_parameter(ledger):
  words = error(
    "This model's maximum context length is 4096 tokens, with max_tokens, "
    'messages and response_format.'
  )
  with Picky(lambda body: True, 400, words) as server:
    with pytest.raises(TeacherError, match='maximum context'):
      ask(server.url, ledger, [request(1)], Answer)
  assert len(server.bodies) == 1


def test_a_schema_is_not_given_up_for_another_fault(ledger):
  """The same words without a schema: it was not the schema."""
  with Picky(lambda body: True, 400, b'Bad Request') as server:
    with pytest.raises(TeacherError, match='Bad Request'):
      ask(server.url, ledger, [request(1)], Answer)
  assert ['response_format' in b for b in server.bodies] == [True, False]


UNFIT = error(
  "Failed to generate JSON. See 'failed_generation'.",
  code='json_validate_failed',
  failed_generation='{"steps": ',
)


def test_a_sample_that_the_server_finds_unfit_is_one_bad_sample(ledger):
  def dislikes(body):
    return 'problem 1' == body['messages'][0]['content']

  with Picky(dislikes, 400, UNFIT) as server:
    answers = ask(
      server.url,
      ledger,
      [request(i) for i in range(4)],
      Answer,
      max_regenerations=2,
      max_concurrency=1,
    )
  ends = [a.finish_reason for a in answers]
  assert ends == ['stop', 'schema', 'stop', 'stop']
  assert answers[1].discarded == '{"steps":'
  # It may have been paid for, each time.
  assert len(server.bodies) == 3 + 3 and ledger.totals()['calls'] == 6


def test_what_the_server_found_unfit_may_fit(ledger):
  nearly = UNFIT['error'] | {
    'failed_generation': '{"steps": [1], "answer": "3",}'
  }
  nearly = {'error': nearly}
  with Picky(lambda body: True, 400, nearly) as server:
    (answer,) = ask(server.url, ledger, [request(1)], Answer)
  assert Answer.model_validate_json(answer.text).answer == 3
  assert len(server.bodies) == 1


def test_latex_of_a_teacher_reaches_the_ledger_whole(ledger):
  raw = r'{"steps": ["\frac{1}{2} \times 6"], "answer": 3}'
  with Picky(lambda body: False, 0, None, raw) as server:
    (answer,) = ask(server.url, ledger, [request(1)], Answer)
  assert json.loads(answer.text)['steps'] == [r'\frac{1}{2} \times 6']
  assert answer.discarded == raw
  feed = '{"steps": ["a\\f 1"], "answer": 3}'
  with Picky(lambda body: False, 0, None, feed) as server:
    (answer,) = ask(server.url, ledger, [request(2)], Answer)
  assert (answer.finish_reason, answer.text) == ('schema', '')


# Waits.


def test_a_used_up_day_ends_the_run_with_its_time(ledger):
  def respond(body, headers):
    return (
      200,
      {
        'x-ratelimit-remaining-requests': '0',
        'x-ratelimit-reset-requests': '23h59m12s',
      },
      chat_completion('id', TEXT),
    )

  with FaultyServer(respond=respond) as server:
    with pytest.raises(
      TeacherError, match=r'wait 863\d\d s, until 20\d\d-\d\d-\d\d .*limit'
    ):
      ask(server.url, ledger, [plain('1'), plain('2')], max_concurrency=1)
  assert len(server.asked) == 1 and ledger.totals()['completions'] == 1


def test_a_wait_that_is_allowed_is_said_with_its_end(ledger, caplog):
  limiter = rate_limits.RateLimiter(max_wait_seconds=50, clock=lambda: 0.0)
  assert limiter.try_acquire(1) == 0
  limiter.finish(
    1,
    {
      'x-ratelimit-remaining-requests': '0',
      'x-ratelimit-reset-requests': '2d',
    },
  )
  assert limiter.try_acquire(1) == 50
  assert limiter.told_seconds(1) == 2 * 86_400


# Keys.


def _spelt(text, depth):
  """JSON of JSON, every character by its number."""
  spelt = ''.join(f'\\u{ord(c):04X}' for c in text)
  for _ in range(depth):
    spelt = spelt.replace('\\', '\\\\')
  return spelt


@pytest.mark.parametrize('depth', [0, 1, 2])
@pytest.mark.parametrize('status', [200, 400])
def test_a_key_in_any_spelling_is_stored_and_shown_nowhere(
  ledger, tmp_path, monkeypatch, caplog, depth, status
):
  monkeypatch.setenv('TEACHER_KEY', KEY)
  mark = 'MARK'
  value = chat_completion(mark, mark) if status == 200 else error(mark)
  spelt = _spelt(KEY, depth) + ' ' + json.dumps(json.dumps(KEY))[1:-1]
  body = json.dumps(value).replace(mark, spelt.replace('/', '\\/'))
  with HostileServer(status, {}, body.encode()) as server:
    try:
      (answer,) = ask(server.url, ledger, [plain()], api_key_env='TEACHER_KEY')
      shown = repr(answer)
    except TeacherError as e:
      shown = str(e)
  ledger.close()
  content = ''.join(
    f.read_bytes().decode('utf-8', 'replace') for f in tmp_path.iterdir()
  )
  for text in (shown, content, caplog.text):
    for _ in range(4):  # However often it is read as JSON.
      assert KEY not in text
      text = re.sub(r'\\u([0-9a-fA-F]{4})', lambda m: chr(int(m[1], 16)), text)
      text = re.sub(r'\\(.)', r'\1', text)
  assert '[key]' in shown


@hypothesis.given(
  st.text(
    st.characters(min_codepoint=33, max_codepoint=126), min_size=6, max_size=60
  ),
  st.integers(0, 3),
)
@hypothesis.settings(deadline=None)
def test_redaction_finds_any_key(key, depth):
  text = key
  for _ in range(depth):
    text = json.dumps(text)
  assert key not in redaction.Redaction(key)(f'a {text} b')
  assert redaction.Redaction(key)(_spelt(key, depth)) == '[key]'
  assert redaction.Redaction(key)('harmless') == 'harmless' or (
    key in 'harmless'
  )


# Addresses.

ADDRESSES = [
  'http://127.0.0.1:99999/v1',
  'http://127.0.0.1:abc/v1',
  'http://[::1/v1',
  'http:///v1',
  'ftp://127.0.0.1/v1',
  'localhost:8000',
  '',
  'http://a b/v1',
  'http://127.0.0.1:0/v1',
  'http://\x00/v1',
  f'http://user:{KEY}@h/v1',
  f'http://h/v1?key={KEY}',
  f'http://h/v1#{KEY}',
  f'http://h:{KEY}/v1',
]


@pytest.mark.parametrize('address', ADDRESSES)
def test_an_address_that_cannot_be_used_is_one_line(address):
  with pytest.raises(TeacherError, match='teacher.base_url') as caught:
    openai_http.Settings(base_url=address)
  assert KEY not in str(caught.value) and '\n' not in str(caught.value)


ENVIRONMENTS = [
  ({'ALL_PROXY': 'socks5://127.0.0.1:1'}, 'socksio|SOCKS'),
  ({'HTTPS_PROXY': 'socks5://127.0.0.1:1'}, 'socksio|SOCKS'),
  ({'SSL_CERT_FILE': '/nowhere.pem'}, 'SSL_CERT_FILE'),
  ({'HTTPS_PROXY': 'gopher://127.0.0.1:1'}, 'HTTPS_PROXY'),
]


@pytest.mark.parametrize(('variables', 'words'), ENVIRONMENTS)
def test_an_environment_that_cannot_be_used_is_one_line(
  monkeypatch, variables, words
):
  for name in ('NO_PROXY', 'no_proxy'):
    monkeypatch.delenv(name, raising=False)
  for name, value in variables.items():
    monkeypatch.setenv(name, value)
  with pytest.raises(TeacherError, match=words) as caught:
    OpenAITeacher('m', settings('https://example.invalid/v1'))
  assert '\n' not in str(caught.value)
  # What is on this machine needs none of it.
  OpenAITeacher('m', settings('http://127.0.0.1:1/v1'))


def test_no_proxy_is_between_us_and_this_machine(ledger, monkeypatch):
  with FaultyServer() as proxy, FaultyServer() as server:
    for name in ('NO_PROXY', 'no_proxy'):
      monkeypatch.delenv(name, raising=False)
    for name in ('HTTP_PROXY', 'http_proxy', 'ALL_PROXY'):
      monkeypatch.setenv(name, proxy.url.removesuffix('/v1'))
    ask(server.url, ledger, [plain()])
    ask(server.url.replace('127.0.0.1', 'localhost'), ledger, [plain('2 2')])
  assert len(server.asked) == 2 and not proxy.asked


def test_a_redirect_on_the_same_server_is_followed(ledger):
  class Moved(FaultyServer):
    def _meet(self, handler, prompt, time_of_prompt):
      if handler.path.endswith('/'):
        _sends(handler, chat_completion('id', TEXT))
      else:
        handler.send(307, b'', {'Location': handler.path + '/'})

  with Moved() as server:
    (answer,) = ask(server.url, ledger, [plain()])
  assert answer.text == TEXT


# Anything at all: a value or one line, and no hang.

JSON = st.recursive(
  st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=9),
  lambda inner: (
    st.lists(inner, max_size=4)
    | st.dictionaries(
      st.sampled_from(
        [
          'choices',
          'message',
          'content',
          'finish_reason',
          'usage',
          'error',
          'detail',
          'text',
          'type',
          'id',
          'delta',
          'code',
          'refusal',
          'reasoning',
          'prompt_tokens',
          'loc',
          'msg',
          'completion_tokens',
          'total_tokens',
          'param',
          'status',
        ]
      ),
      inner,
      max_size=5,
    )
  ),
  max_leaves=25,
)
BODIES = st.one_of(
  JSON.map(lambda v: json.dumps(v).encode()),
  JSON.map(lambda v: json.dumps({'choices': [{'message': v}]}).encode()),
  JSON.map(lambda v: json.dumps({'choices': [v], 'usage': v}).encode()),
  st.binary(max_size=200),
  st.text('[]{}",:\\u0123dfbn<>/ ').map(str.encode),
)
FUZZ = hypothesis.settings(deadline=None, max_examples=500)


@contextlib.contextmanager
def at_once():
  """Two seconds of this process: other ones may have the machine."""
  begun = time.process_time()
  yield
  assert time.process_time() - begun < 2


@pytest.mark.slow
@FUZZ
@hypothesis.given(BODIES, st.sampled_from([200, 400, 404, 422, 500]))
def test_any_body_is_a_reply_or_one_line(body, status):
  with at_once():
    _read_anything(body, status)


def _read_anything(body, status):
  text = replies.decode(body)
  refusal = refusals.read(status, text)
  assert refusal.message and '\n' not in refusal.message
  chat.Dialect().narrowed(refusal, request(1))
  try:
    value = replies.load(text)
    inside = refusals.inside(value)
    assert inside is None or inside.message
    found = replies.read(value)
  except replies.DamagedReply as e:
    assert str(e)
    return
  answer, _, _ = replies.completion(found, request(1), 100, Answer)
  assert 0 <= answer.prompt_tokens <= 100
  assert 0 <= answer.completion_tokens
  assert isinstance(answer.text, str) and answer.text.encode() is not None
  answer.reasoning.encode(), answer.discarded.encode()


PIECES = st.sampled_from(
  [
    '{',
    '}',
    '[',
    ']',
    '"',
    ':',
    ',',
    '\\',
    '\\\\',
    '\\n',
    '\\f',
    '\\u00',
    'steps',
    'answer',
    '"steps": [',
    '"answer": 3',
    'frac',
    'nu',
    '```',
    '\n',
    '$',
    "'",
    '//',
    '1e999',
    '-',
    'null',
    'NaN',
    '\ud800',
    '\x00',
    'é',
  ]
)


@pytest.mark.slow
@FUZZ
@hypothesis.given(
  st.lists(PIECES, max_size=60).map(''.join), st.sampled_from([1, 1, 1, 300])
)
def test_any_text_is_a_value_or_none(text, times):
  with at_once():
    found = structured.parse(text * times, Answer)
    assert structured.misfit(text * times, Answer)
  assert found is None or isinstance(found.answer, int)


@pytest.mark.slow
@FUZZ
@hypothesis.given(st.text(max_size=40), st.text('0123456789.hmsd:, GMTWedOct'))
def test_any_header_is_a_number_or_none(name, text):
  for value in (name, text):
    for seconds in (
      rate_limits.parse_duration(value),
      rate_limits.retry_after_seconds({'retry-after': value}),
      rate_limits.retry_after_seconds({'retry-after-ms': value}),
    ):
      assert seconds is None or 0 <= seconds < float('inf')
