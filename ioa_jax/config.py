"""Checks of a run's configuration, and its identity on disk."""

from __future__ import annotations

import difflib
import hashlib
import json
import re
from typing import Any

import ml_collections

from ioa_jax.adapter.contamination import DECIDED_BY
from ioa_jax.baselines import methods
from ioa_jax.baselines.methods import METHODS
from ioa_jax.evaluation.final_answers import KINDS as GRADERS
from ioa_jax.identifier.dependency import MEASURED, SOURCES
from ioa_jax.identifier.responses import RESPONSES


class ConfigError(ValueError):
  """A configuration that cannot be run; one line that says what to change."""


# How a run is carried out, and not what it is: these may change between starts.
_OPERATIONAL = re.compile(
  r'run\.|teacher\.(max_completion_tokens|max_usd|recording|base_url|api_key_env'
  r'|max_concurrency|max_attempts|max_retry_after_seconds|price\.'
  # What a run stopped over was not decided yet.
  r'|max_unanswered_share)|adapter\.on_no_lessons'
)
_DTYPE = (lambda v: v in ('float32', 'bfloat16'), "'float32' or 'bfloat16'")
_SHARE = (lambda v: 0 <= v <= 1, 'in [0, 1]')
_BELOW_ONE = (lambda v: 0 <= v < 1, 'in [0, 1)')
_COUNT = (lambda v: v >= 1, '>= 1')
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
  'source': (
    lambda v: v in ('file', 'datasets', 'tfds'),
    "'file', 'datasets' or 'tfds'",
  ),
  'grader': (lambda v: v in GRADERS, f'one of {sorted(GRADERS)}'),
  'near_duplicate': (lambda v: 0 < v <= 1, 'in (0, 1]'),
  'contamination': (
    lambda v: v in DECIDED_BY,
    "'wording' or 'numbers'",
  ),
  'confirm_samples': (lambda v: v >= 1, '>= 1: an unchecked answer is none'),
  'max_probes': _COUNT,
  'seed': (lambda v: 0 <= v < 2**32, 'in [0, 2**32)'),
  'method': (lambda v: v in METHODS, f'one of {sorted(METHODS)}'),
  'tau_gap': _BELOW_ONE,
  'target_share': (lambda v: 0 < v <= 1, 'in (0, 1]'),
  'identifier.alpha': _SHARE,
  'identifier.dependency': (
    lambda v: v in SOURCES,
    f'one of {sorted(SOURCES)}',
  ),
  'tau_high': (lambda v: 0 < v <= 1, 'in (0, 1]'),
  'tau_low': (lambda v: 0 < v <= 1, 'in (0, 1]'),
  'tau_dep': _BELOW_ONE,
  'tau_effect': _BELOW_ONE,
  'min_learners': (lambda v: v >= 2, '>= 2: one learner is no mean'),
  'learners': (
    lambda v: v == 0 or (v >= 4 and v % 2 == 0),
    '0 (no panel), or even and >= 4',
  ),
  'snapshots': _COUNT,
  'steps_per_snapshot': _COUNT,
  'response': (lambda v: v in RESPONSES, f'one of {sorted(RESPONSES)}'),
  'tau_zpd': (lambda v: v >= 0, '>= 0'),
  'min_stage_modules': _COUNT,
  'zpd': (lambda v: v in ('readiness', 'literal'), "'readiness' or 'literal'"),
  'consolidation_share': _BELOW_ONE,
  'scoring': (
    lambda v: v in ('in_step', 'decoded', 'graded'),
    "'in_step', 'decoded' or 'graded'",
  ),
  'dtype': _DTYPE,
  'export_dtype': _DTYPE,
  'momentum_dtype': _DTYPE,
  'max_tokens': _COUNT,
  'temperature': (lambda v: v >= 0, '>= 0'),
  'max_usd': (lambda v: v >= 0, '>= 0 (0 sets no limit)'),
  'warmup_share': _SHARE,
  'final_share': _SHARE,
  'weight_decay': (lambda v: v >= 0, '>= 0'),
  'b1': _BELOW_ONE,
  'b2': _BELOW_ONE,
  'clip_norm': (lambda v: v > 0, '> 0'),
  'rank': (lambda v: v >= 0, '>= 0 (0 trains all weights)'),
  'tau_mastery': (lambda v: 0 < v <= 1, 'in (0, 1]'),
  'confidence': (lambda v: 0.5 <= v < 1, 'in [0.5, 1)'),
  'min_probes': _COUNT,
  'probe_every_steps': _COUNT,
  'max_rounds': (lambda v: v >= 0, '>= 0'),
  'remedial_share': _BELOW_ONE,
  'on_stall': (lambda v: v in ('advance', 'stop'), "'advance' or 'stop'"),
  'on_no_lessons': (lambda v: v in ('stop', 'skip'), "'stop' or 'skip'"),
  'max_unanswered_share': _SHARE,
  'total_steps': _COUNT,
  'batch_rows': _COUNT,
  'microbatches': _COUNT,
  'row_length': (lambda v: v >= 8, '>= 8'),
  'replay_share': _BELOW_ONE,
  'need_floor': (lambda v: 0 < v <= 1, 'in (0, 1]'),
  'average_decay': _BELOW_ONE,
  'divergence': (
    lambda v: v in ('none', 'forward_kl', 'reverse_kl', 'jsd'),
    "'none', 'forward_kl', 'reverse_kl' or 'jsd'",
  ),
  'beta': _SHARE,
  'top_k': _COUNT,
  'distillation.temperature': (lambda v: v > 0, '> 0'),
  'distillation.weight': _SHARE,
  'on_policy_every_steps': (lambda v: v >= 0, '>= 0 (0 is never)'),
  'on_policy_share': (lambda v: 0 < v <= 1, 'in (0, 1]'),
  'optimizer.name': (lambda v: v in ('adamw', 'muon'), "'adamw' or 'muon'"),
  'learning_rate': (lambda v: v > 0, '> 0'),
  'seeds_per_module': _COUNT,
  'items_per_seed': _COUNT,
  'answer_format': (lambda v: v in ('steps', 'direct'), "'steps' or 'direct'"),
  'batch_size': _COUNT,
  'max_completion_tokens': _COUNT,
  'steps_per_window': _COUNT,
  'keep_checkpoints': _COUNT,
  'checkpoint_every_steps': _COUNT,
}


