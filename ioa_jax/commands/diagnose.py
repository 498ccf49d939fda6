r"""Says what a student does not know and its teacher does; trains nothing.

  python scripts/diagnose.py --config=configs/quickstart.py --workdir=RUN

RUN receives config.json, models.json, diagnosis.json, ledger.sqlite,
report.html and items.jsonl (how hard each probe is for student and teacher),
and distill.py continues from there with the same --config and --workdir.
--config.identifier.panel.learners=16 also measures, on learners that are taught
for a short time, what stands on what and how hard each item is; their answers
are in RUN/panel.npz.
"""

from collections.abc import Sequence
import pathlib

from absl import flags

from ioa_jax.records import Diagnosis
from ioa_jax.runtime import commandline, terminal

FLAGS = flags.FLAGS


def define_flags() -> None:
  commandline.DEFINE_workdir()
  commandline.DEFINE_config()


def main(argv: Sequence[str]) -> None:
  del argv
  config = commandline.config()
  # Imported after the flags are checked: bad input answers at once.
  from ioa_jax import pipeline
  from ioa_jax.runtime import display as display_lib

  workdir = pathlib.Path(FLAGS.workdir)
  with display_lib.Display() as display:
    diagnosis = pipeline.identify(config, workdir, display)
  terminal.say(table(diagnosis))
  terminal.say(
    f'{workdir / "report.html"} shows it; diagnosis.json has it all.'
  )


def table(diagnosis: Diagnosis) -> str:
  """Modules, the least known first; those without a gap last.

  Nats are of the reference answers, for a token: how hard they still are. Each
  model counts its own tokens, so only equal vocabularies compare.
  """
  width = max(map(len, diagnosis.modules))
  lines = [
    f'{"":{width}}       score                 nats a token',
    f'{"module":{width}}  teacher  student    gap  teacher  student  status',
  ]
  gap = lambda item: -1.0 if item[1].gap is None else item[1].gap
  number = lambda x, width: f'{"-" if x is None else f"{x:.2f}":>{width}}'
  for name, m in sorted(diagnosis.modules.items(), key=gap, reverse=True):
    lines.append(
      f'{name:{width}}  {number(m.teacher.mean, 7)}  '
      f'{number(m.student.mean, 7)} {number(m.gap, 6)} '
      f'{number(m.teacher_loss, 8)} {number(m.student_loss, 8)}  {m.status}'
    )
  dependency = diagnosis.dependency
  lines.append(f'{len(dependency.edges)} prerequisites ({dependency.source}).')
  return '\n'.join(lines)
