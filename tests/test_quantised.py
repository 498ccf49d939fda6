"""A frozen base in 8 and 4 bits: what it computes, where it lies, its size."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ioa_jax import config as config_lib
from ioa_jax.models import decoder, huggingface, lora, quantised
from ioa_jax.runtime import sharding
from tests import tiny_models

pytest.importorskip('qwix', reason="pip install -e '.[qlora]'")
CONFIGS = tiny_models.CONFIGS
SPEC = lora.LoraSpec(rank=2, dropout=0.0, targets=lora.PROJECTIONS)
TOKEN = np.arange(40, dtype=np.int32).reshape(2, 20)
# Levels of a normal distribution's quantiles (Dettmers et al., 2023, app. E).
NF4 = np.array(
  [
    -1.0,
    -0.6961928,
    -0.52507305,
    -0.39491749,
    -0.28444138,
    -0.18477343,
    -0.09105004,
    0.0,
    0.0795803,
    0.1609302,
    0.2461123,
    0.33791524,
    0.44070983,
    0.562617,
    0.72295684,
    1.0,
  ],
  np.float32,
)


def steps(kernel_DxF, kind):
  """The definitions, written again in NumPy."""
  if kind == 'int8':
    scale = np.abs(kernel_DxF).max(0) / np.float32(127.5)
    return np.clip(np.round(kernel_DxF / scale), -127, 127) * scale
  d, f = kernel_DxF.shape
  blocks = kernel_DxF.reshape(-1, np.gcd(64, d), f)
  scale = np.abs(blocks).max(1, keepdims=True)
  nearest = np.abs((blocks / scale)[..., None] - NF4).argmin(-1)
  return (NF4[nearest] * scale).reshape(d, f)


@pytest.mark.parametrize('kind', quantised.KINDS)
@pytest.mark.parametrize('width', [48, 128])
def test_kernels_are_rounded_as_defined(kind, width):
  kernel = np.float32(np.random.default_rng(0).normal(size=(3, width, 20)))
  made = jax.jit(quantised.quantise, static_argnums=1)(kernel, kind)
  want = np.stack([steps(k, kind) for k in kernel])
  got = quantised.whole(made)
  assert got.dtype == jnp.float32
  # The nearest level; a weight midway between two may go to either.
  assert (np.abs(got - kernel) <= np.abs(want - kernel) + 1e-5).all()
  assert made.qvalue.dtype == {'int8': jnp.int8, 'nf4': jnp.uint4}[kind]
  error = float(np.abs(got - kernel).mean() / np.abs(kernel).mean())
  assert error < {'int8': 0.01, 'nf4': 0.12}[kind]
  np.testing.assert_array_equal(quantised.whole(kernel), kernel)


def logits(config, params):
  one = jnp.ones(TOKEN.shape, jnp.int32)
  hidden = decoder.forward(config, params, TOKEN, one, jnp.arange(20) * one)
  return decoder.unembed(config, params, hidden)


def adapted(base):
  adapters = lora.init(SPEC, base, jax.random.key(0))
  rng = np.random.default_rng(1)
  draw = lambda x: np.float32(0.1 * rng.normal(size=x.shape))
  return {t: {'a': x['a'], 'b': draw(x['b'])} for t, x in adapters.items()}


@pytest.mark.parametrize(
  ('name', 'kind'),
  [*((name, 'nf4') for name in CONFIGS), ('llama', 'int8')],
  ids=[*CONFIGS, 'llama-int8'],
)
def test_adapters_over_a_quantised_base(name, kind):
  """Logits and gradients are those over the rounded weights, made whole."""
  config = CONFIGS[name]
  params = jax.tree.map(jnp.asarray, tiny_models.random_params(config, 0.3))
  base = quantised.quantise_projections(params, kind)
  rounded = base | {'layers': quantised.whole_projections(base['layers'])}
  adapters = adapted(base)

  @jax.jit
  def run(adapters, base):
    got = logits(config, lora.attach(base, adapters, SPEC))
    return jnp.square(got).mean(), got

  def learn(base):
    return jax.value_and_grad(run, has_aux=True)(adapters, base)

  (_, got), grads = learn(base)
  (_, want), want_grads = learn(rounded)
  scale = float(want.std())
  np.testing.assert_allclose(got / scale, want / scale, atol=2e-5)
  for a, b in zip(
    jax.tree.leaves(grads), jax.tree.leaves(want_grads), strict=True
  ):
    assert np.abs(a - b).max() < 1e-3 * np.abs(b).max()
  merged = lora.merge(base, adapters, SPEC)
  assert jax.tree.structure(merged) == jax.tree.structure(params)
  np.testing.assert_allclose(
    logits(config, merged) / scale, want / scale, atol=1e-4
  )


def test_the_backward_pass_keeps_no_whole_kernel():
  """Else all layers' would be there at once, and nothing were gained."""
  config = CONFIGS['llama']
  shapes = decoder.abstract_params(config)
  base = jax.eval_shape(
    lambda x: quantised.quantise_projections(x, 'int8'), shapes
  )
  adapters = jax.eval_shape(
    lambda x: lora.init(SPEC, x, jax.random.key(0)), base
  )

  def kept(base):
    run = lambda a, b: logits(config, lora.attach(b, a, SPEC)).sum()
    _, backward = jax.eval_shape(
      lambda a, b: jax.vjp(lambda a: run(a, b), a), adapters, base
    )
    return [x for x in jax.tree.leaves(backward) if x.ndim]

  kernel = shapes['layers']['gate_proj']['kernel']
  floats = [
    x
    for x in kept(base)
    if x.shape == kernel.shape and jnp.issubdtype(x.dtype, jnp.floating)
  ]
  assert not floats
  assert any(x.shape == kernel.shape for x in kept(shapes))


