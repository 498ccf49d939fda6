"""A teacher asked in batches, against a server that has the whole protocol."""

import dataclasses
import json
import logging as std_logging
import os
import pathlib
import signal
import sqlite3
import subprocess
import sys

import pytest

pytest.importorskip('openai', reason='needs the extra `http`')

from ioa_jax.runtime import signals
from ioa_jax.teachers import batch_calls
from ioa_jax.teachers import ledger as ledger_lib
from ioa_jax.teachers.batch_teacher import BatchTeacher
from ioa_jax.teachers.client import Client
from ioa_jax.teachers.openai_http import OpenAITeacher, TeacherError
from ioa_jax.teachers.requests import Budget, Price, worst_case_prompt_tokens
from tests import batch_server
from tests.batch_server import BatchServer, answered, prompt_of, refused
from tests.faulty_server import error, right_answer
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


def teacher(url, which='lessons', **fields):
  fields = {'max_attempts': 4, 'timeout_seconds': 5.0} | fields
  fields = {'max_regenerations': 2} | fields
  direct = OpenAITeacher('teacher', settings(url, **fields))
  return BatchTeacher(direct, which, poll_seconds=0.01)


def ask(
  server, ledger, count=6, *, which='lessons', budget=None, price=None, **fields
):
  """What is answered to `count` requests for lessons, and what was said."""
  said = []
  client = Client(
    teacher(server.url, which, **fields),
    ledger,
    budget or Budget(),
    price=price,
  )
  answers = client.ask(
    [request(i) for i in range(count)],
    Answer,
    for_lessons=True,
    on_wait=said.append,
  )
  return answers, said


def assert_right(answers):
  found = [Answer.model_validate_json(a.text).answer for a in answers]
  assert found == list(range(len(answers)))


def states(ledger):
  totals = ledger.totals()
  return totals['completions'], totals['unsettled']['calls']


def under_way(ledger):
  return ledger.batches(Budget()).under_way()


def test_a_batch_answers_everything_at_its_price(ledger):
  price = Price(10.0, 20.0, batch_discount=0.5)
  with BatchServer() as server:
    answers, said = ask(server, ledger, price=price)
    again, _ = ask(server, ledger, price=price)
  assert_right(answers)
  assert again == answers and len(server.batches) == 1 and not server.asked
  assert set(server.worked_on.values()) == {1} and len(server.worked_on) == 6
  # 11 prompt and 7 completion tokens a line, at half of the price.
  assert ledger.totals()['price_usd'] == pytest.approx(
    6 * (11 * 10 + 7 * 20) / 2 / 1e6
  )
  assert states(ledger) == (6, 0) and not under_way(ledger)
  assert any('in_progress 0/6' in line for line in said)
  assert 'completed 6/6' in said[-1]


@pytest.mark.parametrize(
  ('which', 'for_lessons', 'in_batches'),
  [
    ('never', True, False),
    ('lessons', True, True),
    ('lessons', False, False),
    ('all', False, True),
  ],
)
def test_what_goes_into_a_batch_is_configured(
  ledger, which, for_lessons, in_batches
):
  with BatchServer() as server:
    client = Client(teacher(server.url, which), ledger, Budget())
    answers = client.ask(
      [request(i) for i in range(3)], Answer, for_lessons=for_lessons
    )
  assert_right(answers)
  assert bool(server.batches) == in_batches
  assert bool(server.asked) != in_batches


def test_a_line_is_the_request_as_it_is_sent_at_once(ledger):
  one = dataclasses.replace(request(0), top_k=5, min_p=0.1, system='be brief')
  two = dataclasses.replace(one, sample_index=1)
  with BatchServer() as server:
    Client(teacher(server.url, 'never'), ledger, Budget()).ask([one], Answer)
    Client(teacher(server.url, 'all'), ledger, Budget()).ask([two], Answer)
    (batch,) = server.batches.values()
    (line,) = server.lines(batch['input_file_id'])
  assert line['body'] == server.bodies[0]
  assert (line['method'], line['url']) == ('POST', '/v1/chat/completions')


