"""The lines of `metrics.jsonl` as points for trackers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from ioa_jax.assemble import Run
from ioa_jax.records import (
  Curriculum,
  Diagnosis,
  Event,
  HeldOut,
  Lesson,
  Probing,
  Supply,
  Training,
  parse_event,
)
from ioa_jax.runtime.rundir import CURRICULUM, DIAGNOSIS, LESSONS, METRICS
from ioa_jax.runtime.trackers import Point

_SAMPLES = 2  # Lessons of a supply that are shown.


class Tracking:
  """Keeps the trackers of a run up to date with `metrics.jsonl`."""

  def __init__(self, run: Run):
    directory = run.directory
    self._run = run
    self._curriculum = directory.read_record(CURRICULUM, Curriculum)
    diagnosis = directory.read_record(DIAGNOSIS, Diagnosis)
    self._teacher = {k: m.teacher.mean for k, m in diagnosis.modules.items()}
    self._read = self._supplied = 0  # Lines of the file, and lessons in them.

  def follow(self, now: Mapping[str, float] | None = None) -> None:
    """Sends the lines that are new.

    Args:
      now: measured at this moment and not in the file, as speed and cost;
        shown at the last step.
    """
    run = self._run
    points = []
    where = run.directory.path / METRICS
    new = run.directory.read_lines(METRICS)[self._read :]
    for i, line in enumerate(new, self._read + 1):
      event = parse_event(line, f'{where} line {i}')
      if i > run.trackers.num_points:
        points.append(self._point(event))
      if isinstance(event, Supply):
        self._supplied += event.lessons
    self._read += len(new)
    if points and now:
      last = points[-1]
      points[-1] = Point(last.step, {**last.scalars, **now}, last.texts)
    run.trackers.send(points)

  def _point(self, event: Event) -> Point:
    if isinstance(event, Training):
      values = event.to_dict()
      scalars = {k: v for k, v in values.items() if k.startswith('train/')}
      return Point(event.step, scalars)
    if isinstance(event, Probing):
      return Point(event.step, dict(self._probed(event)))
    if isinstance(event, HeldOut):
      return Point(event.step, dict(_held_out(event)))
    if isinstance(event, Supply):
      scalars = {
        f'lessons/{event.kind}': event.lessons,
        'lessons/rejected': sum(event.rejected.values()),
      }
      texts = {f'lessons/{event.kind}': self._samples(event)}
      return Point(event.step, scalars, texts if event.lessons else {})
    return Point(event.step, {'lessons/own_texts': event.texts})

  def _probed(self, event: Probing) -> Iterator[tuple[str, float]]:
    tau = self._run.config.gate.tau_mastery
    yield 'gate/stage', event.stage + 1
    yield 'gate/round', event.round
    yield 'gate/mastery_threshold', tau
    mastery = {
      name: score.mean / self._teacher[name]
      for name, score in event.scores.items()
      if score.n and self._teacher.get(name)
    }
    stage = self._curriculum.stages[event.stage].modules
    if asked := [mastery[name] for name in stage if name in mastery]:
      yield 'gate/least_mastery', min(asked)
    for name, value in mastery.items():
      yield f'mastery/{name}', value

  def _samples(self, event: Supply) -> str:
    """The first lessons of a supply, as Markdown that nothing can leave."""
    lines = self._run.directory.read_lines(LESSONS)
    first = self._supplied
    shown = lines[first : first + min(event.lessons, _SAMPLES)]
    return '\n\n---\n\n'.join(
      _markdown(Lesson.from_json(line)) for line in shown
    )


def _held_out(event: HeldOut) -> Iterator[tuple[str, float]]:
  for when, scores in (
    ('before', event.before),
    ('after', event.after),
    ('teacher', event.teacher),
  ):
    means = {name: s.mean for name, s in scores.items() if s.n}
    yield f'held_out/{when}', sum(means.values()) / len(means)
    if when == 'after':
      for name, value in means.items():
        yield f'held_out/after/{name}', value


def _markdown(lesson: Lesson) -> str:
  text = f'{lesson.module}\n\n{lesson.problem}\n\n{lesson.completion}'
  # A block of code: a lesson's own marks are shown as they are.
  return '\n'.join(f'    {line}' for line in text.splitlines())
