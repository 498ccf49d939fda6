"""What happens while teaching, as events for files and as words for people."""

from __future__ import annotations

from collections.abc import Iterable
import dataclasses
import time
from typing import Any

import optax

from ioa_jax.assemble import Run
from ioa_jax.phases.alarms import Alarms
from ioa_jax.phases.lessons import LessonBook
from ioa_jax.phases.reporting import Reports
from ioa_jax.phases.tracking import Tracking
from ioa_jax.records import (
  Curriculum,
  Diagnosis,
  Event,
  Probing,
  Progress,
  Training,
  parse_event,
)
from ioa_jax.runtime.rundir import DIAGNOSIS, METRICS
from ioa_jax.training import metrics as metrics_lib
from ioa_jax.training.trainer import Metrics, Trainer

_RECENT = 20  # Windows that speed is taken from.
_SAID = {
  'advance': 'mastered',
  'remediate': 'not mastered yet; asking for remedial lessons',
  'stall': 'left unmastered; its steps are spent',
}


class Pace:
  """How long the run will go on, from its plan and its speed so far.

  Steps that are left, the lessons of stages that have none yet, and the
  evaluation, which takes about as long as the diagnosis. Remedial rounds are
  not foreseen.
  """

  def __init__(self, stages: int, total_steps: int, evaluation: float):
    self._stages, self._total_steps = stages, total_steps
    self._evaluation = evaluation
    self._compiled = False
    self._windows: list[tuple[int, float]] = []
    self._supplies: list[float] = []

  def trained(self, steps: int, seconds: float) -> None:
    if self._windows and not self._compiled:
      self._windows.clear()  # The first one was compiled meanwhile.
      self._compiled = True
    self._windows.append((steps, seconds))
    del self._windows[:-_RECENT]  # Speed changes with what else runs.

  def supplied(self, seconds: float) -> None:
    self._supplies.append(seconds)

  def left(self, step: int, stage: int) -> float | None:
    """Seconds, None until a window has gone by that was not compiled.

    Args:
      stage: the one that is taught, from 0.
    """
    if not self._compiled:
      return None
    steps, seconds = map(sum, zip(*self._windows))
    training = max(0, self._total_steps - step) * seconds / steps
    # The last stage repeats what was taught, with the lessons there are.
    ahead = max(0, self._stages - 2 - stage)
    supply = sum(self._supplies) / max(1, len(self._supplies))
    return training + ahead * supply + self._evaluation


