"""What a configuration is held to, the same on every way in."""

from __future__ import annotations

import ast
from collections.abc import Iterable, Mapping
import difflib
import itertools
import math
import numbers
import statistics
from typing import Any

import ml_collections
import pydantic

from ioa_jax.config import methods
from ioa_jax.config.describe import fields

_MEASURED = ('interventional', 'conditional')
# How often a student at half of the threshold may pass a look of the gate.
_MOST_BY_LUCK = 0.15


class ConfigError(ValueError):
  """A configuration that cannot be run; one line that says what to change."""


def flatten(config: Mapping[str, Any] | ml_collections.ConfigDict):
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


def nearest(name: str, known: Iterable[str] | None = None) -> str:
  """The setting most like `name`."""
  known = list(fields() if known is None else known)
  tail = name.rpartition('.')[2]
  match = difflib.get_close_matches(name, known, n=1, cutoff=0.0)
  same = difflib.get_close_matches(
    name, [k for k in known if k.rpartition('.')[2] == tail], n=1, cutoff=0.0
  )
  return (same or match)[0]


def check_name(name: str) -> None:
  """Raises `ConfigError` if no setting is called `name`."""
  if name in fields():
    return
  if within := [k for k in fields() if k.startswith(f'{name}.')]:
    raise ConfigError(
      f'config.{name} is a group of settings; set one of them, as '
      f'config.{within[0]}.'
    )
  raise ConfigError(
    f'config.{name}: no such field; the nearest is config.{nearest(name)}.'
  )


def check_value(path: str, value: Any) -> Any:
  """The value as it is kept: lists become tuples, NumPy's numbers Python's.

  Raises:
    ConfigError: for another type, or out of range.
  """
  if isinstance(value, list):
    value = tuple(value)
  elif isinstance(value, numbers.Integral) and not isinstance(value, bool):
    value = int(value)
  return _parsed(path, value, strict=True)


def parse(path: str, text: str) -> Any:
  """A value that is written as text, as on the command line.

  Texts of a tuple stand between commas, or as Python writes them.

  Raises:
    ConfigError: if it cannot be read as one, or is out of range.
  """
  check_name(path)
  if fields()[path].kind is not tuple:
    return _parsed(path, text, strict=False)
  if not text.strip().startswith(('(', '[')):
    parts = [part.strip() for part in text.split(',')]
    return _parsed(path, tuple(filter(None, parts)), strict=True)
  try:
    return check_value(path, ast.literal_eval(text))
  except (SyntaxError, ValueError):
    return _parsed(path, text, strict=True)


def _parsed(path: str, value: Any, strict: bool) -> Any:
  field = fields()[path]
  try:
    return field.parser.validate_python(value, strict=strict)
  except pydantic.ValidationError:
    plain = isinstance(value, str) and field.kind in (bool, int, float)
    shown = value if plain and not strict else repr(value)
    raise ConfigError(
      f'config.{path} is {shown}, wanted {field.wanted}. Set '
      f'--config.{path}=VALUE.'
    ) from None


def validate(config: ml_collections.ConfigDict) -> None:
  """Checks every value, and what they mean together.

  Raises:
    ConfigError: naming the field, its value, and what is wanted.
  """
  flat = flatten(config)
  for path, value in flat.items():
    check_name(path)
    check_value(path, value)
  if missing := [path for path in fields() if path not in flat]:
    raise ConfigError(
      f'config.{missing[0]} is missing; ioa_jax.config.get() gives a '
      'configuration with all settings.'
    )
  _check_measuring(config)
  _check_gate(config)
  _check_steps(config)
  _require_text(config, 'student.model')
  if config.teacher.kind != 'replay':  # One model's recording names it.
    _require_text(config, 'teacher.model')
  batch, kind = config.teacher.batch, config.teacher.kind
  # A recording may be of a run that asked in batches.
  if batch != 'never' and kind not in ('openai', 'replay'):
    raise ConfigError(
      f'config.teacher.batch is {batch!r} and config.teacher.kind {kind!r}; '
      "batches are an API of servers: set the kind to 'openai', or batch to "
      "'never'."
    )
  if config.domain.kind == 'text':
    _check_text(config)
  else:
    why = f'domain.kind is {config.domain.kind!r}'
    _require(config, 'teacher.kind', 'local', why)
  _check_distillation(config)


