"""Losses against a teacher's distribution, kept as its top k and the rest.

The teacher's k likeliest tokens keep their log-probabilities and all others are
one bucket, the tail, so that both distributions are over the same k + 1 events
and every divergence here is a true one: never negative, 0 for equal ones, and
at most that of the whole vocabulary (data processing inequality).

Shapes: B batch, L length, V vocabulary, T the k tokens that are kept.
"""

from __future__ import annotations

from collections.abc import Callable
import functools
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np

from ioa_jax.models import decoder
from ioa_jax.runtime import sharding
from ioa_jax.training import losses, packing

Divergence = Callable[[jax.Array, jax.Array], jax.Array]

# The log-probability of an event that there is not: finite, so that it adds 0
# to a divergence if both have it.
NEVER = -1e30


def top_k(logits_BxLxV: jax.Array, k: int) -> tuple[jax.Array, jax.Array]:
  """The k likeliest tokens, (B, L, T), and their log-probabilities.

  Raises:
    ValueError: unless 0 < k < V: with k = V there is no tail.
  """
  v = logits_BxLxV.shape[-1]
  if not 0 < k < v:
    raise ValueError(f'top_k: k is {k}, wanted 0 < k < {v} (the vocabulary).')
  log_probs = jax.nn.log_softmax(logits_BxLxV.astype(jnp.float32), axis=-1)
  log_prob_BxLxT, token_BxLxT = jax.lax.top_k(log_probs, k)
  return token_BxLxT.astype(jnp.int32), log_prob_BxLxT


def with_tail(log_prob_BxLxT: jax.Array) -> jax.Array:
  """Appends the log-probability of all other tokens: (B, L, T + 1)."""
  kept = jax.nn.logsumexp(log_prob_BxLxT, axis=-1, keepdims=True)
  # Rounded log-probabilities can sum to a little more than 1.
  kept = jnp.minimum(kept, -1e-6)
  return jnp.concatenate([log_prob_BxLxT, jnp.log(-jnp.expm1(kept))], axis=-1)


def student_events(
  logits_BxLxV: jax.Array,
  token_BxLxT: jax.Array,
  log_prob_BxLxT: jax.Array | None = None,
  alone_V: jax.Array | None = None,
) -> jax.Array:
  """The student's log-probabilities of the teacher's events, (B, L, T + 1).

  Args:
    token_BxLxT: the student's tokens; -1 where an event is of none of them.
    log_prob_BxLxT: the teacher's, from large to small; needed with `alone_V`.
    alone_V: tokens that the teacher does not have. With it, its r-th likeliest
      token that the student does not have is the student's r-th likeliest one
      of these (ULD: Boizard et al., 2024, arXiv:2402.12030).
  """
  log_probs = jax.nn.log_softmax(logits_BxLxV.astype(jnp.float32), axis=-1)
  known = token_BxLxT >= 0
  found = jnp.take_along_axis(log_probs, jnp.maximum(token_BxLxT, 0), axis=-1)
  other = NEVER
  if alone_V is not None:
    ranked, _ = jax.lax.top_k(
      jnp.where(alone_V, log_probs, NEVER), token_BxLxT.shape[-1]
    )
    rank = jnp.maximum(jnp.cumsum(~known, axis=-1) - 1, 0)
    other = jnp.take_along_axis(ranked, rank, axis=-1)
    other = jnp.where(log_prob_BxLxT > NEVER / 2, other, NEVER)
  return with_tail(jnp.where(known, found, other))


def soften(log_event: jax.Array, temperature: float) -> jax.Array:
  """Log-probabilities of the events at `temperature`.

  The tail is softened as one event: which tokens it holds is not known.
  """
  return jax.nn.log_softmax(log_event / temperature, axis=-1)


def kl(log_p: jax.Array, log_q: jax.Array) -> jax.Array:
  """KL(p || q) in nats over the last axis."""
  return jnp.sum(jnp.exp(log_p) * (log_p - log_q), axis=-1)


