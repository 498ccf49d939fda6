r"""Trains the models that ship with the built-in domains, from scratch.

The teacher learns every module, step by step and at once; the base student
learns generic string tasks and the easy modules only. Neither ever sees a
probe. Writes a Hugging Face directory with a card of held-out scores; what is
chosen while a recipe is made is chosen on other probes.

  python scripts/train_builtin_teacher.py --domain=composition --role=teacher \
    --output_dir=DIR
  python scripts/train_builtin_teacher.py --domain=composition --role=student \
    --output_dir=DIR

Two CPU cores, arithmetic: about 25 minutes for the teacher, 2 for the student.
"""

from collections.abc import Callable, Iterator, Sequence
import dataclasses
import functools
import json
import pathlib
import time
import types
from typing import Any

from absl import flags
import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
import optax
import tokenizers

from ioa_jax.domains import arithmetic, composition
from ioa_jax.domains import tokenizer as tokenizer_lib
from ioa_jax.evaluation import scoring
from ioa_jax.models import decoder, huggingface
from ioa_jax.records import Probe
from ioa_jax.runtime import commandline
from ioa_jax.sampling import logits as logits_lib
from ioa_jax.sampling import sampler as sampler_lib
from ioa_jax.training import losses, optimizer, packing

_DOMAINS = {'arithmetic': arithmetic, 'composition': composition}
flags.DEFINE_enum(
  'domain', 'arithmetic', list(_DOMAINS), 'What the model is made for.'
)
flags.DEFINE_enum('role', None, ['teacher', 'student'], 'Which model to train.')
flags.DEFINE_string('output_dir', None, 'Where to write the model directory.')
flags.DEFINE_integer('seed', 0, 'Seed of weights and data.')
flags.DEFINE_string(
  'init', None, 'A model directory to go on from, by a schedule of its own.'
)
flags.DEFINE_integer(
  'steps', None, "Instead of the recipe's number.", lower_bound=1
)
flags.DEFINE_bool(
  'by_need', False, 'Show most what the development probes find lacking.'
)
flags.mark_flags_as_required(['role', 'output_dir'])

ROW_LENGTH = 64
EXAMPLES_PER_CORPUS = 30_000
# Steps between two scores on the development probes, where a domain has them.
STEPS_PER_SCORE = 250


@dataclasses.dataclass(frozen=True, kw_only=True)
class Recipe:
  """What differs between the models.

  Attributes:
    domain: one of the modules in `_DOMAINS`.
    problem: module and generator to a problem that training may show.
    weights: share of each module in the training text, or None for equal.
    direct_share: share of problems with steps that are answered directly.
    generic_share: share of copying and reversing.
    average_rate: of the moving average that is written, a step.
    dtype: of the shipped file.
  """

  domain: types.ModuleType
  problem: Callable[[str, np.random.Generator], Any]
  tokenizer: tokenizers.Tokenizer
  config: decoder.DecoderConfig
  modules: Sequence[str]
  weights: np.ndarray | None = None
  direct_share: float
  generic_share: float
  optimizer: str = 'adamw'
  batch_rows: int = 32
  steps: int
  learning_rate: float
  weight_decay: float
  average_rate: float = 0.005
  dtype: str


def _decoder(vocab_size, width, heads, kv_heads, layers, mlp_width):
  return decoder.DecoderConfig(
    vocab_size=vocab_size,
    width=width,
    num_layers=layers,
    num_heads=heads,
    num_kv_heads=kv_heads,
    head_width=width // heads,
    mlp_width=mlp_width,
    scan_unroll=layers,
  )


def _arithmetic_problem(name, rng):
  size = 1.0 if rng.random() < 0.8 else 0.1 + 0.9 * rng.random()
  return arithmetic.training_problem(name, rng, size)


def _arithmetic(role: str) -> Recipe:
  names = [m.name for m in arithmetic.MODULES]
  common = functools.partial(
    Recipe,
    domain=arithmetic,
    problem=_arithmetic_problem,
    tokenizer=tokenizer_lib.build(),
  )
  if role == 'student':
    return common(
      config=_decoder(32, 64, 4, 4, 3, 160),
      modules=arithmetic.EASY_MODULES,
      direct_share=0.0,
      generic_share=0.3,
      steps=1200,
      learning_rate=4e-3,
      weight_decay=0.01,
      dtype='float32',
    )
  # What is learned last, or what the other modules call, is shown more often.
  weights = np.array([2.0] * len(names))
  weights[: len(arithmetic.EASY_MODULES)] = 1.0
  weights[names.index('comparison/larger')] = 2.5
  weights[names.index('multiplication/table')] = 3.0
  return common(
    config=_decoder(32, 192, 6, 3, 4, 512),
    modules=names,
    weights=weights / weights.sum(),
    direct_share=0.1,
    generic_share=0.05,
    steps=2800,
    learning_rate=1.5e-3,
    weight_decay=0.05,
    dtype='bfloat16',
  )


