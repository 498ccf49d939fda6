"""JSON values in what a model wrote, with its LaTeX as it was meant.

A model that forgets to double a backslash writes legal JSON that means
something else: \\frac begins with a form feed, \\times with a tab. What can
only be LaTeX is restored before anything is decoded.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
import decimal
import json
import re
from typing import Any

import json_repair

# More could take minutes; no lesson is that long.
_READ_CHARS, _MENDED_CHARS = 200_000, 40_000
# Looks at a character while mending; a long lesson takes half, a text of braces
# the square of its length.
_MOST_LOOKS = 150_000
_MOST_OBJECTS = 32  # Beginnings of objects that are tried in a text.
_ESCAPE = re.compile(r'\\(?:(\\)|u[0-9a-fA-F]{4}|([A-Za-z]+)|(.))', re.DOTALL)
# Commands behind \t and \n; behind the rest of \t a word follows a tab.
_TABBED = frozenset(
  'tan tanh tau tag tbinom text textbf textbackslash textcolor textdegree '
  'textdollar textit textmd textnormal textrm textsc textsf textstyle '
  'textsubscript textsuperscript texttt textup textwidth tfrac therefore theta '
  'thickapprox thicksim tilde times tiny to top triangle triangledown '
  'triangleleft triangleq triangleright twoheadleftarrow '
  'twoheadrightarrow'.split()
)
_NEW_LINED = frozenset(
  'nabla natural ncong nearrow neg neq newcommand newline ngeq ngeqslant ngtr '
  'nicefrac nleftarrow nleftrightarrow nleq nleqslant noindent nolimits '
  'nonumber normalsize not notin nprec nRightarrow nrightarrow nsubseteq nsucc '
  'nsupseteq ntriangleleft ntriangleright nvDash nvdash nwarrow'.split()
)
# A word or a variable may follow a line break just so.
_AMBIGUOUS = frozenset('ne ni nu nexists nless nmid nparallel nsim'.split())
# Stands for a backslash; no text has this character, which is private.
_BACKSLASH = '\ue5c0'
_CONTROL = re.compile(r'[\x00-\x08\x0b-\x1f\x7f-\x9f]')


def values(text: str) -> Iterator[Any]:
  """JSON values in a text, the likeliest to be meant first.

  Numbers with a point are Decimals, so that their spelling is kept. Strings
  have no carriage returns.
  """
  if len(text) > _READ_CHARS:
    return
  text = with_latex(text.lstrip('\ufeff').strip())
  inner = without_fence(text)
  yield from _load(_DECODER.decode, inner)
  if len(text) > _MENDED_CHARS:
    return
  for begin, end in reversed(_objects(text)):
    yield from _load(_DECODER.decode, text[begin:end])
  yield from _load(_mended, inner)


def _load(decode: Callable[[str], Any], text: str) -> Iterator[Any]:
  """The value, or nothing."""
  try:
    value = _mapped(decode(text), _with_plain_lines)
  except (
    ValueError,
    TypeError,
    RecursionError,
    decimal.InvalidOperation,
    _TooLong,
  ):
    return
  yield value


def has_control(value: Any) -> bool:
  """Whether any text in a value has a control character but \\n and \\t."""
  if isinstance(value, str):
    return bool(_CONTROL.search(value))
  if isinstance(value, dict):
    return any(has_control(x) for pair in value.items() for x in pair)
  return isinstance(value, list) and any(map(has_control, value))


def with_latex(text: str) -> str:
  """JSON text in which backslashes that begin LaTeX are doubled."""
  careless = _is_careless(text)

  def mend(match: re.Match) -> str:
    escape, (doubled, word, sign) = match[0], match.groups()
    if doubled:
      # A line of a matrix ends with two, if nothing else doubles them.
      ends_line = careless and text[match.end() : match.end() + 1].isspace()
      return escape * (2 if ends_line else 1)
    if sign == "'":
      return sign  # As Python has it.
    if sign:
      return escape if sign in '"/' else '\\' + escape
    if word and _is_latex(word, text, match, careless):
      return '\\' + escape
    return escape

  return _ESCAPE.sub(mend, text)


def _is_latex(word: str, text: str, match: re.Match, careless: bool) -> bool:
  if word[0] not in 'bfnrt':
    return True  # No escape of JSON.
  if word[0] in 'bfr':
    return len(word) > 1  # Nobody means these characters.
  if word[0] == 't':
    return word in _TABBED
  if word in _NEW_LINED:
    return True
  if word not in _AMBIGUOUS:
    return False
  begin, end = match.span()
  before, after = text[max(0, begin - 1) : begin], text[end : end + 1]
  if careless or _in_formula(text, begin):
    return True
  if before in ('^', '_', '{') or after in ('^', '_', '}', '{'):
    return True
  # `x \ne 0` stands in a sentence, `a)\ne = 3` begins a line.
  return word == 'ne' and before == ' ' and after == ' '


def _is_careless(text: str) -> bool:
  """Whether some backslashes cannot have been meant as JSON has them."""
  single = double = False
  for doubled, word, sign in _ESCAPE.findall(text):
    if doubled:
      double = True
    elif word:
      single = single or (
        word[0] not in 'bfnrt'
        or word in _TABBED
        or word in _NEW_LINED
        or (word[0] in 'bfr' and len(word) > 1)
      )
    else:
      single = single or (bool(sign) and sign in '()[],;:!{}|')
  return single and not (double and re.search(r'\\\\[A-Za-z(\[]', text))


def _in_formula(text: str, place: int) -> bool:
  """Whether the string has an open $, \\( or \\[ before `place`."""
  # A quotation mark within the string is rare, and hides no dollar for long.
  before = text[max(0, place - 500) : place].rpartition('"')[2]
  return before.count('$') % 2 == 1 or any(
    before.count(opened) > before.count(closed)
    for opened, closed in ((r'\(', r'\)'), (r'\[', r'\]'))
  )


def _integer(digits: str) -> int | decimal.Decimal:
  # Python refuses to read thousands of digits as an int.
  return int(digits) if len(digits) < 1000 else decimal.Decimal(digits)


class _TooLong(Exception):
  """Mending takes more looks than any lesson would."""


class _Counted(str):
  """A text that can be looked at only so often.

  `json_repair` has no limit of its own, and Python cannot stop a call.
  """

  looks: list[int]

  def __getitem__(self, place):
    found = super().__getitem__(place)
    self.looks[0] -= 1 + len(found) // 100
    if self.looks[0] < 0:
      raise _TooLong
    return _counted(found, self.looks) if isinstance(place, slice) else found

  def __add__(self, other):
    return _counted(super().__add__(other), self.looks)

  def __radd__(self, other):
    return _counted(other + str(self), self.looks)


def _counted(text: str, looks: list[int]) -> _Counted:
  counted = _Counted(text)
  counted.looks = looks
  return counted


def _mended(text: str) -> Any:
  """What `json_repair` makes of it, which does not see doubled backslashes.

  It would take some of them for escapes of what follows.
  """
  hidden = _ESCAPE.sub(lambda m: _BACKSLASH if m[1] else m[0], text)
  return _mapped(
    json_repair.loads(_counted(hidden, [_MOST_LOOKS])),
    lambda t: t.replace(_BACKSLASH, '\\'),
  )


# Line breaks within strings are what models write, too.
_DECODER = json.JSONDecoder(
  strict=False, parse_float=decimal.Decimal, parse_int=_integer
)


def _objects(text: str) -> list[tuple[int, int]]:
  """Where objects stand in prose, in order."""
  found, begin = [], text.find('{')
  for _ in range(_MOST_OBJECTS):
    if begin < 0:
      break
    end = begin + 1
    try:
      _, end = _DECODER.raw_decode(text, begin)
      found.append((begin, end))
    except (ValueError, RecursionError, decimal.InvalidOperation):
      pass  # Not one, or not whole: the next may be.
    begin = text.find('{', end)
  return found


def without_fence(text: str) -> str:
  """What stands in a fence that is around the whole text; else the text."""
  fenced = re.fullmatch(r'\s*(`{3,})\w*\s*\n(.*?)\n?\s*\1\s*', text, re.DOTALL)
  return fenced[2] if fenced else text.strip()


def _with_plain_lines(text: str) -> str:
  return text.replace('\r\n', '\n').replace('\r', '\n')


def _mapped(value: Any, change: Callable[[str], str]) -> Any:
  """`value` with every text in it changed."""
  if isinstance(value, str):
    return change(value)
  if isinstance(value, list):
    return [_mapped(x, change) for x in value]
  if isinstance(value, dict):
    return {change(k): _mapped(v, change) for k, v in value.items()}
  return value
