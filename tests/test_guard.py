"""The best weights and the early end, against a replay in plain Python."""

import hypothesis
from hypothesis import strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ioa_jax.phases import guarding
from ioa_jax.records import Score
from ioa_jax.training import guard as guard_lib
from tests import test_gate

K, P = test_gate.K, test_gate.P
ENDING = 20
_look = jax.jit(guard_lib.look)

ROUND = st.tuples(
  st.lists(st.integers(0, P), min_size=K, max_size=K),
  st.lists(st.booleans(), min_size=K, max_size=K).map(
    # Half of the rounds ask everything, or few of them would.
    lambda asked: asked if asked[0] else [True] * K
  ),
)


@hypothesis.settings(deadline=None, max_examples=60)
@hypothesis.given(st.lists(ROUND, max_size=8), st.booleans())
def test_only_rounds_of_all_modules_decide(rounds, ends):
  plan = test_gate.make_plan([range(K)], [1000], tau=0.75)
  gate = test_gate.start(plan)
  weights = {'w': jnp.float32(-1.0)}
  guard = guard_lib.init(weights, gate)
  ending = jnp.int32(ENDING if ends else 0)
  best, kept, in_a_row, ends_at = 0.0, (0, -1.0), 0, None
  for index, (correct, asked) in enumerate(rounds):
    step = 10 * (index + 1)
    asked_K, correct_K = np.asarray(asked), np.asarray(correct, np.float32)
    gate = gate.replace(
      correct_K=jnp.where(asked_K, correct_K, gate.correct_K),
      probed_K=jnp.where(asked_K, P, gate.probed_K),
    )
    guard = _look(
      guard,
      {'w': jnp.float32(index)},
      jnp.int32(step),
      gate,
      plan,
      jnp.where(asked_K, P, 0),
      ending,
    )
    if all(asked):
      score = sum(correct) / (K * P)
      if score >= best:
        best, kept = score, (step, float(index))
      in_a_row = in_a_row + 1 if min(correct) >= 0.75 * P else 0
      if ends and in_a_row >= 2 and ends_at is None:
        ends_at = step + ENDING
  assert (int(guard.step), float(guard.weights['w'])) == kept
  assert float(guard.score) == pytest.approx(best, abs=1e-6)
  for step in range(0, 120, 5):
    pace = float(guard_lib.pace(guard, jnp.int32(step), ending))
    left = 1.0 if ends_at is None else (ends_at - step) / ENDING
    assert pace == pytest.approx(min(1.0, max(0.0, left)))


def test_without_weights_nothing_is_kept():
  plan = test_gate.make_plan([range(K)], [1000])
  guard = guard_lib.init(None, test_gate.start(plan))
  every = jnp.full(K, P)
  gate = test_gate.start(plan).replace(correct_K=every.astype(jnp.float32))
  guard = _look(
    guard, {'w': jnp.float32(0)}, jnp.int32(1), gate, plan, every, jnp.int32(0)
  )
  assert guard.weights is None and float(guard.score) == 1.0


@pytest.mark.parametrize(
  ('last', 'best', 'lost'),
  [
    # The known-answer case of the collapse: 0.335 to 0.222 of 480 probes.
    ([Score(7, 32)] * 15, [Score(11, 32)] * 15, True),
    # One probe of 64 is noise, and of weights that answer alike the last stay.
    ([Score(31, 32), Score(32, 32)], [Score(32, 32)] * 2, False),
    ([Score(32, 32)] * 2, [Score(32, 32)] * 2, False),
    ([Score(32, 32)] * 2, [Score(0, 32)] * 2, False),
    # One module that fell from 32 to 0 in fifteen is a loss.
    ([Score(0, 32)] + [Score(20, 32)] * 2, [Score(32, 32)] * 3, True),
  ],
)
def test_what_counts_as_lost(last, best, lost):
  named = lambda scores: {str(k): s for k, s in enumerate(scores)}
  assert guarding.lost(named(last), named(best)) is lost
