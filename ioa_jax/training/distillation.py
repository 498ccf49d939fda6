"""Losses against a teacher's distribution, kept as its top k and the rest.

The teacher's k likeliest tokens keep their log-probabilities and all others are
one bucket, the tail, so that both distributions are over the same k + 1 events
and every divergence here is a true one: never negative, 0 for equal ones, and
at most that of the whole vocabulary (data processing inequality).

Shapes: B batch, L length, V vocabulary, T the k tokens that are kept.
"""

from __future__ import annotations

from collections.abc import Callable
import pathlib

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import safetensors
from safetensors import numpy as safetensors_numpy

from ioa_jax.training import losses

_FORMAT = '1'


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
  logits_BxLxV: jax.Array, token_BxLxT: jax.Array
) -> jax.Array:
  """The student's log-probabilities of the teacher's events, (B, L, T + 1)."""
  log_probs = jax.nn.log_softmax(logits_BxLxV.astype(jnp.float32), axis=-1)
  return with_tail(jnp.take_along_axis(log_probs, token_BxLxT, axis=-1))


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


def token_divergence(
  config,
  params,
  hidden_BxLxD: jax.Array,
  token_BxLxT: jax.Array,
  log_prob_BxLxT: jax.Array,
  weight_BxL: jax.Array,
  *,
  divergence: Callable[[jax.Array, jax.Array], jax.Array],
  temperature: float = 1.0,
) -> tuple[jax.Array, jax.Array]:
  """Weighted sum of divergences in nats, and the weight's sum.

  The gradient's size does not depend on the temperature: the sum is times its
  square (Hinton et al., 2015).

  Args:
    token_BxLxT, log_prob_BxLxT: of `top_k`, at the positions of `hidden_BxLxD`.
    divergence: of (teacher, student) log-probabilities, as `forward_kl`.
  """

  def one(logits, token, log_prob, weight):
    teacher = soften(with_tail(log_prob.astype(jnp.float32)), temperature)
    student = soften(student_events(logits, token), temperature)
    divergence_BxL = temperature**2 * divergence(teacher, student)
    return jnp.sum(divergence_BxL * weight), jnp.sum(weight)

  return losses.by_piece(
    config, params, hidden_BxLxD, one,
    (token_BxLxT, log_prob_BxLxT, weight_BxL),
  )  # fmt: skip


def save(path: pathlib.Path, token_RxLxT, log_prob_RxLxT) -> None:
  """Writes what a teacher thinks of R rows: int32 ids, bfloat16 log-probs."""
  safetensors_numpy.save_file(
    {
      'token': np.asarray(token_RxLxT, np.int32),
      'log_prob': np.asarray(log_prob_RxLxT, ml_dtypes.bfloat16),
    },
    path,
    metadata={'format': _FORMAT, 'holds': 'top-k log-probabilities'},
  )


def load(path: pathlib.Path) -> tuple[np.ndarray, np.ndarray]:
  """What `save` wrote.

  Raises:
    ValueError: for a file of another format.
  """
  with safetensors.safe_open(path, 'numpy') as file:
    found = (file.metadata() or {}).get('format')
    if found != _FORMAT or set(file.keys()) != {'token', 'log_prob'}:
      raise ValueError(
        f'{path}: format {found!r} with {sorted(file.keys())}, wanted '
        f'{_FORMAT!r} with log_prob and token; score the rows again.'
      )
    return file.get_tensor('token'), file.get_tensor('log_prob')
