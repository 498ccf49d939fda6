"""The whole loop on the shipped models, small: artefacts, resume, damage."""

import io
import json
import os
import pathlib
import re
import runpy
import shutil
import signal
import sqlite3
import subprocess
import sys
import time

import numpy as np
import pytest
import rich.console
import safetensors.numpy

from ioa_jax import people, pipeline
from ioa_jax.domains import arithmetic
from ioa_jax.models import huggingface
from ioa_jax.phases import observing
from ioa_jax.runtime import display as display_lib
from ioa_jax.training import checkpoint

ROOT = pathlib.Path(__file__).parents[1]
SMALL = {
  'teacher.batch_size': 192,
  'student.batch_size': 192,
  'adapter.seeds_per_module': 4,
  'adapter.items_per_seed': 5,
  'adapter.rehearsal_items_per_seed': 2,
  'adapter.remedial_items_per_seed': 2,
  'train.total_steps': 40,
  # In so few steps it loses what it knew; what is taught is tested here.
  'train.keep_best': False,
  'train.batch_rows': 8,
  'train.steps_per_window': 5,
  'gate.probe_every_steps': 5,
  'gate.max_rounds': 1,
  'run.checkpoint_every_steps': 10,
}


def load_config(name, changes):
  path = ROOT / 'configs' / f'{name}.py'
  config = runpy.run_path(str(path))['get_config']()
  config.update_from_flattened_dict(changes)
  return config


def exported(workdir, what='student'):
  """The one directory of it; its name tells whether it is better."""
  (found,) = workdir.glob(f'{what}*')
  return found


def run_config(config, workdir):
  text = io.StringIO()
  display = display_lib.Display(rich.console.Console(file=text, width=200))
  with display:
    results = pipeline.run(config, workdir, display)
  # As the file has it.
  return results and results.to_dict(), text.getvalue()


def run(workdir, **changes):
  return run_config(load_config('quickstart', SMALL | changes), workdir)


def load(path):
  return json.loads(path.read_text())


def weights(workdir):
  return safetensors.numpy.load_file(exported(workdir) / 'model.safetensors')


def events(workdir):
  """All events, but for what a process newly paid its teacher."""
  lines = (workdir / 'metrics.jsonl').read_text().splitlines()
  return [
    {k: v for k, v in json.loads(line).items() if k != 'teacher_tokens'}
    for line in lines
  ]


def assert_same_run(a, b):
  """Everything but times is equal; weights bit for bit."""
  left, right = load(a / 'results.json'), load(b / 'results.json')
  for results in (left, right):
    # How often a process compiled and what it found cached are its own.
    for name in ('seconds', 'compilations'):
      del results[name]
    del results['tokens']['teacher_cached']
  assert left == right
  first, second = weights(a), weights(b)
  assert all((first[k] == second[k]).all() for k in first)
  assert (a / 'lessons.jsonl').read_bytes() == (
    b / 'lessons.jsonl'
  ).read_bytes()
  assert events(a) == events(b)


@pytest.fixture(scope='module')
def finished(tmp_path_factory):
  workdir = tmp_path_factory.mktemp('whole') / 'run'
  results, text = run(workdir)
  return workdir, results, text


def test_every_artefact_is_there_and_true(finished):
  workdir, results, text = finished
  names = {p.name for p in workdir.iterdir()} - {
    '.lock',
    'ledger.sqlite-wal',
    'ledger.sqlite-shm',
    '.ledger.sqlite.lock',
  }
  assert names == {
    'config.json',
    'models.json',
    'diagnosis.json',
    'items.jsonl',
    'curriculum.json',
    'ledger.sqlite',
    'lessons.jsonl',
    'rejected.jsonl',
    'metrics.jsonl',
    'starts.jsonl',
    'standing.json',
    'tensorboard',
    'checkpoints',
    exported(workdir).name,
    'answers.jsonl',
    'results.json',
    'report.html',
  }
  assert results == load(workdir / 'results.json')
  assert results['compilations'] == 1
  assert results['retention'] == pytest.approx(
    results['student']['score_after'] / results['teacher']['score']
  )
  modules = results['modules']
  assert set(modules) == {m.name for m in arithmetic.MODULES}
  assert results['student']['score_after'] == pytest.approx(
    sum(m['after'] for m in modules.values()) / len(modules)
  )
  for key in ('teacher', 'before', 'after'):
    for name, m in modules.items():
      grades = [
        g[key]
        for probe, g in results['grades'].items()
        if probe.startswith(f'held_out/{name}/')
      ]
      assert len(grades) == m['n']
      assert m[key] == pytest.approx(sum(grades) / m['n'])
  # What it was taught it finds likelier, right or not.
  taught = [k for s in results['stages'] for k in s['modules']]
  assert sum(modules[k]['loss_after'] for k in taught) < sum(
    modules[k]['loss_before'] for k in taught
  )
  assert results['student']['params'] < 0.1 * results['teacher']['params']
  assert sum(s['steps'] for s in results['stages']) == 40
  lessons = (workdir / 'lessons.jsonl').read_text().splitlines()
  assert len(lessons) == results['lessons'] > 100
  assert 'teaching' in text and 'left' in text


