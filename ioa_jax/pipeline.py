"""Algorithm 1: diagnose, organise, teach stage by stage, evaluate, report.

The only module that knows the whole loop. Each artefact of the run directory is
written when it is known, so the same command continues where a run was killed.
"""

from __future__ import annotations

from collections.abc import Iterator
import contextlib
import os
import pathlib

import jax
import ml_collections

from ioa_jax import assemble
from ioa_jax import config as config_lib
from ioa_jax import subject as subject_lib
from ioa_jax.assemble import Run
from ioa_jax.baselines import methods
from ioa_jax.people import NOTHING_GIVEN, Given
from ioa_jax.phases import diagnosis as diagnosis_lib
from ioa_jax.phases import projection, reporting, step_budget, synthesis
from ioa_jax.phases import results as results_lib
from ioa_jax.records import Curriculum, Diagnosis, Lesson, Results
from ioa_jax.report import page
from ioa_jax.runtime import display as display_lib
from ioa_jax.runtime import (
  processes,
  provenance,
  rundir,
  sharding,
  signals,
  trackers,
  xla_flags,
)
from ioa_jax.teaching import teach

RESULTS = 'results.json'


def run(
  config: ml_collections.ConfigDict,
  workdir: pathlib.Path,
  display: display_lib.Display,
  given: Given = NOTHING_GIVEN,
) -> Results | None:
  """Runs or continues a distillation.

  None means that a signal stopped it: everything is saved, and the same call
  continues.

  Args:
    given: objects in the place of what the configuration names.

  Raises:
    ValueError: for a bad configuration, model, directory or checkpoint, as one
      line; a bad configuration, or a model that cannot be used, leaves the
      directory untouched.
  """
  config_lib.validate(config)
  if processes.on_first((workdir / RESULTS).exists):
    text = processes.on_first(lambda: _finished(config, workdir))
    display.say(f'{workdir}: finished before; see its report.html.')
    return Results.from_json(text, str(workdir / RESULTS))
  with _opened(config, workdir, display, given) as opened:
    return _run(opened)


def _run(run: Run) -> Results | None:
  """Algorithm 1 of the paper."""
  with reporting.kept(run) as reports:
    diagnosis = _diagnosed(run)
    curriculum = _organised(run, diagnosis)
    reports.draw('running')
    run.display.update(phase='preparing to teach')
    taught = teach(run, diagnosis, curriculum)
    if taught is None:
      reports.draw('stopped', signals.stopped_by or '')
      return None
    results = results_lib.evaluate(run, diagnosis, curriculum, taught)
    results_lib.export(run, taught, results)
    run.directory.write_record(RESULTS, results)
    reports.draw('finished')
  return results


def _diagnosed(run: Run) -> Diagnosis:
  return run.directory.once(
    rundir.DIAGNOSIS, Diagnosis, lambda: diagnosis_lib.diagnose(run)
  )


def _organised(run: Run, diagnosis: Diagnosis) -> Curriculum:
  return run.directory.once(
    rundir.CURRICULUM,
    Curriculum,
    lambda: diagnosis_lib.organise(run, diagnosis),
  )


def _finished(config, workdir) -> str:
  """Needs no model, no key and no server."""
  results = rundir.RunDirectory(workdir, config).read_record(RESULTS, Results)
  if not (workdir / 'report.html').exists():
    page.write(workdir)
  return results.to_json()


@contextlib.contextmanager
def _opened(config, workdir, display, given) -> Iterator[Run]:
  """All that a run holds open; nothing is written before all of it loads."""
  processes.check_same('configurations', [config_lib.to_json(config)])
  trackers.require(config.run.trackers)
  display.update(phase='loading models and seeds')
  mesh = sharding.make_mesh(**config.mesh)
  device = mesh.devices.flat[0]
  for line in xla_flags.advice(
    device.platform, device.device_kind, mesh.size, os.environ
  ):
    display.say(line)
  subject = processes.in_all(
    lambda: subject_lib.open_subject(config, mesh, given)
  )
  with rundir.claim(workdir, config) as directory, jax.set_mesh(mesh):
    begun = directory.read_record(rundir.CURRICULUM, Curriculum)
    config = step_budget.begin(config, subject, begun, display.say)
    run = assemble.open_run(config, subject, directory, mesh, display)
    directory.append_lines(rundir.STARTS, [provenance.start().to_json()])
    with contextlib.closing(run.trackers):
      yield run


def identify(
  config: ml_collections.ConfigDict,
  workdir: pathlib.Path,
  display: display_lib.Display,
  given: Given = NOTHING_GIVEN,
) -> Diagnosis:
  """Only the diagnosis, with its report; `run` continues from it.

  Raises:
    ValueError: as `run`.
  """
  config_lib.validate(config)
  with _opened(config, workdir, display, given) as opened:
    diagnosis = _diagnosed(opened)
    page.write(opened.directory.path)
  return diagnosis


def synthesize(
  config: ml_collections.ConfigDict,
  workdir: pathlib.Path,
  display: display_lib.Display,
  given: Given = NOTHING_GIVEN,
) -> list[Lesson]:
  """The lessons of every stage for the student as it is; trains nothing.

  Everything is asked through the ledger, so the same call goes on where it was
  stopped, and a `run` in the same directory pays for none of it again.

  Raises:
    ValueError: as `run`; also if the directory has been trained in.
  """
  config_lib.validate(config)
  with _opened(config, workdir, display, given) as opened:
    synthesis.require_untrained(opened)
    diagnosis = _diagnosed(opened)
    lessons = synthesis.write(opened, diagnosis, _organised(opened, diagnosis))
    page.write(opened.directory.path)
    return lessons


def dry_run(
  config: ml_collections.ConfigDict,
  remedial_rounds: int | None = None,
  given: Given = NOTHING_GIVEN,
) -> str:
  """What `run` would ask of the teacher, in lines; sends and writes nothing.

  Args:
    remedial_rounds: at most; None is what the gate allows.

  Raises:
    ValueError: as `run`.
  """
  config_lib.validate(config)
  mesh = sharding.make_mesh(**config.mesh)
  if remedial_rounds is None:
    remedial_rounds = methods.of(config).rounds(config.gate.max_rounds)
  return projection.describe(
    config, subject_lib.open_subject(config, mesh, given), remedial_rounds
  )
