"""Settings of a run: declared once, checked once, known by their content.

  from ioa_jax import config as config_lib

  config_lib.get('quickstart', {'train.total_steps': 200})

Where a setting is declared: `people` (domain, teacher, student) and `settings`
(all others). The package itself can be called, so that `ioa_jax.config(...)` is
`load(...)`.
"""

from __future__ import annotations

import sys
import types

from ioa_jax.config.checks import (
  ConfigError,
  check_name,
  fewest_probes,
  flatten,
  nearest,
  parse,
  pass_rate,
  validate,
)
from ioa_jax.config.describe import fields
from ioa_jax.config.files import call, get, load, resolve, shipped
from ioa_jax.config.identity import difference, sha256, to_json
from ioa_jax.config.methods import METHODS, Settled, settle

__all__ = [
  'METHODS',
  'ConfigError',
  'Settled',
  'call',
  'check_name',
  'difference',
  'fewest_probes',
  'fields',
  'flatten',
  'get',
  'load',
  'nearest',
  'parse',
  'pass_rate',
  'resolve',
  'settle',
  'sha256',
  'shipped',
  'to_json',
  'validate',
]


class _Callable(types.ModuleType):
  """`import ioa_jax as ioa; ioa.config('quickstart')`, beside the package."""

  def __call__(self, base, changes=None):
    return load(base, changes)


sys.modules[__name__].__class__ = _Callable
