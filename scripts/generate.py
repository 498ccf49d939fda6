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

from ioa_jax import commandline

_MODEL = flags.DEFINE_string('model', None, 'Directory, preset or hub id.')
_ADAPTER = flags.DEFINE_string(
  'adapter', None, 'A PEFT LoRA directory to put over the model.'
)
_PROMPT = flags.DEFINE_string(
  'prompt',
  None,
  'What to answer; without it, lines are read from the terminal.',
)
_SYSTEM = flags.DEFINE_string('system', None, 'A system message.')
_CHAT = flags.DEFINE_bool(
  'chat', None, 'Apply the chat template; by default if there is one.'
)
_MAX_TOKENS = flags.DEFINE_integer(
  'max_tokens', 256, 'Tokens of an answer at most.', lower_bound=1
)
_TEMPERATURE = flags.DEFINE_float(
  'temperature', 0.0, '0 takes the likeliest token.', lower_bound=0.0
)
_TOP_K = flags.DEFINE_integer(
  'top_k', 0, 'Keep the k likeliest tokens; 0 keeps all.', lower_bound=0
)
_TOP_P = flags.DEFINE_float(
  'top_p', 1.0, 'Keep the smallest set of this probability.',
  lower_bound=0.0, upper_bound=1.0,
)  # fmt: skip
_SEED = flags.DEFINE_integer('seed', 0, 'Of sampling.', lower_bound=0)
_DTYPE = flags.DEFINE_enum(
  'dtype', 'float32', ['float32', 'bfloat16'], 'Of weights and arithmetic.'
)
flags.mark_flag_as_required('model')


def main(argv: Sequence[str]) -> None:
  if len(argv) > 1:
    raise ValueError(f'unexpected argument {argv[1]!r}; quote --prompt.')
  # Imported after the flags are checked: bad input answers at once.
  import dataclasses

  from ioa_jax.models import checks, hub, loading, lora, peft, vocabulary
  from ioa_jax.sampling import choosing, streaming

  sampling = choosing.Sampling(
    _TEMPERATURE.value, _TOP_K.value, _TOP_P.value, _MAX_TOKENS.value
  )
  directory = hub.locate(_MODEL.value)
  model = loading.load(
    directory, _MODEL.value, dtype=_DTYPE.value, param_dtype=_DTYPE.value
  )
  directory, params = model.directory, model.params
  stop_tokens = vocabulary.stop_tokens(directory)
  tokenizer = vocabulary.load_tokenizer(directory)
  chat = bool(tokenizer.chat_template) if _CHAT.value is None else _CHAT.value
  if _SYSTEM.value is not None and not chat:
    raise ValueError('--system needs a chat template, and none is applied.')
  streamer = streaming.Streamer(
    model.config, stop_tokens=stop_tokens, max_tokens=_MAX_TOKENS.value
  )
  if _ADAPTER.value is not None:
    adapters, spec = peft.load(
      _ADAPTER.value, model.config.num_layers, model.params
    )
    params = lora.merge(params, adapters, spec)

  messages = []
  if _SYSTEM.value is not None:
    messages.append({'role': 'system', 'content': _SYSTEM.value})
  for turn, prompt in enumerate(_prompts()):
    if chat:
      messages.append({'role': 'user', 'content': prompt})
      tokens = vocabulary.chat_tokens(tokenizer, directory, messages)
    else:
      tokens = tokenizer.encode(prompt)
    checks.length(
      len(tokens) + 1, model.config.max_positions,
      'the prompt with one token of an answer', directory,
    )  # fmt: skip
    left = model.config.max_positions - len(tokens)
    limit = dataclasses.replace(
      sampling, max_tokens=min(left, _MAX_TOKENS.value)
    )
    answer = ''
    for piece in streaming.text_pieces(
      streamer(params, tokens, limit, _SEED.value + turn),
      lambda ids: vocabulary.decode(tokenizer, ids),
    ):
      print(piece, end='', flush=True)
      answer += piece
    print(flush=True)
    messages.append({'role': 'assistant', 'content': answer})


def _prompts() -> Iterator[str]:
  if _PROMPT.value is not None:
    yield _PROMPT.value
    return
  while True:
    if sys.stdin.isatty():
      print('> ', end='', flush=True)
    line = sys.stdin.readline()
    if not line:
      return
    if line.strip():
      yield line.rstrip('\n')


if __name__ == '__main__':
  commandline.run(main)
