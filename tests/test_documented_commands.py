"""Commands of the documents: flags exist, settings load, extras are there."""

import json
import os
import pathlib
import re
import shlex
import subprocess
import sys

import pytest

from ioa_jax import config as config_lib
from ioa_jax.runtime import xla_flags

ROOT = pathlib.Path(__file__).parents[1]
PAGES = [
  ROOT / 'README.md',
  ROOT / 'CONTRIBUTING.md',
  *sorted((ROOT / 'docs').glob('*.md')),
  *sorted((ROOT / 'configs').rglob('*.md')),
  *sorted((ROOT / 'ioa_jax').rglob('*.md')),
]
PAGE = ROOT / 'docs' / 'tpu_gpu.md'
# Programs of others, which are not here to be asked.
FOREIGN = ('git', 'gcloud', 'cd', 'sudo', 'uv', 'scontrol', '.', 'fi', 'if')
FOREIGN += ('python3.12', 'then', '[', 'docker', 'lm_eval', 'tensorboard')
FOREIGN += ('pre-commit', 'mkdocs', 'vllm')
OURS = ('python', 'pip', 'ioa', 'pytest')
# A block is a script if a line of it begins so.
_SCRIPT = re.compile(
  rf'^ *(#!|({"|".join((*OURS, *FOREIGN[:2]))}|docker) )', re.M
)
_INLINE = re.compile(
  r'`((?:python|ioa|pip|pytest|scripts/\w+\.py)(?: [^`]*)?)`'
)
# In the place of configurations that readers write.
THEIRS = ('--config=CONFIG', '--config=mine/config.py')
CONFIG = """from ioa_jax import config as config_lib


def get_config():
  return config_lib.get({
    'domain.seeds': 'seeds.jsonl',
    'domain.description': 'to add',
    'domain.grader': 'number',
    'teacher.model': 'teacher',
    'teacher.base_url': 'http://127.0.0.1:8000/v1',
    'student.model': 'student',
  })
"""


def _blocks(path):
  """Scripts of a page: blocks that are indented, or fenced as `sh`."""
  text = path.read_text(encoding='utf-8')
  fenced = r'^```(\w*)\n(.*?)^```$'
  for found in re.finditer(fenced, text, re.M | re.S):
    if found[1] in ('sh', 'bash'):
      yield found[2]
  text = re.sub(fenced, '', text, flags=re.M | re.S)
  for found in re.finditer(r'(?:^(?: {4}.*)?\n)+', text, re.M):
    lines = [x[4:] for x in found[0].splitlines() if x.strip()]
    script = '\n'.join(lines) + '\n'
    if _SCRIPT.search(script):
      yield script


def _mentions(path):
  """Commands within the text of a page, some without what they need."""
  text = path.read_text(encoding='utf-8')
  for found in _INLINE.finditer(re.sub(r'^ {4}.*$', '', text, flags=re.M)):
    words = shlex.split(found[1].partition(' > ')[0])
    # A comment of a table, and what any command would be.
    if words != ['ioa', 'NAME']:
      yield words


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


ALL = [c for page in PAGES for block in _blocks(page) for c in _commands(block)]
MENTIONS = [words for page in PAGES for words in _mentions(page)]


def _ours(commands):
  for words in commands:
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
  assert names >= {*OURS, 'gcloud', 'docker', 'tensorboard'}
  assert names - set(FOREIGN) <= set(OURS)


def test_the_shell_reads_every_block():
  for block in [block for page in PAGES for block in _blocks(page)]:
    done = subprocess.run(
      ['bash', '-n'], input=block, capture_output=True, text=True
    )
    assert not done.returncode, f'{block}\n{done.stderr}'


@pytest.fixture(scope='module')
def config(tmp_path_factory):
  path = tmp_path_factory.mktemp('mine') / 'config.py'
  path.write_text(CONFIG)
  return path


def test_flags_exist_and_configurations_load(config):
  ours = list(_ours(ALL))
  assert len(ours) >= 40
  mine = f'--config={config}'
  wrong = _problems([[mine if w in THEIRS else w for w in x] for x in ours])
  assert not any(wrong), [x for x in zip(ours, wrong) if x[1]]


def test_what_the_text_mentions_exists():
  """A mention may leave out what a command has to be told."""
  ours = [w for w in MENTIONS if w[0].startswith('scripts/')]
  ours += _ours(MENTIONS)
  assert len(ours) >= 15
  wrong = [x for x in zip(ours, _problems(ours)) if x[1]]
  assert all(' is missing: ' in problem for _, problem in wrong), wrong


def test_every_setting_in_the_text_exists():
  fields = config_lib.fields()
  groups = {name.rpartition('.')[0] for name in fields} - {''}
  named = re.compile(rf'`((?:{"|".join(groups)})\.[a-z]\w*)[`=]')
  flags = re.compile(r'--config\.([a-z]\w*(?:\.\w+)*)')
  wrong = []
  for page in PAGES:
    text = page.read_text(encoding='utf-8')
    found = {*named.findall(text), *flags.findall(text)}
    # Beside settings, `judge.sqlite` is a file of a run.
    wrong += [
      f'{page.name}: {name}'
      for name in found - set(fields) - groups
      if not name.endswith(('.py', '.sqlite', '.json', '.jsonl'))
    ]
  assert not wrong


def test_every_named_file_of_the_repository_exists():
  named = re.compile(r'`((?:configs|scripts|tests|docs|ioa_jax)/[\w/.]+\.\w+)')
  wrong = [
    f'{page.name}: {name}'
    for page in PAGES
    for name in named.findall(page.read_text(encoding='utf-8'))
    if not (ROOT / name).exists()
  ]
  assert not wrong


def test_every_path_of_pytest_exists():
  asked = [
    w for words in [*ALL, *MENTIONS] if words[0] == 'pytest' for w in words
  ]
  files = [w for w in asked if w.startswith('tests/')]
  assert files and all((ROOT / name).is_file() for name in files)


WRONG = [
  ['scripts/distill.py', '--workdir=x', '--config=configs/students.py:none'],
  ['scripts/distill.py', '--workdir=x', '--config=quickstart', '--distribute'],
  ['ioa', 'distill', '--workdir=x', '--config=quickstart', '--config.a=1'],
  ['scripts/benchmark.py', 'acelerator'],
  ['scripts/nothing.py'],
  ['ioa', 'nothing'],
  ['-m', 'ioa_jax.nothing'],
]


def test_the_check_finds_what_is_wrong():
  found = _problems(WRONG)
  assert all(found), [x for x in zip(WRONG, found) if not x[1]]


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
  commands = [*ALL, *MENTIONS]
  asked = [w for words in commands if 'pip' in words[0] for w in words[1:]]
  asked += shlex.split((ROOT / 'Dockerfile').read_text().replace('#', ''))
  packages = [w for w in asked if re.match(r'[\w-]+(\[\w+\])?>=', w)]
  bounds = {*core, *(w for of_extra in extras.values() for w in of_extra)}
  plain = {re.sub(r'\[\w+\]', '', w) for w in packages}
  assert packages and plain <= bounds
  own = r'(?:\.|ioa_jax)\[(.*)\]'
  found = [m for w in asked if (m := re.fullmatch(own, w))]
  assert len(found) >= 4
  for names in found:
    assert set(names[1].split(',')) <= set(extras)


def test_the_table_of_flags_is_the_code():
  page = PAGE.read_text(encoding='utf-8')
  for advice in xla_flags.TABLE:
    assert f'`{advice.variable}={advice.value}`' in page
