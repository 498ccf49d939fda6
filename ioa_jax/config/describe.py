"""Settings in words: what a value may be, `--help` and docs/settings.md."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
import dataclasses
import functools
import inspect
import textwrap
import types
import typing
from typing import Any

from annotated_types import Ge, GroupedMetadata, Gt, Le, Lt
import pydantic
from pydantic.fields import FieldInfo

from ioa_jax.config.kinds import CHANGEABLE, Group, Says
from ioa_jax.config.settings import Settings

_NOUNS = {
  bool: 'true or false',
  int: 'a whole number',
  float: 'a number',
  str: 'text',
  tuple: 'texts',
}


@dataclasses.dataclass(frozen=True)
class Field:
  """One setting.

  Attributes:
    path: dotted, as in 'gate.tau_mastery'.
    kind: bool, int, float, str or tuple.
    wanted: its type and range in words, as 'a number in (0, 1]'.
    names: what it, or each of its texts, is one of; () is anything.
    meaning: what it is for.
    changeable: whether it may change between the starts of a run.
    parser: reads it from Python values and texts alike.
  """

  path: str
  default: Any
  kind: type
  wanted: str
  names: tuple[str, ...]
  meaning: str
  changeable: bool
  parser: pydantic.TypeAdapter


@functools.cache
def fields() -> Mapping[str, Field]:
  """Every setting by its path, in the order of their declaration."""
  return types.MappingProxyType({f.path: f for f in _walk(Settings, '')})


def _walk(group: type[Group], prefix: str) -> Iterator[Field]:
  for name, info in group.model_fields.items():
    if inspect.isclass(info.annotation) and issubclass(info.annotation, Group):
      yield from _walk(info.annotation, f'{prefix}{name}.')
    else:
      yield _field(prefix + name, info)


def _field(path: str, info: FieldInfo) -> Field:
  kind, names = _type(info.annotation)
  return Field(
    path,
    info.default,
    kind,
    _wanted(kind, names, info.metadata),
    names,
    ' '.join((info.description or '').split()),
    CHANGEABLE in info.metadata,
    pydantic.TypeAdapter(
      # Annotated wants something besides the type.
      typing.Annotated[info.annotation, *info.metadata, path],
      config=pydantic.ConfigDict(allow_inf_nan=False),
    ),
  )


def _type(annotation) -> tuple[type, tuple[str, ...]]:
  """The type, and the names that it or its parts are one of."""
  origin, args = typing.get_origin(annotation), typing.get_args(annotation)
  if origin is typing.Literal:
    return str, args
  if origin is tuple:
    return tuple, _type(args[0])[1]
  if origin is typing.Union:  # A number, or a name in the place of one.
    return _type(args[0])
  if origin is typing.Annotated:
    return _type(args[0])
  return annotation, ()


def _wanted(kind: type, names: tuple[str, ...], metadata) -> str:
  for said in metadata:
    if isinstance(said, Says):
      return str(said)
  if names:
    listed = ', '.join(map(repr, names))
    return f'names of {listed}' if kind is tuple else f'one of {listed}'
  low = high = None
  for bound in _flat(metadata):
    match bound:
      case Ge(ge=value):
        low = f'[{value}', f'>= {value}'
      case Gt(gt=value):
        low = f'({value}', f'> {value}'
      case Le(le=value):
        high = f'{value}]', f'<= {value}'
      case Lt(lt=value):
        high = f'{value})', f'< {value}'
  if low and high:
    return f'{_NOUNS[kind]} in {low[0]}, {high[0]}'
  (_, bounds) = low or high or ('', '')
  return f'{_NOUNS[kind]} {bounds}'.strip()


def _flat(metadata) -> Iterator[Any]:
  for bound in metadata:
    yield from bound if isinstance(bound, GroupedMetadata) else [bound]


def render(value: Any) -> str:
  """A value as one writes it on the command line."""
  if isinstance(value, bool):
    return str(value).lower()
  if isinstance(value, tuple):
    return ','.join(value) or "''"
  return str(value) if value != '' else "''"


def help_text(width: int = 80) -> str:
  """Lines for `--help`."""
  lines = []
  for field in fields().values():
    line = f'  --config.{field.path}={_shown(field)}'
    lines.append(line if len(line) <= width else f'  --config.{field.path}=...')
    about = '; '.join(filter(None, (field.wanted, _kept(field))))
    if len(line) > width:
      about += f'; by default {render(field.default)}'
    lines += textwrap.wrap(
      f'{field.meaning} ({about})',
      width,
      initial_indent=' ' * 6,
      subsequent_indent=' ' * 6,
    )
  return '\n'.join(lines)


def _shown(field: Field) -> str:
  shown = render(field.default)
  return f'"{shown}"' if ' ' in shown else shown


def _kept(field: Field) -> str:
  return 'may change between starts' if field.changeable else ''


def markdown() -> str:
  """docs/settings.md."""
  lines = [
    '# Settings',
    '',
    *textwrap.wrap(
      'Every setting, with its default, what it may be, and what it means. A '
      'configuration file says only what differs; a setting is also a flag, as '
      '`--config.gate.tau_mastery=0.95`, and a key in Python, as '
      "`ioa.config('quickstart', {'gate.tau_mastery': 0.95})`. Those with a "
      'star say how a run is carried out and may change between its starts; '
      'with any other the run is another one.',
      80,
    ),
    '',
    'This file is made by `python -m ioa_jax.config > docs/settings.md`.',
  ]
  for name, group in _groups(Settings, ''):
    own = [f for f in fields().values() if f.path.rpartition('.')[0] == name]
    title = name or 'the run itself'
    about = ' '.join((inspect.getdoc(group) or '').split())
    lines += ['', f'## {title}', '', about, '']
    lines += ['| setting | default | wanted | meaning |', '|---|---|---|---|']
    for f in own:
      star = '\\*' if f.changeable else ''
      cells = (
        f'`{f.path}`{star}',
        f'`{render(f.default)}`',
        _escape(f.wanted),
        _escape(f.meaning),
      )
      lines.append(f'| {" | ".join(cells)} |')
  return '\n'.join(lines) + '\n'


def _groups(group: type[Group], path: str) -> Iterator[tuple[str, type[Group]]]:
  yield path, group
  for name, info in group.model_fields.items():
    if inspect.isclass(info.annotation) and issubclass(info.annotation, Group):
      yield from _groups(info.annotation, f'{path}.{name}'.lstrip('.'))


def _escape(text: str) -> str:
  return text.replace('\\', '\\\\').replace('|', '\\|').replace('*', '\\*')
