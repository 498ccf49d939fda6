r"""Lessons only: what the student does not know, taught in a data set.

  python scripts/synthesize.py --config=configs/quickstart.py --workdir=RUN

Probes teacher and student, plans the stages, and has the teacher write and
confirm the first lessons of each; nothing is trained. RUN/data/ receives
JSON lines with `messages` for any trainer, a saved `datasets.Dataset`, and a
data card; RUN the artefacts of a run up to there, and report.html.

A run that was stopped goes on with the same command and pays for nothing
twice. scripts/distill.py with the same --workdir goes on from it: its later
stages are then written anew, for the student as it is by that time.

--dry_run projects what the teacher is asked and costs, and sends nothing.
"""

from collections.abc import Sequence
import pathlib

from absl import flags

from ioa_jax.runtime import commandline, terminal

FLAGS = flags.FLAGS


def define_flags() -> None:
  commandline.DEFINE_workdir()
  commandline.DEFINE_dry_run()
  commandline.DEFINE_config()


def main(argv: Sequence[str]) -> None:
  del argv
  config = commandline.config()
  # Imported after the flags are checked: bad input answers at once.
  from ioa_jax import pipeline
  from ioa_jax.runtime import display as display_lib

  if FLAGS.dry_run:
    terminal.say(pipeline.dry_run(config, remedial_rounds=0))
    return
  workdir = pathlib.Path(FLAGS.workdir)
  with display_lib.Display() as display:
    lessons = pipeline.synthesize(config, workdir, display)
  terminal.say(f'{len(lessons)} lessons: {workdir / "data"}')
