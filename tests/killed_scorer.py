"""Has a hundred texts scored; to be killed.

python -m tests.killed_scorer URL LEDGER STUDENT
"""

import pathlib
import sys

from ioa_jax.teachers import ledger as ledger_lib
from tests import test_scoring


def main(url: str, path: str, student: str) -> None:
  ledger = ledger_lib.Ledger(pathlib.Path(path))
  client = test_scoring.make_client(url, ledger)
  test_scoring.scorer(client, pathlib.Path(student))(test_scoring.rows(100, 5))
  ledger.close()


if __name__ == '__main__':
  main(*sys.argv[1:])
