"""Problems of one's own, asked and graded as a run does it."""

import json
import os
import subprocess
import sys

import pytest

from ioa_jax.phases import run_models
from tests.test_evaluate import _model
from tests.test_generate import ROOT
from tests.test_run_models import write_run

COLUMNS = {'module': 'm', 'problem': 'q', 'solution': '', 'answer': 'a'}


def text_run(path, grader='number', **domain):
  whole = {'kind': 'text', 'grader': grader, 'columns': COLUMNS} | domain
  return write_run(path, domain=whole, student={'model': 'x', 'max_tokens': 7})


def items(path, rows):
  path.write_text(''.join(json.dumps(r) + '\n' for r in rows))
  return path


@pytest.mark.parametrize(
  'rows',
  [
    [{'q': 'What is 1 + 1?', 'a': 2}],
    # The file has other names than the seeds.
    [{'question': 'What is 1 + 1?', 'answer': '2', 'id': 7}],
    [{'prompt': 'What is 1 + 1?', 'solution': 'Add.\n#### 2'}],
  ],
)
def test_the_runs_grader_reads_the_answers(tmp_path, rows):
  run = text_run(tmp_path / 'run')
  path = items(tmp_path / 'mine_test.jsonl', rows)
  own = run_models.own_items(run, path)
  assert (own.name, own.metric, own.max_tokens) == ('mine_test', 'accuracy', 7)
  ((item,), left_out) = own.load(tmp_path)
  assert not left_out
  # In every form it is the bare problem, as a run trains on it.
  asked = {item.text(f) for f in ('plain', 'chat', 'instruct', 'trained')}
  assert asked == {'What is 1 + 1?'}
  assert own.grade(None, item, 'Two. The answer is 2.') == (1.0, 'equal')
  assert own.grade(None, item, 'The answer is 3.') == (0.0, 'different')


@pytest.mark.parametrize(
  'grader,domain,rows,message',
  [
    ('number', {}, [{'q': '?', 'a': 'many'}], "'many' is not an answer"),
    ('number', {}, [{'q': '?'}], 'no column is known to hold answers'),
    ('given', {}, [{'q': '?', 'a': 1}], "domain.grader 'given'"),
    ('number', {'kind': 'arithmetic'}, [], "domain.kind 'arithmetic'"),
  ],
)
def test_what_cannot_be_graded_is_said(tmp_path, grader, domain, rows, message):
  run = text_run(tmp_path / 'run', grader, **domain)
  path = items(tmp_path / 'x.jsonl', rows)
  with pytest.raises(ValueError, match=message):
    run_models.own_items(run, path).load(tmp_path)


def test_evaluate_scores_a_file(tmp_path):
  run = text_run(tmp_path / 'run')
  _model(run / 'student', 0)
  path = items(
    tmp_path / 'mine.jsonl', [{'q': f'{n} + 1?', 'a': n + 1} for n in range(3)]
  )
  words = ['evaluate', f'--items={path}', f'--output_dir={tmp_path / "out"}']
  done = subprocess.run(
    [sys.executable, '-m', 'tests.forked_commands'],
    cwd=ROOT,
    capture_output=True,
    text=True,
    check=True,
    input=json.dumps(
      [
        [*words, f'--model={run / "student"}'],
        [*words, f'--model={run}', '--benchmarks=gsm8k'],
        [*words[::2], f'--model={run}'],
        [*words, f'--model={tmp_path / "run" / ".." / "run" / "student"}'],
        [*words, '--model=nothing'],
      ]
    ),
    env=os.environ | {'JAX_PLATFORMS': 'cpu'},
    timeout=300,
  )
  scored, both, neither, again, unknown = json.loads(done.stdout)
  assert scored[0] == 0, scored
  result = json.loads((tmp_path / 'out/results.json').read_text())
  result = result['benchmarks']['mine']
  assert result['prompt'] == 'trained' and result['items'] == 3
  assert result['decoding']['max_tokens'] == 7
  assert both[0] == 2 and 'give one of them' in both[2]
  assert neither[0] == 2 and '--benchmarks or --items is missing' in neither[2]
  assert again[0] == 0, again
  assert unknown[0] == 2 and 'add --run=RUN' in unknown[2]
