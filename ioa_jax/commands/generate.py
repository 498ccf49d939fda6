r"""Talks to a student, or to any other model, and prints as it writes.

  python scripts/generate.py --model=RUN/student --prompt='What is 17 * 3?'
  python scripts/generate.py --model=DIR          # A conversation; end: Ctrl-D.
  python scripts/generate.py --model=DIR --adapter=LORA_DIR --prompt=...

DIR is a Hugging Face directory (Llama 3.x, Qwen2.5, SmolLM2), a preset's name
or a hub id. The model's chat template is applied if it has one; --nochat writes
the prompt as it is.
"""

from collections.abc import Iterator, Sequence
import sys

from absl import flags

from ioa_jax.runtime import terminal

FLAGS = flags.FLAGS


def define_flags() -> None:
  flags.DEFINE_string('model', None, 'Directory, preset or hub id.')
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

  from ioa_jax.sampling import conversation

  names = [f.name for f in dataclasses.fields(conversation.Options)]
  options = conversation.Options(**{n: getattr(FLAGS, n) for n in names})
  talk = conversation.Conversation(FLAGS.model, options)
  for prompt in _prompts():
    for piece in talk.say(prompt):
      terminal.say(piece, end='')
    terminal.say()


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
