"""The HTTP teacher against a server that fails on purpose."""

from collections import Counter
import logging as std_logging
import os
import pathlib
import random
import signal
import socket
import sqlite3
import subprocess
import sys
import time

import pytest

pytest.importorskip('openai', reason='needs the extra `http`')

from ioa_jax.teachers import ledger as ledger_lib
from ioa_jax.teachers import openai_http
from ioa_jax.teachers.client import Client
from ioa_jax.teachers.openai_http import OpenAITeacher, TeacherError
from ioa_jax.teachers.requests import (
  Budget,
  Price,
  Request,
  worst_case_prompt_tokens,
)
from tests import faulty_server
from tests.faulty_server import (
  FaultyServer,
  chat_completion,
  error,
)
from tests.killed_client import Answer, request, settings

ROOT = pathlib.Path(__file__).parents[1]
KEY = 'sk-do-not-show-me-0123456789'


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch):
  monkeypatch.setenv('NO_PROXY', '127.0.0.1')


@pytest.fixture
def ledger(tmp_path):
  ledger = ledger_lib.Ledger(tmp_path / 'ledger.sqlite')
  yield ledger
  ledger.close()


def plain(prompt='problem 1', **fields) -> Request:
  return Request('teacher', prompt, 0.7, 0, 1.0, max_tokens=64, **fields)


def ask(
  url, ledger, requests, *, budget=None, price=None, model=None, **fields
):
  teacher = OpenAITeacher('teacher', settings(url, **fields))
  client = Client(teacher, ledger, budget or Budget(), price=price)
  return client.ask(requests, model), client.cached


def ask_one(respond, ledger, what=None, **fields):
  """The answer and the bodies that it took."""
  with FaultyServer(respond=respond) as server:
    (answer,), _ = ask(server.url, ledger, [what or plain()], **fields)
  return answer, server.bodies


def good(text='fine', **choice):
  return 200, {}, chat_completion('id', text, **choice)


def calls(path) -> list[tuple[str, str, str]]:
  with sqlite3.connect(path) as db:
    return db.execute('SELECT state, response_id, key FROM calls').fetchall()


def test_500_requests_with_40_percent_faults(ledger, tmp_path):
  requests = [request(i) for i in range(500)]
  with FaultyServer(fault_rate=0.4, seed=1) as server:
    answers, cached = ask(
      server.url, ledger, requests, model=Answer, max_concurrency=16
    )
    sent = len(server.asked)
    again, cached_again = ask(server.url, ledger, requests, model=Answer)
    assert len(server.asked) == sent, 'an answer was asked for twice'
  assert cached == 0 and cached_again == 500 and again == answers
  assert [Answer.model_validate_json(a.text).answer for a in answers] == list(
    range(500)
  )
  # The share of faults is what was ordered, and each kind was met.
  assert 0.35 < 1 - server.met['good'] / sent < 0.45
  assert set(server.met) == {'good', *faulty_server.FAULTS}
  # The books agree: whole replies once each, others as perhaps charged.
  rows = calls(tmp_path / 'ledger.sqlite')
  booked = [i for state, i, _ in rows if state in ('stored', 'rejected')]
  assert Counter(booked) == Counter(server.paid)
  assert max(Counter(server.paid).values()) == 1
  states = Counter(state for state, _, _ in rows)
  assert states['stored'] == 500
  assert states['rejected'] == server.met['schema'] + server.met['empty']
  assert states['lost'] == sum(server.met[f] for f in faulty_server.LOST)
  assert set(states) == {'stored', 'rejected', 'lost'}
  totals = ledger.totals()
  assert totals['completion_tokens'] == 7 * len(server.paid)


