"""Text of models, servers and files, made safe to be shown.

In a terminal its escape sequences could set the title, clear the screen or hide
a line. Anywhere, characters that turn the reading direction could show another
text than is there.
"""

from __future__ import annotations

import re
import sys
from typing import TextIO

# Controls but tab and line feed, C1 controls, characters that are invisible or
# turn the reading direction, halves of a surrogate pair.
_UNSAFE = re.compile(
  '[\x00-\x08\x0b-\x1f\x7f-\x9f\u00ad\u061c\u180e\u200b\u200e\u200f'
  '\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb\ud800-\udfff]'
)


def printable(text: str) -> str:
  r"""The text with every unsafe character written out, as `\u001b`."""
  return _UNSAFE.sub(lambda match: f'\\u{ord(match[0]):04x}', text)


def say(text: object = '', *, end: str = '\n', file: TextIO | None = None):
  """`print` for text that was written elsewhere."""
  print(printable(str(text)), end=end, file=file or sys.stdout, flush=True)
