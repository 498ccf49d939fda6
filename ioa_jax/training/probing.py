"""Gate probes inside the step: exact match without decoding.

Greedy decoding writes the reference if and only if, given the reference so far,
the likeliest next token is the reference's at every position. So one forward
pass answers a probe. A right answer in another form counts as wrong: the
estimate is a lower bound of what a grader would give.

Shapes: K knowledge modules, N chunks of C packed rows per module, L row length,
P probes per module.
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

_CHUNKS = decoded_probes.CHUNKS


@flax.struct.dataclass
class ProbeBank:
  """Packed probes of every module.

  Attributes:
    rows: `packing.FIELDS`, each (K, N, C, L).
    probe_KxNxCxL: which probe of its module a token belongs to, from 0.
    seen_KxN: probes of the module up to and with this chunk.
    num_probes: P, of the module that has most.
  """

  rows: dict[str, jax.Array]
  probe_KxNxCxL: jax.Array
  seen_KxN: jax.Array
  num_probes: int = flax.struct.field(pytree_node=False)

  @property
  def valid_KxP(self) -> jax.Array:
    """Which probe slots are real."""
    return np.arange(self.num_probes) < self.seen_KxN[:, -1:]


def build(
  examples: Sequence[Sequence[packing.Example]], length: int
) -> ProbeBank:
  """Packs `examples[k]`, the probes of module k, one slot each."""
  packed = [packing.pack(e, length) for e in examples]
  c = -(-max(len(r['token']) for r in packed) // _CHUNKS)
  q, k = c * _CHUNKS, len(examples)
  bank = {
    name: np.zeros((k, q, length), value.dtype)
    for name, value in packed[0].items()
  }
  probe = np.zeros((k, q, length), np.int32)
  for m, rows in enumerate(packed):
    for name, value in rows.items():
      bank[name][m, : len(value)] = value
    probe[m, : len(rows['token'])] = _probe_index(rows, len(examples[m]))
  in_row_KxQ = bank['segment'].max(axis=2)
  chunked = lambda x: x.reshape(k, _CHUNKS, c, length)
  return ProbeBank(
    {name: chunked(value) for name, value in bank.items()},
    chunked(probe),
    np.cumsum(in_row_KxQ.reshape(k, _CHUNKS, c).sum(axis=2), axis=1).astype(
      np.int32
    ),
    max(map(len, examples)),
  )


def _probe_index(rows, count):
  """Numbers the segments of packed rows; order within a module is free."""
  first = rows['segment'].max(axis=1)
  start = np.concatenate([[0], np.cumsum(first)[:-1]])
  assert start[-1] + first[-1] == count
  return np.where(
    rows['segment'] > 0, start[:, None] + rows['segment'] - 1, 0
  ).astype(np.int32)


def probe_modules(
  config: decoder.DecoderConfig,
  params: decoder.Params,
  bank: ProbeBank | decoded_probes.DecodedBank,
  ask_K: jax.Array,
  plan: gate_lib.GatePlan,
) -> tuple[jax.Array, jax.Array, jax.Array]:
  """Counts right answers of the modules in `ask_K`.

  The loop runs once per asked module, and with `plan.sequential` only until
  the module's verdict is settled: probing costs what the stage is large, in one
  compiled program.

  Returns:
    correct_K (float32, as `gate.decide` takes it) and probed_K (int32), both 0
    for modules that were not asked; tokens that were read and written for it.
  """
  decodes = isinstance(bank, decoded_probes.DecodedBank)
  count = decoded_probes.right_answers if decodes else right_answers
  k = bank.seen_KxN.shape[0]
  total_K = bank.seen_KxN[:, -1]
  # Asked modules first, in order.
  order_K = jnp.argsort(~ask_K, stable=True)

  def one(carry):
    i, n, correct_K, probed_K, tokens = carry
    m = order_K[i]
    right, read = count(config, params, bank, m, n)
    correct_K = correct_K.at[m].add(right)
    probed_K = probed_K.at[m].set(bank.seen_KxN[m, n])
    more = jnp.where(
      plan.sequential,
      gate_lib.undecided(correct_K, probed_K, total_K, plan),
      probed_K < total_K,
    )[m]
    # The module's next chunk, or the first of the next module.
    i, n = jnp.where(more, i, i + 1), jnp.where(more, n + 1, 0)
    return i, n, correct_K, probed_K, tokens + read

  zero = jnp.int32(0)
  start = (
    zero, zero, jnp.zeros(k, jnp.float32), jnp.zeros(k, jnp.int32), zero
  )  # fmt: skip
  _, _, correct_K, probed_K, tokens = jax.lax.while_loop(
    lambda carry: carry[0] < jnp.sum(ask_K), one, start
  )
  return correct_K, probed_K, tokens


def right_answers(
  config: decoder.DecoderConfig,
  params: decoder.Params,
  bank: ProbeBank,
  m: jax.Array,
  n: jax.Array,
) -> tuple[jax.Array, jax.Array]:
  """How many probes of chunk `n` of module `m` are the likeliest tokens.

  And how many tokens were read.
  """
  rows = {name: value[m, n] for name, value in bank.rows.items()}
  hidden = decoder.forward(
    config, params, rows['token'], rows['segment'], rows['position']
  )
  token = losses.map_pieces(
    config, params, hidden, functools.partial(jnp.argmax, axis=-1)
  )
  wrong_CxL = (token != rows['target']) & (rows['weight'] > 0)
  wrong_P = (
    jnp.zeros(bank.num_probes, jnp.int32)
    .at[bank.probe_KxNxCxL[m, n]]
    .add(wrong_CxL.astype(jnp.int32))
  )
  slot_P = jnp.arange(bank.num_probes)
  first = jnp.where(n > 0, bank.seen_KxN[m, n - 1], 0)
  here_P = (slot_P >= first) & (slot_P < bank.seen_KxN[m, n])
  right = jnp.sum((wrong_P == 0) & here_P).astype(jnp.float32)
  return right, jnp.sum(rows['segment'] > 0)


def _token_outcome(logits_BxLxV, target_BxL):
  """Nats of each target, and whether another token is likelier."""
  nll = -jnp.take_along_axis(
    jax.nn.log_softmax(logits_BxLxV), target_BxL[..., None], axis=-1
  )[..., 0]
  return nll, jnp.argmax(logits_BxLxV, axis=-1) != target_BxL


def score_items(
  config: decoder.DecoderConfig, params: decoder.Params, bank: ProbeBank
) -> tuple[jax.Array, jax.Array, jax.Array]:
  """Every probe's own outcome, module after module.

  Returns:
    right_KxP, whether all answer tokens are the likeliest; nll_KxP, the
    answer's summed negative log-likelihood in nats; tokens_KxP, its length.
    Empty slots hold False, 0 and 0.
  """

  def one(module):
    rows, probe_RxL, valid_P = module
    hidden = decoder.forward(
      config, params, rows['token'], rows['segment'], rows['position']
    )
    nll_RxL, wrong_RxL = losses.map_pieces(
      config, params, hidden, _token_outcome, (rows['target'],)
    )

    def total(x_RxL):
      weighted = x_RxL * rows['weight']
      empty_P = jnp.zeros(bank.num_probes, jnp.float32)
      return empty_P.at[probe_RxL].add(weighted)

    wrong_P, nll_P = total(wrong_RxL), total(nll_RxL)
    tokens_P = total(jnp.ones_like(nll_RxL))
    return (wrong_P == 0) & valid_P, nll_P, tokens_P

  # Chunks are for verdicts that come early; here every probe is asked.
  whole = lambda x: x.reshape(x.shape[0], -1, x.shape[-1])
  return jax.lax.map(
    one,
    (
      jax.tree.map(whole, bank.rows), whole(bank.probe_KxNxCxL),
      bank.valid_KxP,
    ),
  )  # fmt: skip
