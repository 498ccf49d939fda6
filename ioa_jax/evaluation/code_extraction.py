"""Python out of what a model wrote: fences, prose around code, cut ends.

Blocks are read as CommonMark has them, but one may also end later, where it
first is Python: three backticks in a docstring end none. Unlabelled prose is
never taken for code, and code that stands before a stray fence is not lost.
"""

from __future__ import annotations

import ast
import builtins
from collections.abc import Iterable, Iterator, Sequence
import dataclasses
import re
import textwrap
import warnings

_FENCE = re.compile(r'^([ \t]*)(`{3,}|~{3,})[ \t]*([^`]*)$')
_PYTHON = frozenset(('python', 'python3', 'py', 'py3', 'python2', 'sage'))
# Starts of lines that may be code in an indented block of prose.
_INDENTED_CODE = re.compile(r'[ \t]+(?:async\s+def|def|class|import|from|@)\b')
_MAX_LINES = 4000
# So far ahead it shows whether a line begins code: each error costs the parser
# a look at everything that follows.
_AHEAD = 200
_DEFINITIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)


@dataclasses.dataclass(frozen=True)
class Block:
  """One fenced block.

  Attributes:
    language: its label in lower case, '' if there is none.
    code: its content, without the fences' own indentation; as far as it is
      Python if the end of the text cuts it.
    lines: from its first fence to behind the last.
    closed: whether there is a last.
  """

  language: str
  code: str
  lines: tuple[int, int]
  closed: bool

  @property
  def is_python(self) -> bool:
    return self.language in _PYTHON

  @property
  def may_be_python(self) -> bool:
    return self.is_python or not self.language


def parse(code: str) -> ast.Module | None:
  """The syntax tree; None if it is no Python."""
  try:
    with warnings.catch_warnings():
      warnings.simplefilter('ignore')  # Old escapes.
      return ast.parse(code)
  except (SyntaxError, ValueError, RecursionError, MemoryError):
    return None


def answer(completion: str) -> str:
  """The text behind a model's thoughts, with line ends as Python has them."""
  text = completion.replace('\r\n', '\n').replace('\r', '\n')
  text = re.sub(r'(?ms)^[ \t]*<think>.*?</think>', '', text)
  if '</think>' in text:  # The template had opened it.
    return text.split('</think>', 1)[1]
  return '' if text.lstrip().startswith('<think>') else text


def blocks(text: str) -> list[Block]:
  """The fenced blocks in order; one that the text's end cuts is the last."""
  lines, found, i = text.split('\n'), [], 0
  while i < len(lines):
    opening = _FENCE.match(lines[i])
    if opening is None:
      i += 1
      continue
    block = _block(lines, i, opening)
    if block is None:
      i += 1  # A stray fence: another one opens before any closes.
      continue
    found.append(block)
    i = block.lines[1]
  return found


def _language(info: str) -> str:
  return re.match(r'[\s{.]*([\w+#-]*)', info)[1].lower()


def _block(lines: Sequence[str], start: int, opening: re.Match) -> Block | None:
  """The block that opens at line `start`; None if that fence is a stray one."""
  fence, language = opening[2], _language(opening[3])
  mark = fence[0] * len(fence)
  indent = len(opening[1])
  first: Block | None = None
  content: list[str] = []
  for i in range(start + 1, len(lines)):
    line = lines[i]
    kept, ends = content, _closes(line, fence)
    if not ends and line.rstrip().endswith(mark):
      # `return x` and the fence on one line: an end if it makes Python.
      kept = [*content, line.rstrip().rstrip(fence[0])]
    if ends or kept is not content:
      block = Block(language, _dedented(kept, indent), (start, i + 1), True)
      if not block.may_be_python:
        if ends:
          return block
      elif parse(block.code) is not None:
        return block
      elif ends:
        first = first or block
    other = _FENCE.match(line)
    if other and other[3].strip() and not ends:
      if not language and first is None:
        return None
      if first:
        break  # The next block opens: this one was closed before.
    content.append(line)
  code = _valid(_dedented(content, indent).removesuffix('\n'))
  return first or Block(language, code, (start, len(lines)), False)


def _closes(line: str, fence: str) -> bool:
  text = line.strip()
  return len(text) >= len(fence) and not text.strip(fence[0])


def _dedented(lines: Sequence[str], indent: int) -> str:
  code = ''.join(f'{_without(line, indent)}\n' for line in lines)
  return code if parse(code) is not None else _shifted_left(code)


