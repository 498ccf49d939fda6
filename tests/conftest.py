"""Several CPU devices and strict numerics for every test."""

import os

# Before JAX is imported: the flags are read once.
os.environ['JAX_PLATFORMS'] = 'cpu'
os.environ.setdefault(
  'XLA_FLAGS', '--xla_force_host_platform_device_count=4'
)

import jax  # noqa: E402

jax.config.update('jax_numpy_rank_promotion', 'raise')