def test_every_probe_has_its_losses(finished):
  workdir, _, _ = finished
  lines = (workdir / 'items.jsonl').read_text().splitlines()
  items = [json.loads(line) for line in lines]
  probes = arithmetic.probes('gate', 'steps')
  assert [(i['prompt'], i['reference']) for i in items] == [
    (p.prompt, p.reference) for p in probes
  ]
  for name, module in load(workdir / 'diagnosis.json')['modules'].items():
    for who in ('student', 'teacher'):
      own = [i[who] for i in items if i['module'] == name]
      tokens = [x['tokens'] for x in own]
      # Tokens weigh the same, so long answers weigh more.
      assert module[f'{who}_loss'] == pytest.approx(
        np.average([x['nats_per_token'] for x in own], weights=tokens)
      )
    # Nothing that the teacher knows and the student does not is easier to it.
    if module['status'] == 'target':
      assert module['teacher_loss'] < module['student_loss']
  assert all(i['difficulty'] is None for i in items)  # There is no panel.


def test_the_teacher_ledger_agrees_with_the_account(finished):
  workdir, results, _ = finished
  with sqlite3.connect(workdir / 'ledger.sqlite') as db:
    (total,) = db.execute(
      'SELECT SUM(completion_tokens) FROM completions'
    ).fetchone()
  assert results['tokens']['teacher_generated'] == total


def test_probes_are_counted_apart_from_what_is_learned(finished):
  workdir, results, _ = finished
  events = map(json.loads, (workdir / 'metrics.jsonl').open())
  in_step = sum(
    s['n']
    for e in events
    if e['event'] == 'probe'
    for s in e['scores'].values()
  )
  diagnosed = load(workdir / 'diagnosis.json')['tokens']['student_inferred']
  by_host = sum(m['n'] for m in results['modules'].values())
  # No probe is shorter than five tokens, read and written.
  assert diagnosed > 5 * sum(
    m['student']['n']
    for m in load(workdir / 'diagnosis.json')['modules'].values()
  )
  assert results['tokens']['student_inferred'] > diagnosed + 5 * (
    in_step + 2 * by_host
  )


def test_no_lesson_shows_a_probe(finished):
  workdir, *_ = finished
  reserved = {
    p.prompt[:-1]
    for split in ('gate', 'held_out', 'development')
    for p in arithmetic.probes(split)
  }
  for line in (workdir / 'lessons.jsonl').read_text().splitlines():
    lesson = json.loads(line)
    shown = [lesson['problem'][:-1], *arithmetic.calls(lesson['completion'])]
    assert not reserved & set(shown)


def test_the_same_command_on_a_finished_run_says_so(finished):
  workdir, results, _ = finished
  before = (workdir / 'results.json').stat().st_mtime_ns
  again, text = run(workdir)
  assert again == results and 'finished before' in text
  assert (workdir / 'results.json').stat().st_mtime_ns == before


def test_tensorboard_has_the_numbers_of_the_metrics(finished):
  accumulator = pytest.importorskip(
    'tensorboard.backend.event_processing.event_accumulator',
    reason='tensorboard is not installed',
  )
  workdir, *_ = finished
  events = accumulator.EventAccumulator(str(workdir / 'tensorboard'))
  events.Reload()
  want = [
    e['train/loss']
    for line in (workdir / 'metrics.jsonl').read_text().splitlines()
    if (e := json.loads(line))['event'] == 'train'
  ]
  got = [s.value for s in events.Scalars('train/loss')]
  assert got == pytest.approx(want, rel=1e-6)


def test_the_student_loads_again(finished):
  workdir, *_ = finished
  student = exported(workdir)
  config = huggingface.read_config(student)
  huggingface.load_params(student, config)
  assert (student / 'tokenizer.json').exists()
  assert 'retention' in (student / 'README.md').read_text()


