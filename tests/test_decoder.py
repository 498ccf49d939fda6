"""The decoder against transformers, and against its own definition."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import safetensors.numpy

from ioa_jax.models import cache as cache_lib
from ioa_jax.models import decoder, huggingface
from ioa_jax.models.architectures import Layer
from ioa_jax.runtime import sharding

torch = pytest.importorskip('torch')
transformers = pytest.importorskip('transformers')

LLAMA3 = {
  'rope_type': 'llama3',
  'rope_theta': 5e5,
  'low_freq_factor': 1.0,
  'high_freq_factor': 4.0,
  'original_max_position_embeddings': 8192,
}
DEFAULT = {'rope_type': 'default', 'rope_theta': 1e6}
HEADS = dict(
  hidden_size=64,
  num_attention_heads=4,
  num_key_value_heads=2,
  head_dim=32,
  vocab_size=96,
  rms_norm_eps=1e-6,
  # torch gives the embedding of what pads no gradient.
  pad_token_id=95,
)
# Families at small sizes; together the grouped-query ratios 1, 2, 3 and 7. Of
# two layers the first has a window of 5 (rows have 24), or the second no RoPE.
CASES = {
  'llama31': (
    transformers.LlamaConfig,
    dict(
      hidden_size=64,
      num_attention_heads=4,
      num_key_value_heads=2,
      head_dim=32,
      rope_parameters=LLAMA3 | {'factor': 8.0},
      tie_word_embeddings=False,
      rms_norm_eps=1e-5,
      vocab_size=96,
    ),
  ),
  'llama32': (
    transformers.LlamaConfig,
    dict(
      hidden_size=96,
      num_attention_heads=6,
      num_key_value_heads=2,
      head_dim=16,
      rope_parameters=LLAMA3 | {'factor': 32.0},
      tie_word_embeddings=True,
      rms_norm_eps=1e-5,
      vocab_size=96,
    ),
  ),
  'qwen25_tied': (
    transformers.Qwen2Config,
    dict(
      hidden_size=112,
      num_attention_heads=14,
      num_key_value_heads=2,
      rope_parameters={'rope_type': 'default', 'rope_theta': 1e6},
      tie_word_embeddings=True,
      rms_norm_eps=1e-6,
      vocab_size=96,
    ),
  ),
  'qwen25_untied': (
    transformers.Qwen2Config,
    dict(
      hidden_size=64,
      num_attention_heads=4,
      num_key_value_heads=4,
      rope_parameters={'rope_type': 'default', 'rope_theta': 1e6},
      tie_word_embeddings=False,
      rms_norm_eps=1e-6,
      vocab_size=104,
    ),
  ),
  'smollm2': (
    transformers.LlamaConfig,
    dict(
      hidden_size=72,
      num_attention_heads=9,
      num_key_value_heads=3,
      rope_parameters={'rope_type': 'default', 'rope_theta': 1e5},
      tie_word_embeddings=True,
      rms_norm_eps=1e-5,
      vocab_size=96,
    ),
  ),
  'qwen3': (
    transformers.Qwen3Config,
    HEADS
    | dict(
      rope_parameters=DEFAULT,
      tie_word_embeddings=True,
    ),
  ),
  'qwen3_window': (
    transformers.Qwen3Config,
    HEADS
    | dict(
      rope_parameters=DEFAULT,
      tie_word_embeddings=False,
      use_sliding_window=True,
      sliding_window=5,
      max_window_layers=1,
    ),
  ),
  'gemma3': (
    transformers.Gemma3TextConfig,
    HEADS
    | dict(
      tie_word_embeddings=True,
      sliding_window=5,
      sliding_window_pattern=2,
      query_pre_attn_scalar=48,
      final_logit_softcapping=3.0,
      rope_scaling={'rope_type': 'linear', 'factor': 8.0},
    ),
  ),
  'mistral': (
    transformers.MistralConfig,
    HEADS
    | dict(
      rope_parameters=DEFAULT,
      tie_word_embeddings=False,
      sliding_window=5,
    ),
  ),
  'mistral_full': (
    transformers.MistralConfig,
    HEADS
    | dict(
      rope_parameters=DEFAULT,
      tie_word_embeddings=False,
      sliding_window=None,
    ),
  ),
  'smollm3': (
    transformers.SmolLM3Config,
    HEADS
    | dict(
      rope_parameters=DEFAULT,
      tie_word_embeddings=True,
      no_rope_layer_interval=2,
    ),
  ),
  # Qwen's card for texts past 32,768 tokens.
  'yarn': (
    transformers.Qwen2Config,
    HEADS
    | dict(
      rope_parameters=DEFAULT
      | {
        'rope_type': 'yarn',
        'factor': 4.0,
        'original_max_position_embeddings': 32_768,
      },
      tie_word_embeddings=True,
    ),
  ),
  'linear': (
    transformers.LlamaConfig,
    HEADS
    | dict(
      rope_parameters=DEFAULT | {'rope_type': 'linear', 'factor': 4.0},
      tie_word_embeddings=True,
    ),
  ),
  # All but one sequence are longer than 6 tokens.
  'dynamic': (
    transformers.LlamaConfig,
    HEADS
    | dict(
      rope_parameters=DEFAULT | {'rope_type': 'dynamic', 'factor': 4.0},
      tie_word_embeddings=True,
      max_position_embeddings=6,
    ),
  ),
}
# What only some of them have is compiled for a mesh as well.
MESH = dict(data=1, fsdp=2, tensor=2)
ON_A_MESH = (
  'llama31',
  'llama32',
  'qwen25_tied',
  'qwen25_untied',
  'smollm2',
  'gemma3',
)
PLACES = {name: (name, None) for name in CASES} | {
  f'{name}-mesh': (name, MESH) for name in ON_A_MESH
}
ADAMW = dict(betas=(0.9, 0.95), eps=1e-8, weight_decay=0.01)
# The published rate for a whole step. Adam's first step is the gradient's sign,
# so an entry whose gradient is rounding noise (1e-8 beside 1e-2) may go either
# way; a rate 50 times larger is therefore compared on equal gradients.
STEP_RATE, ARITHMETIC_RATE = 2e-5, 1e-3
NUM_TOKENS = 90  # The rest of the vocabulary is padding.


@dataclasses.dataclass(frozen=True)
class Sequence:
  """Tokens at consecutive positions, and where a packed row keeps them."""

  row: int
  column: int
  first_position: int
  token: np.ndarray


def make_sequences(longest):
  """Rows of 24: full, left-padded, right-padded, and three packed.

  The full one lies past the 8192 positions of Llama 3's pre-training, one of
  the packed ones near the end of its 131072.
  """
  rng = np.random.default_rng(0)
  far = longest > 131_000
  places = [
    (0, 0, 8180 * far, 24),
    (1, 7, 0, 17),
    (2, 0, 0, 15),
    (3, 0, 0, 6),
    (3, 6, 131_000 * far, 9),
    (3, 15, 0, 7),
  ]
  return [
    Sequence(row, column, first, rng.integers(0, NUM_TOKENS, length))
    for row, column, first, length in places
  ]


def pack(sequences):
  rows = {
    name: np.zeros((4, 24), np.int32)
    for name in ('token', 'segment', 'position', 'target', 'weight')
  }
  for i, s in enumerate(sequences):
    at = s.row, slice(s.column, s.column + len(s.token))
    rows['token'][at] = s.token
    rows['segment'][at] = i + 1
    rows['position'][at] = s.first_position + np.arange(len(s.token))
    rows['target'][at] = np.roll(s.token, -1)
    rows['weight'][at] = np.arange(len(s.token)) < len(s.token) - 1
  return {k: jnp.asarray(v) for k, v in rows.items()}


@pytest.fixture(scope='module')
def reference(request, tmp_path_factory):
  """A random transformers model with its logits, gradients and AdamW step.

  It reads every sequence alone, so it needs no mask of its own: whatever
  padding or packing does wrong on our side shows.
  """
  kind, sizes = CASES[request.param]
  torch.manual_seed(0)
  hf_config = kind(
    **{'max_position_embeddings': 131_072} | sizes,
    intermediate_size=160,
    num_hidden_layers=2,
    attn_implementation='eager',
    initializer_range=sizes['hidden_size'] ** -0.5,
  )
  model = transformers.AutoModelForCausalLM.from_config(hf_config).float()
  with torch.no_grad():
    for name, p in model.named_parameters():
      if name.endswith('bias'):
        p.normal_()
      if 'norm' in name:
        p.add_(0.3 * torch.randn_like(p))
  root = tmp_path_factory.mktemp(request.param)
  model.save_pretrained(root / 'start')

  sequences = make_sequences(hf_config.max_position_embeddings)
  logits, loss, count = [], 0.0, 0
  for s in sequences:
    token = torch.tensor(s.token)[None]
    position = s.first_position + torch.arange(len(s.token))[None]
    # Dynamic RoPE would remember the longest text so far.
    rotary = model.model.rotary_emb
    model.model.rotary_emb = type(rotary)(hf_config)
    out = model(input_ids=token, position_ids=position).logits
    logits.append(out[0].detach().numpy())
    loss = loss + torch.nn.functional.cross_entropy(
      out[0, :-1], token[0, 1:], reduction='sum'
    )
    count += len(s.token) - 1
  (loss / count).backward()
  # Gradients have the names and layout of weights, so they load like weights.
  save_like_weights(
    root / 'grads', hf_config, {n: p.grad for n, p in model.named_parameters()}
  )
  start = {n: p.detach().clone() for n, p in model.state_dict().items()}
  for rate in (STEP_RATE, ARITHMETIC_RATE):
    model.load_state_dict(start)
    torch.optim.AdamW(model.parameters(), lr=rate, **ADAMW).step()
    save_like_weights(
      root / f'stepped_{rate}', hf_config, dict(model.named_parameters())
    )
  return root, sequences, logits, (loss / count).item()


def save_like_weights(directory, hf_config, tensors):
  directory.mkdir()
  hf_config.save_pretrained(directory)
  arrays = {n: t.detach().numpy() for n, t in tensors.items()}
  safetensors.numpy.save_file(arrays, directory / 'model.safetensors')


def loss_fn(config, params, rows):
  hidden = decoder.forward(
    config, params, rows['token'], rows['segment'], rows['position']
  )
  logits = decoder.unembed(config, params, hidden)
  log_probs = jax.nn.log_softmax(logits)
  nll = -jnp.take_along_axis(log_probs, rows['target'][..., None], -1)[..., 0]
  return (nll * rows['weight']).sum() / rows['weight'].sum(), logits


def train_step(config, params, rows):
  (loss, logits), grads = jax.value_and_grad(loss_fn, argnums=1, has_aux=True)(
    config, params, rows
  )
  return loss, logits, grads, adamw_step(params, grads, STEP_RATE)


def adamw_step(params, grads, rate):
  (b1, b2), eps, decay = ADAMW.values()
  tx = optax.adamw(rate, b1=b1, b2=b2, eps=eps, weight_decay=decay)
  updates, _ = tx.update(grads, tx.init(params), params)
  return optax.apply_updates(params, updates)


def by_path(tree):
  leaves = jax.tree_util.tree_leaves_with_path(jax.device_get(tree))
  return {jax.tree_util.keystr(path): leaf for path, leaf in leaves}


@pytest.mark.parametrize(
  ('reference', 'mesh_axes'),
  PLACES.values(),
  ids=list(PLACES),
  indirect=['reference'],
)
def test_equals_transformers(reference, mesh_axes):
  root, sequences, want_logits, want_loss = reference
  config = huggingface.read_config(root / 'start')
  params = huggingface.load_params(root / 'start', config)
  rows = pack(sequences)
  step = jax.jit(train_step, static_argnums=0)
  if mesh_axes is None:
    loss, logits, grads, stepped = step(config, params, rows)
  else:
    mesh = sharding.make_mesh(**mesh_axes)
    with jax.set_mesh(mesh):
      params = jax.device_put(params, sharding.param_shardings(mesh, params))
      by_row = jax.NamedSharding(mesh, sharding.spec(('batch', 'length')))
      rows = jax.device_put(rows, by_row)
      loss, logits, grads, stepped = step(config, params, rows)
    assert not stepped['layers']['q_proj']['kernel'].is_fully_replicated

  logits = jax.device_get(logits)
  for s, want in zip(sequences, want_logits, strict=True):
    got = logits[s.row, s.column : s.column + len(s.token)]
    assert 0.5 < want.std() < 2  # Unit scale, so 1e-4 means something.
    np.testing.assert_allclose(got, want, rtol=0, atol=1e-4)
  np.testing.assert_allclose(loss, want_loss, rtol=1e-5)

  got_grads = by_path(grads)
  want_grads = by_path(huggingface.load_params(root / 'grads', config))
  assert got_grads.keys() == want_grads.keys()
  for path, want in want_grads.items():
    error = np.abs(got_grads[path] - want).max() / np.abs(want).max()
    assert error < 1e-3, f'{path}: {error}'

  assert_close(stepped, root / f'stepped_{STEP_RATE}', config)
  if mesh_axes is None:
    grads = huggingface.load_params(root / 'grads', config)
    stepped = jax.jit(adamw_step)(params, grads, ARITHMETIC_RATE)
    assert_close(stepped, root / f'stepped_{ARITHMETIC_RATE}', config)


def assert_close(params, directory, config):
  got = by_path(params)
  for path, want in by_path(huggingface.load_params(directory, config)).items():
    np.testing.assert_allclose(got[path], want, atol=1e-5, rtol=0, err_msg=path)


CONFIG = decoder.DecoderConfig(
  vocab_size=50,
  width=48,
  num_layers=3,
  num_heads=6,
  num_kv_heads=2,
  head_width=16,
  mlp_width=80,
)


@pytest.fixture(scope='module')
def params():
  return jax.jit(decoder.init, static_argnums=0)(CONFIG, jax.random.key(0))


def random_rows(batch=3, length=12, segments=1):
  token = jax.random.randint(jax.random.key(1), (batch, length), 0, 50)
  per_segment = length // segments
  column = jnp.broadcast_to(jnp.arange(length), (batch, length))
  return token, column // per_segment + 1, column % per_segment


def test_no_gradient_from_later_tokens_or_other_segments(params):
  token, segment, position = random_rows(batch=2, length=12, segments=2)

  def hidden_at(embedded_noise, column):
    # Shifts single input embeddings through tokens of their own.
    embedding = jnp.concatenate([params['embedding'], embedded_noise])
    config = dataclasses.replace(CONFIG, vocab_size=50 + 12)
    own_token = jnp.broadcast_to(50 + jnp.arange(12), token.shape)
    hidden = decoder.forward(
      config, params | {'embedding': embedding}, own_token, segment, position
    )
    return hidden[0, column].sum()

  noise = jax.random.normal(jax.random.key(2), (12, CONFIG.width))
  gradient = jax.jit(jax.grad(hidden_at))
  for column in (2, 5, 6, 11):
    seen = np.abs(gradient(noise, column)).sum(-1) > 0
    first = 0 if column < 6 else 6
    want = (np.arange(12) >= first) & (np.arange(12) <= column)
    np.testing.assert_array_equal(seen, want)


PATTERNS = {
  'all': (Layer(),),
  'window': (Layer(window=4),),
  'both': (Layer(window=4), Layer(window=4, theta=1e3), Layer(rotates=False)),
}


# The real batch sizes: a cache that is wrong at some of them was met before.
@pytest.mark.parametrize('unroll', [1, 3], ids=['scanned', 'unrolled'])
@pytest.mark.parametrize(
  ('batch', 'pattern'),
  [(1, 'all'), (3, 'all'), (32, 'all'), (3, 'window'), (3, 'both')],
)
def test_cached_decoding_equals_the_full_forward(
  params, batch, pattern, unroll
):
  """Also where a ring has gone round, and what padded a prompt is in it."""
  config = dataclasses.replace(
    CONFIG, scan_unroll=unroll, layer_pattern=PATTERNS[pattern]
  )
  length, prompt = 10 if pattern == 'all' else 24, 6
  token, segment, position = random_rows(batch, length)
  want = jax.jit(decoder.forward, static_argnums=0)(
    dataclasses.replace(config, scan_unroll=1),
    params,
    token,
    segment,
    position,
  )

  extend = jax.jit(decoder.forward_cached, static_argnums=0)
  cache = cache_lib.empty(config, batch, length + 3, prompt)
  rings = {x.shape[-2] for x in jax.tree.leaves(cache)} - {length + 3}
  assert rings == (set() if pattern == 'all' else {4 - 1 + prompt})
  hidden, cache = extend(
    config, params, token[:, :prompt], jnp.zeros(batch, jnp.int32), cache
  )
  np.testing.assert_allclose(hidden, want[:, :prompt], atol=1e-5)
  # Each row goes on from a place of its own; what was read behind it is junk.
  held = np.arange(batch) % prompt + 1
  for _ in range(length - prompt):
    row = np.arange(batch)
    hidden, cache = extend(
      config, params, token[row, held][:, None], jnp.asarray(held), cache
    )
    np.testing.assert_allclose(hidden[:, 0], want[row, held], atol=1e-5)
    held += 1


def test_unrolling_and_remat_change_nothing(params):
  token, segment, position = random_rows()

  def gradient(config):
    def loss(params):
      hidden = decoder.forward(config, params, token, segment, position)
      return jnp.square(decoder.unembed(config, params, hidden)).mean()

    traced = jax.jit(jax.grad(loss)).trace(params)
    return str(traced.jaxpr), traced.lower().compile()(params)

  plain_jaxpr, want = gradient(CONFIG)
  for change in ({'scan_unroll': 3}, {'remat': 'full'}, {'remat': 'dots'}):
    jaxpr, got = gradient(dataclasses.replace(CONFIG, **change))
    # The change is there in the program, not only in the config.
    assert jaxpr != plain_jaxpr
    # Only layers are remade so; SwiGLU, which always is, has True there.
    assert ('prevent_cse=False' in jaxpr) == ('remat' in change)
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
      np.testing.assert_allclose(a, b, atol=1e-6, rtol=1e-5)


def test_remat_policies_keep_different_amounts():
  """`none` keeps most for the backward pass, `full` least."""
  token, segment, position = random_rows(8, 64)

  def kept(remat):
    config = dataclasses.replace(CONFIG, remat=remat)
    shapes = decoder.abstract_params(config)
    loss = lambda p: decoder.forward(config, p, token, segment, position).sum()
    _, backward = jax.eval_shape(lambda p: jax.vjp(loss, p), shapes)
    return sum(x.size for x in jax.tree.leaves(backward))

  assert kept('none') > kept('dots') > kept('full')


def test_layers_of_several_windows_keep_no_more_than_of_one():
  """What the branches of attention keep is kept once."""
  token, segment, position = random_rows(8, 64)

  def kept(pattern):
    config = dataclasses.replace(CONFIG, layer_pattern=PATTERNS[pattern])
    shapes = decoder.abstract_params(config)
    loss = lambda p: decoder.forward(config, p, token, segment, position).sum()
    _, backward = jax.eval_shape(lambda p: jax.vjp(loss, p), shapes)
    return sum(x.size for x in jax.tree.leaves(backward))

  # Tables of three rotations, and which one a layer has.
  tables = 3 * 2 * token.size * CONFIG.head_width
  assert kept('all') <= kept('both') <= kept('all') + tables


def test_padding_of_the_vocabulary_is_masked(params):
  hidden = jax.random.normal(jax.random.key(3), (2, CONFIG.width))
  config = dataclasses.replace(CONFIG, num_tokens=47)
  plain = decoder.unembed(CONFIG, params, hidden)
  masked = decoder.unembed(config, params, hidden)
  np.testing.assert_array_equal(masked[:, :47], plain[:, :47])
  assert jax.nn.softmax(masked)[:, 47:].sum() == 0
  assert np.isfinite(masked).all()


@pytest.mark.parametrize('pattern', ['all', 'both'])
def test_the_compiled_program_does_not_grow_with_depth(pattern):
  token, segment, position = random_rows()

  def num_instructions(num_layers):
    config = dataclasses.replace(
      CONFIG, num_layers=num_layers, layer_pattern=PATTERNS[pattern]
    )

    def loss(params):
      hidden = decoder.forward(config, params, token, segment, position)
      return decoder.unembed(config, params, hidden).mean()

    shapes = decoder.abstract_params(config)
    compiled = jax.jit(jax.grad(loss)).lower(shapes).compile()
    return compiled.as_text().count(' = ')

  assert num_instructions(4) == num_instructions(28)
