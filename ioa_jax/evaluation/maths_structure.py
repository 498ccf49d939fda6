r"""Answers that have parts: lists, sets, points, intervals, equations, ratios.

How a normalized answer is read; `maths_comparison` compares what was read.
"""

from __future__ import annotations

from collections.abc import Sequence
import dataclasses
import re

from ioa_jax.evaluation import answer_text, maths_spelling, maths_units

_OPEN, _CLOSE = '([{', ')]}'
_RELATION = re.compile(r'\\(?:le|ge|ne|in|approx|equiv)(?![a-zA-Z])|[<>=]')
_FLIPPED = {'<': '>', '>': '<', '\\le': '\\ge', '\\ge': '\\le'}
_SYMBOL = (
  r'(?:[a-zA-Z]|\\(?:alpha|beta|gamma|delta|theta|lambda|mu|phi|omega|rho|sigma'
  r'|tau|epsilon|ell|vec\{[a-z]\}|hat\{[a-z]\}|overline\{[a-zA-Z]+\}|Delta|'
  r'angle\s*[A-Z]+|triangle\s*[A-Z]+))'
  r"(?:'+)?(?:_\s*(?:\{[^{}]*\}|[0-9a-zA-Z]))?"
)
_ASSIGNABLE = re.compile(
  rf'(?:{_SYMBOL}|{_SYMBOL}(?:\^{{-1}})?\s*\([^()]*\)|\(\s*[a-z](?:_\w)?'
  rf'(?:\s*,\s*[a-z](?:_\w)?)+\s*\)|(?:\\text\{{[^{{}}]*\}}|[A-Za-z]{{3,}}\s?)+'
  rf'|\|?[A-Z]{{2,3}}\|?|m\s*\\angle\s*[A-Z]+)'
)


@dataclasses.dataclass(frozen=True)
class Node:
  """One answer, read.

  Attributes:
    kind: 'value', 'words', 'list', 'set', 'tuple', 'region', 'equation', 'ne',
      'matrix', 'ratio' or 'time'.
    text: of a value, of words; the brackets of a tuple.
    parts: nodes, or rows of nodes; (low, high) of each interval of a region.
    name: the variable that the answer is of, '' if none is named.
  """

  kind: str
  text: str = ''
  parts: tuple = ()
  name: str = ''


def split(text: str, pattern: str) -> list[str]:
  """Splits where `pattern` matches outside of all brackets."""
  parts, depth, start, i = [], 0, 0, 0
  separator = re.compile(pattern)
  while i < len(text):
    if depth == 0 and (match := separator.match(text, i)) and match.end() > i:
      parts.append(text[start:i])
      start = i = match.end()
      continue
    if text[i] == '\\' and text[i + 1 : i + 2] in ('{', '}'):
      depth += 1 if text[i + 1] == '{' else -1
      i += 2
      continue
    if text.startswith('\\begin{', i):
      depth += 1
    elif text.startswith('\\end{', i):
      depth -= 1
    depth += (text[i] in _OPEN) - (text[i] in _CLOSE)
    # `[0,1)` closes what another bracket opened; below zero nothing is inside.
    depth = max(depth, 0)
    i += 1
  return [*parts, text[start:]]


def read(text: str) -> Node:
  """Reads a normalized answer."""
  text = _bare(text)
  if match := re.fullmatch(
    r'(?:\\text\{)?(\d{1,2}):(\d{2})'
    r'(?:[\s\u2009]*(?:\\text\{)?[\s]*([ap])\.?\s?m\.?)?\s*\}?',
    text,
    re.IGNORECASE,
  ):
    return Node('time', (match[3] or '').lower(), (match[1], match[2]))
  if re.search(r'\\(?:mid|\|)', text) or text.startswith('\\{'):
    inner = _set_builder(text)
    if inner is not None:
      return read(inner)
  unions = split(text, r'\\cup(?![a-z])')
  if len(unions) > 1:
    return _joined([read(u) for u in unions])
  parts = split(
    text,
    r'[,;]|\\text\{\s*,?\s*(?:and|or)\s*\}|(?<![a-zA-Z])(?:and|or)(?![a-zA-Z])',
  )
  if len(parts) > 1 and not _is_number(text):
    return _listed(parts, text)
  relations = [m for m in _RELATION.finditer(text) if _outside(text, m.start())]
  if relations:
    return _related(text, relations)
  return _single(text)


