"""What a teacher with other tokens adds to few lessons, on held-out text.

python -m tests.test_spans_effect prints the numbers of docs/decisions.md.
"""

import functools

import jax
import numpy as np
import optax
import pytest
import tokenizers
from tokenizers import decoders, pre_tokenizers, trainers

from ioa_jax.models import decoder
from ioa_jax.training import distillation, losses, packing, spans
from tests import tokenizer_pairs

L, K, ROWS = 48, 16, 8
LESSONS, STEPS = 48, 150


def sentences(seed, count):
  """A question and an answer in words of a small language with a grammar.

  The words are the same for all seeds; which follows which is a matter of
  chance, so a distribution says more than one text of it.
  """
  words = np.random.default_rng(0)
  syllables = 'ka lo mi ter an sun vel dor ith qua'.split()
  word = lambda: ''.join(words.choice(syllables, words.integers(1, 4)))
  kinds = [[word() for _ in range(8)] for _ in range(4)]
  follows = words.dirichlet(np.full(8, 0.5), (4, 8))
  rng = np.random.default_rng(seed)
  found = []
  for _ in range(count):
    at, said = rng.integers(8), []
    for i in range(8):
      kind = kinds[i % 4]
      at = rng.choice(8, p=follows[i % 4, at])
      said.append(kind[at])
    found.append((' '.join(said[:2]), ' ' + ' '.join(said[2:])))
  return found


@functools.cache
def tokenization(size):
  tokenizer = tokenizers.Tokenizer(tokenizers.models.BPE())
  tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
  tokenizer.decoder = decoders.ByteLevel()
  trainer = trainers.BpeTrainer(
    vocab_size=size, special_tokens=['<end>'], show_progress=False
  )
  texts = [question + answer for question, answer in sentences(99, 300)]
  tokenizer.train_from_iterator(texts, trainer)
  return tokenizer_pairs.tokenization(tokenizer)


def config(size):
  return decoder.DecoderConfig(
    vocab_size=size,
    width=48,
    num_layers=2,
    num_heads=4,
    num_kv_heads=2,
    head_width=12,
    mlp_width=96,
    scan_unroll=2,
  )


def rows_of(tokenization, texts):
  return packing.pack(
    [
      packing.Example(
        tokenization.codec.prompt(q), tokenization.codec.answer(a)
      )
      for q, a in texts
    ],
    L,
  )


def loss_of(config, params, rows, objective):
  hidden = decoder.forward(
    config, params, rows['token'], rows['segment'], rows['position']
  )
  if objective is None:
    total, count = losses.token_cross_entropy(
      config, params, hidden, rows['target'], rows['weight']
    )
  else:
    total, count = distillation.token_loss(
      config, params, hidden, rows, objective
    )
  return total / count


_OPTIMIZER = optax.adam(3e-3)


@functools.partial(jax.jit, static_argnums=0)
def step(config, params, state, rows, objective):
  gradient = jax.grad(functools.partial(loss_of, config))(
    params, rows, objective
  )
  updates, state = _OPTIMIZER.update(gradient, state)
  return optax.apply_updates(params, updates), state


def train(tokenization, rows, seed, steps, objective=None):
  size = config(len(tokenization.pieces))
  params = decoder.init(size, jax.random.key(seed))
  state = _OPTIMIZER.init(params)
  rng = np.random.default_rng(seed)
  for _ in range(steps):
    chosen = rng.integers(len(rows['token']), size=ROWS)
    batch = {name: value[chosen] for name, value in rows.items()}
    params, state = step(size, params, state, batch, objective)
  return params


def held_out(tokenization, params):
  """Nats a byte of answers that nobody was taught."""
  texts = sentences(7, 200)
  rows = rows_of(tokenization, texts)
  size = config(len(tokenization.pieces))
  loss = jax.jit(functools.partial(loss_of, size))(params, rows, None)
  count = sum(len(answer) + 1 for _, answer in texts)
  return float(loss) * rows['weight'].sum() / count


@functools.cache
def strong():
  """A teacher that has read much."""
  teacher = tokenization(70)
  return train(teacher, rows_of(teacher, sentences(1, 1500)), 5, 300)


def measure(seed, kinds=('text', 'spans', 'ranked')):
  """Held-out loss of the teacher, and of students of each kind."""
  student, teacher = tokenization(40), tokenization(70)
  lessons = rows_of(student, sentences(100 + seed, LESSONS))
  found = {'teacher': held_out(teacher, strong())}
  for kind in kinds:
    rows, objective = lessons, None
    if kind != 'text':
      score = spans.SpanScorer(
        config(len(teacher.pieces)),
        strong(),
        student,
        teacher,
        k=K,
        batch_rows=ROWS,
        ranked=kind == 'ranked',
      )
      rows = score(lessons)
      objective = distillation.make_objective(
        divergence='forward_kl',
        beta=0.5,
        weight=0.8,
        temperature=1.0,
        on_policy_share=0.5,
      )
      if kind == 'ranked':
        objective = objective.replace(alone_V=score.alone_V)
      found[f'{kind} one to one'] = float(
        (rows['span'][rows['weight'] > 0] == 0).mean()
      )
    found[kind] = held_out(
      student, train(student, rows, seed, STEPS, objective)
    )
  return found


@pytest.mark.slow
@pytest.mark.parametrize('seed', range(3))
def test_spans_teach_more_than_the_lessons_alone(seed):
  found = measure(seed, ('text', 'spans'))
  assert found['teacher'] < found['spans'] < 0.95 * found['text']


if __name__ == '__main__':
  for seed in range(3):
    found = measure(seed)
    print(seed, {k: round(float(v), 4) for k, v in found.items()}, flush=True)
