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

from collections.abc import Callable, Sequence
import json
import logging
import os
import re
import resource
import signal
import sys
from typing import Any

from ioa_jax.evaluation import (
  maths_comparison,
  maths_structure,
  maths_units,
)
from ioa_jax.evaluation.sandbox import isolation

_DIGITS = 60
_TOLERANCE = 1e-50
# A decimal stands for a value that has no end only from so many digits on.
_MIN_DIGITS = 6
_MAX_LITERAL = 400
_DECIMAL = re.compile(r'(?<![0-9.])([0-9]*)\.([0-9]+)(?![0-9.])')
_LITERAL = re.compile(r'\s*([-+]?)\s*([0-9]*)(?:\.([0-9]*))?\s*')
_RATIONAL = re.compile(
  r'(-?)\s*(?:([0-9]{1,40})?\s*\\frac\{\s*([0-9]{1,40})\s*\}'
  r'\{\s*([0-9]{1,40})\s*\}|([0-9]{1,40})\s*/\s*([0-9]{1,40}))'
)
_BASE = re.compile(r'([0-9][0-9A-F]*)_\{([0-9]+)\}')
# What may be units in single letters: `5 m`, `5\\frac{m}{s}`.
_LETTER_TAIL = re.compile(r'[0-9}][\s\u2009]+[a-zA-Z]|\\frac\{[a-z]{1,3}\}')
_UNREADABLE = re.compile(
  # Two numbers side by side: `4 2` is read as their sum; `1,2`; `\text`.
  r'[0-9][\s\u2009]+[0-9.]|[0-9],|\\text(?![a-z])|[?=\ue001]|\\ldots'
)


class _Unreadable(ValueError):
  """An expression that is none, or that has no value."""


def _load() -> Callable[[str, str], str]:
  algebra = _Algebra()
  structure = maths_comparison.Comparison(algebra.equal, algebra.equivalent)

  def compare(gold: str, answer: str) -> str:
    want, got = maths_structure.read(gold), maths_structure.read(answer)
    reason = structure.compare(want, got)
    if reason == 'different' and ',' in gold + answer:
      # `100,200` is a number, or two.
      apart = [
        re.sub(r'(?<=[0-9]),(?=[0-9]{3})', ', ', t) for t in (gold, answer)
      ]
      if all('list' == maths_structure.read(t).kind for t in apart):
        return structure.compare(*map(maths_structure.read, apart))
    return reason

  return compare


