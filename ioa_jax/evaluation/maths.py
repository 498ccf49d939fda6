r"""Maths equivalence: computer algebra behind a guarded worker process.

Only the last balanced `\boxed{}` of a completion is read, gold first (the
comparison is not symmetric). Spellings are made one in `maths_spelling`, here;
parts, units and values are compared in the worker.
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

from ioa_jax.evaluation import graders, maths_spelling

_MAX_ANSWER_CHARS = 1000
# A worker is replaced after so many answers: sympy's caches only grow.
_ANSWERS_PER_WORKER = 5000


def _without_room(latex: str) -> str:
  return re.sub(r'(?<![0-9])\s|\s(?![0-9])', '', latex)


class Checker:
  """Grades maths answers; holds one worker process open, safe across threads.

  Use as a context manager, or call `close`.

  Raises:
    ValueError: if math-verify is not installed.
  """

  def __init__(
    self,
    *,
    cpu_seconds: float = 4.0,
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
    if len(answer) > _MAX_ANSWER_CHARS:
      return graders.Verdict(False, 'too_long', answer[:_MAX_ANSWER_CHARS])
    want, got = map(maths_spelling.normalize, (gold, answer))
    if not want:
      raise ValueError('the gold answer is empty.')
    if not got:
      return graders.Verdict(False, 'no_answer', answer)
    if _without_room(want) == _without_room(got):
      return graders.Verdict(True, 'equal', answer)
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
      [
        sys.executable,
        '-m',
        'ioa_jax.evaluation.maths_worker',
        str(memory_bytes),
        str(cpu_seconds),
      ],
      stdin=subprocess.PIPE,
      stdout=subprocess.PIPE,
      stderr=subprocess.DEVNULL,
      env={
        'PYTHONPATH': os.pathsep.join(p for p in sys.path if p),
        'OPENBLAS_NUM_THREADS': '1',
      },
    )
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
