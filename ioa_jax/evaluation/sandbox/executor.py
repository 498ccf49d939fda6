"""Runs model-written Python: isolated, bounded, and unable to grade itself.

There is no unisolated mode. The first backend that passes a self-test is used:
`bubblewrap` (the program bwrap), else `namespaces` (unshare with Landlock).
Both give a read-only view of the interpreter and the system libraries, an
empty /tmp in memory, no network, no environment, a seccomp allow list without
processes, and hard limits; the PID namespace takes everything down together.

Tests run in a second sandbox and see nothing of the candidate but values and
handles (see `remote`). They may come from a model as well, so they are written
in `restricted` Python, in which no verdict can be forged. Works as root and as
an ordinary user.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
import dataclasses
import functools
import json
import os
import select
import shutil
import subprocess
import time
from typing import Any

from ioa_jax.evaluation.sandbox import isolation, launcher, restricted

BACKENDS = ('bubblewrap', 'namespaces')
_VERDICT_BYTES = 1 << 16
_OUTCOMES = ('passed', 'assertion', 'error', 'inexpressible', 'no_calls')
# How often the number of files is looked up where it cannot be limited.
_WATCH_SECONDS = 0.05


class SandboxUnavailable(ValueError):
  """No isolation on this machine, so no code is run."""


@dataclasses.dataclass(frozen=True)
class Limits:
  """Hard limits of one execution; of candidate and tests each.

  Attributes:
    wall_seconds: from the start; generous, because a busy machine is slow.
    cpu_seconds: whole seconds of processor time.
    memory_bytes: address space.
    tmp_bytes: everything under /tmp together.
    file_bytes: a single file.
    files: under /tmp together, folders included.
    threads: at most; processes cannot be started at all.
    output_bytes: standard output of a program.
  """

  wall_seconds: float = 60.0
  cpu_seconds: int = 15
  memory_bytes: int = 1 << 30
  tmp_bytes: int = 32 << 20
  file_bytes: int = 16 << 20
  files: int = 4096
  threads: int = 32
  output_bytes: int = 16 << 20


@dataclasses.dataclass(frozen=True)
class TestResult:
  """Outcome of tests on a candidate.

  Attributes:
    outcome: 'passed', 'assertion', 'error', 'inexpressible' (a value that is
      too large or too deep), 'no_calls' (the tests never asked the candidate),
      'limit'.
    detail: what was raised, for people.
    calls: how often the candidate was asked.
  """

  __test__ = False  # Not a pytest class.

  outcome: str
  detail: str
  calls: int

  @property
  def passed(self) -> bool:
    return self.outcome == 'passed'


@dataclasses.dataclass(frozen=True)
class ProgramResult:
  """Outcome of a whole program.

  Attributes:
    outcome: 'exited', 'limit' (time, or killed by another limit), 'output'.
    exit_code: None unless it exited.
    stdout: undecodable bytes replaced.
  """

  outcome: str
  exit_code: int | None
  stdout: str


class Sandbox:
  """Runs candidates one at a time; safe to use from several threads.

  Args:
    backend: one of BACKENDS, or None for the first that works.

  Raises:
    SandboxUnavailable: if the backend (or every one) fails its self-test.
  """

  def __init__(self, limits: Limits | None = None, backend: str | None = None):
    self.limits = limits or Limits()
    self.backend = choose_backend(backend)

  def run_tests(
    self,
    source: str,
    tests: str,
    functions: Sequence[str] | Mapping[str, str],
    setup: str = '',
    *,
    preamble: str = '',
    cases: int | None = None,
  ) -> TestResult:
    """Runs `tests` in which `functions` are those that `source` defines.

    Args:
      source: the candidate's module.
      tests: Python as in `restricted`; passing means reaching its end.
      functions: names in the tests, or names to expressions that the candidate
        evaluates once (`{'solve': 'Solution().solve'}`).
      setup: more of the same before the tests (imports, helpers).
      preamble: runs in the candidate's module before `source`.
      cases: each call is one of so many cases, with the limits on time for
        itself; None if all calls share one.
    """
    if not isinstance(functions, Mapping):
      functions = {name: name for name in functions}
    try:
      code = {
        'setup': restricted.compiled(setup, 'setup'),
        'tests': restricted.compiled(tests, 'tests'),
      }
    except ValueError as e:
      return TestResult('error', str(e), 0)
    numpy = 'numpy' in f'{source}{tests}{setup}'
    limits, per_call = self.limits, None
    if cases is not None:
      per_call, cases = limits.cpu_seconds, max(1, cases)
      limits = dataclasses.replace(
        limits,
        wall_seconds=limits.wall_seconds * cases,
        cpu_seconds=limits.cpu_seconds * cases,
      )
    serve = {
      'role': 'serve',
      'source': source,
      'preamble': preamble,
      'cpu_seconds_per_call': per_call,
    }
    judge = {
      'role': 'judge',
      **code,
      'functions': dict(functions),
      'seconds': self.limits.wall_seconds,
    }
    return self._converse(serve, judge, limits, numpy)

  def _converse(
    self,
    serve: dict[str, Any],
    judge: dict[str, Any],
    limits: Limits,
    numpy: bool,
  ) -> TestResult:
    """Runs both sides, joined by pipes, until there is a verdict."""
    deadline = time.monotonic() + limits.wall_seconds
    calls_r, calls_w = os.pipe()
    replies_r, replies_w = os.pipe()
    verdict_r, verdict_w = os.pipe()
    serve['fds'] = (calls_r, replies_w)
    judge |= {'fds': (replies_r, calls_w), 'verdict_fd': verdict_w}
    named_limits = dataclasses.asdict(limits)
    running = []
    try:
      for config, fds in (
        (serve, serve['fds']),
        (judge, (*judge['fds'], verdict_w)),
      ):
        running.append(
          launcher.start(self.backend, config, fds, named_limits, numpy=numpy)
        )
      for fd in (calls_r, calls_w, replies_r, replies_w, verdict_w):
        os.close(fd)
      verdict, _ = self._read(verdict_r, _VERDICT_BYTES, deadline, running)
    finally:
      launcher.stop(running)
      os.close(verdict_r)
    return _result(verdict)

  def run_program(
    self,
    source: str,
    stdin: str,
    *,
    preamble: str = '',
    exit_is_end: bool = False,
  ) -> ProgramResult:
    """Runs `source` as a script that reads `stdin`.

    Args:
      preamble: runs in the script's module before it.
      exit_is_end: `sys.exit` with whatever status counts as 0.
    """
    deadline = time.monotonic() + self.limits.wall_seconds
    output_r, output_w = os.pipe()
    stdin_fd = launcher.sealed(stdin.encode('utf-8', 'surrogatepass'))
    running = []
    try:
      config = {
        'role': 'program',
        'source': source,
        'preamble': preamble,
        'exit_is_end': exit_is_end,
        'stdin_fd': stdin_fd,
        'stdin_file': isolation.STDIN_FILE,
      }
      process = launcher.start(
        self.backend,
        config,
        (stdin_fd,),
        dataclasses.asdict(self.limits),
        numpy='numpy' in source,
        stdout=output_w,
      )
      running.append(process)
      os.close(output_w)
      output, stopped = self._read(
        output_r, self.limits.output_bytes, deadline, running
      )
      text = output.decode('utf-8', 'replace')
      if stopped:
        return ProgramResult(stopped, None, text)
      try:
        code = process.wait(max(0.0, deadline - time.monotonic()))
      except subprocess.TimeoutExpired:
        return ProgramResult('limit', None, text)
      if code < 0 or code >= 128:  # Killed by a signal.
        return ProgramResult('limit', None, text)
      return ProgramResult('exited', code, text)
    finally:
      launcher.stop(running)
      os.close(output_r)
      os.close(stdin_fd)

  def _read(
    self,
    fd: int,
    limit: int,
    deadline: float,
    running: Sequence[subprocess.Popen],
  ) -> tuple[bytes, str]:
    """Reads to the end.

    Returns:
      What came, and what stopped it: '' for the end, 'output' if it was more
      than `limit` bytes, 'limit' for the deadline or too many files.
    """
    data = bytearray()
    next_watch = time.monotonic() + _WATCH_SECONDS
    while (left := deadline - time.monotonic()) > 0:
      ready, _, _ = select.select([fd], [], [], min(left, _WATCH_SECONDS))
      # By the clock: a program that prints all the time is watched as well.
      if time.monotonic() >= next_watch:
        if self._too_many_files(running):
          break
        next_watch = time.monotonic() + _WATCH_SECONDS
      if not ready:
        continue
      chunk = os.read(fd, min(1 << 16, limit + 1 - len(data)))
      if not chunk:
        return bytes(data), ''
      data += chunk
      if len(data) > limit:
        return bytes(data[:limit]), 'output'
    return bytes(data), 'limit'

  def _too_many_files(self, running: Sequence[subprocess.Popen]) -> bool:
    """bwrap cannot limit them: empty files cost only the kernel's memory."""
    return self.backend == 'bubblewrap' and any(
      (launcher.file_count(process.pid) or 0) > self.limits.files
      for process in running
    )


