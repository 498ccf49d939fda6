"""What trackers are sent: each point once, however often a run is killed."""

from __future__ import annotations

import json
import struct
import time
import types

import pytest

from ioa_jax import config as config_lib
from ioa_jax import records
from ioa_jax.phases import tracking
from ioa_jax.runtime import rundir, trackers
from ioa_jax.runtime.trackers import Point
from tests import synthetic_run

CONFIG = {'seed': 3}


def points(first, last):
  return [
    Point(10 * i, {'train/loss': float(i), 'mastery/a/b c': i / 100})
    for i in range(first, last)
  ]


class Kept:
  """A tracker in memory that can fail, as one behind a network does."""

  sent: list = []  # noqa: RUF012
  fails_at: int | None = None

  def __init__(self, directory, name, config):
    self.about = directory, name, config

  def log(self, point):
    if point.step == Kept.fails_at:
      raise OSError('the network is down')
    Kept.sent.append(point.step)

  def close(self):
    pass


@pytest.fixture
def kept(monkeypatch):
  Kept.sent, Kept.fails_at = [], None
  monkeypatch.setitem(trackers._OTHERS, 'wandb', Kept)
  return Kept


def open_(path, names=('wandb',), said=None):
  say = (said if said is not None else []).append
  return trackers.Trackers(names, path, CONFIG, say)


def test_a_resumed_run_sends_every_point_once(tmp_path, kept):
  """Killed after 5 points, of which the checkpoint had 3."""
  first = open_(tmp_path)
  first.send(points(0, 2))
  first.send(points(2, 5))
  # It is killed, so nothing is closed; the file is cut to the checkpoint.
  second = open_(tmp_path)
  second.send(points(0, 3))
  for i in range(3, 8):
    second.send(points(i, i + 1))
  assert kept.sent == [10 * i for i in range(8)]


def test_a_tracker_that_is_added_later_has_it_all(tmp_path, kept):
  open_(tmp_path, ()).send(points(0, 4))
  open_(tmp_path).send(points(0, 6))
  assert kept.sent == [10 * i for i in range(6)]


def test_a_failing_tracker_stops_nothing_and_loses_nothing(tmp_path, kept):
  said = []
  kept.fails_at = 20
  run = open_(tmp_path, said=said)
  run.send(points(0, 4))
  run.send(points(4, 5))
  run.close()
  assert kept.sent == [0, 10]
  assert said == [
    'wandb: nothing more is sent (the network is down). The run goes on; its '
    'next start sends the rest.'
  ]
  kept.fails_at = None
  open_(tmp_path).send(points(0, 5))
  assert kept.sent == [0, 10, 20, 30, 40]


def read_tensorboard(path):
  accumulator = pytest.importorskip(
    'tensorboard.backend.event_processing.event_accumulator'
  )
  events = accumulator.EventAccumulator(str(path / 'tensorboard'))
  events.Reload()
  return events


@pytest.mark.parametrize('checkpoint', [0, 1, 3, 5])
def test_tensorboard_reads_each_point_once(tmp_path, checkpoint):
  """Two points share a step, and the checkpoint may be between them."""
  all_points = [*points(0, 4), Point(30, {'lessons/stage': 7.0}), *points(4, 7)]
  first = open_(tmp_path, ['tensorboard'])
  first.send(all_points[:6])
  # What was sent is on the disk at once: it is killed, not closed.
  steps = [e.step for e in read_tensorboard(tmp_path).Scalars('train/loss')]
  assert steps == [0, 10, 20, 30, 40]
  second = open_(tmp_path, ['tensorboard'])
  second.send(all_points[:checkpoint])
  second.send(all_points[checkpoint:])
  second.close()
  events = read_tensorboard(tmp_path)
  found = events.Scalars('train/loss')
  assert [e.step for e in found] == [0, 10, 20, 30, 40, 50, 60]
  assert [e.value for e in found] == [0, 1, 2, 3, 4, 5, 6]
  assert [e.step for e in events.Scalars('lessons/stage')] == [30]


