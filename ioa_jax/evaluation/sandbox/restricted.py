"""The Python that tests may be written in: checked and compiled outside.

All of the language but what reaches the interpreter: names and attributes with
two underscores (but the methods of the language), frames, code objects; modules
are those of `facade`. So tests cannot write a verdict or end the process, they
can only raise or come to their end. Handlers name what they catch of a
candidate (see `exceptions.named`).
"""

import ast
import marshal
import warnings

from ioa_jax.evaluation.sandbox import facade

_INTERNAL = frozenset(
  (
    '__builtins__',
    '__import__',
    '__loader__',
    '__spec__',
    '__build_class__',
    '__dict__',
    '__annotations__',
    '__named__',
    '__catchable__',
    '__error__',
    '__CandidateError__',
  )
)


def parse(source: str) -> ast.Module:
  """The tests' syntax tree, checked.

  Raises:
    ValueError: if it is no Python, or uses what tests may not; one line.
  """
  try:
    with warnings.catch_warnings():
      warnings.simplefilter('ignore')  # Old escapes in published tests.
      tree = ast.parse(source)
      for node in ast.walk(tree):
        _check(node)
  except (SyntaxError, RecursionError, MemoryError) as e:
    reason = e.msg if isinstance(e, SyntaxError) else type(e).__name__
    raise ValueError(f'tests that are no Python ({reason})') from None
  return tree


def compiled(source: str, name: str) -> bytes:
  """The tests as marshalled code, for an interpreter of this version.

  Raises:
    ValueError: as `parse`.
  """
  tree = ast.fix_missing_locations(_NamedHandlers().visit(parse(source)))
  try:
    with warnings.catch_warnings():
      warnings.simplefilter('ignore')
      return marshal.dumps(compile(tree, f'<{name}>', 'exec'))
  except (SyntaxError, RecursionError, MemoryError) as e:
    reason = e.msg if isinstance(e, SyntaxError) else type(e).__name__
    raise ValueError(f'tests that do not compile ({reason})') from None


def _identifiers(node: ast.AST):
  """Names that a node binds or reads, but not attributes."""
  for field in ('id', 'name', 'asname', 'arg', 'rest', 'names', 'kwd_attrs'):
    value = getattr(node, field, None)
    if isinstance(value, str):
      yield value
    elif isinstance(value, list):
      yield from (v for v in value if isinstance(v, str))


def _check(node: ast.AST) -> None:
  if isinstance(node, (ast.MatchClass, ast.TryStar)):
    raise ValueError(f'tests may not use {type(node).__name__}')
  if isinstance(node, ast.Attribute):
    if not facade.allowed_attribute(node.attr):
      raise ValueError(f'tests may not use the attribute {node.attr!r}')
  for name in _identifiers(node):
    private = name.startswith('__') and not name.endswith('__')
    if private or name in _INTERNAL:
      raise ValueError(f'tests may not use the name {name!r}')


class _NamedHandlers(ast.NodeTransformer):
  """Lets handlers catch what a candidate raised if they name it.

  `try: A / except B: C` becomes
  `try: (try: A / except CandidateError as e: raise named(e, B)) / except B: C`.
  """

  def visit_Try(self, node: ast.Try) -> ast.Try:
    self.generic_visit(node)
    if not node.handlers:
      return node
    types = []
    for handler in node.handlers:
      if handler.type is None:
        types.append(ast.Name('BaseException', ast.Load()))
      else:
        handler.type = ast.Call(
          ast.Name('__catchable__', ast.Load()), [handler.type], []
        )
        types.append(handler.type)
    error = ast.Name('__error__', ast.Load())
    named = ast.Call(
      ast.Name('__named__', ast.Load()),
      [error, ast.Tuple(types, ast.Load())],
      [],
    )
    inner = ast.ExceptHandler(
      ast.Name('__CandidateError__', ast.Load()),
      '__error__',
      [ast.Raise(named, ast.Constant(None))],
    )
    node.body = [ast.Try(node.body, [inner], [], [])]
    return node
