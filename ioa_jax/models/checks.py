"""What makes a model useless, found before anything is asked or trained.

Each is one line with the true cause. Otherwise a run would pay for probes and
lessons first, and blame the learning rate.
"""

from __future__ import annotations

from collections.abc import Mapping
import pathlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import tokenizers

from ioa_jax.models import weights

ModelError = weights.ModelError

_SIZES = (
  'vocab_size',
  'hidden_size',
  'num_hidden_layers',
  'num_attention_heads',
  'num_key_value_heads',
  'head_dim',
  'intermediate_size',
  'max_position_embeddings',
)
_POSITIVE = ('rms_norm_eps', 'rope_theta')
# What stands for a picture or a sound needs no row in a model of text.
_MEDIA = ('image', 'audio', 'video', 'boi_token', 'eoi_token')


def sizes(raw: Mapping[str, Any], path: pathlib.Path) -> None:
  """Raises ModelError for a size in `raw` that no model can have.

  Args:
    raw: what the config.json at `path` holds. Absent and null fields are the
      reader's business.
  """
  for field in _SIZES:
    value = raw.get(field)
    if value is None:
      continue
    if type(value) is not int or not 1 <= value < 2**31:
      raise ModelError(
        f'{path}: {field} is {_short(value)}, wanted a whole number from 1 to '
        '2147483647.'
      )
  for field in _POSITIVE:
    value = raw.get(field)
    if value is not None and (
      type(value) not in (int, float) or not 0 < value < 1e30
    ):
      raise ModelError(
        f'{path}: {field} is {_short(value)}, wanted a number above 0.'
      )


def _short(value: Any) -> str:
  text = repr(value)
  return text if len(text) <= 40 else text[:37] + '...'


def finite(params: Any, where: str | pathlib.Path) -> None:
  """Raises ModelError naming a parameter of `where` that is NaN or infinite.

  Each process looks at what its own devices hold.
  """
  for path, value in jax.tree_util.tree_leaves_with_path(params):
    for shard in value.addressable_shards:
      if not _all_finite(shard.data):
        name = '/'.join(str(k.key) for k in path)
        raise ModelError(
          f'{where}: parameter {name} holds NaN or infinity in '
          f'{value.dtype}. The training that made it diverged, or the file is '
          'damaged; use another checkpoint.'
        )


@jax.jit
def _all_finite(x: jax.Array) -> jax.Array:
  # Not by its maximum: XLA on CPU loses a NaN there.
  return jnp.all(jnp.isfinite(x))


@jax.jit
def _all_within(x: jax.Array, largest: jax.Array) -> jax.Array:
  # No cast: XLA may leave out one that is undone again.
  return jnp.all(jnp.isfinite(x) & (jnp.abs(x.astype(jnp.float32)) <= largest))


def fits_in(params: Any, dtype: str, where: str | pathlib.Path) -> None:
  """Raises ModelError if a number of `params` overflows in `dtype`.

  float16 ends at 65504; it would be stored as infinity.
  """
  largest = np.float32(jnp.finfo(dtype).max)
  for path, value in jax.tree_util.tree_leaves_with_path(params):
    # On the devices, and whole: all processes store a model together.
    is_array = isinstance(value, jax.Array | np.ndarray)
    parts = [value] if is_array else (value[i] for i in range(value.shape[0]))
    if not all(np.asarray(_all_within(part, largest)) for part in parts):
      name = '/'.join(str(k.key) for k in path)
      raise ModelError(
        f'{where}: parameter {name} holds numbers that {dtype} cannot, or '
        'none at all; nothing was written. Store it as bfloat16 or float32.'
      )


def same(wanted: Any, got: Any) -> None:
  """Raises ModelError naming a parameter that is not equal in both trees.

  Compared on the host, where NaN is equal to nothing.
  """
  pairs = zip(
    jax.tree_util.tree_leaves_with_path(wanted),
    jax.tree.leaves(got),
    strict=True,
  )
  for (path, a), b in pairs:
    a, b = (np.asarray(x, np.float32) for x in (a, b))
    if not np.array_equal(a, b):
      name = '/'.join(str(k.key) for k in path)
      raise ModelError(
        f'verification failed: parameter {name} is not what it was; delete the '
        'target and convert again.'
      )


def tokens(
  directory: pathlib.Path, vocab_size: int, tokenizer: tokenizers.Tokenizer
) -> None:
  """Raises ModelError for a token that the embedding has no row for.

  Args:
    directory: of the model, to name.
    vocab_size: rows of its embedding.
  """
  without_row = {
    token: i
    for token, i in tokenizer.get_vocab(with_added_tokens=True).items()
    if i >= vocab_size
  }
  for media in _media_tokens(directory):
    without_row.pop(media, None)
  if without_row:
    token, i = min(without_row.items(), key=lambda item: item[1])
    raise ModelError(
      f'{directory / "tokenizer.json"}: {len(without_row)} tokens have no row '
      f'in the embedding, the first is {token!r} with id {i}, and config.json '
      f'has vocab_size {vocab_size}. Resize the embedding, or use the '
      "model's own tokenizer."
    )


def _media_tokens(directory: pathlib.Path) -> set[str]:
  path = directory / 'tokenizer_config.json'
  raw = weights.read_json(path) if path.exists() else {}
  fields = dict(raw)
  for nested in ('extra_special_tokens', 'model_specific_special_tokens'):
    if isinstance(raw.get(nested), dict):
      fields |= raw[nested]
  return {
    token_text(value)
    for field, value in fields.items()
    if field.startswith(_MEDIA) and token_text(value)
  }


def token_text(value: Any) -> str | None:
  """A token as tokenizer_config.json writes it: its text, or an object."""
  if isinstance(value, dict):
    value = value.get('content')
  return value if isinstance(value, str) else None


def ids(
  value: Any, vocab_size: int, path: pathlib.Path, field: str
) -> list[int]:
  """Token ids that a file gives as a number or a list of them.

  Raises:
    ModelError: unless each is one of the embedding's rows.
  """
  found = value if isinstance(value, list) else [value]
  if not found or not all(
    type(i) is int and 0 <= i < vocab_size for i in found
  ):
    raise ModelError(
      f'{path}: {field} is {_short(value)}, wanted ids of tokens, '
      f'from 0 to {vocab_size - 1}.'
    )
  return found


def length(
  tokens: int, max_positions: int, what: str, where: str | pathlib.Path
) -> None:
  """Raises ModelError if `what` is longer than a model can read.

  Args:
    tokens: how many it has.
    max_positions: how many the model at `where` was made for.
  """
  if tokens > max_positions:
    raise ModelError(
      f'{where}: {what} has {tokens} tokens, and the model reads at most '
      f'{max_positions} (max_position_embeddings in its config.json).'
    )
