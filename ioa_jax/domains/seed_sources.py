"""Rows of seeds: from a file, from `datasets`, from `tensorflow-datasets`.

A chat, `messages` as OpenAI has it or `conversations` as ShareGPT has it, is
read as the columns `problem` and `solution`: the first question and its answer.
Later turns hang on earlier ones, and a system message is not asked, so neither
is read.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
import pathlib
from typing import Any

from ioa_jax.runtime import row_files

Rows = list[tuple[str, Mapping[str, Any]]]

# Column of the turns, their keys, and who asks and answers.
CHATS = {
  'messages': ('role', 'content'),
  'conversations': ('from', 'value'),
}
_ASKING = ('user', 'human')
_ANSWERING = ('assistant', 'gpt', 'model')


def read(source: str, seeds: str, split: str, columns: Sequence[str]) -> Rows:
  """Every row, with its place for messages.

  Args:
    source: 'file' (JSON lines, JSON, CSV, each also gzipped, Parquet, or a
      directory that `datasets` saved), 'datasets' or 'tfds'.
    seeds: a path; or a hub id, `OWNER/NAME` or `OWNER/NAME:CONFIG`; or a name
      that TFDS knows. For both libraries a local directory as well.
    split: of a library's dataset; a file has none.
    columns: that every row must have.

  Raises:
    ValueError: as one line, if it cannot be had.
  """
  path = pathlib.Path(seeds)
  if source == 'file' and not path.is_dir() and path.suffix != '.parquet':
    rows = row_files.read(path, ())
    place = seeds
  else:
    load = {'file': _local, 'datasets': _datasets, 'tfds': _tfds}[source]
    place = f'{seeds}[{split}]' if source != 'file' else seeds
    try:
      rows = [
        (f'{place}:{number}', {k: _text(v) for k, v in row.items()})
        for number, row in enumerate(load(seeds, split))
      ]
    except Exception as e:  # Hubs, files and builders fail in many types.
      reason = (str(e).strip() or repr(e)).splitlines()[0][:200]
      raise ValueError(
        f'config.domain.seeds {seeds!r}, split {split!r}: {source} cannot read '
        f'it ({type(e).__name__}: {reason}).'
      ) from None
  if not rows:
    raise ValueError(f'config.domain.seeds {seeds!r}: no rows in {split!r}.')
  rows = [(where, _with_turns(where, row, columns)) for where, row in rows]
  return _checked(rows, columns)


def _checked(rows: Rows, columns: Sequence[str]) -> Rows:
  for where, row in rows:
    for column in columns:
      if column not in row:
        raise ValueError(
          f'{where}: no column {column!r}; there is {sorted(map(str, row))}.'
        )
  return rows


def _local(seeds: str, split: str) -> Iterable[Mapping[str, Any]]:
  path = pathlib.Path(seeds)
  if path.is_dir():
    return _saved(path, split)
  from pyarrow import parquet

  return parquet.read_table(path).to_pylist()


def _saved(path: pathlib.Path, split: str) -> Iterable[Mapping[str, Any]]:
  """What `save_to_disk` wrote: one dataset, or a dictionary of splits."""
  import datasets  # Takes a second.

  saved = datasets.load_from_disk(str(path))
  if not isinstance(saved, datasets.DatasetDict):
    return saved
  if split not in saved:
    raise ValueError(f'no such split; there is {sorted(saved)}')
  return saved[split]


def _datasets(seeds: str, split: str) -> Iterable[Mapping[str, Any]]:
  import datasets  # Takes a second.

  path = pathlib.Path(seeds)
  if any(
    (path / name).is_file() for name in ('state.json', 'dataset_dict.json')
  ):
    return _saved(path, split)
  name, _, config = seeds.partition(':')
  return datasets.load_dataset(name, config or None, split=split)


def _tfds(seeds: str, split: str) -> Iterable[Mapping[str, Any]]:
  """Random access without TensorFlow; needs the array_record format."""
  import tensorflow_datasets as tfds  # Takes seconds.

  if pathlib.Path(seeds).is_dir():
    return tfds.builder_from_directory(seeds).as_data_source(split)
  return tfds.data_source(seeds, split=split)


def _text(value: Any) -> Any:
  return value.decode() if isinstance(value, bytes) else value


def _with_turns(
  where: str, row: Mapping[str, Any], columns: Sequence[str]
) -> Mapping[str, Any]:
  """The row with `problem` and `solution`, if it is a chat that lacks them."""
  if not {'problem', 'solution'} & (set(columns) - set(row)):
    return row
  for column, keys in CHATS.items():
    if column not in row:
      continue
    asked, answered = '', ''
    for speaker, text in _turns(where, column, row[column], *keys):
      if speaker in _ASKING and not asked:
        asked = text
      elif speaker in _ANSWERING and asked:
        answered = text
        break
    if not asked:
      raise ValueError(
        f'{where}: no turn of {column!r} is of the user; wanted a question, '
        f'[{{"{keys[0]}": "{_ASKING[0]}", "{keys[1]}": "..."}}, ...].'
      )
    # A chat of questions alone has no solution.
    answer = {'solution': answered} if answered else {}
    return {**row, 'problem': asked, **answer}
  return row


def _turns(
  where: str, column: str, turns: Any, speaker: str, content: str
) -> Iterator[tuple[str, str]]:
  if not isinstance(turns, Sequence) or not all(
    isinstance(turn, Mapping) for turn in turns
  ):
    raise ValueError(
      f'{where}: column {column!r} must be a list of turns, each with '
      f'{speaker!r} and {content!r}; it is {str(turns)[:60]!r}.'
    )
  for turn in turns:
    text = turn.get(content)
    if isinstance(text, Sequence) and not isinstance(text, str):
      text = '\n'.join(
        part['text']
        for part in text
        if isinstance(part, Mapping) and isinstance(part.get('text'), str)
      )
    yield str(turn.get(speaker)), text if isinstance(text, str) else ''
