r"""Trains the models that ship with the arithmetic domain, from scratch.

The teacher learns every module, step by step and (a tenth) directly; the base
student learns generic string tasks and the easy modules only. Neither ever sees
a probe. Writes a Hugging Face directory with a card of held-out scores.

  python scripts/train_builtin_teacher.py --role=teacher --output_dir=DIR
  python scripts/train_builtin_teacher.py --role=student --output_dir=DIR

Two CPU cores: about 25 minutes for the teacher, 2 for the student.
"""

from collections.abc import Sequence
import dataclasses
import functools
import json
import pathlib
import time

from absl import flags
import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
import optax

from ioa_jax.domains import arithmetic
from ioa_jax.domains import tokenizer as tokenizer_lib
from ioa_jax.evaluation import scoring
from ioa_jax.models import decoder, huggingface
from ioa_jax.runtime import commandline
from ioa_jax.sampling import logits as logits_lib
from ioa_jax.sampling import sampler as sampler_lib
from ioa_jax.training import losses, optimizer, packing

flags.DEFINE_enum('role', None, ['teacher', 'student'], 'Which model to train.')
flags.DEFINE_string('output_dir', None, 'Where to write the model directory.')
flags.DEFINE_integer('seed', 0, 'Seed of weights and data.')
flags.mark_flags_as_required(['role', 'output_dir'])

ROW_LENGTH = 64
BATCH_ROWS = 32
EXAMPLES_PER_CORPUS = 30_000
NAMES = [m.name for m in arithmetic.MODULES]


@dataclasses.dataclass(frozen=True)
class Recipe:
  """What differs between the two models.

  Attributes:
    weights: share of each module in the training text, or None for equal.
    direct_share: share of problems with steps that are answered directly.
    generic_share: share of copying and reversing.
    dtype: of the shipped file.
  """

  config: decoder.DecoderConfig
  modules: Sequence[str]
  weights: np.ndarray | None
  direct_share: float
  generic_share: float
  steps: int
  learning_rate: float
  weight_decay: float
  dtype: str


def _teacher() -> Recipe:
  # What is learned last, or what the other modules call, is shown more often.
  weights = np.array([2.0] * len(NAMES))
  weights[: len(arithmetic.EASY_MODULES)] = 1.0
  weights[NAMES.index('comparison/larger')] = 2.5
  weights[NAMES.index('multiplication/table')] = 3.0
  return Recipe(
    config=decoder.DecoderConfig(
      vocab_size=32, width=192, num_layers=4, num_heads=6, num_kv_heads=3,
      head_width=32, mlp_width=512, scan_unroll=4,
    ),
    modules=NAMES, weights=weights / weights.sum(), direct_share=0.1,
    generic_share=0.05, steps=2800, learning_rate=1.5e-3, weight_decay=0.05,
    dtype='bfloat16',
  )  # fmt: skip


def _student() -> Recipe:
  return Recipe(
    config=decoder.DecoderConfig(
      vocab_size=32, width=64, num_layers=3, num_heads=4, num_kv_heads=4,
      head_width=16, mlp_width=160, scan_unroll=3,
    ),
    modules=list(arithmetic.EASY_MODULES), weights=None, direct_share=0.0,
    generic_share=0.3, steps=1200, learning_rate=4e-3, weight_decay=0.01,
    dtype='float32',
  )  # fmt: skip


def _generic(rng) -> tuple[str, str]:
  """Copying (`@`) or reversing (`<`) a run of digits."""
  digits = ''.join(str(d) for d in rng.integers(0, 10, rng.integers(1, 7)))
  if rng.random() < 0.5:
    return f'@{digits}=', digits
  return f'<{digits}=', digits[::-1]


def _one(rng, recipe: Recipe) -> tuple[str, str]:
  if rng.random() < recipe.generic_share:
    return _generic(rng)
  name = recipe.modules[rng.choice(len(recipe.modules), p=recipe.weights)]
  size = 1.0 if rng.random() < 0.8 else 0.1 + 0.9 * rng.random()
  problem = arithmetic.training_problem(name, rng, size)
  direct = rng.random() < recipe.direct_share
  answer_format = 'direct' if direct else 'steps'
  return problem.prompt(answer_format), problem.completion(answer_format)


def _corpus(rng, recipe: Recipe, tokenizer) -> dict[str, np.ndarray]:
  """Freshly drawn problems, packed."""
  pairs = [_one(rng, recipe) for _ in range(EXAMPLES_PER_CORPUS)]
  encode = lambda texts: tokenizer.encode_batch(
    [tokenizer_lib.reverse_digits(t) for t in texts]
  )
  prompts, completions = (encode(texts) for texts in zip(*pairs))
  return packing.pack(
    [
      packing.Example(p.ids, [*c.ids, tokenizer_lib.EOS_ID])
      for p, c in zip(prompts, completions)
    ],
    ROW_LENGTH,
  )


def _batches(rng, recipe: Recipe, tokenizer):
  while True:
    rows = _corpus(rng, recipe, tokenizer)
    count = len(rows['token'])
    order = rng.permutation(count)
    for start in range(0, count - BATCH_ROWS + 1, BATCH_ROWS):
      at = order[start : start + BATCH_ROWS]
      yield {name: value[at] for name, value in rows.items()}


@flax.struct.dataclass
class _State:
  params: decoder.Params
  opt_state: optax.OptState
  average: decoder.Params