def _composition_problem(name, rng):
  # Half of them smaller: short numbers show sooner how digits are lined up.
  high = 1.0 if rng.random() < 0.5 else 0.1 + 0.9 * rng.random()
  return composition.training_problem(name, rng, high=high)


def _composition(role: str) -> Recipe:
  common = functools.partial(
    Recipe,
    domain=composition,
    problem=_composition_problem,
    tokenizer=composition.build_tokenizer(),
    optimizer='muon',
  )
  if role == 'student':
    return common(
      config=_decoder(44, 48, 3, 3, 3, 128),
      modules=composition.EASY_MODULES,
      direct_share=0.0,
      generic_share=0.3,
      steps=1500,
      learning_rate=6e-3,
      weight_decay=0.1,
      dtype='float32',
    )
  names = [m.name for m in composition.MODULES]
  # Two numbers that have to be lined up are learned last.
  weights = np.array([2.0] * len(names))
  for name in ('numbers/sum', 'numbers/difference', 'numbers/distance'):
    weights[names.index(name)] = 4.0
  return common(
    config=_decoder(44, 128, 4, 4, 4, 384),
    modules=names,
    weights=weights / weights.sum(),
    direct_share=0.5,
    generic_share=0.02,
    batch_rows=48,
    steps=1000,
    learning_rate=4e-3,
    weight_decay=0.1,
    average_rate=0.01,
    dtype='bfloat16',
  )


_RECIPES = {'arithmetic': _arithmetic, 'composition': _composition}


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
  problem = recipe.problem(name, rng)
  direct = rng.random() < recipe.direct_share
  answer_format = 'direct' if direct else 'steps'
  return problem.prompt(answer_format), problem.completion(answer_format)


def _corpus(rng, recipe: Recipe) -> dict[str, np.ndarray]:
  """Freshly drawn problems, packed."""
  pairs = [_one(rng, recipe) for _ in range(EXAMPLES_PER_CORPUS)]
  prompts, completions = (
    recipe.tokenizer.encode_batch(texts) for texts in zip(*pairs)
  )
  return packing.pack(
    [
      packing.Example(p.ids, [*c.ids, tokenizer_lib.EOS_ID])
      for p, c in zip(prompts, completions)
    ],
    ROW_LENGTH,
  )


def _batches(rng, recipe: Recipe) -> Iterator[dict[str, np.ndarray]]:
  while True:
    rows = _corpus(rng, recipe)
    count, size = len(rows['token']), recipe.batch_rows
    order = rng.permutation(count)
    for start in range(0, count - size + 1, size):
      at = order[start : start + size]
      yield {name: value[at] for name, value in rows.items()}


@flax.struct.dataclass
class _State:
  params: decoder.Params
  opt_state: optax.OptState
  average: decoder.Params


def _make_step(recipe: Recipe, tx: optax.GradientTransformation):
  config = recipe.config

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
      lambda a, p: a + (p - a) * recipe.average_rate, state.average, params
    )
    return _State(params, opt_state, average), loss

  return step


def train(
  recipe: Recipe,
  seed: int,
  *,
  init: pathlib.Path | None = None,
  by_need: bool = False,
) -> decoder.Params:
  """Trains to the end of the recipe; returns the averaged parameters."""
  rule = optimizer.Recipe(
    name=recipe.optimizer,
    learning_rate=recipe.learning_rate,
    warmup_share=0.03,
    final_share=0.02,
    weight_decay=recipe.weight_decay,
    b1=0.9,
    b2=0.98,
    clip_norm=1.0,
    momentum_dtype='float32',
  )
  tx, _ = optimizer.make(rule, recipe.steps)
  step = _make_step(recipe, tx)
  if init is None:
    params = decoder.init(recipe.config, jax.random.key(seed))
  else:
    params = huggingface.load_params(init, recipe.config)
  state = _State(params, tx.init(params), jax.tree.map(jnp.array, params))
  rng = np.random.default_rng(seed)
  start, tokens = time.monotonic(), 0
  if by_need:
    recipe = _by_need(recipe, _development(recipe, params))
  batches = _batches(rng, recipe)
  for i in range(1, recipe.steps + 1):
    batch = next(batches)
    state, loss = step(state, batch)
    tokens += int((batch['segment'] > 0).sum())
    if i % 100 == 0:
      seconds = time.monotonic() - start
      left = seconds / i * (recipe.steps - i)
      print(
        f'step {i}/{recipe.steps} loss {float(loss):.4f} '
        f'{tokens / 1e6:.2f} M tokens, {tokens / seconds:.0f}/s, '
        f'{left:.0f} s left',
        flush=True,
      )
    if i % STEPS_PER_SCORE == 0 and recipe.domain is composition:
      scores = _development(recipe, state.average)
      if by_need:
        recipe = _by_need(recipe, scores)
        batches = _batches(rng, recipe)
  return jax.device_get(state.average)


