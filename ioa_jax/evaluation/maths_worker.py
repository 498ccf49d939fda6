"""The process in which `math-verify` reads model text: JSON lines in and out.

Started by `maths.Checker`, never imported by the rest of the package. The text
is hostile: one answer was seen to take 664 MB and 5 s. So memory and CPU time
are limited here, and a request that goes over them ends the process. Nor could
an error in a parser do more than compute: no files are written, and seccomp
leaves no sockets and no processes.

Only the LaTeX reader is used. The plain-expression reader calls sympy's
`parse_expr`, which executes Python.
"""

from __future__ import annotations

from collections.abc import Callable
import json
import logging
import os
import resource
import signal
import sys
from typing import Any

from ioa_jax.evaluation.sandbox import isolation

_PARSE_DIGITS = 30
# Exact on both sides: the numerical evaluation's own error. With a decimal on
# either side: math-verify compares six decimals, which for small numbers
# (1e-7 and 2e-7) compares nothing; two units of the sixth digit do.
_EXACT_TOLERANCE, _DECIMAL_TOLERANCE = 1e-20, 2e-6


def _load() -> Callable[[str, str], str]:
  import math_verify
  from math_verify import parser
  import sympy

  # `cm` and `m` are removed by the reader: `maths` compares them before.
  config = [parser.LatexExtractionConfig(boxed_match_priority=0)]

  def read(latex: str) -> Any:
    found = math_verify.parse(
      f'$\\boxed{{{latex}}}$', extraction_config=config,
      fallback_mode='no_fallback', extraction_mode='first_match',
      parsing_timeout=None,
    )  # fmt: skip
    return found[0] if found else None

  def compare(gold: str, answer: str) -> str:
    want, got = read(gold), read(answer)
    if want is None:
      return 'gold_unreadable'
    if got is None:
      return 'unreadable'
    if not math_verify.verify(want, got, timeout_seconds=None):
      return 'different'
    return 'different' if _values_differ(sympy, want, got) else 'equal'

  return compare


def _values_differ(sympy: Any, want: Any, got: Any) -> bool:
  """Whether values disagree although math-verify called them equal.

  It evaluates a difference to 15 digits and rounds decimals to 6 places, so
  1/2^99 equals 1/2^98. Relative errors do not have that blind spot. What cannot
  be evaluated (words, relations) keeps math-verify's verdict.
  """
  containers = (sympy.FiniteSet, sympy.Tuple, sympy.Interval)
  if isinstance(want, sympy.Eq) and not isinstance(got, sympy.Eq):
    return _values_differ(sympy, want.rhs, got)
  if isinstance(got, sympy.Eq) and not isinstance(want, sympy.Eq):
    return _values_differ(sympy, want, got.rhs)
  if isinstance(want, sympy.Eq) and want.lhs == got.lhs:
    return _values_differ(sympy, want.rhs, got.rhs)
  if isinstance(want, sympy.MatrixBase) and isinstance(got, sympy.MatrixBase):
    pairs = zip(want.flat(), got.flat())
  elif isinstance(want, containers) and isinstance(got, containers):
    sort = isinstance(want, sympy.FiniteSet) or isinstance(got, sympy.FiniteSet)
    pairs = zip(_members(want, sort), _members(got, sort))
  else:
    return _numbers_differ(sympy, want, got)
  return any(_values_differ(sympy, w, g) for w, g in pairs)


def _members(collection: Any, sort: bool) -> list[Any]:
  members = list(collection.args)
  try:
    return sorted(members, key=lambda m: float(m.evalf())) if sort else members
  except TypeError:  # A symbol or a complex number: no order.
    return members


def _numbers_differ(sympy: Any, want: Any, got: Any) -> bool:
  if isinstance(want, sympy.Symbol) or isinstance(got, sympy.Symbol):
    return False
  try:
    symbols = sorted(want.free_symbols | got.free_symbols, key=str)
    # Positive and unrelated, so that sqrt(x^2) stays x.
    point = {s: sympy.Rational(7 + 4 * i, 5 + i) for i, s in enumerate(symbols)}
    w, g = (
      _complex_parts(e.doit().subs(point).evalf(_PARSE_DIGITS, maxn=400))
      for e in (want, got)
    )
    decimal = want.has(sympy.Float) or got.has(sympy.Float)
  except (TypeError, ValueError, AttributeError, ArithmeticError):
    return False
  if _has_percent(sympy, want) != _has_percent(sympy, got):
    return False  # 9 % is accepted for 9 as well as for 0.09.
  scale = max(abs(w[0]) + abs(w[1]), abs(g[0]) + abs(g[1]))
  error = abs(w[0] - g[0]) + abs(w[1] - g[1])
  if scale in (0, sympy.oo) or not scale.is_number:
    return False
  return bool(
    error / scale > (_DECIMAL_TOLERANCE if decimal else _EXACT_TOLERANCE)
  )


def _complex_parts(value: Any) -> tuple[Any, Any]:
  real, imaginary = value.as_real_imag()
  if not (real.is_number and imaginary.is_number):
    raise ValueError('not a number')
  return real, imaginary


def _has_percent(sympy: Any, expression: Any) -> bool:
  return expression.has(sympy.UnevaluatedExpr)


def main() -> None:
  memory_bytes, cpu_seconds = int(sys.argv[1]), float(sys.argv[2])
  # Answers go out on a private descriptor, so that no library can print into
  # them.
  out = os.fdopen(os.dup(1), 'w', encoding='utf-8')
  os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
  logging.disable(logging.CRITICAL)
  compare = _load()
  resource.setrlimit(resource.RLIMIT_AS, (memory_bytes, memory_bytes))
  resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
  resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
  if isolation.supported_machine():
    isolation.install_seccomp()
  out.write('"ready"\n')
  out.flush()
  for line in sys.stdin:
    request = json.loads(line)
    # CPU time of this request; the signal's default action ends the process.
    signal.setitimer(signal.ITIMER_PROF, cpu_seconds)
    try:
      reason = compare(request['gold'], request['answer'])
    except MemoryError:
      os._exit(3)
    except (Exception, RecursionError):
      reason = 'unreadable'
    signal.setitimer(signal.ITIMER_PROF, 0)
    out.write(json.dumps(reason) + '\n')
    out.flush()


if __name__ == '__main__':
  main()