def without(server_text, number):
  rows = server_text.splitlines(keepends=True)
  return ''.join(r for i, r in enumerate(rows) if i != number)


STRANGE = {
  'reversed': lambda text: ''.join(text.splitlines(keepends=True)[::-1]),
  'every line twice': lambda text: text + text,
  'a second answer to a line': lambda text: (
    text + text.replace('look', 'look twice')
  ),
  'an unknown custom_id': lambda text: (
    json.dumps(
      {'custom_id': 'nobody', 'response': {'status_code': 200, 'body': {}}}
    )
    + '\n'
    + text
  ),
  'lines that are nothing': lambda text: (
    'null\n[1]\n{"custom_id": 7}\n\n'
    '{"custom_id": "x", "response": {"status_code": "200"}}\n{"cu\n' + text
  ),
  'blank lines and CRLF': lambda text: '\r\n' + text.replace('\n', '\r\n\r\n'),
}


@pytest.mark.parametrize('what', STRANGE)
def test_results_in_any_shape_answer_each_line_once(ledger, what):
  with BatchServer(mangle=STRANGE[what]) as server:
    answers, _ = ask(server, ledger)
  assert_right(answers)
  assert len(server.batches) == 1 and states(ledger) == (6, 0)


def test_a_file_that_was_cut_is_read_again(ledger):
  cuts = iter([300, 900])

  def cut(text):
    return text[: next(cuts, len(text))]

  with BatchServer(mangle=cut) as server:
    answers, _ = ask(server, ledger)
  assert_right(answers)
  assert len(server.batches) == 1 and set(server.worked_on.values()) == {1}


def test_a_missing_line_is_counted_in_full_and_asked_again(ledger):
  def mangle(text):
    return without(text, 0) if len(text.splitlines()) > 1 else text

  with BatchServer(mangle=mangle) as server:
    answers, _ = ask(server, ledger)
  assert_right(answers)
  assert len(server.batches) == 2
  # The server says that it completed the line, so it may be charged.
  assert states(ledger) == (6, 1)
  assert ledger.totals()['unsettled']['completion_tokens'] == 64


@pytest.mark.parametrize('how', ['expired', 'cancelled'])
def test_what_a_batch_that_was_cut_short_has_is_kept(ledger, how):
  with BatchServer(course=('in_progress', how)) as server:
    if how == 'cancelled':
      with pytest.raises(TeacherError, match='was cancelled on the server'):
        ask(server, ledger)
      assert states(ledger) == (3, 0)
    else:
      # 6 lines, 3 of them answered; then 3, 1 answered; then 2.
      with pytest.raises(TeacherError, match='brought nothing'):
        ask(server, ledger)
      assert states(ledger) == (5, 0)
    server.course = ('completed',)
    answers, _ = ask(server, ledger)
  assert_right(answers)
  assert set(server.worked_on.values()) == {1}, 'something was paid twice'


def test_a_batch_that_fails_its_check_costs_nothing_and_says_why(ledger):
  with BatchServer(course=('validating', 'failed')) as server:
    with pytest.raises(TeacherError, match='invalid_json_line line 1'):
      ask(server, ledger)
    assert ledger.spent() == (0, 0, 0) and not under_way(ledger)
    server.course = batch_server.COURSE
    answers, _ = ask(server, ledger)
  assert_right(answers)


