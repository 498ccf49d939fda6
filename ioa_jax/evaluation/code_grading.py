"""Code answers to verdicts, by running them in the sandbox."""

from __future__ import annotations

import ast
import builtins
from collections.abc import Sequence
import json
import re
import warnings

from ioa_jax.evaluation import graders
from ioa_jax.evaluation import sandbox as sandbox_lib

_FENCE = re.compile(r'```[ \t]*([\w+-]*)[^\n]*\n(.*?)(?:```|\Z)', re.DOTALL)


def extract_code(completion: str, entry_point: str | None = None) -> str | None:
  """The fenced block that defines `entry_point`, else the first; None if none.

  Among several definitions the last counts, as in a text that corrects itself.
  """
  blocks = [code for _, code in _FENCE.findall(completion)]
  if entry_point:
    defining = [b for b in blocks if _defines(b, entry_point)]
    if defining:
      return defining[-1]
  return blocks[0] if blocks else None


def _defines(code: str, name: str) -> bool:
  return (
    re.search(rf'^\s*(?:async\s+)?def\s+{re.escape(name)}\b', code, re.M)
    is not None
  )


def function_source(prompt: str, completion: str, entry_point: str) -> str:
  """HumanEval's module: the prompt continued, or replaced by a whole function.

  A bare continuation ends before the first line that leaves the body, where a
  base model starts to write something else.
  """
  code = extract_code(completion, entry_point)
  text = completion if code is None else code
  if _defines(text, entry_point):
    # After the prompt, because its imports and helpers belong to the task.
    return f'{prompt}\n    pass\n\n{text}\n'
  if code is not None:
    completion = code
  body = []
  for line in completion.split('\n'):
    if body and line.strip() and not line[0].isspace() and line[0] != ')':
      break
    body.append(line)
  return prompt + '\n'.join(body) + '\n'


def tested_functions(tests: str, reference: str) -> tuple[list[str], str]:
  """What the tests call of the candidate, and imports they rely on.

  Both as the reference solution has them, because MBPP's assertions name a
  function that shadows a builtin (`sum`) and modules that only it imports.
  """
  defined, imports = set(), []
  with warnings.catch_warnings():
    warnings.simplefilter('ignore')  # MBPP's old escapes.
    body, asserts = ast.parse(reference).body, ast.parse(tests)
  for node in body:
    if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
      defined.add(node.name)
    elif isinstance(node, ast.Assign):
      defined.update(t.id for t in node.targets if isinstance(t, ast.Name))
    elif isinstance(node, (ast.Import, ast.ImportFrom)):
      imports.append(ast.unparse(node))
  called = [
    node.func.id
    for node in ast.walk(asserts)
    if isinstance(node, ast.Call)
    and isinstance(node.func, ast.Name)
    and node.func.id in defined
  ]
  return list(dict.fromkeys(called)), '\n'.join(imports)


def called_functions(tests: str) -> list[str]:
  """What tests without a reference solution call of the candidate.

  [] unless they are Python made of assertions and imports only. A name that
  shadows a builtin is meant only where nothing else is called.
  """
  try:
    with warnings.catch_warnings():
      warnings.simplefilter('ignore')
      tree = ast.parse(tests)
  except (SyntaxError, ValueError, RecursionError, MemoryError):
    return []
  allowed = (ast.Assert, ast.Import, ast.ImportFrom)
  if not all(isinstance(node, allowed) for node in tree.body):
    return []
  imported = {
    alias.asname or alias.name
    for node in tree.body if not isinstance(node, ast.Assert)
    for alias in node.names
  }  # fmt: skip
  called = [
    node.func.id
    for node in ast.walk(tree)
    if isinstance(node, ast.Call)
    and isinstance(node.func, ast.Name)
    and node.func.id not in imported
  ]
  own = [name for name in called if not hasattr(builtins, name)]
  return list(dict.fromkeys(own or called))


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
    source, f'{test}\ncheck({entry_point})\n', [entry_point],
    setup=f'{prompt}\n    pass\n',
  )  # fmt: skip
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
  code = extract_code(completion, functions[0] if functions else None)
  source = completion if code is None else code
  return _verdict(sandbox.run_tests(source, tests, functions, setup), source)


_CASES = """
import json
def plain(value):
  if isinstance(value, tuple):
    value = list(value)
  if isinstance(value, list):
    return [plain(v) for v in value]
  return value
for arguments, expected in json.loads(CASES):
  assert plain(candidate(*arguments)) == expected, 'a wrong answer'
"""


def grade_functional(
  sandbox: sandbox_lib.Sandbox,
  completion: str,
  *,
  function: str,
  cases: Sequence[tuple[Sequence, object]],
) -> graders.Verdict:
  """LiveCodeBench's call form: `Solution().function(*arguments)`, JSON values.

  A tuple counts as a list, as in LiveCodeBench's own checker.
  """
  code = extract_code(completion, function)
  source = completion if code is None else code
  in_class = re.search(r'^class\s+Solution\b', source, re.M)
  target = f'Solution().{function}' if in_class else function
  tests = f'CASES = {json.dumps(list(cases))!r}\n{_CASES}'
  result = sandbox.run_tests(
    f'{PRELUDE}\n{source}', tests, {'candidate': target}
  )
  return _verdict(result, source)


# What such solutions use without importing it, as on the sites they come from.
PRELUDE = """\
from typing import *
from collections import *
from functools import *
from heapq import *
from bisect import *
from itertools import *
from math import *
import bisect, collections, copy, functools, heapq, itertools, math, random
import re, string, sys
"""


def same_output(expected: str, got: str) -> bool:
  """Equal line by line but for outer space; numbers may differ in spelling.

  A line's tokens are compared as text, else as exact decimals (1.50 is 1.5), as
  LiveCodeBench does.
  """
  import decimal

  def number(token):
    try:
      return decimal.Decimal(token) if len(token) < 400 else None
    except decimal.InvalidOperation:
      return None

  want, have = (
    [line.split() for line in text.strip().split('\n')]
    for text in (expected, got)
  )
  if len(want) != len(have):
    return False
  for w, h in zip(want, have):
    if w == h:
      continue
    values = [(number(a), number(b)) for a, b in zip(w, h)]
    if len(w) != len(h) or any(
      a != b and (v is None or v != u or v.is_nan())
      for (a, b), (v, u) in zip(zip(w, h), values)
    ):
      return False
  return True


def grade_stdin(
  sandbox: sandbox_lib.Sandbox,
  completion: str,
  *,
  cases: Sequence[tuple[str, str]],
) -> graders.Verdict:
  """Runs a program on every input, each in a fresh sandbox; all must agree."""
  code = extract_code(completion)
  source = completion if code is None else code
  if not cases:
    return graders.Verdict(False, 'no_calls', source)
  for stdin, expected in cases:
    result = sandbox.run_program(source, stdin)
    if result.outcome != 'exited' or result.exit_code != 0:
      reason = 'error' if result.outcome == 'exited' else result.outcome
      return graders.Verdict(False, reason, source)
    if not same_output(expected, result.stdout):
      return graders.Verdict(False, 'different', source)
  return graders.Verdict(True, 'equal', source)
