"""Runs model-written Python: isolated, bounded, and unable to grade itself.

There is no unisolated mode. The first backend that passes a self-test is used:
`bubblewrap` (the program bwrap), else `namespaces` (unshare with Landlock).
Both give a read-only view of the interpreter and the system libraries, an
empty /tmp in memory, no network, no environment, a seccomp allow list without
processes, and hard limits; the PID namespace takes everything down together.

Tests run in a second sandbox and see nothing of the candidate but plain values
(see `child`). Works as root and as an ordinary user.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
import dataclasses
import fcntl
import functools
import json
import marshal
import os
import pathlib
import random
import select
import shutil
import subprocess
import sys
import time
from typing import Any

from ioa_jax.evaluation.sandbox import child, isolation

BACKENDS = ('bubblewrap', 'namespaces')
_HERE = pathlib.Path(__file__).parent
_SYSTEM_LIBRARIES = (
  '/lib', '/lib64', '/usr/lib', '/usr/lib64', '/etc/ld.so.cache'
)  # fmt: skip
_VERDICT_BYTES = 1 << 16
# Uids that nothing else runs as, above what containers are usually given.
_FIRST_UID, _UID_BITS = 1_100_000_000, 29


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
    threads: at most; processes cannot be started at all.
    output_bytes: standard output of a program.
  """

  wall_seconds: float = 60.0
  cpu_seconds: int = 15
  memory_bytes: int = 1 << 30
  tmp_bytes: int = 32 << 20
  file_bytes: int = 16 << 20
  threads: int = 32
  output_bytes: int = 1 << 20


@dataclasses.dataclass(frozen=True)
class TestResult:
  """Outcome of trusted tests on a candidate.

  Attributes:
    outcome: 'passed', 'assertion', 'error', 'inexpressible' (a value that is
      no literal), 'no_calls' (the tests never asked the candidate), 'limit'.
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
  ) -> TestResult:
    """Runs `tests` in which `functions` are those that `source` defines.

    Args:
      source: the candidate's module.
      tests: trusted Python; passing means reaching its end.
      functions: names in the tests, or names to expressions that the candidate
        evaluates (`{'solve': 'Solution().solve'}`).
      setup: trusted Python before the tests (imports, helpers).
    """
    if not isinstance(functions, Mapping):
      functions = {name: name for name in functions}
    deadline = time.monotonic() + self.limits.wall_seconds
    calls_r, calls_w = os.pipe()
    replies_r, replies_w = os.pipe()
    verdict_r, verdict_w = os.pipe()
    running = []
    try:
      running.append(self._start(
        {'role': 'serve', 'source': source, 'fds': (calls_r, replies_w)},
        (calls_r, replies_w),
      ))  # fmt: skip
      running.append(self._start(
        {'role': 'judge', 'setup': setup, 'tests': tests,
         'functions': dict(functions), 'fds': (replies_r, calls_w),
         'verdict_fd': verdict_w},
        (replies_r, calls_w, verdict_w),
      ))  # fmt: skip
      for fd in (calls_r, calls_w, replies_r, replies_w, verdict_w):
        os.close(fd)
      verdict, _ = _read(verdict_r, _VERDICT_BYTES, deadline)
    finally:
      _stop(running)
      os.close(verdict_r)
    try:
      return TestResult(**child.decode(json.loads(verdict)))
    except (ValueError, TypeError):
      return TestResult('limit', 'the tests did not reach a verdict', 0)

  def run_program(self, source: str, stdin: str) -> ProgramResult:
    """Runs `source` as a script that reads `stdin`."""
    deadline = time.monotonic() + self.limits.wall_seconds
    output_r, output_w = os.pipe()
    stdin_fd = _sealed(stdin.encode('utf-8', 'surrogatepass'))
    running = []
    try:
      process = self._start(
        {'role': 'program', 'source': source, 'stdin_fd': stdin_fd},
        (stdin_fd,), stdout=output_w,
      )  # fmt: skip
      running.append(process)
      os.close(output_w)
      output, whole = _read(output_r, self.limits.output_bytes, deadline)
      text = output.decode('utf-8', 'replace')
      if not whole:
        late = time.monotonic() >= deadline
        return ProgramResult('limit' if late else 'output', None, text)
      try:
        code = process.wait(max(0.0, deadline - time.monotonic()))
      except subprocess.TimeoutExpired:
        return ProgramResult('limit', None, text)
      if code < 0 or code >= 128:  # Killed by a signal.
        return ProgramResult('limit', None, text)
      return ProgramResult('exited', code, text)
    finally:
      _stop(running)
      os.close(output_r)
      os.close(stdin_fd)

  def _start(
    self,
    config: dict[str, Any],
    fds: Sequence[int],
    stdout: int = subprocess.DEVNULL,
  ) -> subprocess.Popen:
    """Starts an isolated interpreter with one of `child`'s roles."""
    uid = None
    if os.geteuid() == 0:
      uid = _FIRST_UID + random.SystemRandom().getrandbits(_UID_BITS)
    spec = {
      'uid': uid,
      'readable': list(_readable()),
      'limits': dataclasses.asdict(self.limits),
    }
    config = {'stdin_fd': None, **config}
    bubblewrap = self.backend == 'bubblewrap'
    boot = _sealed(marshal.dumps(
      (_code('isolation'), _code('child'),
       'enter_limits' if bubblewrap else 'enter_namespaces', spec, config)
    ))  # fmt: skip
    command = [
      os.path.realpath(sys._base_executable), '-S', '-s', '-P', '-B',
      '-X', 'utf8', '-c', _BOOT, process_mark(),
    ]  # fmt: skip
    inherited = [boot, *fds]
    if bubblewrap:
      filter_fd = _sealed(isolation.seccomp_program(launcher=True))
      inherited.append(filter_fd)
      command = _bubblewrap(spec, filter_fd) + command
    try:
      return subprocess.Popen(
        command, stdin=boot, stdout=stdout, stderr=subprocess.DEVNULL,
        pass_fds=inherited, cwd='/',
        # Sets of strings in the same order every time; cleared inside.
        env={'PYTHONHASHSEED': '0'},
      )  # fmt: skip
    finally:
      for fd in inherited:
        if fd not in fds:
          os.close(fd)