def test_lines_that_fail_are_asked_again_and_others_are_kept(ledger):
  """Odd lines fail in one of several ways before they are answered."""
  met = []

  def answer(body, before):
    prompt = prompt_of(body)
    number = int(prompt.split()[-1])
    tried = met.count(number)
    met.append(number)
    if number % 2 == 0 or tried:
      return batch_server.good(body, before)
    return {
      1: refused(500, 'overloaded'),
      3: {'response': None, 'error': {'code': 'server_error', 'message': 'x'}},
      5: answered('unfit', '{"steps": "none"}'),
      7: answered('empty', ''),
      9: {'response': {'status_code': 200, 'body': 'no JSON'}, 'error': None},
      11: refused(429, 'slow down'),
    }[number]

  with BatchServer(answer=answer) as server:
    answers, _ = ask(server, ledger, 12)
    second = server.lines(list(server.batches.values())[1]['input_file_id'])
  assert_right(answers)
  assert len(server.batches) == 2 and len(second) == 6
  # The one that did not fit is told so.
  repairs = [x for x in second if len(x['body']['messages']) > 1]
  assert [prompt_of(x['body']) for x in repairs] == ['problem 5']
  # 12 answers; what did not fit or was damaged is counted as well.
  with sqlite3.connect(ledger._path) as db:
    rows = db.execute('SELECT state, COUNT(*) FROM calls GROUP BY state')
    assert dict(rows) == {'stored': 12, 'rejected': 2, 'lost': 1}


def test_a_parameter_that_is_refused_is_left_out_of_the_next_batch(ledger):
  def answer(body, before):
    if 'max_tokens' in body:
      return refused(
        400, 'Use max_completion_tokens instead.', param='max_tokens'
      )
    if 'temperature' in body:
      return refused(400, 'Unsupported value', param='temperature')
    return batch_server.good(body, before)

  with BatchServer(answer=answer) as server:
    answers, _ = ask(server, ledger)
  assert_right(answers)
  assert len(server.batches) == 3 and states(ledger) == (6, 0)


def test_a_line_that_is_refused_for_good_ends_the_job_after_the_others(ledger):
  def answer(body, before):
    if prompt_of(body).startswith('problem 3'):
      return refused(400, 'this prompt is not taken', code='bad_prompt')
    return batch_server.good(body, before)

  with BatchServer(answer=answer) as server:
    with pytest.raises(TeacherError, match='this prompt is not taken'):
      ask(server, ledger)
  assert states(ledger) == (5, 0) and not under_way(ledger)


def test_an_answer_that_never_fits_is_an_outcome(ledger):
  answer = lambda body, before: answered('x', 'no JSON')
  with BatchServer(answer=answer) as server:
    answers, _ = ask(server, ledger, 2)
  assert [a.finish_reason for a in answers] == ['schema', 'schema']
  assert len(server.batches) == 3, 'once and max_regenerations'


def test_a_hard_budget_holds_over_what_is_under_way(ledger):
  """Six lines of 64 tokens at worst and 7 in truth, in a budget of 200."""
  seen = []

  def meet(method, kind, before):
    if (method, kind) == ('POST', 'batches'):
      seen.append(ledger.spent()[1])

  with BatchServer(meet=meet) as server:
    answers, _ = ask(server, ledger, budget=Budget(200))
  assert_right(answers)
  assert len(server.batches) > 1 and max(seen) <= 200
  first = next(iter(server.batches.values()))
  assert len(server.lines(first['input_file_id'])) == 3


def test_a_budget_that_holds_no_line_sends_nothing(ledger):
  with BatchServer() as server:
    with pytest.raises(ledger_lib.BudgetExceeded):
      ask(server, ledger, budget=Budget(63))
  assert not server.files and ledger.spent() == (0, 0, 0)


def test_dollars_are_reserved_at_the_price_of_a_batch(ledger):
  price = Price(0.0, 1e6, batch_discount=0.5)
  # A line is 32 dollars at most, at half of 64.
  with BatchServer() as server:
    ask(server, ledger, 2, budget=Budget(max_usd=64.0), price=price)
  (batch,) = server.batches.values()
  assert len(server.lines(batch['input_file_id'])) == 2


UNSUPPORTED = {
  'no such address': (404, {'detail': 'Not Found'}),
  'not allowed': (405, error('method not allowed')),
  'not implemented': (501, error('not implemented')),
  'a page': (200, '<html>welcome</html>'),
  'something else': (200, {'object': 'model'}),
}


