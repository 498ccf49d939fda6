r"""Teaches a student what its teacher knows: the whole method, resumable.

  python scripts/distill.py --config=configs/quickstart.py --workdir=RUN

RUN receives config.json, diagnosis.json, curriculum.json, ledger.sqlite,
lessons.jsonl, metrics.jsonl, tensorboard/, checkpoints/, student/ (a Hugging
Face directory), results.json and report.html. The same command continues a run
that was stopped (SIGTERM saves first) and says so if it is finished.

--dry_run projects what the teacher is asked and costs, and sends nothing.
Any field can be set: --config.gate.tau_mastery=0.95 --config.seed=1
"""

from collections.abc import Sequence
import pathlib

from absl import flags

from ioa_jax import commandline

flags.DEFINE_string('workdir', None, 'The run directory; made if absent.')
flags.DEFINE_boolean(
  'dry_run', False,
  'Only say what the teacher would be asked and what it could cost.',
)  # fmt: skip
commandline.DEFINE_config()
flags.mark_flags_as_required(['workdir'])


def main(argv: Sequence[str]) -> None:
  del argv
  # Imported after the flags are checked: bad input answers at once.
  from ioa_jax import pipeline, progress

  if flags.FLAGS.dry_run:
    print(pipeline.dry_run(flags.FLAGS.config))
    return
  workdir = pathlib.Path(flags.FLAGS.workdir)
  with progress.Display() as display:
    results = pipeline.run(flags.FLAGS.config, workdir, display)
  if results is None:
    return
  stages = [s for s in results['stages'] if s['kind'] == 'teach']
  passed = sum(s['outcome'] == 'mastered' for s in stages)
  print(
    f'Retention {results["retention"]:.3f}: student '
    f'{results["student"]["score_before"]:.3f} -> '
    f'{results["student"]["score_after"]:.3f}, teacher '
    f'{results["teacher"]["score"]:.3f}; {passed} of {len(stages)} stages '
    f'mastered; {results["seconds"]["total"]:.0f} s.\n'
    f'Report: {workdir / "report.html"}'
  )


if __name__ == '__main__':
  commandline.run(main)
