"""A report as its reader gets it: text by section, rows, elements."""

from __future__ import annotations

from html.parser import HTMLParser
import re

VOID = {'meta', 'br', 'wbr'}
INLINE = {'span', 'i', 'b', 'em', 'code', 'wbr', 'a'}


class Page(HTMLParser):
  """A parsed page: text by section, table rows, elements with attributes."""

  def __init__(self, text: str):
    super().__init__()
    self.sections: dict[str, list[str]] = {'head': []}
    self.rows: list[list[str]] = []
    self.elements: list[tuple[str, tuple]] = []
    self.open: list[str] = []
    self._section = 'head'
    self._cell = False
    self.feed(text)
    self.close()
    self.rows = [[plain(cell) for cell in row] for row in self.rows if row]

  def handle_starttag(self, tag, attrs):
    self.elements.append((tag, tuple(attrs)))
    self._space(tag)
    if tag not in VOID:
      self.open.append(tag)
    if tag == 'section':
      self._section = dict(attrs)['id']
      self.sections[self._section] = []
    elif tag == 'tr':
      self.rows.append([])
    elif tag in ('td', 'th'):
      self.rows[-1].append('')
      self._cell = True

  def handle_endtag(self, tag):
    assert self.open.pop() == tag, f'unbalanced </{tag}>'
    self._space(tag)
    if tag in ('td', 'th'):
      self._cell = False

  def _space(self, tag):
    # Blocks stand apart on the page and so do their words.
    if tag not in INLINE:
      self.handle_data(' ')

  def handle_data(self, data):
    self.sections[self._section].append(data)
    if self._cell:
      self.rows[-1][-1] += data

  def text(self, section: str) -> str:
    return plain(''.join(self.sections[section]))

  def row(self, first: str) -> list[str]:
    """The only table row whose first cell starts with `first`."""
    found = [r for r in self.rows if r[0].startswith(first)]
    assert len(found) == 1, (first, found)
    return found[0]

  def labels(self) -> list[str]:
    return [
      dict(a)['aria-label'] for t, a in self.elements if 'aria-label' in dict(a)
    ]


def plain(text):
  return re.sub(r'\s+', ' ', text.replace('\u00a0', ' ')).strip()