@pytest.mark.slow
def test_a_killed_run_continues_to_the_same_end(finished, tmp_path):
  """kill -9 with lessons, once more after a checkpoint; Ctrl-C after that."""
  workdir = tmp_path / 'run'
  overrides = [f'--config.{k}={v}' for k, v in SMALL.items()]
  command = [
    sys.executable,
    'scripts/distill.py',
    '--config=configs/quickstart.py',
    f'--workdir={workdir}',
    *overrides,
  ]
  for sign, number in (
    ('lessons.jsonl', signal.SIGKILL),
    ('checkpoints/10', signal.SIGKILL),
    ('checkpoints/20', signal.SIGINT),
    (None, None),
  ):
    process = subprocess.Popen(
      command, cwd=ROOT, env=os.environ, stdout=subprocess.DEVNULL
    )
    while sign and not (workdir / sign).exists():
      assert process.poll() is None, 'ended before it could be killed'
      time.sleep(0.05)
    if sign:
      process.send_signal(number)
    process.wait()
    if number == signal.SIGINT:
      # So that `distill && evaluate` does not go on.
      assert process.returncode == 130
  # In 40 steps the student may not have become better, which is said.
  better = load(workdir / 'results.json')['verdict']['difference'] > 0
  assert process.returncode == (0 if better else 3)
  assert_same_run(finished[0], workdir)


def test_sigterm_saves_and_the_same_call_continues(
  finished, tmp_path, monkeypatch
):
  workdir = tmp_path / 'run'
  record = observing.Observer.record

  def record_then_signal(self, metrics):
    record(self, metrics)
    if metrics['step'][-1] == 15:
      os.kill(os.getpid(), signal.SIGTERM)

  with monkeypatch.context() as patch:
    patch.setattr(observing.Observer, 'record', record_then_signal)
    results, text = run(workdir)
  assert results is None
  assert 'Stopped by SIGTERM at step 15; saved' in text
  assert not (workdir / 'results.json').exists()
  results, text = run(workdir)
  assert 'Continuing from step 15' in text
  assert_same_run(finished[0], workdir)


def _damage(directory):
  """Truncates the largest data file of a checkpoint."""
  files = [p for p in directory.rglob('*') if p.is_file()]
  victim = max(files, key=lambda p: p.stat().st_size)
  victim.write_bytes(victim.read_bytes()[: victim.stat().st_size // 2])


@pytest.mark.parametrize('everything', [False, True])
def test_a_damaged_checkpoint_falls_back_and_says_so(
  finished, tmp_path, everything, caplog
):
  workdir = tmp_path / 'run'
  shutil.copytree(finished[0], workdir)
  (workdir / 'results.json').unlink()
  steps = sorted(
    int(p.name) for p in (workdir / 'checkpoints').iterdir() if p.name.isdigit()
  )
  assert len(steps) >= 2
  for step in steps if everything else steps[-1:]:
    _damage(workdir / 'checkpoints' / str(step))
  if everything:
    with pytest.raises(checkpoint.CheckpointError, match='none of the'):
      run(workdir)
    return
  _, text = run(workdir)
  assert f'Checkpoint {steps[-1]} is damaged' in text
  assert f'Continuing from step {steps[-2]}' in text
  assert_same_run(finished[0], workdir)


@pytest.mark.slow
def test_a_loss_that_is_not_finite_names_the_lessons(tmp_path):
  with pytest.raises(ValueError, match='step .* is not finite') as raised:
    run(tmp_path / 'run', **{'optimizer.learning_rate': 1e30})
  lines = re.search(r'lessons.jsonl: ([\d, ]+)\.$', str(raised.value))[1]
  lessons = (tmp_path / 'run/lessons.jsonl').read_text().splitlines()
  named = [json.loads(lessons[int(n) - 1]) for n in lines.split(', ')]
  assert 0 < len(named) < len(lessons)
  first = load(tmp_path / 'run/curriculum.json')['stages'][0]['modules']
  assert {x['module'] for x in named} >= set(first)


def test_a_missing_teacher_file_leaves_nothing(tmp_path):
  model = tmp_path / 'teacher'
  shutil.copytree(people.ASSETS / 'teacher', model)
  (model / 'model.safetensors').unlink()
  with pytest.raises(ValueError, match='model.safetensors'):
    run(tmp_path / 'run', **{'teacher.model': str(model)})
  assert not (tmp_path / 'run').exists()


def test_a_budget_too_small_stops_before_it_is_crossed(tmp_path):
  with pytest.raises(ValueError, match='teacher budget: .* next call'):
    run(tmp_path / 'run', **{'teacher.max_completion_tokens': 100})
  with sqlite3.connect(tmp_path / 'run/ledger.sqlite') as db:
    (spent,) = db.execute('SELECT SUM(completion_tokens) FROM calls').fetchone()
  # What could be paid for was asked; the next could have cost 48 tokens.
  assert 100 - 48 < spent <= 100