@pytest.mark.slow
def test_kill_9_loses_nothing_stored_and_repeats_nothing_stored(tmp_path):
  count, trials = 500, 20
  path = tmp_path / 'ledger.sqlite'
  rng = random.Random(0)

  def stored():
    reader = ledger_lib.Ledger(path, read_only=True)
    found = {e['request']['prompt']: e['text'] for e in reader.entries()}
    reader.close()
    return found

  before: dict[str, str] = {}
  killed_at_work = 0
  with (
    FaultyServer(fault_rate=0.4, seed=2, latency_seconds=0.005) as server,
    subprocess.Popen(
      [
        sys.executable,
        '-m',
        'tests.killed_client',
        server.url,
        path,
        str(count),
      ],
      stdin=subprocess.PIPE,
      stdout=subprocess.PIPE,
      text=True,
      cwd=ROOT,
    ) as clients,
  ):

    def start():
      clients.stdin.write('go\n')
      clients.stdin.flush()
      return int(clients.stdout.readline())

    for _ in range(trials):
      asked_before = len(server.asked)
      process = start()
      # By progress and not by the clock: the same on a slow machine.
      target = asked_before + rng.randint(1, 40)
      deadline = time.monotonic() + 60
      while len(server.asked) < target:
        assert time.monotonic() < deadline, 'the client does nothing'
        time.sleep(0.001)
      time.sleep(rng.uniform(0, 0.02))
      os.kill(process, signal.SIGKILL)
      assert clients.stdout.readline() == '-9\n'
      # What was stored when this client began, it must not have asked for.
      repeated = set(server.asked[asked_before:]) & set(before)
      assert not repeated, f'paid twice: {sorted(repeated)}'
      after = stored() if path.exists() else {}
      changed = {k for k in before if after.get(k) != before[k]}
      assert not changed, f'lost or changed: {sorted(changed)}'
      killed_at_work += before.keys() < after.keys()
      before = after
    asked_before = len(server.asked)
    start()
    assert clients.stdout.readline() == '0\n'
    clients.stdin.close()
  assert not set(server.asked[asked_before:]) & set(before)
  assert stored().keys() == {f'problem {i}' for i in range(count)}
  # The kills did fall into the work.
  assert killed_at_work >= trials / 2 and len(before) < count
  booked = Counter(i for s, i, _ in calls(path) if s in ('stored', 'rejected'))
  assert max(booked.values()) == 1 and booked.keys() <= set(server.paid)


def test_no_more_at_once_than_allowed(ledger):
  with FaultyServer(latency_seconds=0.02) as server:
    ask(
      server.url,
      ledger,
      [request(i) for i in range(20)],
      model=Answer,
      max_concurrency=3,
    )
  assert server.most_at_once == 3


def test_an_answer_is_stored_before_it_is_used(ledger, tmp_path):
  seen = []

  def on_progress(done, total):
    with sqlite3.connect(tmp_path / 'ledger.sqlite') as db:
      seen.append((done, *db.execute('SELECT COUNT(*) FROM completions')))

  with FaultyServer() as server:
    teacher = OpenAITeacher('teacher', settings(server.url))
    Client(teacher, ledger, Budget()).ask(
      [plain(f'problem {i}') for i in range(5)], on_progress=on_progress
    )
  assert [done for done, _ in seen] == [0, 1, 2, 3, 4, 5]
  assert all(stored >= done for done, (stored,) in seen)


@pytest.mark.parametrize('status', [408, 409, 429, 500, 502, 503, 529])
def test_retries_what_may_pass(ledger, status):
  replies = [(status, {}, error('later')), (status, {}, error('later')), good()]
  answer, bodies = ask_one(lambda *_: replies.pop(0), ledger)
  assert answer.text == 'fine' and len(bodies) == 3


@pytest.mark.parametrize('status', [400, 401, 403, 404, 405, 413, 422])
def test_does_not_retry_what_will_not(ledger, status):
  with FaultyServer(respond=lambda *_: (status, {}, error('no'))) as server:
    with pytest.raises(TeacherError, match=str(status)):
      ask(server.url, ledger, [plain()])
  assert len(server.asked) == 1
  assert ledger.totals()['unsettled']['calls'] == 0


