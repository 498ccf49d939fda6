"""Several CPU devices for every test."""

import os

# Before JAX is imported: the flags are read once.
os.environ['JAX_PLATFORMS'] = 'cpu'
os.environ.setdefault('XLA_FLAGS', '--xla_force_host_platform_device_count=4')
