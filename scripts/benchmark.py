r"""Measures this project beside transformers and torch, on this machine.

  pip install -e '.[test]'
  python scripts/benchmark.py train --shape=27m --peer=torch
  python scripts/benchmark.py train --shape=27m --peer=tunix
  python scripts/benchmark.py train --lessons=train.jsonl --model=DIR
  python scripts/benchmark.py gate
  python scripts/benchmark.py sample --shape=27m --peer=torch
  python scripts/benchmark.py sample --model=DIR --peer=torch

One JSON object a line. Each side has a process of its own, for its memory, and
they take turns, so that a busy machine slows both. (`sample` has one process.)
With --lessons, rows are not full of text but of lessons as long as those, which
this project packs and transformers pads to the longest of a batch.
"""

from collections.abc import Sequence
import itertools
import json
import multiprocessing
import pathlib
import resource
import statistics
import time
import timeit

from absl import app, flags

from ioa_jax.runtime import commandline

_SHAPE = flags.DEFINE_enum(
  'shape', '27m', ['27m', 'quickstart'], 'Of the model and its batch.'
)
_PEER = flags.DEFINE_enum(
  'peer',
  'torch',
  ['torch', 'tunix', 'none'],
  'What to measure beside this project; tunix (google-tunix) has `train`.',
)
_ROUNDS = flags.DEFINE_integer(
  'rounds', 5, 'Turns of each side; the median counts.', lower_bound=1
)

_MODEL = flags.DEFINE_string(
  'model',
  None,
  'A Hugging Face directory: real weights for `sample`; the '
  'tokenizer that counts --lessons.',
)
_LESSONS = flags.DEFINE_string(
  'lessons', None, 'JSON lines of {question, answer}, as GSM8K has: `train` on '
  'lessons of these lengths.'
)  # fmt: skip
_SLOTS = flags.DEFINE_integer(
  'slots', 16, 'Texts that `sample` writes at once.', lower_bound=1
)

# layers, width, heads, feed-forward, vocabulary, tokens a row, rows.
_SHAPES = {
  '27m': (8, 512, 8, 1376, 8192, 512, 8),
  'quickstart': (3, 64, 4, 128, 64, 64, 16),
}
# A turn is one window, as a run has them.
_STEPS_A_TURN = {'27m': 4, 'quickstart': 100}
_NUM_LESSONS = 64


def train(
  shape: str, peer: str, rounds: int, lengths: Sequence[int] = ()
) -> dict:
  """Tokens a second of one optimizer step: clip, AdamW, all weights.

  Args:
    lengths: of lessons, in tokens; without them every row is full.
  """
  sides = {'ioa_jax': _jax_trainer}
  if peer != 'none':
    sides[peer] = {'torch': _torch_trainer, 'tunix': _tunix_trainer}[peer]
  found = _in_turns(sides, shape, rounds, lengths)
  layers, width, _, mlp, vocab, length, _ = _SHAPES[shape]
  # Each weight of a product is used in three products of two operations a
  # token; attention's two products count whole, as is usual, though causal.
  weights = layers * (4 * width**2 + 3 * width * mlp) + vocab * width
  flops_per_token = 6 * weights + 12 * layers * width * length
  peak = max(side['peak_flops'] for side in found.values())
  result = {'benchmark': 'train', 'shape': shape, 'peak_gflops': peak / 1e9}
  for name, side in found.items():
    speed = statistics.median(side['tokens_per_second'])
    result[name] = {
      'tokens_per_second': speed,
      'peak_memory_gib': side['peak_memory_gib'],
    }
    if not lengths:
      result[name]['share_of_peak'] = flops_per_token * speed / peak
  if peer != 'none':
    result['ratio'] = statistics.median(
      ours / theirs
      for ours, theirs in zip(
        found['ioa_jax']['tokens_per_second'],
        found[peer]['tokens_per_second'],
      )
    )
  return result


def _lengths(path: str, model: str | None) -> list[int]:
  """Tokens of question and answer together.

  Raises:
    ValueError: naming what is missing.
  """
  import tokenizers

  from ioa_jax.evaluation import benchmark_files

  file = pathlib.Path(model or '') / 'tokenizer.json'
  if model is None or not file.exists():
    raise ValueError(
      f'--lessons is counted by a tokenizer: {file} is not there; add '
      '--model=DIR.'
    )
  rows = benchmark_files.read(pathlib.Path(path), ('question', 'answer'))
  texts = [f'{x["question"]}\n{x["answer"]}' for _, x in rows]
  if len(texts) < _NUM_LESSONS:
    raise ValueError(
      f'--lessons={path} has {len(texts)} lessons, wanted {_NUM_LESSONS} or '
      'more.'
    )
  tokenizer = tokenizers.Tokenizer.from_file(str(file))
  return [len(e.ids) for e in tokenizer.encode_batch(texts)]


