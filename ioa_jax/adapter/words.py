r"""Texts as what is compared: words, numbers, and the signs before them.

Case, width, sentence marks and blanks do not count. What makes another problem
does: signs, comparison marks, brackets, powers and decimal points. A sign is
part of the word that follows it, so that n words are n words:

  `Is -5 + 1.5 < 4?`  is  -5  +1.5  <4

Scripts that set no blanks count by character, and a character for half a word.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple
import unicodedata

import regex

_NO_BLANKS = (
  r'[\p{L}&&[\p{scx=Han}\p{scx=Hiragana}\p{scx=Katakana}\p{scx=Thai}'
  r'\p{scx=Lao}\p{scx=Khmer}\p{scx=Myanmar}\p{scx=Tibetan}]]'
)
_TOKEN = regex.compile(
  r'(?P<number>(?:\d{1,3}(?:,\d{3})+(?!\d)|\d+)(?:\.\d+)?|(?<![\w.])\.\d+)'
  rf'|(?P<character>(?:{_NO_BLANKS}|\p{{So}})\p{{M}}*)'
  rf'|(?P<word>(?:[\p{{L}}--{_NO_BLANKS}]\p{{M}}*)+)',
  regex.V1,
)
# What is written in several ways; LaTeX's commands end where letters end.
_ONE_WAY = str.maketrans(
  {
    **dict.fromkeys('−‐‒–', '-'),
    **dict.fromkeys('×⋅·∙', '*'),
    **dict.fromkeys('÷∕⁄', '/'),
    '≤': '<=',
    '≥': '>=',
    '≠': '!=',
  }
)
_LATEX = {
  'times': '*',
  'cdot': '*',
  'div': '/',
  'le': '<=',
  'leq': '<=',
  'ge': '>=',
  'geq': '>=',
  'ne': '!=',
  'neq': '!=',
  'lt': '<',
  'gt': '>',
  'left': '',
  'right': '',
}
_COMMAND = regex.compile(rf'\\({"|".join(_LATEX)})(?![A-Za-z])')
_EMPHASIS = regex.compile(
  r'(?<![^\s(])(\*{1,3})(?=\S)([^*\n]+)(?<=\S)\1(?![\w(])'
)
# Not 'one', which is a pronoun more often than a number.
_NUMBER_WORDS = {
  word: str(value)
  for value, word in [
    *enumerate(
      'two three four five six seven eight nine ten eleven twelve thirteen '
      'fourteen fifteen sixteen seventeen eighteen nineteen twenty'.split(),
      2,
    ),
    *zip(
      range(30, 100, 10),
      'thirty forty fifty sixty seventy eighty ninety'.split(),
    ),
  ]
}


class Word(NamedTuple):
  """A word, a number or a character, with the signs before it.

  Attributes:
    text: without case.
    kind: 'word', 'number' or 'character'.
    signs: as they stand before it, without blanks.
    written: with its case.
  """

  text: str
  kind: str
  signs: str
  written: str

  @property
  def size(self) -> float:
    """In words of a script with blanks."""
    return 0.5 if self.kind == 'character' else 1.0

  def __str__(self) -> str:
    return self.signs + self.text


def split(text: str) -> list[Word]:
  """The words of a text; signs that no word follows are one of their own."""
  text = regex.sub(r'\p{No}', _spell_out, text)
  text = unicodedata.normalize('NFKC', text).translate(_ONE_WAY)
  text = _COMMAND.sub(lambda m: _LATEX[m[1]] + ' ', text).replace('{,}', ',')
  text = _EMPHASIS.sub(r'\2', text)
  found: list[Word] = []
  end = 0
  matches = list(_TOKEN.finditer(text))
  for index, match in enumerate(matches):
    signs = _signs(
      text[end : match.start()], matches[index - 1] if index else None, match
    )
    found.append(_word(match, signs))
    end = match.end()
  last = _signs(text[end:], matches[-1] if matches else None, None)
  if last:
    found.append(Word('', 'word', last, ''))
  return found


def words(text: str) -> list[str]:
  """What is compared, as texts."""
  return [str(w) for w in split(text)]


def spans(found: Sequence[Word], size: int) -> list[tuple[int, int]]:
  """Begin and end of every run of that many words; a shorter text is one."""
  if all(word.size == 1 for word in found):
    last = max(len(found) - size, 0)
    return [(i, min(i + size, len(found))) for i in range(last + 1) if found]
  runs = []
  total, end = 0.0, 0
  for start, word in enumerate(found):
    while total < size and end < len(found):
      total += found[end].size
      end += 1
    if total < size and start:
      break
    runs.append((start, end))
    total -= word.size
  return runs


def grams(text: str, size: int) -> list[str]:
  """Every run of that many words of a text, and the whole of a shorter one."""
  found = split(text)
  written = [str(w) for w in found]
  return [' '.join(written[a:b]) for a, b in spans(found, size)]


def _spell_out(match: regex.Match) -> str:
  """Powers, indices and fractions, which NFKC would glue to what is before."""
  character = match[0]
  mark = {'<super>': '^', '<sub>': '_'}
  kind = unicodedata.decomposition(character).partition(' ')[0]
  plain = unicodedata.normalize('NFKC', character)
  return mark.get(kind, ' ') + plain


def _word(match: regex.Match, signs: str) -> Word:
  written, kind = match[0], match.lastgroup
  text = written.casefold()
  if kind == 'number':
    text = text.replace(',', '')
    if '.' in text:
      text = text.lstrip('0').rstrip('0').rstrip('.')
      text = text if text[:1].isdigit() else f'0{text}'
  elif text in _NUMBER_WORDS:
    text, kind = _NUMBER_WORDS[text], 'number'
  return Word(text, kind, signs, written)


_LONGEST_GAP = 50
_ALWAYS = regex.compile(r'[\p{Sm}()\[\]{}^%/]')
_OPEN, _CLOSE = '([{|', ')]}|'


def _signs(
  gap: str, left: regex.Match | None, right: regex.Match | None
) -> str:
  """The signs of what stands between two words.

  Of a hyphen and a star the neighbours decide: they are signs between numbers,
  letters and brackets, and else join words, open list items or mark emphasis.
  """
  if gap == ' ':  # Nearly always.
    return ''
  gap = gap[-_LONGEST_GAP:]  # A rule of a thousand dashes is no sum.
  found = []
  for place, sign in enumerate(gap):
    before, after = gap[:place], gap[place + 1 :]
    if (
      _ALWAYS.match(sign)
      or (sign in '-*&' and _is_operator(before, after, left, right))
      or (sign == '!' and _is_exclaimed(before, after, left, right))
      or (sign == ':' and gap in (':', ' : ') and _both_numbers(left, right))
      or (sign == "'" and after.startswith('('))
    ):
      found.append(sign)
  return ''.join(found)


def _is_operator(before, after, left, right) -> bool:
  begins = '\n' in before if left is not None else not before.strip()
  if begins and after[:1].isspace():
    return False  # An item of a list.
  beside = [
    before.strip()[-1:] in tuple(_CLOSE + '*$') or _is_operand(left),
    after.strip()[:1] in tuple(_OPEN + '*$\\') or _is_operand(right),
  ]
  if left is not None and not before and not after:  # x-1, not well-known.
    return all(beside)
  return any(beside)


def _is_operand(match: regex.Match | None) -> bool:
  return match is not None and (match.lastgroup != 'word' or len(match[0]) == 1)


def _is_exclaimed(before, after, left, right) -> bool:
  """Unequal, not, or factorial; else it ends a sentence."""
  if after.startswith('='):
    return True
  if not after and right is not None:  # !x
    return not before or before[-1] in ' ([{'
  if before:
    return before[-1] in ')]'
  return left is not None and _is_operand(left)


def _both_numbers(left, right) -> bool:
  return all(m is not None and m.lastgroup == 'number' for m in (left, right))
