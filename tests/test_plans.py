"""Plans: checked before they start, resumable, the teacher paid once a seed."""

import json
import pathlib
import sqlite3
import subprocess
import sys

import pytest

from ioa_jax.experiments import plans
from ioa_jax.teachers import ledger_file
from ioa_jax.teachers.ledger import Ledger
from tests import test_pipeline

ROOT = pathlib.Path(__file__).parents[1]


def write(path, **fields):
  plan = {'config': str(ROOT / 'configs/quickstart.py')} | fields
  path.write_text(f'def get_plan():\n  return {plan!r}\n')
  return path


@pytest.mark.parametrize(
  'path',
  sorted((ROOT / 'configs/experiments').glob('*.py')),
  ids=lambda p: p.stem,
)
def test_every_plan_that_ships_can_be_run(path, monkeypatch):
  monkeypatch.chdir(ROOT)
  plan = plans.load(path)
  jobs = list(plans.jobs(plan, pathlib.Path('w'), plan.seeds))
  assert len(jobs) == len(plan.runs) * len(plan.seeds)
  assert len({j.directory for j in jobs}) == len(jobs)
  # Whole seeds, one after the other.
  assert [j.seed for j in jobs] == sorted(j.seed for j in jobs)


def test_changes_become_flags_and_a_run_overrides_the_plan(tmp_path):
  path = write(
    tmp_path / 'p.py',
    changes={'gate.max_rounds': 1, 'seed': 3},
    runs={'a': {}, 'b': {'gate.max_rounds': 0, 'method': 'lion'}},
  )
  a, b = plans.jobs(plans.load(path), tmp_path, [5])
  assert '--config.gate.max_rounds=1' in a.flags
  assert '--config.gate.max_rounds=0' in b.flags
  assert '--config.method=lion' in b.flags
  assert b.directory == tmp_path / 'b-5'


@pytest.mark.parametrize(
  'fields,message',
  [
    (
      {'runs': {'a': {'gate.tau': 0.9}}},
      "'a'.*gate.tau: no such field; the nearest",
    ),
    ({'runs': {'a': {'gate.tau_mastery': 2}}}, 'tau_mastery is 2, wanted'),
    ({'runs': {'a': {'method': 'mada'}}}, 'method is'),
    (
      {'runs': {'a': {'gate.tau_mastery': 'x'}}},
      "tau_mastery is 'x', wanted a number",
    ),
    ({'runs': {'a': {}}, 'config': 'nope.py'}, 'nope.py: no such file'),
    ({'runs': {}}, 'at least one run'),
    ({'run': {}}, r"\['run'\] unknown"),
    ({'runs': {'a': {}}, 'rivals': ('b',)}, r"rivals \['b'\] are no runs"),
  ],
)
def test_a_bad_plan_is_said_before_anything_runs(tmp_path, fields, message):
  with pytest.raises(ValueError, match=message):
    plans.load(write(tmp_path / 'p.py', **fields))


def test_a_page_names_the_commits_of_its_runs(tmp_path):
  plan = plans.load(write(tmp_path / 'p.py', runs={'a': {}, 'b': {}}))
  a, b = plans.jobs(plan, tmp_path, [0])
  (tmp_path / 'a-0.commits').write_text('abc\n')
  named = lambda *jobs: plans.provenance('x', jobs)['commit of the runs']
  assert named(a) == 'abc'
  # Of the other nothing was noted.
  assert named(a, b) == 'abc, unknown'
  (tmp_path / 'b-0.commits').write_text('abc\ndef\n')
  assert named(a, b) == 'abc, def'


def test_a_missing_plan_and_too_many_jobs_are_said(tmp_path):
  with pytest.raises(ValueError, match='no such file'):
    plans.load(tmp_path / 'p.py')
  with pytest.raises(ValueError, match='--jobs=1000: the plan holds each run'):
    plans.execute(
      [], tmp_path, at_once=1000, cores_per_run=1, say=lambda line: None
    )


def test_a_sweep_prints_its_commands():
  done = subprocess.run(
    [
      sys.executable,
      str(ROOT / 'scripts/sweep.py'),
      '--print',
      '--seeds=0,1',
      '--config=configs/quickstart.py',
      '--workdir=/mnt/sweep',
    ],
    capture_output=True,
    text=True,
    cwd=ROOT,
    check=False,
  )
  assert done.returncode == 0, done.stderr
  lines = done.stdout.splitlines()
  assert len(lines) == len(set(lines)) == 20
  assert '--workdir=/mnt/sweep/as_is-0' in lines[0]
  assert any('--config.gate.tau_mastery=0.95' in line for line in lines)


@pytest.mark.slow
def test_a_plan_runs_resumes_and_asks_the_teacher_once(tmp_path):
  """Two methods with the same lessons, and one that cannot finish."""
  small = test_pipeline.SMALL | {'train.total_steps': 10}
  path = write(
    tmp_path / 'p.py',
    changes=small,
    cores_per_run=1,
    runs={
      'uniform': {'method': 'uniform_steps'},
      'gap': {'method': 'gap_weighted'},
    },
  )
  workdir = tmp_path / 'w'

  def run(*flags):
    return subprocess.run(
      [
        sys.executable,
        str(ROOT / 'scripts/experiment.py'),
        f'--plan={path}',
        f'--workdir={workdir}',
        *flags,
      ],
      capture_output=True,
      text=True,
      cwd=ROOT,
      check=False,
    )

  assert run('--runs=uniform').returncode == 0
  # A mark on the recorded answers, so that asking again would show.
  (shared,) = (workdir / 'teacher').glob('0-*.sqlite')
  with sqlite3.connect(shared) as db:
    db.execute('UPDATE completions SET prompt_tokens = 7777')
    db.create_function('seal', -1, ledger_file.fingerprint)
    columns = ', '.join(ledger_file.SEALED)
    db.execute(f'UPDATE completions SET fingerprint = seal({columns})')
  first = run()
  assert first.returncode == 0, first.stderr
  assert '| gap |' in first.stdout
  owned = Ledger(workdir / 'gap-0/ledger.sqlite', read_only=True)
  assert {e['prompt_tokens'] for e in owned.entries()} == {7777}
  table = json.loads((workdir / 'table.json').read_text())
  assert table['summary']['gap']['compilations'] == 1
  assert (workdir / 'comparison.html').stat().st_size > 2000
  before = (workdir / 'gap-0/results.json').stat().st_mtime_ns
  again = run()
  assert '2 of 2 runs were finished before' in again.stdout
  assert (workdir / 'gap-0/results.json').stat().st_mtime_ns == before
  # Another plan does not pass these numbers off as its own.
  write(
    path,
    changes=small | {'train.total_steps': 20},
    runs={'gap': {'method': 'gap_weighted'}},
  )
  other = run()
  assert other.returncode == 2
  assert 'run of another configuration (train.total_steps: 10' in other.stderr
  # A run that cannot finish is named, with what it said.
  write(
    path, changes=small, runs={'poor': {'teacher.max_completion_tokens': 10}}
  )
  failed = run()
  assert failed.returncode == 2
  assert 'poor, seed 0: it ended early' in failed.stderr
  assert 'budget' in failed.stderr
