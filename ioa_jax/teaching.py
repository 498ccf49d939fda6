"""The teaching phase: one loop of lessons, windows of steps and the gate."""

from __future__ import annotations

from collections.abc import Sequence
import dataclasses
import time

from ioa_jax.adapter import Level
from ioa_jax.assemble import Run
from ioa_jax.phases import exams, guarding, judging, on_policy
from ioa_jax.phases.lessons import LessonBook, Order, easiest_first, examples
from ioa_jax.phases.observing import Observer
from ioa_jax.phases.training import Taught, make_trainer
from ioa_jax.records import (
  Curriculum,
  Diagnosis,
  Progress,
  Score,
)
from ioa_jax.runtime import signals
from ioa_jax.runtime.rundir import METRICS, REJECTED
from ioa_jax.training import checkpoint
from ioa_jax.training.trainer import Metrics, NonFiniteLoss, Status


def teach(
  run: Run, diagnosis: Diagnosis, curriculum: Curriculum
) -> Taught | None:
  """Lessons and training behind the gate, until the steps are spent.

  None means that a signal stopped it, with all saved.
  """
  phase = _Phase(run, diagnosis, curriculum)
  phase.resume()
  trainer, observer = phase.trainer, phase.observer
  with signals.StopRequest() as stop:
    while not stop.agree():
      status = trainer.status()
      if status is Status.ENDED:
        break
      if status is Status.LESSONS:
        phase.supply(remedial=False)
      elif status is Status.REMEDIAL:
        phase.supply(remedial=True)
      elif status is Status.SCORES:
        observer.record(trainer.grade(phase.grade))
      else:
        phase.write_on_policy()
        metrics = trainer.window()
        observer.record(metrics)
        # Not saved: a restart would take it for the end of the run.
        phase.require_finite(metrics)
      phase.save()
  phase.save(force=True)
  phase.close()
  if stop.agreed:
    run.display.say(
      f'Stopped by {stop.agreed} at step {trainer.step}; saved. '
      'The same command continues.'
    )
    return None
  kept = guarding.choose(run, trainer)
  return Taught(
    trainer.state,
    kept.step,
    trainer.assembled(kept.trained),
    None if run.subject.lora is None else kept.trained,
    phase.progress(),
    trainer.compilations,
  )


