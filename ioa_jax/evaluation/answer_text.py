r"""Spellings that carry no meaning of their own: Unicode, boxes, braces."""

from __future__ import annotations

from collections.abc import Sequence
import re
import unicodedata

_MAX_CHARS = 8000
_BOX = re.compile(r'\\(?:boxed|fbox)\s*\{')
_INVISIBLE = re.compile('[\u00ad\u200b-\u200f\u202a-\u202e\u2060-\u2064\ufeff]')
_MINUS = dict.fromkeys(map(ord, '\u2010\u2011\u2012\u2013\u2212\ufe63'), '-')
# A masculine ordinal and a ring stand for a degree sign.
_DEGREES = dict.fromkeys(map(ord, '\u00ba\u02da'), '°')
# What compatibility forms of these tags mean, they mean as plain characters.
_SAME = ('<wide>', '<narrow>', '<noBreak>', '<font>')
_RUNS = (('<super>', '^'), ('<sub>', '_'))


def last_boxed(text: str) -> str | None:
  r"""The content of the last `\boxed{...}` with balanced braces, or None.

  Only the last one counts: several boxes would otherwise be one set of answers
  and a model could name them all. An unbalanced last box is no answer, not a
  reason to take an earlier one.
  """
  starts = list(_BOX.finditer(text))
  if not starts:
    return None
  begin = starts[-1].end()
  end = closing_brace(text, begin)
  return None if end is None else text[begin:end].strip()


def closing_brace(text: str, begin: int) -> int | None:
  """Where the brace closes whose content begins at `begin`."""
  depth, i = 1, begin
  while i < len(text):
    if text[i] == '\\':
      i += 2  # An escaped brace does not count.
      continue
    depth += {'{': 1, '}': -1}.get(text[i], 0)
    if depth == 0:
      return i
    i += 1
  return None


def ending(text: str) -> str:
  """The last characters of a text, its runs of blanks cut short.

  Answers stand at the end, and what is read there again and again must not be
  as long as a model likes.
  """
  text = text[-8 * _MAX_CHARS :]
  text = re.sub(r'[^\S\n]{3,}', '  ', text)
  return re.sub(r'(?:\s*\n){3,}', '\n\n', text)[-_MAX_CHARS:]


def unwrap(text: str, commands: Sequence[str]) -> str:
  r"""`\command{content}` as `content` for these commands, however nested."""
  pattern = re.compile(rf'\\(?:{"|".join(commands)})\s*\{{')
  while match := pattern.search(text):
    end = closing_brace(text, match.end())
    if end is None:
      return text
    text = text[: match.start()] + text[match.end() : end] + text[end + 1 :]
  return text


def plain_unicode(text: str) -> str:
  """Full-width forms, digits of all scripts, dashes and blanks as ASCII.

  Raised and lowered digits become `^{2}` and `_{2}`, `½` becomes ` 1/2`:
  Unicode's own compatibility forms would make 182 of 18².
  """
  if text.isascii():
    return text
  text = _INVISIBLE.sub('', text).translate(_MINUS | _DEGREES)
  return re.sub(r'[^\x00-\x7f]+', lambda m: _plain_run(m[0]), text)


def _plain_run(run: str) -> str:
  written, raised = [], ''
  for char in run + '\0':
    tag, _, _ = unicodedata.decomposition(char).partition(' ')
    mark = dict(_RUNS).get(tag, '')
    if raised and mark != raised:
      written.append('}')
    if mark:
      written.append('' if mark == raised else mark + '{')
      written.append(unicodedata.normalize('NFKC', char).translate(_MINUS))
    elif tag == '<fraction>':
      parts = unicodedata.normalize('NFKC', char).replace('\u2044', '/')
      written.append(f' {parts} ' if parts[-1] != '/' else parts)
    elif tag in _SAME:
      written.append(unicodedata.normalize('NFKC', char))
    elif unicodedata.category(char) == 'Nd':
      written.append(str(unicodedata.decimal(char)))
    elif unicodedata.category(char) == 'Zs':
      written.append(' ')
    else:
      written.append(char)
    raised = mark
  return ''.join(written[:-1])
