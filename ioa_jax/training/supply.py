"""Lessons by need: which modules are given more, as arithmetic on the device.

A module begins with one lot of lessons. To read a lesson again teaches about as
much as a new one for some four passes and then hardly anything (Muennighoff et
al., 2023, arXiv 2305.16264). So whenever a module has read what it holds that
often, it is reviewed: unless it is mastered, or has closed half of what it
lacked since its last review, it is given another lot. All modules share one
budget, and the neediest come first.

Shapes: K knowledge modules.
"""

from __future__ import annotations

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np

from ioa_jax.training import gate as gate_lib

# Of what a module lacks to mastery: growth below it from review to review is
# slow. At this rate it takes three reviews from 30 % of the threshold to 90 %.
_GROWTH = 0.5


@flax.struct.dataclass
class Terms:
  """What is for sale; constant data.

  Attributes:
    lots_K: lots that there are of each module.
    budget: lots of all modules together.
    passes: over a module's lessons, from one review to the next.
  """

  lots_K: jax.Array
  budget: jax.Array
  passes: jax.Array


@flax.struct.dataclass
class Account:
  """What was bought, and where each module stood at its last review.

  Attributes:
    lots_K: bought of each module.
    wanted_K: modules that the host shall bring a lot of.
    cursor_K: rows drawn of each module until then.
    ratio_K: P_S / P_T then.
  """

  lots_K: jax.Array
  wanted_K: jax.Array
  cursor_K: jax.Array
  ratio_K: jax.Array


def make_terms(
  lots_K: np.ndarray, taught_K: np.ndarray, *, share: float, passes: float
) -> Terms:
  """Args:
  lots_K: that there are of each module.
  taught_K: modules that any stage teaches.
  share: of all their lots, which may be bought; one of each is, always.
  """
  taught_K = np.asarray(taught_K)
  most = int(share * int(np.asarray(lots_K)[taught_K].sum()))
  return Terms(
    lots_K=np.asarray(lots_K, np.int32),
    budget=np.int32(max(most, int(taught_K.sum()))),
    passes=np.float32(passes),
  )


def init(gate: gate_lib.GateState, plan: gate_lib.GatePlan) -> Account:
  """Nothing bought yet."""
  k = gate.correct_K.shape[0]
  return Account(
    lots_K=jnp.zeros(k, jnp.int32),
    wanted_K=jnp.zeros(k, bool),
    cursor_K=jnp.zeros(k, jnp.uint32),
    ratio_K=gate_lib.ratio(gate, plan),
  )


def review(
  account: Account,
  terms: Terms,
  gate: gate_lib.GateState,
  plan: gate_lib.GatePlan,
  cursor_K: jax.Array,
  count_K: jax.Array,
  may_buy: jax.Array,
) -> tuple[Account, gate_lib.GateState]:
  """After a probing round: what is to be bought; the gate waits for it.

  Args:
    cursor_K: rows drawn of each module so far.
    count_K: rows that each module holds.
    may_buy: False where the round asked for something else, or no steps are
      left to read lessons in.
  """
  read_K = (cursor_K - account.cursor_K).astype(jnp.float32)
  ratio_K = gate_lib.ratio(gate, plan)
  due_K = (
    gate_lib.asked(gate, plan)
    & (count_K > 0)
    & (read_K >= terms.passes * count_K)
    & may_buy
  )
  lacked_K = jnp.maximum(plan.tau_mastery - account.ratio_K, 0.0)
  slow_K = ratio_K - account.ratio_K < _GROWTH * lacked_K
  wanted_K = (
    due_K
    & slow_K
    & ~gate_lib.mastered(gate, plan)
    & (account.lots_K < terms.lots_K)
  )
  # The neediest first; modules that have not begun keep their first lot.
  needy = jnp.argsort(jnp.where(wanted_K, ratio_K, jnp.inf), stable=True)
  place_K = jnp.zeros_like(needy).at[needy].set(jnp.arange(needy.size))
  to_come_K = _taught(plan) & (account.lots_K == 0)
  left = terms.budget - jnp.sum(account.lots_K) - jnp.sum(to_come_K)
  wanted_K &= place_K < left
  account = account.replace(
    wanted_K=wanted_K,
    cursor_K=jnp.where(due_K, cursor_K, account.cursor_K),
    ratio_K=jnp.where(due_K, ratio_K, account.ratio_K),
  )
  waits = gate.needs_data | jnp.any(wanted_K)
  return account, gate.replace(needs_data=waits)


def deliver(
  account: Account,
  gate: gate_lib.GateState,
  plan: gate_lib.GatePlan,
  count_K: jax.Array,
) -> Account:
  """The host has asked for what was wanted, and for first lots of the stage.

  A lot of which nothing could be kept is spent, and the next one is tried.
  """
  none_K = (account.lots_K == 0) | (count_K == 0)
  asked_K = account.wanted_K | (gate_lib.in_stage(gate, plan) & none_K)
  return account.replace(
    lots_K=account.lots_K + asked_K,
    wanted_K=jnp.zeros_like(account.wanted_K),
  )


def _taught(plan: gate_lib.GatePlan) -> jax.Array:
  return jnp.any(plan.stage_modules_SxK, axis=0)