class Observer:
  """Writes `metrics.jsonl` and keeps the display up to date.

  Attributes:
    tokens: live tokens trained on.
  """

  def __init__(
    self,
    run: Run,
    curriculum: Curriculum,
    trainer: Trainer,
    book: LessonBook,
    learning_rate: optax.Schedule,
  ):
    self.tokens = 0
    self._run, self._curriculum = run, curriculum
    self._trainer, self._book = trainer, book
    self._learning_rate = learning_rate
    self._reopened: set[str] = set()
    # The trainer has not taken a step yet, so these are the diagnosis's.
    scores = trainer.scores()
    self._alarms = Alarms({k: scores[k] for k in curriculum.rehearsed})
    self._tracking = Tracking(run)
    self._before = run.directory.read_record(DIAGNOSIS, Diagnosis).seconds
    self._pace = Pace(
      len(curriculum.stages), curriculum.total_steps, self._before
    )
    self._reports = Reports(run)
    self._since = time.monotonic()  # Of the window that is under way.

  def recall(self) -> None:
    """Takes up what an earlier start has logged."""
    for index, line in enumerate(self._run.directory.read_lines(METRICS), 1):
      event = parse_event(line, f'{METRICS} line {index}')
      if isinstance(event, Probing):
        self._alarms.hear(event, self._taught_in(event.stage))
        self._reopened = set(event.reopened)

  def take_up(self, progress: Progress) -> None:
    """What earlier starts have counted."""
    self.tokens = progress.tokens
    before = progress.train_seconds + progress.synthesise_seconds
    self._run.display.update(spent_before=self._before + before)

  def log(self, events: Iterable[Event]) -> None:
    self._run.directory.append_lines(METRICS, (e.to_json() for e in events))

  def follow(self, **now: float) -> None:
    """Sends what is new to the trackers, with what is measured `now`."""
    spent = self._run.client.totals()
    now['teacher/tokens'] = spent['completion_tokens']
    now['teacher/usd'] = spent['price_usd']
    self._tracking.follow(now)
    self._since = time.monotonic()
    if not self._trainer.compilations:
      self._run.display.update(phase='compiling the training step')

  def supplied(self) -> None:
    """Lessons have come."""
    self._pace.supplied(time.monotonic() - self._since)
    self.follow()

  def saved(self) -> None:
    """A checkpoint was written: the report is drawn as of now."""
    self._reports.at_checkpoint()

  def record(self, metrics: Metrics) -> None:
    """Logs a window's events and shows them."""
    run = self._run
    events = metrics_lib.window_events(
      metrics,
      run.names,
      tokens_before=self.tokens,
      learning_rate=self._learning_rate,
      every=run.config.gate.probe_every_steps,
    )
    tokens = int(metrics['tokens'].sum())
    seconds = time.monotonic() - self._since
    self.tokens += tokens
    run.counted['student_inferred'] += int(metrics['probe_tokens'].sum())
    events = [self._heard(e) for e in events]
    self.log(events)
    speed = {}
    if steps := int(metrics['ran'].sum()):
      self._pace.trained(steps, seconds)
      speed['train/tokens_per_second'] = tokens / seconds
    self.follow(**speed)
    losses = [e.loss for e in events if isinstance(e, Training)]
    self.show(losses[-1] if losses else None)
    for event in events:
      if isinstance(event, Probing):
        self._tell(event)

  def _heard(self, event: Event) -> Event:
    """A probing round with what has fallen by it, which is said once."""
    if not isinstance(event, Probing):
      return event
    for name in self._alarms.hear(event, self._taught_in(event.stage)):
      was, now = self._alarms.was(name), event.scores[name]
      self._run.display.say(
        f'step {event.step}: {name} has fallen from {was.mean:.0%} to '
        f'{now.mean:.0%} of its gate probes.'
      )
    return dataclasses.replace(event, fallen=self._alarms.fallen)

  def _tell(self, event: Probing) -> None:
    """One decision of the gate, and what has fallen."""
    say = self._run.display.say
    if event.decision in _SAID:
      names = ', '.join(self._taught_in(event.stage))
      say(
        f'step {event.step}: stage {event.stage + 1} ({names}) '
        f'{_SAID[event.decision]}.'
      )
    for name in sorted(set(event.reopened) - self._reopened):
      say(
        f'step {event.step}: {name} was mastered and has fallen; it is '
        'taught again beside the stage.'
      )
    self._reopened = set(event.reopened)

  def _taught_in(self, stage: int) -> list[str]:
    modules = self._curriculum.stages[stage].modules
    return [name for name in modules if name not in self._book.untaught]

  def show(self, loss: float | None = None) -> None:
    """Where the run stands, on the display."""
    trainer, stages = self._trainer, self._curriculum.stages
    stage = trainer.stage
    names = tuple(self._taught_in(stage)) if stage < len(stages) else ()
    mastery = trainer.mastery()
    facts: dict[str, Any] = {} if loss is None else {'loss': loss}
    self._run.display.update(
      phase='teaching',
      done=trainer.step,
      total=self._run.config.train.total_steps,
      stage=stage,
      num_stages=len(stages),
      stage_modules=names,
      round=trainer.round,
      mastery={n: mastery[n] for n in names},
      threshold=self._run.config.gate.tau_mastery,
      run_left=self._pace.left(trainer.step, stage),
      **facts,
    )
