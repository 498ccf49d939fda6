"""Commands of the documents: flags exist, settings load, extras are there."""

import json
import os
import pathlib
import re
import shlex
import subprocess
import sys

import pytest

from ioa_jax.runtime import xla_flags

ROOT = pathlib.Path(__file__).parents[1]
PAGE = ROOT / 'docs' / 'tpu_gpu.md'
# Programs of others, which are not here to be asked.
FOREIGN = ('git', 'gcloud', 'cd', 'sudo', 'uv', 'scontrol', '.', 'fi', 'if')
FOREIGN += ('python3.12', 'then', '[', 'docker')


def _blocks(path):
  """Indented blocks of a page, each a shell script."""
  text = path.read_text(encoding='utf-8')
  for found in re.finditer(r'(?:^(?: {4}.*)?\n)+', text, re.M):
    lines = [x[4:] for x in found[0].splitlines() if x.strip()]
    if lines:
      yield '\n'.join(lines) + '\n'


def _commands(script):
  """Simple commands of a script, and of scripts that it hands on."""
  lexer = shlex.shlex(
    script.replace('\\\n', ' '), posix=True, punctuation_chars='&;|\n'
  )
  lexer.whitespace, lexer.whitespace_split = ' \t', True
  lexer.commenters = ''
  words = []
  for word in [*lexer, '\n']:
    if not set(word) <= set('&;|\n'):
      words.append(word)
      continue
    # Comments of a script, variables for one command, and who starts it.
    while words and re.match(r'[A-Z_]+=|srun$|then$', words[0]):
      words.pop(0)
    if words and not words[0].startswith('#'):
      yield words
    for handed in words:
      if handed.startswith('--command='):
        yield from _commands(handed.removeprefix('--command='))
    words = []


ALL = [c for block in _blocks(PAGE) for c in _commands(block)]


def _ours():
  for words in ALL:
    first = words[0].rpartition('/')[2]
    if first == 'python':
      yield words[1:]
    elif first == 'ioa':
      yield words
    elif words[:2] == ['docker', 'run']:
      yield ['ioa', *words[words.index('ioa_jax') + 1 :]]


def _extras():
  """Those of setup.py, and what it asks for."""
  found = {'__file__': str(ROOT / 'setup.py')}
  code, _, _ = (ROOT / 'setup.py').read_text().partition('setuptools.setup(')
  exec(code, found)
  return found['EXTRAS'], found['CORE']


def test_every_command_is_known():
  names = {words[0].rpartition('/')[2] for words in ALL}
  assert names >= {'python', 'pip', 'gcloud', 'docker'}
  assert names - set(FOREIGN) <= {'python', 'pip', 'ioa'}


def test_the_shell_reads_every_block():
  for block in _blocks(PAGE):
    done = subprocess.run(
      ['bash', '-n'], input=block, capture_output=True, text=True
    )
    assert not done.returncode, f'{block}\n{done.stderr}'


def test_flags_exist_and_configurations_load():
  ours = list(_ours())
  assert len(ours) >= 9
  wrong = _problems(ours)
  assert not any(wrong), [x for x in zip(ours, wrong) if x[1]]


@pytest.mark.parametrize(
  'words',
  [
    ['scripts/distill.py', '--workdir=x', '--config=configs/students.py:none'],
    [
      'scripts/distill.py',
      '--workdir=x',
      '--config=quickstart',
      '--distribute',
    ],
    ['ioa', 'distill', '--workdir=x', '--config=quickstart', '--config.a=1'],
    ['scripts/benchmark.py', 'acelerator'],
    ['scripts/nothing.py'],
  ],
)
def test_the_check_finds_what_is_wrong(words):
  assert all(_problems([words]))


def _problems(commands):
  done = subprocess.run(
    [sys.executable, '-m', 'tests.checked_commands'],
    input=json.dumps(commands),
    capture_output=True,
    text=True,
    cwd=ROOT,
    env=os.environ | {'PYTHONPATH': str(ROOT), 'JAX_PLATFORMS': 'cpu'},
  )
  assert done.returncode == 0, done.stderr
  return json.loads(done.stdout)


def test_extras_and_bounds_are_those_of_setup():
  extras, core = _extras()
  asked = [w for words in ALL if 'pip' in words[0] for w in words[1:]]
  asked += shlex.split((ROOT / 'Dockerfile').read_text().replace('#', ''))
  packages = [w for w in asked if re.match(r'[\w-]+>=', w)]
  assert packages and set(packages) <= set(core)
  found = [m for w in asked if (m := re.fullmatch(r'\.\[(.*)\]', w))]
  assert len(found) >= 4
  for names in found:
    assert set(names[1].split(',')) <= set(extras)


def test_the_table_of_flags_is_the_code():
  page = PAGE.read_text(encoding='utf-8')
  for advice in xla_flags.TABLE:
    assert f'`{advice.variable}={advice.value}`' in page
