"""See ioa_jax/commands/, or --help."""

from ioa_jax.commands import init_domain
from ioa_jax.runtime import commandline

if __name__ == '__main__':
  commandline.run(init_domain.main)
