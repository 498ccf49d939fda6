"""Configurations by name or file, with changes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
import os
import pathlib
import runpy
import traceback
from typing import Any

import ml_collections

from ioa_jax.config import checks
from ioa_jax.config.checks import ConfigError
from ioa_jax.config.describe import fields

_PACKAGE = pathlib.Path(__file__).parents[1]
Changes = Mapping[str, Any]


def shipped() -> pathlib.Path:
  """The folder of the configurations that ship.

  `configs/` of a checkout is `ioa_jax.configs` in a wheel.
  """
  installed = _PACKAGE / 'configs'
  return installed if installed.is_dir() else _PACKAGE.parent / 'configs'


def get(
  base: str | os.PathLike[str] | Changes = '', changes: Changes | None = None
) -> ml_collections.ConfigDict:
  """A configuration with all settings: those of `base`, with `changes`.

  What a configuration file returns. Each value is checked by itself; `load`
  also checks what they mean together.

  Args:
    base: a shipped name ('quickstart', 'students:qwen2.5-3b'), the path of a
      Python file with get_config(), or changes to the defaults.
    changes: dotted field or nested mapping to value.

  Raises:
    ConfigError: naming the file or field.
  """
  if isinstance(base, (str, os.PathLike)):
    values = _defaults()
    if str(base):
      _change(values, _run(str(base)), where=f'{base}: ')
  else:
    values = _defaults()
    _change(values, base)
  _change(values, changes or {})
  return values.lock()


def load(
  base: str | os.PathLike[str] | Changes, changes: Changes | None = None
) -> ml_collections.ConfigDict:
  """`get`, checked as a whole: what can be run.

  Raises:
    ConfigError: also for values that do not go together.
  """
  config = get(base, changes)
  checks.validate(config)
  return config


def _defaults() -> ml_collections.ConfigDict:
  values = ml_collections.ConfigDict()
  for path, field in fields().items():
    *groups, name = path.split('.')
    node = values
    for group in groups:
      if group not in node:
        node[group] = ml_collections.ConfigDict()
      node = node[group]
    node[name] = field.default
  return values


def _change(values, changes: Changes, where: str = '') -> None:
  for path, value in checks.flatten(changes).items():
    try:
      checks.check_name(path)
      value = checks.check_value(path, value)
    except ConfigError as e:
      raise ConfigError(f'{where}{e}') from None
    group, _, name = path.rpartition('.')
    node = values
    for part in filter(None, group.split('.')):
      node = node[part]
    with node.ignore_type():  # The check above knows more.
      node[name] = value


def resolve(spec: str, folder: str = '') -> pathlib.Path:
  """The file of what is named or pointed at.

  Args:
    spec: without an argument.
    folder: of `shipped()`, in which names are looked up.

  Raises:
    ConfigError: if there is none.
  """
  home = shipped() / folder
  named = home / f'{spec}.py'
  path = named if spec.isidentifier() and named.exists() else pathlib.Path(spec)
  names = ', '.join(sorted(p.stem for p in home.glob('*.py')))
  wanted = f'wanted a Python file, or one of those that ship: {names}.'
  if path.is_dir():
    raise ConfigError(f'{spec} is a directory; {wanted}')
  if not path.exists():
    raise ConfigError(f'{spec}: no such file; {wanted}')
  return path


def call(spec: str, function: str, folder: str = '') -> Any:
  """What a function of a configuration's or a plan's file returns.

  Args:
    spec: a name or path; an argument of get_config() stands after a colon.
    folder: see `resolve`.

  Raises:
    ConfigError: if there is none, or it fails; one line with its place.
  """
  file, _, argument = spec.partition(':')
  path = resolve(file, folder)
  defined = _guarded(spec, path, lambda: runpy.run_path(str(path)))
  if function not in defined:
    raise ConfigError(f'{spec}: it has no {function}().')
  arguments = [argument] if argument and function == 'get_config' else []
  return _guarded(spec, path, lambda: defined[function](*arguments))


def _run(spec: str) -> Changes:
  found = call(spec, 'get_config')
  if not hasattr(found, 'items'):
    raise ConfigError(
      f'{spec}: its get_config() returns {type(found).__name__}; wanted what '
      'ioa_jax.config.get({...}) returns.'
    )
  return found


def _guarded(spec: str, path: pathlib.Path, run: Callable[[], Any]) -> Any:
  """Whatever a person's own file does wrong is one line with its place."""
  try:
    return run()
  except ConfigError as e:
    raise ConfigError(f'{spec}: {e}') from None
  except SyntaxError as e:
    raise ConfigError(f'{spec}: line {e.lineno}: {e.msg}.') from None
  except Exception as e:
    frames = traceback.extract_tb(e.__traceback__)
    own = [f for f in frames if f.filename == str(path)]
    last = (own or frames)[-1]
    raise ConfigError(
      f'{spec}: {e} ({type(e).__name__} in {last.filename}, line {last.lineno})'
    ) from None
