r"""Methods, ablations or settings times seeds, at equal student tokens.

  python scripts/experiment.py --plan=configs/experiments/quickstart.py \
    --workdir=runs/compare

Each run has its own directory and process; a finished one is not run again, and
the same command continues. Writes table.md, table.json and comparison.html, as
soon as one seed is whole and again after each. --jobs runs several at a time.
"""

from collections.abc import Sequence
import pathlib

from absl import flags

from ioa_jax.runtime import commandline, terminal

FLAGS = flags.FLAGS


def define_flags() -> None:
  flags.DEFINE_string(
    'plan',
    None,
    'The name of a plan that ships, or a Python file with get_plan().',
  )
  flags.DEFINE_string('workdir', None, 'Where the runs and the table go.')
  flags.DEFINE_list('seeds', None, "Instead of the plan's.")
  flags.DEFINE_list(
    'runs', None, 'Of the plan; default all. The first is needed.'
  )
  flags.DEFINE_integer('jobs', 1, 'Runs at a time.', lower_bound=1)
  flags.mark_flags_as_required(['plan', 'workdir'])


def main(argv: Sequence[str]) -> None:
  del argv
  # Imported after the flags are checked: bad input answers at once.
  from ioa_jax.experiments import comparison_page, plans

  args = FLAGS
  plan, workdir = plans.load(args.plan), pathlib.Path(args.workdir)
  seeds = commandline.seeds(args.seeds) if args.seeds else list(plan.seeds)
  names = args.runs or list(plan.runs)
  if unknown := [n for n in names if n not in plan.runs]:
    raise ValueError(f'--runs: {unknown} unknown; of {list(plan.runs)}.')
  first = next(iter(plan.runs))
  if first not in names:
    raise ValueError(
      f'--runs: {first} is what others are compared with; add it.'
    )
  command = f'{commandline.spelled("experiment")} --plan={args.plan}'
  if args.seeds:
    command += f' --seeds={",".join(args.seeds)}'
  if args.runs:
    command += f' --runs={",".join(args.runs)}'
  jobs = [j for j in plans.jobs(plan, workdir, seeds) if j.name in names]
  for count in range(1, len(seeds) + 1):
    found = plans.compare(
      plan,
      [j for j in jobs if j.seed in seeds[:count]],
      workdir,
      title=pathlib.Path(args.plan).stem,
      command=command,
      at_once=args.jobs,
    )
  terminal.say(comparison_page.markdown(found))
