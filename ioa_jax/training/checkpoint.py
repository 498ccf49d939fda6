"""Everything needed to continue, kept by Orbax."""

from __future__ import annotations

from collections.abc import Callable
import contextlib
import functools
import hashlib
import os

from etils import epath
import jax
import jax.numpy as jnp
import orbax.checkpoint as ocp

from ioa_jax.records import Progress
from ioa_jax.runtime import processes
from ioa_jax.training import step as step_lib


class CheckpointError(ValueError):
  """No checkpoint of the run can be read."""


class Checkpoints:
  """The checkpoint directory of one run, held open.

  A checkpoint is the train state (weights, moments, average, gate, data
  position), the curriculum on the device, and what the host must know
  (`Progress`). Saving does not wait for the disk.
  """

  def __init__(self, directory: str | os.PathLike[str], *, keep: int):
    self._directory = place = epath.Path(directory)
    if not place.is_absolute():
      place = place.absolute()  # A bucket's has no other.
    _require_writable(place)
    self._manager = ocp.CheckpointManager(
      place,
      options=ocp.CheckpointManagerOptions(max_to_keep=keep, create=True),
      item_names=('state', 'curriculum', 'progress'),
    )

  def save(
    self,
    state: step_lib.TrainState,
    inputs: step_lib.Inputs,
    progress: Progress,
  ) -> None:
    """Starts a save of this step; a step is saved once."""
    step, text = int(state.step), progress.to_json()
    args = ocp.args.Composite(
      state=ocp.args.StandardSave(state),
      curriculum=ocp.args.StandardSave(inputs.curriculum),
      progress=ocp.args.JsonSave(
        {
          'fingerprint': int(_fingerprint((state, inputs.curriculum))),
          'progress': text,
          'progress_sha256': _sha256(text),
        }
      ),
    )
    with self._one_line():
      if step in self._manager.all_steps():
        self._manager.wait_until_finished()
        self._manager.delete(step)
      self._manager.save(step, args=args)

  @contextlib.contextmanager
  def _one_line(self):
    """What goes wrong on the disk, without Orbax's trace before it."""
    try:
      yield
    except Exception as e:  # Orbax has no common type.
      reason = ' '.join(str(e).split())[:200] or repr(e)
      raise CheckpointError(
        f'{self._directory}: a checkpoint could not be written ({reason}). '
        'Earlier ones are kept. Mend it (is the disk full?) and start the same '
        'command again.'
      ) from None

  def restore(
    self,
    state: step_lib.TrainState,
    inputs: step_lib.Inputs,
    say: Callable[[str], None],
  ) -> tuple[step_lib.TrainState, step_lib.Inputs, Progress] | None:
    """The newest readable checkpoint, or None if the run has none.

    Args:
      state, inputs: of the same shapes and shardings as what was saved.
      say: told about each checkpoint that cannot be read; those are deleted
        only once an older one could be.

    Raises:
      CheckpointError: if there are checkpoints and none is readable.
    """
    steps = sorted(self._manager.all_steps(), reverse=True)
    for step in steps:
      try:
        restored = processes.in_all(
          functools.partial(self._read, step, state, inputs)
        )
        _check(restored)
      except ValueError as e:
        say(
          f'Checkpoint {step} is damaged ({str(e).splitlines()[0][:120]}); '
          'falling back to the one before it.'
        )
        continue
      for later in steps[: steps.index(step)]:
        self._manager.delete(later)
      inputs = inputs.replace(curriculum=restored['curriculum'])
      progress = Progress.from_json(
        restored['progress']['progress'], f'{self._directory}, step {step}'
      )
      return restored['state'], inputs, progress
    if steps:
      raise CheckpointError(
        f'{self._directory}: none of the checkpoints {steps} can be read. '
        'Delete the directory to train again from the stored lessons.'
      )
    return None

  def _read(self, step, state, inputs):
    try:
      return self._manager.restore(
        step,
        args=ocp.args.Composite(
          state=ocp.args.StandardRestore(_abstract(state)),
          curriculum=ocp.args.StandardRestore(_abstract(inputs.curriculum)),
          progress=ocp.args.JsonRestore(),
        ),
      )
    except Exception as e:  # Orbax has no common type for damaged files.
      raise CheckpointError(str(e) or repr(e)) from e

  def close(self) -> None:
    """Waits for what is being written."""
    with self._one_line():
      self._manager.wait_until_finished()
      self._manager.close()


def _check(restored) -> None:
  arrays = restored['state'], restored['curriculum']
  kept = restored['progress']
  whole = set(kept) == {'fingerprint', 'progress', 'progress_sha256'}
  if not whole or _sha256(str(kept['progress'])) != kept['progress_sha256']:
    raise CheckpointError('its progress is not what was saved')
  if int(_fingerprint(arrays)) != kept['fingerprint']:
    raise CheckpointError('its values are not those that were saved')


def _sha256(text: str) -> str:
  return hashlib.sha256(text.encode()).hexdigest()


def _require_writable(directory: epath.Path) -> None:
  """Orbax would wait for ever in a thread of its own."""
  try:
    directory.mkdir(parents=True, exist_ok=True)
    probe = directory / '.writable'
    probe.touch()
    probe.unlink()
  except OSError as e:
    raise CheckpointError(
      f'{directory} cannot be written ({e.strerror}); it is the directory of '
      'the checkpoints. Move away what is there, or mend its permissions.'
    ) from None


def _abstract(tree):
  return jax.tree.map(ocp.utils.to_shape_dtype_struct, tree)


@jax.jit
def _fingerprint(tree) -> jax.Array:
  """A checksum of every value, since the files carry none.

  Bits are mixed with their place (a bijection, so no single flip is lost) and
  added modulo 2**32: the same on any number of devices, and nothing is
  gathered.
  """
  total = jnp.uint32(0)
  for index, leaf in enumerate(jax.tree.leaves(tree)):
    place = jnp.uint32(0)
    for axis, size in enumerate(leaf.shape):
      along = jax.lax.broadcasted_iota(jnp.uint32, leaf.shape, axis)
      place = place * jnp.uint32(size) + along
    x = _bits(leaf) ^ (place * jnp.uint32(0x9E3779B1) + jnp.uint32(index))
    x = (x ^ (x >> 16)) * jnp.uint32(0x85EBCA6B)
    x = (x ^ (x >> 13)) * jnp.uint32(0xC2B2AE35)
    total += jnp.sum(x ^ (x >> 16), dtype=jnp.uint32)
  return total


def _bits(x) -> jax.Array:
  if x.dtype == bool:
    return x.astype(jnp.uint32)
  width = x.dtype.itemsize * 8
  bits = jax.lax.bitcast_convert_type(x, jnp.dtype(f'uint{width}'))
  return bits.astype(jnp.uint32)