def _in_turns(sides, shape, rounds, lengths) -> dict[str, dict]:
  """Has a process for each side run its steps when it is its turn."""
  context = multiprocessing.get_context('spawn')
  pipes, processes = {}, []
  try:
    for name, make in sides.items():
      pipes[name], theirs = context.Pipe()
      process = context.Process(
        target=_serve, args=(make, shape, lengths, theirs)
      )
      process.start()
      theirs.close()
      processes.append(process)
    found = {name: {'tokens_per_second': []} for name in sides}
    for _ in range(rounds):
      for name, pipe in pipes.items():
        pipe.send(True)
        found[name]['tokens_per_second'].append(pipe.recv())
    for name, pipe in pipes.items():
      pipe.send(False)
      found[name] |= pipe.recv()
  finally:
    for pipe in pipes.values():
      pipe.close()
    for process in processes:
      process.join()
  return found


def _serve(make, shape, lengths, pipe):
  """Answers True with a turn's tokens a second, and False with the rest."""
  run, product = make(
    *_SHAPES[shape], steps=_STEPS_A_TURN[shape], lengths=lengths
  )
  run()  # Compiles, and touches what is allocated late.
  seconds = []
  try:
    while pipe.recv():
      seconds.append(timeit.timeit(product, number=1))
      start = time.monotonic()
      tokens = run()
      pipe.send(tokens / (time.monotonic() - start))
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    pipe.send({
      'peak_flops': 2 * _PRODUCT**3 / min(seconds), 'peak_memory_gib': memory
    })  # fmt: skip
  except EOFError:  # The other side failed and says why.
    return


_PRODUCT = 2048


def _jax_product():
  """A large product, compiled, to time."""
  import jax
  import jax.numpy as jnp

  square = jnp.ones((_PRODUCT, _PRODUCT))
  product = jax.jit(jnp.matmul)
  product(square, square).block_until_ready()
  return lambda: product(square, square).block_until_ready()


def _jax_trainer(
  layers, width, heads, mlp, vocab, length, rows, *, steps, lengths
):
  """This project's window of steps, on packed lessons."""
  import benchmark_window
  import jax
  import numpy as np

  from ioa_jax.models import decoder
  from ioa_jax.training import optimizer, packing

  config = decoder.DecoderConfig(
    vocab_size=vocab, width=width, num_layers=layers, num_heads=heads,
    num_kv_heads=heads, head_width=width // heads, mlp_width=mlp,
    scan_unroll=layers,
  )  # fmt: skip
  tx, _ = optimizer.make(
    name='adamw', learning_rate=1e-4, total_steps=10_000, warmup_share=0.03,
    final_share=0.1, weight_decay=0.01, b1=0.9, b2=0.95, clip_norm=1.0,
    momentum_dtype='float32',
  )  # fmt: skip
  rng = np.random.default_rng(0)
  lessons = [
    packing.Example([0], rng.integers(vocab, size=n).tolist())
    for n in _drawn(lengths, length)
  ]
  window, state, inputs, mesh = benchmark_window.make(
    config, decoder.init(config, jax.random.key(0)), tx, {'all': lessons},
    benchmark_window.endless_plan(['all'], ['all']), None,
    row_length=length, batch_rows=rows, num_steps=steps,
    probe_every_steps=benchmark_window.NEVER, average_decay=0.0,
    replay_share=0.0,
  )  # fmt: skip

  def run():
    nonlocal state
    with jax.set_mesh(mesh):
      state, metrics = window(state, inputs)
      assert bool(metrics['ran'].all())
    return int(metrics['tokens'].sum())

  return run, _jax_product()


def _drawn(lengths, longest):
  """Lengths of the benchmark's lessons, the same for both sides."""
  import numpy as np

  if not lengths:
    return [longest] * _NUM_LESSONS
  some = np.random.default_rng(1).choice(lengths, _NUM_LESSONS, replace=False)
  return np.minimum(some, longest).tolist()


