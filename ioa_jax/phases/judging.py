"""What methods go by that judge lessons, or a student's answers to them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
import dataclasses

from ioa_jax.adapter import WRONG_KEPT, Level
from ioa_jax.adapter.referee import Mark, Marks
from ioa_jax.assemble import Run
from ioa_jax.baselines import lion
from ioa_jax.baselines.method import Evidence
from ioa_jax.models import decoder
from ioa_jax.phases import exams
from ioa_jax.records import Lesson, Probe
from ioa_jax.student import Reader
from ioa_jax.training import packing


def evidence(run: Run, lessons: Sequence[Lesson]) -> Evidence:
  """How difficult lessons are to follow for both models, and their marks."""
  marks, referee = None, run.subject.referee
  if referee is not None:
    requests = [referee.judge(x.problem, x.completion) for x in lessons]
    marks = [referee.mark(c) for c in run.ask(requests, Mark)]
  reader = run.teacher_reader
  return Evidence(
    _difficulty(run.student, lessons),
    reader and _difficulty(reader, lessons),
    marks,
  )


def _difficulty(reader: Reader, lessons: Sequence[Lesson]) -> list[float]:
  """IFD (Li et al., 2024): the loss with the problem over that without."""
  given = [reader.example(x.problem, x.completion) for x in lessons]
  alone = [_alone(reader.example('', x.completion)) for x in lessons]
  nats = [
    -float(found.mean())
    for found in reader.log_probs(reader.model.params, [*given, *alone])
  ]
  pairs = zip(nats[: len(lessons)], nats[len(lessons) :], strict=True)
  # A text that needs no problem has no difficulty to speak of.
  return [a / max(b, 1e-9) for a, b in pairs]


def _alone(example: packing.Example) -> packing.Example:
  """Without a prompt the first token cannot be predicted from anything."""
  if example.prompt:
    return example
  return packing.Example(example.completion[:1], example.completion[1:])


def practised(
  run: Run,
  params: decoder.Params,
  names: Sequence[str],
  round: int,
  lessons: Sequence[Lesson],
) -> dict[str, Level]:
  """What each module's next requests can go by, of a student's answers.

  Args:
    round: that requests are planned for.
    lessons: all of the run so far.

  Returns:
    Levels without a score; none of modules that nothing was asked of.
  """
  if run.method.order == 'rounds' and run.subject.referee is not None:
    return _refereed(run, params, names, lessons)
  items = [x for name in names for x in run.adapter.practice(name, round)]
  if not items:
    return {}
  wrong = exams.of_student(run, params, items, 'practising').wrong
  return {
    name: Level(wrong=tuple(wrong.get(name, ())[:WRONG_KEPT])) for name in names
  }


def _refereed(run: Run, params, names, lessons) -> Mapping[str, Level]:
  """Lion's discrimination: problems that the referee finds hard and easy."""
  referee = run.subject.referee
  pool = [
    x
    for name in names
    for x in _spread([x for x in lessons if x.module == name], lion.JUDGED)
  ]
  probes = [
    Probe(f'lesson/{i}', x.module, x.problem, x.completion, '')
    for i, x in enumerate(pool)
  ]
  written = run.student.answers(params, probes, 'answering its lessons')
  pairs = [
    request
    for lesson, answer in zip(pool, written, strict=True)
    for request in referee.compare(
      lesson.problem, lesson.completion, answer.text
    )
  ]
  marks = run.ask(pairs, Marks)
  found = {name: Level() for name in names}
  for i, lesson in enumerate(pool):
    lead = referee.lead(marks[2 * i : 2 * i + 2])
    if lead is None:
      continue
    level, name = found[lesson.module], lesson.module
    if lead >= lion.HARD_FROM:
      found[name] = dataclasses.replace(
        level, hard=(*level.hard, lesson.problem)
      )
    else:
      found[name] = dataclasses.replace(
        level, easy=(*level.easy, lesson.problem)
      )
  return found


def _spread(lessons: Sequence[Lesson], most: int) -> list[Lesson]:
  """At most so many, of all rounds alike."""
  count = min(most, len(lessons))
  return [lessons[i * len(lessons) // count] for i in range(count)]
