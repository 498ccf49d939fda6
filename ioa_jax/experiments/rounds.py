"""Rounds of diagnose and teach, until nothing is deficient.

A round is a whole run in a directory of its own. The next one diagnoses the
student that it left, so a module that was not mastered, or was forgotten, comes
up again, and with `identifier.target_share` below 1 the next most severe ones.
"""

from __future__ import annotations

import contextlib
import copy
import functools
import pathlib

import ml_collections

from ioa_jax import config as config_lib
from ioa_jax import pipeline
from ioa_jax.organizer.curriculum import NothingToTeach
from ioa_jax.records import Results
from ioa_jax.runtime import display as display_lib
from ioa_jax.runtime import files, processes, rundir
from ioa_jax.teachers.ledger import BudgetExceeded, Ledger


def run(
  config: ml_collections.ConfigDict,
  workdir: pathlib.Path,
  most: int,
  display: display_lib.Display,
) -> list[Results] | None:
  """Runs or continues up to `most` rounds; returns the results of each.

  They are in `workdir/round-1` and so on. The ledger goes from round to round,
  so budgets, and what results say the teacher wrote, are of all rounds so far,
  and no answer is paid for twice. Where the budget ends a later round, that one
  waits for a higher budget, and the others are returned. None means that a
  signal stopped it, and that the same call continues.

  Args:
    config: of the first round. `train.total_steps` is each round's; the others
      draw other lessons (their seed is one higher) and begin with the student
      of the round before.

  Raises:
    ValueError: as `pipeline.run`.
  """
  config_lib.validate(config)
  # Each round has its seed; a bad one must not show after others were paid.
  config_lib.get(config, {'seed': config.seed + most - 1})
  if (workdir / 'config.json').exists():
    raise ValueError(
      f'--workdir={workdir} is a single run, and rounds have directories of '
      'their own; choose another.'
    )
  # Configurations name the student's directory; from wherever they are run.
  workdir = workdir.resolve()
  found: list[Results] = []
  for index in range(most):
    here, before = (workdir / f'round-{i}' for i in (index + 1, index))
    config = copy.deepcopy(config)
    if index:
      config.seed += 1
      config.student.model = str(before / f'student{found[-1].suffix}')
      processes.on_first(functools.partial(_hand_on, before, here, config))
    display.say(f'Round {index + 1} of at most {most}.')
    try:
      results = pipeline.run(config, here, display)
    except (NothingToTeach, BudgetExceeded) as e:
      if not index:
        raise
      display.say(f'The rounds end: {e}')
      break
    if results is None:
      return None
    found.append(results)
  return found


def _hand_on(
  before: pathlib.Path, here: pathlib.Path, config: ml_collections.ConfigDict
) -> None:
  """Begins a round with the ledgers of the one before; only once, and whole."""
  directory = rundir.RunDirectory(here, config)
  names = [rundir.LEDGER]
  if (before / rundir.JUDGEMENTS).exists():
    names.append(rundir.JUDGEMENTS)
  for name in names:
    if (here / name).exists():
      continue
    with (
      directory.locked(),
      files.whole(here / name) as temporary,
      contextlib.closing(Ledger(before / name, read_only=True)) as source,
    ):
      source.copy_to(temporary)