def train(recipe: Recipe, seed: int) -> decoder.Params:
  """Trains to the end of the recipe; returns the averaged parameters."""
  config = recipe.config
  tx, _ = optimizer.make(
    name='adamw',
    learning_rate=recipe.learning_rate, total_steps=recipe.steps,
    warmup_share=0.03, final_share=0.02, weight_decay=recipe.weight_decay,
    b1=0.9, b2=0.98, clip_norm=1.0,
    momentum_dtype='float32',
  )  # fmt: skip

  @functools.partial(jax.jit, donate_argnums=0)
  def step(state, batch):
    def loss_fn(params):
      hidden = decoder.forward(
        config, params, batch['token'], batch['segment'], batch['position']
      )
      total, count = losses.token_cross_entropy(
        config, params, hidden, batch['target'], batch['weight']
      )
      return total / count

    loss, grads = jax.value_and_grad(loss_fn)(state.params)
    updates, opt_state = tx.update(grads, state.opt_state, state.params)
    params = optax.apply_updates(state.params, updates)
    average = jax.tree.map(
      lambda a, p: a + (p - a) * 0.005, state.average, params
    )
    return _State(params, opt_state, average), loss

  params = decoder.init(config, jax.random.key(seed))
  state = _State(params, tx.init(params), jax.tree.map(jnp.array, params))
  rng = np.random.default_rng(seed)
  start, tokens = time.monotonic(), 0
  batches = _batches(rng, recipe, tokenizer_lib.build())
  for i, batch in zip(range(1, recipe.steps + 1), batches):
    state, loss = step(state, batch)
    tokens += int((batch['segment'] > 0).sum())
    if i % 100 == 0:
      seconds = time.monotonic() - start
      left = seconds / i * (recipe.steps - i)
      print(
        f'step {i}/{recipe.steps} loss {float(loss):.4f} '
        f'{tokens / 1e6:.1f} M tokens, {tokens / seconds:.0f}/s, '
        f'{left:.0f} s left',
        flush=True,
      )
  return jax.device_get(state.average)


def held_out_scores(config, params, answer_format: str) -> dict[str, float]:
  """Greedy answers to the held-out probes, graded by the verifier."""
  tokenizer = tokenizer_lib.build()
  probes = arithmetic.probes('held_out', answer_format)
  sampler = sampler_lib.Sampler(
    config, stop_tokens=[tokenizer_lib.EOS_ID], batch_size=144,
    max_new_tokens=48,
  )  # fmt: skip
  reverse = tokenizer_lib.reverse_digits
  prompts = [tokenizer.encode(reverse(p.prompt)).ids for p in probes]
  greedy = logits_lib.Sampling(max_tokens=48)
  texts = [
    reverse(tokenizer.decode(list(g.tokens)))
    for g in sampler(
      params, prompts, [greedy] * len(prompts), [0] * len(prompts)
    )
  ]
  scores, _ = scoring.score(probes, texts, arithmetic.is_correct)
  return {name: score.mean for name, score in scores.items()}


def _card(role: str, seed: int, recipe: Recipe, scores) -> str:
  mean = {f: sum(s.values()) / len(s) for f, s in scores.items()}
  rows = '\n'.join(
    f'| {name} | {scores["steps"][name]:.3f} | {scores["direct"][name]:.3f} |'
    for name in NAMES
  )
  return f"""# The built-in {role}

{decoder.num_params(recipe.config):,} parameters, trained from scratch with

    python scripts/train_builtin_teacher.py --role={role} --seed={seed}

on {', '.join(recipe.modules)}. Numbers are written least significant digit
first. Held-out scores (greedy, {arithmetic.HELD_OUT_PROBES} probes a module,
none in any training text):

| module | step by step | direct |
|---|---|---|
{rows}
| **mean** | **{mean['steps']:.3f}** | {mean['direct']:.3f} |
"""


def write(role: str, seed: int, recipe: Recipe, params, directory) -> None:
  """Writes the model directory, scored as it is stored."""
  huggingface.save(
    directory, recipe.config, params, dtype=recipe.dtype,
    eos_token_id=tokenizer_lib.EOS_ID, pad_token_id=tokenizer_lib.PAD_ID,
  )  # fmt: skip
  tokenizer_lib.build().save(str(directory / 'tokenizer.json'))
  names = {
    'tokenizer_class': 'PreTrainedTokenizerFast',
    'eos_token': tokenizer_lib.EOS,
    'pad_token': tokenizer_lib.PAD,
    'unk_token': '<unk>',
    'clean_up_tokenization_spaces': False,
  }
  (directory / 'tokenizer_config.json').write_text(
    json.dumps(names, indent=2) + '\n'
  )
  stored = huggingface.load_params(directory, recipe.config)
  scores = {
    f: held_out_scores(recipe.config, stored, f) for f in ('steps', 'direct')
  }
  (directory / 'README.md').write_text(_card(role, seed, recipe, scores))


def main(argv: Sequence[str]) -> None:
  del argv
  role, seed = flags.FLAGS.role, flags.FLAGS.seed
  recipe = {'teacher': _teacher, 'student': _student}[role]()
  params = train(recipe, seed)
  directory = pathlib.Path(flags.FLAGS.output_dir)
  write(role, seed, recipe, params, directory)
  print((directory / 'README.md').read_text())


if __name__ == '__main__':
  commandline.run(main)
