"""Where the numbers of a run go besides its files: TensorBoard and others.

What is sent is made of the lines of `metrics.jsonl`, in order, so a tracker and
the file agree. Each tracker is sent every line once, however often the run is
killed and started again.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
import dataclasses
import hashlib
import importlib.util
import json
import pathlib
import time
from typing import Any, Protocol

from ioa_jax.runtime import files

PROJECT = 'ioa_jax'
_SENT = 'tracked.json'
# What each is imported as, and the extra that brings it.
_MODULES = {
  'tensorboard': 'tensorboardX',
  'wandb': 'wandb',
  'mlflow': 'mlflow',
  'trackio': 'trackio',
}


@dataclasses.dataclass(frozen=True)
class Point:
  """What there is to say of one step: numbers, and texts as Markdown."""

  step: int
  scalars: Mapping[str, float] = dataclasses.field(default_factory=dict)
  texts: Mapping[str, str] = dataclasses.field(default_factory=dict)


class Tracker(Protocol):
  """Somewhere that points are sent to."""

  def log(self, point: Point) -> None:
    """Sends a point, whose step is at least that of the one before."""
    ...

  def close(self) -> None:
    """Waits until all of it has been sent."""
    ...


class TensorBoard:
  """Event files in `tensorboard/` of the run directory, one for each start.

  Of what earlier starts wrote, readers drop everything from `purge_step` on.
  """

  def __init__(self, directory: pathlib.Path, purge_step: int | None):
    # Imported here, as all of them: it costs a second. Not its SummaryWriter,
    # whose thread can still hold what it was told to flush.
    from tensorboardX import event_file_writer, summary
    from tensorboardX.proto import event_pb2

    self._summary, self._proto = summary, event_pb2
    folder = directory / 'tensorboard'
    folder.mkdir(exist_ok=True)
    number = len(list(folder.iterdir()))
    self._writer = event_file_writer.EventsWriter(
      # Two of one second would have one name.
      str(folder / 'events'),
      f'.{number:04d}',
    )
    if purge_step is not None:
      begun = event_pb2.SessionLog(status=event_pb2.SessionLog.START)
      self._write(purge_step, session_log=begun)

  def log(self, point: Point) -> None:
    for name, value in point.scalars.items():
      self._write(point.step, summary=self._summary.scalar(name, value))
    for name, text in point.texts.items():
      self._write(point.step, summary=self._summary.text(name, text))
    self._writer.flush()

  def _write(self, step: int, **content) -> None:
    now = time.time()
    event = self._proto.Event(step=step, wall_time=now, **content)
    self._writer.write_event(event)

  def close(self) -> None:
    self._writer.close()


class WeightsAndBiases:
  """A run of W&B; its environment variables say where, and offline or not."""

  def __init__(self, directory: pathlib.Path, name: str, config: Any):
    import wandb

    self._wandb = wandb
    self._run = wandb.init(
      project=PROJECT,
      id=_identity(directory),
      name=name,
      config=config,
      resume='allow',
      dir=str(directory),
      # Only what is logged here leaves this machine.
      settings=wandb.Settings(
        silent=True, console='off', save_code=False, disable_git=True
      ),
    )

  def log(self, point: Point) -> None:
    texts = {
      name: self._wandb.Html(f'<pre>{_escaped(text)}</pre>')
      for name, text in point.texts.items()
    }
    self._run.log({**point.scalars, **texts}, step=point.step)

  def close(self) -> None:
    self._run.finish()


class MLflow:
  """A run of MLflow, at MLFLOW_TRACKING_URI."""

  def __init__(self, directory: pathlib.Path, name: str, config: Any):
    import mlflow
    from mlflow import entities

    self._metric = entities.Metric
    self._client = mlflow.MlflowClient()
    experiment = self._client.get_experiment_by_name(PROJECT)
    if experiment is None:
      where = self._client.create_experiment(PROJECT)
    else:
      where = experiment.experiment_id
    identity = _identity(directory)
    found = self._client.search_runs(
      [where], f"tags.ioa_jax_run = '{identity}'", max_results=1
    )
    if found:
      self._id = found[0].info.run_id
      self._client.update_run(self._id, status='RUNNING')
      return
    self._id = self._client.create_run(
      where, run_name=name, tags={'ioa_jax_run': identity}
    ).info.run_id
    self._client.log_dict(self._id, config, 'config.json')

  def log(self, point: Point) -> None:
    now = int(1000 * time.time())
    self._client.log_batch(
      self._id,
      metrics=[
        self._metric(_plain(name), value, now, point.step)
        for name, value in point.scalars.items()
      ],
    )
    for name, text in point.texts.items():
      self._client.log_text(
        self._id, text, f'{_plain(name)}/step-{point.step}.md'
      )

  def close(self) -> None:
    self._client.set_terminated(self._id)


class Trackio:
  """A run of trackio, in TRACKIO_DIR or TRACKIO_SPACE_ID."""

  def __init__(self, directory: pathlib.Path, name: str, config: Any):
    import trackio

    self._trackio = trackio
    self._run = trackio.init(
      project=PROJECT,
      name=f'{name}-{_identity(directory)}',
      config=config,
      resume='allow',
      embed=False,
      auto_log_gpu=False,
      auto_log_cpu=False,
    )

  def log(self, point: Point) -> None:
    texts = {
      name: self._trackio.Markdown(text) for name, text in point.texts.items()
    }
    self._run.log({**point.scalars, **texts}, step=point.step)

  def close(self) -> None:
    self._run.finish()


_OTHERS = {'wandb': WeightsAndBiases, 'mlflow': MLflow, 'trackio': Trackio}


def require(names: Sequence[str]) -> None:
  """Raises ValueError for a tracker whose package is not installed."""
  for name in names:
    if importlib.util.find_spec(_MODULES[name]) is None:
      raise ValueError(
        f'config.run.trackers has {name!r} and {_MODULES[name]} is not '
        f"installed: pip install 'ioa_jax[{name}]'."
      )


class Trackers:
  """The trackers of one run; each is sent every point once.

  How many points each was sent is kept in the run directory, beside
  TensorBoard's files, which can be cut back instead.
  """

  def __init__(
    self,
    names: Sequence[str],
    directory: pathlib.Path,
    config: Mapping[str, Any],
    say: Callable[[str], None],
  ):
    """Opens nothing yet.

    Args:
      config: of the run, shown where a tracker has a place for it.
      say: told about a tracker that fails.
    """
    self._names, self._directory = list(names), directory
    self._config, self._say = dict(config), say
    self._open: dict[str, Tracker] = {}
    self._sent: dict[str, int] = {}
    self._points: int | None = None  # That there were so far.

  @property
  def num_points(self) -> int:
    return self._points or 0

  def send(self, points: Sequence[Point]) -> None:
    """Sends what comes after the points of all calls before.

    The first call of a process is with all points that earlier starts made and
    this one keeps. A tracker that fails is told of and sent the rest by the
    next start; the run goes on.
    """
    if self._points is None:
      self._points = 0
      for name in self._names:
        self._guarded(name, lambda n=name: self._start(n, points))
    first, self._points = self._points, self._points + len(points)
    for name in list(self._open):
      todo = points[max(self._sent[name] - first, 0) :]
      if todo:
        self._guarded(name, lambda n=name, t=todo: self._log(n, t))

  def _start(self, name: str, kept: Sequence[Point]) -> None:
    if name == 'tensorboard':
      again = any((self._directory / name).glob('*tfevents*'))
      last = (kept[-1].step if kept else 0) if again else None
      self._open[name] = TensorBoard(self._directory, last)
      self._sent[name] = 0
      if last is not None:
        # Those of the last step are cut off with what came after them.
        self._sent[name] = sum(p.step < last for p in kept)
      return
    about = (self._directory, self._directory.resolve().name, self._config)
    self._open[name] = _OTHERS[name](*about)
    self._sent[name] = self._before().get(name, 0)

  def _log(self, name: str, points: Sequence[Point]) -> None:
    for point in points:
      self._open[name].log(point)
      self._sent[name] += 1
      if name != 'tensorboard':
        sent = self._before() | {name: self._sent[name]}
        files.write_text(self._directory / _SENT, json.dumps(sent))

  def _before(self) -> dict[str, int]:
    path = self._directory / _SENT
    return json.loads(files.read_text(path)) if path.exists() else {}

  def _guarded(self, name: str, call: Callable[[], None]) -> None:
    try:
      call()
    except Exception as e:  # They have no common type.
      self._open.pop(name, None)
      reason = ' '.join(str(e).split())[:200] or repr(e)
      self._say(
        f'{name}: nothing more is sent ({reason}). The run goes on; its next '
        'start sends the rest.'
      )

  def close(self) -> None:
    """Waits until all has been sent."""
    for name, tracker in list(self._open.items()):
      self._guarded(name, tracker.close)
    self._open = {}


def _identity(directory: pathlib.Path) -> str:
  """Of a run directory: the same for every start, on a machine."""
  return hashlib.sha256(str(directory.resolve()).encode()).hexdigest()[:12]


def _plain(name: str) -> str:
  """MLflow's names: letters, digits and a few marks."""
  return ''.join(c if c.isalnum() or c in '_-. /' else '_' for c in name)


def _escaped(text: str) -> str:
  return text.replace('&', '&amp;').replace('<', '&lt;').replace('>', '&gt;')