def _require(config, path, wanted, why) -> None:
  got = flatten(config)[path]
  if got != wanted:
    raise ConfigError(f'config.{path} is {got!r}, wanted {wanted!r}: {why}.')


def _require_text(config, path) -> None:
  if not flatten(config)[path].strip():
    raise ConfigError(
      f'config.{path} is empty; set it: {fields()[path].meaning}'
    )


def _check_measuring(config) -> None:
  i = config.identifier
  if i.dependency in _MEASURED and not i.panel.learners:
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


def _by_luck(gate, probes: int) -> float:
  """How often a look passes a student at half of the threshold."""
  tau = gate.tau_mastery
  return pass_rate(probes, gate.confidence, tau, tau / 2)


def fewest_probes(config: ml_collections.ConfigDict) -> int:
  """Of a module, that say anything to the configured gate."""
  return next(
    n for n in itertools.count(1) if _by_luck(config.gate, n) <= _MOST_BY_LUCK
  )


def _check_gate(config) -> None:
  g = config.gate
  by_luck = _by_luck(g, g.min_probes)
  if by_luck > _MOST_BY_LUCK:
    raise ConfigError(
      f'config.gate.min_probes is {g.min_probes}, which says nothing: with '
      f'gate.tau_mastery {g.tau_mastery} and gate.confidence {g.confidence} a '
      f'student at half of the threshold passes a look in {by_luck:.0%} of '
      f'cases, wanted at most {_MOST_BY_LUCK:.0%}; raise it.'
    )


def pass_rate(
  probes: int, confidence: float, tau_mastery: float, share: float
) -> float:
  """How often one look at `probes` answers passes a student.

  Args:
    share: of the teacher's score that the student truly has, in [0, 1].
  """
  # A Wilson bound is above tau where a score test against tau says so.
  z = statistics.NormalDist().inv_cdf(confidence)
  spread = math.sqrt(probes * tau_mastery * (1 - tau_mastery))
  least = math.ceil(probes * tau_mastery + z * spread - 1e-6)
  return sum(
    math.comb(probes, right) * share**right * (1 - share) ** (probes - right)
    for right in range(least, probes + 1)
  )


def _check_steps(config) -> None:
  rows, parts = config.train.batch_rows, config.train.microbatches
  if rows % parts:
    raise ConfigError(
      f'config.train.microbatches is {parts}, which does not divide '
      f'config.train.batch_rows {rows}.'
    )
  if config.student.quantization and not config.student.lora.rank:
    raise ConfigError(
      f'config.student.quantization is {config.student.quantization!r} and all '
      'weights train (config.student.lora.rank is 0); only weights that do not '
      'train can be quantised.'
    )
  if config.student.thinking and config.domain.kind != 'text':
    raise ConfigError(
      f'config.student.thinking is set, and the domain {config.domain.kind!r} '
      'is written without a chat template; leave it out.'
    )
  panel = config.identifier.panel
  steps = {'config.train.total_steps': config.train.total_steps}
  if config.train.total_steps == 'auto':  # Checked once it is a number.
    steps = {}
  if panel.learners:
    steps['config.identifier.panel.snapshots * steps_per_snapshot'] = (
      panel.snapshots * panel.steps_per_snapshot
    )
  share = config.optimizer.warmup_share
  for name, count in steps.items():
    warmup = max(1, round(share * count))
    if warmup >= count:
      raise ConfigError(
        f'{name} is {count} and config.optimizer.warmup_share {share}, so the '
        f'learning rate would rise for {warmup} steps and none would be left '
        'in which it falls; raise the former or lower the latter.'
      )
  axes = dict(config.mesh.items())
  if list(axes.values()).count(-1) > 1:
    raise ConfigError(
      f'config.mesh is {axes}; at most one axis can be -1, what is left.'
    )


