"""Gate probes that the step answers by decoding, and scores by the answer.

For answers that follow free reasoning: whatever comes before the last answer
marker, the tokens after it are compared with the reference's. This counts what
a grader of exact answers would count, for the price of a decode loop;
`probing.ProbeBank` needs one forward pass and counts one form of the answer.

Shapes: K knowledge modules, Q prompts of all modules, R of them decoded
together, L prompt slots, A answer slots, T new tokens at most.
"""

from __future__ import annotations

from collections.abc import Sequence

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np

from ioa_jax.models import decoder
from ioa_jax.sampling import sampler

# One part of so many of the longest module's probes is decoded together: more
# keep devices busier, fewer let probing stop earlier.
_PARTS = 4


@flax.struct.dataclass
class DecodedBank:
  """Prompts and answers of all modules' probes; modules alternate.

  Attributes:
    prompt_QxL: prompts, padded on the right.
    length_Q: their lengths; 0 is padding.
    answer_QxA: tokens of the answer, padded with -1.
    module_Q: whose probe it is.
    marker: the token after whose last occurrence the answer begins.
    stop_S: tokens that end a completion.
    max_new_tokens: T.
    chunk: R, which divides Q.
  """

  prompt_QxL: jax.Array
  length_Q: jax.Array
  answer_QxA: jax.Array
  module_Q: jax.Array
  marker: jax.Array
  stop_S: jax.Array
  max_new_tokens: int = flax.struct.field(pytree_node=False)
  chunk: int = flax.struct.field(pytree_node=False)

  @property
  def probes_Q(self) -> jax.Array:
    """One each, but for padding."""
    return (self.length_Q > 0).astype(np.int32)


def alternate(sizes: Sequence[int]) -> list[tuple[int, int]]:
  """(module, index) of everything, so that each chunk has some of each."""
  return [
    (m, i)
    for i in range(max(sizes, default=0))
    for m, size in enumerate(sizes)
    if i < size
  ]


def build(
  probes: Sequence[Sequence[tuple[Sequence[int], Sequence[int]]]],
  *,
  marker: int,
  stop_tokens: Sequence[int],
  max_new_tokens: int,
  multiple_of: int = 1,
) -> DecodedBank:
  """A bank of `probes[k]`, (prompt, answer) tokens of module k's probes.

  Args:
    multiple_of: prompts that are decoded together divide by it: the devices
      that share them.
  """
  every = [probe for module in probes for probe in module]
  l = max(len(prompt) for prompt, _ in every)
  a = max(len(answer) for _, answer in every)
  chunk = round_up(-(-max(map(len, probes)) // _PARTS), multiple_of)
  q = round_up(len(every), chunk)
  prompt_QxL = np.zeros((q, l), np.int32)
  length_Q = np.zeros(q, np.int32)
  answer_QxA = np.full((q, a), -1, np.int32)
  module_Q = np.zeros(q, np.int32)
  for at, (m, i) in enumerate(alternate(list(map(len, probes)))):
    prompt, answer = probes[m][i]
    prompt_QxL[at, : len(prompt)] = prompt
    length_Q[at] = len(prompt)
    answer_QxA[at, : len(answer)] = answer
    module_Q[at] = m
  return DecodedBank(
    prompt_QxL,
    length_Q,
    answer_QxA,
    module_Q,
    np.int32(marker),
    np.asarray(stop_tokens, np.int32),
    max_new_tokens,
    chunk,
  )


def round_up(n: int, multiple: int) -> int:
  """The least multiple that is not below n."""
  return -(-n // multiple) * multiple


def right_answers(
  config: decoder.DecoderConfig,
  params: decoder.Params,
  bank: DecodedBank,
  at_R: jax.Array,
  live_R: jax.Array,
) -> tuple[jax.Array, jax.Array]:
  """Whether probes `at_R` of the bank end in their answer, as counts (R,).

  And how many tokens were read and written for each; both 0 where not `live_R`,
  which come last and are not decoded.
  """
  length_R = bank.length_Q[at_R] * live_R
  token_RxT, count_R, stopped_R = sampler.complete_greedily(
    config,
    params,
    bank.prompt_QxL[at_R],
    length_R,
    bank.stop_S,
    max_new_tokens=bank.max_new_tokens,
  )
  end_R = count_R - stopped_R
  right_R = ends_in(token_RxT, end_R, bank.answer_QxA[at_R], bank.marker)
  return (right_R & (length_R > 0)).astype(jnp.float32), length_R + count_R


def ends_in(
  token_RxT: jax.Array, end_R: jax.Array, answer_RxA: jax.Array, marker
) -> jax.Array:
  """Whether the span after the last marker is exactly the answer, (R,).

  A completion without a marker is all answer.

  Args:
    end_R: written tokens, without the stop token.
    answer_RxA: padded with -1.
  """
  t, a = token_RxT.shape[1], answer_RxA.shape[1]
  slot_T = jnp.arange(t)
  is_marker_RxT = (token_RxT == marker) & (slot_T < end_R[:, None])
  start_R = jnp.max(jnp.where(is_marker_RxT, slot_T + 1, 0), axis=1)
  at_RxA = start_R[:, None] + jnp.arange(a)
  span_RxA = jnp.take_along_axis(token_RxT, jnp.minimum(at_RxA, t - 1), axis=1)
  span_RxA = jnp.where(at_RxA < end_R[:, None], span_RxA, -1)
  as_long_R = end_R - start_R == jnp.sum(answer_RxA >= 0, axis=1)
  return as_long_R & jnp.all(span_RxA == answer_RxA, axis=1)
