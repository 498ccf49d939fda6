"""The ledger against damage, old versions and another job at work."""

import json
import os
import pathlib
import random
import shutil
import sqlite3
import subprocess
import sys
import threading
import time

import hypothesis
from hypothesis import strategies as st
import pytest

from ioa_jax.teachers.client import Client
from ioa_jax.teachers.ledger import Ledger, LedgerError
from ioa_jax.teachers.requests import Budget, Completion, Request
from tests.test_ledger import Parrot, completion, request

ROOT = pathlib.Path(__file__).parents[1]
SCRIPT = ROOT / 'scripts' / 'ledger.py'
# The layout before fingerprints, as that version wrote it.
VERSION_2 = """
CREATE TABLE meta (version INTEGER NOT NULL);
INSERT INTO meta VALUES (2);
CREATE TABLE completions (
  key TEXT PRIMARY KEY, request TEXT NOT NULL, text TEXT NOT NULL,
  finish_reason TEXT NOT NULL, prompt_tokens INTEGER NOT NULL,
  completion_tokens INTEGER NOT NULL,
  reasoning TEXT NOT NULL DEFAULT '', discarded TEXT NOT NULL DEFAULT '',
  price_usd REAL NOT NULL DEFAULT 0, response_id TEXT NOT NULL DEFAULT '');
CREATE TABLE calls (
  id INTEGER PRIMARY KEY, key TEXT NOT NULL, state TEXT NOT NULL,
  prompt_tokens INTEGER NOT NULL, completion_tokens INTEGER NOT NULL,
  price_usd REAL NOT NULL, response_id TEXT NOT NULL DEFAULT '',
  note TEXT NOT NULL DEFAULT '');
CREATE INDEX calls_of_key ON calls (key);
CREATE TABLE sums (
  state TEXT PRIMARY KEY, calls INTEGER, prompt_tokens INTEGER,
  completion_tokens INTEGER, price_usd REAL);
"""


@pytest.fixture
def path(tmp_path):
  return tmp_path / 'ledger.sqlite'


def stored(path, answers):
  """A closed ledger of these."""
  ledger = Ledger(path)
  ledger.store(answers.items())
  ledger.close()


def answers(count):
  return {
    request(str(i)): completion(f'answer {i} ' * 9, price_usd=0.25)
    for i in range(count)
  }


def change(path, statement, *values):
  db = sqlite3.connect(path)
  with db:
    db.execute(statement, values)
  db.close()


# Older versions.


def old_ledger(path, rows):
  db = sqlite3.connect(path)
  with db:
    db.executescript(VERSION_2)
    for r, c in rows:
      db.execute(
        'INSERT INTO completions VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)',
        (
          r.key(),
          r.to_json(),
          c.text,
          c.finish_reason,
          c.prompt_tokens,
          c.completion_tokens,
          c.reasoning,
          c.discarded,
          c.price_usd,
          c.response_id,
        ),
      )
      db.execute(
        'INSERT INTO calls (key, state, prompt_tokens, completion_tokens, '
        "price_usd) VALUES (?, 'stored', 5, 2, 0.5)",
        (r.key(),),
      )
    db.execute(
      "INSERT INTO sums SELECT 'stored', COUNT(*), SUM(prompt_tokens), "
      'SUM(completion_tokens), SUM(price_usd) FROM calls'
    )
  db.close()


@pytest.mark.parametrize('read_only', [True, False])
def test_a_ledger_without_fingerprints_is_read(path, read_only):
  known = answers(20)
  old_ledger(path, known.items())
  before = path.read_bytes()
  ledger = Ledger(path, read_only=read_only)
  assert ledger.find(list(known)) == list(known.values())
  assert ledger.find([request('new')]) == [None]
  assert [e['text'] for e in ledger.entries()] == [
    c.text for c in known.values()
  ]
  assert ledger.totals()['price_usd'] == 10.0
  ledger.close()
  if read_only:
    assert path.read_bytes() == before
    return
  # From now on its answers are sealed.
  change(path, "UPDATE completions SET text = 'x' WHERE rowid = 3")
  ledger = Ledger(path)
  with pytest.raises(LedgerError, match='--repair'):
    ledger.find(list(known))


