r"""Trains the models that ship with the built-in domains, from scratch.

The teacher learns every module, step by step and at once; the base student
learns generic string tasks and the easy modules only. Neither ever sees a
probe. Writes a Hugging Face directory with a card of held-out scores; what is
chosen while a recipe is made is chosen on other probes.

  python scripts/train_builtin_teacher.py --role=teacher --output_dir=DIR
  python scripts/train_builtin_teacher.py --role=student --output_dir=DIR

The teacher of `composition` came of two of its commands; a card names all that
made a model. The second goes on from what the first wrote:

  python scripts/train_builtin_teacher.py --domain=composition --role=teacher \
    --output_dir=teacher_1
  python scripts/train_builtin_teacher.py --domain=composition --role=teacher \
    --init=teacher_1 --by_need --seed=1 --steps=650 --output_dir=teacher_2

Two CPU cores, arithmetic: about 25 minutes for the teacher, 2 for the student.
The two commands took about 20 minutes of CPU time.
"""

from collections.abc import Iterator, Sequence
import dataclasses
import functools
import json
import pathlib
import textwrap
import time
from typing import Any

from absl import flags
from builtin_recipes import RECIPES, Recipe
import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
import optax

from ioa_jax.domains import composition
from ioa_jax.domains import tokenizer as tokenizer_lib
from ioa_jax.evaluation import scoring
from ioa_jax.models import decoder, huggingface
from ioa_jax.records import Probe
from ioa_jax.runtime import commandline
from ioa_jax.sampling import logits as logits_lib
from ioa_jax.sampling import sampler as sampler_lib
from ioa_jax.training import losses, optimizer, packing

flags.DEFINE_enum(
  'domain', 'arithmetic', list(RECIPES), 'What the model is made for.'
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

_SCRIPT = 'python scripts/train_builtin_teacher.py'
ROW_LENGTH = 64
EXAMPLES_PER_CORPUS = 30_000
# Steps between two scores on the development probes, where a domain has them.
STEPS_PER_SCORE = 325


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
  """With what is lacking shown most, and more at once: that is learned last."""
  weights = np.array([0.2 + 1 - scores[name] for name in recipe.modules])
  return dataclasses.replace(
    recipe, weights=weights / weights.sum(), direct_share=0.7
  )


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
  grades = [
    recipe.domain.score(text, p.answer)
    for p, text in zip(probes, texts, strict=True)
  ]
  scores, _ = scoring.score(probes, texts, grades)
  return {name: s.mean for name, s in scores.items()}


def _card(
  commands: Sequence[str], role: str, recipe: Recipe, scores, count: int
) -> str:
  mean = {f: sum(s.values()) / len(s) for f, s in scores.items()}
  rows = '\n'.join(
    f'| {name} | {scores["steps"][name]:.3f} | {scores["direct"][name]:.3f} |'
    for name in scores['steps']
  )
  made_by = ''.join(f'    {command}\n' for command in commands)
  learned = textwrap.fill(
    f'on {", ".join(recipe.modules)}. Numbers are written least significant '
    'digit first, which the tokenizer does. Held-out scores (greedy, '
    f'{count} probes a module, none in any training text):',
    break_on_hyphens=False,
  )
  return f"""# The built-in {role}

{decoder.num_params(recipe.config):,} parameters, trained from scratch with

{made_by}
{learned}

| module | step by step | direct |
|---|---|---|
{rows}
| **mean** | **{mean['steps']:.3f}** | {mean['direct']:.3f} |
"""


def write(
  commands: Sequence[str],
  role: str,
  recipe: Recipe,
  params: decoder.Params,
  directory: pathlib.Path,
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
    _card(commands, role, recipe, scores, count)
  )


def _command(options: dict[str, Any]) -> str:
  given = [
    f'--{name}' if value is True else f'--{name}={value}'
    for name, value in options.items()
    if value not in (None, False) or name == 'seed'
  ]
  return ' '.join([_SCRIPT, *given])


def _commands_before(init: pathlib.Path | None) -> list[str]:
  """Those that made the model that training goes on from, by its card."""
  if init is None:
    return []
  lines = (init / 'README.md').read_text().splitlines()
  return [x.strip() for x in lines if x.startswith(f'    {_SCRIPT}')]


def main(argv: Sequence[str]) -> None:
  del argv
  names = ('domain', 'role', 'seed', 'steps', 'init', 'by_need', 'output_dir')
  options = {name: flags.FLAGS[name].value for name in names}
  if options['by_need'] and options['domain'] != 'composition':
    raise ValueError('--by_need needs development probes: those of composition')
  recipe = RECIPES[options['domain']](options['role'])
  if options['steps']:
    recipe = dataclasses.replace(recipe, steps=options['steps'])
  init = options['init'] and pathlib.Path(options['init'])
  params = train(recipe, options['seed'], init=init, by_need=options['by_need'])
  directory = pathlib.Path(flags.FLAGS.output_dir)
  commands = [*_commands_before(init), _command(options)]
  write(commands, options['role'], recipe, params, directory)
  print((directory / 'README.md').read_text())


if __name__ == '__main__':
  commandline.run(main)
