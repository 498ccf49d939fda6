"""Safetensors files, one or several with an index: to devices and back.

Reading goes from the file to each device's shard in pieces, so the host holds
one piece and the memory map of one tensor, however large the model is. No
collective is involved: hosts of a pod may load at their own speed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
import functools
import hashlib
import json
import math
import pathlib
import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import safetensors
import safetensors.numpy

from ioa_jax.runtime import files as files_lib
from ioa_jax.runtime import processes

INDEX = 'model.safetensors.index.json'
SINGLE = 'model.safetensors'
EMBEDDING, HEAD = 'model.embed_tokens.weight', 'lm_head.weight'

STORED_DTYPES = {'F32': 'float32', 'F16': 'float16', 'BF16': 'bfloat16'}
_PICKLES = ('*.bin', '*.pt', '*.pth', '*.ckpt', '*.pkl')
# What one piece on the host may take.
_PIECE_BYTES = 256 * 2**20


class ModelError(ValueError):
  """A model directory that cannot be used; the text names file and field."""


def reason(e: Exception) -> str:
  """Of a library's failure, in one line."""
  text = ' '.join((str(e) or repr(e)).split())
  return f'{type(e).__name__}: {text[:200]}'


def read_json(path: pathlib.Path) -> dict[str, Any]:
  """An object of finite numbers.

  Raises:
    ModelError: naming the file, whatever is wrong with it.
  """
  try:
    value = json.loads(
      path.read_text('utf-8'), parse_float=_finite, parse_constant=_finite
    )
  except FileNotFoundError:
    raise ModelError(
      f'{path}: no such file; a model directory holds config.json, '
      'tokenizer.json and *.safetensors.'
    ) from None
  except OSError as e:
    raise ModelError(f'{path}: cannot be read ({e.strerror}).') from None
  except (ValueError, RecursionError) as e:
    raise ModelError(f'{path}: not JSON ({e}).') from None
  if not isinstance(value, dict):
    raise ModelError(f'{path}: holds a {type(value).__name__}, not an object.')
  return value


def _finite(text: str) -> float:
  """Python's reader takes NaN, and 1e999 for infinity."""
  value = float(text)
  if not math.isfinite(value):
    raise ValueError(f'{text} is not a number')
  return value


def write_json(path: pathlib.Path, value: Any) -> None:
  files_lib.write_text(
    path, json.dumps(value, indent=2, ensure_ascii=False) + '\n'
  )


