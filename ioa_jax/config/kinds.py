"""Types and ranges of settings, and what a group of settings is."""

from __future__ import annotations

from typing import Annotated, Literal, TypeVar

from annotated_types import Ge, Gt, Interval, Predicate
import pydantic

# A marker: how a run is carried out and not what it is, so it may change
# between the starts of one run.
CHANGEABLE = 'changeable'


class Says(str):
  """What a value may be, where its type and bounds alone do not say it."""


_T = TypeVar('_T')
Changeable = Annotated[_T, CHANGEABLE]
Share = Annotated[float, Interval(ge=0, le=1)]
BelowOne = Annotated[float, Interval(ge=0, lt=1)]
AboveZero = Annotated[float, Interval(gt=0, le=1)]
Positive = Annotated[float, Gt(0)]
NotNegative = Annotated[float, Ge(0)]
Count = Annotated[int, Ge(1)]
CountOrAuto = Annotated[
  Count | Literal['auto'], Says("a whole number >= 1, or 'auto'")
]
CountOrNone = Annotated[int, Ge(0)]
Dtype = Literal['float32', 'bfloat16']
Format = Literal['steps', 'direct']
Remat = Literal['none', 'dots', 'full']
Response = Literal['exact', 'likelihood']
Axis = Annotated[
  int,
  Predicate(lambda n: n == -1 or n >= 1),
  Says('-1, or a whole number >= 1'),
]


class Group(pydantic.BaseModel):
  model_config = pydantic.ConfigDict(
    strict=True,
    extra='forbid',
    frozen=True,
    allow_inf_nan=False,
    use_attribute_docstrings=True,
  )