def forward_kl(teacher: jax.Array, student: jax.Array) -> jax.Array:
  """KL(teacher || student): the student covers all that the teacher does."""
  return kl(teacher, student)


def reverse_kl(teacher: jax.Array, student: jax.Array) -> jax.Array:
  """KL(student || teacher): the student keeps to what the teacher does."""
  return kl(student, teacher)


def generalised_jsd(
  teacher: jax.Array, student: jax.Array, *, beta: float
) -> jax.Array:
  """Eq. 1 of GKD (Agarwal et al., 2024, arXiv:2306.13649).

  `beta KL(p || m) + (1 - beta) KL(q || m)`, m = beta p + (1 - beta) q, p the
  teacher and q the student. Divided by `beta (1 - beta)` it would be forward KL
  as beta goes to 0 and reverse KL as beta goes to 1; at the ends themselves
  those are returned, as in GKD's experiments.

  Args:
    beta: static, in [0, 1].
  """
  if beta == 0:
    return forward_kl(teacher, student)
  if beta == 1:
    return reverse_kl(teacher, student)
  mixture = jnp.logaddexp(teacher + jnp.log(beta), student + jnp.log1p(-beta))
  return beta * kl(teacher, mixture) + (1 - beta) * kl(student, mixture)


@flax.struct.dataclass
class Objective:
  """What is learned from a teacher's distributions; data but for the formula.

  Attributes:
    weight: share of the divergence in the loss; the rest is cross-entropy.
    temperature: softens both distributions.
    on_policy_share: of the steps, with texts of the student's own, of which the
      divergence alone is learned.
    divergence: of (teacher, student) log-probabilities, as `forward_kl`.
    alone_V: see `student_events`.
  """

  weight: jax.Array
  temperature: jax.Array
  on_policy_share: jax.Array
  divergence: Divergence = flax.struct.field(pytree_node=False)
  alone_V: jax.Array | None = None

  def between(
    self, teacher_log_event: jax.Array, student_log_event: jax.Array
  ) -> jax.Array:
    """The divergence at the temperature, over the last axis.

    The gradient's size does not depend on the temperature: it is times its
    square (Hinton et al., 2015).
    """
    t = self.temperature
    return t**2 * self.divergence(
      soften(teacher_log_event, t), soften(student_log_event, t)
    )


def make_objective(
  *,
  divergence: str,
  beta: float,
  weight: float,
  temperature: float,
  on_policy_share: float,
) -> Objective:
  """The objective of a config; `divergence` is 'forward_kl', 'reverse_kl' or
  'jsd', which `beta` is of."""
  formulas = {
    'forward_kl': forward_kl,
    'reverse_kl': reverse_kl,
    'jsd': functools.partial(generalised_jsd, beta=beta),
  }
  return Objective(
    np.float32(weight),
    np.float32(temperature),
    np.float32(on_policy_share),
    formulas[divergence],
  )


def token_loss(
  config: decoder.DecoderConfig,
  params: decoder.Params,
  hidden_BxLxD: jax.Array,
  rows: dict[str, jax.Array],
  objective: Objective,
) -> tuple[jax.Array, jax.Array]:
  """Weighted sum over tokens in nats, and the weight's sum.

  A token's loss is `(1 - w)` times its negative log-likelihood plus `w` times
  the divergence where it is predicted, w the objective's weight. With spans,
  the divergence of a span's text is added at its last token.

  Args:
    rows: `packing.FIELDS`, and the teacher's fields of `Scorer`, or those of
      `spans.SpanScorer`.
  """
  spanned, length = 'span' in rows, hidden_BxLxD.shape[1]

  def one(logits, target, weight, token, log_prob, *span):
    nll_sum, count = losses.cross_entropy(logits, target, weight)
    log_prob = log_prob.astype(jnp.float32)
    divergence_BxL = objective.between(
      with_tail(log_prob),
      student_events(logits, token, log_prob, objective.alone_V),
    )
    w = objective.weight
    loss = (1 - w) * nll_sum + w * jnp.sum(divergence_BxL * weight)
    if not spanned:
      return loss, count
    nll_BxL = losses.negative_log_likelihood(logits, target)
    return loss, count, _span_sums(-nll_BxL, *span, length)

  loss, count, *student_BxL = losses.by_piece(
    config,
    params,
    hidden_BxLxD,
    one,
    tuple(
      rows[name]
      for name in ('target', 'weight', *packing.TEACHER_FIELDS)
      + (('span',) if spanned else ())
    ),
  )
  if spanned:
    (student_BxL,) = student_BxL
    loss += objective.weight * _span_loss(student_BxL, rows, objective)
  return loss, count


