"""What a run is protected from: losing what it had, and going on for nothing.

Both are decided where all modules have just been asked together, since scores
of different rounds are of different weights.

Shapes: K knowledge modules.
"""

from __future__ import annotations

from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np

from ioa_jax.training import gate as gate_lib

_NEVER = np.iinfo(np.int32).max
# One round can be luck.
_ROUNDS = 2


@flax.struct.dataclass
class Guard:
  """The best weights so far, and when the run ends.

  Attributes:
    weights: what trains, as it was probed at `step`; None keeps none.
    step: of `weights`; 0 is the student as it came.
    score: mean over modules of the share of gate probes that they answered.
    mastered_rounds: rounds of all modules in a row that mastered each.
    ends_at: the run takes no step from here on; far away until all is
      mastered.
  """

  weights: Any
  step: jax.Array
  score: jax.Array
  mastered_rounds: jax.Array
  ends_at: jax.Array


def init(weights: Any | None, gate: gate_lib.GateState) -> Guard:
  """Before the first step; copies `weights`, since a state is donated."""
  if weights is not None:
    weights = jax.tree.map(jnp.array, weights)
  return Guard(
    weights=weights,
    step=jnp.int32(0),
    score=_score(gate),
    mastered_rounds=jnp.int32(0),
    ends_at=jnp.int32(_NEVER),
  )


def _score(gate: gate_lib.GateState) -> jax.Array:
  return jnp.mean(gate.correct_K / jnp.maximum(gate.probed_K, 1))


def look(
  guard: Guard,
  weights: Any,
  step: jax.Array,
  gate: gate_lib.GateState,
  plan: gate_lib.GatePlan,
  probed_K: jax.Array,
  ending_steps: jax.Array,
) -> Guard:
  """After a probing round that asked the modules with `probed_K` above 0.

  Args:
    weights: that answered.
    gate: with this round's counts.
    ending_steps: that follow once all is mastered; 0 goes on to the last step.
  """
  whole = jnp.all(probed_K > 0)
  score = _score(gate)
  best = whole & (score >= guard.score)
  keep = lambda new, old: jnp.where(best, new, old)
  rounds = jnp.where(
    jnp.all(gate_lib.mastered(gate, plan)), guard.mastered_rounds + 1, 0
  )
  rounds = jnp.where(whole, rounds, guard.mastered_rounds)
  ends = (rounds >= _ROUNDS) & (ending_steps > 0) & (guard.ends_at == _NEVER)
  kept = guard.weights
  return Guard(
    weights=None if kept is None else jax.tree.map(keep, weights, kept),
    step=keep(step, guard.step),
    score=keep(score, guard.score),
    mastered_rounds=rounds,
    ends_at=jnp.where(ends, step + ending_steps, guard.ends_at),
  )


def pace(guard: Guard, step: jax.Array, ending_steps: jax.Array) -> jax.Array:
  """Share of the learning rate: 1, and from 1 to 0 in the ending steps."""
  left = guard.ends_at - step
  return jnp.clip(left / jnp.maximum(ending_steps, 1), 0.0, 1.0)