class _Algebra:
  """Values in LaTeX: whether two are one."""

  def __init__(self):
    import latex2sympy2_extended
    import math_verify
    import sympy

    self._sympy = sympy
    self._verify = math_verify.verify
    self._latex2sympy = latex2sympy2_extended.latex2sympy
    self._config = latex2sympy2_extended.NormalizationConfig(
      basic_latex=True,
      units=False,
      malformed_operators=True,
      nits=False,
      boxed='none',
    )
    self._cache: dict[str, Any] = {}

  def equal(self, gold: str, answer: str) -> str:
    reason = self._quantities(gold, answer, bare_letters=False)
    if reason != 'equal' and any(map(_LETTER_TAIL.search, (gold, answer))):
      return self._quantities(gold, answer, bare_letters=True)
    return reason

  def _quantities(self, gold: str, answer: str, *, bare_letters: bool) -> str:
    want, got = (
      maths_units.read(t, bare_letters=bare_letters) for t in (gold, answer)
    )
    if not want.agrees(got):
      return 'units'
    bases = [_BASE.fullmatch(q.value.strip()) for q in (want, got)]
    if any(bases):
      return 'equal' if all(bases) and bases[0][0] == bases[1][0] else 'base'
    try:
      return self._percentages(want, got)
    except _Unreadable:
      return 'unreadable'

  def _percentages(self, want: Any, got: Any) -> str:
    values, percent = [], []
    for quantity in (want, got):
      text = re.sub(
        r'\\%|\\text\{\s*(?:percent|pct|percentage)\s*\}', '', quantity.value
      )
      names = quantity.names & {'percent', 'percentage', 'pct'}
      percent.append(bool(names) or text != quantity.value)
      values.append((text.strip(), quantity.factor))
    if percent[0] == percent[1]:
      return self._same(*values)
    shares = [
      (t, f * self._sympy.Rational(1, 100) if p else f)
      for (t, f), p in zip(values, percent)
    ]
    if self._same(*shares) == 'equal':
      return 'equal'
    # 12.5 is accepted for 12.5 %, but 0.25 is not for 0.25 %.
    bare = self._read(values[percent.index(False)][0])
    if bare.is_number and bool(abs(bare.doit().evalf()) >= 1):
      return self._same(*values)
    return 'different'

  def _same(self, gold: tuple[str, Any], answer: tuple[str, Any]) -> str:
    want, got = self._read(gold[0]) * gold[1], self._read(answer[0]) * answer[1]
    literals = [_literal(text) for text, _ in (gold, answer)]
    if all(literals):
      return 'equal' if want == got else 'different'
    if _letters(gold[0]) != _letters(answer[0]) and (
      _letters(gold[0].lower()) == _letters(answer[0].lower())
    ):
      return 'different'  # The parser knows no capitals.
    differ = self._differ(want, got)
    if differ is None:
      same = self._verify(want, got, timeout_seconds=None)
      return 'equal' if same else 'different'
    if differ and any(literals):
      place = next(i for i, found in enumerate(literals) if found)
      approximate, exact = ((want, got), (got, want))[place]
      if _rounds_to(self._sympy, exact, approximate, literals[place]):
        return 'equal'
    return 'different' if differ else 'equal'

  def _read(self, latex: str) -> Any:
    if latex not in self._cache:
      if len(self._cache) > 200:
        self._cache.clear()
      self._cache[latex] = self._parse(latex)
    found = self._cache[latex]
    if found is None:
      raise _Unreadable(latex)
    return found

  def _parse(self, latex: str) -> Any:
    text = latex.replace('^{\\circ}', '')
    if _UNREADABLE.search(text) or len(text) > 1200:
      return None
    literal = _LITERAL.fullmatch(text)
    if literal and (literal[2] or literal[3]):
      if len(text) > _MAX_LITERAL:
        return None
      whole = literal[2] + (literal[3] or '')
      value = self._sympy.Rational(
        int(literal[1] + whole), 10 ** len(literal[3] or '')
      )
      return value
    if match := _RATIONAL.fullmatch(text.strip()):  # The parser takes 20 ms.
      whole, over = int(match[2] or 0), int(match[3] or match[5])
      under = int(match[4] or match[6])
      if under == 0:
        return None
      value = whole + self._sympy.Rational(over, under)
      return -value if match[1] else value
    text = _DECIMAL.sub(_as_fraction, text).replace('\u2009', ' ')
    try:
      found = self._latex2sympy(
        text,
        is_real=True,
        convert_degrees=False,
        normalization_config=self._config,
      )
    except RecursionError:
      return None
    except Exception:  # The parser raises whatever its lexer meets.
      return None
    return self._constants(found)

  def _constants(self, found: Any) -> Any:
    """None for what has no value; i and e are the constants."""
    sympy = self._sympy
    if not isinstance(found, sympy.Expr) or isinstance(found, sympy.MatrixBase):
      return None
    if found.has(sympy.zoo, sympy.nan):
      return None
    named = {
      s: {'i': sympy.I, 'e': sympy.E}.get(s.name) for s in found.free_symbols
    }
    known = {s: v for s, v in named.items() if v is not None}
    return found.subs(known) if known else found

  def _differ(self, want: Any, got: Any) -> bool | None:
    """Whether two values disagree; None if they cannot be evaluated.

    Both are evaluated to `_DIGITS` digits at a few unrelated points: far
    stronger evidence than a difference that simplifies, or does not. All
    symbols are positive there, so that sqrt(x^2) stays x.
    """
    sympy = self._sympy
    want, got = want.doit(), got.doit()
    if want.is_Rational and got.is_Rational:
      return want != got
    for side in (want, got):
      if side.has(sympy.zoo, sympy.nan):
        raise _Unreadable(str(type(side)))
    if want.is_infinite or got.is_infinite:
      return want != got
    names = sorted({s.name for s in want.free_symbols | got.free_symbols})
    points = range(3 if names else 1)
    return _differ_at(sympy, want, got, names, points)

  def equivalent(self, gold: Sequence[str], answer: Sequence[str]) -> str:
    """Whether two equations say the same: their sides' ratio is constant."""
    if len(gold) != len(answer) or gold[2:] != answer[2:]:
      return 'different'
    try:
      want, got = (
        self._read(a) - self._read(b) for a, b in (gold[:2], answer[:2])
      )
    except _Unreadable:
      return 'unreadable'
    names = {s.name for s in want.free_symbols}
    if not names or names != {s.name for s in got.free_symbols}:
      return 'different'
    ratio = want / got
    point = {
      s: self._sympy.Rational(13 + 5 * i, 9 + i)
      for i, s in enumerate(sorted(ratio.free_symbols, key=str))
    }
    factor = ratio.subs(point)
    if factor.has(self._sympy.zoo, self._sympy.nan) or factor == 0:
      return 'different'
    if len(gold) > 2 and not bool(factor.evalf() > 0):
      return 'different'
    differ = self._differ(want, factor * got)
    return 'different' if differ or differ is None else 'equal'


