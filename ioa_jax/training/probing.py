"""Gate probes inside the step: exact match without decoding.

Greedy decoding writes the reference if and only if, given the reference so far,
the likeliest next token is the reference's at every position. So one forward
pass answers a probe. A right answer in another form counts as wrong: the
estimate is a lower bound of what a grader would give.

Shapes: K knowledge modules, Q packed rows of all modules, R of them read
together, L row length, P probes per module.
"""

from __future__ import annotations

from collections.abc import Sequence
import functools

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np

from ioa_jax.models import decoder
from ioa_jax.training import decoded_probes, losses, packing
from ioa_jax.training import gate as gate_lib


@flax.struct.dataclass
class ProbeBank:
  """Packed probes; a row holds those of one module, and modules alternate.

  Attributes:
    rows: `packing.FIELDS`, each (Q, L).
    module_Q: whose probes a row holds.
    probes_Q: how many; 0 is padding.
    first_Q: the number of the row's first probe in its module.
    num_modules: K.
    chunk: R, which divides Q.
  """

  rows: dict[str, jax.Array]
  module_Q: jax.Array
  probes_Q: jax.Array
  first_Q: jax.Array
  num_modules: int = flax.struct.field(pytree_node=False)
  num_probes: int = flax.struct.field(pytree_node=False)
  chunk: int = flax.struct.field(pytree_node=False)

  @property
  def probe_QxL(self) -> jax.Array:
    """Which probe of its module a token belongs to; 0 in padding."""
    segment = self.rows['segment']
    return (self.first_Q[:, None] + segment - 1) * (segment > 0)

  @property
  def valid_KxP(self) -> jax.Array:
    """Which probe slots are real."""
    total_K = _count(self, self.num_modules)
    return jnp.arange(self.num_probes) < total_K[:, None]


def build(
  examples: Sequence[Sequence[packing.Example]],
  length: int,
  chunk: int,
  multiple_of: int = 1,
) -> ProbeBank:
  """Packs `examples[k]`, the probes of module k.

  Args:
    chunk: rows that are read together, if there are as many; best those of a
      part of a batch, which fit the memory.
    multiple_of: they divide by it: the devices that share them.
  """
  packed = [packing.pack(e, length) for e in examples]
  order = decoded_probes.alternate([len(rows['token']) for rows in packed])
  round_up = decoded_probes.round_up
  chunk = min(chunk, round_up(len(order), multiple_of))
  q = round_up(len(order), chunk)
  rows = packing.empty_rows(q, length)
  module_Q, probes_Q, first_Q = np.zeros((3, q), np.int32)
  in_row = [rows['segment'].max(axis=1) for rows in packed]
  for at, (m, i) in enumerate(order):
    for name, value in packed[m].items():
      rows[name][at] = value[i]
    module_Q[at], probes_Q[at] = m, in_row[m][i]
    first_Q[at] = in_row[m][:i].sum()
  return ProbeBank(
    rows,
    module_Q,
    probes_Q,
    first_Q,
    len(examples),
    max(map(len, examples)),
    chunk,
  )


def _count(bank, num_modules: int) -> jax.Array:
  """Probes of each module, (K,)."""
  none_K = jnp.zeros(num_modules, jnp.int32)
  return none_K.at[bank.module_Q].add(bank.probes_Q)


