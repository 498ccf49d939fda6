"""Low-rank adapters: a tree of their own, exact when merged, PEFT's on disk."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import safetensors.numpy

from ioa_jax.models import decoder, huggingface, lora, peft
from ioa_jax.runtime import sharding
from ioa_jax.training import optimizer

CONFIG = decoder.DecoderConfig(
  vocab_size=30,
  width=24,
  num_layers=2,
  num_heads=4,
  num_kv_heads=2,
  head_width=8,
  mlp_width=40,
)
SPEC = lora.LoraSpec(rank=3, alpha=6.0, dropout=0.0, targets=lora.PROJECTIONS)
TOKEN = np.arange(12, dtype=np.int32).reshape(2, 6)
SEGMENT = np.ones((2, 6), np.int32)
POSITION = np.arange(6, dtype=np.int32)[None] * SEGMENT


@pytest.fixture(scope='module')
def base():
  return jax.jit(decoder.init, static_argnums=0)(CONFIG, jax.random.key(0))


def trained(base, spec=SPEC, seed=1):
  """Adapters whose `b` is no longer zero."""
  adapters = lora.init(spec, base, jax.random.key(seed))
  rng = np.random.default_rng(seed)
  return {
    target: {'a': x['a'], 'b': np.float32(rng.normal(size=x['b'].shape))}
    for target, x in adapters.items()
  }


@jax.jit
def logits(params):
  hidden = decoder.forward(CONFIG, params, TOKEN, SEGMENT, POSITION)
  return decoder.unembed(CONFIG, params, hidden)


def test_fresh_adapters_change_nothing(base):
  adapters = lora.init(SPEC, base, jax.random.key(1))
  attached = lora.attach(base, adapters, SPEC)
  np.testing.assert_array_equal(logits(attached), logits(base))
  # And need only the shapes of the base.
  shapes = lora.init(SPEC, decoder.abstract_params(CONFIG), jax.random.key(1))
  assert jax.tree.map(jnp.shape, shapes) == jax.tree.map(jnp.shape, adapters)


def test_attached_equals_merged(base):
  adapters = trained(base)
  got = logits(lora.attach(base, adapters, SPEC))
  want = logits(lora.merge(base, adapters, SPEC))
  assert np.abs(want - logits(base)).max() > 0.1
  np.testing.assert_allclose(got, want, atol=2e-5)


def test_every_projection_counts(base):
  plain = logits(base)
  for target in lora.PROJECTIONS:
    spec = dataclasses.replace(SPEC, targets=(target,))
    adapters = trained(base, spec)
    assert list(adapters) == [target]
    got = logits(lora.attach(base, adapters, spec))
    np.testing.assert_allclose(
      got, logits(lora.merge(base, adapters, spec)), atol=2e-5
    )
    assert np.abs(got - plain).max() > 1e-3


def test_a_population_over_one_base(base):
  population = [trained(base, seed=s) for s in range(3)]
  stacked = jax.tree.map(lambda *x: jnp.stack(x), *population)
  got = jax.jit(
    jax.vmap(lambda a: logits.__wrapped__(lora.attach(base, a, SPEC)))
  )(stacked)
  for one, adapters in zip(got, population, strict=True):
    np.testing.assert_allclose(
      one, logits(lora.attach(base, adapters, SPEC)), atol=1e-5
    )


def test_dropout_follows_its_key_and_is_unbiased(base):
  spec = dataclasses.replace(SPEC, dropout=0.5, targets=('v_proj',))
  adapters = trained(base, spec)

  def drop(seed):
    key = jax.random.key(seed)
    return logits(lora.attach(base, adapters, spec, dropout_key=key))

  assert (drop(0) == drop(0)).all() and (drop(0) != drop(1)).any()
  np.testing.assert_array_equal(
    logits(lora.attach(base, adapters, spec)),
    logits(lora.attach(base, adapters, dataclasses.replace(spec, dropout=0.0))),
  )
  x = jnp.ones((4000, 24))
  one = {'a': adapters['v_proj']['a'][0], 'b': adapters['v_proj']['b'][0]}
  dropped = lora.delta(
    x, one | {'key': jax.random.key(0), 'keep': 0.5 * jnp.ones(())}
  )
  want = lora.delta(x, one)[0]
  error = np.abs(dropped.mean(0) - want) / (dropped.std(0) / 4000**0.5)
  assert error.max() < 4.5  # Standard errors, over 16 columns.


def test_only_the_adapters_train(base):
  """Weight decay, moments and updates cover the adapters and nothing else."""
  adapters = lora.init(SPEC, base, jax.random.key(1))
  recipe = optimizer.Recipe(
    name='adamw',
    learning_rate=1e-2,
    warmup_share=0.05,
    final_share=0.1,
    weight_decay=0.1,
    b1=0.9,
    b2=0.95,
    clip_norm=1.0,
    momentum_dtype='float32',
  )
  tx, _ = optimizer.make(recipe, total_steps=20)

  @jax.jit
  def step(adapters, opt_state, key):
    def loss(adapters):
      params = lora.attach(base, adapters, SPEC, dropout_key=key)
      log_probs = jax.nn.log_softmax(logits.__wrapped__(params)[:, :-1])
      return -jnp.take_along_axis(log_probs, TOKEN[:, 1:, None], -1).mean()

    value, grads = jax.value_and_grad(loss)(adapters)
    updates, opt_state = tx.update(grads, opt_state, adapters)
    return value, optax.apply_updates(adapters, updates), opt_state

  opt_state = tx.init(adapters)
  count = sum(x.size for x in jax.tree.leaves(adapters))
  assert sum(x.size for x in jax.tree.leaves(opt_state)) < 2 * count + 10
  losses = []
  for i in range(20):
    value, adapters, opt_state = step(adapters, opt_state, jax.random.key(i))
    losses.append(float(value))
  assert losses[-1] < 0.8 * losses[0]


def test_adapters_shard_like_their_kernels(base):
  mesh = sharding.make_mesh(data=1, fsdp=2, tensor=2)
  adapters = trained(base)
  placed = jax.device_put(adapters, sharding.param_shardings(mesh, adapters))
  assert placed['down_proj']['a'].addressable_shards[0].data.shape == (2, 20, 3)
  with jax.set_mesh(mesh):
    params = jax.device_put(base, sharding.param_shardings(mesh, base))
    got = logits.__wrapped__(lora.attach(params, placed, SPEC))
  np.testing.assert_allclose(
    jax.device_get(got), logits(lora.attach(base, adapters, SPEC)), atol=1e-5
  )


def test_peft_layout(base, tmp_path):
  adapters = trained(base)
  peft.save(tmp_path, adapters, SPEC, base_model='org/base')
  raw = json.loads((tmp_path / 'adapter_config.json').read_text())
  assert raw['r'] == 3 and raw['lora_alpha'] == 6.0
  tensors = safetensors.numpy.load_file(tmp_path / 'adapter_model.safetensors')
  assert len(tensors) == 2 * 7 * CONFIG.num_layers
  # By hand: lora_A is (r, in), lora_B is (out, r).
  prefix = 'base_model.model.model.layers.1.mlp.down_proj'
  a = tensors[f'{prefix}.lora_A.weight']
  b = tensors[f'{prefix}.lora_B.weight']
  assert a.shape == (3, 40) and b.shape == (24, 3)
  np.testing.assert_array_equal(a.T, adapters['down_proj']['a'][1])
  np.testing.assert_array_equal(b.T, adapters['down_proj']['b'][1])
  loaded, spec = peft.load(tmp_path, CONFIG.num_layers)
  assert spec == dataclasses.replace(SPEC, targets=tuple(sorted(SPEC.targets)))
  for x, y in zip(jax.tree.leaves(loaded), jax.tree.leaves(adapters)):
    np.testing.assert_array_equal(x, y)


def test_peft_loads_the_export(base, tmp_path):
  torch = pytest.importorskip('torch')
  transformers = pytest.importorskip('transformers')
  library = pytest.importorskip('peft')
  adapters = trained(base)
  huggingface.save(tmp_path / 'base', CONFIG, base, dtype='float32')
  peft.save(tmp_path / 'lora', adapters, SPEC, base_model=tmp_path / 'base')
  model = library.PeftModel.from_pretrained(
    transformers.AutoModelForCausalLM.from_pretrained(tmp_path / 'base'),
    tmp_path / 'lora',
  )
  with torch.no_grad():
    want = model(torch.tensor(TOKEN, dtype=torch.long)).logits.numpy()
  got = logits(lora.attach(base, adapters, SPEC))
  np.testing.assert_allclose(got / want.std(), want / want.std(), atol=1e-4)


@pytest.mark.parametrize(
  ('field', 'value', 'message'),
  [
    ('use_dora', True, 'use_dora True is not supported'),
    ('rank_pattern', {'q_proj': 4}, 'asks for rank 4'),
    ('r', None, "field 'r' is missing"),
    ('target_modules', ['embed_tokens'], "modules .'embed_tokens'. unknown"),
  ],
)
def test_other_adapters_are_refused(base, tmp_path, field, value, message):
  peft.save(tmp_path, trained(base), SPEC, base_model='x')
  raw = json.loads((tmp_path / 'adapter_config.json').read_text())
  raw = {k: v for k, v in (raw | {field: value}).items() if v is not None}
  (tmp_path / 'adapter_config.json').write_text(json.dumps(raw))
  with pytest.raises(ValueError, match=message):
    peft.load(tmp_path, CONFIG.num_layers)


def test_a_bad_spec_is_named():
  with pytest.raises(ValueError, match=r"'w_proj'. unknown; choose of"):
    lora.LoraSpec(targets=('w_proj',))
  with pytest.raises(ValueError, match='rank 0 must be >= 1'):
    lora.LoraSpec(rank=0)
