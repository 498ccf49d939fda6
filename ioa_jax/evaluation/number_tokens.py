r"""Text to tokens with the numbers in it, each whole or refused.

A run of digits with its separators is one token. If it is no number as a whole
(`12:30`, `1,23`) it has no value: no part of it is ever taken.
"""

from __future__ import annotations

import dataclasses
from fractions import Fraction
import re

from ioa_jax.evaluation import answer_text

_MAX_NUMBER_CHARS = 64
MAX_EXPONENT = 60

_FORMS = tuple(
  re.compile(form)
  for form in (
    r'[0-9]+(?:\.[0-9]+)?|\.[0-9]+',
    # Groups of three; the Indian ones of two; a blank, an apostrophe.
    r'[1-9][0-9]{0,2}(?:,[0-9]{3})+(?:\.[0-9]+)?',
    r'[1-9][0-9]?(?:,[0-9]{2})+,[0-9]{3}(?:\.[0-9]+)?',
    r"[1-9][0-9]{0,2}(?:[ '][0-9]{3})+(?:\.[0-9]+)?",
  )
)
# A decimal comma, where points or blanks group the digits before it.
_DECIMAL_COMMA = re.compile(
  r'[1-9][0-9]{0,2}(?:(?:\.[0-9]{3})+,[0-9]+|(?:\.[0-9]{3}){2,}'
  r'|(?: [0-9]{3})+,[0-9]+)'
)
_SMALL = (
  'zero one two three four five six seven eight nine ten eleven twelve '
  'thirteen fourteen fifteen sixteen seventeen eighteen nineteen'
).split()
_TENS = 'twenty thirty forty fifty sixty seventy eighty ninety'.split()
_SCALES = {
  'hundred': 100,
  'thousand': 1000,
  'million': 10**6,
  'billion': 10**9,
  'trillion': 10**12,
  'dozen': 12,
  'lakh': 10**5,
  'crore': 10**7,
}
_WORDS = {
  **{word: Fraction(n) for n, word in enumerate(_SMALL)},
  **{word: Fraction(10 * n) for n, word in enumerate(_TENS, 2)},
}
_PARTS = {
  'half': 2,
  'halves': 2,
  'third': 3,
  'quarter': 4,
  'fourth': 4,
  'fifth': 5,
  'sixth': 6,
  'eighth': 8,
  'tenth': 10,
}
_HAN = {c: n for n, c in enumerate('零一二三四五六七八九')} | {'两': 2, '〇': 0}

_TEXT_COMMANDS = (
  'text',
  'textbf',
  'textit',
  'textrm',
  'texttt',
  'textsf',
  'textnormal',
  'mathrm',
  'mathbf',
  'mathit',
  'mathsf',
  'mathtt',
  'boldsymbol',
  'bm',
  'mbox',
  'hbox',
  'emph',
  'underline',
  'boxed',
  'fbox',
  'operatorname',
)
_FRACTION = re.compile(
  r'\\[dtc]?frac\s*(?:\{([^{}]*)\}|([0-9]))\s*(?:\{([^{}]*)\}|([0-9]))'
)
_MIXED = re.compile(
  r'(?<=[0-9])\s*\\[dtc]?frac\s*(?:\{\s*([0-9]+)\s*\}|([0-9]))'
  r'\s*(?:\{\s*([0-9]+)\s*\}|([0-9]))'
)
_CLEANED = tuple(
  (re.compile(pattern), by)
  for pattern, by in (
    # GSM8K's calculator marks repeat what stands behind them.
    (r'<<[^<>\n]*>>', ''),
    (r'</?[A-Za-z][^<>\n]*>', ' '),
    (r'\b(?:i\.\s?e|e\.\s?g)\.', ' that is '),
    (r'\b[A-Z]{0,3}\\?\$|[€£¥₹₩₽¢]', '$'),
    (r'\b(?:Rs|Nos?|approx)\.', ' '),
    (r'([-+])\s?\${1,3}\s?(?=[0-9.])', r' \1'),
    (r'\${1,3}([-+])(?=[0-9.])', r' \1'),
    (r'\$', ' '),
    (
      r'\\(?:left|right|bigl?|bigr?|Bigl?|Bigr?|displaystyle|textstyle|limits'
      r'|tiny|small|normalsize|large|Large|LARGE|huge|Huge|bf|rm|it)'
      r'(?![A-Za-z])',
      ' ',
    ),
    (r'\\(?:times|cdot|ast)(?![A-Za-z])|[×·⋅∗✕]', ' * '),
    (r'\\div(?![A-Za-z])|÷', ' / '),
    (r'\\(?:approx|simeq|sim)(?![A-Za-z])|[≈≃~]', ' ≈ '),
    (r'\\pm(?![A-Za-z])', ' ± '),
    (
      r'\\(?:leq?|geq?|lt|gt|leqslant|geqslant|neq?)(?![A-Za-z])|[≤≥≠<>]',
      ' < ',
    ),
    (r'\s*\^\s*\{?\s*\\circ\s*\}?', '°'),
    (r'\\(?:qquad|quad)(?![A-Za-z])|\\[()\[\]]|\\(?=[ ;:>])|\\\\', ' '),
    (r'\\([%#&_])', r'\1'),
    (r'\*\*\*+|___+', '**'),
    (r'(?<=[0-9])\*\*(?=[0-9(])', '^'),
    (r'\^\s*\{\s*([-+]?[0-9]+)\s*\}', r'^\1'),
    (r'(?<=[0-9])\s*[xX]\s*(?=[0-9])', ' * '),
    (r'(?<=[0-9])\s+and\s+(?=[0-9]+/[0-9])', ' '),
    (
      r'\\(?:therefore|implies|iff|to|[Ll]ong[Rr]ightarrow|[Rr]ightarrow)'
      r'(?![A-Za-z])',
      ' → ',
    ),
    (r'(?<![A-Za-z0-9])_+|_+(?![A-Za-z0-9])|`|"|“|”', ' '),
  )
)
_TOKEN = re.compile(
  r"""(?P<num>
    (?:[1-9][0-9]{0,2}(?:[ '][0-9]{3})+(?![0-9])(?:[.,][0-9]+)?(?![.,:'_]?[0-9])
     |\.?[0-9](?:[0-9]|[.,:'_](?=[0-9]))*)
    (?:[eE][-+]?[0-9]+(?![A-Za-z0-9]))?)
  |(?P<cjk>[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]+)
  |(?P<word>[^\W\d_](?:[^\W_]|['’](?=[^\W\d_]))*|\\[A-Za-z]+)
  |(?P<bold>\*\*)
  |(?P<end>[.!?](?=\s|$|\*\*|\))|[。！？\n;；|])
  |(?P<mark>\S)""",
  re.VERBOSE,
)


