"""The ledger: nothing paid twice, nothing lost, no budget crossed."""

from __future__ import annotations

from collections import Counter
import dataclasses
import hashlib
import json
import os
import pathlib
import sqlite3
import subprocess
import sys
import threading

import hypothesis
from hypothesis import strategies as st
import pytest

from ioa_jax.teachers import ledger as ledger_lib
from ioa_jax.teachers.client import Client
from ioa_jax.teachers.ledger import BudgetExceeded, Ledger, LedgerError
from ioa_jax.teachers.replay import ReplayMiss, ReplayTeacher
from ioa_jax.teachers.requests import Budget, Completion, Price, Request

ROOT = pathlib.Path(__file__).parents[1]
SCRIPT = ROOT / 'scripts' / 'ledger.py'


def request(prompt='2+2=', **fields) -> Request:
  return Request('teacher', prompt, 0.0, 0, 1.0, max_tokens=48, **fields)


def completion(text='4', **fields) -> Completion:
  return Completion(text, 'stop', 5, 2, **fields)


@pytest.fixture
def path(tmp_path):
  return tmp_path / 'ledger.sqlite'


@pytest.fixture
def ledger(path):
  ledger = Ledger(path)
  yield ledger
  ledger.close()


def reserve(ledger, what=None, tokens=48, usd=1.0, budget=None) -> int:
  return ledger.reserve(
    what or request(),
    prompt_tokens=10,
    completion_tokens=tokens,
    price_usd=usd,
    budget=budget or Budget(),
  )


# The key.


def test_the_key_of_the_first_layout_is_kept():
  """Written out: a key that changed would pay for every old answer again."""
  text = (
    '{"max_tokens": 48, "model": "teacher", "prompt": "2+2=", '
    '"sample_index": 0, "temperature": 0.0, "top_k": 0, "top_p": 1.0}'
  )
  assert request().key() == hashlib.sha256(text.encode()).hexdigest()
  assert request().seed() == int(request().key()[:8], 16)


OTHER = {
  'model': 'other',
  'prompt': '2+3=',
  'temperature': 0.5,
  'top_k': 3,
  'top_p': 0.9,
  'max_tokens': 49,
  'sample_index': 1,
  'system': 'Teach.',
  'response_schema': '{}',
  'stop': ('.',),
  'reasoning_effort': 'low',
  'min_p': 0.1,
  'score': 8,
}


def test_every_field_is_in_the_key():
  # But who pays, and how to check what comes: the same words are the same
  # request for any module.
  fields = {f.name for f in dataclasses.fields(Request)}
  assert OTHER.keys() == fields - {'module', 'token_texts'}
  other = dataclasses.replace(request(), module='sums', token_texts=('2', '+'))
  assert other.key() == request().key() and other == request()
  changed = [dataclasses.replace(request(), **{k: v}) for k, v in OTHER.items()]
  # The same words in another place are another request.
  changed.append(request('Teach.', system='2+2='))
  assert len({r.key() for r in [request(), *changed]}) == 1 + len(changed)


# Storing.


def test_what_is_stored_is_found_after_opening_again(ledger, path):
  rich = completion(
    reasoning='hm', discarded='', price_usd=0.5, response_id='chatcmpl-1'
  )
  ledger.store([(request(), rich), (request('x'), completion('\u2028 é'))])
  ledger.close()
  again = Ledger(path)
  assert again.find([request(), request('x'), request('y')]) == [
    rich,
    completion('\u2028 é'),
    None,
  ]
  again.close()


def test_the_first_answer_stays(ledger):
  ledger.store([(request(), completion('4'))])
  ledger.store([(request(), completion('5'))])
  call = reserve(ledger)
  ledger.settle(call, request(), completion('6', price_usd=0.25))
  assert ledger.find([request()])[0].text == '4'
  totals = ledger.totals()
  # The late answer was paid for all the same.
  assert (totals['completions'], totals['calls']) == (1, 2)
  assert totals['price_usd'] == 0.25


# Calls and budgets.


