"""Answers that are JSON of a schema: the one way to read them."""

from __future__ import annotations

from collections.abc import Mapping
import decimal
import re
from typing import Any, TypeVar

import pydantic

from ioa_jax.teachers import json_text
from ioa_jax.teachers.requests import Completion


class Strict(pydantic.BaseModel):
  """Every field is wanted and no other; takes OpenAI's strict mode.

  Its subclasses have no docstring: it would be part of the schema, and so of
  every request's key.
  """

  model_config = pydantic.ConfigDict(extra='forbid')


_Model = TypeVar('_Model', bound=pydantic.BaseModel)


def read(completion: Completion, model: type[_Model]) -> _Model | None:
  """The answer as a `model`, repaired if it is nearly JSON, or None.

  What a server's teacher discarded because it did not fit is tried as well;
  text that was cut off or filtered is not.
  """
  reason = completion.finish_reason
  if reason not in ('stop', 'schema'):
    return None
  return parse(
    completion.text if reason == 'stop' else completion.discarded, model
  )


def parse(text: str, model: type[_Model]) -> _Model | None:
  """The value of a text that is JSON, or nearly, and fits `model`; or None.

  Its texts have no control character but line breaks and tabs.
  """
  schema = model.model_json_schema()
  for value in json_text.values(text):
    found = _validated(value, model)
    if found is None:
      found = _validated(_fit(value, schema, schema), model)
    if found is not None and not json_text.has_control(found.model_dump()):
      return found
  return None


def _validated(value: Any, model: type[_Model]) -> _Model | None:
  try:
    found = model.model_validate(value)
    found.model_dump_json()  # A lone surrogate can be written nowhere.
  except (ValueError, TypeError, RecursionError):
    return None
  return found


def misfit(text: str, model: type[pydantic.BaseModel]) -> str:
  """Why `parse` finds nothing, for whoever is asked again."""
  value = next(json_text.values(text), None)
  if value is None or value == '':
    return 'not JSON'
  try:
    model.model_validate(value)
  except pydantic.ValidationError as e:
    first = e.errors(include_url=False, include_input=False)[0]
    place = '.'.join(map(str, first['loc']))
    return f'{place}: {first["msg"]}' if place else first['msg']
  except (ValueError, TypeError, RecursionError):
    return 'not JSON of the schema'
  return 'control characters; double every backslash'


def _fit(value: Any, schema: Mapping[str, Any], root: Mapping[str, Any]) -> Any:
  """`value` in the shape of `schema`, where it is plain what was meant.

  Only shapes change: a number that stands for a text, a text for a list of one,
  a key too many or spelt otherwise, another case. Nothing is made up.
  """
  while '$ref' in schema:
    schema = root['$defs'][schema['$ref'].rpartition('/')[2]]
  kind = schema.get('type')
  if kind == 'object':
    return _as_object(value, schema, root)
  if kind == 'array':
    return _as_list(value, schema, root)
  if kind == 'string':
    text = _as_text(value)
    return _one_of(text, schema['enum']) if 'enum' in schema else text
  return value


def _as_object(value, schema, root):
  if isinstance(value, list) and len(value) == 1:
    value = value[0]
  properties = schema.get('properties', {})
  wanted = {_bare(name): name for name in properties}
  if (
    isinstance(value, dict)
    and len(value) == 1
    and not ({_bare(k) for k in value} & set(wanted))
  ):
    (value,) = value.values()  # {"lesson": {...}}
  if not isinstance(value, dict):
    return value
  fitted = {}
  for key, inner in value.items():
    name = key if key in properties else wanted.get(_bare(key))
    if name is None:
      if schema.get('additionalProperties') is not False:
        fitted[key] = inner
    elif name == key or name not in value:
      fitted[name] = _fit(inner, properties[name], root)
  return fitted


def _as_list(value, schema, root):
  if value is None:
    value = []
  elif isinstance(value, str):
    value = [line for line in value.splitlines() if line.strip()]
  elif (
    isinstance(value, dict)
    and value
    and all(
      str(k).strip().lower().removeprefix('step').strip(' _').isdigit()
      for k in value
    )
  ):
    value = list(value.values())  # {"1": ..., "2": ...}
  elif not isinstance(value, list):
    value = [value]
  return [_fit(x, schema.get('items', {}), root) for x in value]


def _as_text(value):
  """Numbers and booleans as JSON spells them; a list of texts as lines."""
  if isinstance(value, bool):
    return 'true' if value else 'false'
  if isinstance(value, (int, float, decimal.Decimal)):
    return str(value)
  if value is None:
    return ''
  if isinstance(value, list) and value:
    lines = [_as_text(x) for x in value]
    return '\n'.join(lines) if all(isinstance(x, str) for x in lines) else value
  if isinstance(value, dict):
    texts = [x for x in value.values() if isinstance(x, str)]
    return texts[0] if len(texts) == 1 else value
  return value


def _one_of(text, choices):
  same = [c for c in choices if _bare(c) == _bare(text)]
  return same[0] if same else text


def _bare(name: Any) -> str:
  return re.sub(r'[\W_]+', '', str(name)).casefold()
