"""When two configurations are one run."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import ml_collections

from ioa_jax.config.checks import flatten
from ioa_jax.config.describe import fields

_ABSENT = '(absent)'


def to_json(config: ml_collections.ConfigDict) -> str:
  return json.dumps(config.to_dict(), indent=2, sort_keys=True) + '\n'


def sha256(config: ml_collections.ConfigDict) -> str:
  return hashlib.sha256(to_json(config).encode()).hexdigest()


def difference(old: dict[str, Any], new: dict[str, Any]) -> list[str]:
  """Lines `field: old -> new` for fields that make it another run.

  A field that an older configuration lacks has its default, which is what was
  done before there was one.
  """
  known = fields()
  # As JSON has them.
  default = {
    k: list(f.default) if f.kind is tuple else f.default
    for k, f in known.items()
  }
  a, b = flatten(old), flatten(new)
  value = lambda flat, k: flat.get(k, default.get(k, _ABSENT))
  return [
    f'{k}: {value(a, k)!r} -> {value(b, k)!r}'
    for k in sorted(a.keys() | b.keys())
    if value(a, k) != value(b, k) and not (k in known and known[k].changeable)
  ]
