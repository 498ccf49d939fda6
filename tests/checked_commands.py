"""Parses commands as they would be run, and runs none.

  python -m tests.checked_commands < COMMANDS.json

COMMANDS are lists of words, a script's path, `ioa` or `-m` first; the answer is
what is wrong with each, or ''. Flags have to exist, and configurations to load;
a module behind `-m` has to exist.
"""

import contextlib
import importlib
import importlib.util
import io
import json
import os
import pathlib
import runpy
import sys

from absl import flags

from ioa_jax import commands
from ioa_jax import config as config_lib
from ioa_jax.runtime import commandline

ROOT = pathlib.Path(__file__).parents[1]


def _check(main):
  """In the place of `main`, once the flags are parsed."""
  positional = getattr(sys.modules[main.__module__], 'POSITIONAL', '')

  def check(argv):
    words = argv[1:]
    if positional and words and len(words[0]) < 20 and ', ' in positional:
      known = positional.replace(' or ', ', ').split(', ')
      if words[0] not in known:
        commandline.fail(f'{words[0]}: wanted {positional}.')
    if {'config', 'config.seed'} <= set(flags.FLAGS):
      try:
        config_lib.validate(commandline.config())
      except ValueError as e:
        commandline.fail(str(e))

  return check


def problem(words) -> str:
  """What is wrong with a command; '' if nothing is."""
  reading, writing = os.pipe()
  child = os.fork()
  if not child:
    commandline._guarded = _check
    sys.argv = list(words)
    said = io.StringIO()
    with contextlib.redirect_stderr(said), contextlib.redirect_stdout(said):
      try:
        if words[0] == 'ioa':
          commands.main()
        elif words[0] == '-m':
          if importlib.util.find_spec(words[1]) is None:
            commandline.fail(f'{words[1]}: no such module.')
        else:
          # Where Python itself would look first.
          sys.path.insert(0, str((ROOT / words[0]).parent))
          runpy.run_path(str(ROOT / words[0]), run_name='__main__')
        code = 0
      except SystemExit as e:
        code = e.code or 0
      except BaseException as e:
        code = repr(e)
    text = f'{code}: {said.getvalue()}' if code else ''
    os.write(writing, text.encode()[:4096])
    os._exit(0)
  os.close(writing)
  with os.fdopen(reading) as file:
    text = file.read()
  os.waitpid(child, 0)
  return text


if __name__ == '__main__':
  # Once, instead of in each child.
  for name in ('assemble', *(f'commands.{c}' for c in commands.COMMANDS)):
    importlib.import_module(f'ioa_jax.{name}')
  print(json.dumps([problem(words) for words in json.load(sys.stdin)]))
