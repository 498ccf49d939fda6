"""Rounds: the next begins where the last one ended, and pays nothing twice."""

import types

import pytest

from ioa_jax import pipeline
from ioa_jax.experiments import rounds
from ioa_jax.organizer.curriculum import NothingToTeach
from ioa_jax.people import ASSETS
from ioa_jax.runtime import display as display_lib
from ioa_jax.teachers.ledger import BudgetExceeded, Ledger
from tests.test_pipeline import SMALL, load_config

CHANGES = SMALL | {
  'train.total_steps': 10,
  'identifier.target_share': 0.25,
}


def go(workdir, most=2, **changes):
  config = load_config('quickstart', CHANGES | changes)
  with display_lib.Display() as display:
    return rounds.run(config, workdir, most, display)


def asked(directory):
  ledger = Ledger(directory / 'ledger.sqlite', read_only=True)
  try:
    return {entry['key'] for entry in ledger.entries()}
  finally:
    ledger.close()


@pytest.mark.slow
def test_a_round_begins_with_the_student_of_the_one_before(tmp_path):
  first, second = go(tmp_path)
  before, after = first.student, second.student
  assert after.score_before == before.score_after
  assert after.score_before != before.score_before
  assert second.seed == first.seed + 1
  # All that was paid for is there.
  one, two = (asked(tmp_path / f'round-{i}') for i in (1, 2))
  assert one < two
  # The same call finds both finished.
  assert go(tmp_path) == [first, second]


@pytest.mark.parametrize('end', [NothingToTeach, BudgetExceeded])
def test_rounds_end_without_gaps_or_budget(tmp_path, monkeypatch, end):
  seen = []

  def run(config, workdir, display):
    del display
    seen.append((config.seed, config.student.model))
    if len(seen) == 3:
      raise end('no more')
    workdir.mkdir(parents=True, exist_ok=True)
    Ledger(workdir / 'ledger.sqlite').close()
    return types.SimpleNamespace(round=len(seen), suffix='')

  monkeypatch.setattr(pipeline, 'run', run)
  assert [found.round for found in go(tmp_path, most=9)] == [1, 2]
  assert seen == [
    (0, 'builtin'),
    (1, str(tmp_path / 'round-1/student')),
    (2, str(tmp_path / 'round-2/student')),
  ]


def test_a_student_without_gaps_is_said_at_once(tmp_path):
  with pytest.raises(NothingToTeach):
    go(
      tmp_path,
      **{'student.model': str(ASSETS / 'teacher'), 'student.scan_unroll': 4},
    )


def test_a_single_run_is_no_place_for_rounds(tmp_path):
  (tmp_path / 'config.json').write_text('{}')
  with pytest.raises(ValueError, match='is a single run'):
    go(tmp_path)
