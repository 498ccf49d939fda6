"""The page of all settings: python -m ioa_jax.config > docs/settings.md."""

from ioa_jax.config import describe

print(describe.markdown(), end='')