def _bare(text: str) -> str:
  while True:
    text = text.strip(' \u2009')
    if text[:1] == '{' and answer_text.closing_brace(text, 1) == len(text) - 1:
      text = text[1:-1]
    elif (
      text[:1] == '('
      and _matching(text) == len(text) - 1
      and (len(split(text[1:-1], '[,;]')) == 1)
    ):
      text = text[1:-1]
    else:
      return text


def _is_number(text: str) -> bool:
  return re.fullmatch(
    r'.*?(?<![0-9.,])[1-9][0-9]{0,2}(?:,[0-9]{3})+(?:\.[0-9]+)?(?![0-9,]).*',
    text,
  ) is not None and not re.search(r',(?![0-9]{3}(?![0-9]))', text)


def _matching(text: str) -> int:
  depth = 0
  for i, char in enumerate(text):
    depth += (char in '([') - (char in ')]')
    if depth == 0:
      return i
  return -1


def _outside(text: str, position: int) -> bool:
  before = text[:position].replace('\\{', '(').replace('\\}', ')')
  return sum((c in _OPEN) - (c in _CLOSE) for c in before) <= 0


def _set_builder(text: str) -> str | None:
  match = re.fullmatch(
    r'\\\{\s*([a-zA-Z])(?:\s*\\in\s*\\mathbb\{R\})?\s*(?:\\mid|\\\||\||:)(.*)\\\}',
    text,
  )
  return match[2] if match else None


def _single(text: str) -> Node:
  if text in ('\\emptyset', '\\text{empty set}'):
    return Node('set')
  if text == '\\mathbb{R}' or re.fullmatch(
    r'(?i)(?:\\text\{)?\s*all real(?: numbers?|s)\s*\}?', text
  ):
    return Node('region', parts=(_interval('-\\infty', '\\infty', '()'),))
  if match := re.fullmatch(
    r'\\mathbb\{R\}\s*(?:\\setminus|\\backslash|-)\s*\\\{(.*)\\\}', text
  ):
    return Node('ne', parts=tuple(split(match[1], ',')))
  if text.startswith('\\{') and text.endswith('\\}'):
    items = split(text[2:-2], r'[,;]|\\text\{\s*(?:and|or)\s*\}')
    found = _listed(items, text[2:-2])
    return Node('set', parts=found.parts if found.kind == 'list' else (found,))
  if (
    text[:1] in ('(', '[')
    and text[-1:] in (')', ']')
    and _matching(text) == len(text) - 1
  ):
    items = split(text[1:-1], r'[,;]')
    if len(items) > 1:
      brackets = text[0] + text[-1]
      return Node('tuple', brackets, tuple(read(i) for i in items))
  matrix = re.fullmatch(
    r'[(\[]?\s*\\begin\{([pbBvV]?matrix|array)\}(?:\{[^{}]*\})?(.*)'
    r'\\end\{\1\}\s*[)\]]?',
    text,
    re.DOTALL,
  )
  if matrix and matrix[1][0] not in 'vV':
    rows = [r for r in matrix[2].split('\ue001') if r.strip()]
    cells = tuple(tuple(read(c) for c in r.split('&')) for r in rows)
    return Node('matrix', parts=cells)
  if '\\pm' in text or '\\mp' in text:
    signs = [('+', '-'), ('-', '+')]
    return Node(
      'list',
      parts=tuple(
        read(
          re.sub(r'^\+', '', text.replace('\\pm', a).replace('\\mp', b).strip())
        )
        for a, b in signs
      ),
    )
  ratio = split(
    re.sub(r'\\text\{\s*to\s*\}|(?<=[0-9])\s+to\s+(?=[0-9])', ':', text), ':'
  )
  if len(ratio) > 1 and all(r.strip() for r in ratio):
    return Node('ratio', parts=tuple(Node('value', r.strip()) for r in ratio))
  return _worded(text)