def _development(recipe: Recipe, params: decoder.Params) -> dict[str, float]:
  """Prints scores on a part of the development probes.

  Returns:
    The mean of both formats, by module.
  """
  found = []
  for answer_format in ('steps', 'direct'):
    probes = recipe.domain.probes('development', answer_format)[::3]
    scores = score(recipe, params, probes)
    worst = sorted(scores, key=scores.get)[:6]
    print(
      f'  development, {answer_format}: mean '
      f'{np.mean(list(scores.values())):.3f}, least '
      + ', '.join(f'{name} {scores[name]:.2f}' for name in worst),
      flush=True,
    )
    found.append(scores)
  return {name: (found[0][name] + found[1][name]) / 2 for name in found[0]}


def _by_need(recipe: Recipe, scores: dict[str, float]) -> Recipe:
  weights = np.array([0.2 + 1 - scores[name] for name in recipe.modules])
  return dataclasses.replace(recipe, weights=weights / weights.sum())


@functools.cache
def _sampler(config: decoder.DecoderConfig) -> sampler_lib.Sampler:
  return sampler_lib.Sampler(
    config,
    stop_tokens=[tokenizer_lib.EOS_ID],
    batch_size=144,
    max_new_tokens=48,
  )


def score(
  recipe: Recipe, params: decoder.Params, probes: Sequence[Probe]
) -> dict[str, float]:
  """The share of right greedy answers, by module."""
  tokenizer = recipe.tokenizer
  prompts = [tokenizer.encode(p.prompt).ids for p in probes]
  greedy = logits_lib.Sampling(max_tokens=48)
  texts = [
    tokenizer.decode(list(g.tokens))
    for g in _sampler(recipe.config)(
      params, prompts, [greedy] * len(prompts), [0] * len(prompts)
    )
  ]
  scores, _ = scoring.score(probes, texts, recipe.domain.is_correct)
  return {name: s.mean for name, s in scores.items()}


def _card(command: str, role: str, recipe: Recipe, scores, count: int) -> str:
  mean = {f: sum(s.values()) / len(s) for f, s in scores.items()}
  rows = '\n'.join(
    f'| {name} | {scores["steps"][name]:.3f} | {scores["direct"][name]:.3f} |'
    for name in scores['steps']
  )
  return f"""# The built-in {role}

{decoder.num_params(recipe.config):,} parameters, trained from scratch with

    {command}

on {', '.join(recipe.modules)}. Numbers are written least significant digit
first, which the tokenizer does. Held-out scores (greedy, {count} probes a
module, none in any training text):

| module | step by step | direct |
|---|---|---|
{rows}
| **mean** | **{mean['steps']:.3f}** | {mean['direct']:.3f} |
"""


def write(
  command: str, role: str, recipe: Recipe, params, directory: pathlib.Path
) -> None:
  """Writes the model directory, scored as it is stored."""
  huggingface.save(
    directory,
    recipe.config,
    params,
    dtype=recipe.dtype,
    eos_token_id=tokenizer_lib.EOS_ID,
    pad_token_id=tokenizer_lib.PAD_ID,
  )
  recipe.tokenizer.save(str(directory / 'tokenizer.json'))
  names = {
    'tokenizer_class': 'PreTrainedTokenizerFast',
    'eos_token': tokenizer_lib.EOS,
    'pad_token': tokenizer_lib.PAD,
    'unk_token': '<unk>',
    'clean_up_tokenization_spaces': False,
    # Without types of tokens, which `generate` of a Llama refuses.
    'model_input_names': ['input_ids', 'attention_mask'],
  }
  (directory / 'tokenizer_config.json').write_text(
    json.dumps(names, indent=2) + '\n'
  )
  stored = huggingface.load_params(directory, recipe.config)
  probes = {f: recipe.domain.probes('held_out', f) for f in ('steps', 'direct')}
  scores = {f: score(recipe, stored, p) for f, p in probes.items()}
  count = len(probes['steps']) // len(recipe.domain.MODULES)
  (directory / 'README.md').write_text(
    _card(command, role, recipe, scores, count)
  )


def _command(options: dict[str, Any]) -> str:
  given = [
    f'--{name}' if value is True else f'--{name}={value}'
    for name, value in options.items()
    if value not in (None, False) or name == 'seed'
  ]
  return ' '.join(['python scripts/train_builtin_teacher.py', *given])


def main(argv: Sequence[str]) -> None:
  del argv
  names = ('domain', 'role', 'seed', 'steps', 'init', 'by_need')
  options = {name: flags.FLAGS[name].value for name in names}
  recipe = _RECIPES[options['domain']](options['role'])
  if options['steps']:
    recipe = dataclasses.replace(recipe, steps=options['steps'])
  init = options['init'] and pathlib.Path(options['init'])
  params = train(recipe, options['seed'], init=init, by_need=options['by_need'])
  directory = pathlib.Path(flags.FLAGS.output_dir)
  write(_command(options), options['role'], recipe, params, directory)
  print((directory / 'README.md').read_text())


if __name__ == '__main__':
  commandline.run(main)