def probe_modules(
  config: decoder.DecoderConfig,
  params: decoder.Params,
  bank: ProbeBank | decoded_probes.DecodedBank,
  ask_K: jax.Array,
  plan: gate_lib.GatePlan,
) -> tuple[jax.Array, jax.Array, jax.Array]:
  """Counts right answers of the modules in `ask_K`.

  The loop reads R rows at a time of the modules that were asked, and with
  `plan.sequential` only until a module's verdict is settled: probing costs what
  the stage is large, in one compiled program.

  Returns:
    correct_K (float32, as `gate.decide` takes it) and probed_K (int32), both 0
    for modules that were not asked; tokens that were read and written for it.
  """
  decodes = isinstance(bank, decoded_probes.DecodedBank)
  answer = decoded_probes.right_answers if decodes else right_answers
  k = ask_K.shape[0]
  total_K = _count(bank, k)

  def wanted(carry):
    correct_K, probed_K, done_Q, _ = carry
    more_K = ask_K & jnp.where(
      plan.sequential,
      gate_lib.undecided(correct_K, probed_K, total_K, plan),
      probed_K < total_K,
    )
    return more_K[bank.module_Q] & (bank.probes_Q > 0) & ~done_Q

  def one(carry):
    correct_K, probed_K, done_Q, tokens = carry
    wanted_Q = wanted(carry)
    # Those that are wanted come first, in order; others fill up the last chunk.
    at_R = jnp.argsort(~wanted_Q, stable=True)[: bank.chunk]
    live_R, module_R = wanted_Q[at_R], bank.module_Q[at_R]
    right_R, read_R = answer(config, params, bank, at_R, live_R)
    return (
      correct_K.at[module_R].add(right_R),
      probed_K.at[module_R].add(bank.probes_Q[at_R] * live_R),
      done_Q.at[at_R].max(live_R),
      tokens + jnp.sum(read_R),
    )

  start = (
    jnp.zeros(k, jnp.float32),
    jnp.zeros(k, jnp.int32),
    jnp.zeros(bank.module_Q.shape, bool),
    jnp.int32(0),
  )
  correct_K, probed_K, _, tokens = jax.lax.while_loop(
    lambda carry: jnp.any(wanted(carry)), one, start
  )
  return correct_K, probed_K, tokens


def right_answers(
  config: decoder.DecoderConfig,
  params: decoder.Params,
  bank: ProbeBank,
  at_R: jax.Array,
  live_R: jax.Array,
) -> tuple[jax.Array, jax.Array]:
  """How many probes of rows `at_R` are the likeliest tokens, (R,).

  And how many tokens were read in each; both 0 where not `live_R`.
  """
  rows = {name: value[at_R] for name, value in bank.rows.items()}
  hidden = decoder.forward(
    config, params, rows['token'], rows['segment'], rows['position']
  )
  token = losses.map_pieces(
    config, params, hidden, functools.partial(jnp.argmax, axis=-1)
  )
  wrong_RxL = (token != rows['target']) & (rows['weight'] > 0)
  r, length = wrong_RxL.shape
  wrong_RxS = jnp.zeros((r, length + 1), bool)  # By number of the segment.
  wrong_RxS = wrong_RxS.at[jnp.arange(r)[:, None], rows['segment']].max(
    wrong_RxL
  )
  right_R = bank.probes_Q[at_R] - jnp.sum(wrong_RxS, axis=1)
  read_R = jnp.sum(rows['segment'] > 0, axis=1)
  return (right_R * live_R).astype(jnp.float32), read_R * live_R


def _token_outcome(logits_BxLxV, target_BxL):
  """Nats of each target, and whether another token is likelier."""
  nll = -jnp.take_along_axis(
    jax.nn.log_softmax(logits_BxLxV), target_BxL[..., None], axis=-1
  )[..., 0]
  return nll, jnp.argmax(logits_BxLxV, axis=-1) != target_BxL


def score_items(
  config: decoder.DecoderConfig, params: decoder.Params, bank: ProbeBank
) -> tuple[jax.Array, jax.Array, jax.Array]:
  """Every probe's own outcome, whatever the module.

  Returns:
    right_KxP, whether all answer tokens are the likeliest; nll_KxP, the
    answer's summed negative log-likelihood in nats; tokens_KxP, its length.
    Empty slots hold False, 0 and 0.
  """

  def one(rows):
    hidden = decoder.forward(
      config, params, rows['token'], rows['segment'], rows['position']
    )
    return losses.map_pieces(
      config, params, hidden, _token_outcome, (rows['target'],)
    )

  chunked = lambda x: x.reshape(-1, bank.chunk, *x.shape[1:])
  outcome = jax.lax.map(one, jax.tree.map(chunked, bank.rows))
  weight_QxL = bank.rows['weight']
  nll_QxL, wrong_QxL = (x.reshape(weight_QxL.shape) for x in outcome)

  def total(x_QxL):
    empty_KxP = jnp.zeros((bank.num_modules, bank.num_probes), jnp.float32)
    at = jnp.asarray(bank.module_Q)[:, None], jnp.asarray(bank.probe_QxL)
    return empty_KxP.at[at].add(x_QxL * weight_QxL)

  wrong_KxP, nll_KxP = total(wrong_QxL), total(nll_QxL)
  tokens_KxP = total(jnp.ones_like(nll_QxL))
  return (wrong_KxP == 0) & bank.valid_KxP, nll_KxP, tokens_KxP
