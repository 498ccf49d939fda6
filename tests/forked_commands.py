"""Runs commands as `ioa` does, each in a fork of a process that imported it.

  python -m tests.forked_commands < COMMANDS.json

COMMANDS are lists of words; the answer is a list of (exit code, out, err). A
fork is a hundred times faster than a start.
"""

import json
import os
import sys
import tempfile

from ioa_jax import commands, pipeline  # noqa: F401 Loaded once for all.
from ioa_jax.experiments import plans, rounds  # noqa: F401


def run(words):
  with tempfile.TemporaryFile('w+') as out, tempfile.TemporaryFile('w+') as err:
    child = os.fork()
    if not child:
      os.dup2(out.fileno(), 1)
      os.dup2(err.fileno(), 2)
      sys.argv = ['ioa', *words]
      code = 0
      try:
        commands.main()
      except SystemExit as e:
        code = e.code or 0
      except BaseException:
        sys.excepthook(*sys.exc_info())
        code = 1
      sys.stdout.flush()
      sys.stderr.flush()
      os._exit(code)
    _, status = os.waitpid(child, 0)
    texts = []
    for file in (out, err):
      file.seek(0)
      texts.append(file.read())
    return os.waitstatus_to_exitcode(status), *texts


if __name__ == '__main__':
  print(json.dumps([run(words) for words in json.load(sys.stdin)]))