def test_a_call_counts_in_full_until_it_is_settled(ledger, path):
  calls = [reserve(ledger, request(str(i))) for i in range(4)]
  assert ledger.totals()['unsettled'] == {
    'calls': 4,
    'prompt_tokens': 40,
    'completion_tokens': 192,
    'price_usd': 4.0,
  }
  ledger.settle(calls[0], request('0'), completion(price_usd=0.125))
  ledger.reject(calls[1], completion('', discarded='{', price_usd=0.25), 'bad')
  ledger.lose(calls[2], 'connection reset')
  ledger.release(calls[3])
  expected = {
    'completions': 1,
    'calls': 2,
    'prompt_tokens': 10,
    'completion_tokens': 4,
    'price_usd': 0.375,
    'unsettled': {
      'calls': 1,
      'prompt_tokens': 10,
      'completion_tokens': 48,
      'price_usd': 1.0,
    },
  }
  assert ledger.totals() == expected
  ledger.close()
  again = Ledger(path)
  assert again.totals() == expected
  again.close()


def test_a_call_left_by_a_killed_process_still_counts(path):
  """The server may have charged it, so the budget must believe so."""
  first = Ledger(path)
  reserve(first, tokens=60)
  first.close()
  second = Ledger(path)
  with pytest.raises(BudgetExceeded):
    reserve(second, tokens=60, budget=Budget(max_completion_tokens=100))
  second.close()


@pytest.mark.parametrize(
  ('limit', 'enough', 'short'),
  [
    ('max_completion_tokens', 96, 95),
    ('max_usd', 2.0, 1.999),
  ],
)
def test_a_budget_is_hard_and_exact(ledger, limit, enough, short):
  reserve(ledger)
  before = ledger.totals()
  with pytest.raises(BudgetExceeded, match=f'teacher.{limit} {short:g} '):
    reserve(ledger, budget=Budget(**{limit: short}))
  assert ledger.totals() == before
  reserve(ledger, budget=Budget(**{limit: enough}))


def test_threads_together_never_cross_a_budget(ledger, path):
  budget = Budget(max_completion_tokens=1000)
  refused = Counter()

  def work(name):
    for i in range(40):
      what = request(f'{name} {i}')
      try:
        call = reserve(ledger, what, tokens=30, budget=budget)
      except BudgetExceeded:
        refused[name] += 1
        continue
      sums = ledger.totals()
      assert (
        sums['completion_tokens'] + sums['unsettled']['completion_tokens']
        <= 1000
      )
      ledger.settle(call, what, completion(response_id=f'{name} {i}'))

  errors = []

  def guarded(name):
    try:
      work(name)
    except Exception as e:
      errors.append(e)

  threads = [threading.Thread(target=guarded, args=(n,)) for n in range(8)]
  for thread in threads:
    thread.start()
  for thread in threads:
    thread.join()
  assert not errors
  totals = ledger.totals()
  assert totals['completions'] == totals['calls'] == 320 - refused.total()
  assert totals['unsettled']['calls'] == 0
  with sqlite3.connect(path) as db:
    ids = [i for (i,) in db.execute('SELECT response_id FROM calls')]
  assert len(ids) == len(set(ids)) == totals['calls']


OPERATIONS = st.lists(
  st.tuples(
    st.sampled_from(['store', 'settle', 'reject', 'lose', 'release', 'drop']),
    st.integers(0, 4),
    st.integers(0, 50),
  ),
  max_size=25,
)


@hypothesis.settings(deadline=None, max_examples=25)
@hypothesis.given(OPERATIONS)
def test_the_kept_sums_are_the_sums_of_the_rows(tmp_path_factory, operations):
  path = tmp_path_factory.mktemp('ledger') / 'ledger.sqlite'
  ledger = Ledger(path)
  for name, number, tokens in operations:
    what, answer = request(str(number)), Completion('x', 'stop', 3, tokens)
    if name == 'store':
      ledger.store([(what, answer)])
    elif name == 'drop':
      ledger.drop([what.key()])
    else:
      call = reserve(ledger, what, tokens=tokens)
      {
        'settle': lambda c, w=what, a=answer: ledger.settle(c, w, a),
        'reject': lambda c, a=answer: ledger.reject(c, a, 'why'),
        'lose': lambda c: ledger.lose(c, 'why'),
        'release': ledger.release,
      }[name](call)
  totals = ledger.totals()
  ledger.close()
  with sqlite3.connect(path) as db:
    rows = db.execute(
      'SELECT state IN ("sent", "lost"), COUNT(*), SUM(prompt_tokens), '
      'SUM(completion_tokens), SUM(price_usd) FROM calls GROUP BY 1'
    ).fetchall()
    (stored,) = db.execute('SELECT COUNT(*) FROM completions').fetchone()
  names = ('calls', 'prompt_tokens', 'completion_tokens', 'price_usd')
  for unsettled, sums in ((0, totals), (1, totals['unsettled'])):
    row = next((r[1:] for r in rows if r[0] == unsettled), (0, 0, 0, 0))
    assert tuple(sums[n] for n in names) == row
  assert totals['completions'] == stored


