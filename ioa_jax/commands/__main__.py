"""python -m ioa_jax.commands, as `ioa`."""

from ioa_jax.commands import main

main()
