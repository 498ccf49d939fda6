"""Learning from a teacher with other tokens: identities, NumPy as oracle."""

import functools
import json
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tokenizers

from ioa_jax import config as config_lib
from ioa_jax import people
from ioa_jax import subject as subject_lib
from ioa_jax.models import decoder
from ioa_jax.runtime import sharding
from ioa_jax.training import alignment, distillation, losses, packing, spans
from ioa_jax.training import curriculum as curriculum_lib
from ioa_jax.training import trainer as trainer_lib
from tests import (
  test_distilled_step,
  test_pipeline,
  test_step,
  tokenizer_pairs,
)
from tests.tokenizer_pairs import named

L, K = 64, 6
TEXTS = [
  ('the theatre of', ' 12 teachers teach 345 thé 😀 words'),
  ('what?', 'the theatre of the teachers'),
  ('日本', 'ab  cd\n'),
  ('and', ''),
]
DIVERGENCES = ['forward_kl', 'reverse_kl', 'jsd']


@functools.cache
def config(rows):
  return decoder.DecoderConfig(
    vocab_size=rows,
    width=16,
    num_layers=1,
    num_heads=2,
    num_kv_heads=1,
    head_width=8,
    mlp_width=16,
  )


@functools.cache
def params(rows, seed):
  """Peaked, so that k tokens are not nearly nothing."""
  found = decoder.init(config(rows), jax.random.key(seed))
  return found | {'embedding': 4 * found['embedding']}


@functools.cache
def objective(divergence='forward_kl'):
  return distillation.make_objective(
    divergence=divergence,
    beta=0.3,
    weight=1.0,
    temperature=1.0,
    on_policy_share=0.5,
  )


def packed(student):
  return packing.pack(
    [
      packing.Example(student.codec.prompt(q), student.codec.answer(a))
      for q, a in TEXTS
    ],
    L,
  )


@functools.cache
def scorer(student, teacher, ranked=False):
  student, teacher = named(student), named(teacher)
  size = len(teacher.pieces)
  return spans.SpanScorer(
    config(size),
    params(size, 1),
    student,
    teacher,
    k=K,
    batch_rows=2,
    ranked=ranked,
  )


def loss_and_gradient(rows, what, size, seed=2):
  """Of a student with `size` tokens."""
  return _loss_and_gradient(size, params(size, seed), rows, what)


@functools.partial(jax.jit, static_argnums=0)
def _loss_and_gradient(size, params, rows, what):
  def loss(params):
    hidden = decoder.forward(
      config(size), params, rows['token'], rows['segment'], rows['position']
    )
    total, count = distillation.token_loss(
      config(size), params, hidden, rows, what
    )
    return total / count

  return jax.value_and_grad(loss)(params)


def log_probs(rows, size, seed):
  return np.asarray(_log_probs(size, params(size, seed), rows), np.float64)


@functools.partial(jax.jit, static_argnums=0)
def _log_probs(size, params, rows):
  hidden = decoder.forward(
    config(size), params, rows['token'], rows['segment'], rows['position']
  )
  logits = decoder.unembed(config(size), params, hidden)
  return jax.nn.log_softmax(logits.astype(jnp.float32))


@pytest.mark.parametrize(
  'name,ranked', [('small', False), ('small', True), ('sentencepiece', False)]
)
def test_with_the_same_tokenizer_it_is_the_plain_path(name, ranked):
  same = named(name)
  size = len(same.pieces)
  rows = packed(same)
  plain = distillation.Scorer(config(size), params(size, 1), k=K, batch_rows=2)
  plain = plain(rows)
  score = scorer(name, name, ranked)
  found = score(rows)
  learned = rows['weight'] > 0
  for field in packing.TEACHER_FIELDS:
    np.testing.assert_array_equal(found[field][learned], plain[field][learned])
  assert not found['span'].any()
  if name != 'small':
    return
  what = objective()
  want = loss_and_gradient(plain, what, size)
  if ranked:
    what = what.replace(alone_V=score.alone_V)
  got = loss_and_gradient(found, what, size)
  np.testing.assert_allclose(got[0], want[0], rtol=1e-6)
  assert want[0] > 0.1
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6),
    got[1],
    want[1],
  )


def permuted(name, seed=5):
  """The same tokens by other ids; ids of the first for those of the second."""
  raw = json.loads(named(name).codec.tokenizer.to_str())
  vocabulary = raw['model']['vocab']
  new = np.random.default_rng(seed).permutation(len(vocabulary))
  raw['model']['vocab'] = {t: int(new[i]) for t, i in vocabulary.items()}
  for token in raw['added_tokens']:
    token['id'] = int(new[token['id']])
  tokenizer = tokenizers.Tokenizer.from_str(json.dumps(raw))
  return tokenizer_pairs.tokenization(tokenizer), np.argsort(new)


