"""Lessons without training: the first ones of every stage, as a data set."""

from __future__ import annotations

from ioa_jax import config as config_lib
from ioa_jax.adapter import Level, dataset, rejections
from ioa_jax.assemble import Run
from ioa_jax.phases.lessons import LessonBook, NoLessons, Order
from ioa_jax.records import Curriculum, Diagnosis, Lesson
from ioa_jax.runtime.rundir import METRICS


def require_untrained(run: Run) -> None:
  """Raises ValueError for a directory that has been trained in."""
  path = run.directory.path
  if run.checkpoint_dir.exists():
    raise ValueError(
      f'--workdir={path} has been trained in, and its lessons belong to '
      'that training; use another, or read its lessons.jsonl.'
    )


def write(
  run: Run, diagnosis: Diagnosis, curriculum: Curriculum
) -> list[Lesson]:
  """The first lessons of every stage, and their data set in `data/`.

  Raises:
    NoLessons: if none at all could be kept.
  """
  book = LessonBook(run)
  # An earlier start's lessons are written again, the same, from the ledger.
  book.recall(0)
  run.directory.truncate(METRICS, 0)
  levels = {
    name: Level(m.student.mean, diagnosis.wrong_answers.get(name, ()))
    for name, m in diagnosis.modules.items()
  }
  for order in _first_orders(curriculum):
    book.add(order, levels)
  if not book.lessons:
    raise NoLessons(
      'no lesson of any module could be kept, so there is no data set; what '
      f'was said is in {run.directory.path / "ledger.sqlite"}.'
    )
  dataset.write(
    run.directory.path / 'data',
    book.lessons,
    lineage={
      'domain': run.subject.name,
      'teacher': run.subject.teacher.name,
      'student whose gaps they fill': run.student.model.name,
      'method': run.config.method,
      'seed': run.config.seed,
      'config sha256': config_lib.sha256(run.config),
      'modules without lessons': ', '.join(book.untaught) or 'none',
      'teacher tokens': run.client.totals()['completion_tokens'],
    },
    rejected=rejections.count(book.rejected),
  )
  return book.lessons


def _first_orders(curriculum: Curriculum) -> list[Order]:
  """Each module where it first occurs."""
  rehearsed = curriculum.rehearsed
  found, done = [], set(rehearsed)
  if rehearsed:
    found.append(Order([(k, 'rehearsal') for k in rehearsed], 0))
  for index, stage in enumerate(curriculum.stages):
    kind = curriculum.request_kind(index)
    if new := [(k, kind) for k in stage.modules if k not in done]:
      found.append(Order(new, index))
    done |= set(stage.modules)
  return found
