"""See ioa_jax/commands/, or --help."""

from ioa_jax.commands import gsm8k_seeds
from ioa_jax.runtime import commandline

if __name__ == '__main__':
  commandline.run(gsm8k_seeds.main)
