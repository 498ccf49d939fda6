"""Gate probes inside the step: exact match without decoding.

Greedy decoding writes the reference if and only if, given the reference so far,
the likeliest next token is the reference's at every position. So one forward
pass answers a probe. A right answer in another form counts as wrong: the
estimate is a lower bound of what a grader would give.

Shapes: K knowledge modules, Q packed rows per module, L row length, P probes
per module.
"""

from __future__ import annotations

from collections.abc import Sequence

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np

from ioa_jax.models import decoder
from ioa_jax.training import packing


@flax.struct.dataclass
class ProbeBank:
  """Packed probes of every module.

  Attributes:
    rows: `packing.FIELDS`, each (K, Q, L).
    probe_KxQxL: which probe of its module a token belongs to, from 0.
    valid_KxP: which probe slots are real.
  """

  rows: dict[str, jax.Array]
  probe_KxQxL: jax.Array
  valid_KxP: jax.Array


def build(
  examples: Sequence[Sequence[packing.Example]], length: int
) -> ProbeBank:
  """Packs `examples[k]`, the probes of module k, one slot each."""
  packed = [packing.pack(e, length) for e in examples]
  q = max(len(r['token']) for r in packed)
  p = max(len(e) for e in examples)
  k = len(examples)
  bank = {
    name: np.zeros((k, q, length), value.dtype)
    for name, value in packed[0].items()
  }
  probe = np.zeros((k, q, length), np.int32)
  valid = np.zeros((k, p), bool)
  for m, rows in enumerate(packed):
    for name, value in rows.items():
      bank[name][m, : len(value)] = value
    probe[m, : len(rows['token'])] = _probe_index(rows, len(examples[m]))
    valid[m, : len(examples[m])] = True
  return ProbeBank(bank, probe, valid)


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
  bank: ProbeBank,
  ask_K: jax.Array,
) -> tuple[jax.Array, jax.Array]:
  """Counts right answers of the modules in `ask_K`.

  The loop runs once per asked module, so probing a stage costs what the stage
  is large, in one compiled program.

  Returns:
    correct_K (float32, as `gate.decide` takes it) and probed_K (int32); both 0
    for modules that were not asked.
  """
  k, p = bank.valid_KxP.shape
  # Asked modules first, in order.
  order_K = jnp.argsort(~ask_K, stable=True)

  def one(i, correct_K):
    m = order_K[i]
    rows = {name: value[m] for name, value in bank.rows.items()}
    hidden = decoder.forward(
      config, params, rows['token'], rows['segment'], rows['position']
    )
    token = jnp.argmax(decoder.unembed(config, params, hidden), axis=-1)
    wrong_QxL = (token != rows['target']) & (rows['weight'] > 0)
    wrong_P = (
      jnp.zeros(p, jnp.int32)
      .at[bank.probe_KxQxL[m]]
      .add(wrong_QxL.astype(jnp.int32))
    )
    right = jnp.sum((wrong_P == 0) & bank.valid_KxP[m])
    return correct_K.at[m].set(right.astype(jnp.float32))

  none_K = jnp.zeros(k, jnp.float32)
  correct_K = jax.lax.fori_loop(0, jnp.sum(ask_K), one, none_K)
  probed_K = jnp.where(ask_K, jnp.sum(bank.valid_KxP, axis=1), 0)
  return correct_K, probed_K.astype(jnp.int32)
