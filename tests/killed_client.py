"""A client to be killed: asks for everything, from the ledger or the server.

  python -m tests.killed_client URL LEDGER NUM_REQUESTS

For each line read it forks a process that does the whole job, prints its id,
and when it is gone its exit code. Forked, because imports take longer than the
job; the parent holds neither thread nor connection nor ledger.
"""

import os
import pathlib
import sys

import pydantic

from ioa_jax.teachers import ledger as ledger_lib
from ioa_jax.teachers import openai_http
from ioa_jax.teachers.client import Client
from ioa_jax.teachers.requests import Budget, Request, schema_text


class Answer(pydantic.BaseModel):
  steps: list[str]
  answer: int


def request(index: int, **fields) -> Request:
  return Request(
    'teacher',
    f'problem {index}',
    0.0,
    0,
    1.0,
    max_tokens=64,
    response_schema=schema_text(Answer),
    **fields,
  )


def settings(url: str, **fields) -> openai_http.Settings:
  """No key, and backoff so short that hundreds of failures take seconds."""
  return openai_http.Settings(
    **{
      'base_url': url,
      'api_key_env': '',
      'max_concurrency': 8,
      'first_backoff_seconds': 0.005,
      'max_backoff_seconds': 0.05,
      # 40 % of all calls fail: ten in a row happen once in ten thousand.
      'max_attempts': 30,
      'max_regenerations': 20,
      'timeout_seconds': 60.0,
    }
    | fields
  )


def work(url: str, path: str, count: str) -> None:
  teacher = openai_http.OpenAITeacher('teacher', settings(url))
  ledger = ledger_lib.Ledger(pathlib.Path(path))
  Client(teacher, ledger, Budget()).ask(
    [request(i) for i in range(int(count))], Answer
  )
  ledger.close()


def main(arguments: list[str]) -> None:
  for _ in sys.stdin:
    process = os.fork()
    if not process:
      work(*arguments)
      os._exit(0)
    print(process, flush=True)
    _, status = os.waitpid(process, 0)
    print(os.waitstatus_to_exitcode(status), flush=True)


if __name__ == '__main__':
  main(sys.argv[1:])
