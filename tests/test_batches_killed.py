"""A batch whose client dies in any state is paid for once."""

from collections import Counter
import os
import pathlib
import signal
import sqlite3
import subprocess
import sys
import time

import pytest

pytest.importorskip('openai', reason='needs the extra `http`')

from ioa_jax.teachers import ledger as ledger_lib
from ioa_jax.teachers.requests import Budget
from tests.batch_server import BatchServer
from tests.killed_client import request

ROOT = pathlib.Path(__file__).parents[1]
COUNT = 4


@pytest.fixture(scope='module')
def world():
  """A server, and clients of it that are forked one after the other."""
  with (
    pytest.MonkeyPatch.context() as patch,
    BatchServer() as server,
  ):
    patch.setenv('NO_PROXY', '127.0.0.1')
    clients = subprocess.Popen(
      [
        sys.executable,
        '-m',
        'tests.killed_batch_client',
        server.url,
        str(COUNT),
      ],
      stdin=subprocess.PIPE,
      stdout=subprocess.PIPE,
      text=True,
      cwd=ROOT,
    )
    with clients:
      yield server, clients
      clients.stdin.close()


def start(clients, path, point=0) -> int:
  clients.stdin.write(f'{path} {point}\n')
  clients.stdin.flush()
  return int(clients.stdout.readline())


def ended(clients) -> tuple[int, int]:
  code, passed = clients.stdout.readline().split()
  return int(code), int(passed)


def run(clients, path, point=0) -> tuple[int, int]:
  start(clients, path, point)
  return ended(clients)


def forget(server):
  server.worked_on.clear()
  server.batches.clear()
  server.files.clear()
  server.calls.clear()


def assert_paid_once(server, path):
  """The server's books and the client's are the same, line for line."""
  assert server.worked_on == {f'problem {i}': 1 for i in range(COUNT)}
  ledger = ledger_lib.Ledger(path)
  answers = ledger.find([request(i) for i in range(COUNT)])
  assert [a.response_id for a in answers] == [
    f'problem {i} #0' for i in range(COUNT)
  ]
  assert ledger.spent()[:2] == (11 * COUNT, 7 * COUNT)
  # Killed after its last line was stored a batch is only not closed yet, which
  # the next one does.
  assert not [b for b in ledger.batches(Budget()).under_way() if b.lines]
  ledger.close()
  with sqlite3.connect(path) as db:
    rows = db.execute('SELECT state, COUNT(*) FROM calls GROUP BY state')
    assert dict(rows) == {'stored': COUNT}


# What was just done, or is about to be, when the process is killed; the number
# of the call of its kind.
STATES = {
  'begun, the file not uploaded': ('before', 'POST', 'files', 0),
  'the file uploaded, its id not stored': ('after', 'POST', 'files', 0),
  'the batch not created': ('before', 'POST', 'batches', 0),
  'the batch created, its id not stored': ('after', 'POST', 'batches', 0),
  'being checked': ('after', 'GET', 'batches/ID', 0),
  'in progress': ('after', 'GET', 'batches/ID', 1),
  'finished, and not known': ('after', 'GET', 'batches/ID', 4),
  'finished, the results not read': ('before', 'GET', 'files/content/ID', 0),
  'finished, the results not stored': ('after', 'GET', 'files/content/ID', 0),
}


@pytest.mark.parametrize('state', STATES)
def test_killed_in_each_state(world, tmp_path, state):
  server, clients = world
  forget(server)
  path = tmp_path / 'ledger.sqlite'
  when, *what = STATES[state]
  process = None

  def kill(method, kind, before):
    if [method, kind, before] == what:
      os.kill(process, signal.SIGKILL)

  name = '_before_work' if when == 'before' else '_after_work'
  keep = getattr(server, name)
  # Not before the process is known here.
  with server._lock_of_batches:
    setattr(server, name, kill)
    process = start(clients, path)
  try:
    assert ended(clients)[0] == -signal.SIGKILL
  finally:
    setattr(server, name, keep)
  assert run(clients, path)[0] == 0
  assert_paid_once(server, path)
  assert len(server.batches) == 1


def test_killed_with_half_of_the_lines_stored(world, tmp_path):
  server, clients = world
  forget(server)
  _, whole = run(clients, tmp_path / 'whole.sqlite')
  forget(server)
  path = tmp_path / 'ledger.sqlite'
  # The last writes are a line each, before and after, and the batch's end.
  assert run(clients, path, whole - 2 - COUNT)[0] == -signal.SIGKILL
  with sqlite3.connect(path) as db:
    ((stored,),) = db.execute('SELECT COUNT(*) FROM completions').fetchall()
  assert stored == COUNT // 2
  assert run(clients, path)[0] == 0
  assert_paid_once(server, path)
  assert len(server.batches) == 1


@pytest.mark.slow
def test_killed_at_every_point(world, tmp_path):
  """Also twice in a row, at the point and at the same point of what follows."""
  server, clients = world
  forget(server)
  _, whole = run(clients, tmp_path / 'whole.sqlite')
  assert whole > 20
  codes = Counter()
  for point in range(1, whole + 1):
    forget(server)
    path = tmp_path / f'{point}.sqlite'
    codes[run(clients, path, point)[0]] += 1
    run(clients, path, point)
    assert run(clients, path)[0] == 0
    assert_paid_once(server, path)
    assert len(server.batches) == 1, point
  assert codes == {-signal.SIGKILL: whole}


def test_ctrl_c_ends_the_wait_within_a_second(world, tmp_path):
  server, clients = world
  forget(server)
  path = tmp_path / 'ledger.sqlite'
  course, server.course = server.course, ('in_progress',)
  try:
    process = start(clients, path)
    deadline = time.monotonic() + 20
    while server.calls['GET', 'batches/ID'] < 3:
      assert time.monotonic() < deadline, 'the client does not look'
      time.sleep(0.01)
    asked = time.monotonic()
    os.kill(process, signal.SIGINT)
    assert ended(clients)[0] == 130
    # Well before the batch would end, which here is never; a second where the
    # processors are idle.
    assert time.monotonic() - asked < 10.0
  finally:
    server.course = course
  assert run(clients, path)[0] == 0
  assert_paid_once(server, path)
  assert len(server.batches) == 1