@pytest.mark.parametrize('what', UNSUPPORTED)
@pytest.mark.parametrize('for_lessons', [True, False])
def test_a_server_without_batches_is_one_line_before_anything_is_paid(
  ledger, what, for_lessons
):
  meet = lambda method, kind, before: UNSUPPORTED[what]
  with BatchServer(meet=meet) as server:
    client = Client(teacher(server.url), ledger, Budget())
    with pytest.raises(TeacherError) as e:
      client.ask([request(0)], Answer, for_lessons=for_lessons)
  assert 'does not offer batches' in str(e.value)
  assert 'teacher.batch' in str(e.value) and '\n' not in str(e.value)
  assert not server.asked and not server.files
  assert ledger.spent() == (0, 0, 0)


def test_files_that_are_not_taken_cost_nothing(ledger):
  def meet(method, kind, before):
    return (404, error('Not Found')) if method == 'POST' else None

  with BatchServer(meet=meet) as server:
    with pytest.raises(TeacherError, match='does not offer batches'):
      ask(server, ledger)
  assert ledger.spent() == (0, 0, 0) and not under_way(ledger)


CREATED_AND_NOT_TOLD = {
  'cut': ('cut', {'id': 'batch_2', 'status': 'validating'}),
  '502': (502, error('bad gateway')),
  '500': (500, error('out of order')),
  'damaged': (200, '{"id": "batch'),
  'without an id': (200, {'object': 'batch', 'status': 'validating'}),
}


@pytest.mark.parametrize('keeps_metadata', [True, False])
@pytest.mark.parametrize('how', CREATED_AND_NOT_TOLD)
def test_a_batch_that_was_created_unseen_is_found(ledger, how, keeps_metadata):
  def after(method, kind, before):
    if (method, kind, before) == ('POST', 'batches', 0):
      return CREATED_AND_NOT_TOLD[how]

  with BatchServer(after=after, keeps_metadata=keeps_metadata) as server:
    answers, _ = ask(server, ledger)
  assert_right(answers)
  assert len(server.batches) == 1 and states(ledger) == (6, 0)


def test_it_is_found_among_many_others(ledger):
  def after(method, kind, before):
    if (method, kind, before) == ('POST', 'batches', 0):
      for _ in range(5):
        server._create(
          {
            'input_file_id': stranger,
            'endpoint': '/v1/chat/completions',
            'completion_window': '24h',
          }
        )
      return 502, error('bad gateway')

  with BatchServer(after=after) as server:
    stranger = 'file-of-others'
    server.files[stranger] = 'x.jsonl', ''
    answers, _ = ask(server, ledger)
  assert_right(answers)
  assert len(server.batches) == 6 and set(server.worked_on.values()) == {1}


def test_an_endless_list_ends(ledger):
  def meet(method, kind, before):
    if (method, kind) == ('POST', 'batches'):
      return 502, error('bad gateway')
    if (method, kind) == ('GET', 'batches') and before:
      entry = {'id': f'batch_{before}', 'status': 'completed'}
      return 200, {'object': 'list', 'data': [entry], 'has_more': True}

  with BatchServer(meet=meet) as server:
    with pytest.raises(TeacherError, match='more than 100 pages'):
      ask(server, ledger)
  # It may be there: what it can cost stays counted, and the batch is known.
  assert states(ledger) == (0, 6) and len(under_way(ledger)) == 1


FAULTS = [(500, error('x')), (429, error('x')), ('cut', {}), (200, 'no JSON')]


def test_every_call_may_fail_and_nothing_is_paid_twice(ledger):
  def meet(method, kind, before):
    # Two of three calls of each kind fail, each in its turn.
    if before % 3 and not (method == 'POST' and kind == 'batches'):
      return FAULTS[before % len(FAULTS)]

  with BatchServer(meet=meet) as server:
    # The list's first call, and each file's, must be whole.
    answers, _ = ask(server, ledger, max_attempts=8)
  assert_right(answers)
  assert len(server.batches) == 1 and set(server.worked_on.values()) == {1}