def _result(verdict: bytes) -> TestResult:
  """What the tests' side wrote, checked; anything else is no verdict."""
  try:
    outcome, detail, calls = json.loads(verdict)
  except (ValueError, TypeError, RecursionError):
    outcome = detail = calls = None
  if outcome in _OUTCOMES and type(detail) is str and type(calls) is int:
    return TestResult(outcome, detail, calls)
  return TestResult('limit', 'the tests did not reach a verdict', 0)


def choose_backend(backend: str | None = None) -> str:
  """The backend to use, after its self-test.

  Raises:
    SandboxUnavailable: naming what each backend lacks.
  """
  if backend is not None and backend not in BACKENDS:
    raise ValueError(f'sandbox backend {backend!r}; there are {BACKENDS}.')
  problems = {}
  for name in [backend] if backend else BACKENDS:
    problem = self_test(name)
    if problem is None:
      return name
    problems[name] = problem
  reasons = '; '.join(f'{k}: {v}' for k, v in problems.items())
  raise SandboxUnavailable(
    f'no isolation for model-written code here ({reasons}). It is not run '
    'without: install bubblewrap, or allow user namespaces on a kernel with '
    'Landlock (5.13) and seccomp.'
  )


@functools.cache
def self_test(backend: str) -> str | None:
  """Runs known escapes in the backend; None if all fail, else what is wrong."""
  if not isolation.supported_machine():
    return 'needs Linux on x86_64 or aarch64'
  if backend == 'bubblewrap' and shutil.which('bwrap') is None:
    return 'the program bwrap is not installed'
  if backend == 'namespaces' and isolation.landlock_abi() < 1:
    return 'the kernel has no Landlock'
  sandbox = Sandbox.__new__(Sandbox)
  sandbox.limits, sandbox.backend = Limits(), backend
  result = sandbox.run_program(_ESCAPES, '')
  if result.outcome != 'exited' or result.exit_code != 0:
    return f'an isolated interpreter does not run here ({result.outcome})'
  if result.stdout.strip() != 'isolated':
    return f'not isolated: {result.stdout.strip()[:200]}'
  if backend == 'bubblewrap' and not _files_are_seen(sandbox):
    return 'the number of files in it cannot be read'
  return None


