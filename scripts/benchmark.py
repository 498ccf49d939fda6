r"""Measures this project beside transformers and torch, on this machine.

  pip install -e '.[test]'
  python scripts/benchmark.py train --shape=27m --peer=torch
  python scripts/benchmark.py train --shape=27m --peer=tunix
  python scripts/benchmark.py train --lessons=train.jsonl --model=DIR
  python scripts/benchmark.py gate
  python scripts/benchmark.py sample --shape=27m --peer=torch
  python scripts/benchmark.py sample --model=DIR --peer=torch
  python scripts/benchmark.py accelerator --minutes=9 --output_dir=OUT

One JSON object a line. Each side has a process of its own, for its memory, and
they take turns, so that a busy machine slows both. (`sample` has one process.)
With --lessons, rows are not full of text but of lessons as long as those, which
this project packs and transformers pads to the longest of a batch.

`accelerator` proves a device: correctness, training, sampling, the gate and
whole runs, beside torch where it is installed. Each part writes OUT/PART.json
at once, and summary.md there is all of it. On CPU its shapes are tiny. The exit
code is 1 if anything went wrong.
"""

from collections.abc import Sequence
import json
import pathlib
import sys

from absl import flags

from ioa_jax.runtime import commandline

POSITIONAL = 'train, gate, sample or accelerator'
_WORDS = ('train', 'gate', 'sample', 'accelerator')

_SHAPE = flags.DEFINE_enum(
  'shape', '27m', ['27m', 'quickstart'], 'Of the model and its batch.'
)
_PEER = flags.DEFINE_enum(
  'peer',
  'torch',
  ['torch', 'tunix', 'none'],
  'What to measure beside this project; tunix (google-tunix) has `train`.',
)
_ROUNDS = flags.DEFINE_integer(
  'rounds', 5, 'Turns of each side; the median counts.', lower_bound=1
)

_MODEL = flags.DEFINE_string(
  'model',
  None,
  'A Hugging Face directory: real weights for `sample`; the '
  'tokenizer that counts --lessons.',
)
_LESSONS = flags.DEFINE_string(
  'lessons',
  None,
  'JSON lines of {question, answer}, as GSM8K has: `train` on '
  'lessons of these lengths.',
)
_SLOTS = flags.DEFINE_integer(
  'slots', 16, 'Texts that `sample` writes at once.', lower_bound=1
)
_MINUTES = flags.DEFINE_float(
  'minutes', 9.0, 'All that `accelerator` may take.', lower_bound=1.0
)
_OUTPUT_DIR = flags.DEFINE_string(
  'output_dir', None, 'Where `accelerator` writes what it finds.'
)


def main(argv: Sequence[str]) -> None:
  if len(argv) != 2 or argv[1] not in _WORDS:
    raise ValueError(f'wanted {POSITIONAL}, got {argv[1:]}.')
  if _LESSONS.value and argv[1] != 'train':
    raise ValueError('--lessons is for train.')
  if argv[1] == 'accelerator':
    _accelerator()
    return
  # Imported where they are used: some need torch.
  if argv[1] == 'train':
    found = _train()
  elif argv[1] == 'gate':
    from benchmarks import gate

    found = gate.measure(_ROUNDS.value)
  else:
    found = _sample()
  print(json.dumps(found))


def _accelerator() -> None:
  if not _OUTPUT_DIR.value:
    raise ValueError('accelerator writes files; add --output_dir=OUT.')
  from benchmarks import accelerator

  say = lambda text: print(text, flush=True)
  directory = pathlib.Path(_OUTPUT_DIR.value)
  wrong = accelerator.measure(_MINUTES.value, directory, say)
  print((directory / 'summary.md').read_text(encoding='utf-8'))
  if wrong:
    sys.exit(1)


def _train() -> dict:
  from benchmarks import train

  lengths = ()
  if _LESSONS.value:
    lengths = train.lesson_lengths(_LESSONS.value, _MODEL.value)
  return train.measure(_SHAPE.value, _PEER.value, _ROUNDS.value, lengths)


def _sample() -> dict:
  from benchmarks import sample

  if _PEER.value == 'tunix':
    raise ValueError('tunix has train only.')
  if _MODEL.value is None and _SHAPE.value != '27m':
    raise ValueError('sample has --shape=27m, or real weights by --model.')
  return sample.measure(
    directory=_MODEL.value,
    slots=_SLOTS.value,
    rounds=_ROUNDS.value,
    peer=_PEER.value == 'torch',
  )


if __name__ == '__main__':
  commandline.run(main)
