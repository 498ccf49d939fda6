r"""Maths equivalence: `math-verify` behind a guarded worker process.

Only the last balanced `\boxed{}` of a completion is read, gold first (the
comparison is not symmetric). What math-verify is known to get wrong is decided
here or in the worker: units, number bases, set against tuple, small numbers.
"""

from __future__ import annotations

import importlib.util
import json
import os
import re
import select
import subprocess
import sys
import threading
import time

from ioa_jax.evaluation import graders

_MAX_ANSWER_CHARS = 1000
# A worker is replaced after so many answers: sympy's caches only grow.
_ANSWERS_PER_WORKER = 5000

_UNITS = {
  'cm': 'centimeter centimetre', 'mm': 'millimeter millimetre',
  'm': 'meter metre', 'km': 'kilometer kilometre', 'in': 'inch inche',
  'ft': 'foot feet', 'yd': 'yard', 'mi': 'mile', 'kg': 'kilogram',
  'g': 'gram', 'mg': 'milligram', 'lb': 'pound', 'oz': 'ounce',
  's': 'second sec', 'min': 'minute', 'h': 'hour hr', 'day': 'day',
  'week': 'week', 'month': 'month', 'year': 'year yr', 'l': 'liter litre',
  'ml': 'milliliter millilitre', 'mph': 'mph', 'cent': 'cent ¢',
  'dollar': 'dollar', 'degree': 'degree', 'unit': 'unit',
  'radian': 'radian rad',
}  # fmt: skip
_UNIT_OF = {w: u for u, words in _UNITS.items() for w in (u, *words.split())}
# Words in \text{} behind a number that are no units.
_CONNECTORS = frozenset('and or if for where when to is'.split())
_TEXT_UNIT = re.compile(
  r'(?<=[0-9})\s~])\\(?:text|mathrm|textrm|mbox|rm)\s*\{\s*'
  r'([A-Za-z¢][A-Za-z¢./^0-9\s]*?)\s*\}\s*(?:\^\s*\{?\s*([0-9])\s*\}?)?'
)
_BARE_UNIT = re.compile(
  r'(?<=[0-9}])\s*(?:\\[ ,;~]|~|\s)\s*([a-zA-Z¢]{1,12})(?![a-zA-Z(])'
  r'\s*(?:\^\s*\{?\s*([0-9])\s*\}?)?'
)
_SPACING = re.compile(r'\\(?:(?:left|right|displaystyle)(?![a-zA-Z])|[!,;:])')
_BASE = re.compile(
  r'([0-9][0-9A-Fa-f]*)\s*_\s*\{?\s*(?:\\text\s*\{\s*)?([0-9]+|[a-z]+)'
)


def units(latex: str) -> frozenset[str]:
  r"""Canonical units behind numbers: `5\text{ inches}^2` gives {'in^2'}."""
  found = set()
  if re.search(r'\\?\$\s*[0-9.]', latex):
    found.add('dollar')
  if re.search(r'\^\s*\{?\s*\\circ', latex):
    found.add('degree')
  for pattern, known_only in ((_TEXT_UNIT, False), (_BARE_UNIT, True)):
    for words, power in pattern.findall(latex):
      name = words.lower().replace('.', '').strip()
      for prefix, exponent in (('square ', '2'), ('sq ', '2'), ('cubic ', '3')):
        if name.startswith(prefix):
          name, power = name.removeprefix(prefix), exponent
      unit = _UNIT_OF.get(name) or _UNIT_OF.get(name.removesuffix('s'))
      if unit is None and (known_only or name.split()[0] in _CONNECTORS):
        continue
      found.add(
        (unit or name.removesuffix('s')) + (f'^{power}' if power else '')
      )
  return frozenset(found)


def normalize(latex: str) -> str:
  """One spelling of what is written in several ways without any meaning."""
  latex = latex.strip().strip('$').strip().rstrip('.')
  # `20,\!000` and `20{,}000` are how LaTeX writes a thousands separator.
  latex = re.sub(r'(?<=[0-9])(?:,\\!|\{,\})(?=[0-9]{3})', '', latex)
  latex = _SPACING.sub('', latex)
  latex = re.sub(r'\\[dt]frac(?![a-zA-Z])', r'\\frac', latex)
  latex = re.sub(r'\\(?:text|mathrm|mbox|textbf)\s*\{', r'\\text{', latex)
  return re.sub(r'\s+', ' ', latex).strip()


def _words(latex: str) -> str:
  r"""`\text{(A)}` and `A` as `a`; '' for anything but words."""
  plain = re.sub(r'\\text\{([^{}]*)\}', r'\1', latex).strip()
  plain = re.sub(r'^\(([A-Za-z])\)$', r'\1', plain)
  return (
    plain.casefold() if re.fullmatch(r'[A-Za-z]+( [A-Za-z]+)*', plain) else ''
  )


