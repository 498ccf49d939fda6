"""What a record is: a frozen dataclass, checked when made and when read."""

from __future__ import annotations

import functools
import json
from typing import Annotated, Any, Self, dataclass_transform

import pydantic
from pydantic import Field

CONFIG = pydantic.ConfigDict(
  extra='forbid',
  allow_inf_nan=False,
  # A few names of files are no names of Python: `from`, `train/loss`.
  validate_by_name=True,
  validate_by_alias=True,
)
_UNKNOWN = ('unexpected_keyword_argument', 'extra_forbidden')


class Record:
  """JSON in and out for the frozen dataclasses below."""

  def to_dict(self) -> dict[str, Any]:
    return _adapter(type(self)).dump_python(self, mode='json', by_alias=True)

  def to_json(self) -> str:
    """One line of text."""
    # Through Python, which writes NaN; JSON mode would make it null.
    value = _adapter(type(self)).dump_python(self, by_alias=True)
    text = json.dumps(value, ensure_ascii=False)
    # Text from outside can hold half a surrogate pair, and no file can.
    return text.encode(errors='replace').decode()

  @classmethod
  def from_json(cls, text: str, where: str = '') -> Self:
    """Reads what `to_json` writes.

    Args:
      where: file, and line if there is one, for the error.

    Raises:
      ValueError: `where: field is X, wanted Y`, of the first difference.
    """
    return parse(cls, text, where or cls.__name__)


def parse(kind: Any, text: str, where: str) -> Any:
  """JSON text as a record, or as a union of records; see `from_json`."""
  try:
    return _adapter(kind).validate_json(text, strict=True)
  except pydantic.ValidationError as e:
    raise ValueError(f'{where}: {_first(e)}') from None


@functools.cache
def _adapter(kind) -> pydantic.TypeAdapter:
  return pydantic.TypeAdapter(kind)


def _first(error: pydantic.ValidationError) -> str:
  """The first difference in one line; values of files are shown short."""
  found = error.errors(include_url=False)[0]
  kind, context = found['type'], found.get('ctx', {})
  if kind == 'json_invalid':
    return f'not JSON ({context["error"]}); the file is damaged.'
  path = _path(found['loc'])
  if kind == 'missing' or kind in _UNKNOWN:
    what = 'missing' if kind == 'missing' else 'unknown'
    return (
      f'field {path} is {what}; the file is damaged or was written by another '
      'version.'
    )
  if kind == 'union_tag_invalid':
    tag, tags = context['tag'], context['expected_tags']
    by = context['discriminator'].strip("'")
    return f'{by} is {tag!r}, wanted one of {tags}.'
  shown = repr(found['input'])
  shown = shown if len(shown) <= 60 else shown[:57] + '...'
  wanted = found['msg'].removeprefix('Input should be ')
  wanted = wanted.removeprefix('Value error, ')
  return f'{path} is {shown}, wanted {wanted}.'


def _path(location: tuple[str | int, ...]) -> str:
  """`stages[1].outcome`; '' is the value itself."""
  parts = [f'[{x}]' if isinstance(x, int) else f'.{x}' for x in location]
  return ''.join(parts).removeprefix('.') or 'the value'


@dataclass_transform(frozen_default=True, field_specifiers=(Field,))
def record(cls):
  """A frozen dataclass whose fields are checked when it is made."""
  return pydantic.dataclasses.dataclass(cls, frozen=True, config=CONFIG)


def _ordered(ends: tuple[float, float]) -> tuple[float, float]:
  if ends[0] > ends[1]:
    raise ValueError('[low, high] with low <= high')
  return ends


Interval = Annotated[tuple[float, float], pydantic.AfterValidator(_ordered)]
# What a step reports that failed may be NaN or infinite.
AnyFloat = Annotated[float, Field(allow_inf_nan=True)]
# No count of a run is larger, and what is cannot be shown as a number.
Count = Annotated[int, Field(ge=0, lt=2**63)]
