"""Answers that are JSON of a schema: the one way to read them."""

from __future__ import annotations

import json
from typing import TypeVar

import json_repair
import pydantic

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
  """The value of a text that is JSON, or nearly, and fits `model`; or None."""
  for load in (json.loads, json_repair.loads):
    try:
      value = model.model_validate(load(text))
      value.model_dump_json()  # A lone surrogate can be written nowhere.
      return value
    except (ValueError, TypeError, RecursionError):
      continue
  return None
