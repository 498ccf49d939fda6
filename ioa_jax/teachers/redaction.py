"""A key never leaves in what a server sends back: not stored, not shown."""

from __future__ import annotations

import re

# Nobody's secret is shorter; servers without keys are given 'EMPTY' or 'none'.
_FEWEST_CHARS = 6


class Redaction:
  """Replaces a key by [key], also where JSON spells it with escapes.

  At any depth: JSON in a text of JSON doubles its backslashes.
  """

  def __init__(self, key: str):
    self._spellings = None
    if len(key) >= _FEWEST_CHARS:
      self._spellings = re.compile(''.join(map(_spellings_of, key)))

  def __call__(self, text: str) -> str:
    return self._spellings.sub('[key]', text) if self._spellings else text


def _spellings_of(char: str) -> str:
  digits = ''.join(
    d if d.isdigit() else f'[{d}{d.upper()}]' for d in f'{ord(char):04x}'
  )
  # Letters are never escaped but by number; \\/ and \\" are.
  before = '' if char.isalnum() else r'\\{0,16}'
  return rf'(?:\\{{1,16}}u{digits}|{before}{re.escape(char)})'
