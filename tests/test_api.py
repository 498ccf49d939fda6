"""The front door: what docs/python.md says, done as it says it."""

import asyncio
import json
import pathlib
import re
import subprocess
import sys
import types

import pytest

import ioa_jax as ioa
from ioa_jax import subject as subject_lib
from ioa_jax.runtime import sharding
from tests import test_pipeline, test_text_pipeline, word_problem_teacher

ROOT = pathlib.Path(__file__).parents[1]
PAGE = (ROOT / 'docs/python.md').read_text()
QUICK, GRADER, DOMAIN, TEACHER, ALL = re.findall(
  r'```python\n(.*?)```', PAGE, re.DOTALL
)


def test_the_import_is_fast_and_all_names_are_there():
  code = (
    'import sys, ioa_jax\n'
    'print(sorted({"jax", "numpy", "transformers", "pydantic"} & '
    'set(sys.modules)))\n'
    'ioa_jax.config("quickstart")\n'
    'print(sorted({"jax", "transformers"} & set(sys.modules)))'
  )
  done = subprocess.run(
    [sys.executable, '-c', code], capture_output=True, text=True, cwd=ROOT
  )
  assert done.stdout == '[]\n[]\n', done.stderr
  assert all(getattr(ioa, name) is not None for name in ioa.__all__)
  assert set(ioa.__all__) <= set(dir(ioa))
  with pytest.raises(AttributeError, match="no attribute 'distil'"):
    ioa.distil  # noqa: B018


def test_the_page_names_all_there_is_and_its_examples_are_short():
  for name in ioa.__all__:
    assert name in ('__version__', 'ConfigError', 'Request') or (
      f'ioa.{name}' in PAGE
    ), name
  for example in (GRADER, DOMAIN, TEACHER):
    assert len(example.strip().splitlines()) < 40


@pytest.mark.parametrize(
  'changes,field',
  [
    ({'domain.source': 'given'}, 'domain.source'),
    ({'domain.grader': 'given'}, 'domain.grader'),
    ({'teacher.kind': 'given'}, 'teacher.kind'),
  ],
)
def test_what_is_said_to_be_given_must_be(changes, field, tmp_path):
  test_text_pipeline.write_student(tmp_path)
  (tmp_path / 'seeds.jsonl').write_text(
    '\n'.join(map(json.dumps, word_problem_teacher.seeds()))
  )
  config = ioa.config(
    {
      'domain.description': 'to add',
      'domain.seeds': str(tmp_path / 'seeds.jsonl'),
      'domain.min_probes': 4,
      'gate.min_probes': 4,
      'teacher.model': 't',
      'student.model': str(tmp_path),
    }
    | changes
  )
  with pytest.raises(ValueError, match=f"config.{field} is 'given', which"):
    subject_lib.open_subject(config, sharding.make_mesh())


def test_a_run_that_is_not_finished_says_so(tmp_path):
  run = ioa.Distilled(str(tmp_path / 'r'))
  assert repr(run).endswith('not finished') and not run.finished
  with pytest.raises(ValueError, match='not finished; the same call continues'):
    _ = run.retention
  with pytest.raises(ValueError, match='diagnosis.json does not exist'):
    run.wrong_answers()
  with pytest.raises(ioa.ConfigError, match='one of those that ship'):
    ioa.distill('quikstart', tmp_path / 'r')
  assert not (tmp_path / 'r').exists()


class Library(types.ModuleType):
  """What `my_library` of the page could be: it knows sums."""

  calls = 0

  def complete(self, *, system, prompt, temperature, max_tokens, json_schema):
    self.calls += 1
    assert max_tokens > 0 and temperature >= 0
    if json_schema is None:
      assert 'The answer is' in system
      a, b = map(int, re.findall(r'\d+', prompt)[:2])
      text = f'First, add {a} and {b}.\nThe answer is {a + b}.'
    else:
      unit = re.search(r'"module" is "(.*?)"', prompt)[1]
      variant = int(re.search(r'Variant (\d+)', prompt)[1])
      a, b = 100 + variant, 3 + variant % 50
      text = json.dumps(
        word_problem_teacher.draft(
          unit,
          f'Ann has {a} apples and gets {b} more. How many?',
          [f'First, add the numbers in variant {variant}.'],
          str(a + b),
        )
      )
    return types.SimpleNamespace(
      text=text, tokens_read=len(prompt) // 4, tokens_written=len(text) // 4
    )


SMALL = {
  'teacher.max_tokens': 64,
  'student.max_tokens': 16,
  'student.remat': 'none',
  'adapter.seeds_per_module': 5,
  'gate.probe_every_steps': 4,
  'train.total_steps': 8,
  'train.row_length': 256,
  'train.steps_per_window': 2,
  'identifier.target_share': 1.0,
}


@pytest.mark.slow
def test_objects_of_ones_own_run_as_the_page_says(tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  monkeypatch.setitem(sys.modules, 'my_library', Library('my_library'))
  test_text_pipeline.write_student(tmp_path / 'student')
  smaller = ALL.replace('HuggingFaceTB/SmolLM2-135M-Instruct', 'student')
  smaller = smaller.replace("'train.total_steps': 200,", '**SMALL,')
  space = {'ioa': ioa, 'SMALL': SMALL}
  for example in (GRADER, DOMAIN, TEACHER, smaller):
    exec(example, space)
  run = space['run']
  assert run.finished and run.results.teacher.name == 'my-teacher'
  assert run.results.teacher.score == 1.0 and run.results.domain == 'sums'
  assert set(run.modules) == {'sums/one', 'sums/two'}
  config = json.loads((tmp_path / 'runs/sums/config.json').read_text())
  assert config['domain']['source'] == config['domain']['grader'] == 'given'
  assert config['teacher']['kind'] == 'given'
  lessons = run.lessons()
  assert len(lessons) == run.results.lessons > 4
  wrong = run.wrong_answers()['sums/one']
  assert set(wrong[0]) == {'prompt', 'answer', 'student'}
  # The same call returns what is there, and asks nobody.
  calls = sys.modules['my_library'].calls
  exec(smaller, space)
  assert sys.modules['my_library'].calls == calls
  assert space['run'].retention == run.retention


@pytest.mark.slow
def test_the_first_example_runs_in_a_notebook(tmp_path, monkeypatch, capsys):
  """There a loop of asyncio runs already, and there is no terminal."""
  monkeypatch.chdir(tmp_path)
  small = {**test_pipeline.SMALL, 'train.total_steps': 20}
  example = QUICK.replace("{'train.total_steps': 200}", repr(small))
  assert example != QUICK
  space = {}

  async def cell():
    exec(example, space)

  asyncio.run(cell())
  run = space['run']
  assert run.report.exists() and run.student.is_dir()
  assert 'evaluating the student' in capsys.readouterr().out
  assert ioa.Distilled(run.path).modules == run.modules
  diagnosis = ioa.diagnose(
    ioa.config('quickstart', small), tmp_path / 'd', quiet=True
  )
  assert diagnosis.modules.keys() == run.modules.keys()
  lessons = ioa.synthesize(
    ioa.config('quickstart', small), str(tmp_path / 'd'), quiet=True
  )
  assert lessons and (tmp_path / 'd/data').is_dir()
  out = capsys.readouterr().out
  assert out == ''
  assert 'probes of the teacher' in ioa.dry_run('quickstart')