# Versions and damage.


def test_a_newer_version_is_left_alone(ledger, path):
  ledger.close()
  with sqlite3.connect(path) as db:
    db.execute('UPDATE meta SET version = 4')
  db.close()
  before = path.read_bytes()
  for options in ({}, {'begin_new': True}, {'read_only': True}):
    with pytest.raises(LedgerError, match='version 4, .* reads 2 and 3'):
      Ledger(path, **options)
  assert path.read_bytes() == before
  assert not list(path.parent.glob('*corrupt*'))


def test_another_sqlite_file_is_left_alone(path):
  with sqlite3.connect(path) as db:
    db.execute('CREATE TABLE music (title TEXT)')
  db.close()
  before = path.read_bytes()
  with pytest.raises(LedgerError, match='not a ledger'):
    Ledger(path, begin_new=True)
  assert path.read_bytes() == before


def _full(path):
  ledger = Ledger(path)
  ledger.store(
    (request(str(i)), completion('long text ' * 20)) for i in range(200)
  )
  ledger.close()


DAMAGE = {
  'not sqlite': lambda content: b'garbage' * 1000,
  'empty': lambda content: b'',
  'first half': lambda content: content[: len(content) // 2],
  'overwritten': lambda content: (
    content[:20000] + b'\xa5' * 9000 + content[29000:]
  ),
}


@pytest.mark.parametrize('kind', DAMAGE)
def test_a_damaged_ledger_is_kept_and_said_and_not_replaced(path, kind):
  _full(path)
  damaged = DAMAGE[kind](path.read_bytes())
  path.write_bytes(damaged)
  with pytest.raises(
    LedgerError, match=r'damaged.*kept as ledger.corrupt-1\.sq'
  ):
    Ledger(path)
  aside = path.with_name('ledger.corrupt-1.sqlite')
  assert aside.read_bytes() == damaged and not path.exists()
  # Nor does the next start silently pay for everything again.
  with pytest.raises(
    LedgerError, match=r'kept as ledger\.corrupt-1.*begin_new'
  ):
    Ledger(path)
  assert not path.exists()
  new = Ledger(path, begin_new=True)
  assert new.totals()['completions'] == 0
  new.close()
  Ledger(path).close()


def test_a_second_damaged_ledger_is_kept_beside_the_first(path):
  for n in (1, 2):
    path.write_bytes(b'garbage' * n)
    Ledger(path, begin_new=True).close()
    aside = path.with_name(f'ledger.corrupt-{n}.sqlite')
    assert aside.read_bytes() == b'garbage' * n


def test_a_log_without_its_file_is_not_replayed_into_a_new_one(path):
  log = path.with_name('ledger.sqlite-wal')
  log.write_bytes(b'left behind')
  with pytest.raises(LedgerError, match='the file is gone'):
    Ledger(path)
  kept = path.with_name('ledger.corrupt-1.sqlite-wal')
  assert kept.read_bytes() == b'left behind' and not log.exists()


def test_a_directory_that_is_not_there_is_said(tmp_path):
  with pytest.raises(LedgerError, match='cannot be opened'):
    Ledger(tmp_path / 'nowhere' / 'ledger.sqlite')


def test_reading_changes_nothing(ledger, path):
  ledger.store([(request(), completion())])
  ledger.close()
  before = path.read_bytes()
  reader = Ledger(path, read_only=True)
  assert reader.find([request()]) == [completion()]
  with pytest.raises(LedgerError, match='cannot be written'):
    reader.store([(request('x'), completion())])
  reader.close()
  assert path.read_bytes() == before


# Replay.


def test_replay_gives_what_was_recorded_for_nothing(ledger, path, tmp_path):
  ledger.store([(request(str(i)), completion(price_usd=1.0)) for i in range(3)])
  ledger.close()
  recorded = path.read_bytes()
  mine = Ledger(tmp_path / 'mine.sqlite')
  mine.store([(request('0'), completion())])
  teacher = ReplayTeacher(path)
  client = Client(teacher, mine, Budget())
  answers = client.ask([request(str(i)) for i in range(3)])
  assert answers == [completion()] * 3 and client.cached == 1
  assert mine.totals()['completions'] == 3
  assert mine.totals()['price_usd'] == 0
  before = mine.totals()
  with pytest.raises(
    ReplayMiss, match=rf"{request('new').key()[:12]} to 'teacher' \('new'\)"
  ):
    client.ask([request('2'), request('new')])
  assert mine.totals() == before
  teacher.close()
  mine.close()
  assert path.read_bytes() == recorded


def test_replay_of_nothing_or_of_several_is_said(ledger, path, tmp_path):
  with pytest.raises(LedgerError, match='no such ledger'):
    ReplayTeacher(tmp_path / 'absent.sqlite')
  with pytest.raises(ValueError, match='without answers'):
    ReplayTeacher(path)
  other = dataclasses.replace(request(), model='other')
  ledger.store([(request(), completion()), (other, completion())])
  with pytest.raises(ValueError, match=r"\['other', 'teacher'\]"):
    ReplayTeacher(path)
  assert ReplayTeacher(path, 'other').name == 'other'


# The client.


class Parrot:
  """The smallest teacher: it answers with the prompt."""

  name = 'teacher'

  def __init__(self):
    self.asked = []

  def answer(self, requests, account, response_model):
    for part in account.affordable(requests):
      self.asked.append(len(part))
      for r in reversed(part):  # As they happen to end.
        account.store({r: Completion(r.prompt, 'stop', 1, 3)})


def test_only_what_was_not_recorded_is_asked(ledger, path, tmp_path):
  old, new, mine = request('1+1='), request('2+2='), request('3+3=')
  ledger.store([(old, completion('2', price_usd=0.5)), (mine, completion())])
  parrot = Parrot()
  own = Ledger(tmp_path / 'own.sqlite')
  own.store([(mine, completion('6'))])
  recording = Ledger(path, read_only=True)
  client = Client(
    parrot, own, Budget(max_completion_tokens=1000), recording=recording
  )
  answers = client.ask([old, new, mine, old])
  # The run's own answer comes before the recorded one.
  assert [a.text for a in answers] == ['2', '2+2=', '6', '2']
  # What was copied does not count as from the ledger.
  assert client.cached == 1 and parrot.asked == [1]
  totals = own.totals()
  assert totals['completions'] == 3 and totals['price_usd'] == 0
  # A second time nothing is copied and nothing asked.
  poor = Client(
    parrot, own, Budget(max_completion_tokens=0), recording=recording
  )
  assert poor.ask([old, new]) == [answers[0], answers[1]]
  assert poor.cached == 2


def test_a_teacher_is_asked_once_and_within_its_budget(ledger):
  teacher = Parrot()
  requests = [request(str(i)) for i in range(10)]
  within = lambda tokens: Client(teacher, ledger, Budget(tokens))
  seen = []
  answers = within(None).ask(
    [*requests, *requests], on_progress=lambda *counts: seen.append(counts)
  )
  assert [a.text for a in answers] == [r.prompt for r in requests] * 2
  # Ten are new; the other ten are the same requests again.
  assert teacher.asked == [10]
  assert seen == [(2 * i, 20) for i in range(11)]
  poor = within(0)
  poor.ask(requests)
  assert poor.cached == 10
  with pytest.raises(BudgetExceeded, match='completion_tokens 77 .* are .* 30'):
    within(77).ask([request('new')])
  assert teacher.asked == [10]
  # What could be paid for is asked, and kept when the next cannot.
  with pytest.raises(BudgetExceeded, match='80 .* are .* 33'):
    within(30 + 48 + 2).ask([request(f'n{i}') for i in range(5)])


def test_a_limit_in_money_holds_for_any_teacher(ledger):
  """A dollar a token; the worst case is more than two hundred of them."""
  client = Client(
    Parrot(), ledger, Budget(max_usd=1000.0), price=Price(1e6, 1e6)
  )
  with pytest.raises(BudgetExceeded, match='max_usd 1000'):
    client.ask([request(str(i)) for i in range(1000)])
  assert 1000 - 300 < client.totals()['price_usd'] <= 1000
  assert client.totals()['price_usd'] == 4 * client.totals()['calls']
  with pytest.raises(ValueError, match='price is not'):
    Client(Parrot(), ledger, Budget(max_usd=1.0))


def test_reasoning_effort_is_part_of_the_request(ledger):
  client = Client(Parrot(), ledger, Budget())
  client.ask([request()])
  low = request(reasoning_effort='low')
  assert client.find([low]) == [None]
  client.ask([low])
  assert client.cached == 0 and client.totals()['completions'] == 2


def test_a_request_for_another_model_or_without_its_class_is_refused(ledger):
  client = Client(Parrot(), ledger, Budget())
  with pytest.raises(ValueError, match="not for the model 'teacher'"):
    client.ask([dataclasses.replace(request(), model='other')])
  with pytest.raises(ValueError, match='same pydantic class'):
    client.ask([request(response_schema='{}')])


def test_a_deleted_ledger_does_not_reset_the_budget(ledger, path, tmp_path):
  """The run's checkpoint knows what was spent."""
  Client(Parrot(), ledger, Budget()).ask([request(str(i)) for i in range(5)])
  reserve(ledger, tokens=7)
  before = ledger.totals()
  fresh = Ledger(tmp_path / 'fresh.sqlite')
  for _ in range(2):  # It counts once.
    client = Client(Parrot(), fresh, Budget(22 + 47))
    client.carry(before)
    totals = client.totals()
    assert totals['completion_tokens'] == 15 + 7
    assert totals['prompt_tokens'] == 5 + 10
    assert totals['price_usd'] == 1.0 and totals['completions'] == 0
  with pytest.raises(BudgetExceeded):
    client.ask([request('new')])
  # A ledger that is whole is believed.
  for _ in range(2):
    client = Client(Parrot(), ledger, Budget())
    client.carry(before)
    assert client.totals() == before


# The script.


def _script(*arguments):
  return subprocess.run(
    [sys.executable, SCRIPT, *map(str, arguments)],
    cwd=ROOT,
    text=True,
    capture_output=True,
    env=os.environ | {'PYTHONPATH': str(ROOT)},
  )


@pytest.mark.slow
def test_the_script_lists_sums_exports_and_drops(ledger, path, tmp_path):
  ledger.store([(request(str(i)), completion(price_usd=0.5)) for i in range(3)])
  ledger.store([(request('none'), Completion('', 'empty', 5, 0))])
  ledger.lose(reserve(ledger), 'reset')
  ledger.close()
  run = tmp_path
  sums = _script(run).stdout
  assert 'teacher: 3 answers, stop\n' in sums
  assert 'teacher: 1 answers, empty\n' in sums
  assert 'paid: 4 calls, 20 prompt and 6 completion tokens, $1.5000' in sums
  assert 'at most: 1 calls, 10 prompt and 48 completion' in sums
  listed = _script(run, '--list').stdout.splitlines()
  assert len(listed) == 4 and listed[0].startswith(request('0').key()[:12])
  exported = _script(run, '--export=-', '--outcome=stop').stdout.splitlines()
  assert [json.loads(line)['request']['prompt'] for line in exported] == [
    '0',
    '1',
    '2',
  ]
  dropped = _script(run, '--drop', f'--key={request("1").key()[:10]}')
  assert dropped.stdout.splitlines()[-1] == '1 dropped.'
  assert f'dropped {request("1").key()[:12]}' in dropped.stdout
  again = Ledger(path)
  assert again.find([request('0'), request('1')]) == [
    completion(price_usd=0.5),
    None,
  ]
  # The money stays spent.
  assert again.totals()['price_usd'] == 1.5
  again.close()


@pytest.mark.slow
def test_the_script_says_what_is_wrong_in_one_line(path, tmp_path):
  for arguments, words in (
    ([tmp_path / 'absent'], 'does not exist'),
    ([], 'wanted one run directory'),
  ):
    result = _script(*arguments)
    assert result.returncode == 2 and words in result.stderr
    assert len(result.stderr.splitlines()) == 1
  Ledger(path).close()
  result = _script(tmp_path, '--drop')
  assert result.returncode == 2 and 'to choose what to drop' in result.stderr
  path.write_bytes(b'garbage')
  for words in ('damaged', 'begin_new'):
    result = _script(tmp_path)
    assert result.returncode == 2 and words in result.stderr
    assert len(result.stderr.splitlines()) == 1
  result = _script(tmp_path, '--begin_new')
  assert result.returncode == 0 and 'paid: 0 calls' in result.stdout


def test_names_that_others_use_are_here():
  assert ledger_lib.Request is Request and ledger_lib.Completion is Completion