def _without(line: str, indent: int) -> str:
  return line[min(indent, len(line) - len(line.lstrip())) :]


def _shifted_left(code: str) -> str:
  shifted = textwrap.dedent(code)
  return shifted if parse(shifted) is not None else code


def longest_prefix(lines: Sequence[str], before: str = '') -> int:
  """How many of the lines are Python, at most, behind `before`.

  What an error names is in every longer prefix as well, so each step goes
  behind it.
  """
  offset, end = before.count('\n'), len(lines)
  while end > 0:
    code = before + '\n'.join(lines[:end])
    try:
      with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        ast.parse(code)
      return end
    except SyntaxError as e:
      end = min(end - 1, max((e.lineno or 0) - 1 - offset, 0))
    except (ValueError, RecursionError, MemoryError):
      end -= 1
  return 0


def pieces(text: str) -> list[str]:
  """Stretches of a text that are Python and do something."""
  lines, found, i = text.split('\n')[:_MAX_LINES], [], 0
  while i < len(lines):
    if _INDENTED_CODE.match(lines[i]):
      indent = len(lines[i]) - len(lines[i].lstrip())
      inner = []
      for line in lines[i:]:
        if line.strip() and len(line) - len(line.lstrip()) < indent:
          break
        inner.append(line[indent:])
      found += pieces('\n'.join(inner))
      i += len(inner)
      continue
    count = longest_prefix(lines[i : i + _AHEAD]) if lines[i].strip() else 0
    if count:
      count = longest_prefix(lines[i:])
      found += _without_prose('\n'.join(lines[i : i + count]))
    i += max(count, 1)
  return found


def _without_prose(code: str) -> Iterator[str]:
  """Runs of statements between expressions that have no effect ("Example")."""
  lines, run = code.split('\n'), []
  for node in [*parse(code).body, None]:
    if node is not None and not _is_prose(node):
      run.append(node)
    elif run:
      yield '\n'.join(lines[_first_line(run[0]) - 1 : run[-1].end_lineno])
      run = []


def _is_prose(node: ast.stmt) -> bool:
  if isinstance(node, ast.AnnAssign) and node.value is None:
    return True  # "Note: this"
  return isinstance(node, ast.Expr) and not any(
    isinstance(n, (ast.Call, ast.Await, ast.Yield, ast.YieldFrom))
    for n in ast.walk(node)
  )


def _first_line(node: ast.stmt) -> int:
  decorators = getattr(node, 'decorator_list', [])
  return min([node.lineno, *(d.lineno for d in decorators)])


def _statements(tree: ast.AST) -> Iterator[ast.stmt]:
  """Statements of a module's own scope."""
  for node in ast.iter_child_nodes(tree):
    if isinstance(node, ast.stmt):
      yield node
      if not isinstance(node, _DEFINITIONS):
        yield from _statements(node)
    elif isinstance(node, (ast.ExceptHandler, ast.match_case)):
      yield from _statements(node)


def _bound(node: ast.stmt) -> set[str]:
  """Names that one statement of a module binds."""
  if isinstance(node, _DEFINITIONS):
    return {node.name}
  if isinstance(node, (ast.Import, ast.ImportFrom)):
    return {(a.asname or a.name).split('.')[0] for a in node.names}
  return {
    n.id
    for n in ast.walk(node)
    if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)
  }


def defined(tree: ast.Module) -> set[str]:
  """Names that a module defines."""
  return {name for node in _statements(tree) for name in _bound(node)}


def is_method(tree: ast.Module, name: str) -> bool:
  """Whether a class `Solution` has this method."""
  return any(
    isinstance(node, ast.ClassDef)
    and node.name == 'Solution'
    and name in {n for s in node.body for n in _bound(s)}
    for node in tree.body
  )


def free_names(nodes: Iterable[ast.AST]) -> set[str]:
  """Names that are read in the nodes and bound nowhere in them."""
  read, bound = set(), set()
  for node in (n for root in nodes for n in ast.walk(root)):
    if isinstance(node, ast.Name):
      (read if isinstance(node.ctx, ast.Load) else bound).add(node.id)
    elif isinstance(node, ast.arg):
      bound.add(node.arg)
    elif isinstance(node, ast.ExceptHandler) and node.name:
      bound.add(node.name)
    elif isinstance(node, (*_DEFINITIONS, ast.Import, ast.ImportFrom)):
      bound |= _bound(node)
  return read - bound