class _Phase:
  """What the loop holds open, and what it does between two windows."""

  def __init__(self, run: Run, diagnosis: Diagnosis, curriculum: Curriculum):
    self._run, self._curriculum = run, curriculum
    self.trainer, learning_rate = make_trainer(run, diagnosis, curriculum)
    self._book = LessonBook(run)
    self.observer = Observer(
      run, curriculum, self.trainer, self._book, learning_rate
    )
    self._checkpoints = checkpoint.Checkpoints(
      run.checkpoint_dir, keep=run.config.run.keep_checkpoints
    )
    self._on_policy_step = 0
    # What the latest practice showed, which remedial requests go by.
    self._practised: dict[str, Level] = {}
    # An earlier start's, if this one did not diagnose.
    self._set_counted(diagnosis.tokens)
    self._seconds = {'train': 0.0, 'synthesise': 0.0}
    self._since = time.monotonic()
    self._last_save = 0

  def _set_counted(self, tokens) -> None:
    self._run.counted.clear()
    self._run.counted.update(tokens)

  def _lap(self, what: str) -> None:
    """Charges the time since the last lap to `what`."""
    now = time.monotonic()
    self._seconds[what] += now - self._since
    self._since = now

  def resume(self) -> None:
    """Continues from the newest checkpoint, or prepares the first step."""
    run, trainer = self._run, self.trainer
    restored = self._checkpoints.restore(
      trainer.state, trainer.inputs, run.display.say
    )
    progress = Progress()
    if restored:
      trainer.state, trainer.inputs, progress = restored
      self._take_up(progress)
    # What was written after that checkpoint is written again, the same.
    self._book.recall(progress.lessons, progress.rejected, progress.untaught)
    run.directory.truncate(METRICS, progress.events)
    run.directory.require(progress.files)
    self.observer.recall()
    self._since = time.monotonic()
    if not restored:
      plan = self._curriculum
      self._add(Order([(k, 'rehearsal') for k in plan.rehearsed], 0))
      kind, lots = plan.request_kind(0), trainer.lots()
      new = [k for k in plan.stages[0].modules if k not in plan.rehearsed]
      self._add(Order([(k, kind) for k in new], 0, lots=lots))
      trainer.resume(remedial=False)
    (self.observer.follow if restored else self.observer.supplied)()

  def _take_up(self, progress: Progress) -> None:
    self._set_counted(progress.counted)
    self._practised = {k: Level(wrong=v) for k, v in progress.wrong.items()}
    self.observer.take_up(progress)
    self._on_policy_step = progress.on_policy_step
    self._seconds['train'] = progress.train_seconds
    self._seconds['synthesise'] = progress.synthesise_seconds
    self.trainer.drop(progress.untaught)
    self._run.client.carry(progress.spent)
    self._last_save = self.trainer.step
    self._run.display.say(f'Continuing from step {self._last_save}.')

  def supply(self, remedial: bool) -> None:
    """What the gate asked for: a stage's first lessons, or remedial ones."""
    trainer = self.trainer
    kind = self._curriculum.request_kind(trainer.stage)
    if remedial:
      kind = 'remedial'
      self._practise(trainer.wanted())
    self._add(
      Order(
        [(name, kind) for name in trainer.wanted()],
        trainer.stage,
        trainer.round + 1 if remedial else 0,
        trainer.step,
        trainer.lots(),
      )
    )
    self.observer.show()
    self.observer.supplied()
    trainer.resume(remedial)

  def _practise(self, names: Sequence[str]) -> None:
    """Has the student practise, for remedial requests to go by."""
    trainer, lessons = self.trainer, self._book.lessons
    self._practised |= judging.practised(
      self._run, trainer.params(), names, trainer.round + 1, lessons
    )

  def _add(self, order: Order) -> None:
    if not order.wanted:
      return
    self._lap('train')
    untaught = len(self._book.untaught)
    lessons = self._book.add(order, self._levels())
    if len(self._book.untaught) > untaught:
      self.trainer.drop(self._book.untaught)
    if self._run.config.train.easy_first_share:
      lessons = easiest_first(lessons)
    self.trainer.add_lessons(examples(self._run, lessons))
    self._lap('synthesise')

  def _levels(self) -> dict[str, Level]:
    """Where the student stood at the latest probing of each module."""
    return {
      name: dataclasses.replace(
        self._practised.get(name, Level()), score=score.mean
      )
      for name, score in self.trainer.scores().items()
    }

  def grade(self, names: Sequence[str]) -> dict[str, Score]:
    """Has the student answer the gate probes of `names`, and grades them."""
    probes = [p for p in self._run.probes('gate') if p.module in names]
    marks = exams.of_student(
      self._run, self.trainer.params(), probes, 'probing the student'
    )
    self.observer.show()
    return marks.scores

  def write_on_policy(self) -> None:
    """Has the student write texts to learn from, if they are due."""
    event = on_policy.update(
      self._run, self.trainer, self._book.lessons, self._on_policy_step
    )
    if event is not None:
      self.observer.log([event])
      self._on_policy_step = self.trainer.step

  def require_finite(self, metrics: Metrics) -> None:
    """Ends a run whose loss is not finite, naming the lessons it read."""
    try:
      self.trainer.require_finite(metrics)
    except NonFiniteLoss as e:
      read = ', '.join(map(str, self._book.lines_of(e.texts))) or 'none'
      raise ValueError(
        f'{e} The step read these lines of lessons.jsonl: {read}.'
      ) from None

  def save(self, *, force: bool = False) -> None:
    """Saves if it is due; a step is saved once."""
    step, every = self.trainer.step, self._run.config.run.checkpoint_every_steps
    since = step - self._last_save
    if since and (force or since >= every):
      state, inputs = self.trainer.state, self.trainer.inputs
      self._checkpoints.save(state, inputs, self.progress())
      self._last_save = step
      self.observer.saved()

  def progress(self) -> Progress:
    """What a checkpoint must know besides arrays."""
    self._lap('train')
    return Progress(
      lessons=len(self._book.lessons),
      events=self._run.directory.num_lines(METRICS),
      rejected=self._run.directory.num_lines(REJECTED),
      tokens=self.observer.tokens,
      train_seconds=self._seconds['train'],
      synthesise_seconds=self._seconds['synthesise'],
      counted=dict(self._run.counted),
      spent=self._run.client.totals(),
      untaught=tuple(self._book.untaught),
      files=self._run.directory.digests(),
      on_policy_step=self._on_policy_step,
      wrong={k: v.wrong for k, v in self._practised.items()},
    )

  def close(self) -> None:
    """Waits for the checkpoints."""
    self._checkpoints.close()
