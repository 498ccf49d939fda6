r"""Teaches a student what its teacher knows: the whole method, resumable.

  python scripts/distill.py --config=configs/quickstart.py --workdir=RUN

RUN receives config.json, models.json, diagnosis.json, items.jsonl,
curriculum.json, ledger.sqlite, lessons.jsonl, rejected.jsonl, metrics.jsonl,
starts.jsonl, standing.json, tensorboard/, checkpoints/, student/ (a Hugging
Face directory), answers.jsonl, results.json and report.html, which is drawn at
every checkpoint. The same command continues a run that was stopped (SIGTERM
saves first) and says so if it is finished.

--rounds=N repeats it in RUN/round-1, RUN/round-2, ..., each with the student of
the one before, until nothing is deficient: with identifier.target_share=0.25
that is the paper's way, the most severe gaps first.

On several hosts the same command runs on each, with --distributed (TPU pods,
SLURM) or --coordinator=HOST:PORT --num_processes=N --process=I. Process 0 asks
a served teacher and writes; all need the same files and must see --workdir.

--dry_run projects what the teacher is asked and costs, and sends nothing.
Any field can be set: --config.gate.tau_mastery=0.95 --config.seed=1

The exit code is 2 for a mistake of yours, 3 for a student that is not better
than its base, and 130 or 143 for a stop.
"""

from collections import Counter
from collections.abc import Sequence
import pathlib
import sys

from absl import flags

from ioa_jax.runtime import commandline, terminal

FLAGS = flags.FLAGS


def define_flags() -> None:
  commandline.DEFINE_workdir()
  commandline.DEFINE_dry_run()
  flags.DEFINE_integer(
    'rounds',
    1,
    'At most this many rounds of diagnose and teach; '
    'train.total_steps and --dry_run are of one.',
    lower_bound=1,
  )
  commandline.DEFINE_config()
  commandline.DEFINE_processes()


def main(argv: Sequence[str]) -> None:
  del argv
  config = commandline.config()
  # Imported after the flags are checked: bad input answers at once.
  from ioa_jax import pipeline
  from ioa_jax.experiments import rounds
  from ioa_jax.runtime import display as display_lib
  from ioa_jax.runtime import processes, signals

  commandline.join_processes()
  args = FLAGS
  if args.dry_run:
    projected = pipeline.dry_run(config)
    if processes.is_first():
      terminal.say(projected)
    return
  workdir = pathlib.Path(args.workdir)
  with display_lib.Display(quiet=not processes.is_first()) as display:
    if args.rounds > 1:
      found = rounds.run(config, workdir, args.rounds, display)
    else:
      results = pipeline.run(config, workdir, display)
      found = results and [results]
  if not processes.is_first():
    return
  for index, results in enumerate(found or [], 1):
    where = workdir / f'round-{index}' if args.rounds > 1 else workdir
    _show(results, where)
  if found is None:
    sys.exit(signals.exit_code())
  if found[-1].verdict.difference <= 0:
    terminal.say(
      'error: the student is not better than its base; see the report. It is '
      f'in {where / f"student{found[-1].suffix}"}.',
      file=sys.stderr,
    )
    sys.exit(commandline.NOT_BETTER)


def _show(results, workdir):
  stages = [s for s in results.stages if s.kind == 'teach']
  passed = sum(s.outcome == 'mastered' for s in stages)
  student, verdict = results.student, results.verdict
  low, high = verdict.ci95
  terminal.say(
    f'Retention {results.retention:.3f}: student {student.score_before:.3f} '
    f'-> {student.score_after:.3f}, teacher {results.teacher.score:.3f}; '
    f'{passed} of {len(stages)} stages mastered; '
    f'{results.seconds["total"]:.0f} s.\n'
    f'Against its base {verdict.kind}: {verdict.difference:+.3f} ({low:+.3f} '
    f'to {high:+.3f}).'
  )
  steps = results.steps
  if steps.taken < steps.planned:
    terminal.say(
      f'All modules were mastered: ended after {steps.taken} of '
      f'{steps.planned} steps.'
    )
  if steps.exported < steps.taken:
    terminal.say(
      f'Exported are the weights after {steps.exported} steps; those after '
      f'{steps.taken} had lost what these could.'
    )
  if student.truncated_after:
    terminal.say(
      f'{student.truncated_after} of its answers were cut off at '
      'student.max_tokens.'
    )
  if verdict.fallen:
    terminal.say(f'Worse than before in: {", ".join(verdict.fallen)}.')
  if money := results.money:
    sums: Counter[str] = Counter()
    for row in money.lessons:
      sums[row.kind] += row.usd
    parts = [f'{kind} lessons ${usd:,.4f}' for kind, usd in sums.items()]
    terminal.say(
      f'Teacher: ${money.total_usd:,.4f} ('
      + ', '.join([*parts, f'the rest ${money.other_usd:,.4f}'])
      + ').'
    )
  terminal.say(f'Report: {workdir / "report.html"}')
