r"""Numbers joined by signs: `16 eggs - 3 eggs = 13`, read as one quantity."""

from __future__ import annotations

from collections.abc import Sequence
import dataclasses
from fractions import Fraction
import re

from ioa_jax.evaluation import number_tokens
from ioa_jax.evaluation.number_tokens import Token

_MAX_CHAIN = 80
_MAX_BITS = 512
_SIGNS = frozenset('+-*/^()')
VERBS = frozenset(
  'is are was were makes make made equals equal gives give gave leaves leave '
  'becomes remain remains gets get costs cost totals has have had comes will '
  'would can means yields results takes take'.split()
)
# What follows these says more about an answer that is complete already.
TAILS = frozenset(
  'because since as which where when if that who for per in on at after before '
  'by from with during each every more less left and so but while until than '
  'over out to given see if not'.split()
)
_MEASURES = (
  (
    'hour',
    'hr',
    'minute',
    'min',
    'day',
    'week',
    'month',
    'year',
    'foot',
    'feet',
    'ft',
    'yard',
    'mile',
    'meter',
    'pound',
    'lb',
    'dollar',
    'gallon',
    'dozen',
  ),
  (
    'minute',
    'min',
    'second',
    'sec',
    'hour',
    'day',
    'week',
    'month',
    'inche',
    'inch',
    'in',
    'feet',
    'foot',
    'cent',
    'ounce',
    'oz',
    'cm',
    'pint',
    'quart',
  ),
)


@dataclasses.dataclass(frozen=True)
class Found:
  """A number that was found.

  Attributes:
    text: as written, in prepared text.
    value: None for one that is refused.
  """

  text: str
  value: Fraction | None


REFUSED = Found('', None)


@dataclasses.dataclass(frozen=True)
class Chain:
  """Numbers joined by signs: `16 eggs - 3 eggs = 13`; tokens[start:end]."""

  start: int
  end: int
  found: Found
  # Whether it says more than one number, and whether it says what they make.
  joined: bool
  equated: bool = False


def chain_at(tokens: Sequence[Token], start: int) -> Chain | None:
  """The longest chain that begins at `start`."""
  parts: list[list[Token]] = [[]]
  i, end, numbers = start, start, 0
  while i < len(tokens) and i - start < _MAX_CHAIN:
    token = tokens[i]
    after_number = bool(parts[-1]) and (
      parts[-1][-1].kind == 'num' or parts[-1][-1].text == ')'
    )
    if token.kind == 'num':
      fraction = [t.text for t in tokens[i + 1 : i + 2]] == ['/']
      mixed = after_number and fraction and parts[-1][-1].text.isdigit()
      if after_number and not mixed:
        break
      parts[-1].append(token)
      numbers, i = numbers + 1, i + 1
      end = i
    elif token.text in _SIGNS:
      if token.text == '(' and after_number and not token.glued:
        break
      parts[-1].append(token)
      i += 1
      end = i if token.text == ')' else end
    elif token.text in ('=', '≈') and after_number:
      parts.append([])
      i += 1
    elif after_number and (skip := _unit_before_sign(tokens, i)):
      i = skip
    else:
      break
  else:
    if i - start >= _MAX_CHAIN:
      return Chain(start, i, REFUSED, True)
  if not numbers:
    return None
  return _read_chain(tokens, start, end, parts, numbers)


def _read_chain(tokens, start, end, parts, numbers) -> Chain:
  last = next(p for p in reversed(parts) if any(t.kind == 'num' for t in p))
  # A sign or a bracket that nothing follows belongs to the sentence.
  while last[-1].kind != 'num' and last[-1].text != ')':
    last = last[:-1]
  while last[-1].text == ')' and _depth(last) < 0:
    last = last[:-1]
  while last[0].text in ('(', '*', '/', '+', '^') and (
    _depth(last) > 0 or last[0].text != '('
  ):
    last = last[1:]
  value = _evaluate(last)
  text = re.sub(
    r'(?<=[0-9]) ?([*/^]) ?(?=[0-9])', r'\1', ' '.join(t.text for t in last)
  )
  text = re.sub(r'^([-+]) ', r'\1', text)
  dashes = [t for t in last[1:] if t.text == '-']
  if len(parts) == 1 and dashes and not any(t.text in '+*/^' for t in last):
    value = None  # `18-20` is more often a range than a difference.
  before = [t.text for t in tokens[max(0, start - 2) : start]]
  if before[-1:] == ['/'] or before == ['/', '(']:
    value = None  # `x/2`.
  if before and (
    before[-1][0] == '\\'
    or before[-1] == '√'
    or (before[-1] == '{' and before[0][0] == '\\')
  ):
    value = None  # `\sqrt{18}`.
  following = tokens[end : end + 1]
  if following and _spoils(following[0]):
    value = None
  return Chain(start, end, Found(text, value), numbers > 1, len(parts) > 1)


