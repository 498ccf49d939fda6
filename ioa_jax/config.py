"""Checks of a run's configuration, and its identity on disk."""

from __future__ import annotations

import difflib
import hashlib
import json
from typing import Any

import ml_collections

from ioa_jax.baselines.methods import METHODS


class ConfigError(ValueError):
  """A configuration that cannot be run; one line that says what to change."""


# The field's path, or its last part: (test, what is wanted).
_RANGES = {
  'domain.kind': (
    lambda v: v in ('arithmetic', 'text'),
    "'arithmetic' or 'text'",
  ),
  'teacher.kind': (
    lambda v: v in ('local', 'openai', 'replay'),
    "'local', 'openai' or 'replay'",
  ),
  'grader': (
    lambda v: v in ('number', 'maths', 'choice', 'last_line'),
    "'number', 'maths', 'choice' or 'last_line'",
  ),
  'near_duplicate': (lambda v: 0 < v <= 1, 'in (0, 1]'),
  'confirm_samples': (lambda v: v >= 1, '>= 1: an unchecked answer is none'),
  'max_probes': (lambda v: v >= 1, '>= 1'),
  'method': (lambda v: v in METHODS, f'one of {sorted(METHODS)}'),
  'tau_gap': (lambda v: 0 <= v < 1, 'in [0, 1)'),
  'target_share': (lambda v: 0 < v <= 1, 'in (0, 1]'),
  'identifier.alpha': (lambda v: 0 <= v <= 1, 'in [0, 1]'),
  'tau_zpd': (lambda v: v >= 0, '>= 0'),
  'zpd': (lambda v: v in ('readiness', 'literal'), "'readiness' or 'literal'"),
  'consolidation_share': (lambda v: 0 <= v < 1, 'in [0, 1)'),
  'scoring': (lambda v: v in ('in_step', 'graded'), "'in_step' or 'graded'"),
  'rank': (lambda v: v >= 0, '>= 0 (0 trains all weights)'),
  'tau_mastery': (lambda v: 0 < v <= 1, 'in (0, 1]'),
  'min_probes': (lambda v: v >= 1, '>= 1'),
  'probe_every_steps': (lambda v: v >= 1, '>= 1'),
  'max_rounds': (lambda v: v >= 0, '>= 0'),
  'remedial_share': (lambda v: 0 <= v < 1, 'in [0, 1)'),
  'on_stall': (lambda v: v in ('advance', 'stop'), "'advance' or 'stop'"),
  'total_steps': (lambda v: v >= 1, '>= 1'),
  'batch_rows': (lambda v: v >= 1, '>= 1'),
  'microbatches': (lambda v: v >= 1, '>= 1'),
  'row_length': (lambda v: v >= 8, '>= 8'),
  'replay_share': (lambda v: 0 <= v < 1, 'in [0, 1)'),
  'need_floor': (lambda v: 0 < v <= 1, 'in (0, 1]'),
  'average_decay': (lambda v: 0 <= v < 1, 'in [0, 1)'),
  'optimizer.name': (lambda v: v in ('adamw', 'muon'), "'adamw' or 'muon'"),
  'learning_rate': (lambda v: v > 0, '> 0'),
  'seeds_per_module': (lambda v: v >= 1, '>= 1'),
  'items_per_seed': (lambda v: v >= 1, '>= 1'),
  'answer_format': (lambda v: v in ('steps', 'direct'), "'steps' or 'direct'"),
  'batch_size': (lambda v: v >= 1, '>= 1'),
  'max_completion_tokens': (lambda v: v >= 1, '>= 1'),
  'steps_per_window': (lambda v: v >= 1, '>= 1'),
  'keep_checkpoints': (lambda v: v >= 1, '>= 1'),
  'checkpoint_every_steps': (lambda v: v >= 1, '>= 1'),
}


def validate(config: ml_collections.ConfigDict) -> None:
  """Checks every value that has a range.

  Raises:
    ConfigError: naming the field, its value, and what is wanted.
  """
  for path, value in flatten(config).items():
    test, wanted = _RANGES.get(
      path, _RANGES.get(path.rpartition('.')[2], (None, ''))
    )
    if test and not test(value):
      raise ConfigError(
        f'config.{path} is {value!r}, wanted {wanted}. Set '
        f'--config.{path}=VALUE.'
      )

  rows, parts = config.train.batch_rows, config.train.microbatches
  if rows % parts:
    raise ConfigError(
      f'config.train.microbatches is {parts}, which does not divide '
      f'config.train.batch_rows {rows}.'
    )


def flatten(config) -> dict[str, Any]:
  """Dotted path to value, leaves only."""
  flat: dict[str, Any] = {}

  def walk(prefix, value):
    if hasattr(value, 'items'):
      for key, child in value.items():
        walk(f'{prefix}.{key}' if prefix else key, child)
    else:
      flat[prefix] = value

  walk('', config)
  return flat


def nearest(name: str, config: ml_collections.ConfigDict) -> str:
  """The known field most like `name`, or ''."""
  known = flatten(config)
  match = difflib.get_close_matches(name, known, n=1, cutoff=0.0)
  tail = [k for k in known if k.rpartition('.')[2] == name.rpartition('.')[2]]
  return (tail or match or [''])[0]


def to_json(config: ml_collections.ConfigDict) -> str:
  return json.dumps(config.to_dict(), indent=2, sort_keys=True) + '\n'


def sha256(config: ml_collections.ConfigDict) -> str:
  return hashlib.sha256(to_json(config).encode()).hexdigest()


def difference(old: dict[str, Any], new: dict[str, Any]) -> list[str]:
  """Lines `field: old -> new` for every field that differs."""
  a, b = flatten(old), flatten(new)
  return [
    f'{k}: {a.get(k, "(absent)")!r} -> {b.get(k, "(absent)")!r}'
    for k in sorted(a.keys() | b.keys())
    if a.get(k, '(absent)') != b.get(k, '(absent)')
  ]
