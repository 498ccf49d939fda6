"""Where a run stands, how long it will go on, what its lessons cost, and what
it takes to do it again."""

from __future__ import annotations

import collections
import io
import pathlib
import types

import numpy as np
import pytest
import rich.console

from ioa_jax import records
from ioa_jax.phases import lessons, observing, reporting
from ioa_jax.runtime import display as display_lib
from ioa_jax.runtime import provenance, rundir, signals
from ioa_jax.teachers.requests import Completion, Price, Request
from ioa_jax.training import gate
from tests import report_runs, synthetic_run
from tests.parsed_page import Page

_NONE, _STAY = gate.NO_PROBE, gate.DECISIONS.index('stay')
MASTERY = dict.fromkeys(synthetic_run.NAMES, 0.75)


def a_run(path):
  """As much of a run as a report needs, in a directory of an unfinished one."""
  report_runs.unfinished(path)
  text = io.StringIO()
  display = display_lib.Display(rich.console.Console(file=text, width=200))

  def write(name, value):
    (path / name).write_text(value.to_json())

  directory = types.SimpleNamespace(path=path, write_record=write)
  return types.SimpleNamespace(directory=directory, display=display), text


def standing(path):
  return records.Standing.from_json((path / rundir.STANDING).read_text())


@pytest.mark.parametrize(
  'error,stopped_by,state,why',
  [
    (ValueError('the  disk\nis full'), None, 'failed', 'the disk is full'),
    (ValueError('x'), 'SIGTERM', 'stopped', 'SIGTERM'),
    (KeyboardInterrupt(), None, 'stopped', 'SIGINT'),
  ],
)
def test_the_report_is_drawn_however_a_run_ends(
  tmp_path, monkeypatch, error, stopped_by, state, why
):
  run, _ = a_run(tmp_path)
  run.display.update(phase='teaching')
  monkeypatch.setattr(signals, 'stopped_by', stopped_by)
  with pytest.raises(type(error)), reporting.kept(run):
    raise error
  found = standing(tmp_path)
  assert (found.state, found.why, found.phase) == (state, why, 'teaching')
  html = (tmp_path / 'report.html').read_text(encoding='utf-8')
  head = ' '.join(Page(html).text('head').split())
  assert ('has failed' if state == 'failed' else 'was stopped') in head
  assert why in head


def test_checkpoints_draw_it_only_while_that_is_cheap(tmp_path, monkeypatch):
  run, _ = a_run(tmp_path)
  now, drawn = [1000.0], []

  def write(path):
    drawn.append(now[0])
    now[0] += 2.0  # Seconds that a drawing takes.

  monkeypatch.setattr(reporting.page, 'write', write)
  monkeypatch.setattr(reporting.time, 'monotonic', lambda: now[0])
  reports = reporting.Reports(run)
  began = now[0]
  for _ in range(60):
    reports.at_checkpoint()
    now[0] += 10.0
  assert drawn[0] == began and len(drawn) > 3
  assert 2.0 * len(drawn) <= 0.02 * (now[0] - began) + 2.0


def test_a_report_that_cannot_be_drawn_stops_nothing(tmp_path):
  run, text = a_run(tmp_path)
  (tmp_path / 'metrics.jsonl').write_text('{"event": "probe"}\n')
  with reporting.kept(run) as reports:
    reports.draw('running')
  assert 'report.html could not be drawn' in text.getvalue()
  assert standing(tmp_path).state == 'running'


def test_the_time_that_is_left_follows_the_plan():
  pace = observing.Pace(stages=4, total_steps=100, evaluation=7.0)
  assert pace.left(0, 0) is None
  pace.supplied(30.0)
  pace.trained(10, 50.0)  # Mostly compiling, which says nothing of speed.
  assert pace.left(10, 0) is None
  pace.trained(10, 1.0)
  assert pace.left(20, 0) == pytest.approx(80 * 0.1 + 2 * 30 + 7)
  pace.supplied(10.0)
  # The third stage is the last with lessons of its own.
  assert pace.left(50, 1) == pytest.approx(50 * 0.1 + 20 + 7)
  assert pace.left(60, 2) == pytest.approx(40 * 0.1 + 7)
  assert pace.left(100, 3) == pytest.approx(7)
  for _ in range(30):
    pace.trained(10, 2.0)  # It has slowed down, and the pace follows.
  assert pace.left(50, 3) == pytest.approx(50 * 0.2 + 7)


def asking(text, module=''):
  return Request('t', text, 0.0, 0, 1.0, 9, module=module)


def test_the_module_that_pays_is_no_part_of_what_is_asked():
  assert asking('x', 'a/b') == asking('x')
  assert asking('x', 'a/b').key() == asking('x').key()


def test_dollars_by_module_count_each_answer_once():
  price = Price(1.0, 2.0)

  def ask(requests, response_model=None):
    return [Completion('.', 'stop', 9, 9, price_usd=0.25) for _ in requests]

  run = types.SimpleNamespace(
    ask_for_lessons=ask,
    display=display_lib.Display(rich.console.Console(quiet=True)),
    subject=types.SimpleNamespace(price=price),
  )
  items = [
    types.SimpleNamespace(
      request=asking(text), seed=types.SimpleNamespace(module=module)
    )
    for text, module in (('1', 'a/b'), ('2', 'a/b'), ('3', 'c/d'))
  ]
  bill = lessons._Bill(run, items)
  bill.ask([item.request for item in items])
  # One is confirmed, twice over: the same request is paid once.
  bill.ask([asking('3 + 4', 'c/d'), asking('3 + 4', 'c/d')])
  assert bill.usd() == {'a/b': 0.5, 'c/d': 0.5}
  run.subject.price = Price()
  assert bill.usd() is None


