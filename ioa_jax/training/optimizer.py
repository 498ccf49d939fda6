"""AdamW, as the paper, or Muon; global-norm clipping, warm-up and cosine."""

from __future__ import annotations

import dataclasses

import jax
import optax
from optax import contrib


@dataclasses.dataclass(frozen=True, kw_only=True)
class Recipe:
  """An optimizer and its schedule, `config.optimizer`.

  Attributes:
    name: 'adamw', or 'muon' for the layers' kernels with Adam for the rest
      (Jordan, 2024; Liu et al., 2025, arXiv:2502.16982). Muon's updates are
      scaled to the size of Adam's, so one learning rate serves both; it wants a
      weight decay of about 0.1, which reaches the kernels only.
    warmup_share: share of all steps spent warming up.
    final_share: last learning rate, as a share of the peak.
    b1, b2: decay of Adam's moments; `b1` serves Muon's Adam as well, whose own
      momentum is 0.95.
    momentum_dtype: of the first moment; 'bfloat16' saves an eighth of the state
      where memory is short. The second stays float32: it changes by 5 % a step
      at most, which bfloat16 would round away.
  """

  name: str
  learning_rate: float
  warmup_share: float
  final_share: float
  weight_decay: float
  b1: float
  b2: float
  clip_norm: float
  momentum_dtype: str


def make(
  recipe: Recipe, total_steps: int
) -> tuple[optax.GradientTransformation, optax.Schedule]:
  """Returns the transformation and its learning-rate schedule."""
  r = recipe
  schedule = optax.warmup_cosine_decay_schedule(
    init_value=0.0,
    peak_value=r.learning_rate,
    warmup_steps=max(1, round(r.warmup_share * total_steps)),
    decay_steps=total_steps,
    end_value=r.final_share * r.learning_rate,
  )
  if r.name == 'adamw':
    # Norm scales are not decayed: pulling them to zero shrinks the residual.
    rule = optax.adamw(
      schedule,
      b1=r.b1,
      b2=r.b2,
      weight_decay=r.weight_decay,
      mask=_matrices,
      mu_dtype=r.momentum_dtype,
    )
  else:
    rule = contrib.muon(
      schedule,
      weight_decay=r.weight_decay,
      adam_b1=r.b1,
      adam_b2=r.b2,
      consistent_rms=0.2,
      mu_dtype=r.momentum_dtype,
      muon_weight_dimension_numbers=_kernel_axes,
    )
  return optax.chain(optax.clip_by_global_norm(r.clip_norm), rule), schedule


def _matrices(params):
  return jax.tree_util.tree_map_with_path(
    lambda path, _: path[-1].key not in ('scale', 'bias'), params
  )


def _kernel_axes(params):
  """(layers, in, out) kernels: one orthogonal update for each layer."""
  return jax.tree.map(
    lambda x: (
      contrib.MuonDimensionNumbers(reduction_axis=1, output_axis=2)
      if x.ndim == 3
      else None
    ),
    params,
  )
