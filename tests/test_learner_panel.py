"""The measuring phase on the shipped models, small, and what it refuses."""

import dataclasses
import json
import sqlite3

import numpy as np
import pytest

from ioa_jax import config as config_lib
from ioa_jax import pipeline
from ioa_jax.identifier import learner_panel
from ioa_jax.identifier import responses as responses_lib
from ioa_jax.runtime import display as display_lib
from tests import test_pipeline

PANEL = {
  'identifier.dependency': 'interventional',
  'identifier.tau_effect': 0.0,
  'identifier.panel.learners': 8,
  'identifier.panel.snapshots': 2,
  'identifier.panel.steps_per_snapshot': 3,
  'identifier.min_learners': 2,
}


def config(**changes):
  return test_pipeline.load_config('quickstart', changes)


@pytest.mark.parametrize(
  'changes,message',
  [
    ({'identifier.dependency': 'conditional'}, 'panel.learners is 0; set'),
    ({'identifier.dependency': 'guess'}, "is 'guess', wanted one of"),
    ({'identifier.dependency': 'teacher'}, "domain.kind is 'arithmetic', want"),
    ({'identifier.panel.learners': 7}, 'is 7, wanted 0'),
    ({'identifier.tau_low': 0.95}, 'on both sides of Eq. 3'),
    ({'identifier.panel.response': 'loud'}, "is 'loud', wanted one of"),
  ],
)
def test_bad_settings_name_their_field(changes, message):
  with pytest.raises(config_lib.ConfigError, match=message):
    config_lib.validate(config(**changes))


def responses(right):
  n, t, k, p = right.shape
  return responses_lib.Responses(
    tuple('abc'[:k]),
    responses_lib.design(n, k, seed=0),
    right,
    np.where(right, 0.1, 3.0),
    np.ones((k, p)),
    np.ones((k, p), bool),
    1 + np.arange(t),
    np.int64(0),
  )


def test_difficulty_follows_who_is_right():
  rng = np.random.default_rng(0)
  chance = np.array([0.8, 0.3, 0.0])[:, None]
  answers = responses(rng.random((8, 2, 3, 9)) < chance)
  found = learner_panel.difficulties(answers, learner_panel.fit_items(answers))
  assert found['a'].mean + 2 * found['a'].se < found['b'].mean
  assert found['c'] is None  # Nobody: it has no place, not the last one.


def test_a_source_without_evidence_is_left_out_unless_it_is_needed():
  thresholds = learner_panel.Thresholds(
    tau_high=0.9, tau_low=0.7, tau_dep=0.3, tau_effect=0.0, min_learners=2
  )
  estimate = lambda needed: learner_panel.estimate(
    nobody,
    np.ones(3),
    thresholds,
    response='likelihood',
    seed=0,
    needed=needed,
  )
  nobody = responses(np.zeros((8, 2, 3, 9), bool))
  assert set(estimate('interventional')) == {'interventional'}
  with pytest.raises(ValueError, match='no pair of modules has enough'):
    estimate('conditional')


@pytest.mark.slow
def test_a_diagnosis_with_its_panel(tmp_path):
  # Minutes on two cores: the only run of teacher, panel and report together.
  small = config(**{**test_pipeline.SMALL, **PANEL})
  with display_lib.Display() as display:
    found = pipeline.identify(small, tmp_path, display)
  assert found.dependency.source == 'interventional'
  assert {'given', 'interventional'} <= set(found.dependency.graphs)
  record = responses_lib.load(tmp_path / learner_panel.PANEL_FILE)
  assert record.right_NxTxKxP.shape == (8, 2, 12, 32)
  assert list(record.steps_T) == [3, 6]
  for name, module in found.modules.items():
    into = [e.source for e in found.dependency.edges if e.target == name]
    assert set(module.prerequisites) == set(into)
  with sqlite3.connect(tmp_path / 'ledger.sqlite') as db:
    (asked,) = db.execute('SELECT COUNT(*) FROM completions').fetchone()
  # 12 modules: 32 gate and 48 held-out probes, and at most 4 x 2 lessons.
  assert 12 * 80 < asked <= 12 * 88
  lines = (tmp_path / 'items.jsonl').read_text().splitlines()
  items = [json.loads(line) for line in lines]
  for name, difficulty in found.difficulty.items():
    own = [i['difficulty']['mean'] for i in items if i['module'] == name]
    assert len(own) == 32
    if difficulty is not None:
      assert np.mean(own) == pytest.approx(difficulty.mean, abs=1e-5)
  page = (tmp_path / 'report.html').read_text()
  assert 'Ways to find out, side by side' in page
  # The panel is kept: without it a second look would differ in its seed.
  (tmp_path / 'diagnosis.json').unlink()
  with display_lib.Display() as display:
    again = pipeline.identify(small, tmp_path, display)
  assert dataclasses.replace(again, seconds=found.seconds) == found