def test_retry_after_holds_for_all_calls(ledger):
  started = time.monotonic()
  refused_at, answered_at = [], []

  def respond(body, headers):
    if not refused_at:
      refused_at.append(time.monotonic() - started)
      return 429, {'Retry-After': '0.5'}, error('wait')
    answered_at.append(time.monotonic() - started)
    return good()

  with FaultyServer(respond=respond) as server:
    # One at first, so that the others come after the refusal.
    ask(
      server.url,
      ledger,
      [plain(f'problem {i}') for i in range(6)],
      max_concurrency=1,
    )
  assert min(answered_at) >= refused_at[0] + 0.5


def test_too_long_a_retry_after_ends_the_job(ledger):
  with FaultyServer(
    respond=lambda *_: (429, {'Retry-After': '7200'}, error('wait'))
  ) as server:
    with pytest.raises(TeacherError, match='asks to wait 7200 s'):
      ask(server.url, ledger, [plain()])


def test_failing_for_good_stops_and_keeps_what_is_there(ledger):
  def respond(body, headers):
    if 'bad' in body['messages'][0]['content']:
      return 500, {}, error('broken')
    return good()

  requests = [plain('problem 1'), plain('bad'), plain('problem 2')]
  with FaultyServer(respond=respond) as server:
    with pytest.raises(TeacherError, match=r"failed 3 times.*'bad'.*500 "):
      ask(server.url, ledger, requests, max_attempts=3)
  assert ledger.totals()['completions'] == 2


def test_slow_bytes_end_at_the_time_limit(ledger):
  class Trickle(FaultyServer):
    def _meet(self, handler, prompt, time_of_prompt):
      text = 'x' * 500
      content = str(chat_completion('id', text)).encode()
      handler.send(200, content, seconds=3.0)

  with Trickle() as server:
    with pytest.raises(TeacherError, match='no whole answer in 0'):
      ask(server.url, ledger, [plain()], timeout_seconds=0.3, max_attempts=2)
  # Two calls that may have been charged.
  assert ledger.totals()['unsettled']['completion_tokens'] == 128


def test_an_unreachable_server_is_said_at_once(ledger):
  with FaultyServer() as server:
    url = server.url
  started = time.monotonic()
  with pytest.raises(TeacherError, match=r'cannot be reached.*base_url'):
    ask(url, ledger, [plain()])
  assert time.monotonic() - started < 10
  assert ledger.totals()['unsettled']['calls'] == 0


def test_an_unknown_model_names_those_that_are_served(ledger):
  with FaultyServer(respond=lambda *_: (404, {}, error('no model'))) as server:
    with pytest.raises(TeacherError, match=r"model 'teacher'.*serves teacher"):
      ask(server.url, ledger, [plain()])


def test_a_used_up_quota_is_not_waited_for(ledger):
  reply = 429, {}, error('You exceeded it', code='insufficient_quota')
  with FaultyServer(respond=lambda *_: reply) as server:
    with pytest.raises(TeacherError, match=r'quota .* is used up'):
      ask(server.url, ledger, [plain()])
  assert len(server.asked) == 1


def test_the_key_is_sent_and_shown_nowhere(
  ledger, tmp_path, monkeypatch, caplog
):
  monkeypatch.setenv('TEACHER_KEY', KEY)
  caplog.set_level(std_logging.DEBUG)
  seen = set()

  def respond(body, headers):
    seen.add(headers['Authorization'])
    # Servers that quote the key, in an answer and in errors.
    if 'bad' in body['messages'][0]['content']:
      return 401, {}, error(f'Incorrect API key provided: {KEY}.')
    if 'odd' in body['messages'][0]['content']:
      return 418, {}, error(f'no tea for {KEY}')
    return good(f'you sent {KEY}')

  with FaultyServer(respond=respond) as server:
    url = server.url
    (answer,), _ = ask(url, ledger, [plain()], api_key_env='TEACHER_KEY')
    messages = []
    for prompt in ('bad', 'odd'):
      with pytest.raises(TeacherError) as caught:
        ask(url, ledger, [plain(prompt)], api_key_env='TEACHER_KEY')
      assert caught.value.__context__ is None
      messages.append(str(caught.value))
  assert seen == {f'Bearer {KEY}'}
  assert answer.text == 'you sent [key]'
  assert 'refuses the key in $TEACHER_KEY (401). Put' in messages[0]
  assert messages[1].count('[key]') == 1
  teacher = OpenAITeacher('teacher', settings(url, api_key_env='TEACHER_KEY'))
  ledger.close()
  shown = [*messages, caplog.text, repr(vars(teacher)), repr(teacher.settings)]
  assert not [s for s in shown if KEY in s]
  for file in tmp_path.iterdir():
    assert KEY.encode() not in file.read_bytes()


