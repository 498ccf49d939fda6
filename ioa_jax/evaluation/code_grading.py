"""Code answers to verdicts, by running them in the sandbox."""

from __future__ import annotations

import ast
import builtins
from collections.abc import Sequence
import json
import warnings

from ioa_jax.evaluation import code_extraction as extraction
from ioa_jax.evaluation import graders, livecodebench
from ioa_jax.evaluation import sandbox as sandbox_lib
from ioa_jax.evaluation.sandbox import restricted


def extract_code(completion: str, entry_point: str | None = None) -> str | None:
  """The block that defines `entry_point`, else the first; None if none.

  See `code_extraction.function_code` for what counts as one.
  """
  text = extraction.answer(completion)
  if entry_point:
    found = extraction.function_code(text, [entry_point])
    if found is not None:
      return found
  blocks = extraction.blocks(text)
  python = [b for b in blocks if b.may_be_python] or blocks
  return python[0].code if python else None


def _stub(prompt: str) -> str:
  """A prompt that ends in an empty function, made a module."""
  last = next((l for l in reversed(prompt.split('\n')) if l.strip()), '')
  indent = last[: len(last) - len(last.lstrip())] or '    '
  return f'{prompt}\n{indent}pass\n'


def function_source(prompt: str, completion: str, entry_point: str) -> str:
  """HumanEval's module: the prompt continued, or replaced by a whole function.

  What the answer begins with decides: a body continues the prompt, and nothing
  behind it replaces it. Chat servers strip the first line's indent; it is
  restored if the body is none without.
  """
  text = extraction.answer(completion)
  source = extraction.continuation(prompt, text, entry_point)
  if source is not None:
    return source
  whole = extraction.function_code(text, [entry_point])
  if whole is not None:
    # After the prompt, because its imports and helpers belong to the task.
    return f'{_stub(prompt)}\n{whole}\n'
  stub = _stub(prompt)
  indent = stub[stub.rindex('\n', 0, -1) + 1 : stub.rindex('pass')]
  for body in [*(b.code for b in extraction.blocks(text)), text.lstrip('\n')]:
    lines = body.split('\n')
    shifted = [f'{indent}{l}' if l.strip() else l for l in lines]
    first = [indent + lines[0].lstrip(), *lines[1:]]
    sources = [
      extraction.continuation(prompt, '\n'.join(candidate), entry_point)
      for candidate in (lines, first, shifted)
    ]
    if any(sources):
      return max(filter(None, sources), key=len)
  return f'{prompt}{text}\n'


def tested_functions(
  tests: str, reference: str, setup: str = ''
) -> tuple[list[str], str]:
  """What the tests use of the candidate, and imports they rely on.

  Both as the reference solution has them, because MBPP's assertions name a
  function that shadows a builtin (`sum`) and modules that only it imports. What
  only `setup` uses comes last.
  """
  with warnings.catch_warnings():
    warnings.simplefilter('ignore')  # MBPP's old escapes.
    body = ast.parse(reference).body
    read = [*_read_names(ast.parse(tests)), *_read_names(ast.parse(setup))]
  imports = [n for n in body if isinstance(n, (ast.Import, ast.ImportFrom))]
  own = [n for n in body if n not in imports]
  defined = extraction.defined(ast.Module(own, []))
  names = [n for n in dict.fromkeys(read) if n in defined]
  return names, '\n'.join(map(ast.unparse, imports))


def _read_names(tree: ast.AST) -> list[str]:
  """Names that are read, those that are called first; each once."""
  called = [
    node.func.id
    for node in ast.walk(tree)
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
  ]
  read = [
    node.id
    for node in ast.walk(tree)
    if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load)
  ]
  return list(dict.fromkeys([*called, *read]))


def called_functions(tests: str) -> list[str]:
  """What tests without a reference solution use of the candidate.

  [] unless they are Python that tests may be written in (see
  `sandbox.restricted`), assert something and call something that they do not
  define themselves. A name that shadows a builtin is meant only where nothing
  else is called.
  """
  try:
    tree = restricted.parse(tests)
  except ValueError:
    return []
  nodes = list(ast.walk(tree))
  asserts = any(
    isinstance(n, ast.Assert) or getattr(n, 'attr', '') == 'raises'
    for n in nodes
  )
  called = {
    n.func.id
    for n in nodes
    if isinstance(n, ast.Call) and isinstance(n.func, ast.Name)
  }
  free = extraction.free_names([tree])
  names = [n for n in _read_names(tree) if n in free]
  own = [n for n in names if not hasattr(builtins, n)]
  if not asserts or not called & free:
    return []
  return own if called & set(own) else [n for n in names if n in called]


