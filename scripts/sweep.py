r"""A sweep: every setting that a configuration's `get_sweep()` names.

  python scripts/sweep.py --config=configs/quickstart.py --workdir=runs/sweep
  python scripts/sweep.py --config=configs/quickstart.py --print \
    --workdir=gs://BUCKET/sweep

The first runs them here and writes the table of scripts/experiment.py; the
second prints one command a line, for a cluster to run. A sweep is a list of
changes, dotted field to value; the first is what the others are compared with.
"""

from collections.abc import Sequence
import pathlib
import runpy
import shlex

from absl import flags

from ioa_jax import commandline, plans
from ioa_jax.report import comparison

flags.DEFINE_string(
  'config', None, 'A Python file with get_config() and get_sweep().'
)
flags.DEFINE_string('workdir', None, 'Where the runs and the table go.')
flags.DEFINE_list('seeds', ['0'], 'Seeds, each for every setting.')
flags.DEFINE_integer('jobs', 1, 'Runs at a time.', lower_bound=1)
flags.DEFINE_bool('print', False, 'Print the commands and run nothing.')
flags.mark_flags_as_required(['config', 'workdir'])


def _plan(path: str) -> plans.Plan:
  get_sweep = runpy.run_path(path).get('get_sweep')
  if get_sweep is None:
    raise ValueError(
      f'--config={path}: it has no get_sweep(); it returns a list such as '
      "[{}, {'gate.tau_mastery': 0.95}]."
    )
  runs = {_name(changes): changes for changes in get_sweep()}
  for changes in runs.values():
    plans.check(path, changes)
  return plans.Plan(config=path, runs=runs)


def _name(changes) -> str:
  """A directory's name: what was changed, or `as_is`."""
  parts = [f'{k.rpartition(".")[2]}={v}' for k, v in changes.items()]
  return ','.join(parts).replace('/', '_') or 'as_is'


def main(argv: Sequence[str]) -> None:
  del argv
  args = flags.FLAGS
  plan = _plan(args.config)
  workdir = pathlib.Path(args.workdir)
  todo = list(plans.jobs(plan, workdir, [int(s) for s in args.seeds]))
  if args.print:
    for job in todo:
      # pathlib would make one slash of a bucket's two.
      where = f'--workdir={args.workdir.rstrip("/")}/{job.directory.name}'
      command = ['python', 'scripts/distill.py', *job.flags, where]
      print(shlex.join(command))
    return
  plans.execute(
    todo, workdir, at_once=args.jobs, cores_per_run=plan.cores_per_run,
    say=lambda line: print(line, flush=True),
  )  # fmt: skip
  command = f'python scripts/sweep.py --config={args.config}'
  found = comparison.write(
    workdir, [(j.name, j.seed, j.directory) for j in todo],
    title=f'sweep of {pathlib.Path(args.config).stem}', says='', untried=(),
    groups={}, provenance=plans.provenance(command),
  )  # fmt: skip
  print(comparison.markdown(found))


if __name__ == '__main__':
  commandline.run(main)