def _span_sums(
  log_prob_BxL: jax.Array, span_BxL: jax.Array, length: int
) -> jax.Array:
  """Sums over the tokens of each span, at its last one, (B, length)."""
  # What is of no span falls off the end.
  last_BxL = jnp.where(span_BxL > 0, span_BxL - 1, length)
  add = lambda last, x: jnp.zeros(length).at[last].add(x, mode='drop')
  return jax.vmap(add)(last_BxL, log_prob_BxL)


def _span_loss(
  student_BxL: jax.Array, rows: dict[str, jax.Array], objective: Objective
) -> jax.Array:
  """Weighted sum of the divergences of spans: their text, or anything else."""
  two = lambda log_prob_BxL: with_tail(log_prob_BxL[..., None])
  divergence_BxL = objective.between(
    two(rows['span_log_prob']), two(student_BxL)
  )
  is_last = rows['span'] == jnp.arange(1, student_BxL.shape[1] + 1)
  return jnp.sum(jnp.where(is_last, divergence_BxL * rows['weight'], 0.0))


def in_batches(
  score: Callable[[dict[str, np.ndarray]], Any],
  rows: dict[str, np.ndarray],
  batch_rows: int,
) -> Any:
  """`score` of packed rows, so many at once; its arrays, (R, ...), joined.

  The last batch is filled with padding, so there is one shape.
  """
  count, length = rows['token'].shape
  scored = []
  for start in range(0, count, batch_rows):
    part = packing.empty_rows(batch_rows, length)
    here = min(batch_rows, count - start)
    for name, value in part.items():
      value[:here] = rows[name][start : start + here]
    found = sharding.fetch(score(part))
    scored.append(jax.tree.map(lambda x, n=here: np.asarray(x)[:n], found))
  return jax.tree.map(lambda *x: np.concatenate(x), *scored)


class Scorer:
  """A teacher that reads packed rows as the student does: one program.

  The token ids are the student's, so both need one vocabulary; see
  `vocabulary.shared_vocabulary`.

  Args:
    k: how many tokens are kept at a position; see `top_k`.
    batch_rows: rows that are read at once, over all devices.
  """

  def __init__(
    self,
    config: decoder.DecoderConfig,
    params: decoder.Params,
    *,
    k: int,
    batch_rows: int,
  ):
    self._params = params
    self._batch_rows = batch_rows

    def score(params, rows):
      hidden = decoder.forward(
        config, params, rows['token'], rows['segment'], rows['position']
      )
      token, log_prob = losses.map_pieces(
        config, params, hidden, lambda logits: top_k(logits, k)
      )
      return dict(
        zip(packing.TEACHER_FIELDS, (token, log_prob.astype(jnp.bfloat16)))
      )

    self._score: Callable = jax.jit(score)

  @property
  def compilations(self) -> int:
    return self._score._cache_size()

  def __call__(self, rows: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """`rows` of `packing.pack` with the teacher's fields, each (R, L, T)."""
    return rows | in_batches(
      lambda part: self._score(self._params, part), rows, self._batch_rows
    )
