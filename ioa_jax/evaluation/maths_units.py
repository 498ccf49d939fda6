r"""Units behind numbers: `5\text{ cm}^2`, `12 cm^2`, `5\,m`, `\$5`, `90^\circ`.

A unit is a bag of base units with powers, so that `m/s`, `\frac{m}{s}` and
"meters per second" are one. Words that are no units ("apples") are kept as
names of what is counted. A word that counts itself (dozen, million) is none of
both: it is a factor of the value.
"""

from __future__ import annotations

import dataclasses
import re

_UNITS = {
  'cm': 'centimeter centimetre',
  'mm': 'millimeter millimetre',
  'm': 'meter metre mtr',
  'km': 'kilometer kilometre',
  'in': 'inch inche',
  'ft': 'foot feet',
  'yd': 'yard',
  'mi': 'mile',
  'kg': 'kilogram kilo',
  'g': 'gram gm',
  'mg': 'milligram',
  'lb': 'pound',
  'oz': 'ounce',
  's': 'second sec',
  'min': 'minute',
  'h': 'hour hr',
  'day': 'day',
  'week': 'week wk',
  'month': 'month',
  'year': 'year yr',
  'l': 'liter litre',
  'ml': 'milliliter millilitre',
  'cent': 'cent ¢',
  'dollar': 'dollar usd buck',
  'euro': 'euro € eur',
  'gbp': '£ sterling',
  'yen': 'yen ¥',
  'rupee': 'rupee ₹',
  'degree': 'degree deg',
  'celsius': 'celsius',
  'fahrenheit': 'fahrenheit',
  'unit': 'unit',
  'radian': 'radian rad',
  'gal': 'gallon',
  'qt': 'quart',
  'pt': 'pint',
  'acre': 'acre',
  'ha': 'hectare',
  'nm': 'nanometer',
  'hz': 'hertz',
  'j': 'joule',
  'n': 'newton',
  'w': 'watt',
  'v': 'volt',
  'pa': 'pascal',
  'mol': 'mole',
  'k': 'kelvin',
  'dm': 'decimeter',
  'am': 'a.m',
  'pm': 'p.m',
  'kw': 'kilowatt',
  'mph': 'mph',
  'kph': 'kph kmh kmph',
  'mod': 'mod',
  'ms': 'millisecond',
  'μm': 'micrometer',
  'ev': 'ev',
  'cal': 'calorie',
}
_UNIT_OF = {w: u for u, words in _UNITS.items() for w in (u, *words.split())}
_COMPOUND = {'mph': {'mi': 1, 'h': -1}, 'kph': {'km': 1, 'h': -1}}
# Known when they stand bare; single letters are variables more often.
_BARE = frozenset(
  w for w in _UNIT_OF if len(w) > 1 and w not in ('mod', 'ev', 'pa')
)
_LETTERS = frozenset('m s g h l J N W V K L A C F'.split())
_FACTORS = {
  'dozen': 12,
  'hundred': 100,
  'thousand': 1000,
  'million': 10**6,
  'billion': 10**9,
  'trillion': 10**12,
}
# After these a number is not the whole answer.
_CONDITIONS = frozenset(
  'if when where unless except or and plus minus times less more than not to '
  'otherwise is are but only provided depends about versus vs between most '
  'least'.split()
)
_POWERS = {'square': 2, 'sq': 2, 'cubic': 3, 'cu': 3}
_FOLLOWING = {'squared': 2, 'cubed': 3}
_TAIL = re.compile(
  r'(?P<value>.*?[0-9)}\]a-zA-Z|!])(?P<unit>(?:[\s\u2009]*(?:'
  r'\\text\{[^{}]*\}(?:\s*\^\s*\{?\s*-?[0-9]\s*\}?)?'
  r'|\^\{\\circ\}|\\cdot(?=[\s\u2009]*\\text)|/(?=[\s\u2009]*\\text)'
  r'|\([\s]*\\text\{[^{}]*\}\s*\)|\\pmod\s*\{[^{}]*\}))+)$'
)
_BARE_TAIL = re.compile(
  r'(?P<value>(?:.*?[0-9)}]))(?P<gap>[\s\u2009]*)'
  r'(?P<unit>[a-zA-Z¢][a-zA-Z.]*(?:\s*\^\s*\{?\s*-?[0-9]\s*\}?)?'
  r'(?:(?:[\s\u2009]*(?:/|\\cdot|per)[\s\u2009]*|[\s\u2009]+)'
  r'[a-zA-Z]+(?:\s*\^\s*\{?\s*-?[0-9]\s*\}?)?)*)$'
)
_FRAC_TAIL = re.compile(
  r'(?P<value>.*?[0-9)}])[\s\u2009]*\\frac\{\s*(?P<over>\\text\{[^{}]*\}|[a-z]{1,3})'
  r'\s*\}\{\s*(?P<under>(?:\\text\{[^{}]*\}|[a-z]{1,3})(?:\^\{?[0-9]\}?)?)\s*\}$'
)
_MONEY = re.compile(
  r'^(?P<sign>-?)\s*\\text\{\s*(?P<unit>dollars|[€£¥₹₩₽]|US|USD|Rs\.?|EUR|GBP)'
  r'\s*\}\s*(?P<value>-?.+)$'
)


