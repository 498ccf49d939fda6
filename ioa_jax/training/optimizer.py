"""The recipe of METHOD §6: AdamW, global-norm clipping, warm-up, cosine."""

from __future__ import annotations

import jax
import optax


def make(
  *,
  learning_rate: float,
  total_steps: int,
  warmup_share: float,
  final_share: float,
  weight_decay: float,
  b1: float,
  b2: float,
  clip_norm: float,
) -> tuple[optax.GradientTransformation, optax.Schedule]:
  """Returns the transformation and its learning-rate schedule.

  Args:
    warmup_share: share of `total_steps` spent warming up.
    final_share: last learning rate, as a share of the peak.
  """
  schedule = optax.warmup_cosine_decay_schedule(
    init_value=0.0,
    peak_value=learning_rate,
    warmup_steps=max(1, round(warmup_share * total_steps)),
    decay_steps=total_steps,
    end_value=final_share * learning_rate,
  )
  tx = optax.chain(
    optax.clip_by_global_norm(clip_norm),
    # Norm scales are not decayed: pulling them to zero shrinks the residual.
    optax.adamw(
      schedule, b1=b1, b2=b2, weight_decay=weight_decay, mask=_matrices
    ),
  )
  return tx, schedule


def _matrices(params):
  return jax.tree_util.tree_map_with_path(
    lambda path, _: path[-1].key not in ('scale', 'bias'), params
  )