def _obstacle(gold: str, answer: str) -> str | None:
  """Why two answers are different that math-verify would call equal."""
  gold_units, answer_units = units(gold), units(answer)
  if gold_units and answer_units and gold_units != answer_units:
    return 'units'
  if _BASE.findall(gold) != _BASE.findall(answer):
    return 'base'
  braces = [
    re.match(r'\\(?:lbrace|\{)', text) is not None for text in (gold, answer)
  ]
  round_ones = [text[:1] in ('(', '[') for text in (gold, answer)]
  if (braces[0] and round_ones[1]) or (round_ones[0] and braces[1]):
    return 'set_or_tuple'
  return None


class Checker:
  """Grades maths answers; holds one worker process open, safe across threads.

  Use as a context manager, or call `close`.

  Raises:
    ValueError: if math-verify is not installed.
  """

  def __init__(
    self,
    *,
    cpu_seconds: float = 5.0,
    wall_seconds: float = 60.0,
    memory_bytes: int = 1 << 30,
  ):
    if importlib.util.find_spec('math_verify') is None:
      raise ValueError(
        'maths answers need the package math-verify: '
        'pip install "ioa_jax[eval]".'
      )
    self._limits = memory_bytes, cpu_seconds
    self._wall_seconds = wall_seconds
    self._worker: subprocess.Popen | None = None
    self._answered = 0
    self._lock = threading.Lock()

  def __enter__(self) -> Checker:
    return self

  def __exit__(self, *exc) -> None:
    self.close()

  def close(self) -> None:
    with self._lock:
      self._stop()

  def grade(self, completion: str, gold: str) -> graders.Verdict:
    r"""Grades the last `\boxed{}` of a completion."""
    boxed = graders.last_boxed(completion)
    if not boxed:
      return graders.Verdict(False, 'no_answer', '')
    return self.compare(gold, boxed)

  def compare(self, gold: str, answer: str) -> graders.Verdict:
    """Grades an extracted answer.

    Raises:
      ValueError: if the gold is empty.
    """
    want, got = normalize(gold), normalize(answer)
    if not want:
      raise ValueError('the gold answer is empty.')
    if not got:
      return graders.Verdict(False, 'no_answer', answer)
    if want.replace(' ', '') == got.replace(' ', '') or _words(want) == (
      _words(got) or None
    ):
      return graders.Verdict(True, 'equal', answer)
    if len(got) > _MAX_ANSWER_CHARS:
      return graders.Verdict(False, 'too_long', answer[:_MAX_ANSWER_CHARS])
    reason = _obstacle(want, got)
    if reason is None:
      with self._lock:
        reason = self._ask(want, got)
    return graders.Verdict(reason == 'equal', reason, answer)

  def _ask(self, gold: str, answer: str) -> str:
    worker = self._start()
    request = json.dumps({'gold': gold, 'answer': answer}) + '\n'
    try:
      worker.stdin.write(request.encode())
      worker.stdin.flush()
      reply = self._read(worker)
    except BrokenPipeError:
      reply = None
    self._answered += 1
    if reply is None or self._answered >= _ANSWERS_PER_WORKER:
      self._stop()
    return 'limit' if reply is None else reply

  def _start(self) -> subprocess.Popen:
    if self._worker is not None:
      return self._worker
    self._answered = 0
    memory_bytes, cpu_seconds = self._limits
    self._worker = subprocess.Popen(
      [sys.executable, '-m', 'ioa_jax.evaluation.maths_worker',
       str(memory_bytes), str(cpu_seconds)],
      stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
      env={'PYTHONPATH': os.pathsep.join(p for p in sys.path if p),
           'OPENBLAS_NUM_THREADS': '1'},
    )  # fmt: skip
    if self._read(self._worker) != 'ready':
      code = self._worker.poll()
      self._stop()
      raise RuntimeError(f'the maths worker did not start (exit code {code}).')
    return self._worker

  def _read(self, worker: subprocess.Popen) -> str | None:
    """One reply, or None if the worker died or was silent for too long."""
    deadline = time.monotonic() + self._wall_seconds
    data = b''
    while not data.endswith(b'\n'):
      left = deadline - time.monotonic()
      if left <= 0 or not select.select([worker.stdout], [], [], left)[0]:
        return None
      chunk = os.read(worker.stdout.fileno(), 4096)
      if not chunk:
        return None
      data += chunk
    return json.loads(data)

  def _stop(self) -> None:
    if self._worker is None:
      return
    self._worker.kill()
    self._worker.wait()
    self._worker.stdin.close()
    self._worker.stdout.close()
    self._worker = None