def function_code(text: str, names: Sequence[str]) -> str | None:
  """The code that defines `names[0]`, with what it needs from elsewhere.

  Among fenced blocks the last that defines it counts, as in a text that
  corrects itself; without one, the first stretch of bare code, behind which
  base models go on with something else. None if nothing defines it.
  """

  statement = re.compile(
    rf'^\s*(?:async\s+)?def\s+{re.escape(names[0])}\b', re.M
  )

  def defines(code: str) -> bool:
    tree = parse(code)
    if tree is None:  # It counts, and it fails.
      return statement.search(code) is not None
    return names[0] in defined(tree) or is_method(tree, names[0])

  found = blocks(text)
  fenced = [b.code for b in found if b.may_be_python]
  bare = pieces(_outside(text, found))
  other = [b.code for b in found if not b.may_be_python]
  chosen = (
    [c for c in fenced if defines(c)][-1:]
    or [c for c in bare if defines(c)][:1]
    or [c for c in other if defines(c)][-1:]
  )
  if not chosen:
    return None
  if parse(chosen[0]) is None:
    return chosen[0]
  others = [c for c in (*fenced, *bare) if c != chosen[0]]
  return with_definitions(chosen[0], names[1:], others)


def _outside(text: str, found: Sequence[Block]) -> str:
  """The text without its blocks of Python; unlabelled ones may be none."""
  lines = text.split('\n')
  for block in found:
    if block.is_python:
      start, end = block.lines
      lines[start:end] = [''] * (end - start)
  return '\n'.join(lines)


def _valid(code: str) -> str:
  """The code, or its longest prefix that is Python."""
  if parse(code) is not None:
    return code
  lines = code.split('\n')
  return '\n'.join(lines[: longest_prefix(lines)])


def with_definitions(
  code: str, names: Iterable[str], others: Sequence[str]
) -> str:
  """`code` behind the definitions that it or `names` need from `others`."""
  tree = parse(code)
  missing = (free_names([tree]) | set(names)) - defined(tree)
  missing -= set(vars(builtins))
  before: list[str] = []
  known = set()
  while missing - known:
    name = (missing - known).pop()
    known.add(name)
    statement = _definition(name, others)
    if statement is not None:
      before.insert(0, statement)
      tree = parse(statement)
      missing |= free_names([tree]) - set(vars(builtins))
      known |= defined(tree)
  return '\n'.join([*before, code])


def _definition(name: str, sources: Sequence[str]) -> str | None:
  """The last top-level statement that binds the name."""
  kinds = (*_DEFINITIONS, ast.Import, ast.ImportFrom, ast.Assign, ast.AnnAssign)
  for source in reversed(sources):
    tree = parse(source)
    for node in reversed(tree.body if tree else []):
      if isinstance(node, kinds) and name in _bound(node):
        lines = source.split('\n')
        return '\n'.join(lines[_first_line(node) - 1 : node.end_lineno])
  return None


def program_code(text: str) -> str:
  """A whole program: the last Python block, else the code that there is."""
  found = blocks(text)
  labelled = [b.code for b in found if b.is_python]
  if labelled:
    return labelled[-1]
  if parse(text) is not None:
    return text
  unlabelled = [b.code for b in found if not b.language and pieces(b.code)]
  unlabelled = [c for c in unlabelled if parse(c) is not None]
  if unlabelled:
    return unlabelled[-1]
  return max(pieces(text), key=len, default=text)


def continuation(prompt: str, text: str, entry_point: str) -> str | None:
  """`prompt` with the body of its last function continued by `text`.

  The body ends before the first line that leaves it, where a base model starts
  to write something else, and before what is no Python. Helpers that are
  defined behind it come along. None if `text` does not start with a body.
  """
  body = []
  for line in text.split('\n'):
    if body and line.strip() and not line[0].isspace() and line[0] not in ')]}':
      break
    body.append(line)
  body = body[: longest_prefix(body, prompt)]
  source = prompt + '\n'.join(body) + '\n'
  tree = parse(source)
  function = next(
    (
      n
      for n in reversed(tree.body if tree else [])
      if isinstance(n, _DEFINITIONS) and n.name == entry_point
    ),
    None,
  )
  own = function is not None and function.lineno <= prompt.count('\n') + 1
  if not own or function is not tree.body[-1]:
    return None
  if all(_is_prose(node) for node in function.body):
    return None
  rest = text.split('\n')[len(body) :]
  return with_definitions(source, [], pieces('\n'.join(rest)))
