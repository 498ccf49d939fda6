r"""Methods times seeds at equal student tokens, as one table.

  python scripts/experiment.py --config=configs/quickstart.py \
    --workdir=runs/compare --methods=ioa,uniform_steps --seeds=0,1,2

Each run has its own directory and process, and one that is finished is not run
again. Any --config field applies to all. Writes table.md and table.json.
"""

from collections.abc import Sequence
import json
import pathlib
import subprocess
import sys

from absl import flags
import numpy as np

from ioa_jax import commandline
from ioa_jax.baselines.methods import METHODS

flags.DEFINE_string('workdir', None, 'Where the runs and the table go.')
flags.DEFINE_list('methods', list(METHODS), 'Of baselines/methods.py.')
flags.DEFINE_list('seeds', ['0', '1', '2'], 'Seeds, each for every method.')
flags.mark_flags_as_required(['workdir'])
commandline.DEFINE_config()

DISTILL = pathlib.Path(__file__).with_name('distill.py')


def run_one(method: str, seed: str, directory: pathlib.Path) -> dict:
  """Runs or continues one distillation; returns its results."""
  overrides = [a for a in sys.argv[1:] if a.startswith(('--config', '-config'))]
  subprocess.run(
    [
      sys.executable, str(DISTILL), *overrides, f'--config.method={method}',
      f'--config.seed={seed}', f'--workdir={directory}',
    ],
    check=True,
  )  # fmt: skip
  return json.loads((directory / 'results.json').read_text())


def bootstrap(values: Sequence[float], draws: int = 10_000) -> list[float]:
  """The 95 % percentile interval of the mean over seeds."""
  values = np.asarray(values)
  rng = np.random.default_rng(0)
  means = rng.choice(values, (draws, len(values))).mean(axis=1)
  return [float(q) for q in np.quantile(means, [0.025, 0.975])]


def summary(runs: dict[str, list[dict]]) -> dict:
  """Per method: retention, score of the taught modules, gate outcomes."""
  found = {}
  for method, results in runs.items():
    retention = [r['retention'] for r in results]
    taught = [
      np.mean([
        m['after'] / m['teacher'] for m in r['modules'].values()
        if m['before'] < 0.7 * m['teacher']
      ])
      for r in results
    ]  # fmt: skip
    stages = [s for r in results for s in r['stages'] if s['kind'] == 'teach']
    found[method] = {
      'retention': retention,
      'mean': float(np.mean(retention)),
      'ci95': bootstrap(retention),
      'taught_modules': float(np.mean(taught)),
      'student_tokens': float(
        np.mean([r['tokens']['student_train'] for r in results])
      ),
      'teacher_tokens': float(
        np.mean([r['tokens']['teacher_generated'] for r in results])
      ),
      'seconds': float(np.mean([r['seconds']['total'] for r in results])),
      'stages': len(stages),
      'mastered': sum(s['outcome'] == 'mastered' for s in stages),
      'remediated': sum(s['remedial_rounds'] > 0 for s in stages),
      'stalled': sum(s['outcome'] == 'unmastered' for s in stages),
    }
  first = next(iter(found))
  for entry in found.values():
    difference = np.subtract(found[first]['retention'], entry['retention'])
    entry['behind_first'] = [float(difference.mean()), *bootstrap(difference)]
  return found


def table(found: dict) -> str:
  first = next(iter(found))
  lines = [
    '| method | retention (95 % interval) | taught modules | '
    f'{first} minus this, paired | stages mastered / remediated / stalled | '
    'student tokens | teacher tokens | s |',
    '|---|---|---|---|---|---|---|---|',
  ]
  for method, e in found.items():
    delta, low, high = e['behind_first']
    gate = (
      f'{e["mastered"]} / {e["remediated"]} / {e["stalled"]} of {e["stages"]}'
      if e['stages'] and METHODS[method].gated else '–'
    )  # fmt: skip
    paired = (
      '–' if method == first else f'{delta:+.3f} ({low:+.3f}, {high:+.3f})'
    )
    lines.append(
      f'| {method} | {e["mean"]:.3f} ({e["ci95"][0]:.3f}–{e["ci95"][1]:.3f}) '
      f'| {e["taught_modules"]:.3f} | {paired} | {gate} '
      f'| {e["student_tokens"] / 1e6:.2f} M '
      f'| {e["teacher_tokens"] / 1e3:.0f} k | {e["seconds"]:.0f} |'
    )
  return '\n'.join(lines) + '\n'


def main(argv: Sequence[str]) -> None:
  del argv
  methods = flags.FLAGS.methods
  if unknown := set(methods) - set(METHODS):
    raise ValueError(
      f'--methods: {sorted(unknown)} unknown; choose of {list(METHODS)}.'
    )
  workdir = pathlib.Path(flags.FLAGS.workdir)
  runs: dict[str, list[dict]] = {m: [] for m in methods}
  # Seeds outside: an interrupted plan still has whole comparisons.
  for seed in flags.FLAGS.seeds:
    for method in methods:
      print(f'== {method}, seed {seed}', flush=True)
      runs[method].append(run_one(method, seed, workdir / f'{method}-{seed}'))
  found = summary(runs)
  (workdir / 'table.json').write_text(json.dumps(found, indent=2) + '\n')
  (workdir / 'table.md').write_text(table(found))
  print(table(found))


if __name__ == '__main__':
  commandline.run(main)
