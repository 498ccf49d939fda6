r"""What a run paid its teacher for: lists, sums, exports, drops.

  python scripts/ledger.py RUN                        # sums
  python scripts/ledger.py RUN --list                 # one line per answer
  python scripts/ledger.py RUN --list --outcome=empty
  python scripts/ledger.py RUN --export=answers.jsonl # '-' is standard output
  python scripts/ledger.py RUN --drop --key=3fa9      # keys beginning with it
  python scripts/ledger.py RUN --begin_new            # after a damaged ledger
  python scripts/ledger.py RUN --repair               # after a damaged answer
  python scripts/ledger.py RUN --give_up_batches      # see below

RUN is a run directory or a ledger file. --key, --outcome and --model choose
entries for --list, --export and --drop alike. What is dropped is asked and paid
for again by the next start of the run; what it cost stays in the sums. Stop the
run before dropping.

--give_up_batches forgets batches that a server has and that cannot be waited
for any more. What they may cost stays in the sums, and what is needed of them
is asked and paid for again.
"""

from collections import Counter
from collections.abc import Sequence
import json
import pathlib

from absl import flags

from ioa_jax.runtime import terminal
from ioa_jax.teachers import ledger as ledger_lib
from ioa_jax.teachers.batch_book import Batch
from ioa_jax.teachers.requests import Budget

FLAGS = flags.FLAGS
POSITIONAL = 'one run directory'


def define_flags() -> None:
  flags.DEFINE_bool('list', False, 'One line per chosen answer.')
  flags.DEFINE_string(
    'export', None, 'Writes the chosen answers as JSON lines; - is stdout.'
  )
  flags.DEFINE_bool(
    'drop', False, 'Forgets the chosen answers and prints each; asks nothing.'
  )
  flags.DEFINE_string('key', '', 'Chooses keys that begin with this.')
  flags.DEFINE_string(
    'outcome', None, 'Chooses a finish reason: stop, length, empty, schema ...'
  )
  flags.DEFINE_string('model', None, "Chooses one model's answers.")
  flags.DEFINE_bool(
    'begin_new', False, 'Begins a new ledger where the old one is damaged.'
  )
  flags.DEFINE_bool(
    'repair',
    False,
    'Sets damaged answers aside, which are then paid for again.',
  )
  flags.DEFINE_bool(
    'give_up_batches',
    False,
    'Forgets batches under way; what is needed of them is paid for again.',
  )


def main(argv: Sequence[str]) -> None:
  if len(argv) != 2:
    raise ValueError(f'wanted one run directory, got {argv[1:]}; see --help.')
  path = pathlib.Path(argv[1])
  if path.is_dir():
    path /= 'ledger.sqlite'
  if not FLAGS.begin_new and not path.exists():
    # A name that was set aside has more to say than that.
    if not list(path.parent.glob(f'{path.stem}.corrupt-*')):
      raise ValueError(f'{path} does not exist; is {argv[1]} a run directory?')
  if not path.parent.is_dir():
    raise ValueError(f'{path.parent} is not a directory.')
  ledger = ledger_lib.Ledger(path, begin_new=FLAGS.begin_new)
  try:
    _act(ledger)
  finally:
    ledger.close()


def _act(ledger: ledger_lib.Ledger) -> None:
  if FLAGS.repair:
    keys = ledger.repair()
    for key in keys:
      terminal.say(f'set aside {key[:12]!r}')
    terminal.say(
      f'{len(keys)} damaged answers set aside, in the table "damaged".'
    )
    return
  if FLAGS.give_up_batches:
    with ledger.claimed():
      batches = ledger.batches(Budget())
      for name in batches.names():
        batches.close(name)
        terminal.say(f'given up: {name}')
    return
  chosen = (
    e
    for e in ledger.entries(FLAGS.key)
    if FLAGS.outcome in (None, e['finish_reason'])
    and FLAGS.model in (None, e['request']['model'])
  )
  if FLAGS.drop:
    if not (FLAGS.key or FLAGS.outcome or FLAGS.model):
      raise ValueError(
        '--drop needs --key, --outcome or --model to choose what to drop.'
      )
    entries = list(chosen)
    ledger.drop([e['key'] for e in entries])
    for entry in entries:
      terminal.say(f'dropped {_line(entry)}')
    terminal.say(f'{len(entries)} dropped.')
  elif FLAGS.export == '-':
    for entry in chosen:
      terminal.say(json.dumps(entry, ensure_ascii=False))
  elif FLAGS.export:
    count = 0
    with open(FLAGS.export, 'w', encoding='utf-8') as file:
      for entry in chosen:
        file.write(json.dumps(entry, ensure_ascii=False) + '\n')
        count += 1
    terminal.say(f'{count} answers written to {FLAGS.export}.')
  elif FLAGS.list:
    for entry in chosen:
      terminal.say(_line(entry))
  else:
    _print_sums(ledger, chosen)


def _batch_line(batch: Batch) -> str:
  known = batch.batch_id or 'not known to have begun'
  return (
    f'{batch.name} on {batch.server} ({known}), {len(batch.lines)} of '
    f'{batch.size} requests open'
  )


def _line(entry) -> str:
  prompt = json.dumps(entry['request']['prompt'], ensure_ascii=False)
  shown = prompt if len(prompt) <= 50 else prompt[:47] + '..."'
  return (
    f'{entry["key"][:12]} {entry["request"]["model"]} '
    f'{entry["finish_reason"]} {entry["prompt_tokens"]}+'
    f'{entry["completion_tokens"]} tokens ${entry["price_usd"]:.6f} {shown}'
  )


def _print_sums(ledger, chosen) -> None:
  outcomes = Counter(
    (e['request']['model'], e['finish_reason']) for e in chosen
  )
  for (model, outcome), count in sorted(outcomes.items()):
    terminal.say(f'{model}: {count} answers, {outcome}')
  for batch in ledger.batches(Budget()).under_way():
    terminal.say(f'under way: {_batch_line(batch)}')
  totals = ledger.totals()
  terminal.say(_sum_line('paid', totals))
  if totals['unsettled']['calls']:
    terminal.say(
      _sum_line(
        'perhaps paid (no answer arrived), at most', totals['unsettled']
      )
    )


def _sum_line(name, sums) -> str:
  return (
    f'{name}: {sums["calls"]} calls, {sums["prompt_tokens"]} prompt and '
    f'{sums["completion_tokens"]} completion tokens, ${sums["price_usd"]:.4f}'
  )