@dataclasses.dataclass(frozen=True)
class Token:
  """One token.

  Attributes:
    kind: 'num', 'word', 'end' (of a sentence) or 'mark' (any other sign).
    text: as it stands in the prepared text.
    value: of a number; None for one that is refused.
    glued: nothing stands between it and the token before.
    bold: it stands between two `**`.
    spelled: the number is in words.
  """

  kind: str
  text: str
  value: Fraction | None = None
  glued: bool = False
  bold: bool = False
  spelled: bool = False

  @property
  def word(self) -> str:
    return self.text.casefold() if self.kind == 'word' else ''


def value_of(run: str) -> Fraction | None:
  """The value of digits with separators and an exponent, None if refused."""
  digits, _, exponent = run.replace('E', 'e').partition('e')
  if len(run) > _MAX_NUMBER_CHARS:
    return None
  if any(form.fullmatch(digits) for form in _FORMS):
    plain = re.sub(r"[, ']", '', digits)
  elif _DECIMAL_COMMA.fullmatch(digits):
    plain = re.sub(r'[. ]', '', digits).replace(',', '.')
  else:
    return None
  if abs(int(exponent or 0)) > MAX_EXPONENT:
    return None
  return Fraction(plain) * Fraction(10) ** int(exponent or 0)


def prepare(text: str) -> str:
  """One spelling of what LaTeX, Markdown and Unicode write in many."""
  text = answer_text.plain_unicode(text)
  # `20,\!000`, `20{,}000` and `20\,000` have separators of thousands.
  text = re.sub(
    r'(?<=[0-9])(?:,\\!|\{,\}|\\[,;: ]|~)(?=[0-9]{3}(?![0-9]))', ',', text
  )
  text = re.sub(r'\\[!,]|\{,\}', ' ', text)
  text = answer_text.unwrap(text, _TEXT_COMMANDS)
  text = _MIXED.sub(lambda m: f' {m[1] or m[2]}/{m[3] or m[4]}', text)
  for _ in range(3):
    text = _FRACTION.sub(lambda m: f'(({m[1] or m[2]})/({m[3] or m[4]}))', text)
  for pattern, by in _CLEANED:
    text = pattern.sub(by, text)
  return text