@dataclasses.dataclass(frozen=True)
class Quantity:
  """A value and what it counts.

  Attributes:
    value: LaTeX, without the unit.
    units: (base unit, power) pairs, sorted; empty for none.
    names: words that are no units.
    factor: what the value is to be multiplied by.
    conditional: words follow that make the value less than an answer.
  """

  value: str
  units: tuple[tuple[str, int], ...] = ()
  names: frozenset[str] = frozenset()
  factor: int = 1
  conditional: bool = False

  def agrees(self, other: Quantity) -> bool:
    """Whether the units do not contradict each other."""
    if self.conditional or other.conditional:
      return False
    if self.units and other.units and self.units != other.units:
      kinds = {self.units, other.units}
      degrees = (('degree', 1),)
      return degrees in kinds and bool(
        kinds & {(('celsius', 1),), (('fahrenheit', 1),)}
      )
    if self.names and other.names:
      return bool(self.names & other.names)
    mixed = (self.units and other.names) or (self.names and other.units)
    return not mixed or (
      bool({'unit'} & {u for u, _ in self.units + other.units})
    )


def is_money(text: str) -> bool:
  return _MONEY.match(text) is not None


def read(text: str, *, bare_letters: bool = False) -> Quantity:
  """Splits what is counted off a normalized scalar.

  Args:
    bare_letters: `5 m` is five meters and not a product.
  """
  if match := _MONEY.match(text):
    rest = read(match['value'], bare_letters=bare_letters)
    own = _bag(match['unit'].rstrip('.'))
    if rest.units in ((), own[0]):
      return dataclasses.replace(
        rest, value=match['sign'] + rest.value, units=own[0]
      )
  if match := _FRAC_TAIL.match(text):
    words = f'{match["over"]}/{match["under"]}'
    if '\\text' in words or bare_letters:
      return _quantity(match['value'], words)
  if match := _TAIL.match(text):
    value = read(match['value'], bare_letters=False)
    quantity = _quantity(match['value'], match['unit'])
    if value.units and not quantity.units and not quantity.names:
      return dataclasses.replace(quantity, value=value.value, units=value.units)
    return quantity
  if match := _BARE_TAIL.match(text):
    if _is_bare_unit(match['unit'], bool(match['gap']), bare_letters):
      return _quantity(match['value'], match['unit'])
  return Quantity(text)


def _is_bare_unit(unit: str, apart: bool, bare_letters: bool) -> bool:
  names = [n for n in re.split(r'[^a-zA-Z¢.]+|cdot', unit) if n]
  first = names[0].lower().strip('.')
  if first in _BARE or first.removesuffix('s') in _BARE:
    return apart or len(first) > 1
  if bare_letters and apart and names[0] in _LETTERS:
    return all(n in _LETTERS or n.lower() in _BARE or n == 'per' for n in names)
  return apart and (
    first in _POWERS
    or first in _FACTORS
    or first.removesuffix('s') in _FACTORS
    or len(first) > 3
    or first in ('or', 'if', 'and')
  )


def _quantity(value: str, unit: str) -> Quantity:
  plain = re.sub(r'\\text\{([^{}]*)\}', r' \1 ', unit)
  plain = plain.replace('^{\\circ}', ' degree ').replace('\u2009', ' ')
  plain = re.sub(r'\\pmod\s*\{[^{}]*\}', ' mod ', plain)
  # What stands in brackets is a remark: `5 (see above)`.
  plain = re.sub(r'\([^()]*\)', ' ', plain)
  plain = re.sub(r'\\(?:cdot|times)(?![a-z])', ' ', plain)
  words = re.findall(r"[^\W\d_][^\W\d_.'’]*|[¢€£¥₹₩₽]", plain)
  if any(w.lower() in _CONDITIONS for w in words):
    return Quantity(value.strip(), conditional=True)
  if re.search(r'[0-9]', re.sub(r'\^\s*\{?\s*-?[0-9]\s*\}?', '', plain)):
    return Quantity(value.strip(), conditional=True)
  plain = re.sub(r'(?i)\b([ap])\s?\.\s?m\b\.?', r' \1m ', plain)
  factor = 1
  for name, scale in _FACTORS.items():
    plain, count = re.subn(rf'(?i)\b{name}s?\b', ' ', plain)
    factor *= scale**count
  units, names = _bag(plain)
  return Quantity(value.strip(), units, names, factor)


def _bag(plain: str) -> tuple[tuple[tuple[str, int], ...], frozenset[str]]:
  bag: dict[str, int] = {}
  names: set[str] = set()
  sign, power = 1, 1
  tokens = re.findall(
    r"/|\^\s*\{?\s*-?[0-9]\s*\}?|[^\W\d_][^\W\d_.'’]*|[¢€£¥₹₩₽]", plain
  )
  last: dict[str, int] = {}
  for token in tokens:
    word = token.lower()
    if word == '/' or word in ('per', 'every', 'each', 'an', 'a'):
      sign = -1 if word in ('/', 'per', 'every', 'each') else sign
    elif word in _POWERS:
      power = _POWERS[word]
    elif token[0] == '^' or word in _FOLLOWING:
      by = _FOLLOWING.get(word) or int(re.search(r'-?[0-9]', token)[0])
      for unit, count in last.items():
        bag[unit] += count * (by - 1)
    else:
      unit = _UNIT_OF.get(word) or _UNIT_OF.get(word.removesuffix('s'))
      if unit is None:
        names.add(word.removesuffix('s'))
        last = {}
        continue
      last = {
        u: n * sign * power for u, n in _COMPOUND.get(unit, {unit: 1}).items()
      }
      for base, count in last.items():
        bag[base] = bag.get(base, 0) + count
      power = 1
  if 'celsius' in bag or 'fahrenheit' in bag:
    bag.pop('degree', None)
  if bag.get('degree') and {'c', 'f'} & names:
    bag = {'celsius' if 'c' in names else 'fahrenheit': 1}
    names -= {'c', 'f'}
  units = tuple(sorted((u, n) for u, n in bag.items() if n))
  return units, frozenset() if units else frozenset(names)