# The first thing an isolated interpreter runs. The code objects come from the
# same interpreter version, so nothing is compiled or looked up there.
_BOOT = """
import marshal, sys
isolation, child, enter, spec, config = marshal.load(sys.stdin.buffer)
names = {'__name__': 'isolation'}
exec(isolation, names)
names[enter](spec)
names = {'__name__': 'child'}
exec(child, names)
names['main'](config)
"""


def process_mark() -> str:
  """An argument of every sandboxed process that this process started."""
  return f'ioa_jax-sandbox-of-{os.getpid()}'


@functools.cache
def _code(name: str) -> Any:
  path = _HERE / f'{name}.py'
  return compile(path.read_text(encoding='utf-8'), f'<{name}>', 'exec')


@functools.cache
def _readable() -> tuple[str, ...]:
  """The interpreter's own trees and the system libraries; real paths."""
  executable = os.path.realpath(sys._base_executable)
  trees = [
    os.path.join(prefix, lib)
    for prefix in {sys.base_prefix, sys.base_exec_prefix}
    for lib in ('lib', 'lib64')
  ]
  found = []
  for path in [executable, *trees, *_SYSTEM_LIBRARIES]:
    if os.path.exists(path) and path not in found:
      found.append(path)
  return tuple(found)


def _bubblewrap(spec: dict[str, Any], filter_fd: int) -> list[str]:
  command = [
    shutil.which('bwrap') or 'bwrap', '--unshare-pid', '--unshare-net',
    '--unshare-ipc', '--unshare-uts', '--unshare-cgroup-try',
    '--die-with-parent', '--new-session', '--clearenv',
    '--setenv', 'PYTHONHASHSEED', '0',
  ]  # fmt: skip
  if spec['uid'] is None:
    command += ['--unshare-user', '--cap-drop', 'ALL']
  else:
    # Root keeps just enough to become nobody.
    command += ['--cap-drop', 'ALL', '--cap-add', 'CAP_SETUID']
    command += ['--cap-add', 'CAP_SETGID']
  # bwrap would make the parents of a private tree (/root) private too.
  parents = {str(d) for path in spec['readable']
             for d in pathlib.PurePath(path).parents}  # fmt: skip
  for path in sorted(parents - {'/'} | {'/dev'}):
    command += ['--perms', '0755', '--dir', path]
  for path in spec['readable']:
    command += ['--ro-bind', path, path]
  for device in ('/dev/null', '/dev/zero', '/dev/urandom'):
    command += ['--dev-bind', device, device]
  return [
    *command, '--perms', '1777', '--size', str(spec['limits']['tmp_bytes']),
    '--tmpfs', '/tmp', '--remount-ro', '/', '--chdir', '/tmp',
    '--seccomp', str(filter_fd), '--',
  ]  # fmt: skip


def _sealed(data: bytes) -> int:
  """A file in memory that nobody can change any more, read from its start."""
  fd = os.memfd_create('sandbox', os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
  with open(fd, 'wb', closefd=False) as file:
    file.write(data)
  fcntl.fcntl(fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK
              | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE)  # fmt: skip
  os.lseek(fd, 0, os.SEEK_SET)
  return fd


def _read(fd: int, limit: int, deadline: float) -> tuple[bytes, bool]:
  """Reads to the end, or False with what came before limit or deadline."""
  data = bytearray()
  while (left := deadline - time.monotonic()) > 0:
    if not select.select([fd], [], [], left)[0]:
      break
    chunk = os.read(fd, min(1 << 16, limit + 1 - len(data)))
    if not chunk:
      return bytes(data), True
    data += chunk
    if len(data) > limit:
      break
  return bytes(data[:limit]), False


def _stop(processes: Sequence[subprocess.Popen]) -> None:
  for process in processes:
    process.kill()
  for process in processes:
    process.wait()


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
  return None


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