def test_a_batch_that_the_server_has_lost_is_counted_and_asked_again(ledger):
  def meet(method, kind, before):
    if (method, kind) == ('GET', 'batches/ID') and before == 1:
      server.batches.clear()

  with BatchServer(meet=meet) as server:
    with pytest.raises(TeacherError, match='brought nothing'):
      ask(server, ledger)
    assert states(ledger) == (0, 6) and not under_way(ledger)
    answers, _ = ask(server, ledger)
  assert_right(answers)
  assert states(ledger) == (6, 6)


HOSTILE_IDS = ['../../files', 'a/b', '', '.', '..', 'x' * 300, 'a\x1b[2J', 7]


@pytest.mark.parametrize('found', HOSTILE_IDS)
def test_no_id_leads_to_another_address(ledger, found):
  def after(method, kind, before):
    if (method, kind) == ('POST', 'files'):
      return 200, {'id': found, 'object': 'file'}

  with BatchServer(after=after) as server:
    with pytest.raises(TeacherError, match='an uploaded file has no id'):
      ask(server, ledger)
  assert not server.batches and ledger.spent() == (0, 0, 0)


def test_results_are_bounded(ledger):
  mangle = lambda text: text + ' ' * 2**23
  with BatchServer(mangle=mangle) as server:
    with pytest.raises(TeacherError, match='max_reply_bytes'):
      ask(server, ledger, max_reply_bytes=2**20)
    # Nothing is lost by it: with a higher limit the same batch is read.
    answers, _ = ask(server, ledger, max_reply_bytes=2**24)
  assert_right(answers)
  assert len(server.batches) == 1 and set(server.worked_on.values()) == {1}


def test_the_key_is_nowhere(ledger, tmp_path, monkeypatch, caplog, capfd):
  caplog.set_level(std_logging.DEBUG)
  monkeypatch.setenv('A_KEY', KEY)

  def answer(body, before):
    prompt = prompt_of(body)
    return answered(f'{KEY} {prompt}', right_answer(prompt), reasoning=KEY)

  def after(method, kind, before):
    if (method, kind) == ('GET', 'batches/ID') and before == 0:
      return 200, {'id': 'b', 'status': f'in_progress {KEY}\x1b[2J'}

  with BatchServer(answer=answer, after=after) as server:
    answers, said = ask(server, ledger, api_key_env='A_KEY')
    server.course = ('failed',)
    server.batches.clear()
  assert_right(answers)
  shown = ' '.join([*said, caplog.text, *capfd.readouterr()])
  assert KEY not in shown and '\x1b' not in ' '.join(said)
  ledger.close()
  for file in tmp_path.rglob('*'):
    assert KEY.encode() not in file.read_bytes(), file


def test_a_batch_of_another_address_is_not_paid_for_again(ledger):
  with BatchServer(course=('in_progress',)) as first, BatchServer() as other:
    interrupted(first, ledger)
    with pytest.raises(TeacherError, match='give_up_batches') as e:
      ask(other, ledger)
    assert first.url in str(e.value) and not other.batches
    (batch,) = under_way(ledger)
    ledger.batches(Budget()).close(batch.name)
    answers, _ = ask(other, ledger)
  assert_right(answers)
  assert states(ledger) == (6, 6), 'what the first may charge is not counted'


def interrupted(server, ledger, **options):
  """Stops the waiting as a notebook does, once the batch is under way."""

  def stop(line):
    raise KeyboardInterrupt

  client = Client(teacher(server.url), ledger, Budget())
  with pytest.raises(KeyboardInterrupt):
    client.ask(
      [request(i) for i in range(6)], Answer, for_lessons=True, on_wait=stop
    )


