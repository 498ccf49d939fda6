r"""GSM8K as seeds of a text domain: tagged, with a taxonomy.

  python scripts/gsm8k_seeds.py --input=train.jsonl --output_dir=data/gsm8k

The unit of a problem is how many calculations its worked answer takes (GSM8K
marks each as `<<48/2=24>>`); more calculations stand on fewer. Writes
seeds.jsonl and taxonomy.yaml, the two files that a domain of your own needs.
"""

from collections import Counter
from collections.abc import Sequence
import json
import pathlib
import re

from absl import flags

from ioa_jax.runtime import terminal

# Name, most calculations, description; each unit stands on the one before it.
UNITS = (
  ('word_problems/two_steps', 2, 'word problems of one or two calculations'),
  ('word_problems/four_steps', 4, 'word problems of three or four'),
  ('word_problems/many_steps', 99, 'word problems of five and more'),
)
_MARK = re.compile(r'<<.*?>>')

FLAGS = flags.FLAGS


def unit(answer: str) -> str | None:
  """The unit of a worked answer; None if it marks no calculation."""
  count = len(_MARK.findall(answer))
  return next((name for name, most, _ in UNITS if 0 < count <= most), None)


def define_flags() -> None:
  flags.DEFINE_string('input', None, "GSM8K's train.jsonl, or train.jsonl.gz.")
  flags.DEFINE_string('output_dir', None, 'Made if absent.')
  flags.mark_flags_as_required(['input', 'output_dir'])


def main(argv: Sequence[str]) -> None:
  del argv
  from ioa_jax.domains import taxonomy
  from ioa_jax.runtime import files, row_files

  source, output = (
    pathlib.Path(FLAGS.input),
    pathlib.Path(FLAGS.output_dir),
  )
  counts: Counter[str] = Counter()
  lines = []
  for where, row in row_files.read(source, ('question', 'answer')):
    answer = row_files.text_field(where, row, 'answer')
    name = unit(answer)
    if name is None:
      counts['left out: no calculation is marked'] += 1
      continue
    counts[name] += 1
    lines.append(
      json.dumps(
        {
          'module': name,
          'problem': row_files.text_field(where, row, 'question'),
          'solution': _MARK.sub('', answer),
        },
        ensure_ascii=False,
      )
    )
  if not lines:
    raise ValueError(f'{source}: no answer marks its calculations as <<...>>.')
  output.mkdir(parents=True, exist_ok=True)
  files.write_text(output / 'seeds.jsonl', '\n'.join(lines) + '\n')
  before = ((), *((name,) for name, _, _ in UNITS))
  units = {
    name: (description, needs)
    for (name, _, description), needs in zip(UNITS, before)
  }
  taxonomy.write(output / 'taxonomy.yaml', taxonomy.order(units))
  for name, count in sorted(counts.items()):
    terminal.say(f'{count:6} {name}')
  terminal.say(
    f'Wrote {output / "seeds.jsonl"} and {output / "taxonomy.yaml"}.'
  )
