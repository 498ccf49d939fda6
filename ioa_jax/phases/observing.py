"""What happens while teaching, as events for files and as words for people."""

from __future__ import annotations

from collections.abc import Iterable
import dataclasses
import json
from typing import Any

import optax

from ioa_jax.assemble import Run
from ioa_jax.phases.alarms import Alarms
from ioa_jax.phases.lessons import LessonBook
from ioa_jax.records import Curriculum, Event, Probing, Training, parse_event
from ioa_jax.runtime.rundir import METRICS
from ioa_jax.training import metrics as metrics_lib
from ioa_jax.training.trainer import Metrics, Trainer

_SAID = {
  'advance': 'mastered',
  'remediate': 'not mastered yet; asking for remedial lessons',
  'stall': 'left unmastered after its last round',
}


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

  def recall(self) -> None:
    """Takes up what an earlier start has logged."""
    for index, line in enumerate(self._run.directory.read_lines(METRICS), 1):
      event = parse_event(line, f'{METRICS} line {index}')
      if isinstance(event, Probing):
        self._alarms.hear(event, self._taught_in(event.stage))
        self._reopened = set(event.reopened)

  def log(self, events: Iterable[Event]) -> None:
    self._run.directory.append_lines(METRICS, (e.to_json() for e in events))

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
    self.tokens += int(metrics['tokens'].sum())
    run.counted['student_inferred'] += int(metrics['probe_tokens'].sum())
    events = [self._heard(e) for e in events]
    self.log(events)
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
      **facts,
    )

  def close(self) -> None:
    """Events for TensorBoard, made from metrics.jsonl, so both always agree."""
    lines = self._run.directory.read_lines(METRICS)
    metrics_lib.write_tensorboard(
      self._run.directory.path / 'tensorboard', map(json.loads, lines)
    )