def test_a_start_tells_what_it_takes_to_do_it_again():
  start = provenance.start()
  again = records.Start.from_json(start.to_json())
  assert again == start
  assert start.versions['ioa_jax'] and start.versions['jax']
  assert start.processes == 1 and start.devices.endswith('cpu')
  if (pathlib.Path(__file__).parent.parent / '.git').exists():
    assert len(start.commit.split()[0]) == 40


@pytest.mark.parametrize(
  'argv,command',
  [
    (['/x/bin/ioa', 'distill', '--workdir=a b'], "ioa distill '--workdir=a b'"),
    (['scripts/distill.py', '--seed=1'], 'python scripts/distill.py --seed=1'),
  ],
)
def test_the_command_can_be_typed_again(argv, command):
  assert provenance.command(argv) == command


def test_an_observer_keeps_files_display_and_trackers_together(tmp_path):
  """With a trainer that only says where it is."""
  from ioa_jax import config as config_lib
  from ioa_jax.runtime import trackers

  report_runs.good(tmp_path)
  (tmp_path / 'metrics.jsonl').unlink()
  sent = []
  text = io.StringIO()
  display = display_lib.Display(rich.console.Console(file=text, width=400))
  directory = rundir.RunDirectory.__new__(rundir.RunDirectory)
  directory.path, directory._grown = tmp_path, {}
  run = types.SimpleNamespace(
    directory=directory,
    display=display,
    names=synthetic_run.NAMES,
    counted=collections.Counter(),
    config=config_lib.get({}),
    client=types.SimpleNamespace(
      totals=lambda: {'completion_tokens': 70, 'price_usd': 0.5}
    ),
    trackers=trackers.Trackers((), tmp_path, {}, display.say),
  )
  send = run.trackers.send
  run.trackers.send = lambda points: (sent.extend(points), send(points))
  curriculum = directory.read_record(rundir.CURRICULUM, records.Curriculum)
  trainer = types.SimpleNamespace(
    step=0,
    stage=1,
    round=0,
    compilations=0,
    mastery=lambda: MASTERY,
    scores=lambda: dict.fromkeys(run.names, records.Score(3.0, 4)),
  )
  book = types.SimpleNamespace(untaught=[])
  observer = observing.Observer(run, curriculum, trainer, book, lambda s: 0.1)
  progress = records.Progress(tokens=5, train_seconds=60.0)
  observer.take_up(progress)
  assert display.elapsed() >= 60.0 + observer._before
  observer.supplied()
  assert display.status.phase == 'compiling the training step' and not sent
  trainer.compilations, trainer.step = 1, 50
  k = len(run.names)
  observer.record(
    {
      'ran': np.array([True, True]),
      'step': np.array([49, 50]),
      'stage': np.array([1, 1]),
      'round': np.array([0, 0]),
      'tokens': np.array([30, 40]),
      'probe_tokens': np.array([0, 9]),
      'loss_sum': np.array([1.0, 3.0]),
      'loss_count': np.array([2.0, 2.0]),
      'grad_norm': np.array([1.0, 1.0]),
      'pace': np.array([1.0, 1.0]),
      'decision': np.array([_NONE, _STAY]),
      'correct_K': np.full((2, k), 3.0),
      'probed_K': np.full((2, k), 4),
      'reopened_K': np.zeros((2, k), bool),
    }
  )
  assert observer.tokens == 75
  assert [p.step for p in sent] == [50, 50]
  assert sent[0].scalars['train/loss'] == 1.0
  last = sent[-1].scalars
  assert last['train/tokens_per_second'] > 0
  assert (last['teacher/tokens'], last['teacher/usd']) == (70, 0.5)
  assert last['gate/stage'] == 2
  line = display._line()
  assert 'stage 2/5' in line and 'mastery of 0.90' in line
  observer.saved()
  assert standing(tmp_path).state == 'running'
  assert standing(tmp_path).left_seconds is None  # Of one window.


def test_the_end_is_told_and_summed(tmp_path):
  from ioa_jax.phases import results
  from ioa_jax.runtime import trackers

  files = report_runs.good(tmp_path)
  supplied = [e for e in files['metrics.jsonl'] if e['event'] == 'supply']
  for event in supplied:
    event['usd'] = dict.fromkeys(event['modules'], 0.25)
  synthetic_run.save(tmp_path, files)
  directory = rundir.RunDirectory.__new__(rundir.RunDirectory)
  directory.path, directory._grown = tmp_path, {}
  sent = []
  run = types.SimpleNamespace(
    directory=directory,
    config=types.SimpleNamespace(gate=types.SimpleNamespace(tau_mastery=0.9)),
    subject=types.SimpleNamespace(price=Price(1.0, 1.0)),
    client=types.SimpleNamespace(totals=lambda: {'price_usd': 100.0}),
    trackers=trackers.Trackers((), tmp_path, {}, print),
    names=synthetic_run.NAMES,
  )
  run.trackers.send = sent.extend
  scores = {'a/b': records.Score(3, 4)}
  taught = types.SimpleNamespace(state=types.SimpleNamespace(step=2200))
  results._tell(run, taught, scores, scores, scores)
  assert sent[-1].scalars['held_out/after'] == 0.75
  lines = directory.read_lines(rundir.METRICS)
  assert records.parse_event(lines[-1], '').event == 'held_out'
  money = results._money(run)
  count = sum(len(e['modules']) for e in supplied)
  assert sum(x.usd for x in money.lessons) == 0.25 * count
  assert money.other_usd == 100.0 - 0.25 * count
  run.subject.price = Price()
  assert results._money(run) is None
  # The last line is no stage's end.
  ends = files['results.json']['forgetting']
  whole = [f for f in ends if f['after_stage'] < 4]
  assert len(results._forgetting(run)) == len(whole)
