"""A run directory finds its models; `generate --compare` sets them side by
side."""

import json
import shutil

import pytest

from ioa_jax import api, people
from ioa_jax.phases import run_models
from ioa_jax.sampling import conversation
from tests.test_generate import assert_one_line, run

ARITHMETIC = people.ASSETS
PROMPT = '652+615='


def write_run(path, **config):
  path.mkdir(parents=True)
  whole = {
    'domain': {'kind': 'arithmetic'},
    'teacher': {'kind': 'local', 'model': 'builtin'},
    'student': {'model': 'builtin'},
  }
  (path / 'config.json').write_text(json.dumps(whole | config))
  return path


def add_student(path):
  # Not the base, so that one can tell them apart.
  shutil.copytree(ARITHMETIC / 'teacher', path / 'student')
  return path


def test_a_student_is_found_before_an_adapter(tmp_path):
  path = write_run(tmp_path / 'run')
  assert run_models.find(str(path)) == path
  with pytest.raises(ValueError, match='the run is not finished'):
    run_models.student(path)
  (path / 'adapter').mkdir()
  base = str(ARITHMETIC / 'student')
  adapted = run_models.Speaker('student', base, str(path / 'adapter'))
  assert run_models.student(path) == adapted
  add_student(path)
  whole = run_models.Speaker('student', str(path / 'student'))
  assert run_models.student(path) == whole


@pytest.mark.parametrize(
  'text', ['{', '[]', '{"model_type": "llama"}', '{"student": {}}']
)
def test_other_directories_are_no_runs(tmp_path, text):
  (tmp_path / 'config.json').write_text(text)
  assert run_models.find(str(tmp_path)) is None
  assert run_models.find(str(tmp_path / 'nothing')) is None
  assert run_models.find(str(ARITHMETIC / 'student')) is None


def test_of_rounds_it_is_the_last_that_was_taught(tmp_path):
  for number in (1, 2, 10):
    path = write_run(tmp_path / f'round-{number}')
    if number != 10:
      add_student(path)
  assert run_models.find(str(tmp_path)) == tmp_path / 'round-2'


def test_who_is_not_here_is_said(tmp_path, monkeypatch):
  monkeypatch.setenv('HF_HUB_OFFLINE', '1')
  path = add_student(
    write_run(
      tmp_path / 'run',
      teacher={'kind': 'openai', 'model': 'big'},
      student={'model': 'nobody/has-this-model'},
    )
  )
  found, missing = run_models.speakers(path)
  assert [s.role for s in found] == ['student']
  assert 'openai' in missing[0]
  assert 'nobody/has-this-model, is not on this machine' in missing[1]
  write_run(tmp_path / 'bad', student={'model': 3})
  (tmp_path / 'bad' / 'adapter').mkdir()
  with pytest.raises(ValueError, match=r'no student\.model; the file is dam'):
    run_models.student(tmp_path / 'bad')


def test_generate_finds_the_student_and_compares(tmp_path):
  path = add_student(write_run(tmp_path / 'run'))
  options = conversation.Options(max_tokens=40)
  said = {
    role: ''.join(
      conversation.Conversation(ARITHMETIC / role, options).say(PROMPT)
    )
    for role in ('teacher', 'student')
  }
  assert '1267' in said['teacher']
  ask = (f'--model={path}', f'--prompt={PROMPT}', '--max_tokens=40')
  done = run('generate', *ask)
  assert done.returncode == 0, done.stderr
  # This student has the teacher's weights.
  assert done.stdout.strip() == said['teacher']
  assert api.generate(path, PROMPT, max_tokens=40) == said['teacher']
  done = run('generate', *ask, '--compare')
  assert done.returncode == 0, done.stderr
  lines = [
    [cell.strip() for cell in line.replace('┃', '│').split('│')[1:-1]]
    for line in done.stdout.splitlines()
  ]
  cells = [x for x in lines if len(x) == 3]
  assert cells[0] == ['teacher', 'base', 'student']
  columns = [''.join(column) for column in zip(*cells[1:])]
  assert columns == [said['teacher'], said['student'], said['teacher']]


@pytest.mark.parametrize(
  'options,message',
  [
    (['--compare'], 'is not a run directory; --model=RUN'),
    (['--adapter=x'], 'is a run, and has its own'),
  ],
)
def test_what_does_not_go_together_is_said(tmp_path, options, message):
  model = ARITHMETIC / 'student'
  if '--compare' not in options:
    model = write_run(tmp_path / 'run')
  assert_one_line(run('generate', f'--model={model}', *options), message)