@pytest.mark.parametrize(
  'end',
  [
    'eos_token',
    'eos',
    'stop_sequence',
    'end',
    'STOP',
    'end_turn',
    'COMPLETE',
    'FINISH_REASON_STOP',
  ],
)
def test_what_was_taken_for_no_answer_is_one(path, end):
  """An earlier version kept such a text apart, and paid for nothing."""
  lost = Completion('', end, 5, 2, discarded='The answer is 42.')
  old_ledger(path, [(request(), lost)])
  for options in ({'read_only': True}, {}):
    ledger = Ledger(path, **options)
    (found,) = ledger.find([request()])
    assert (found.text, found.finish_reason) == ('The answer is 42.', 'stop')
    assert next(ledger.entries())['text'] == 'The answer is 42.'
    ledger.close()
  cut = Completion('', 'MAX_TOKENS', 5, 2, discarded='The ans')
  filtered = Completion('', 'content_filter', 5, 2, discarded='The')
  stored(path, {request('a'): cut, request('b'): filtered})
  ledger = Ledger(path)
  found = ledger.find([request('a'), request('b')])
  assert [f.finish_reason for f in found] == ['length', 'content_filter']
  assert [f.text for f in found] == ['', '']


# Damage.


def test_no_flipped_bit_gives_another_text_or_pays_again(path, tmp_path):
  """Each answer is what was stored, or a line says that it is damaged."""
  known = answers(40)
  stored(path, known)
  content, rng = path.read_bytes(), random.Random(0)
  said = 0
  for trial in range(150):
    bit = rng.randrange(8 * len(content))
    flipped = bytearray(content)
    flipped[bit // 8] ^= 1 << bit % 8
    copy = tmp_path / f'{trial}' / 'ledger.sqlite'
    copy.parent.mkdir()
    copy.write_bytes(flipped)
    ledger = None
    try:
      ledger = Ledger(copy)
      found = ledger.find(list(known))
      assert found == list(known.values()), f'bit {bit}'
      # The money, too: these are sums of what is in the file twice.
      assert ledger.totals()['completions'] == 40
    except LedgerError as e:
      said += 1
      assert '\n' not in str(e)
    finally:
      if ledger is not None:
        ledger.close()
    shutil.rmtree(copy.parent)
  assert said > 20


COLUMNS = (
  'key',
  'request',
  'text',
  'finish_reason',
  'prompt_tokens',
  'completion_tokens',
  'reasoning',
  'discarded',
  'price_usd',
  'response_id',
  'fingerprint',
)


@pytest.mark.parametrize('column', COLUMNS)
def test_every_field_of_an_answer_is_sealed(path, column):
  known = answers(3)
  stored(path, known)
  change(path, f'UPDATE completions SET {column} = ? WHERE rowid = 2', '7')
  ledger = Ledger(path)
  with pytest.raises(LedgerError, match=r'damaged .* not used.* --repair'):
    ledger.find(list(known))
  with pytest.raises(LedgerError, match='--repair'):
    Client(Parrot(), ledger, Budget()).ask(list(known))
  # What is whole can be listed.
  assert len(list(ledger.entries())) == 2
  before = ledger.totals()
  assert len(ledger.repair()) == 1 and ledger.repair() == []
  teacher = Parrot()
  Client(teacher, ledger, Budget()).ask(list(known))
  assert teacher.asked == [1]
  # What was set aside is kept, and was paid for.
  assert ledger.totals()['price_usd'] == before['price_usd']
  ledger.close()
  db = sqlite3.connect(path)
  ((row,),) = db.execute('SELECT row FROM damaged').fetchall()
  db.close()
  assert '7' in json.loads(row) or 7 in json.loads(row)


def test_damaged_sums_are_counted_again(path):
  stored(path, answers(4))
  change(path, "UPDATE sums SET price_usd = -1000, completion_tokens = 'x'")
  ledger = Ledger(path)
  assert ledger.totals()['price_usd'] == 1.0
  assert ledger.totals()['completion_tokens'] == 8
  ledger.close()


ANYTHING = st.one_of(
  st.none(),
  st.integers(-(2**63), 2**63 - 1),
  st.floats(),
  st.binary(max_size=9),
  st.text(st.characters(exclude_categories=['Cs']), max_size=20),
  st.sampled_from(['{}', '[]', '{"model": 1}', '[' * 5000, 'stop', '{"a":']),
)


@pytest.mark.slow
@hypothesis.settings(deadline=2000, max_examples=150)
@hypothesis.given(
  st.dictionaries(st.sampled_from(COLUMNS[1:]), ANYTHING),
  st.booleans(),
  st.booleans(),
)
def test_a_row_of_anything_is_a_value_or_one_line(
  tmp_path_factory, values, old, read_only
):
  path = tmp_path_factory.mktemp('rows') / 'ledger.sqlite'
  known = answers(2)
  if old:
    old_ledger(path, known.items())
    values.pop('fingerprint', None)
  else:
    stored(path, known)
  for column, value in values.items():
    try:
      change(
        path, f'UPDATE completions SET {column} = ? WHERE rowid = 2', value
      )
    except sqlite3.IntegrityError:
      pass  # NULL is no value of this column.
  ledger = Ledger(path, read_only=read_only)
  for act in (
    lambda: ledger.find(list(known)),
    lambda: list(ledger.entries()),
    ledger.totals,
    lambda: read_only or ledger.repair(),
  ):
    try:
      act()
    except LedgerError as e:
      assert '\n' not in str(e)
  ledger.close()


# Two jobs.


class Slow(Parrot):
  """Takes its time before each answer."""

  def answer(self, requests, account, response_model):
    for r in requests:
      self.asked.append(r)
      time.sleep(0.01)
      account.store({r: Completion(r.prompt, 'stop', 1, 3)})


def test_two_jobs_on_one_ledger_pay_once(path):
  """Each has opened the file for itself, as two processes do."""
  teachers = [Slow(), Slow()]
  requests = [request(str(i)) for i in range(20)]
  Ledger(path).close()
  results = {}

  def job(n):
    ledger = Ledger(path)
    results[n] = Client(teachers[n], ledger, Budget()).ask(requests)
    ledger.close()

  threads = [threading.Thread(target=job, args=(n,)) for n in (0, 1)]
  for thread in threads:
    thread.start()
  for thread in threads:
    thread.join()
  assert sorted(len(t.asked) for t in teachers) == [0, 20]
  assert results[0] == results[1] and len(results[0]) == 20


HOLDER = """
import pathlib, sys, time
from ioa_jax.teachers.ledger import Ledger
with Ledger(pathlib.Path(sys.argv[1])).claimed():
  print('claimed', flush=True)
  time.sleep(600)
"""


def test_a_claim_ends_with_its_process(path):
  holder = subprocess.Popen(
    [sys.executable, '-c', HOLDER, str(path)],
    stdout=subprocess.PIPE,
    env=os.environ | {'PYTHONPATH': str(ROOT)},
    text=True,
  )
  assert holder.stdout.readline() == 'claimed\n'
  ledger = Ledger(path)
  killer = threading.Timer(0.3, holder.kill)
  killer.start()
  begun = time.monotonic()
  teacher = Parrot()
  Client(teacher, ledger, Budget()).ask([request()])
  assert time.monotonic() - begun > 0.25 and teacher.asked == [1]
  holder.wait()
  # What is known needs no turn.
  with ledger.claimed():
    Client(teacher, Ledger(path), Budget()).ask([request()])


@pytest.mark.slow
def test_the_script_sets_damaged_answers_aside(path, tmp_path):
  stored(path, answers(3))
  change(path, "UPDATE completions SET text = 'y' WHERE rowid = 1")

  def script(*arguments):
    return subprocess.run(
      [sys.executable, SCRIPT, tmp_path, *arguments],
      cwd=ROOT,
      text=True,
      capture_output=True,
      env=os.environ | {'PYTHONPATH': str(ROOT)},
    )

  assert 'teacher: 2 answers, stop' in script().stdout
  assert '1 damaged answers set aside' in script('--repair').stdout
  assert '0 damaged answers set aside' in script('--repair').stdout


def test_an_answer_is_never_taken_for_another_request(path):
  """Requests of a model that was renamed are other requests."""
  stored(path, answers(1))
  ledger = Ledger(path)
  other = Request('other', '0', 0.0, 0, 1.0, max_tokens=48)
  assert ledger.find([other]) == [None]