def tokenize(text: str) -> list[Token]:
  """Tokens of prepared text; numbers in words are numbers."""
  tokens: list[Token] = []
  bold, end = False, -1
  for match in _TOKEN.finditer(text):
    kind, written = match.lastgroup, match[0]
    glued, end = match.start() == end, match.end()
    if kind == 'bold':
      bold = not bold
    elif kind == 'num':
      tokens.append(Token('num', written, value_of(written), glued, bold))
    elif kind == 'cjk':
      value = _han(written)
      kind = 'word' if value is None else 'num'
      tokens.append(Token(kind, written, value, glued, bold, value is not None))
    else:
      tokens.append(Token(kind, written, None, glued, bold))
  return _scale(_spell(tokens))


def _han(text: str) -> Fraction | None:
  """Up to 99: 五, 十八, 二十一."""
  tens, ten, ones = text.rpartition('十')
  if len(tens) > 1 or len(ones) > 1 or not set(tens + ones) <= _HAN.keys():
    return None
  if not ten:
    return Fraction(_HAN[ones]) if ones else None
  return Fraction(10 * _HAN.get(tens, 1) + _HAN.get(ones, 0))


def _spell(tokens: list[Token]) -> list[Token]:
  """`twenty-one`, `three quarters`, `two and a half`, `half` as numbers."""
  spelled, i = [], 0
  while i < len(tokens):
    value, used = _spelled_at(tokens, i)
    if value is None:
      spelled.append(tokens[i])
      i += 1
      continue
    written = ' '.join(t.text for t in tokens[i : i + used])
    spelled.append(
      dataclasses.replace(
        tokens[i], kind='num', text=written, value=value, spelled=True
      )
    )
    i += used
  return spelled


def _spelled_at(tokens: list[Token], i: int) -> tuple[Fraction | None, int]:
  word = [t.word for t in tokens[i : i + 5]] + [''] * 5
  value, used = _WORDS.get(word[0]), 1
  if (word[0] == 'a' and word[1] in _SCALES) or word[0] == 'half' == word[2]:
    value = Fraction(1)
  elif word[0] == 'half' and word[1] != 'of':
    return Fraction(1, 2), 2 if word[1] in ('a', 'an') else 1
  if value is None:
    return None, 0
  if value >= 20 and value % 10 == 0:
    dash = i + 1 < len(tokens) and tokens[i + 1].text == '-'
    ones = _WORDS.get(word[1 + dash])
    if ones is not None and 0 < ones < 10:
      value, used = value + ones, 2 + dash
  dash = i + used < len(tokens) and tokens[i + used].text == '-'
  part = word[used + dash] if used + dash < 5 else ''
  denominator = _PARTS.get(part) or _PARTS.get(part.removesuffix('s'))
  if denominator and 0 < value < denominator and value < 20:
    return value / denominator, used + dash + 1
  return value, used


def _scale(tokens: list[Token]) -> list[Token]:
  """`18 million`, `2 and a half`, `three hundred and five` as one number."""
  scaled: list[Token] = []
  i = 0
  while i < len(tokens):
    token = tokens[i]
    i += 1
    if token.kind != 'num' or token.value is None:
      scaled.append(token)
      continue
    total, group, text = Fraction(0), token.value, [token.text]
    while i < len(tokens):
      word = tokens[i].word
      scale = _SCALES.get(word)
      if scale is None and word != 'dozens':  # `20 dozens` counts dozens.
        scale = _SCALES.get(word.removesuffix('s'))
      if scale is None and word in ('k', 'bn', 'mn') and tokens[i].glued:
        scale = {'k': 10**3, 'mn': 10**6, 'bn': 10**9}[word]
      following = [t.word for t in tokens[i : i + 3]] + [''] * 3
      more = i + (following[0] == 'and')
      if scale is not None:
        group *= scale
        text.append(tokens[i].text)
        i += 1
      elif following[0] == 'and' and _is_proper(
        tokens[i + 1 + (following[1] == 'a') :][:1]
      ):
        last = i + 1 + (following[1] == 'a')
        group += tokens[last].value
        text += [t.text for t in tokens[i : last + 1]]
        i = last + 1
      elif (
        token.spelled
        and group % 100 == 0
        and group
        and _continues(tokens[more : more + 1], group)
      ):
        total, group = total + group, tokens[more].value
        text += [t.text for t in tokens[i : more + 1]]
        i = more + 1
      else:
        break
    if len(text) > 1:
      token = dataclasses.replace(
        token, text=' '.join(text), value=total + group
      )
    scaled.append(token)
  return scaled


def _is_proper(tokens: list[Token]) -> bool:
  return (
    bool(tokens)
    and bool(tokens[0].value)
    and (tokens[0].spelled and 0 < tokens[0].value < 1)
  )


def _continues(tokens: list[Token], group: Fraction) -> bool:
  return (
    bool(tokens)
    and tokens[0].spelled
    and bool(tokens[0].value)
    and (1 <= tokens[0].value < min(group, 1000))
  )
