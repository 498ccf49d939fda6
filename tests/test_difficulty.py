"""Item-response fit: recovery of what was simulated, and its errors."""

import time

import numpy as np
import pytest

from ioa_jax.identifier import difficulty


def simulate(persons, items, seed):
  rng = np.random.default_rng(seed)
  ability = rng.standard_normal(persons)
  hard = rng.normal(0, 1.2, items)
  steep = np.exp(rng.normal(0, 0.3, items))
  p = 1 / (1 + np.exp(-steep * (ability[:, None] - hard)))
  return rng.random((persons, items)) < p, ability, hard


def test_difficulties_are_recovered():
  right, ability, hard = simulate(64, 500, 0)
  difficulty.fit(right)  # Compiles.
  start, cpu = time.monotonic(), time.process_time()
  found = difficulty.fit(right)
  print(
    f'64 learners x 500 items: {time.monotonic() - start:.2f} s, '
    f'{time.process_time() - cpu:.2f} s of processor time'
  )
  correlation = lambda a, b: np.corrcoef(a, b)[0, 1]
  assert correlation(found.difficulty_I, hard) >= 0.95
  assert correlation(found.ability_N, ability) >= 0.95
  assert found.gradient_norm < 1e-5
  # Standard errors say how far off the estimates are.
  z = (found.difficulty_I - hard) / found.difficulty_se_I
  assert 0.8 < z.std() < 1.25


def test_more_learners_give_smaller_errors():
  right, _, _ = simulate(48, 20, 1)
  few = difficulty.fit(right[:12])
  many = difficulty.fit(right)
  assert many.difficulty_se_I.mean() < 0.75 * few.difficulty_se_I.mean()


def test_what_all_or_nobody_answers_has_a_finite_place():
  right, _, _ = simulate(12, 20, 2)
  right[:, 0], right[:, 1] = True, False
  found = difficulty.fit(right)
  assert found.difficulty_I.argmin() == 0 and found.difficulty_I.argmax() == 1
  assert np.isfinite(found.difficulty_se_I).all()


def test_unseen_cells_say_nothing():
  right, _, _ = simulate(12, 20, 3)
  seen = np.random.default_rng(3).random(right.shape) < 0.7
  seen[0] = True
  other = np.where(seen, right, ~right)
  a, b = difficulty.fit(right, seen), difficulty.fit(other, seen)
  np.testing.assert_allclose(a.difficulty_I, b.difficulty_I, atol=1e-6)


def test_no_evidence_is_refused():
  with pytest.raises(ValueError, match='persons x items'):
    difficulty.fit(np.zeros((0, 3), bool))
  with pytest.raises(ValueError, match=r'nobody was asked items \[2\]'):
    difficulty.fit(np.ones((4, 3), bool), np.array([[1, 1, 0]] * 4, bool))