def test_a_missing_key_and_a_key_in_the_config(monkeypatch):
  monkeypatch.delenv('TEACHER_KEY', raising=False)
  with pytest.raises(TeacherError, match='TEACHER_KEY is not set'):
    OpenAITeacher('m', settings('http://x/v1', api_key_env='TEACHER_KEY'))
  for fields in (
    {'api_key_env': KEY},
    {'base_url': f'http://user:{KEY}@127.0.0.1/v1'},
    {'base_url': f'http://127.0.0.1/v1?key={KEY}'},
  ):
    with pytest.raises(TeacherError) as caught:
      openai_http.Settings(**{'base_url': 'http://127.0.0.1/v1'} | fields)
    assert KEY not in str(caught.value)
  with pytest.raises(TeacherError, match='not an http'):
    openai_http.Settings('localhost:8000')


def test_a_budget_below_one_request_sends_nothing(ledger):
  with FaultyServer() as server:
    with pytest.raises(ledger_lib.BudgetExceeded, match='max_completion_tok'):
      ask(
        server.url, ledger, [plain()], budget=Budget(max_completion_tokens=63)
      )
  assert server.asked == []


@pytest.mark.parametrize('seed', range(3))
def test_no_budget_is_ever_crossed(ledger, seed):
  # $1 a token: 18 dollars a reply, and a worst case of hundreds.
  price = Price(1e6, 1e6)
  budget = Budget(max_usd=2000.0, max_completion_tokens=700)
  requests = [request(i) for i in range(200)]
  with FaultyServer(fault_rate=0.4, seed=seed) as server:
    with pytest.raises(ledger_lib.BudgetExceeded):
      ask(
        server.url, ledger, requests, model=Answer, budget=budget, price=price
      )
  totals = ledger.totals()
  at_most = totals['price_usd'] + totals['unsettled']['price_usd']
  assert at_most <= 2000
  # Every worst case that turned out cheaper was used again.
  assert at_most > 2000 - 1000
  assert totals['price_usd'] == 18 * len(server.paid)


def test_what_is_sent(ledger):
  what = plain(system='Teach.', stop=('END',), reasoning_effort='low')
  _, (body,) = ask_one(lambda *_: good(), ledger, what)
  assert body == {
    'model': 'teacher',
    'messages': [
      {'role': 'system', 'content': 'Teach.'},
      {'role': 'user', 'content': 'problem 1'},
    ],
    'max_tokens': 64,
    'temperature': 0.7,
    'stop': ['END'],
    'reasoning_effort': 'low',
  }


def test_a_reasoning_model_is_sent_what_it_takes(ledger):
  what = Request('o1-mini', 'problem 1', 0.0, 5, 0.9, 64, system='Teach.')
  teacher_reply = lambda *_: good()
  with FaultyServer(respond=teacher_reply) as server:
    teacher = OpenAITeacher('o1-mini', settings(server.url))
    Client(teacher, ledger, Budget()).ask([what])
  assert server.bodies == [
    {
      'model': 'o1-mini',
      'messages': [{'role': 'user', 'content': 'Teach.\n\nproblem 1'}],
      'max_completion_tokens': 64,
    }
  ]


