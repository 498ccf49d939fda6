"""The package from Python: a configuration in, what a run left out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
import os
import pathlib
from typing import Any

import ml_collections

from ioa_jax import config as config_lib
from ioa_jax import people, pipeline
from ioa_jax.domains import Domain
from ioa_jax.domains.text import Grader
from ioa_jax.phases import run_models
from ioa_jax.records import Answered, Diagnosis, Lesson, ModuleResult, Results
from ioa_jax.runtime import display as display_lib
from ioa_jax.runtime import files, rundir
from ioa_jax.teachers import Teacher

Config = str | os.PathLike[str] | Mapping[str, Any] | ml_collections.ConfigDict
Place = str | os.PathLike[str]


class Distilled:
  """What a run left in its directory; also of one that is not finished.

  Attributes:
    path: the directory.
    report: the page that shows the run.
  """

  def __init__(self, workdir: Place):
    self.path = pathlib.Path(workdir)
    self.report = self.path / 'report.html'

  def __repr__(self) -> str:
    if not self.finished:
      return f'Distilled({str(self.path)!r}): not finished'
    return f'Distilled({str(self.path)!r}): retention {self.retention:.3f}'

  @property
  def finished(self) -> bool:
    return (self.path / pipeline.RESULTS).exists()

  @property
  def results(self) -> Results:
    """Scores, stages, tokens and seconds.

    Raises:
      ValueError: if the run is not finished.
    """
    if not self.finished:
      raise ValueError(
        f'{self.path} is not finished; the same call continues it.'
      )
    return self._read(pipeline.RESULTS, Results)

  @property
  def student(self) -> pathlib.Path:
    """The taught model, a Hugging Face directory.

    One that is not better than its base is in `student_not_better`.
    """
    suffix = self.results.suffix if self.finished else ''
    return self.path / f'student{suffix}'

  @property
  def retention(self) -> float:
    """The student's held-out score after teaching over its teacher's."""
    return self.results.retention

  @property
  def modules(self) -> dict[str, ModuleResult]:
    """Held-out scores of each module, of teacher and student."""
    return self.results.modules

  @property
  def diagnosis(self) -> Diagnosis:
    """What the student did not know before."""
    return self._read(rundir.DIAGNOSIS, Diagnosis)

  def wrong_answers(self) -> dict[str, list[dict[str, str]]]:
    """Of each module, what the student answered wrong when it was diagnosed:
    the prompt, the right answer, and what it wrote."""
    return {
      name: [dict(answer) for answer in answers]
      for name, answers in self.diagnosis.wrong_answers.items()
    }

  def answers(self) -> list[Answered]:
    """What the student wrote to each held-out probe, before and after."""
    text = files.read_text(self.path / rundir.ANSWERS)
    return [Answered.from_json(line) for line in text.split('\n') if line]

  def lessons(self) -> list[Lesson]:
    """All that were kept, in the order in which they were written."""
    text = files.read_text(self.path / rundir.LESSONS)
    return [Lesson.from_json(line) for line in text.split('\n') if line]

  def _read(self, name: str, kind):
    path = self.path / name
    if not path.exists():
      raise ValueError(f'{path} does not exist; the run has not come so far.')
    return kind.from_json(files.read_text(path), str(path))


def distill(
  config: Config,
  workdir: Place,
  *,
  domain: Domain | None = None,
  grader: Grader | None = None,
  teacher: Teacher | None = None,
  quiet: bool = False,
) -> Distilled:
  """Teaches a student what its teacher knows; continues what was begun.

  Args:
    config: what `ioa.config` returns, a name, a file, or changes to the
      defaults.
    workdir: the run directory; made if absent.
    domain, grader, teacher: objects of one's own, in the place of what the
      configuration names; see docs/python.md.
    quiet: show nothing while it goes on.

  Returns:
    What it left; not `finished` if a signal stopped it, and then the same call
    continues.

  Raises:
    ValueError: for anything that cannot be used, in one line.
  """
  given = people.Given(domain=domain, grader=grader, teacher=teacher)
  _begin(pipeline.run, config, workdir, given, quiet)
  return Distilled(workdir)


def diagnose(
  config: Config,
  workdir: Place,
  *,
  domain: Domain | None = None,
  grader: Grader | None = None,
  teacher: Teacher | None = None,
  quiet: bool = False,
) -> Diagnosis:
  """What the student does not know and its teacher does; trains nothing.

  Arguments and errors are those of `distill`, which continues from it.
  """
  given = people.Given(domain=domain, grader=grader, teacher=teacher)
  return _begin(pipeline.identify, config, workdir, given, quiet)


def synthesize(
  config: Config,
  workdir: Place,
  *,
  domain: Domain | None = None,
  grader: Grader | None = None,
  teacher: Teacher | None = None,
  quiet: bool = False,
) -> list[Lesson]:
  """The lessons of every stage for the student as it is; trains nothing.

  Arguments and errors are those of `distill`. WORKDIR/data has them for any
  trainer.
  """
  given = people.Given(domain=domain, grader=grader, teacher=teacher)
  return _begin(pipeline.synthesize, config, workdir, given, quiet)


def dry_run(
  config: Config,
  *,
  domain: Domain | None = None,
  grader: Grader | None = None,
  teacher: Teacher | None = None,
) -> str:
  """What `distill` would ask of the teacher and cost; sends nothing."""
  given = people.Given(domain=domain, grader=grader, teacher=teacher)
  return pipeline.dry_run(_settings(config, given), given=given)


def generate(
  model: Place | Distilled, prompts: str | Sequence[str], **options: Any
):
  """Answers of a model, each to its prompt alone.

  Args:
    model: what `distill` returns, a run directory, a model directory, a preset
      or a hub id.
    prompts: one or several.
    **options: see `ioa_jax.sampling.conversation.Options`.

  Returns:
    A text for one prompt, a list for several.

  Raises:
    ValueError: for a model that cannot be used.
  """
  from ioa_jax.sampling import conversation

  model = model.path if isinstance(model, Distilled) else model
  run = run_models.find(str(model))
  if run is not None:
    student = run_models.student(run)
    model = student.model
    options = {'adapter': student.adapter, **options}
  talk = conversation.Conversation(model, conversation.Options(**options))
  answers = []
  for prompt in [prompts] if isinstance(prompts, str) else prompts:
    talk.restart()
    answers.append(''.join(talk.say(prompt)))
  return answers[0] if isinstance(prompts, str) else answers


def _begin(phase, config: Config, workdir: Place, given, quiet: bool):
  """One of `pipeline`, with a display for as long as it goes on."""
  with display_lib.Display(quiet=quiet) as display:
    return phase(
      _settings(config, given), pathlib.Path(workdir), display, given
    )


def _settings(config: Config, given: people.Given) -> ml_collections.ConfigDict:
  """The configuration, with what is handed in marked so."""
  changes: dict[str, Any] = {}
  if given.domain is not None:
    changes |= {'domain.kind': 'text', 'domain.source': 'given'}
  if given.grader is not None:
    changes['domain.grader'] = 'given'
  if given.teacher is not None:
    changes |= {'teacher.kind': 'given', 'teacher.model': given.teacher.name}
  return config_lib.load(config, changes)
