"""Everything needed to continue, kept by Orbax."""

from __future__ import annotations

from collections.abc import Callable, Mapping
import pathlib
from typing import Any

import jax
import orbax.checkpoint as ocp

from ioa_jax.training import step as step_lib


class CheckpointError(ValueError):
  """No checkpoint of the run can be read."""


class Checkpoints:
  """The checkpoint directory of one run, held open.

  A checkpoint is the train state (weights, moments, average, gate, data
  position), the curriculum on the device, and a small JSON dictionary that the
  pipeline needs (how many lessons it holds). Saving does not wait for the disk.
  """

  def __init__(self, directory: pathlib.Path, *, keep: int):
    self._directory = directory
    self._manager = ocp.CheckpointManager(
      directory.absolute(),
      options=ocp.CheckpointManagerOptions(max_to_keep=keep, create=True),
      item_names=('state', 'curriculum', 'progress'),
    )

  def save(
    self,
    state: step_lib.TrainState,
    inputs: step_lib.Inputs,
    progress: Mapping[str, Any],
  ) -> None:
    """Starts a save of this step; a step is saved once."""
    step = int(state.step)
    if step in self._manager.all_steps():
      self._manager.wait_until_finished()
      self._manager.delete(step)
    self._manager.save(
      step,
      args=ocp.args.Composite(
        state=ocp.args.StandardSave(state),
        curriculum=ocp.args.StandardSave(inputs.curriculum),
        progress=ocp.args.JsonSave(dict(progress)),
      ),
    )

  def restore(
    self,
    state: step_lib.TrainState,
    inputs: step_lib.Inputs,
    say: Callable[[str], None],
  ) -> tuple[step_lib.TrainState, step_lib.Inputs, dict[str, Any]] | None:
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
        restored = self._manager.restore(
          step,
          args=ocp.args.Composite(
            state=ocp.args.StandardRestore(_abstract(state)),
            curriculum=ocp.args.StandardRestore(_abstract(inputs.curriculum)),
            progress=ocp.args.JsonRestore(),
          ),
        )
      except Exception as e:  # Orbax has no common type for damaged files.
        say(
          f'Checkpoint {step} is damaged ({str(e).splitlines()[0][:120]}); '
          'falling back to the one before it.'
        )
        continue
      for later in steps[: steps.index(step)]:
        self._manager.delete(later)
      inputs = inputs.replace(curriculum=restored['curriculum'])
      return restored['state'], inputs, restored['progress']
    if steps:
      raise CheckpointError(
        f'{self._directory}: none of the checkpoints {steps} can be read. '
        'Delete the directory to train again from the stored lessons.'
      )
    return None

  def close(self) -> None:
    self._manager.wait_until_finished()
    self._manager.close()


def _abstract(tree):
  return jax.tree.map(ocp.utils.to_shape_dtype_struct, tree)