def test_refused_parameters_are_left_out_once_for_all(ledger):
  """The refusals are those of OpenAI's reasoning models, word for word."""

  def respond(body, headers):
    if 'max_tokens' in body:
      return (
        400,
        {},
        error(
          "Unsupported parameter: 'max_tokens' is not supported with this "
          "model. Use 'max_completion_tokens' instead.",
          param='max_tokens',
          code='unsupported_parameter',
        ),
      )
    if 'temperature' in body:
      return (
        400,
        {},
        error(
          "Unsupported value: 'temperature' does not support 0.7 with this "
          'model. Only the default (1) value is supported.',
          param='temperature',
          code='unsupported_value',
        ),
      )
    if body['messages'][0]['role'] == 'system':
      return (
        400,
        {},
        error(
          "Unsupported value: 'messages[0].role' does not support 'system' "
          'with this model.',
          param='messages[0].role',
        ),
      )
    return good()

  requests = [plain(f'problem {i}', system='Teach.') for i in range(10)]
  with FaultyServer(respond=respond) as server:
    answers, _ = ask(server.url, ledger, requests, max_concurrency=1)
  assert {a.text for a in answers} == {'fine'}
  assert len(server.bodies) == 10 + 3
  assert ledger.totals()['unsettled']['calls'] == 0


def test_min_p_is_sent_when_set_and_left_out_where_refused(ledger):
  def respond(body, headers):
    if body.get('min_p') == 0.25:
      return 400, {}, error('Unknown parameter: min_p', param='min_p')
    return good()

  asked = [plain('off'), plain('on', min_p=0.125), plain('no', min_p=0.25)]
  with FaultyServer(respond=respond) as server:
    ask(server.url, ledger, asked, max_concurrency=1)
  assert [b.get('min_p') for b in server.bodies] == [None, 0.125, 0.25, None]


def test_structured_output_is_asked_for_and_given_up_once(ledger):
  def respond(body, headers):
    if 'response_format' in body:
      return 400, {}, error('response_format json_schema is not supported')
    return good('```json\n{"steps": [], "answer": 3}\n```')

  with FaultyServer(respond=respond) as server:
    answers, _ = ask(
      server.url,
      ledger,
      [request(i) for i in range(5)],
      model=Answer,
      max_concurrency=1,
    )
  assert {a.text for a in answers} == {'{"steps": [], "answer": 3}'}
  formats = [b.get('response_format') for b in server.bodies]
  assert formats[0]['json_schema']['schema'] == Answer.model_json_schema()
  assert formats[1:] == [None] * 5
  assert '"answer"' in server.bodies[1]['messages'][0]['content']


def test_regeneration_is_bounded_and_says_what_was_wrong(ledger):
  answer, bodies = ask_one(
    lambda *_: good('{"steps": 1}'),
    ledger,
    request(1),
    model=Answer,
    max_regenerations=2,
  )
  assert (answer.finish_reason, answer.text) == ('schema', '')
  assert answer.discarded == '{"steps": 1}'
  assert len(bodies) == 3
  assert bodies[1]['messages'][-2]['content'] == '{"steps": 1}'
  told = bodies[2]['messages'][-1]['content']
  assert told.startswith('That does not fit (steps: Input should be')
  # Some servers accept response_format and ignore it.
  assert told.endswith(request(1).response_schema)
  # Recorded as such: not asked again, and all three calls are paid.
  assert ledger.find([request(1)]) == [answer]
  assert ledger.totals()['completion_tokens'] == 21


def test_empty_answers_are_asked_again_then_recorded(ledger):
  answer, bodies = ask_one(lambda *_: good(''), ledger, max_regenerations=2)
  assert (answer.finish_reason, answer.text, len(bodies)) == ('empty', '', 3)
  replies = [good(' \n'), good('there')]
  answer, bodies = ask_one(lambda *_: replies.pop(0), ledger, plain('two'))
  assert (answer.finish_reason, answer.text) == ('stop', 'there')


@pytest.mark.parametrize('reason', ['length', 'content_filter'])
def test_such_an_ending_is_an_outcome_and_not_text(ledger, reason):
  answer, bodies = ask_one(
    lambda *_: good('half a sen', finish_reason=reason), ledger
  )
  assert (answer.finish_reason, answer.text) == (reason, '')
  assert answer.discarded == 'half a sen' and len(bodies) == 1
  assert ledger.find([plain()]) == [answer]