def test_a_teacher_that_is_the_student_by_other_ids():
  student = named('small')
  size = len(student.pieces)
  teacher, old = permuted('small')
  assert (alignment.counterparts(student, teacher) == old).all()
  rows, weights = packed(student), params(size, 2)
  score = spans.SpanScorer(
    config(size),
    weights | {'embedding': weights['embedding'][old]},
    student,
    teacher,
    k=K,
    batch_rows=2,
  )
  found = score(rows)
  plain = distillation.Scorer(config(size), weights, k=K, batch_rows=2)(rows)
  got = loss_and_gradient(found, objective(), size)
  want = loss_and_gradient(plain, objective(), size)
  # What is left is the rounding of the stored log-probabilities.
  assert 0 <= got[0] < 1e-4
  np.testing.assert_allclose(got[0], want[0], atol=1e-6)
  other = loss_and_gradient(found, objective(), size, seed=3)
  assert other[0] > 0.01


def oracle(rows, student, teacher):
  """Per text: NumPy's divergences (forward KL) of tokens and of spans."""
  mine = log_probs(rows, len(student.pieces), 2)
  own = {p: i for i, p in enumerate(student.pieces) if p is not None}

  def kl(p, q):
    p, q = (np.append(x, 1 - np.sum(x)) for x in (p, q))
    return float(np.sum(p * np.log(p / q)))

  total, kinds = 0.0, set()
  for r, start, tokens in packing.segments(rows):
    question, answer = next(
      (q, a)
      for q, a in TEXTS
      if (*student.codec.prompt(q), *student.codec.answer(a)) == tokens
    )
    prompt = len(student.codec.prompt(question))
    theirs = [*teacher.codec.prompt(question), *teacher.codec.answer(answer)]
    their_prompt = len(teacher.codec.prompt(question))
    read = packing.pack([packing.Example(theirs[:1], theirs[1:])], 2 * L)
    their = log_probs(read, len(teacher.pieces), 1)[0]
    pieces = lambda t, ids: [t.pieces[i] or b'' for i in ids]
    ours = pieces(student, tokens[prompt:])
    others = pieces(teacher, theirs[their_prompt:])
    i = j = 0
    while i < len(ours):
      # The next place at which the same was written, token by token.
      stop, their_stop = next(
        (a, b)
        for a in range(i + 1, len(ours) + 1)
        for b in range(j + 1, len(others) + 1)
        if b''.join(ours[i:a]) == b''.join(others[j:b])
      )
      at, their_at = start + prompt - 1 + i, their_prompt - 1 + j
      if (stop - i, their_stop - j) == (1, 1):
        top = np.argsort(-their[their_at])[:K]
        pairs = [
          (student.end if t == teacher.end else own.get(teacher.pieces[t]), t)
          for t in top
        ]
        pairs = [(s, t) for s, t in pairs if s is not None]
        p = np.exp([their[their_at, t] for _, t in pairs])
        q = np.exp([mine[r, at, s] for s, _ in pairs])
        total += kl(p, q)
      else:
        add = lambda x, at, ids: sum(x[at + n, t] for n, t in enumerate(ids))
        p = add(
          their, their_at, theirs[their_prompt + j : their_prompt + their_stop]
        )
        q = add(mine[r], at, tokens[prompt + i : prompt + stop])
        total += kl(np.exp([p]), np.exp([q]))
      kinds.add((min(stop - i, 2), min(their_stop - j, 2)))
      i, j = stop, their_stop
  return total / rows['weight'].sum(), kinds


@pytest.mark.parametrize('whole', [True, False])
def test_the_loss_of_spans_against_numpy(monkeypatch, whole):
  student, teacher = named('small'), named('large')
  rows = packed(student)
  found = scorer('small', 'large')(rows)
  size = len(student.pieces)
  if not whole:
    monkeypatch.setattr(losses, '_MAX_ROW_LOGITS', 16 * size)
    assert losses._piece(L, size) == 16
    _loss_and_gradient.clear_cache()
  got, gradient = loss_and_gradient(found, objective(), size)
  want, kinds = oracle(rows, student, teacher)
  assert kinds >= {(1, 1), (2, 1)}
  np.testing.assert_allclose(got, want, rtol=3e-3)  # bfloat16 is stored.
  assert all(np.isfinite(x).all() for x in jax.tree.leaves(gradient))
  back, kinds = oracle(packed(teacher), teacher, student)
  assert (1, 2) in kinds
  found = scorer('large', 'small')(packed(teacher))
  got, _ = loss_and_gradient(found, objective(), len(teacher.pieces))
  np.testing.assert_allclose(got, back, rtol=3e-3)


