"""What a model directory holds, in digests: a run knows its models by them.

A name tells nothing: weights can be replaced between two starts of a run, and
adapters that were trained on one base mean nothing on another.
"""

from __future__ import annotations

from collections.abc import Mapping
import hashlib
import pathlib

from ioa_jax.models import huggingface, orbax_params, weights

_SMALL = (
  'config.json',
  'generation_config.json',
  *huggingface.TOKENIZER_FILES,
)


def digests(directory: str | pathlib.Path) -> dict[str, str]:
  """SHA-256 of the weights, and of each small file that shapes answers.

  Reads every weight once, in pieces: about a second a gigabyte. Another split
  of the same tensors into files is the same.

  Raises:
    ModelError: naming the file that is missing or damaged.
  """
  directory = pathlib.Path(directory)
  if orbax_params.is_alone(directory):
    small = directory / orbax_params.MODEL
    found = {'weights': _of_tree(directory / orbax_params.PARAMS)}
  else:
    small = directory
    found = {'weights': weights.Store(directory).digest()}
  for file in _SMALL:
    if (small / file).is_file():
      found[file] = _of_files([small / file])
  return found


def check_same(
  recorded: Mapping[str, str], directory: str | pathlib.Path
) -> None:
  """Raises ModelError unless `directory` is still what `recorded` is of.

  Args:
    recorded: an earlier `digests`.
  """
  now = digests(directory)
  changed = [
    name
    for name in sorted(recorded.keys() | now.keys())
    if recorded.get(name) != now.get(name)
  ]
  if changed:
    raise weights.ModelError(
      f'{directory}: is not the model that this run began with; changed are '
      f'{", ".join(changed)}. Put it back, or begin anew in another --workdir.'
    )


def _of_tree(root: pathlib.Path) -> str:
  return _of_files(sorted(p for p in root.rglob('*') if p.is_file()), root)


def _of_files(
  paths: list[pathlib.Path], root: pathlib.Path | None = None
) -> str:
  found = hashlib.sha256()
  for path in paths:
    if root is not None:
      found.update(
        f'{path.relative_to(root)}\n{path.stat().st_size}\n'.encode()
      )
    with open(path, 'rb') as file:
      while block := file.read(2**20):
        found.update(block)
  return found.hexdigest()