def test_a_package_that_is_missing_is_said_before_anything_else(monkeypatch):
  monkeypatch.setitem(trackers._MODULES, 'wandb', 'no_such_package')
  with pytest.raises(ValueError, match=r"pip install 'ioa_jax\[wandb\]'"):
    trackers.require(['tensorboard', 'wandb'])


def test_the_setting_may_change_between_two_starts():
  field = config_lib.fields()['run.trackers']
  assert field.changeable and field.default == ('tensorboard',)
  with pytest.raises(config_lib.ConfigError, match='trackers'):
    config_lib.parse('run.trackers', 'clu')


def follower(path, names=('wandb',)):
  """A run as far as tracking needs one."""
  files = synthetic_run.write(path)
  config = types.SimpleNamespace(
    gate=types.SimpleNamespace(tau_mastery=synthetic_run.TAU)
  )
  directory = types.SimpleNamespace(
    path=path,
    read_record=lambda name, kind: kind.from_json((path / name).read_text()),
    read_lines=lambda name: (path / name).read_text().split('\n')[:-1],
  )
  run = types.SimpleNamespace(
    config=config, directory=directory, trackers=open_(path, names)
  )
  return run, files


def test_points_say_what_the_events_say(tmp_path, monkeypatch):
  sent = []
  run, files = follower(tmp_path)
  monkeypatch.setattr(run.trackers, 'send', sent.extend)
  tracking.Tracking(run).follow({'teacher/usd': 1.5})
  events = files['metrics.jsonl']
  assert [p.step for p in sent] == [e['step'] for e in events]
  teacher = files['diagnosis.json']['modules']
  stages = files['curriculum.json']['stages']
  for event, point in zip(events, sent):
    if event['event'] == 'train':
      assert point.scalars['train/loss'] == event['train/loss']
    elif event['event'] == 'probe':
      share = {
        k: s['correct'] / s['n'] * 32 / teacher[k]['teacher']['correct']
        for k, s in event['scores'].items()
      }
      least = min(share[k] for k in stages[event['stage']]['modules'])
      assert point.scalars['gate/least_mastery'] == pytest.approx(least)
      assert point.scalars['gate/mastery_threshold'] == 0.9
      assert point.scalars['gate/stage'] == event['stage'] + 1
      for name, value in share.items():
        assert point.scalars[f'mastery/{name}'] == pytest.approx(value)
    else:
      name = f'lessons/{event["kind"]}'
      assert point.scalars[name] == event['lessons']
      assert list(point.texts) == [name]
  # The first supply shows the first lessons, indented as code is.
  first = files['lessons.jsonl'][0]
  assert f'    {first["problem"]}' in sent[0].texts['lessons/rehearsal']
  assert sent[-1].scalars['teacher/usd'] == 1.5
  assert 'teacher/usd' not in sent[-2].scalars


def test_only_new_lines_are_sent(tmp_path, kept):
  run, files = follower(tmp_path)
  follow = tracking.Tracking(run).follow
  lines = (tmp_path / rundir.METRICS).read_text().splitlines(keepends=True)
  for count in (3, 3, 20, len(lines)):
    (tmp_path / rundir.METRICS).write_text(''.join(lines[:count]))
    follow()
    assert kept.sent == [e['step'] for e in files['metrics.jsonl'][:count]]
  end = records.HeldOut(
    'held_out',
    2200,
    {'a/b': records.Score(1, 4)},
    {'a/b': records.Score(3, 4)},
    {'a/b': records.Score(4, 4)},
  )
  with open(tmp_path / rundir.METRICS, 'a') as file:
    file.write(end.to_json() + '\n')
  # The evaluation has a follower of its own.
  tracking.Tracking(run).follow()
  assert kept.sent == [*(e['step'] for e in files['metrics.jsonl']), 2200]
  assert dict(tracking._held_out(end)) == {
    'held_out/before': 0.25,
    'held_out/after': 0.75,
    'held_out/after/a/b': 0.75,
    'held_out/teacher': 1.0,
  }


LESSON = Point(40, {}, {'lessons/stage': '    <b>1 + 1</b>'})


