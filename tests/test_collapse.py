"""Two lessons a seed are learned by heart: what a run does that fails."""

import json
import pathlib
import subprocess
import sys

import pytest

from ioa_jax.models import huggingface

ROOT = pathlib.Path(__file__).parents[1]


@pytest.mark.slow
def test_a_student_that_lost_what_it_knew_is_exported_as_it_came(tmp_path):
  run = tmp_path / 'run'
  done = subprocess.run(
    [
      *(sys.executable, 'scripts/distill.py', '--config=configs/quickstart.py'),
      f'--workdir={run}',
      '--config.adapter.items_per_seed=2',
      '--config.adapter.rehearsal_items_per_seed=1',
      '--config.train.total_steps=1200',
    ],
    cwd=ROOT,
    capture_output=True,
    text=True,
  )
  # Without the guard addition/two_digit fell from 100 to 21 % and the mean of
  # all modules from 33 to 22 %.
  assert done.returncode == 3, done.stderr[-2000:]
  assert 'is not better than its base' in done.stderr
  assert 'has fallen from' in done.stdout
  results = json.loads((run / 'results.json').read_text())
  assert results['steps'] == {'planned': 1200, 'taken': 1200, 'exported': 0}
  student = results['student']
  assert student['score_after'] == student['score_before']
  assert not results['verdict']['fallen']
  # Nobody takes it for the student that was wanted.
  assert not (run / 'student').exists()
  huggingface.read_config(run / 'student_not_better')
  events = map(json.loads, (run / 'metrics.jsonl').read_text().splitlines())
  assert any(e.get('fallen') for e in events)
  assert 'exported as it came' in (run / 'report.html').read_text()
