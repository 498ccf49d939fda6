"""The device-resident curriculum: slabs, shares, and the counter-based draw."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ioa_jax.training import curriculum as curriculum_lib
from ioa_jax.training import gate as gate_lib
from ioa_jax.training import packing
from tests.test_gate import K, make_plan, start

L = 8


def rows(value, n):
  packed = packing.pack([packing.Example([value] * 3, [value] * 4)] * n, L)
  assert len(packed['token']) == n
  return packed


def make_mix(**changes):
  values = dict(
    replay_share=jnp.float32(0.25),
    rehearse_K=jnp.zeros(K, bool),
    need_floor=jnp.float32(0.2),
    adaptive=jnp.bool_(True),
    contrast=jnp.bool_(False),
    fixed_need_K=jnp.ones(K),
    needs_KxK=jnp.zeros((K, K), bool),
    readiness_power=jnp.float32(0),
    easy_first_share=jnp.float32(0),
  )
  return curriculum_lib.Mix(**(values | changes))


@pytest.mark.parametrize('n', [1, 2, 3, 7, 64, 65, 1000])
def test_permute_is_a_bijection(n):
  permute = jax.jit(jax.vmap(curriculum_lib.permute, (0, None, None)))
  seen = permute(jnp.arange(n, dtype=jnp.uint32), jnp.uint32(n), jnp.uint32(5))
  np.testing.assert_array_equal(np.sort(seen), np.arange(n))


def test_permutations_differ_by_seed_and_are_not_the_identity():
  n = jnp.uint32(500)
  index = jnp.arange(500, dtype=jnp.uint32)
  permute = jax.vmap(curriculum_lib.permute, (0, None, None))
  a, b = permute(index, n, jnp.uint32(1)), permute(index, n, jnp.uint32(2))
  for other in (b, index):
    assert np.mean(np.asarray(a) == np.asarray(other)) < 0.02


def test_every_row_is_seen_once_before_any_is_seen_twice():
  n = 13
  curriculum = curriculum_lib.add_rows(
    curriculum_lib.allocate([n] * K, L), {1: rows(1, n)}
  )
  # Mark each row so that it can be recognised.
  curriculum.rows['token'][n : 2 * n, 0] = np.arange(n)
  cursor = jnp.zeros(K, jnp.uint32)
  weight = jnp.asarray([0.0, 1, 0, 0])
  seen = []
  for step in range(4):
    batch, cursor, _ = curriculum_lib.draw(
      curriculum,
      weight,
      cursor,
      jax.random.key(step),
      jnp.uint32(3),
      batch_rows=6,
    )
    seen += [int(t) for t in batch['token'][:, 0]]
  assert sorted(seen[:n]) == list(range(n))
  assert seen[:11] != sorted(seen[:11])


def test_shares_are_met_up_to_rounding_in_every_batch():
  n = 40
  curriculum = curriculum_lib.add_rows(
    curriculum_lib.allocate([n] * K, L), {k: rows(k, n) for k in range(K)}
  )
  weight = jnp.asarray([0.5, 0.3, 0.15, 0.05])
  for step in range(10):
    _, _, drawn = curriculum_lib.draw(
      curriculum,
      weight,
      jnp.zeros(K, jnp.uint32),
      jax.random.key(step),
      jnp.uint32(0),
      batch_rows=20,
    )
    assert np.all(np.abs(np.asarray(drawn, float) - 20 * weight) <= 1)
    assert int(drawn.sum()) == 20


def test_nothing_to_teach_draws_no_live_token():
  curriculum = curriculum_lib.allocate([4] * K, L)
  batch, _, _ = curriculum_lib.draw(
    curriculum,
    jnp.zeros(K),
    jnp.zeros(K, jnp.uint32),
    jax.random.key(0),
    jnp.uint32(0),
    batch_rows=6,
  )
  assert float(batch['weight'].sum()) == 0.0


def test_new_rows_join_their_module_and_a_full_slab_refuses():
  curriculum = curriculum_lib.allocate([3, 2, 0, 0], L)
  curriculum = curriculum_lib.add_rows(curriculum, {0: rows(7, 1)})
  curriculum = curriculum_lib.add_rows(curriculum, {0: rows(8, 2)})
  np.testing.assert_array_equal(curriculum.count_K, [3, 0, 0, 0])
  np.testing.assert_array_equal(curriculum.rows['token'][:3, 0], [7, 8, 8])
  with pytest.raises(ValueError, match='module 1: 3 new rows, 2 free'):
    curriculum_lib.add_rows(curriculum, {1: rows(9, 3)})


def test_weights_follow_stage_need_and_replay():
  # Worked by hand. Stage 1 teaches modules 1 and 2; module 0 was stage 0 and
  # module 3 is rehearsed. Gaps: 0.5 and 1.0 -> needs 0.6 and 1.0 in the stage;
  # replayed 0 and 3 have gaps 0 and 0.5 -> needs 0.2 and 0.6.
  plan = make_plan([{0}, {1, 2}], [5, 5])
  gate = start(plan).replace(
    stage=jnp.int32(1),
    correct_K=jnp.asarray([8, 4, 0, 4]),
    probed_K=jnp.full(K, 8),
  )
  mix = make_mix(rehearse_K=jnp.asarray([False, False, False, True]))
  got = curriculum_lib.module_weights(mix, gate, plan, jnp.full(K, 9))
  want = [0.25 * 0.25, 0.75 * 0.375, 0.75 * 0.625, 0.25 * 0.75]
  np.testing.assert_allclose(got, want, rtol=1e-6)
  # A module without rows gets nothing and the others share its part.
  got = curriculum_lib.module_weights(
    mix, gate, plan, jnp.asarray([9, 0, 9, 0])
  )
  np.testing.assert_allclose(got, [0.25, 0, 0.75, 0], rtol=1e-6)


def test_a_module_waits_for_what_it_stands_on():
  # By hand. 1 stands on 0, 2 on 0 and 1, 3 on nothing; mastery 0.5, 0.25, 0 and
  # 0, so needs 0.6, 0.8, 1 and 1, and readiness (of power 2) 1, 0.5^2,
  # (0.5 * 0.25)^2 and 1.
  plan = make_plan([{0, 1, 2, 3}], [5])
  gate = start(plan).replace(
    correct_K=jnp.asarray([4, 2, 0, 0]), probed_K=jnp.full(K, 8)
  )
  needs = np.zeros((K, K), bool)
  needs[1, 0] = needs[2, 0] = needs[2, 1] = True
  mix = make_mix(needs_KxK=needs, readiness_power=jnp.float32(2))
  got = curriculum_lib.module_weights(mix, gate, plan, jnp.full(K, 9))
  want = np.array([0.6, 0.8 * 0.25, 1 / 64, 1.0])
  np.testing.assert_allclose(got, want / want.sum(), rtol=1e-5)
  # A prerequisite without any mastery leaves a little: scores are estimates.
  gate = gate.replace(correct_K=jnp.asarray([0, 0, 0, 0]))
  got = curriculum_lib.module_weights(mix, gate, plan, jnp.full(K, 9))
  assert 0 < got[2] < got[1] < got[0] == got[3]


def test_without_taught_modules_replay_takes_the_whole_batch():
  # The stage's modules have no rows yet: what is rehearsed fills the batch.
  plan = make_plan([{1, 2}], [5])
  mix = make_mix(rehearse_K=jnp.asarray([True, False, False, True]))
  count = jnp.asarray([9, 0, 0, 9])
  got = curriculum_lib.module_weights(mix, start(plan), plan, count)
  np.testing.assert_allclose(got, [0.5, 0, 0, 0.5], rtol=1e-6)
  # And without anything there is no weight at all, and nothing undefined.
  got = curriculum_lib.module_weights(mix, start(plan), plan, jnp.zeros(K))
  np.testing.assert_array_equal(got, np.zeros(K))


def test_contrast_gives_hard_and_easy_half_each():
  plan = make_plan([{0, 1, 2, 3}], [5])
  gate = start(plan).replace(
    correct_K=jnp.asarray([8, 4, 0, 2]), probed_K=jnp.full(K, 8)
  )
  mix = make_mix(adaptive=jnp.bool_(False), contrast=jnp.bool_(True))
  got = curriculum_lib.module_weights(mix, gate, plan, jnp.full(K, 9))
  # Gaps 0, 1/2, 1, 3/4 of 9/4 in all; scores 1, 1/2, 0, 1/4 of 7/4.
  hard, easy = np.array([0, 2, 4, 3]) / 9, np.array([4, 2, 0, 1]) / 7
  np.testing.assert_allclose(got, (hard + easy) / 2, rtol=1e-6)
  # All mastered: what is easy gets everything, and nothing is divided by 0.
  gate = gate.replace(correct_K=jnp.full(K, 8))
  got = curriculum_lib.module_weights(mix, gate, plan, jnp.full(K, 9))
  np.testing.assert_allclose(got, np.full(K, 0.25), rtol=1e-6)


def test_uniform_weights_ignore_scores():
  plan = make_plan([{0, 1, 2, 3}], [5])
  gate = start(plan).replace(correct_K=jnp.asarray([8, 4, 0, 2]))
  mix = make_mix(adaptive=jnp.bool_(False))
  got = curriculum_lib.module_weights(mix, gate, plan, jnp.full(K, 9))
  np.testing.assert_allclose(got, np.full(K, 0.25), rtol=1e-6)
  assert gate_lib.in_stage(gate, plan).all()


def test_the_easiest_rows_come_first_and_all_in_the_end():
  plan = make_plan([{1, 2}, {3}], [12, 12])
  gate, stage = start(plan), np.asarray(plan.stage_modules_SxK[0])
  mix = make_mix(easy_first_share=jnp.float32(0.5))
  steps = int(plan.max_steps_S[0])
  shares = []
  for done in range(steps):
    at = gate.replace(steps_in_stage=jnp.int32(done))
    share_K = np.asarray(curriculum_lib.competence(mix, at, plan))
    assert (share_K[~stage] == 1).all()
    shares.append(float(share_K[stage].min()))
  np.testing.assert_allclose(shares[0], 1 / 3, rtol=1e-6)
  # As if 8/9 of the square came in at one pace over half of the steps.
  middle = int(steps / 4)
  want = np.sqrt(1 / 9 + 8 / 9 * middle / (steps / 2))
  np.testing.assert_allclose(shares[middle], want, rtol=1e-6)
  assert shares == sorted(shares)
  assert shares[-1] == 1


def test_only_the_first_rows_are_drawn_and_each_once():
  n = 30
  curriculum = curriculum_lib.add_rows(
    curriculum_lib.allocate([n] * K, L), {1: rows(1, n)}
  )
  draw = lambda competence_K: curriculum_lib.draw(
    curriculum,
    jnp.asarray([0.0, 1, 0, 0]),
    jnp.zeros(K, jnp.uint32),
    jax.random.key(0),
    jnp.uint32(3),
    batch_rows=10,
    competence_K=competence_K,
  )[0]['row']
  few = np.asarray(draw(jnp.full(K, 1 / 3)))
  assert sorted(few - n) == list(range(10))
  # All of them is what is drawn without it.
  np.testing.assert_array_equal(draw(jnp.ones(K)), draw(None))
