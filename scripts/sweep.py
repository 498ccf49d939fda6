r"""A sweep: every setting that a configuration's `get_sweep()` names.

  python scripts/sweep.py --config=configs/quickstart.py --workdir=runs/sweep
  python scripts/sweep.py --config=configs/quickstart.py --workdir=/mnt/sweep \
    --print

The first runs them here and writes the table of scripts/experiment.py; the
second prints one command a line, for a cluster to run. A sweep is a list of
changes, dotted field to value; the first is what the others are compared with.
"""

from collections.abc import Sequence
import pathlib
import runpy
import shlex

from absl import flags

from ioa_jax import commandline
from ioa_jax.experiments import comparison, plans

flags.DEFINE_string(
  'config', None, 'A Python file with get_config() and get_sweep().'
)
flags.DEFINE_string('workdir', None, 'Where the runs and the table go.')
flags.DEFINE_list('seeds', ['0'], 'Seeds, each for every setting.')
flags.DEFINE_integer('jobs', 1, 'Runs at a time.', lower_bound=1)
flags.DEFINE_integer(
  'cores_per_run', 0, 'CPU cores that a run is held to; 0 holds none.',
  lower_bound=0,
)  # fmt: skip
flags.DEFINE_bool('print', False, 'Print the commands and run nothing.')
flags.mark_flags_as_required(['config', 'workdir'])


def _plan(path: str, cores_per_run: int) -> plans.Plan:
  file = path.partition(':')[0]
  if not pathlib.Path(file).exists():
    raise ValueError(f'--config={path}: no such file; see configs/.')
  get_sweep = runpy.run_path(file).get('get_sweep')
  if get_sweep is None:
    raise ValueError(
      f'--config={path}: it has no get_sweep(); it returns a list such as '
      "[{}, {'gate.tau_mastery': 0.95}]."
    )
  settings = get_sweep()
  runs = {_name(changes): changes for changes in settings}
  if len(runs) < len(settings):
    raise ValueError(f'--config={path}: get_sweep() names a setting twice.')
  for changes in settings:
    plans.configure(path, changes)
  return plans.Plan(config=path, runs=runs, cores_per_run=cores_per_run)


def _name(changes) -> str:
  """A directory's name: what was changed, or `as_is`."""
  parts = [f'{k}={v}' for k, v in changes.items()]
  return ','.join(parts).replace('/', '_') or 'as_is'


def main(argv: Sequence[str]) -> None:
  del argv
  args = flags.FLAGS
  plan = _plan(args.config, args.cores_per_run)
  workdir = pathlib.Path(args.workdir)
  todo = list(plans.jobs(plan, workdir, commandline.seeds(args.seeds)))
  if args.print:
    for job in todo:
      where = f'--workdir={job.directory}'
      print(shlex.join(['python', 'scripts/distill.py', *job.flags, where]))
    return
  command = (
    f'python scripts/sweep.py --config={args.config} '
    f'--seeds={",".join(args.seeds)}'
  )
  found = plans.compare(
    plan, todo, workdir, title=f'sweep of {pathlib.Path(args.config).stem}',
    command=command, at_once=args.jobs,
  )  # fmt: skip
  print(comparison.markdown(found))


if __name__ == '__main__':
  commandline.run(main)