def _torch_trainer(
  layers, width, heads, mlp, vocab, length, rows, *, steps, lengths
):
  """transformers' Llama under torch's AdamW, as its own trainer steps it."""
  import torch
  import transformers

  torch.manual_seed(0)
  model = transformers.LlamaForCausalLM(
    transformers.LlamaConfig(
      vocab_size=vocab, hidden_size=width, num_hidden_layers=layers,
      num_attention_heads=heads, num_key_value_heads=heads,
      intermediate_size=mlp, tie_word_embeddings=True,
      max_position_embeddings=length,
    )
  )  # fmt: skip
  rule = torch.optim.AdamW(
    model.parameters(), lr=1e-4, betas=(0.9, 0.95), weight_decay=0.01
  )
  texts = [torch.randint(vocab, (n,)) for n in _drawn(lengths, length)]
  turns = itertools.count()

  def padded(texts):
    """To the longest of the batch, as transformers' collators do."""
    pad = lambda rows, value: torch.nn.utils.rnn.pad_sequence(
      rows, batch_first=True, padding_value=value
    )
    batch = {'input_ids': pad(texts, 0), 'labels': pad(texts, -100)}
    if lengths:  # Full rows need no mask.
      batch['attention_mask'] = pad([torch.ones_like(t) for t in texts], 0)
    return batch

  def run():
    tokens = 0
    for _ in range(steps):
      start = next(turns) * rows % len(texts)
      mine = texts[start : start + rows]
      tokens += sum(map(len, mine))
      model(**padded(mine)).loss.backward()
      torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
      rule.step()
      rule.zero_grad()
    return tokens

  square = torch.ones((_PRODUCT, _PRODUCT))
  return run, lambda: square @ square


def _tunix_trainer(
  layers, width, heads, mlp, vocab, length, rows, *, steps, lengths
):
  """The step that google-tunix's PeftTrainer compiles, for its own Llama."""
  import numpy as np
  import optax

  try:
    from flax import nnx
    from tunix.models.llama3 import model as model_lib
    from tunix.sft import peft_trainer
    from tunix.sft import utils as tunix_utils
  except ImportError as e:
    raise ValueError(f'--peer=tunix: {e}; pip install google-tunix') from None
  model = model_lib.Llama3(
    model_lib.ModelConfig(
      num_layers=layers, vocab_size=vocab, embed_dim=width, hidden_dim=mlp,
      num_heads=heads, head_dim=width // heads, num_kv_heads=heads,
      rope_theta=10_000, norm_eps=1e-5, weight_tying=True,
    ),
    rngs=nnx.Rngs(0),
  )  # fmt: skip
  trainer = peft_trainer.PeftTrainer(
    model,
    optax.chain(
      optax.clip_by_global_norm(1.0),
      optax.adamw(1e-4, b1=0.9, b2=0.95, weight_decay=0.01),
    ),
    peft_trainer.TrainingConfig(eval_every_n_steps=10**9),
  ).with_gen_model_input_fn(
    lambda x: {
      'input_tokens': x.input_tokens,
      'input_mask': x.input_mask,
      'positions': tunix_utils.build_positions_from_mask(x.input_mask),
      'attention_mask': tunix_utils.make_causal_attn_mask(x.input_mask),
    }
  )
  step, _ = trainer.jit_train_and_eval_step()
  rng = np.random.default_rng(0)
  token = rng.integers(vocab, size=(_NUM_LESSONS, length)).astype(np.int32)
  # One length for all, as its data pipelines pad: another compiles again.
  mask = np.arange(length) < np.array(_drawn(lengths, length))[:, None]
  turns = itertools.count()

  def run():
    tokens = 0
    for _ in range(steps):
      start = next(turns) * rows % len(token)
      at = slice(start, start + rows)
      tokens += int(mask[at].sum())
      loss, *_ = step(peft_trainer.TrainingInput(token[at], mask[at]))
    loss.block_until_ready()
    return tokens

  return run, _jax_product()


def gate(rounds: int) -> dict:
  """What probing costs; see `benchmark_gate`."""
  import benchmark_gate

  return benchmark_gate.measure(rounds)


def sample(peer: str, rounds: int) -> dict:
  """Tokens a second of texts of mixed lengths; see `benchmark_sample`."""
  import benchmark_sample

  if peer == 'tunix':
    raise app.UsageError('tunix has train only.')
  if _MODEL.value is None and _SHAPE.value != '27m':
    raise app.UsageError('sample has --shape=27m, or real weights by --model.')
  return benchmark_sample.measure(
    directory=_MODEL.value, slots=_SLOTS.value, rounds=rounds,
    peer=peer == 'torch',
  )  # fmt: skip


def _train_as_asked() -> dict:
  lengths = _lengths(_LESSONS.value, _MODEL.value) if _LESSONS.value else ()
  return train(_SHAPE.value, _PEER.value, _ROUNDS.value, lengths)


def main(argv: Sequence[str]) -> None:
  commands = {
    'train': _train_as_asked,
    'gate': lambda: gate(_ROUNDS.value),
    'sample': lambda: sample(_PEER.value, _ROUNDS.value),
  }
  if len(argv) != 2 or argv[1] not in commands:
    raise app.UsageError(f'wanted one of {sorted(commands)}, got {argv[1:]}.')
  if _LESSONS.value and argv[1] != 'train':
    raise app.UsageError('--lessons is for train.')
  print(json.dumps(commands[argv[1]]()))


if __name__ == '__main__':
  commandline.run(main)
