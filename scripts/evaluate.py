"""See ioa_jax/commands/, or --help."""

from ioa_jax.commands import evaluate
from ioa_jax.runtime import commandline

if __name__ == '__main__':
  commandline.run(evaluate.main)
