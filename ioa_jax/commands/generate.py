r"""Talks to a student, or to any other model, and prints as it writes.

  python scripts/generate.py --model=RUN --prompt='What is 17 * 3?'
  python scripts/generate.py --model=RUN --compare --prompt=...
  python scripts/generate.py --model=DIR          # A conversation; end: Ctrl-D.
  python scripts/generate.py --model=DIR --adapter=LORA_DIR --prompt=...

RUN is a run directory: its student answers, or its adapter over the base.
--compare shows what the teacher, the base and the student say, side by side;
each that is on this machine. DIR is a Hugging Face directory, a preset's name
or a hub id. The model's chat template is applied if it has one; --nochat writes
the prompt as it is.
"""

from collections.abc import Iterator, Sequence
import sys

from absl import flags

from ioa_jax.runtime import terminal

FLAGS = flags.FLAGS


def define_flags() -> None:
  flags.DEFINE_string(
    'model', None, 'Run directory, model directory, preset or hub id.'
  )
  flags.DEFINE_bool(
    'compare', False, 'Of a run: the teacher, the base and the student.'
  )
  flags.DEFINE_string(
    'adapter', None, 'A PEFT LoRA directory to put over the model.'
  )
  flags.DEFINE_string(
    'prompt',
    None,
    'What to answer; without it, lines are read from the terminal.',
  )
  flags.DEFINE_string('system', None, 'A system message.')
  flags.DEFINE_bool(
    'chat', None, 'Apply the chat template; by default if there is one.'
  )
  flags.DEFINE_bool(
    'thinking',
    None,
    'Think first, where the template has a switch for it (Qwen3, SmolLM3); by '
    'default as a run taught it, and else not.',
  )
  flags.DEFINE_integer(
    'max_tokens', 256, 'Tokens of an answer at most.', lower_bound=1
  )
  flags.DEFINE_float(
    'temperature', 0.0, '0 takes the likeliest token.', lower_bound=0.0
  )
  flags.DEFINE_integer(
    'top_k', 0, 'Keep the k likeliest tokens; 0 keeps all.', lower_bound=0
  )
  flags.DEFINE_float(
    'top_p',
    1.0,
    'Keep the smallest set of this probability.',
    lower_bound=0.0,
    upper_bound=1.0,
  )
  flags.DEFINE_integer(
    'seed', 0, 'Of sampling.', lower_bound=0, upper_bound=2**32 - 1
  )
  flags.DEFINE_enum(
    'dtype', 'float32', ['float32', 'bfloat16'], 'Of weights and arithmetic.'
  )
  flags.mark_flag_as_required('model')


def main(argv: Sequence[str]) -> None:
  del argv
  # Imported after the flags are checked: bad input answers at once.
  import dataclasses

  from ioa_jax.phases import run_models
  from ioa_jax.sampling import conversation

  names = [f.name for f in dataclasses.fields(conversation.Options)]
  options = conversation.Options(**{n: getattr(FLAGS, n) for n in names})
  run = run_models.find(FLAGS.model)
  if run is not None and FLAGS.adapter is not None:
    raise ValueError(
      f'--adapter: {run} is a run, and has its own. Name the model that the '
      'adapter is for.'
    )
  if FLAGS.compare:
    if run is None:
      raise ValueError(
        f'--compare: {FLAGS.model} is not a run directory; --model=RUN.'
      )
    _compare(run, options)
    return
  model = FLAGS.model
  if run is not None:
    student = run_models.student(run)
    model = student.model
    options = dataclasses.replace(options, adapter=student.adapter)
  talk = conversation.Conversation(model, options)
  for prompt in _prompts():
    for piece in talk.say(prompt):
      terminal.say(piece, end='')
    terminal.say()


def _compare(run, options) -> None:
  """A table for each prompt, a column for each model."""
  import dataclasses

  import rich.console
  import rich.table
  import rich.text

  from ioa_jax.phases import run_models
  from ioa_jax.sampling import conversation

  speakers, missing = run_models.speakers(run)
  for line in missing:
    terminal.say(line)
  talks = [
    conversation.Conversation(
      s.model, dataclasses.replace(options, adapter=s.adapter)
    )
    for s in speakers
  ]
  console = rich.console.Console()
  for prompt in _prompts():
    # Text of models, which is no markup of rich's.
    shown = lambda text: rich.text.Text(terminal.printable(text))
    table = rich.table.Table(title=shown(prompt), show_lines=True)
    for speaker in speakers:
      table.add_column(speaker.role, ratio=1, overflow='fold')
    table.add_row(*(shown(''.join(talk.say(prompt))) for talk in talks))
    console.print(table)


def _prompts() -> Iterator[str]:
  if FLAGS.prompt is not None:
    yield FLAGS.prompt
    return
  while True:
    if sys.stdin.isatty():
      terminal.say('> ', end='')
    line = sys.stdin.readline()
    if not line:
      return
    if line.strip():
      yield line.rstrip('\n')