def test_a_refused_prompt_is_an_outcome(ledger):
  answer, _ = ask_one(
    lambda *_: (400, {}, error('policy', code='content_filter')), ledger
  )
  assert (answer.finish_reason, answer.completion_tokens) == (
    'content_filter',
    0,
  )
  assert ledger.totals()['unsettled']['calls'] == 0
  answer, _ = ask_one(
    lambda *_: good(None, message={'refusal': 'I will not.'}),
    ledger,
    plain('two'),
  )
  assert (answer.finish_reason, answer.text) == ('refusal', '')


@pytest.mark.parametrize(
  ('text', 'message'),
  [
    ('42', {'reasoning_content': 'six by seven'}),
    ('42', {'reasoning': 'six by seven'}),
    ('<think>\nsix by seven\n</think>\n\n42', {}),
    ('six by seven\n</think>\n42', {}),  # The template opened the tag.
  ],
)
def test_reasoning_is_kept_apart(ledger, text, message):
  answer, _ = ask_one(lambda *_: good(text, message=message), ledger)
  assert (answer.text, answer.reasoning) == ('42', 'six by seven')
  assert ledger.find([plain()]) == [answer]


def test_reasoning_without_an_answer_is_no_answer(ledger):
  answer, _ = ask_one(
    lambda *_: good('<think>hm, hm'), ledger, max_regenerations=0
  )
  assert (answer.finish_reason, answer.reasoning) == ('empty', 'hm, hm')


WHAT = plain()
BYTES = len('fine') + 1  # And an end.
USAGES = [
  # What the server says, prompt and completion tokens that are counted.
  ({'prompt_tokens': 11, 'completion_tokens': 7}, 11, 7),
  ({'input_tokens': 11, 'output_tokens': 7}, 11, 7),
  ({'prompt_tokens': '11', 'completion_tokens': 7.0}, 11, 7),
  ({'prompt_tokens': 11, 'total_tokens': 18}, 11, 7),
  ({'completion_tokens': 7, 'total_tokens': 18}, 11, 7),
  ({'prompt_tokens': 11, 'completion_tokens': None}, 11, BYTES),
  (None, None, BYTES),
  ({}, None, BYTES),
  ([], None, BYTES),
  ({'prompt_tokens': -5, 'completion_tokens': -(10**9)}, None, BYTES),
  ({'prompt_tokens': 0, 'completion_tokens': 0}, None, BYTES),
  ({'prompt_tokens': 10**30, 'completion_tokens': 10**30}, None, 64),
  ({'prompt_tokens': 1e999, 'completion_tokens': '1e400'}, None, BYTES),
  ({'prompt_tokens': 'nan', 'completion_tokens': True}, None, BYTES),
  ({'prompt_tokens': 11, 'completion_tokens': 65}, 11, 64),
  ({'prompt_tokens': 5000, 'completion_tokens': 64}, None, 64),
]


@pytest.mark.parametrize(('usage', 'prompt', 'completion'), USAGES)
def test_usage_is_bounded_by_what_was_sent_and_asked(
  ledger, caplog, usage, prompt, completion
):
  def respond(body, headers):
    status, headers, reply = good()
    return status, headers, reply | {'usage': usage}

  answer, bodies = ask_one(respond, ledger, price=Price(1.0, 1.0))
  worst = worst_case_prompt_tokens(WHAT)
  assert answer.text == 'fine' and len(bodies) == 1
  assert answer.prompt_tokens == (worst if prompt is None else prompt)
  assert answer.completion_tokens == completion
  # The books hold what was counted, and an estimate is said.
  totals = ledger.totals()
  assert totals['completion_tokens'] == completion
  assert totals['price_usd'] == pytest.approx(
    (answer.prompt_tokens + completion) / 1e6
  )
  estimated = (prompt, completion) != (11, 7)
  assert ('tokens are counted as bytes' in caplog.text) == estimated