def _verdict(result: sandbox_lib.TestResult, source: str) -> graders.Verdict:
  reason = 'equal' if result.passed else result.outcome
  return graders.Verdict(result.passed, reason, source)


def grade_humaneval(
  sandbox: sandbox_lib.Sandbox,
  completion: str,
  *,
  prompt: str,
  test: str,
  entry_point: str,
) -> graders.Verdict:
  """Runs HumanEval's `check` on the completed function."""
  source = function_source(prompt, completion, entry_point)
  # The prompt also runs beside the tests: three of them call its helpers.
  result = sandbox.run_tests(
    source,
    f'{test}\ncheck({entry_point})\n',
    [entry_point],
    setup=_stub(prompt),
  )
  return _verdict(result, source)


def grade_mbpp(
  sandbox: sandbox_lib.Sandbox,
  completion: str,
  *,
  tests: str,
  functions: Sequence[str],
  setup: str = '',
) -> graders.Verdict:
  """Runs MBPP's assertions on the code of a completion."""
  text = extraction.answer(completion)
  source = extraction.function_code(text, functions) if functions else None
  if source is None:
    source = extraction.program_code(text)
  return _verdict(sandbox.run_tests(source, tests, functions, setup), source)


# A tuple counts as a list, as upstream, but not one within another value.
_CASES = """
import json
for arguments, expected in json.loads(CASES):
  result = candidate(*arguments)
  if isinstance(result, tuple):
    result = list(result)
  assert result == expected, 'a wrong answer'
"""


def grade_functional(
  sandbox: sandbox_lib.Sandbox,
  completion: str,
  *,
  function: str,
  cases: Sequence[tuple[Sequence, object]],
) -> graders.Verdict:
  """LiveCodeBench's call form: `Solution().function(*arguments)`, JSON values.

  One object for all cases, and the limits on time for each.
  """
  text = extraction.answer(completion)
  source = extraction.function_code(text, [function])
  if source is None:
    source = extraction.program_code(text)
  tree = extraction.parse(source)
  method = tree is not None and extraction.is_method(tree, function)
  target = f'Solution().{function}' if method else function
  result = sandbox.run_tests(
    source,
    f'CASES = {json.dumps(list(cases))!r}\n{_CASES}',
    {'candidate': target},
    preamble=livecodebench.preamble(source),
    cases=len(cases),
  )
  return _verdict(result, source)


def same_output(expected: str, got: str) -> bool:
  """Equal line by line but for outer space, as LiveCodeBench compares.

  A line of numbers may spell them otherwise (1.50 is 1.5): it is compared as
  exact decimals, in which NaN equals nothing.
  """
  want, have = (
    [line.strip() for line in text.strip().split('\n')]
    for text in (expected, got)
  )
  return len(want) == len(have) and all(
    w == h or _same_decimals(w, h) for w, h in zip(want, have)
  )


def _same_decimals(want: str, have: str) -> bool:
  import decimal

  try:
    values = [[decimal.Decimal(t) for t in l.split()] for l in (want, have)]
  except decimal.InvalidOperation:
    return False
  # A signalling NaN cannot even be compared.
  return not any(v.is_nan() for line in values for v in line) and (
    values[0] == values[1]
  )


def grade_stdin(
  sandbox: sandbox_lib.Sandbox,
  completion: str,
  *,
  cases: Sequence[tuple[str, str]],
) -> graders.Verdict:
  """Runs a program on every input, each in a fresh sandbox; all must agree.

  `sys.exit` ends a program with whatever status, as upstream.
  """
  source = extraction.program_code(extraction.answer(completion))
  if not cases:
    return graders.Verdict(False, 'no_calls', source)
  preamble = livecodebench.preamble(source)
  for stdin, expected in cases:
    result = sandbox.run_program(
      source, stdin, preamble=preamble, exit_is_end=True
    )
    if result.outcome != 'exited' or result.exit_code != 0:
      reason = 'error' if result.outcome == 'exited' else result.outcome
      return graders.Verdict(False, reason, source)
    if not same_output(expected, result.stdout):
      return graders.Verdict(False, 'different', source)
  return graders.Verdict(True, 'equal', source)