def _worded(text: str) -> Node:
  """Words, a number in words, or a value."""
  said = None if maths_units.is_money(text) else maths_spelling.words(text)
  if said is not None and re.fullmatch(r'[A-Za-z]', said):
    return Node('value', said)
  if said is not None and re.fullmatch(r'[a-z](?:\s*,\s*[a-z])+', said):
    letters = tuple(
      Node('value', letter) for letter in said.upper() if letter.isalpha()
    )
    return Node('list', parts=letters)
  if said is not None:
    value = maths_spelling.number_word(said)
    if value is not None:
      return Node(
        'value',
        f'\\frac{{{value.numerator}}}{{{value.denominator}}}'
        if value.denominator > 1
        else str(value),
      )
    return Node('words', said)
  return Node('value', re.sub(r'(?<=[0-9]),(?=[0-9]{3})', '', text))


def _interval(low: str, high: str, brackets: str) -> tuple:
  return (low, high, brackets)


def region_of(node: Node) -> tuple | None:
  """Intervals of a region, or of a pair in brackets; else None."""
  if node.kind == 'region':
    return node.parts
  if (
    node.kind == 'tuple'
    and len(node.parts) == 2
    and all(p.kind == 'value' for p in node.parts)
  ):
    return (_interval(node.parts[0].text, node.parts[1].text, node.text),)
  if node.kind == 'ne' and len(node.parts) == 1:
    point = node.parts[0].strip()
    return (
      _interval('-\\infty', point, '()'),
      _interval(point, '\\infty', '()'),
    )
  return None


def _joined(nodes: Sequence[Node]) -> Node:
  if all(n.kind == 'set' for n in nodes):
    return Node('set', parts=tuple(p for n in nodes for p in n.parts))
  regions = []
  for node in nodes:
    region = region_of(node)
    if (
      region is None
      and node.kind == 'set'
      and all(p.kind == 'value' for p in node.parts)
    ):
      region = tuple(_interval(p.text, p.text, '[]') for p in node.parts)
    if region is None:
      return Node('value', '\\text{unreadable union}')
    regions += region
  return Node('region', parts=tuple(regions))


def _listed(parts: Sequence[str], text: str) -> Node:
  nodes = [read(p) for p in parts if p.strip(' \u2009')]
  if not nodes:
    return Node('value')
  name = nodes[0].name
  regions = [n for n in nodes if n.kind == 'region']
  if len(regions) == len(nodes) and len({n.name for n in nodes}) == 1:
    if re.search(r'(?<![a-z])or(?![a-z])', text):
      return Node(
        'region', parts=tuple(p for n in nodes for p in n.parts), name=name
      )
    both = _intersection(nodes)
    if both is not None:
      return both
  equations = [n for n in nodes if n.kind == 'equation']
  if (
    equations
    and len(equations) == len(nodes)
    and all(n.name and len(n.parts) == 2 for n in nodes)
  ):
    names = [n.name for n in nodes]
    values = tuple(read(n.parts[-1]) for n in nodes)
    if len(set(names)) == 1:
      return Node('list', parts=values, name=name)
    if len(set(names)) == len(names):
      order = sorted(range(len(names)), key=lambda i: names[i])
      return Node(
        'tuple',
        '()',
        tuple(values[i] for i in order),
        name=','.join(sorted(names)),
      )
  if nodes[0].kind == 'equation' and nodes[0].name and len(equations) == 1:
    # `n = 2, 3, 4`.
    nodes = [read(nodes[0].parts[-1]), *nodes[1:]]
  return Node('list', parts=tuple(nodes), name=name)


