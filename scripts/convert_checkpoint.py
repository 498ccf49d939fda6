"""See ioa_jax/commands/, or --help."""

from ioa_jax.commands import convert_checkpoint
from ioa_jax.runtime import commandline

if __name__ == '__main__':
  commandline.run(convert_checkpoint.main)