# A configuration from before them would stop after its answers were paid for.
_NEW_FIELDS = (
  'teacher.max_unanswered_share', 'adapter.on_no_lessons',
  'organizer.response', 'organizer.min_stage_modules',
)  # fmt: skip


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

  for path in _NEW_FIELDS:
    if path not in flatten(config):
      raise ConfigError(
        f'config.{path} is missing; copy it from configs/quickstart.py.'
      )
  i = config.identifier
  if i.dependency in MEASURED and not i.panel.learners:
    raise ConfigError(
      f'config.identifier.dependency is {i.dependency!r}, which is measured on '
      'learners, and config.identifier.panel.learners is 0; set it to 16.'
    )
  if i.tau_low > i.tau_high:
    raise ConfigError(
      f'config.identifier.tau_low {i.tau_low} is above '
      f'config.identifier.tau_high {i.tau_high}: a learner would be on both '
      'sides of Eq. 3.'
    )
  if i.dependency == 'teacher':
    _require(
      config, 'domain.kind', 'text', "identifier.dependency is 'teacher'"
    )

  if config.domain.kind == 'arithmetic':
    _require(config, 'teacher.kind', 'local', "domain.kind is 'arithmetic'")
  else:
    why = "domain.kind is 'text'"
    if 'seeds' not in config.domain:
      raise ConfigError(
        'config.domain.kind is text, and the fields of a text domain are '
        'missing; start from configs/smollm2_135m.py.'
      )
    _require(config, 'gate.scoring', 'graded', why)
    _require(config, 'gate.sequential', False, 'answers are graded in batches')
    _require(config, 'adapter.answer_format', 'steps', why)
    method = METHODS[config.method]
    if method.answer_format not in (None, 'steps'):
      raise ConfigError(
        f'config.method {config.method!r} asks for direct answers, and {why}, '
        'which has worked solutions only.'
      )
    if not (method.adapted and method.confirmed):
      raise ConfigError(
        f'config.method {config.method!r} is a way to draw problems of the '
        f'built-in domain, and {why}; adapter.strategies and '
        'adapter.confirm_samples say how lessons are written here.'
      )
    if config.domain.max_probes < config.domain.min_probes:
      raise ConfigError(
        f'config.domain.max_probes {config.domain.max_probes} is below '
        f'config.domain.min_probes {config.domain.min_probes}.'
      )
    if config.adapter.confirm_samples > 1 and config.teacher.temperature == 0:
      raise ConfigError(
        'config.teacher.temperature is 0, so several confirming solutions '
        'would be one; set it above 0, or adapter.confirm_samples to 1.'
      )
  d = methods.distillation_fields(config)
  if d['divergence'] == 'none' and d['on_policy_every_steps']:
    raise ConfigError(
      'config.distillation.on_policy_every_steps is '
      f'{d["on_policy_every_steps"]} and divergence is none, so nothing could '
      'be learned from own texts; set config.distillation.divergence.'
    )
  if d['divergence'] != 'none':
    _require(
      config, 'teacher.kind', 'local',
      f'method {config.method!r} learns from its distributions',
    )  # fmt: skip
  rows, parts = config.train.batch_rows, config.train.microbatches
  if rows % parts:
    raise ConfigError(
      f'config.train.microbatches is {parts}, which does not divide '
      f'config.train.batch_rows {rows}.'
    )


def _require(config, path, wanted, why) -> None:
  got = flatten(config)[path]
  if got != wanted:
    raise ConfigError(f'config.{path} is {got!r}, wanted {wanted!r}: {why}.')


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
  """Lines `field: old -> new` for fields that make it another run."""
  a, b = flatten(old), flatten(new)
  return [
    f'{k}: {a.get(k, "(absent)")!r} -> {b.get(k, "(absent)")!r}'
    for k in sorted(a.keys() | b.keys())
    if a.get(k, '(absent)') != b.get(k, '(absent)')
    and not _OPERATIONAL.match(k)
  ]
