"""The device-resident curriculum: lessons as rows, and the draw of a batch.

Rows are packed per module into slabs of fixed capacity, so what is taught next
is an index and new lessons fill free rows without changing a shape. A batch is
drawn on the device: module shares by need, then rows of a module by a
counter-based permutation, so every row is seen once before any is seen twice,
until rows are added: then a new round over all of them is joined midway.

Shapes: R rows of all slabs, L row length, K knowledge modules, B batch rows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np

from ioa_jax.training import gate as gate_lib
from ioa_jax.training import packing


@flax.struct.dataclass
class Curriculum:
  """Packed lessons, grouped by module.

  Attributes:
    rows: `packing.FIELDS`, each (R, L), and where a teacher scores them
      `packing.TEACHER_FIELDS`, and `packing.SPAN_FIELDS` across vocabularies.
    offset_K, capacity_K: where each module's slab begins and how long it is.
    count_K: rows of the slab that hold lessons.
    on_policy: likewise the student's own texts, if it learns from them.
  """

  rows: dict[str, jax.Array]
  offset_K: jax.Array
  capacity_K: jax.Array
  count_K: jax.Array
  on_policy: Curriculum | None = None


@flax.struct.dataclass
class Mix:
  """How a batch is composed; data, so a change does not recompile.

  Attributes:
    replay_share: share of rows from modules that are not in the stage.
    rehearse_K: modules replayed from the first stage on (already known).
    need_floor: weight of a module without any gap, against 1 for a full one.
    adaptive: weight by the gap of the latest probing round, which becomes
      `need_floor + (1 - need_floor) * gap`; else by `fixed_need_K`.
    contrast: of the latest round as well, but by `gap` and by `1 - gap`, half
      of the weight each.
    fixed_need_K: weights that do not change, if neither.
    needs_KxK: the modules (columns) that each one (rows) directly stands on.
    readiness_power: of their mastery, by which a weight is multiplied; 0 leaves
      it as it is.
    easy_first_share: of a stage's steps, over which its rows come in, in the
      order of their slabs; 0 draws from all of them at once.
  """

  replay_share: jax.Array
  rehearse_K: jax.Array
  need_floor: jax.Array
  adaptive: jax.Array
  contrast: jax.Array
  fixed_need_K: jax.Array
  needs_KxK: jax.Array
  readiness_power: jax.Array
  easy_first_share: jax.Array


def allocate(
  capacities: Sequence[int],
  length: int,
  multiple_of: int = 1,
  top_k: int = 0,
  spans: bool = False,
) -> Curriculum:
  """An empty curriculum with `capacities[k]` rows for module k.

  Args:
    multiple_of: rows are added at the end until this divides their number, so
      that they can be split over devices.
    top_k, spans: see `packing.empty_rows`.
  """
  capacity_K = np.asarray(capacities, np.int32)
  offset_K = np.concatenate([[0], np.cumsum(capacity_K)[:-1]]).astype(np.int32)
  return Curriculum(
    rows=packing.empty_rows(
      -(-int(capacity_K.sum()) // multiple_of) * multiple_of,
      length,
      top_k,
      spans,
    ),
    offset_K=offset_K,
    capacity_K=capacity_K,
    count_K=np.zeros_like(capacity_K),
  )


def add_rows(
  curriculum: Curriculum, new_rows: Mapping[int, dict[str, np.ndarray]]
) -> Curriculum:
  """Fills free rows of the slabs; on the host, between windows of steps.

  Args:
    new_rows: module index to packed rows.

  Raises:
    ValueError: if a slab is full; nothing is dropped silently.
  """
  rows = {k: np.array(v) for k, v in curriculum.rows.items()}
  count_K = np.array(curriculum.count_K)
  for k, packed in new_rows.items():
    n = len(packed['token'])
    if count_K[k] + n > curriculum.capacity_K[k]:
      raise ValueError(
        f'module {k}: {n} new rows, {curriculum.capacity_K[k] - count_K[k]} '
        'free.'
      )
    start = int(curriculum.offset_K[k] + count_K[k])
    for name, value in packed.items():
      rows[name][start : start + n] = value
    count_K[k] += n
  return curriculum.replace(rows=rows, count_K=count_K)


def make_mix(
  gap_K: np.ndarray,
  rehearse_K: np.ndarray,
  *,
  weighting: str,
  replay_share: float,
  need_floor: float,
  needs_KxK: np.ndarray | None = None,
  readiness_power: float = 0.0,
  easy_first_share: float = 0.0,
) -> Mix:
  """How batches are composed.

  Args:
    gap_K: of the diagnosis, in [0, 1].
    weighting: see `baselines.method.Method`.
    needs_KxK: see `Mix`; None is without prerequisites.
  """
  gap_K = np.asarray(gap_K, np.float32)
  fixed_need_K = np.ones_like(gap_K)
  if needs_KxK is None:
    needs_KxK = np.zeros((len(gap_K), len(gap_K)), bool)
  if weighting == 'gap':
    fixed_need_K = need_floor + (1 - need_floor) * gap_K
  return Mix(
    replay_share=np.float32(replay_share),
    rehearse_K=np.asarray(rehearse_K, bool),
    need_floor=np.float32(need_floor),
    adaptive=np.bool_(weighting == 'need'),
    contrast=np.bool_(weighting == 'contrast'),
    fixed_need_K=fixed_need_K.astype(np.float32),
    needs_KxK=np.asarray(needs_KxK, bool),
    readiness_power=np.float32(readiness_power),
    easy_first_share=np.float32(easy_first_share),
  )


# Nothing is known of an unmastered prerequisite for sure, so none shuts out.
_LEAST_READY = 0.05


def readiness(mix: Mix, mastery_K: jax.Array) -> jax.Array:
  """How ready the student is for each module, (K,), in (0, 1].

  The product of its prerequisites' mastery to a power: a soft frontier, which
  moves as they are learned.

  Args:
    mastery_K: share of the teacher's score, in [0, 1].
  """
  log_K = jnp.log(jnp.maximum(mastery_K, _LEAST_READY))
  log_ready_K = jnp.where(mix.needs_KxK, log_K, 0.0).sum(1)
  return jnp.exp(mix.readiness_power * log_ready_K)


def module_weights(
  mix: Mix, gate: gate_lib.GateState, plan: gate_lib.GatePlan, count_K
) -> jax.Array:
  """The share of a batch that each module gets, (K,), summing to 1.

  Stage and re-opened modules share `1 - replay_share`, earlier and rehearsed
  ones the rest, each by need: the gap between student and teacher at the latest
  probing.
  """
  has_rows_K = count_K > 0
  # A re-opened module is taught beside the stage, so the share of earlier
  # material grows with what was forgotten.
  taught_K = gate_lib.asked(gate, plan) & has_rows_K
  s = plan.max_steps_S.shape[0]
  before_S = jnp.arange(s) < gate.stage
  earlier_K = jnp.any(plan.stage_modules_SxK & before_S[:, None], axis=0)
  replay_K = (earlier_K | mix.rehearse_K) & ~taught_K & has_rows_K
  gap_K = jnp.clip(1.0 - gate_lib.ratio(gate, plan), 0.0, 1.0)
  need_K = jnp.where(
    mix.adaptive,
    mix.need_floor + (1 - mix.need_floor) * gap_K,
    mix.fixed_need_K,
  ) * readiness(mix, 1.0 - gap_K)

  def normal(weight_K):
    return weight_K / jnp.maximum(jnp.sum(weight_K), 1e-9)

  def share(members_K):
    hard_K, easy_K = gap_K * members_K, (1.0 - gap_K) * members_K
    halves_K = normal(hard_K) + normal(easy_K)
    return normal(jnp.where(mix.contrast, halves_K, need_K * members_K))

  replay = jnp.where(
    jnp.any(replay_K),
    jnp.where(jnp.any(taught_K), mix.replay_share, 1.0),
    0.0,
  )
  return (1 - replay) * share(taught_K) + replay * share(replay_K)


# What a module's first steps are drawn from.
_FIRST_ROWS = 1 / 3


def competence(
  mix: Mix, gate: gate_lib.GateState, plan: gate_lib.GatePlan
) -> jax.Array:
  """The share of each module's rows that is drawn from, (K,), in (0, 1].

  Of the stage's modules it grows with the root of the time (Platanios et al.,
  2019, arXiv:1903.09848): new rows come in at a pace that falls with their
  number, so that each has as much time.
  """
  last = plan.max_steps_S.shape[0] - 1
  steps = mix.easy_first_share * plan.max_steps_S[jnp.minimum(gate.stage, last)]
  done = gate.steps_in_stage / jnp.maximum(steps, 1e-9)
  first = _FIRST_ROWS**2
  share = jnp.sqrt(jnp.minimum(1.0, done * (1 - first) + first))
  eased_K = gate_lib.in_stage(gate, plan) & (mix.easy_first_share > 0)
  return jnp.where(eased_K, share, 1.0)


def permute(index, size, seed):
  """A bijection of [0, size) chosen by `seed`, evaluated at `index`.

  A four-round Feistel network over the next even power of two, walked until it
  lands inside: constant memory, any size, no table.

  Args:
    index, size, seed: uint32 scalars, index < size.
  """
  bits = 32 - jax.lax.clz(jnp.maximum(size, 2) - 1)
  half = (bits + 1) // 2
  mask = (jnp.uint32(1) << half) - jnp.uint32(1)

  def mix(x, round):
    x = (x ^ seed) * jnp.uint32(0x9E3779B1) + jnp.uint32(round)
    x = (x ^ (x >> 15)) * jnp.uint32(0x85EBCA6B)
    return x ^ (x >> 13)

  def encrypt(x):
    left, right = x >> half, x & mask
    for round in range(4):
      left, right = right, left ^ (mix(right, round) & mask)
    return (left << half) | right

  first = encrypt(jnp.uint32(index))
  return jax.lax.while_loop(lambda x: x >= size, encrypt, first)


def draw(
  curriculum: Curriculum,
  weight_K: jax.Array,
  cursor_K: jax.Array,
  key: jax.Array,
  seed: jax.Array,
  *,
  batch_rows: int,
  competence_K: jax.Array | None = None,
) -> tuple[dict[str, jax.Array], jax.Array, jax.Array]:
  """Draws a batch by module shares.

  Shares are met exactly up to rounding (systematic sampling), not in
  expectation: small batches would otherwise starve small shares.

  Args:
    weight_K: shares, summing to 1 (all 0 draws nothing but padding).
    cursor_K: rows drawn so far of each module, uint32: the data position.
    key: decides the rounding of this step.
    seed: uint32, decides every permutation of the run.
    competence_K: share of a module's rows that is drawn from, its first ones;
      None is all of them.

  Returns:
    The batch, with the number of each row (-1 for padding) as 'row'; the
    advanced cursors; and rows drawn per module (K,).
  """
  k = weight_K.shape[0]
  edges_K = jnp.cumsum(weight_K)
  point_B = (jnp.arange(batch_rows) + jax.random.uniform(key)) / batch_rows
  # Scaled by the last edge: float sums end near 1, not at it.
  module_B = jnp.searchsorted(edges_K, point_B * edges_K[-1], side='right')
  module_B = jnp.minimum(module_B, k - 1)
  # `module_B` is sorted, so a row's rank within its module is a difference.
  rank_B = jnp.arange(batch_rows) - jnp.searchsorted(module_B, module_B)
  drawn_from_K = curriculum.count_K
  if competence_K is not None:
    drawn_from_K = jnp.ceil(competence_K * drawn_from_K)
  count_B = jnp.maximum(drawn_from_K[module_B], 1).astype(jnp.uint32)
  position_B = cursor_K[module_B] + rank_B.astype(jnp.uint32)
  epoch_B = position_B // count_B
  seed_B = seed ^ (
    epoch_B * jnp.uint32(0xC2B2AE35) + module_B.astype(jnp.uint32) * 0x27D4EB2F
  )
  row_B = jax.vmap(permute)(position_B % count_B, count_B, seed_B)
  row_B = curriculum.offset_K[module_B] + row_B.astype(jnp.int32)
  batch = {name: value[row_B] for name, value in curriculum.rows.items()}
  empty_B = (curriculum.count_K[module_B] == 0) | (edges_K[-1] <= 0)
  batch['weight'] = jnp.where(empty_B[:, None], 0.0, batch['weight'])
  batch['row'] = jnp.where(empty_B, -1, row_B)
  drawn_K = jnp.zeros(k, jnp.uint32).at[module_B].add(1)
  return batch, cursor_K + drawn_K, drawn_K