def test_a_signal_that_training_makes_a_wish_ends_the_wait(ledger, caplog):
  with BatchServer(course=('in_progress',)) as server:

    def stop(line):
      if wish.signal_name is None:  # A second one would end this process.
        os.kill(os.getpid(), signal.SIGTERM)

    client = Client(teacher(server.url), ledger, Budget())
    with signals.StopRequest() as wish, pytest.raises(KeyboardInterrupt):
      client.ask(
        [request(i) for i in range(6)], Answer, for_lessons=True, on_wait=stop
      )
    assert wish.signal_name == 'SIGTERM'
    assert 'takes up its answers' in caplog.text
    assert not signals.is_stopping()
    server.course = batch_server.COURSE
    answers, _ = ask(server, ledger)
  assert_right(answers)
  assert len(server.batches) == 1


def test_many_requests_are_several_batches_at_once(ledger, monkeypatch):
  monkeypatch.setattr(batch_calls, '_MOST_LINES', 2)
  with BatchServer() as server:
    answers, said = ask(server, ledger, 5)
  assert_right(answers)
  assert len(server.batches) == 3 and said[-1].count('completed') >= 1
  assert any(line.count('; ') == 2 for line in said)


@pytest.mark.parametrize('which', ['never', 'lessons', 'all'])
def test_what_is_in_a_batch_is_waited_for_whatever_is_configured(ledger, which):
  """Also where more is asked than the batch holds, or less."""
  with BatchServer(course=('in_progress',)) as server:
    interrupted(server, ledger)
    server.course = batch_server.COURSE
    answers, _ = ask(server, ledger, 8, which=which)
  assert_right(answers)
  assert set(server.worked_on.values()) == {1}
  assert len(server.asked) == (2 if which == 'never' else 0)
  assert not under_way(ledger)


def test_other_requests_leave_a_batch_alone(ledger):
  with BatchServer(course=('in_progress',)) as server:
    interrupted(server, ledger)
    (before,) = under_way(ledger)
    client = Client(teacher(server.url), ledger, Budget())
    client.ask([request(99)], Answer)
    assert under_way(ledger) == [before]


def test_a_damaged_request_is_not_sent_or_stored(ledger, tmp_path):
  with BatchServer(course=('in_progress',)) as server:
    interrupted(server, ledger)
    with sqlite3.connect(tmp_path / 'ledger.sqlite') as db:
      db.execute("UPDATE batch_lines SET request = replace(request, '5', '6')")
    with pytest.raises(ledger_lib.LedgerError, match='give_up_batches'):
      ask(server, ledger)
    assert len(server.batches) == 1
    # What the error advises can be done.
    batches = ledger.batches(Budget())
    for name in batches.names():
      batches.close(name)
    assert states(ledger) == (0, 6)
    server.course = batch_server.COURSE
    answers, _ = ask(server, ledger)
  assert_right(answers)


@pytest.mark.slow
def test_the_command_shows_batches_and_gives_them_up(ledger, tmp_path):
  path = tmp_path / 'ledger.sqlite'

  def command(*options):
    return subprocess.run(
      [sys.executable, ROOT / 'scripts' / 'ledger.py', path, *options],
      capture_output=True,
      text=True,
      check=True,
      cwd=ROOT,
      env=os.environ | {'PYTHONPATH': str(ROOT)},
    ).stdout

  with BatchServer(course=('in_progress',)) as server:
    interrupted(server, ledger)
    (batch,) = under_way(ledger)
    shown = command()
    assert f'under way: {batch.name} on {server.url} (batch_' in shown
    assert '6 of 6 requests open' in shown
    assert f'given up: {batch.name}' in command('--give_up_batches')
    assert 'under way' not in command()
  assert not under_way(ledger) and states(ledger) == (0, 6)


def test_reservations_are_the_worst_case(ledger):
  with BatchServer(course=('in_progress',)) as server:
    interrupted(server, ledger)
  worst = sum(worst_case_prompt_tokens(request(i)) for i in range(6))
  assert ledger.spent()[:2] == (worst, 6 * 64)
