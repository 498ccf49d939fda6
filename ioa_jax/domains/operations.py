"""Named operations on whole numbers, each made of calls to simpler ones.

Grammar. A problem is a call: `octuple 126`, `pair 12,5`, or in the usual
notation `12+5`. Two prompts ask for it: `octuple 126=` wants the value at once,
`octuple 126:` wants it worked. A worked answer is a chain of calls, each with
nothing but its result, and the last result is the answer:

    pair 59,75:double 59=118;118+75=193

So whoever works `pair` must know `double` and sums. An operation says what it
calls once, in its `calls`; prerequisites and levels are read from there, so
no module stands on anything that its lessons do not call.

Why these. Each digit of a value depends on few digits of the operands and on
the digits below that are written already (coefficients add up to ten at most;
halving looks one digit ahead). So a small model can learn to give the value at
once, which calling it takes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
import dataclasses
import re

import numpy as np

from ioa_jax.records import KnowledgeModule

Operands = tuple[int, ...]
Call = tuple[str, Operands]

# How strongly small operands are drawn more often than large ones: a number's
# place in its range is a uniform one to this power.
_SKEW = 1.2
_MAX_DIGITS = 8  # Model text is hostile: no arithmetic on huge numbers.


@dataclasses.dataclass(frozen=True)
class Range:
  """Numbers that an operand is drawn from: multiples of `step`.

  Attributes:
    low, high: the first and last of them, divided by `step`.
  """

  low: int
  high: int
  step: int = 1

  def at(self, difficulty: float) -> int:
    """The number whose difficulty, in [0, 1], is `difficulty`."""
    return self.step * (
      self.low + round((self.high - self.low) * difficulty**_SKEW)
    )

  def difficulty(self, number: int) -> float:
    """The share of draws below `number`, in [0, 1]; the inverse of `at`."""
    place = (number / self.step - self.low) / (self.high - self.low)
    return float(np.clip(place, 0, 1) ** (1 / _SKEW))


@dataclasses.dataclass(frozen=True)
class _Operation:
  """One module's mathematics.

  Attributes:
    name: of the module; a call's word is what follows the slash.
    value: operands to the value, a whole number.
    ranges: of each operand, for problems of this module.
    calls: operands to the chain of calls; None where the value is given at
      once.
    symmetric: the order of the operands does not matter.
    arrange: drawn numbers to operands that the operation is defined for.
    defined: whether a value exists.
  """

  name: str
  description: str
  value: Callable[..., int]
  ranges: tuple[Range, ...]
  calls: Callable[..., tuple[Call, ...]] | None = None
  symmetric: bool = False
  arrange: Callable[..., Operands] = lambda *operands: operands
  defined: Callable[..., bool] = lambda *operands: True


_ANY = Range(10, 999)
# Their values have three digits: small models line two numbers up far later
# where these are longer.
_PAIR = (Range(10, 119), Range(10, 79))

_OPERATIONS = (
  _Operation(
    'numbers/sum',
    'sums with carrying',
    lambda a, b: a + b,
    (_ANY, _ANY),
    symmetric=True,
  ),
  _Operation(
    'numbers/difference',
    'differences with borrowing',
    lambda a, b: a - b,
    (_ANY, _ANY),
    arrange=lambda a, b: (max(a, b), min(a, b)),
    defined=lambda a, b: a >= b,
  ),
  _Operation(
    'numbers/larger',
    'the larger of two numbers',
    lambda a, b: max(a, b),
    (_ANY, _ANY),
    symmetric=True,
  ),
  _Operation(
    'numbers/half',
    'half of an even number',
    lambda a: a // 2,
    (Range(10, 4_999, 2),),
    defined=lambda a: a % 2 == 0,
  ),
  _Operation(
    'numbers/double',
    'twice a number',
    lambda a: 2 * a,
    (Range(10, 4_999),),
  ),
  _Operation(
    'numbers/distance',
    'how far apart two numbers are',
    lambda a, b: abs(a - b),
    (_ANY, _ANY),
    lambda a, b: (
      ('larger', (a, b)),
      ('difference', (max(a, b), min(a, b))),
    ),
    symmetric=True,
  ),
  _Operation(
    'numbers/mean',
    'the number halfway between two',
    lambda a, b: (a + b) // 2,
    (Range(10, 499), Range(10, 499)),
    lambda a, b: (('sum', (a, b)), ('half', (a + b,))),
    symmetric=True,
    arrange=lambda a, b: (a, b ^ (a ^ b) & 1),
    defined=lambda a, b: (a + b) % 2 == 0,
  ),
  _Operation(
    'numbers/quarter',
    'a quarter of a multiple of four',
    lambda a: a // 4,
    (Range(10, 2_999, 4),),
    lambda a: (('half', (a,)), ('half', (a // 2,))),
    defined=lambda a: a % 4 == 0,
  ),
  _Operation(
    'numbers/quadruple',
    'four times a number',
    lambda a: 4 * a,
    (Range(10, 2_999),),
    lambda a: (('double', (a,)), ('double', (2 * a,))),
  ),
  _Operation(
    'numbers/octuple',
    'eight times a number',
    lambda a: 8 * a,
    (Range(10, 2_999),),
    lambda a: (('quadruple', (a,)), ('double', (4 * a,))),
  ),
  _Operation(
    'fences/perimeter',
    'around a rectangle',
    lambda a, b: 2 * a + 2 * b,
    (Range(10, 249), Range(10, 249)),
    lambda a, b: (('sum', (a, b)), ('double', (a + b,))),
    symmetric=True,
  ),
  _Operation(
    'fences/three_sides',
    'around a rectangle that has one side already',
    lambda a, b: a + 2 * b,
    _PAIR,
    lambda a, b: (
      ('perimeter', (a, b)),
      ('difference', (2 * a + 2 * b, a)),
    ),
  ),
  _Operation(
    'fences/pens',
    'two such rectangles',
    lambda a, b: 2 * a + 4 * b,
    _PAIR,
    lambda a, b: (('three_sides', (a, b)), ('double', (a + 2 * b,))),
  ),
  _Operation(
    'fences/stalls',
    'two such rectangles that share a side',
    lambda a, b: a + 4 * b,
    _PAIR,
    lambda a, b: (('pens', (a, b)), ('difference', (2 * a + 4 * b, a))),
  ),
  _Operation(
    'coins/legs',
    'legs of fours and twos',
    lambda fours, twos: 4 * fours + 2 * twos,
    _PAIR,
    lambda fours, twos: (
      ('quadruple', (fours,)),
      ('double', (twos,)),
      ('sum', (4 * fours, 2 * twos)),
    ),
  ),
  _Operation(
    'coins/coins',
    'the worth of fives and twos',
    lambda fives, twos: 5 * fives + 2 * twos,
    _PAIR,
    lambda fives, twos: (
      ('legs', (fives, twos)),
      ('sum', (4 * fives + 2 * twos, fives)),
    ),
  ),
  _Operation(
    'coins/change',
    'fives and twos after paying one for each two',
    lambda fives, twos: 5 * fives + twos,
    _PAIR,
    lambda fives, twos: (
      ('coins', (fives, twos)),
      ('difference', (5 * fives + 2 * twos, twos)),
    ),
  ),
  _Operation(
    'coins/tills',
    'the change of two tills',
    lambda fives, twos: 10 * fives + 2 * twos,
    _PAIR,
    lambda fives, twos: (
      ('change', (fives, twos)),
      ('double', (5 * fives + twos,)),
    ),
  ),
  _Operation(
    'scores/pair',
    'two for a win, one for a draw',
    lambda wins, draws: 2 * wins + draws,
    _PAIR,
    lambda wins, draws: (('double', (wins,)), ('sum', (2 * wins, draws))),
  ),
  _Operation(
    'scores/points',
    'three for a win, one for a draw',
    lambda wins, draws: 3 * wins + draws,
    _PAIR,
    lambda wins, draws: (
      ('pair', (wins, draws)),
      ('sum', (2 * wins + draws, wins)),
    ),
  ),
  _Operation(
    'scores/season',
    'the points of two equal rounds',
    lambda wins, draws: 6 * wins + 2 * draws,
    _PAIR,
    lambda wins, draws: (
      ('points', (wins, draws)),
      ('double', (3 * wins + draws,)),
    ),
  ),
  _Operation(
    'scores/bonus',
    'a season with one more for each win',
    lambda wins, draws: 7 * wins + 2 * draws,
    _PAIR,
    lambda wins, draws: (
      ('season', (wins, draws)),
      ('sum', (6 * wins + 2 * draws, wins)),
    ),
  ),
  _Operation(
    'scores/days',
    'weeks and days in days',
    lambda weeks, days: 7 * weeks + days,
    _PAIR,
    lambda weeks, days: (
      ('bonus', (weeks, days)),
      ('difference', (7 * weeks + 2 * days, days)),
    ),
  ),
  _Operation(
    'scores/workdays',
    'weeks and days in days, two off for each week',
    lambda weeks, days: 5 * weeks + days,
    _PAIR,
    lambda weeks, days: (
      ('days', (weeks, days)),
      ('double', (weeks,)),
      ('difference', (7 * weeks + days, 2 * weeks)),
    ),
  ),
)
_INFIX = {'sum': '+', 'difference': '-', 'larger': '|'}
_BY_WORD = {o.name.partition('/')[2]: o for o in _OPERATIONS}
_BY_NAME = {o.name: o for o in _OPERATIONS}
# What the tokenizer must have a token for.
WORDS = tuple(word for word in _BY_WORD if word not in _INFIX)


@dataclasses.dataclass(frozen=True)
class Problem:
  """One call of one operation."""

  module: str
  operands: Operands

  @property
  def _operation(self) -> _Operation:
    return _BY_NAME[self.module]

  @property
  def text(self) -> str:
    word = self.module.partition('/')[2]
    if word in _INFIX:
      return _INFIX[word].join(map(str, self.operands))
    return f'{word} {",".join(map(str, self.operands))}'

  @property
  def value(self) -> int:
    return self._operation.value(*self.operands)

  @property
  def answer(self) -> str:
    return str(self.value)

  @property
  def calls(self) -> tuple[Problem, ...]:
    """The calls of its worked answer; () for one that has none."""
    calls = self._operation.calls
    if calls is None:
      return ()
    return tuple(
      Problem(_BY_WORD[word].name, operands)
      for word, operands in calls(*self.operands)
    )

  @property
  def canonical(self) -> Problem:
    """One of the problems that differ in the order of equal operands."""
    if not self._operation.symmetric:
      return self
    return Problem(self.module, tuple(sorted(self.operands)))

  @property
  def difficulty(self) -> float:
    """In [0, 1], by the size of its operands among those of its module."""
    places = zip(self._operation.ranges, self.operands, strict=True)
    return float(np.mean([r.difficulty(number) for r, number in places]))

  def prompt(self, answer_format: str) -> str:
    """`answer_format` is 'steps' or 'direct'."""
    return self.text + (':' if self.is_worked(answer_format) else '=')

  def completion(self, answer_format: str) -> str:
    if not self.is_worked(answer_format):
      return self.answer
    return ';'.join(f'{call.text}={call.answer}' for call in self.calls)

  def is_worked(self, answer_format: str) -> bool:
    return answer_format == 'steps' and has_steps(self.module)


def has_steps(module: str) -> bool:
  return _BY_NAME[module].calls is not None


def arity(module: str) -> int:
  return len(_BY_NAME[module].ranges)


def at(module: str, difficulties: Sequence[float]) -> Problem:
  """The problem whose operands have these difficulties, each in [0, 1]."""
  operation = _BY_NAME[module]
  places = zip(operation.ranges, difficulties, strict=True)
  return Problem(module, operation.arrange(*(r.at(d) for r, d in places)))


def draw(
  module: str, rng: np.random.Generator, low: float = 0.0, high: float = 1.0
) -> Problem:
  """A problem whose operands have difficulties in [low, high]."""
  return at(module, rng.uniform(low, high, arity(module)))


_NOTATION = re.compile(r'(\d+)([+|-])(\d+)|([a-z_]+) (\d+(?:,\d+)*)', re.ASCII)


def parse(text: str) -> Problem | None:
  """The problem that a call's left side states; None if it states none."""
  match = _NOTATION.fullmatch(text)
  if not match or max(map(len, re.findall(r'\d+', text))) > _MAX_DIGITS:
    return None
  if match[2]:
    word = next(w for w, symbol in _INFIX.items() if symbol == match[2])
    operands = int(match[1]), int(match[3])
  else:
    word = match[4]
    operands = tuple(map(int, match[5].split(',')))
  operation = _BY_WORD.get(word)
  if operation is None or len(operands) != len(operation.ranges):
    return None
  problem = Problem(operation.name, operands)
  # Text of another form, such as 007, is not a call.
  is_defined = operation.defined(*operands)
  return problem if is_defined and problem.text == text else None


def _modules() -> tuple[KnowledgeModule, ...]:
  """Prerequisites and levels as the calls have them."""
  levels: dict[str, int] = {}
  modules = []
  for operation in _OPERATIONS:
    example = at(operation.name, [1.0] * len(operation.ranges))
    called = tuple(dict.fromkeys(call.module for call in example.calls))
    level = 1 + max(levels[c] for c in called) if called else 0
    levels[operation.name] = level
    modules.append(
      KnowledgeModule(operation.name, operation.description, called, level)
    )
  return tuple(modules)


MODULES = _modules()
# What others call must be known at once, too.
CALLED = frozenset(p for m in MODULES for p in m.prerequisites)