def _check_text(config) -> None:
  why = "domain.kind is 'text'"
  domain, adapter = config.domain, config.adapter
  _require_text(config, 'domain.description')
  if domain.source != 'given':
    _require_text(config, 'domain.seeds')
  _require(config, 'domain.evaluate_on', 'held_out', why)
  _require(config, 'gate.scoring', 'graded', why)
  _require(config, 'gate.sequential', False, 'answers are graded in batches')
  _require(config, 'adapter.answer_format', 'steps', why)
  _require(
    config,
    'adapter.smallest_first',
    False,
    f"{why}; 'cognitive_load' in adapter.strategies is what it has instead",
  )
  terms = methods.METHODS[config.method]
  if terms.answer_format == 'direct' and terms.plain is None:
    raise ConfigError(
      f'config.method {config.method!r} asks for direct answers, and {why}, '
      'which has worked solutions only.'
    )
  if terms.plain and terms.plain.confirmed and domain.grader == 'code':
    raise ConfigError(
      f'config.method {config.method!r} keeps confirmed answers, and '
      "config.domain.grader is 'code', whose answers are confirmed by tests "
      'that only adapted lessons bring; use another method.'
    )
  if domain.max_probes < domain.min_probes:
    raise ConfigError(
      f'config.domain.max_probes {domain.max_probes} is below '
      f'config.domain.min_probes {domain.min_probes}.'
    )
  if adapter.confirm_samples > 1 and config.teacher.temperature == 0:
    raise ConfigError(
      'config.teacher.temperature is 0, so several confirming solutions '
      'would be one; set it above 0, or adapter.confirm_samples to 1.'
    )
  _check_judge(config)
  # Prices of zero are prices that nobody set: no money can be counted.
  paid = config.teacher.kind in ('openai', 'given')
  if paid and config.teacher.max_usd and not _is_priced(config.teacher.price):
    raise ConfigError(
      'config.teacher.max_usd is set and config.teacher.price is not, so it '
      'could not be kept; set the prices (US dollars per million tokens).'
    )
  if config.teacher.kind == 'replay' and not config.teacher.recording:
    raise ConfigError(
      "config.teacher.kind is 'replay' and config.teacher.recording is empty; "
      'name the ledger.sqlite of an earlier run.'
    )


def _is_priced(price) -> bool:
  return bool(price.prompt_usd_per_million or price.completion_usd_per_million)


def _check_judge(config) -> None:
  judge, grader = config.judge, config.domain.grader
  if grader == 'judge':
    _require_text(config, 'judge.model')
  elif judge.model and grader != 'rouge_l':
    raise ConfigError(
      f'config.judge.model is {judge.model!r} and config.domain.grader '
      f"{grader!r}, which needs no judge; set the grader to 'judge' or "
      "'rouge_l', or judge.model to ''."
    )
  if judge.max_usd and not _is_priced(judge.price):
    raise ConfigError(
      'config.judge.max_usd is set and config.judge.price is not, so it could '
      'not be kept; set the prices (US dollars per million tokens).'
    )


def _check_distillation(config) -> None:
  settled = methods.settle(config)
  kind, scores = config.teacher.kind, ('local', 'openai', 'replay')
  if settled.distills and kind not in scores:
    raise ConfigError(
      f'config.teacher.kind is {kind!r}, wanted one of {", ".join(scores)}: '
      f'method {config.method!r} learns from its distributions.'
    )
  across = settled.distillation['across_vocabularies']
  if across != 'refuse' and not (settled.distills and kind == 'local'):
    raise ConfigError(
      f'config.distillation.across_vocabularies is {across!r}, and there is no '
      'local teacher whose distributions are learned; set it to refuse.'
    )
  every = settled.distillation['on_policy_every_steps']
  schedule = settled.distillation['schedule']
  if schedule != 'mixed' and not every:
    raise ConfigError(
      f'config.distillation.schedule is {schedule!r} and the student writes no '
      'texts; set config.distillation.on_policy_every_steps.'
    )
  if every and not settled.distills:
    raise ConfigError(
      f'config.distillation.on_policy_every_steps is {every} and divergence is '
      'none, so nothing could be learned from own texts; set '
      'config.distillation.divergence.'
    )