@pytest.mark.parametrize('lie', [-(10**6), 10**30])
def test_no_lie_about_usage_lifts_a_budget(ledger, lie):
  def respond(body, headers):
    status, headers, reply = good('x' * 40)
    reply['usage'] = {'prompt_tokens': lie, 'completion_tokens': lie}
    return status, headers, reply

  requests = [plain(f'problem {i}') for i in range(50)]
  with FaultyServer(respond=respond) as server:
    with pytest.raises(ledger_lib.BudgetExceeded):
      ask(server.url, ledger, requests, budget=Budget(500), max_concurrency=4)
  assert 400 < ledger.totals()['completion_tokens'] <= 500


def test_limits_of_the_server_are_followed(ledger):
  """Two requests a half second, told only through the headers."""
  allowed = {'left': 2, 'until': time.monotonic() + 0.5, 'refused': 0}

  def respond(body, headers):
    now = time.monotonic()
    if now >= allowed['until']:
      allowed.update(left=2, until=now + 0.5)
    if not allowed['left']:
      allowed['refused'] += 1
      return 429, {'Retry-After': '0.5'}, error('too many')
    allowed['left'] -= 1
    return (
      200,
      {
        'x-ratelimit-remaining-requests': str(allowed['left']),
        'x-ratelimit-reset-requests': f'{(allowed["until"] - now) * 1e3:.0f}ms',
      },
      chat_completion('id', 'fine'),
    )

  with FaultyServer(respond=respond) as server:
    ask(
      server.url,
      ledger,
      [plain(f'problem {i}') for i in range(6)],
      max_concurrency=1,
    )
  assert allowed['refused'] == 0 and len(server.asked) == 6


def test_inside_a_running_loop(ledger):
  """As in a notebook."""
  import asyncio

  async def cell(url):
    return ask(url, ledger, [plain()])

  with FaultyServer() as server:
    (answer,), _ = asyncio.run(cell(server.url))
  assert answer.finish_reason == 'stop'


@pytest.mark.slow
def test_against_transformers_serve(ledger):
  """A real server and real weights, on loopback; needs both."""
  checkpoint = os.environ.get('IOA_JAX_SMOLLM2', '')
  if not checkpoint:
    pytest.skip('IOA_JAX_SMOLLM2 does not name a SmolLM2 checkpoint directory')
  for module in ('torch', 'fastapi', 'uvicorn'):
    pytest.importorskip(module, reason='needs transformers[serving]')
  with socket.socket() as free:
    free.bind(('127.0.0.1', 0))
    port = free.getsockname()[1]
  server = subprocess.Popen(
    [
      sys.executable,
      '-m',
      'transformers.cli.transformers',
      'serve',
      checkpoint,
      '--host',
      '127.0.0.1',
      '--port',
      str(port),
    ],
    env=os.environ | {'HF_HUB_OFFLINE': '1'},
    stdout=subprocess.DEVNULL,
    stderr=subprocess.DEVNULL,
  )
  requests = [
    Request(checkpoint, prompt, 0.0, 0, 1.0, tokens)
    for prompt, tokens in (('Say hello.', 48), ('Count from 1 to 100.', 8))
  ]
  teacher = OpenAITeacher(
    checkpoint,
    settings(
      f'http://127.0.0.1:{port}/v1', max_attempts=3, timeout_seconds=240
    ),
  )
  try:
    _wait_for(port, server)
    hello, count = Client(teacher, ledger, Budget()).ask(requests)
  finally:
    server.kill()
    server.wait()
  assert hello.finish_reason == 'stop' and 'ello' in hello.text
  assert (count.finish_reason, count.text) == ('length', '')
  assert count.discarded and count.completion_tokens == 8
  # The bound on prompts holds for a template that adds its own preamble.
  assert hello.prompt_tokens <= worst_case_prompt_tokens(requests[0])
  assert ledger.find(requests) == [hello, count]


def _wait_for(port, server):
  deadline = time.monotonic() + 240
  while True:
    with socket.socket() as probe:
      if probe.connect_ex(('127.0.0.1', port)) == 0:
        return
    assert server.poll() is None and time.monotonic() < deadline
    time.sleep(0.5)