def as_the_student_thinks(rows, size, alone_V=None):
  """The teacher's fields with what the student itself would say there."""
  mine = log_probs(rows, size, 2)
  token = rows['teacher_token']
  own = np.take_along_axis(mine, np.maximum(token, 0), -1)
  there = rows['teacher_log_prob'].astype(np.float32) > -1e29
  if alone_V is not None:
    ranked = -np.sort(-np.where(alone_V, mine, -1e30), -1)
    rank = np.maximum(np.cumsum(token < 0, -1) - 1, 0)
    own = np.where(token < 0, np.take_along_axis(ranked, rank, -1), own)
  own = np.where(there, own, distillation.NEVER)
  target = np.take_along_axis(mine, rows['target'][..., None], -1)[..., 0]
  sums = np.zeros_like(target)
  for r, i in zip(*np.nonzero(rows['span'])):
    sums[r, rows['span'][r, i] - 1] += target[r, i]
  return rows | {
    'teacher_log_prob': own.astype(np.float32),
    'span_log_prob': sums.astype(np.float32),
  }


@pytest.mark.parametrize('divergence', DIVERGENCES)
@pytest.mark.parametrize('ranked', [False, True])
def test_equals_have_nothing_to_learn(divergence, ranked):
  student = named('small')
  size = len(student.pieces)
  score = scorer('small', 'large', ranked)
  rows = score(packed(student))
  assert rows['span'].any() and (rows['teacher_token'] >= 0).any()
  what = objective(divergence).replace(temperature=np.float32(2.0))
  if ranked:
    what = what.replace(alone_V=score.alone_V)
  equal = as_the_student_thinks(rows, size, score.alone_V if ranked else None)
  got, gradient = loss_and_gradient(equal, what, size)
  np.testing.assert_allclose(got, 0.0, atol=1e-6)
  for x in jax.tree.leaves(gradient):
    np.testing.assert_allclose(x, 0.0, atol=1e-5)
  # Others have, and it is finite.
  for seed in range(3, 8):
    got, gradient = loss_and_gradient(rows, what, size, seed)
    assert 0.01 < got < 50
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(gradient))


def test_ranks_against_numpy():
  """The r-th token that only the teacher has stands for the r-th of ours."""
  v, k = 12, 5
  logits = jax.random.normal(jax.random.key(0), (2, 3, v))
  alone = np.arange(v) % 3 == 0
  token = np.full((2, 3, k), -1)
  token[..., 1], token[..., 3] = 4, 7
  log_prob = np.full((2, 3, k), -3.0)
  log_prob[..., 4] = distillation.NEVER
  got = distillation.student_events(logits, token, log_prob, alone)
  q = np.asarray(jax.nn.softmax(logits))
  best = -np.sort(-q[..., alone], -1)
  want = np.stack(
    [best[..., 0], q[..., 4], best[..., 1], q[..., 7], 0 * q[..., 0]], -1
  )
  np.testing.assert_allclose(np.exp(got[..., :k]), want, rtol=1e-5)
  np.testing.assert_allclose(np.exp(got).sum(-1), 1.0, rtol=1e-5)


def test_the_teachers_rows_grow_with_its_tokens_and_are_counted():
  """Bytes are many more tokens than words; one program for each length."""
  student, teacher = named('large'), named('bytes')
  score = scorer('large', 'bytes')
  for _ in range(2):
    score(packed(student))
  assert score.compilations == 1
  long = 'the theatre of the teachers ' * 12
  rows = packing.pack(
    [packing.Example(student.codec.prompt('q'), student.codec.answer(long))],
    128,
  )
  found = score(rows)
  assert score.compilations == 2
  spanned = (found['span'] > 0) | (found['teacher_token'] >= 0).any(-1)
  assert spanned[rows['weight'] > 0].all()
  read = lambda q, a: len(teacher.codec.prompt(q) + teacher.codec.answer(a)) - 1
  want = 2 * sum(read(q, a) for q, a in TEXTS) + read('q', long)
  assert score._counted['teacher_scored'] == want


def test_a_text_that_is_too_long_for_the_teacher_is_named():
  student = named('large')
  score = scorer.__wrapped__('large', 'bytes')
  score._max_positions = 32
  with pytest.raises(
    ValueError, match='of the teacher, which reads 32 at most'
  ):
    score(packed(student))


def letters(pairs):
  """Letters as tokens, and pairs of them where `pairs` are merged."""
  tokens = ['<unk>', '<end>', *'abcdefghijklmnop'[: 14 - len(pairs)], *pairs]
  tokenizer = tokenizers.Tokenizer(
    tokenizers.models.BPE(
      vocab={t: i for i, t in enumerate(tokens)},
      merges=[tuple(pair) for pair in pairs],
      unk_token='<unk>',
    )
  )
  tokenizer.decoder = tokenizers.decoders.Fuse()
  tokenizer.add_special_tokens(['<unk>', '<end>'])
  return tokenizer_pairs.tokenization(tokenizer)


