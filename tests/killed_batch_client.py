"""A client that asks in batches and dies at a given point.

  python -m tests.killed_batch_client URL NUM_REQUESTS

For each line `LEDGER POINT` read it forks a process that does the whole job,
prints its id, and when it is gone its exit code and how many points it passed.
A point is the moment before or after a call of the server or a write to the
ledger; at POINT the process kills itself, as kill -9 does. 0 lets it live.
"""

import contextlib
import os
import pathlib
import signal
import sys

from ioa_jax.teachers import connection, ledger_database, openai_http
from ioa_jax.teachers import ledger as ledger_lib
from ioa_jax.teachers.batch_teacher import BatchTeacher
from ioa_jax.teachers.client import Client
from ioa_jax.teachers.requests import Budget
from tests.killed_client import Answer, request, settings


def watch(point: int, report: int) -> None:
  """Kills this process at `point`; writes each point that is passed."""
  exchange = connection.Connection.exchange
  transaction = ledger_database.Database.transaction
  passed = 0

  def at_a_point():
    nonlocal passed
    passed += 1
    if passed == point:
      os.kill(os.getpid(), signal.SIGKILL)
    os.write(report, b'.')

  async def watched_exchange(self, call):
    at_a_point()
    arrival = await exchange(self, call)
    at_a_point()
    return arrival

  @contextlib.contextmanager
  def watched_transaction(self, *arguments):
    at_a_point()
    with transaction(self, *arguments) as db:
      yield db
    at_a_point()

  connection.Connection.exchange = watched_exchange
  ledger_database.Database.transaction = watched_transaction


def work(url: str, count: int, path: str) -> None:
  ledger = ledger_lib.Ledger(pathlib.Path(path))
  direct = openai_http.OpenAITeacher('teacher', settings(url, max_attempts=4))
  teacher = BatchTeacher(direct, 'lessons', poll_seconds=0.01)
  Client(teacher, ledger, Budget()).ask(
    [request(i) for i in range(count)], Answer, for_lessons=True
  )
  ledger.close()


def main(url: str, count: str) -> None:
  for line in sys.stdin:
    path, point = line.split()
    reading, writing = os.pipe()
    process = os.fork()
    if not process:
      os.close(reading)
      # Whoever runs tests in the background has it ignored, and so would this.
      signal.signal(signal.SIGINT, signal.default_int_handler)
      watch(int(point), writing)
      try:
        work(url, int(count), path)
      except KeyboardInterrupt:
        os._exit(130)
      os._exit(0)
    os.close(writing)
    print(process, flush=True)
    passed = 0
    while found := os.read(reading, 4096):
      passed += len(found)
    os.close(reading)
    _, status = os.waitpid(process, 0)
    print(os.waitstatus_to_exitcode(status), passed, flush=True)


if __name__ == '__main__':
  # An interrupt is meant for the child.
  main(*sys.argv[1:])
