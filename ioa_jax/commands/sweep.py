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
import shlex

from absl import flags

from ioa_jax import config as config_lib
from ioa_jax.runtime import commandline, terminal

FLAGS = flags.FLAGS


def _plan(spec: str, cores_per_run: int):
  from ioa_jax.experiments import plans

  try:
    settings = config_lib.call(spec, 'get_sweep')
  except config_lib.ConfigError as e:
    raise ValueError(
      f"{e} It returns a list such as [{{}}, {{'gate.tau_mastery': 0.95}}]."
    ) from None
  runs = {_name(changes): changes for changes in settings}
  if len(runs) < len(settings):
    raise ValueError(f'--config={spec}: get_sweep() names a setting twice.')
  for changes in settings:
    config_lib.load(spec, changes)
  # Settings are chosen on other probes than those that tables are of.
  changes = {'domain.evaluate_on': 'development'}
  return plans.Plan(
    config=spec,
    runs=runs,
    changes={} if config_lib.load(spec).domain.kind == 'text' else changes,
    cores_per_run=cores_per_run,
  )


def _name(changes) -> str:
  """A directory's name: what was changed, or `as_is`."""
  parts = [f'{k}={v}' for k, v in changes.items()]
  return ','.join(parts).replace('/', '_') or 'as_is'


def define_flags() -> None:
  flags.DEFINE_string(
    'config',
    None,
    'The name of a configuration that ships, or a Python file, with '
    'get_sweep() beside its get_config().',
  )
  flags.DEFINE_string('workdir', None, 'Where the runs and the table go.')
  flags.DEFINE_list('seeds', ['0'], 'Seeds, each for every setting.')
  flags.DEFINE_integer('jobs', 1, 'Runs at a time.', lower_bound=1)
  flags.DEFINE_integer(
    'cores_per_run',
    0,
    'CPU cores that a run is held to; 0 holds none.',
    lower_bound=0,
  )
  flags.DEFINE_bool('print', False, 'Print the commands and run nothing.')
  flags.mark_flags_as_required(['config', 'workdir'])


def main(argv: Sequence[str]) -> None:
  del argv
  # Imported after the flags are checked: bad input answers at once.
  from ioa_jax.experiments import comparison_page, plans

  args = FLAGS
  plan = _plan(args.config, args.cores_per_run)
  workdir = pathlib.Path(args.workdir)
  todo = list(plans.jobs(plan, workdir, commandline.seeds(args.seeds)))
  if args.print:
    distill = commandline.spelled('distill')
    for job in todo:
      words = [*job.flags, f'--workdir={job.directory}']
      terminal.say(f'{distill} {shlex.join(words)}')
    return
  command = (
    f'{commandline.spelled("sweep")} --config={args.config} '
    f'--seeds={",".join(args.seeds)}'
  )
  found = plans.compare(
    plan,
    todo,
    workdir,
    title=f'sweep of {pathlib.Path(args.config).stem}',
    command=command,
    at_once=args.jobs,
  )
  terminal.say(comparison_page.markdown(found))
