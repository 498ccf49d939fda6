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

from ioa_jax.runtime import terminal

FLAGS = flags.FLAGS


def define_flags() -> None:
  flags.DEFINE_string(
    'source',
    None,
    'Hugging Face directory, preset, hub id, Orbax directory, run.',
  )
  flags.DEFINE_string('target', None, 'The directory to write.')
  flags.DEFINE_string(
    'like', None, "Model directory that a run's student descends from."
  )
  flags.DEFINE_integer(
    'step', None, "Of a run's checkpoints; by default the newest."
  )
  flags.DEFINE_enum(
    'weights',
    'average',
    ['average', 'params'],
    "Of a run's checkpoint: the running average, which is what a run exports, "
    'or the last step.',
  )
  flags.DEFINE_enum(
    'dtype',
    None,
    ['float32', 'bfloat16', 'float16'],
    'Stored in; by default float32 in Orbax and bfloat16 in Hugging Face.',
  )
  flags.DEFINE_bool(
    'verify', False, 'Read the result back and compare every parameter.'
  )
  flags.mark_flags_as_required(['source', 'target'])


def main(argv: Sequence[str]) -> None:
  del argv
  # Imported after the flags are checked: bad input answers at once.
  import jax

  from ioa_jax.models import checks, hub, huggingface, orbax_params

  target = pathlib.Path(FLAGS.target)
  if target.exists() and (not target.is_dir() or any(target.iterdir())):
    raise ValueError(f'{target}: not empty; choose a new directory.')
  if orbax_params.is_checkpoint(FLAGS.source):
    source = pathlib.Path(FLAGS.source)
    model = (
      hub.locate(FLAGS.like) if FLAGS.like else source / orbax_params.MODEL
    )
    if not model.is_dir():
      raise ValueError(
        f'{source} is a run; give --like=DIR, the model directory that its '
        'student descends from.'
      )
    config = huggingface.read_config(model)
    params = orbax_params.load(
      source, config, step=FLAGS.step, field=FLAGS.weights
    )
    dtype = FLAGS.dtype or 'bfloat16'
    checks.finite(params, source)
    huggingface.save(target, config, params, dtype=dtype, source=model)
    read_back = lambda: huggingface.load_params(target, config, dtype)
  else:
    source = hub.locate(FLAGS.source)
    config = huggingface.read_config(source)
    dtype = FLAGS.dtype or 'float32'
    params = huggingface.load_params(source, config, dtype)
    checks.finite(params, source)
    orbax_params.save(target, config, params, source=source)
    read_back = lambda: orbax_params.load(target, config)
  count = sum(x.size for x in jax.tree.leaves(params))
  terminal.say(f'{source} -> {target}: {count:,} parameters in {dtype}.')
  if FLAGS.verify:
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
  terminal.say(
    f'Verified: logits of source and target differ by {error:.3g} (and by '
    f'{rounding:.3g} from rounding to {dtype}).'
  )
