r"""Has the teacher cut a domain into modules, and sort seeds into them.

  python scripts/map_seeds.py --config=configs/smollm2_135m.py \
    --config.domain.seeds=problems.jsonl --config.domain.columns.module='' \
    --config.teacher.model=NAME --output_dir=data/mine

Writes taxonomy.yaml and seeds.jsonl, the two files that a domain needs, and
left_out.jsonl, the seeds that fit no unit or two. Read and correct them; then
name them in domain.taxonomy and domain.seeds, or give them to init_domain.py,
which counts what a gate can measure. Every answer is in
OUTPUT_DIR/ledger.sqlite, so a second start asks only for what is missing.
"""

from collections import Counter
from collections.abc import Sequence
import json
import pathlib

from absl import flags

from ioa_jax.runtime import commandline, files, row_files, terminal

FLAGS = flags.FLAGS

_EXAMPLES = 20  # Exercises that the teacher is shown before it proposes.
_ATTEMPTS = 3


def define_flags() -> None:
  flags.DEFINE_string('output_dir', None, 'Made if absent.')
  flags.DEFINE_integer('min_units', 25, 'Fewest units.', lower_bound=1)
  flags.DEFINE_integer('max_units', 35, 'Most units.', lower_bound=1)
  commandline.DEFINE_config()
  flags.mark_flags_as_required(['output_dir'])


def main(argv: Sequence[str]) -> None:
  del argv
  config = commandline.config()
  # Imported after the flags are checked: bad input answers at once.
  from ioa_jax import people
  from ioa_jax import subject as subject_lib
  from ioa_jax.domains import taxonomy
  from ioa_jax.identifier import decomposition
  from ioa_jax.runtime import display as display_lib
  from ioa_jax.runtime import sharding
  from ioa_jax.teachers.client import Client
  from ioa_jax.teachers.ledger import Ledger

  columns = {k: v for k, v in config.domain.columns.items() if k != 'module'}
  rows = subject_lib.seed_rows(config)
  problems = [
    row_files.text_field(where, row, columns['problem']) for where, row in rows
  ]
  teacher, _, _, budget, price = people.open_teacher(
    config, sharding.make_mesh(**config.mesh)
  )
  output = pathlib.Path(FLAGS.output_dir)
  output.mkdir(parents=True, exist_ok=True)
  client = Client(
    teacher,
    Ledger(output / 'ledger.sqlite'),
    budget,
    price=price,
    recording=people.recording(config),
  )
  asking = decomposition.Asking(
    teacher.name,
    config.teacher.max_tokens,
    config.teacher.temperature,
    config.teacher.reasoning_effort,
  )
  with display_lib.Display() as display:

    def ask(requests, response_model, phase):
      display.update(phase=phase, done=0, total=len(requests))
      return client.ask(
        requests,
        response_model,
        lambda done, total: display.update(done=done, total=total),
        on_wait=lambda line: display.update(batches=line),
      )

    modules = _units(
      decomposition, ask, asking, config.domain.description, problems
    )
    display.say(f'{len(modules)} units.')
    votes = ask(
      [
        decomposition.sort(asking, modules, p, s)
        for p in problems
        for s in (0, 1)
      ],
      decomposition.Choice,
      'sorting the seeds',
    )
  counts: Counter[str] = Counter()
  lines: dict[str, list[str]] = {'seeds.jsonl': [], 'left_out.jsonl': []}
  for index, (_, row) in enumerate(rows):
    unit = decomposition.agreed(votes[2 * index : 2 * index + 2], modules)
    counts[unit or 'left out: no unit, or two'] += 1
    values = {
      name: row.get(column) for name, column in columns.items() if column
    }
    tagged = {'module': unit, **values} if unit else values
    name = 'seeds.jsonl' if unit else 'left_out.jsonl'
    lines[name].append(json.dumps(tagged, ensure_ascii=False))
  for name, found in lines.items():
    files.write_text(output / name, ''.join(x + '\n' for x in found))
  taxonomy.write(output / 'taxonomy.yaml', modules)
  for name, count in counts.most_common():
    terminal.say(f'{count:6} {name}')
  terminal.say(
    f'Wrote {output / "seeds.jsonl"} and {output / "taxonomy.yaml"}.'
  )


def _units(decomposition, ask, asking, description, problems):
  """The first proposal that holds; every one is paid for once."""
  limits = FLAGS.min_units, FLAGS.max_units
  step = max(1, len(problems) // _EXAMPLES)
  for attempt in range(_ATTEMPTS):
    request = decomposition.propose(
      asking, description, problems[::step][:_EXAMPLES], attempt, limits
    )
    (answer,) = ask([request], decomposition.Proposal, 'proposing units')
    try:
      return decomposition.read_units(answer, limits)
    except decomposition.BadProposal as e:
      reason = e
  raise ValueError(
    f'the teacher proposed no usable units in {_ATTEMPTS} attempts; the last: '
    f'{reason}. Ask another teacher, or write a taxonomy by hand.'
  )