def test_mlflow_has_every_point_once(tmp_path, monkeypatch):
  mlflow = pytest.importorskip('mlflow')
  monkeypatch.setenv('MLFLOW_ALLOW_FILE_STORE', 'true')
  monkeypatch.setenv('MLFLOW_TRACKING_URI', f'file://{tmp_path}/store')
  for kept_points in (points(0, 2), points(0, 4)):
    run = open_(tmp_path, ['mlflow'])
    run.send(kept_points)
    run.close()
  run = open_(tmp_path, ['mlflow'])
  run.send([*points(0, 4), LESSON])
  run.close()
  client = mlflow.MlflowClient()
  experiment = client.get_experiment_by_name(trackers.PROJECT)
  (found,) = client.search_runs([experiment.experiment_id])
  history = client.get_metric_history(found.info.run_id, 'train/loss')
  assert [(m.step, m.value) for m in history] == [
    (10 * i, float(i)) for i in range(4)
  ]
  assert found.data.metrics['mastery/a/b c'] == 0.03
  texts = client.list_artifacts(found.info.run_id, 'lessons/stage')
  assert [t.path for t in texts] == ['lessons/stage/step-40.md']
  assert found.info.status == 'FINISHED'


def test_trackio_has_every_point_once(tmp_path, monkeypatch):
  monkeypatch.setenv('TRACKIO_DIR', str(tmp_path / 'store'))
  trackio = pytest.importorskip('trackio')
  storage = pytest.importorskip('trackio.sqlite_storage').SQLiteStorage
  # It reads the variable when it is imported.
  for module in ('trackio.utils', 'trackio.sqlite_storage'):
    monkeypatch.setattr(f'{module}.TRACKIO_DIR', tmp_path / 'store')
  for kept_points in (points(0, 2), [*points(0, 4), LESSON]):
    run = open_(tmp_path, ['trackio'])
    run.send(kept_points)
    run.close()
  (name,) = storage.get_runs(trackers.PROJECT)
  logs = storage.get_logs(trackers.PROJECT, name)
  losses = [(x['step'], x['train/loss']) for x in logs if 'train/loss' in x]
  assert losses == [(10 * i, float(i)) for i in range(4)]
  assert any('lessons/stage' in x for x in logs)
  assert trackio is not None


def wandb_records(path):
  """Records of a .wandb file: a header, then LevelDB's log format."""
  data, at, record = path.read_bytes(), 7, b''
  while at + 7 <= len(data):
    if (left := 2**15 - at % 2**15) < 7:  # No header is split.
      at += left
      continue
    size, kind = struct.unpack_from('<HB', data, at + 4)
    record += data[at + 7 : at + 7 + size]
    at += 7 + size
    if kind in (1, 4):  # Whole, or the last part.
      yield record
      record = b''


def test_wandb_offline_has_every_point_once(tmp_path, monkeypatch):
  pytest.importorskip('wandb')
  from wandb.proto import wandb_internal_pb2

  for name, value in (
    ('MODE', 'offline'),
    ('CACHE_DIR', str(tmp_path / 'cache')),
    ('CONFIG_DIR', str(tmp_path / 'config')),
    ('DATA_DIR', str(tmp_path / 'data')),
  ):
    monkeypatch.setenv(f'WANDB_{name}', value)
  run_ids, losses, texts = set(), [], 0
  for kept_points in (points(0, 2), [*points(0, 4), LESSON]):
    run = open_(tmp_path, ['wandb'])
    run.send(kept_points)
    run.close()
    time.sleep(1.1)  # Its folders are named by the second.
  for path in sorted(tmp_path.glob('wandb/offline-run-*/*.wandb')):
    for data in wandb_records(path):
      record = wandb_internal_pb2.Record()
      record.ParseFromString(data)
      if record.run.run_id:
        run_ids.add(record.run.run_id)
      row = {
        (x.key or '/'.join(x.nested_key)): json.loads(x.value_json)
        for x in record.history.item
      }
      texts += any('lessons/stage' in key for key in row)
      if 'train/loss' in row:
        losses.append((record.history.step.num, row['train/loss']))
  assert losses == [(10 * i, float(i)) for i in range(4)]
  assert texts == 1 and len(run_ids) == 1