class Store:
  """The tensors of a model directory, known by name and not yet read."""

  def __init__(self, directory: str | pathlib.Path):
    """Reads headers only.

    Raises:
      ModelError: for a missing, damaged or pickled file.
    """
    self.directory = pathlib.Path(directory)
    self.files: dict[str, pathlib.Path] = {}
    self.shapes: dict[str, tuple[int, ...]] = {}
    self.dtypes: dict[str, str] = {}
    named = _indexed_files(self.directory)
    for path in named or [self.directory / SINGLE]:
      with open_file(path) as file:
        for name in file.keys():
          tensor = file.get_slice(name)
          self.files[name] = path
          self.shapes[name] = tuple(tensor.get_shape())
          self.dtypes[name] = tensor.get_dtype()
    for path, names in named.items():
      for name in names:
        if self.files.get(name) != path:
          raise ModelError(
            f'{path}: no tensor {name!r}, but {INDEX} places it there.'
          )

  def check(self, name: str, shape: Sequence[int]) -> None:
    """Raises ModelError unless `name` is there in `shape` and a float."""
    if name not in self.files:
      raise ModelError(
        f'{self.directory}: no tensor {name!r} in its safetensors files; '
        'config.json asks for it.'
      )
    if self.shapes[name] != tuple(shape):
      raise ModelError(
        f'{self.files[name]}: tensor {name!r} has shape {self.shapes[name]}, '
        f'config.json asks for {tuple(shape)}.'
      )
    if self.dtypes[name] not in STORED_DTYPES:
      raise ModelError(
        f'{self.files[name]}: tensor {name!r} has dtype {self.dtypes[name]}; '
        f'supported are {sorted(STORED_DTYPES)}. Convert it first.'
      )

  def read(self, name: str, *index: slice) -> np.ndarray:
    """One slice, in the stored dtype."""
    # Opened anew each time: a map that stays open keeps every page it touched.
    with open_file(self.files[name]) as file:
      return file.get_slice(name)[index]

  def blocks(self, name: str) -> Iterator[np.ndarray]:
    """The whole tensor in order, in pieces of bounded size."""
    rows, *inner = self.shapes[name]
    step = max(1, _PIECE_BYTES // max(1, 4 * math.prod(inner)))
    for start in range(0, rows, step):
      yield self.read(name, slice(start, min(start + step, rows)))

  def equal(self, first: str, second: str) -> bool:
    """Whether two tensors hold the same numbers."""
    return all(
      np.array_equal(a, b)
      for a, b in zip(self.blocks(first), self.blocks(second), strict=True)
    )

  def digest(self) -> str:
    """SHA-256 of all names, types, shapes and numbers, however split."""
    found = hashlib.sha256()
    for name in sorted(self.files):
      header = [name, self.dtypes[name], self.shapes[name]]
      found.update(json.dumps(header).encode() + b'\n')
      for block in self.blocks(name):
        found.update(np.ascontiguousarray(block).reshape(-1).view(np.uint8))
    return found.hexdigest()


def has_own_head(directory: str | pathlib.Path) -> bool:
  """Whether the output head is stored, and is not the embedding again.

  Then it is kept whatever `tie_word_embeddings` says, as transformers does.
  False where no weights are.
  """
  directory = pathlib.Path(directory)
  if not any((directory / f).exists() for f in (SINGLE, INDEX)):
    return False
  store = Store(directory)
  # By their ends: a model with images has a prefix before both.
  pair = [
    [name for name in store.files if name.endswith(end)]
    for end in ('embed_tokens.weight', HEAD)
  ]
  if [len(names) for names in pair] != [1, 1]:
    return False
  (embedding,), (head,) = pair
  # What cannot be compared is left to `check`, which names it.
  is_copy = store.shapes[head] == store.shapes[embedding] and (
    len(store.shapes[head]) == 2
    and {store.dtypes[head], store.dtypes[embedding]} <= set(STORED_DTYPES)
    and store.equal(embedding, head)
  )
  return not is_copy


def _indexed_files(
  directory: pathlib.Path,
) -> dict[pathlib.Path, list[str]]:
  """File to the tensors that the index places in it; {} without an index."""
  index = directory / INDEX
  if not index.exists():
    if not (directory / SINGLE).exists():
      shards = sorted(p.name for p in directory.glob('*-of-*.safetensors'))
      if shards:
        raise ModelError(
          f'{index}: no such file, and {shards[0]} is one of several; copy '
          'the index too.'
        )
      pickles = sorted(p.name for g in _PICKLES for p in directory.glob(g))
      raise ModelError(
        f'{directory / SINGLE}: no such file.'
        + f' {pickles} are pickle files, which can run code when read, and are '
        'refused; convert them to safetensors.' * bool(pickles)
      )
    return {}
  weight_map = read_json(index).get('weight_map')
  if not isinstance(weight_map, dict) or not weight_map:
    raise ModelError(f'{index}: field "weight_map" is missing.')
  named: dict[pathlib.Path, list[str]] = {}
  for name, file in weight_map.items():
    if not isinstance(file, str) or not re.fullmatch(
      r'[^/\\]+\.safetensors', file
    ):
      raise ModelError(
        f'{index}: weight_map places {name!r} in {file!r}; only .safetensors '
        'files of the same directory are read.'
      )
    named.setdefault(directory / file, []).append(name)
  if (directory / SINGLE).exists() and directory / SINGLE not in named:
    raise ModelError(
      f'{directory}: holds {SINGLE}, and {INDEX} which names other files. '
      'transformers reads the first and vLLM the second; delete the one that '
      'is not the model.'
    )
  for path in named:
    if not path.exists():
      raise ModelError(f'{path}: missing, but {INDEX} names it; copy it again.')
  return named


def open_file(path: pathlib.Path):
  """A safetensors file of which tensors are read one by one, as numpy's.

  Raises:
    ModelError: naming it, if it is no such file.
  """
  try:
    return safetensors.safe_open(path, framework='numpy')
  except (safetensors.SafetensorError, OSError) as e:
    raise ModelError(
      f'{path}: not a readable safetensors file ({e}); it is truncated or '
      'damaged, copy it again.'
    ) from None


def to_device(
  store: Store,
  names: Sequence[str],
  *,
  transposed: bool,
  shape: tuple[int, ...],
  dtype: str,
  sharding: jax.sharding.Sharding,
) -> jax.Array:
  """One parameter of `shape`, straight to the devices that hold it.

  Args:
    names: the tensors it is made of, stacked on axis 0 if `shape` has one axis
      more than they have.
    transposed: whether they are stored with their two axes swapped.
  """
  holders: dict[tuple, list] = {}
  for device, index in sharding.addressable_devices_indices_map(shape).items():
    bounds = tuple(s.indices(n)[:2] for s, n in zip(index, shape, strict=True))
    holders.setdefault(bounds, []).append(device)
  stacked = len(shape) > len(store.shapes[names[0]])
  on_device = {}
  for bounds, devices in holders.items():
    size = tuple(stop - start for start, stop in bounds)
    for start, piece in _pieces(
      store, names, bounds, np.dtype(jnp.dtype(dtype)), transposed, stacked
    ):
      for device in devices:
        value = jax.device_put(piece, device)
        if piece.shape != size:
          if device not in on_device:
            on_device[device] = jnp.zeros(size, dtype, device=device)
          value = _place(on_device[device], value, start)
        # Waiting bounds how many pieces are alive on the host.
        on_device[device] = value.block_until_ready()
  return jax.make_array_from_single_device_arrays(
    shape, sharding, list(on_device.values())
  )


@functools.partial(jax.jit, donate_argnums=0)
def _place(buffer, piece, start):
  return jax.lax.dynamic_update_slice(buffer, piece, start)


def _pieces(
  store, names, bounds, dtype, transposed, stacked
) -> Iterator[tuple[tuple[int, ...], np.ndarray]]:
  """Covers a shard with blocks of bounded size: (start in the shard, block)."""
  layers = range(*bounds[0]) if stacked else range(1)
  inner = bounds[1:] if stacked else bounds
  # Blocks run along the axis that is contiguous in the file.
  axis = len(inner) - 1 if transposed else 0
  lengths = [stop - start for start, stop in inner]
  line_bytes = dtype.itemsize * int(np.prod(lengths)) // max(lengths[axis], 1)
  rows = max(1, min(lengths[axis], _PIECE_BYTES // max(line_bytes, 1)))
  together = max(1, _PIECE_BYTES // max(1, line_bytes * rows))
  if rows < lengths[axis]:
    together = 1
  for first in range(0, len(layers), together):
    group = layers[first : first + together]
    for row in range(0, lengths[axis], rows):
      part = list(inner)
      part[axis] = (
        inner[axis][0] + row,
        min(inner[axis][0] + row + rows, inner[axis][1]),
      )
      block = np.empty(
        (len(group), *(stop - start for start, stop in part)), dtype
      )
      stored = [slice(*b) for b in (reversed(part) if transposed else part)]
      for at, layer in enumerate(group):
        value = store.read(names[layer], *stored)
        block[at] = value.T if transposed else value
      start = [0] * len(inner)
      start[axis] = row
      if stacked:
        yield (first, *start), block
      else:
        yield tuple(start), block[0]


def write(
  directory: pathlib.Path,
  tensors: Iterable[tuple[str, int, Callable[[], np.ndarray]]],
  max_shard_bytes: int,
) -> None:
  """Writes tensors into one file, or into several with an index.

  A shard is complete before it gets its name, and the files of an earlier
  export are removed, so no mixture of two models can be read.

  Args:
    tensors: (name, bytes, function that fetches it), fetched shard by shard.
  """
  shards: list[list] = [[]]
  room = max_shard_bytes
  for entry in tensors:
    if shards[-1] and entry[1] > room:
      shards.append([])
      room = max_shard_bytes
    shards[-1].append(entry)
    room -= entry[1]
  n = len(shards)
  files = (
    [SINGLE]
    if n == 1
    else [f'model-{i + 1:05d}-of-{n:05d}.safetensors' for i in range(n)]
  )
  (directory / INDEX).unlink(missing_ok=True)
  for old in directory.glob('model*.safetensors'):
    old.unlink()
  for file, shard in zip(files, shards, strict=True):
    # All processes fetch, and the first one writes.
    fetched = {name: np.ascontiguousarray(fetch()) for name, _, fetch in shard}
    if not processes.is_first():
      continue
    with files_lib.whole(directory / file) as unfinished:
      save_file(unfinished, fetched)
  if n > 1:
    write_json(
      directory / INDEX,
      {
        'metadata': {'total_size': sum(e[1] for s in shards for e in s)},
        'weight_map': {e[0]: f for f, s in zip(files, shards) for e in s},
      },
    )


def save_file(path: pathlib.Path, tensors: Mapping[str, np.ndarray]) -> None:
  """One safetensors file that others may read, as they may its neighbours.

  The library leaves it to its owner alone, and a model is often served by
  another user than the one who trained it.
  """
  path.touch()
  mode = path.stat().st_mode
  safetensors.numpy.save_file(tensors, path, metadata={'format': 'pt'})
  path.chmod(mode)
