"""Gate probes that the step answers by decoding, and scores by the answer.

For answers that follow free reasoning: whatever comes before the last answer
marker, the tokens after it are compared with the reference's. This counts what
a grader of exact answers would count, for the price of a decode loop;
`probing.ProbeBank` needs one forward pass and counts one form of the answer.

Shapes: K knowledge modules, N chunks of C probes per module, L prompt slots,
A answer slots, T new tokens at most.
"""

from __future__ import annotations

from collections.abc import Sequence

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np

from ioa_jax.models import decoder
from ioa_jax.sampling import sampler

# A module's probing can stop after each of so many chunks.
CHUNKS = 4


@flax.struct.dataclass
class DecodedBank:
  """Prompts and answers of every module's probes.

  Attributes:
    prompt_KxNxCxL: prompts, padded on the right.
    length_KxNxC: their lengths; 0 is no probe, and stands behind all that are.
    answer_KxNxCxA: tokens of the answer, padded with -1.
    seen_KxN: probes of the module up to and with this chunk.
    marker: the token after whose last occurrence the answer begins.
    stop_S: tokens that end a completion.
    max_new_tokens: T.
  """

  prompt_KxNxCxL: jax.Array
  length_KxNxC: jax.Array
  answer_KxNxCxA: jax.Array
  seen_KxN: jax.Array
  marker: jax.Array
  stop_S: jax.Array
  max_new_tokens: int = flax.struct.field(pytree_node=False)


def build(
  probes: Sequence[Sequence[tuple[Sequence[int], Sequence[int]]]],
  *,
  marker: int,
  stop_tokens: Sequence[int],
  max_new_tokens: int,
) -> DecodedBank:
  """A bank of `probes[k]`, (prompt, answer) tokens of module k's probes."""
  every = [probe for module in probes for probe in module]
  k, l = len(probes), max(len(prompt) for prompt, _ in every)
  a = max(len(answer) for _, answer in every)
  c = -(-max(map(len, probes)) // CHUNKS)
  p = c * CHUNKS
  prompt_KxPxL = np.zeros((k, p, l), np.int32)
  length_KxP = np.zeros((k, p), np.int32)
  answer_KxPxA = np.full((k, p, a), -1, np.int32)
  for m, module in enumerate(probes):
    for i, (prompt, answer) in enumerate(module):
      prompt_KxPxL[m, i, : len(prompt)] = prompt
      length_KxP[m, i] = len(prompt)
      answer_KxPxA[m, i, : len(answer)] = answer
  chunked = lambda x: x.reshape(k, CHUNKS, c, *x.shape[2:])
  length_KxNxC = chunked(length_KxP)
  return DecodedBank(
    chunked(prompt_KxPxL),
    length_KxNxC,
    chunked(answer_KxPxA),
    np.cumsum((length_KxNxC > 0).sum(axis=2), axis=1).astype(np.int32),
    np.int32(marker),
    np.asarray(stop_tokens, np.int32),
    max_new_tokens,
  )


def right_answers(
  config: decoder.DecoderConfig,
  params: decoder.Params,
  bank: DecodedBank,
  m: jax.Array,
  n: jax.Array,
) -> tuple[jax.Array, jax.Array]:
  """How many probes of chunk `n` of module `m` end in their answer.

  And how many tokens were read and written.
  """
  length_C = bank.length_KxNxC[m, n]
  token_CxT, count_C, stopped_C = sampler.complete_greedily(
    config, params, bank.prompt_KxNxCxL[m, n], length_C, bank.stop_S,
    max_new_tokens=bank.max_new_tokens,
  )  # fmt: skip
  end_C = count_C - stopped_C
  right_C = ends_in(token_CxT, end_C, bank.answer_KxNxCxA[m, n], bank.marker)
  right = jnp.sum(right_C & (length_C > 0)).astype(jnp.float32)
  return right, jnp.sum(length_C) + jnp.sum(count_C)


def ends_in(
  token_CxT: jax.Array, end_C: jax.Array, answer_CxA: jax.Array, marker
) -> jax.Array:
  """Whether the span after the last marker is exactly the answer, (C,).

  A completion without a marker is all answer.

  Args:
    end_C: written tokens, without the stop token.
    answer_CxA: padded with -1.
  """
  t, a = token_CxT.shape[1], answer_CxA.shape[1]
  slot_T = jnp.arange(t)
  is_marker_CxT = (token_CxT == marker) & (slot_T < end_C[:, None])
  start_C = jnp.max(jnp.where(is_marker_CxT, slot_T + 1, 0), axis=1)
  at_CxA = start_C[:, None] + jnp.arange(a)
  span_CxA = jnp.take_along_axis(token_CxT, jnp.minimum(at_CxA, t - 1), axis=1)
  span_CxA = jnp.where(at_CxA < end_C[:, None], span_CxA, -1)
  as_long_C = end_C - start_C == jnp.sum(answer_CxA >= 0, axis=1)
  return as_long_C & jnp.all(span_CxA == answer_CxA, axis=1)
