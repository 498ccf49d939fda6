r"""Converts a model between Orbax and Hugging Face, in either direction.

  # A Hugging Face directory (or hub id) to Orbax, and back:
  python scripts/convert_checkpoint.py --source=HF_DIR --target=ORBAX_DIR
  python scripts/convert_checkpoint.py --source=ORBAX_DIR --target=HF_DIR
  # A run's newest checkpoint, while it is training or after:
  python scripts/convert_checkpoint.py --source=RUN --like=STUDENT_DIR \
    --target=HF_DIR --verify

The direction follows from what --source is. --like names the model directory
that a run's student descends from: its sizes, tokenizer and chat template.
--verify reads the result back and compares every parameter, and logits on
random tokens.
"""

from collections.abc import Sequence
import pathlib

from absl import flags

from ioa_jax import commandline

_SOURCE = flags.DEFINE_string(
  'source',
  None,
  'Hugging Face directory, preset, hub id, Orbax directory, run.',
)
_TARGET = flags.DEFINE_string('target', None, 'The directory to write.')
_LIKE = flags.DEFINE_string(
  'like', None, "Model directory that a run's student descends from."
)
_STEP = flags.DEFINE_integer(
  'step', None, "Of a run's checkpoints; by default the newest."
)
_WEIGHTS = flags.DEFINE_enum(
  'weights', 'average', ['average', 'params'],
  "Of a run's checkpoint: the running average, which is what a run exports, or "
  'the last step.',
)  # fmt: skip
_DTYPE = flags.DEFINE_enum(
  'dtype', None, ['float32', 'bfloat16', 'float16'],
  'Stored in; by default float32 in Orbax and bfloat16 in Hugging Face.',
)  # fmt: skip
_VERIFY = flags.DEFINE_bool(
  'verify', False, 'Read the result back and compare logits.'
)
flags.mark_flags_as_required(['source', 'target'])


def main(argv: Sequence[str]) -> None:
  if len(argv) > 1:
    raise ValueError(f'unexpected argument {argv[1]!r}.')
  # Imported after the flags are checked: bad input answers at once.
  import jax

  from ioa_jax.models import checks, hub, huggingface, orbax_params

  target = pathlib.Path(_TARGET.value)
  if target.exists() and (not target.is_dir() or any(target.iterdir())):
    raise ValueError(f'{target}: not empty; choose a new directory.')
  if orbax_params.is_checkpoint(_SOURCE.value):
    source = pathlib.Path(_SOURCE.value)
    model = (
      hub.locate(_LIKE.value) if _LIKE.value else source / orbax_params.MODEL
    )
    if not model.is_dir():
      raise ValueError(
        f'{source} is a run; give --like=DIR, the model directory that its '
        'student descends from.'
      )
    config = huggingface.read_config(model)
    params = orbax_params.load(
      source, config, step=_STEP.value, field=_WEIGHTS.value
    )
    dtype = _DTYPE.value or 'bfloat16'
    checks.finite(params, source)
    huggingface.save(target, config, params, dtype=dtype, source=model)
    read_back = lambda: huggingface.load_params(target, config, dtype)
  else:
    source = hub.locate(_SOURCE.value)
    config = huggingface.read_config(source)
    dtype = _DTYPE.value or 'float32'
    params = huggingface.load_params(source, config, dtype)
    checks.finite(params, source)
    orbax_params.save(target, config, params, source=source)
    read_back = lambda: orbax_params.load(target, config)
  count = sum(x.size for x in jax.tree.leaves(params))
  print(f'{source} -> {target}: {count:,} parameters in {dtype}.')
  if _VERIFY.value:
    _verify(config, params, read_back(), dtype)


def _verify(config, params, written, dtype) -> None:
  """Compares with `params` as rounded to `dtype`.

  On the host: XLA's maximum on CPU drops a NaN.
  """
  import jax
  import jax.numpy as jnp
  import numpy as np

  from ioa_jax.models import checks, decoder

  shape = (2, 16)
  token = jax.random.randint(jax.random.key(0), shape, 0, config.vocab_size)
  position = jnp.broadcast_to(jnp.arange(shape[1]), shape)

  @jax.jit
  def logits(params):
    params = jax.tree.map(lambda x: x.astype(jnp.float32), params)
    hidden = decoder.forward(
      config, params, token, jnp.ones(shape, jnp.int32), position
    )
    return decoder.unembed(config, params, hidden)

  rounded = jax.tree.map(lambda x: x.astype(dtype), params)
  checks.same(rounded, written)
  want = np.asarray(logits(rounded))
  error = np.abs(np.asarray(logits(written)) - want).max()
  rounding = np.abs(np.asarray(logits(params)) - want).max()
  if not error <= 1e-6:
    raise ValueError(
      f'verification failed: logits differ by {error:.3g}; delete the target '
      'and convert again.'
    )
  print(
    f'Verified: logits of source and target differ by {error:.3g} (and by '
    f'{rounding:.3g} from rounding to {dtype}).'
  )


if __name__ == '__main__':
  commandline.run(main)