def _rounds_to(
  sympy: Any, exact: Any, decimal: Any, digits: tuple[int, int]
) -> bool:
  """Whether a decimal is this value, rounded or cut, to enough digits."""
  places, significant = digits
  if significant < _MIN_DIGITS or places == 0 or exact.free_symbols:
    return False
  exact = exact.doit()
  if exact.is_Rational:
    denominator, ends = exact.q, 0
    while denominator % 10 == 0:
      denominator, ends = denominator // 10, ends + 1
    for prime in (2, 5):
      while denominator % prime == 0:
        denominator, ends = denominator // prime, ends + 1
    if denominator == 1 and ends <= places:
      return False
  value = exact.evalf(_DIGITS)
  if not value.is_real:
    return False
  unit = sympy.Rational(1, 10**places)
  error = value - decimal
  cut = error * sympy.sign(decimal)
  return bool(abs(error) <= unit / 2) or bool(0 <= cut < unit)


def _differ_at(sympy, want, got, names, points) -> bool | None:
  seen = 0
  for point in points:
    at = {
      n: sympy.Rational(7 + 4 * i + 11 * point, 5 + i + 2 * point)
      for i, n in enumerate(names)
    }
    try:
      w, g = (
        _complex_parts(
          side.subs({s: at[s.name] for s in side.free_symbols}).evalf(
            _DIGITS, maxn=2000
          )
        )
        for side in (want, got)
      )
    except (TypeError, ValueError, AttributeError, ArithmeticError):
      continue
    scale = max(abs(w[0]) + abs(w[1]), abs(g[0]) + abs(g[1]))
    error = abs(w[0] - g[0]) + abs(w[1] - g[1])
    if not scale.is_finite:
      continue
    if scale and bool(error / scale > _TOLERANCE):
      return not _vanishes(sympy, want, got, names) if scale < 1e-40 else True
    seen += 1
  return False if seen else None


def _vanishes(sympy: Any, want: Any, got: Any, names: Sequence[str]) -> bool:
  return not names and sympy.simplify(want - got) == 0


def _letters(latex: str) -> set[str]:
  return set(
    re.findall(r'(?<![\\a-zA-Z])[a-zA-Z]', re.sub(r'\\[a-zA-Z]+', ' ', latex))
  )


def _literal(text: str) -> tuple[int, int] | None:
  """Places and significant digits of a number in digits, else None."""
  match = _LITERAL.fullmatch(text)
  if match is None or not (match[2] or match[3]):
    return None
  decimals = match[3] or ''
  return len(decimals), len((match[2] + decimals).lstrip('0'))


def _as_fraction(match: re.Match) -> str:
  digits = (match[1] + match[2]).lstrip('0') or '0'
  return f'\\frac{{{digits}}}{{1{"0" * len(match[2])}}}'


def _complex_parts(value: Any) -> tuple[Any, Any]:
  real, imaginary = value.as_real_imag()
  if not (real.is_number and imaginary.is_number):
    raise ValueError('not a number')
  return real, imaginary


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