@pytest.mark.parametrize('kind', quantised.KINDS)
def test_a_checkpoint_is_quantised_as_it_is_read(tmp_path, kind):
  """Onto a mesh, each part where its kernel's part would lie."""
  config = CONFIGS['llama']
  params = tiny_models.random_params(config)
  huggingface.save(tmp_path, config, params, dtype='float32')
  mesh = sharding.make_mesh(data=1, fsdp=2, tensor=2)
  shardings = sharding.param_shardings(mesh, decoder.abstract_params(config))
  loaded = huggingface.load_params(
    tmp_path, config, quantization=kind, shardings=shardings
  )
  alone = huggingface.load_params(tmp_path, config, quantization=kind)
  assert jax.tree.structure(alone) == jax.tree.structure(loaded)
  for a, b in zip(jax.tree.leaves(loaded), jax.tree.leaves(alone), strict=True):
    np.testing.assert_array_equal(
      np.asarray(a, np.float32), np.asarray(b, np.float32)
    )
  down = loaded['layers']['down_proj']['kernel']
  assert down.qvalue.addressable_shards[0].data.shape == (3, 24, 16)
  assert down.scale.addressable_shards[0].data.shape[2] == 16
  assert jax.tree.map(lambda x: x.sharding, loaded) == sharding.param_shardings(
    mesh, loaded
  )


def test_what_trains_is_not_quantised():
  with pytest.raises(ValueError, match=r"'int3' unknown; choose of"):
    quantised.quantise(jnp.ones((1, 2, 2)), 'int3')
  config = config_lib.get('quickstart', {'student.quantization': 'nf4'})
  with pytest.raises(ValueError, match='quantization is .nf4. and all weights'):
    config_lib.validate(config)


@pytest.mark.parametrize('kind', ['', *quantised.KINDS])
@pytest.mark.parametrize('dtype', ['float32', 'bfloat16'])
def test_an_export_by_layer_has_the_same_bytes(tmp_path, kind, dtype):
  config = CONFIGS['llama']
  params = jax.tree.map(jnp.asarray, tiny_models.random_params(config, 0.3))
  base = quantised.quantise_projections(params, kind) if kind else params
  spec = lora.LoraSpec(rank=2, targets=('q_proj', 'down_proj'))
  adapters = {t: x for t, x in adapted(base).items() if t in spec.targets}
  for name, merge in (('whole', lora.merge), ('layer', lora.merge_by_layer)):
    huggingface.save(
      tmp_path / name,
      config,
      merge(base, adapters, spec),
      dtype=dtype,
      max_shard_bytes=20_000,
    )
  files = [p.name for p in (tmp_path / 'whole').iterdir()]
  assert len(files) > 5
  for file in files:
    got, want = ((tmp_path / n / file).read_bytes() for n in ('layer', 'whole'))
    assert got == want, file
  # And they are the sum that is meant.
  stored = huggingface.load_params(tmp_path / 'layer', config)
  kernel = np.asarray(quantised.whole(base['layers']['q_proj']['kernel']))
  a, b = (np.asarray(adapters['q_proj'][x], np.float64) for x in 'ab')
  np.testing.assert_allclose(
    stored['layers']['q_proj']['kernel'],
    kernel + spec.scale * a @ b,
    rtol={'float32': 1e-5, 'bfloat16': 2**-8}[dtype],
    atol=1e-6,
  )


def test_what_a_dtype_cannot_hold_is_seen_by_layer(tmp_path):
  config = CONFIGS['llama']
  params = jax.tree.map(jnp.asarray, tiny_models.random_params(config, 0.3))
  base = quantised.quantise_projections(params, 'int8')
  adapters = adapted(base)
  adapters['k_proj']['b'][-1] *= 1e8
  with pytest.raises(huggingface.ModelError, match='layers/k_proj/kernel hold'):
    huggingface.save(
      tmp_path / 'm',
      config,
      lora.merge_by_layer(base, adapters, SPEC),
      dtype='float16',
    )
  assert not (tmp_path / 'm').exists()