def test_one_trace_for_tokens_and_texts_that_come_in_any_order():
  """Plain rows, rows of spans, own texts: the step is compiled once."""
  student, teacher = letters([]), letters(['ab', 'cd'])
  assert len(student.pieces) == test_step.CONFIG.vocab_size
  score = spans.SpanScorer(
    test_step.CONFIG,
    test_distilled_step.teacher(),
    student,
    teacher,
    k=4,
    batch_rows=4,
  )
  _, state, inputs, mesh, _ = test_step.make(fill=(), max_steps=300)
  slabs = functools.partial(
    curriculum_lib.allocate, length=test_step.L, top_k=4, spans=True
  )
  curriculum = slabs([20] * 3).replace(on_policy=slabs([6] * 3))
  inputs = inputs.replace(
    **trainer_lib.place({'curriculum': curriculum}, mesh),
    distillation=objective(),
  )
  state = state.replace(on_policy_cursor_K=jnp.zeros_like(state.cursor_K))
  window = test_step.new_window(mesh, state)
  trainer = trainer_lib.Trainer(
    window, state, inputs, test_step.NAMES, mesh, score
  )
  text = lambda q, a: packing.Example(
    student.codec.prompt(q), student.codec.answer(a)
  )
  with jax.set_mesh(mesh):
    trainer.add_lessons({'copy': [text('e', 'fghg')] * 8})
    assert not np.asarray(trainer.inputs.curriculum.rows['span']).any()
    trainer.window()
    trainer.add_lessons({'copy': [text('e', 'abgcd'), text('ab', 'cdcda')]})
    assert np.asarray(trainer.inputs.curriculum.rows['span']).any()
    trainer.window()
    for answer in ('aab', 'gfg'):
      own = {name: [text('cd', answer)] * 6 for name in test_step.NAMES}
      trainer.replace_on_policy(own)
      metrics = trainer.window()
  assert trainer.compilations == score.compilations == 1
  assert metrics['ran'].all() and np.isfinite(metrics['loss_sum']).all()
  assert (metrics['row_B'] == -1).any()


def with_other_ids(path):
  """The built-in student whose tokens have other ids."""
  shutil.copytree(people.ASSETS / 'student', path)
  file = path / 'tokenizer.json'
  raw = json.loads(file.read_text())
  vocabulary = raw['model']['vocab']
  # The first three are known by their ids, here and in config.json.
  old = {i: t for t, i in vocabulary.items()}
  last = len(old) - 1
  raw['model']['vocab'] = {
    t: i if i < 3 else last + 3 - i for i, t in old.items()
  }
  file.write_text(json.dumps(raw))
  return path


@pytest.mark.parametrize(
  'changes,message',
  [
    ({}, "Set config.distillation.across_vocabularies='spans'"),
    ({'across_vocabularies': 'span'}, "wanted one of 'refuse', 'spans'"),
    (
      {'across_vocabularies': 'spans', 'divergence': 'none'},
      'there is no local teacher whose distributions are learned',
    ),
    (
      {'across_vocabularies': 'spans', 'top_k': 64},
      'top_k is 64 and the models have 32 tokens',
    ),
  ],
)
def test_other_tokens_want_a_choice(tmp_path, changes, message):
  changes = {f'distillation.{k}': v for k, v in changes.items()}
  config = test_pipeline.load_config(
    'quickstart',
    {
      'distillation.divergence': 'forward_kl',
      'student.model': str(with_other_ids(tmp_path / 'student')),
      **changes,
    },
  )
  with pytest.raises(ValueError, match=message):
    config_lib.validate(config)
    subject_lib.open_subject(config, sharding.make_mesh())


@pytest.mark.slow
@pytest.mark.parametrize('kind', ['spans', 'ranked_spans'])
def test_a_run_with_other_tokens_goes_to_its_end(tmp_path, kind):
  student = with_other_ids(tmp_path / 'student')
  config = test_pipeline.load_config(
    'quickstart',
    test_pipeline.SMALL
    | {
      'method': 'on_policy_distillation',
      'distillation.across_vocabularies': kind,
      'distillation.on_policy_every_steps': 10,
      'student.model': str(student),
    },
  )
  results, _ = test_pipeline.run_config(config, tmp_path / 'run')
  assert results['compilations'] == 1
  own = [
    e
    for e in test_pipeline.events(tmp_path / 'run')
    if e['event'] == 'own_texts'
  ]
  read = results['tokens']['teacher_scored']
  assert read > results['lessons'] + sum(e['tokens'] for e in own)
