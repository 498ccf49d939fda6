"""Low-rank adapters: a parameter tree of their own beside a frozen base.

The tree is `{projection: {'a': (N, in, r), 'b': (N, r, out)}}`, stacked over
layers like the base. It holds exactly what trains, so an optimizer, an average
or a checkpoint made from it covers nothing else, and a leading axis makes it a
population of adapters over one base:

  logits = jax.vmap(lambda a: forward(config, lora.attach(base, a, spec), ...))

Shapes: N layers, R rows of a batch, r rank.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import jax
import jax.numpy as jnp

from ioa_jax.models import quantised

Adapters = dict[str, dict[str, jax.Array]]

# Order matters: a projection's index is folded into its dropout key.
PROJECTIONS = (
  'q_proj',
  'k_proj',
  'v_proj',
  'o_proj',
  'gate_proj',
  'up_proj',
  'down_proj',
)


@dataclasses.dataclass(frozen=True)
class LoraSpec:
  """What is adapted, and how; the defaults are the paper's.

  Attributes:
    rank: r; the adapter's update is `alpha / rank * a @ b`.
    dropout: share of an adapter's inputs dropped while training.
    targets: adapted projections, of PROJECTIONS.
  """

  rank: int = 16
  alpha: float = 32.0
  dropout: float = 0.05
  targets: tuple[str, ...] = ('q_proj', 'k_proj', 'v_proj', 'o_proj')

  def __post_init__(self):
    unknown = sorted(set(self.targets) - set(PROJECTIONS))
    if unknown or not self.targets:
      raise ValueError(
        f'lora targets {unknown or "()"} unknown; choose of {PROJECTIONS}.'
      )
    if self.rank < 1 or not 0 <= self.dropout < 1:
      raise ValueError(
        f'lora: rank {self.rank} must be >= 1 and dropout {self.dropout} in '
        '[0, 1).'
      )

  @property
  def scale(self) -> float:
    return self.alpha / self.rank


def check(params: dict[str, Any], adapters: Adapters) -> None:
  """Raises ValueError for adapters that do not fit `params` or their shapes."""
  for target, adapter in adapters.items():
    n, fan_in, _ = adapter['a'].shape
    got = n, fan_in, adapter['b'].shape[2]
    wanted = params['layers'][target]['kernel'].shape
    if got != wanted:
      raise ValueError(
        f'the adapter of {target} is for (layers, in, out) {got}, and the base '
        f'has {wanted}; it belongs to another model.'
      )


def init(spec: LoraSpec, params: dict[str, Any], key: jax.Array) -> Adapters:
  """Fresh adapters in float32 for `params` (or its shapes).

  `a` is uniform in ±1/sqrt(in), as PEFT draws it, and `b` is zero, so the
  adapted model starts as the base.
  """
  adapters = {}
  for target in sorted(spec.targets):
    n, fan_in, fan_out = params['layers'][target]['kernel'].shape
    target_key = jax.random.fold_in(key, PROJECTIONS.index(target))
    bound = fan_in**-0.5
    a = jax.random.uniform(
      target_key, (n, fan_in, spec.rank), minval=-bound, maxval=bound
    )
    adapters[target] = {'a': a, 'b': jnp.zeros((n, spec.rank, fan_out))}
  return adapters


def attach(
  params: dict[str, Any],
  adapters: Adapters,
  spec: LoraSpec,
  *,
  dropout_key: jax.Array | None = None,
) -> dict[str, Any]:
  """Parameters that `decoder.forward`, the sampler and the probes all take.

  Differentiate with respect to `adapters` through this function. The base is
  shared, not copied.

  Args:
    dropout_key: turns dropout on; fold the step in. None is for evaluation.
  """
  check(params, adapters)
  ready = {}
  for target, adapter in adapters.items():
    entry = {'a': adapter['a'], 'b': adapter['b'] * spec.scale}
    if dropout_key is not None and spec.dropout > 0:
      n = adapter['a'].shape[0]
      target_key = jax.random.fold_in(dropout_key, PROJECTIONS.index(target))
      entry['key'] = jax.random.split(target_key, n)
      entry['keep'] = jnp.full((n,), 1.0 - spec.dropout)
    ready[target] = entry
  return {**params, 'adapters': ready}


def delta(x_RxD: jax.Array, adapter: dict[str, jax.Array]) -> jax.Array:
  """What one layer's attached adapter adds to its projection's output."""
  if 'key' in adapter:
    keep = adapter['keep']
    kept_RxD = jax.random.bernoulli(adapter['key'], keep, x_RxD.shape)
    x_RxD = jnp.where(kept_RxD, x_RxD / keep.astype(x_RxD.dtype), 0)
  a, b = adapter['a'].astype(x_RxD.dtype), adapter['b'].astype(x_RxD.dtype)
  return (x_RxD @ a) @ b


def merge(
  params: dict[str, Any], adapters: Adapters, spec: LoraSpec
) -> dict[str, Any]:
  """Base parameters with the adapters' update added in.

  The product is taken in float32; the sum keeps the base's dtype, which of a
  quantised base is float32. All its projections become whole.
  """
  check(params, adapters)
  layers = quantised.whole_projections(params['layers'])
  for target, adapter in adapters.items():
    kernel = layers[target]['kernel']
    merged = _sum(kernel, adapter['a'], adapter['b'], spec.scale)
    layers[target] = {**layers[target], 'kernel': merged}
  return {**params, 'layers': layers}


def _sum(kernel, a, b, scale):
  update = scale * jnp.matmul(a.astype(jnp.float32), b.astype(jnp.float32))
  return (kernel.astype(jnp.float32) + update).astype(kernel.dtype)


@dataclasses.dataclass(frozen=True)
class MergedKernel:
  """A projection's kernels, of which a layer is merged when it is taken.

  Attributes:
    kernel: (N, in, out), quantised or not.
    adapter: of this projection; None if it has none.
    scale: of the adapter's update.
  """

  kernel: Any
  adapter: dict[str, jax.Array] | None
  scale: float

  @property
  def shape(self) -> tuple[int, ...]:
    return self.kernel.shape

  @property
  def size(self) -> int:
    return math.prod(self.shape)

  def __getitem__(self, layer: int) -> jax.Array:
    """The kernel (in, out) of one layer, as `merge` makes it."""
    one = lambda tree: jax.tree.map(lambda x: x[layer], tree)
    kernel = quantised.whole(one(self.kernel))
    if self.adapter is None:
      return kernel
    adapter = one(self.adapter)
    return _sum(kernel, adapter['a'], adapter['b'], self.scale)


def merge_by_layer(
  params: dict[str, Any], adapters: Adapters, spec: LoraSpec
) -> dict[str, Any]:
  """As `merge`, for an export: projections are `MergedKernel`.

  A base in 8 bits that fills a device is four times as large when it is whole;
  so no more than one layer's projection ever is.
  """
  check(params, adapters)
  layers = {
    name: {
      **part,
      'kernel': MergedKernel(part['kernel'], adapters.get(name), spec.scale),
    }
    if 'kernel' in part
    else part
    for name, part in params['layers'].items()
  }
  return {**params, 'layers': layers}