def _intersection(nodes: Sequence[Node]) -> Node | None:
  """`x > 1, x < 3` as one interval."""
  if len(nodes) != 2 or any(len(n.parts) != 1 for n in nodes):
    return None
  (low, high), (other_low, other_high) = (n.parts[0][:2] for n in nodes)
  if high == '\\infty' and other_low == '-\\infty':
    first, second = nodes[0].parts[0], nodes[1].parts[0]
  elif low == '-\\infty' and other_high == '\\infty':
    first, second = nodes[1].parts[0], nodes[0].parts[0]
  else:
    return None
  brackets = first[2][0] + second[2][1]
  return Node(
    'region',
    parts=(_interval(first[0], second[1], brackets),),
    name=nodes[0].name,
  )


def _related(text: str, relations: Sequence[re.Match]) -> Node:
  signs = [m[0] for m in relations]
  ends = [0, *(m.end() for m in relations)]
  starts = [*(m.start() for m in relations), len(text)]
  sides = [text[a:b].strip(' \u2009') for a, b in zip(ends, starts)]
  if signs == ['\\in']:
    node = read(sides[1])
    return dataclasses.replace(node, name=sides[0])
  if all(s in ('=', '\\approx', '\\equiv') for s in signs):
    name = sides[0] if _ASSIGNABLE.fullmatch(sides[0]) else ''
    if (
      not name
      and len(sides) == 2
      and re.fullmatch(_SYMBOL, sides[1])
      and (
        not re.fullmatch(r'[ie]|\\pi', sides[1])
        and not re.search(r'[a-zA-Z]', re.sub(r'\\[a-z]+', '', sides[0]))
      )
    ):
      name, sides = sides[1], sides[::-1]
    return Node('equation', parts=tuple(sides), name=name)
  if signs == ['\\ne']:
    if re.fullmatch(_SYMBOL, sides[0]):
      return Node('ne', parts=(sides[1],), name=sides[0])
    return Node('value', '\\text{unreadable}')
  interval = _inequality(sides, signs)
  return interval or Node('equation', 'inequality', (*sides, *signs))


def _inequality(sides: Sequence[str], signs: Sequence[str]) -> Node | None:
  """An interval for `x < 3`, `3 > x`, `1 < x \\le 2`."""
  if signs[0] in ('>', '\\ge') and len(signs) == 2:
    sides, signs = sides[::-1], [_FLIPPED.get(s, '?') for s in signs[::-1]]
  if len(signs) == 2:
    if not all(s in ('<', '\\le') for s in signs) or not _is_name(sides[1]):
      return None
    brackets = ('(' if signs[0] == '<' else '[') + (
      ')' if signs[1] == '<' else ']'
    )
    return Node(
      'region', parts=(_interval(sides[0], sides[2], brackets),), name=sides[1]
    )
  if len(signs) != 1 or signs[0] not in _FLIPPED:
    return None
  (left, right), sign = sides, signs[0]
  if not _is_name(left):
    left, right, sign = right, left, _FLIPPED[sign]
  if not _is_name(left) or re.search(
    rf'(?<![a-zA-Z\\]){re.escape(left)}(?![a-z])', right
  ):
    return None
  if sign in ('<', '\\le'):
    part = _interval('-\\infty', right, '()' if sign == '<' else '(]')
  else:
    part = _interval(right, '\\infty', '()' if sign == '>' else '[)')
  return Node('region', parts=(part,), name=left)


def _is_name(side: str) -> bool:
  return re.fullmatch(
    _SYMBOL + r'|[a-zA-Z]\([a-z]\)|\|[a-z]\|', side
  ) is not None and (side not in ('i', 'e'))
