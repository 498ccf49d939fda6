"""What an `adapter_config.json` of PEFT says, as far as it can be read here.

Anything that would make another model than plain A and B do is refused by its
name, and so is a field that is not known: an adapter that is half understood
answers nearly as its base does, and nobody notices.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
import dataclasses
import math
import pathlib
from typing import Any

import regex

from ioa_jax.models import weights

ModelError = weights.ModelError

# Fields that only another value than these, or than nothing, gives a meaning.
_PLAIN = {
  'bias': 'none',
  'fan_in_fan_out': False,
  'peft_type': 'LORA',
  'use_dora': False,
}
_REMEDIES = {
  'init_lora_weights': 'it changes the base itself. Save the adapter with '
  'path_initial_model_for_weight_conversion, which makes it a plain one',
  'modules_to_save': 'merge it into its base with PEFT first',
  'layer_replication': 'merge it into its base with PEFT first',
}
# Initialisations that leave the base as it is.
_INITS = (None, True, False, 'gaussian', 'eva', 'orthogonal')
# What is read below, and what has no influence on a trained adapter's answer.
_READ = frozenset(
  {
    'alpha_pattern',
    'exclude_modules',
    'layers_pattern',
    'layers_to_transform',
    'lora_alpha',
    'lora_dropout',
    'r',
    'rank_pattern',
    'target_modules',
    'use_rslora',
  }
)
_WITHOUT_INFLUENCE = frozenset(
  {
    'auto_mapping',
    'base_model_name_or_path',
    'corda_config',
    'ensure_weight_tying',
    'eva_config',
    'inference_mode',
    'loftq_config',
    'lora_ga_config',
    'megatron_core',
    'peft_version',
    'qalora_group_size',
    'revision',
    'runtime_config',
    'task_type',
  }
)
# For one pattern on one name; a file's pattern may be made to take for ever.
_MATCH_SECONDS = 0.5


@dataclasses.dataclass(frozen=True)
class AdapterConfig:
  """Which modules are adapted, with which rank and scale.

  Module names are the base's, e.g. `model.layers.0.self_attn.q_proj`.
  """

  path: pathlib.Path
  raw: Mapping[str, Any]

  @property
  def dropout(self) -> float:
    return self.raw.get('lora_dropout', 0.0)

  def adapts(self, module: str) -> bool:
    """As PEFT decides it."""
    raw = self.raw
    if self._is_one_of(raw.get('exclude_modules') or (), module):
      return False
    targets = raw['target_modules']
    if isinstance(targets, str) and targets.lower() == 'all-linear':
      return True  # The output head is none of the modules asked about.
    if not self._is_one_of(targets, module):
      return False
    layers = raw.get('layers_to_transform')
    if isinstance(targets, str) or module in targets or layers in (None, []):
      return True
    layers = [layers] if isinstance(layers, int) else layers
    patterns = raw.get('layers_pattern') or r'[^.]*'
    for pattern in [patterns] if isinstance(patterns, str) else patterns:
      found = self._match(rf'.*\.{pattern}\.(\d+)\.', module, whole=False)
      if found:
        return int(found[1]) in layers
    return False

  def rank(self, module: str) -> int:
    return self._of_module('rank_pattern', 'r', module)

  def alpha(self, module: str) -> float:
    """Divided by the rank it is what the product of A and B counts."""
    alpha = self._of_module('alpha_pattern', 'lora_alpha', module)
    # Rank-stabilised LoRA divides by the root of the rank.
    return (
      alpha * math.sqrt(self.rank(module)) if self._is_stabilised else alpha
    )

  @property
  def _is_stabilised(self) -> bool:
    return bool(self.raw.get('use_rslora'))

  def _of_module(self, patterns: str, default: str, module: str):
    for pattern, value in (self.raw.get(patterns) or {}).items():
      if self._match(rf'(.*\.)?({pattern})$', module, whole=False):
        return value
    return self.raw[default]

  def _is_one_of(self, names: str | Sequence[str], module: str) -> bool:
    if isinstance(names, str):
      return bool(self._match(names, module))
    return any(module == n or module.endswith('.' + n) for n in names)

  def _match(self, pattern: str, module: str, *, whole: bool = True):
    # Python's own `re` knows no limit of time.
    match = regex.fullmatch if whole else regex.match
    try:
      return match(pattern, module, timeout=_MATCH_SECONDS)
    except (regex.error, TimeoutError, RecursionError) as e:
      raise ModelError(
        f'{self.path}: the pattern {pattern[:80]!r} cannot be matched ({e}).'
      ) from None


def read(path: pathlib.Path) -> AdapterConfig:
  """Reads and checks the file at `path`.

  Raises:
    ModelError: naming it and the field that is missing, of another type, or
      means something that cannot be done here.
  """
  if not path.exists():
    raise ModelError(
      f'{path}: no such file; an adapter directory holds adapter_config.json '
      'and adapter_model.safetensors.'
    )
  raw = weights.read_json(path)
  others = raw.keys() - _READ - _WITHOUT_INFLUENCE
  # The method first: it explains all other fields.
  for field in sorted(others, key=lambda f: (f != 'peft_type', f)):
    value = raw[field]
    if field == 'init_lora_weights':
      plain = value in _INITS
    else:
      plain = value == _PLAIN[field] if field in _PLAIN else not value
    if not plain:
      remedy = _REMEDIES.get(field, 'only plain adapters can be read')
      raise ModelError(
        f'{path}: {field} {_short(value)} is not supported; {remedy}.'
      )
  for field in ('r', 'lora_alpha', 'target_modules'):
    if field not in raw:
      raise ModelError(f"{path}: field '{field}' is missing.")
  for field, wanted, is_right in _TYPES:
    if field in raw and not is_right(raw[field]):
      raise ModelError(
        f'{path}: {field} is {_short(raw[field])}, wanted {wanted}.'
      )
  return AdapterConfig(path, raw)


def _short(value: Any) -> str:
  text = repr(value)
  return text if len(text) <= 80 else text[:77] + '...'


def _is_rank(value: Any) -> bool:
  return type(value) is int and 1 <= value < 2**31


def _is_number(value: Any) -> bool:
  return type(value) in (int, float) and abs(value) < 1e30


def _are(values: Any, is_one) -> bool:
  return isinstance(values, list) and all(map(is_one, values))


def _is_text(value: Any) -> bool:
  return isinstance(value, str)


def _is_layer(value: Any) -> bool:
  return type(value) is int and value >= 0


def _maybe(is_right):
  return lambda value: value is None or is_right(value)


def _texts(value: Any) -> bool:
  return _is_text(value) or _are(value, _is_text)


def _each(is_one):
  return lambda v: isinstance(v, dict) and all(map(is_one, v.values()))


_TYPES: Iterable = (
  ('r', 'a whole number from 1', _is_rank),
  ('lora_alpha', 'a number', _is_number),
  (
    'lora_dropout',
    'a number in [0, 1)',
    lambda v: _is_number(v) and 0 <= v < 1,
  ),
  ('target_modules', 'names or a pattern', lambda v: _texts(v) and v),
  ('exclude_modules', 'names or a pattern', _maybe(_texts)),
  ('layers_pattern', 'names', _maybe(_texts)),
  (
    'layers_to_transform',
    'numbers of layers',
    _maybe(lambda v: _is_layer(v) or _are(v, _is_layer)),
  ),
  ('rank_pattern', 'whole numbers from 1 by name', _maybe(_each(_is_rank))),
  ('alpha_pattern', 'numbers by name', _maybe(_each(_is_number))),
)
