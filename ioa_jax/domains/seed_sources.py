"""Rows of seeds: from a file, from `datasets`, from `tensorflow-datasets`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
import pathlib
from typing import Any

from ioa_jax.evaluation import benchmark_files

Rows = list[tuple[str, Mapping[str, Any]]]


def read(source: str, seeds: str, split: str, columns: Sequence[str]) -> Rows:
  """Every row, with its place for messages.

  Args:
    source: 'file' (JSON lines, JSON, CSV, each also gzipped), 'datasets' or
      'tfds'.
    seeds: a path; or a hub id, `OWNER/NAME` or `OWNER/NAME:CONFIG`; or a name
      that TFDS knows. For both libraries a local directory as well.
    split: of a library's dataset; a file has none.
    columns: that a file must have.

  Raises:
    ValueError: as one line, if it cannot be had.
  """
  if source == 'file':
    return benchmark_files.read(pathlib.Path(seeds), columns)
  load = {'datasets': _datasets, 'tfds': _tfds}[source]
  try:
    rows = load(seeds, split)
    found = [
      (f'{seeds}[{split}]:{number}', {k: _text(v) for k, v in row.items()})
      for number, row in enumerate(rows)
    ]
  except Exception as e:  # Hubs, files and builders fail in many types.
    reason = (str(e).strip() or repr(e)).splitlines()[0][:200]
    raise ValueError(
      f'config.domain.seeds {seeds!r}, split {split!r}: {source} cannot read '
      f'it ({type(e).__name__}: {reason}).'
    ) from None
  if not found:
    raise ValueError(f'config.domain.seeds {seeds!r}: no rows in {split!r}.')
  return found


def _datasets(seeds: str, split: str):
  import datasets  # Takes a second.

  name, _, config = seeds.partition(':')
  return datasets.load_dataset(name, config or None, split=split)


def _tfds(seeds: str, split: str):
  """Random access without TensorFlow; needs the array_record format."""
  import tensorflow_datasets as tfds  # Takes seconds.

  if pathlib.Path(seeds).is_dir():
    return tfds.builder_from_directory(seeds).as_data_source(split)
  return tfds.data_source(seeds, split=split)


def _text(value: Any) -> Any:
  return value.decode() if isinstance(value, bytes) else value