def _depth(tokens: Sequence[Token]) -> int:
  return sum({'(': 1, ')': -1}.get(t.text, 0) for t in tokens)


def _spoils(token: Token) -> bool:
  r"""Whether a number is only a part of more: `18x`, `18\pi`, `18±1`."""
  if token.text.startswith('\\') or token.text in ('±', 'π', '√', '<'):
    return True
  if token.kind == 'word' and token.glued and len(token.text) == 1:
    return token.text in 'xyznabtMBkKi'
  return False


def _unit_before_sign(tokens: Sequence[Token], i: int) -> int:
  """Where the sign stands after the unit words at `i`; 0 for none."""
  for j in range(i, min(i + 4, len(tokens))):
    if tokens[j].text in ('+', '-', '*', '/', '=', '≈'):
      following = tokens[j + 1 : j + 2]
      return (
        j
        if j > i
        and following
        and (following[0].kind == 'num' or following[0].text == '(')
        and not tokens[j].glued
        else 0
      )
    if tokens[j].text in '%°':
      continue
    if tokens[j].kind != 'word' or tokens[j].word in VERBS | TAILS:
      return 0
  return 0


def opens(tokens: Sequence[Token], i: int) -> bool:
  for token in tokens[i + 1 : i + 4]:
    if token.kind == 'num':
      return True
    if token.text not in ('-', '('):
      return False
  return False


def is_pronoun(tokens: Sequence[Token], i: int) -> bool:
  following = [t.word for t in tokens[i + 1 : i + 2]]
  return following == ['of'] or (
    tokens[i].word in ('one', 'half')
    and (following in (['more'], ['way'], ['possible']))
  )


def is_measure(tokens: Sequence[Token], end: int, i: int) -> bool:
  """`2 hours 30 minutes`: two numbers of one quantity."""
  units = [
    tokens[j].word.removesuffix('s') if 0 <= j < len(tokens) else ''
    for j in (end, i + 1)
  ]
  return units[0] != units[1] and all(
    u in known for u, known in zip(units, _MEASURES)
  )


def _evaluate(tokens: list[Token]) -> Fraction | None:
  """The value of numbers with + - * / ^ and brackets, None if it has none."""
  value, rest = _sum(tokens)
  return None if rest else value


_Reading = tuple[Fraction | None, list[Token]]


def _sum(tokens: list[Token]) -> _Reading:
  value, tokens = _product(tokens)
  while value is not None and tokens and tokens[0].text in ('+', '-'):
    term, rest = _product(tokens[1:])
    if term is None:
      return None, tokens
    value = value + term if tokens[0].text == '+' else value - term
    tokens = rest
  return value, tokens


def _product(tokens: list[Token]) -> _Reading:
  value, tokens = _power(tokens)
  while value is not None and tokens and tokens[0].text in ('*', '/'):
    factor, rest = _power(tokens[1:])
    if factor is None or (tokens[0].text == '/' and factor == 0):
      return None, tokens
    value = value * factor if tokens[0].text == '*' else value / factor
    tokens = rest
  return value, tokens


def _power(tokens: list[Token]) -> _Reading:
  if tokens and tokens[0].text in ('+', '-'):
    value, rest = _power(tokens[1:])
    return (
      None if value is None else -value if tokens[0].text == '-' else value
    ), rest
  value, tokens = _atom(tokens)
  if value is not None and tokens and tokens[0].text == '^':
    exponent, rest = _power(tokens[1:])
    if exponent is None or exponent.denominator != 1:
      return None, tokens
    if abs(exponent) > number_tokens.MAX_EXPONENT or value == 0 > exponent:
      return None, tokens
    value, tokens = value ** int(exponent), rest
  if value is not None and value.numerator.bit_length() > _MAX_BITS:
    return None, tokens
  return value, tokens


def _atom(tokens: list[Token]) -> _Reading:
  if not tokens:
    return None, tokens
  if tokens[0].kind == 'num':
    value, rest = tokens[0].value, tokens[1:]
    # `2 1/2`: a whole number before a proper fraction.
    if (
      value is not None
      and value.denominator == 1
      and [t.text for t in rest[1:2]] == ['/']
      and _whole(rest[0])
      and _whole(rest[2:3][0] if rest[2:3] else None)
      and rest[0].value < rest[2].value
    ):
      return value + rest[0].value / rest[2].value, rest[3:]
    return value, rest
  if tokens[0].text == '(':
    value, rest = _sum(tokens[1:])
    if value is not None and rest and rest[0].text == ')':
      return value, rest[1:]
  return None, tokens


def _whole(token: Token | None) -> bool:
  return (
    token is not None
    and token.kind == 'num'
    and (
      token.value is not None
      and token.value.denominator == 1
      and token.text.isdigit()
    )
  )