def _files_are_seen(sandbox: Sandbox) -> bool:
  config = {
    'role': 'program',
    'source': 'import time\ntime.sleep(9)',
    'preamble': '',
    'exit_is_end': False,
  }
  process = launcher.start(
    sandbox.backend, config, (), dataclasses.asdict(sandbox.limits)
  )
  try:
    deadline = time.monotonic() + 5
    while (found := launcher.file_count(process.pid)) is None:
      if time.monotonic() > deadline:
        return False
      time.sleep(0.005)
    return found >= 1
  finally:
    launcher.stop([process])


_ESCAPES = """
import os, _socket
def works(escape):
  try:
    escape()
  except (OSError, ValueError):
    return False
  return True
def environment():
  if not os.environ: raise OSError
open('/tmp/own', 'w').close()
open('/dev/null', 'w').close()
escapes = {
  'reads /etc/passwd': lambda: open('/etc/passwd'),
  'reads /proc': lambda: open('/proc/self/environ'),
  'writes to /': lambda: open('/escape', 'w'),
  'writes to the library': lambda: open(os.__file__, 'a'),
  'starts a process': os.fork,
  'runs a program': lambda: os.posix_spawn('/bin/sh', ['sh'], {}),
  'opens a socket': _socket.socket,
  'becomes root': lambda: os.setuid(0) if os.getuid() else None,
  'sees the environment': environment,
}
found = [name for name, escape in escapes.items() if works(escape)]
print(', '.join(found) or 'isolated')
"""
