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

  from ioa_jax.models import checks, hub, loading, lora, peft, vocabulary
  from ioa_jax.sampling import logits as logits_lib
  from ioa_jax.sampling import streaming

  sampling = logits_lib.Sampling(
    FLAGS.temperature,
    FLAGS.top_k,
    FLAGS.top_p,
    FLAGS.max_tokens,
  )
  directory = hub.locate(FLAGS.model)
  model = loading.load(
    directory, FLAGS.model, dtype=FLAGS.dtype, param_dtype=FLAGS.dtype
  )
  directory, params = model.directory, model.params
  stop_tokens = vocabulary.stop_tokens(directory)
  tokenizer = vocabulary.load_tokenizer(directory)
  chat = bool(tokenizer.chat_template) if FLAGS.chat is None else FLAGS.chat
  if FLAGS.system is not None and not chat:
    raise ValueError('--system needs a chat template, and none is applied.')
  streamer = streaming.Streamer(
    model.config, stop_tokens=stop_tokens, max_tokens=FLAGS.max_tokens
  )
  if FLAGS.adapter is not None:
    adapters, spec = peft.load(
      FLAGS.adapter, model.config.num_layers, model.params
    )
    params = lora.merge(params, adapters, spec)

  messages = []
  if FLAGS.system is not None:
    messages.append({'role': 'system', 'content': FLAGS.system})
  for turn, prompt in enumerate(_prompts()):
    if chat:
      messages.append({'role': 'user', 'content': prompt})
      tokens = vocabulary.chat_tokens(tokenizer, directory, messages)
    else:
      tokens = tokenizer.encode(prompt)
    checks.length(
      len(tokens) + 1,
      model.config.max_positions,
      'the prompt with one token of an answer',
      directory,
    )
    left = model.config.max_positions - len(tokens)
    limit = dataclasses.replace(
      sampling, max_tokens=min(left, FLAGS.max_tokens)
    )
    answer = ''
    for piece in streaming.text_pieces(
      streamer(params, tokens, limit, FLAGS.seed + turn),
      lambda ids: vocabulary.decode(tokenizer, ids),
    ):
      print(piece, end='', flush=True)
      answer += piece
    print(flush=True)
    messages.append({'role': 'assistant', 'content': answer})


def _prompts() -> Iterator[str]:
  if FLAGS.prompt is not None:
    yield FLAGS.prompt
    return
  while True:
    if sys.stdin.isatty():
      print('> ', end='', flush=True)
    line = sys.stdin.readline()
    if not line:
      return
    if line.strip():
      yield line.rstrip('\n')
