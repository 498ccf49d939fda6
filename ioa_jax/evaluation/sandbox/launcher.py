"""Starts isolated interpreters: what they see, inherit and run first."""

from __future__ import annotations

from collections.abc import Sequence
import fcntl
import functools
import importlib.util
import marshal
import os
import pathlib
import random
import shutil
import subprocess
import sys
from typing import Any

from ioa_jax.evaluation.sandbox import isolation

_HERE = pathlib.Path(__file__).parent
_SYSTEM_LIBRARIES = (
  '/lib',
  '/lib64',
  '/usr/lib',
  '/usr/lib64',
  '/etc/ld.so.cache',
)
_PACKAGE = 'ioa_jax.evaluation.sandbox'
# Uids that nothing else runs as, above what containers are usually given.
_FIRST_UID, _UID_BITS = 1_100_000_000, 29


def start(
  backend: str,
  config: dict[str, Any],
  fds: Sequence[int],
  limits: dict[str, Any],
  *,
  numpy: bool = False,
  stdout: int = subprocess.DEVNULL,
) -> subprocess.Popen:
  """Starts an isolated interpreter with one of `child`'s roles.

  Args:
    config: the role and what it needs.
    fds: descriptors that the interpreter inherits.
    limits: `executor.Limits` by name.
    numpy: whether it can be imported.
    stdout: of the interpreter; its errors are shown nowhere.
  """
  uid = None
  if os.geteuid() == 0:
    uid = _FIRST_UID + random.SystemRandom().getrandbits(_UID_BITS)
  readable, packages = list(_readable()), None
  if numpy:
    trees, packages = _numpy()
    readable += [tree for tree in trees if tree not in readable]
  spec = {
    'uid': uid,
    'readable': readable,
    'folders': [packages] if packages else [],
    'limits': limits,
  }
  config = {'stdin_fd': None, 'packages': packages, **config}
  modules = ['values', 'exceptions', 'operations', 'handles', 'remote', 'child']
  if config['role'] == 'judge':
    modules.insert(-1, 'facade')
  bubblewrap = backend == 'bubblewrap'
  enter = 'enter_limits' if bubblewrap else 'enter_namespaces'
  code = [(name, _code(name)) for name in modules]
  boot = sealed(
    marshal.dumps((_PACKAGE, _code('isolation'), code, enter, spec, config))
  )
  command = [os.path.realpath(sys._base_executable)]
  command += ['-S', '-s', '-P', '-B', '-X', 'utf8', '-c', _BOOT]
  command.append(process_mark())
  inherited = [boot, *fds]
  if bubblewrap:
    filter_fd = sealed(isolation.seccomp_program(launcher=True))
    inherited.append(filter_fd)
    command = _bubblewrap(spec, filter_fd) + command
  try:
    return subprocess.Popen(
      command,
      stdin=boot,
      stdout=stdout,
      stderr=subprocess.DEVNULL,
      pass_fds=inherited,
      cwd='/',
      # Sets of strings in the same order every time; cleared inside.
      env={'PYTHONHASHSEED': '0'},
    )
  finally:
    for fd in inherited:
      if fd not in fds:
        os.close(fd)


# The first thing an isolated interpreter runs. The code objects come from the
# same interpreter version, so nothing is compiled or looked up there.
_BOOT = """
import marshal, sys
place, isolation, modules, enter, spec, config = marshal.load(sys.stdin.buffer)
names = {'__name__': 'isolation'}
exec(isolation, names)
names[enter](spec)
package = ''
for part in place.split('.'):
  package = f'{package}.{part}'.lstrip('.')
  sys.modules[package] = type(sys)(package)
  sys.modules[package].__path__ = []
for name, code in modules:
  module = sys.modules[f'{place}.{name}'] = type(sys)(f'{place}.{name}')
  exec(code, vars(module))
  setattr(sys.modules[place], name, module)
module.main(config)
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


@functools.cache
def _numpy() -> tuple[tuple[str, ...], str | None]:
  """numpy's trees and the folder to import it from, if it is installed."""
  spec = importlib.util.find_spec('numpy')
  if spec is None or not spec.submodule_search_locations:
    return (), None
  tree = pathlib.Path(os.path.realpath(spec.submodule_search_locations[0]))
  libraries = tree.with_name('numpy.libs')
  trees = [str(t) for t in (tree, libraries) if t.is_dir()]
  return tuple(trees), str(tree.parent)


def _bubblewrap(spec: dict[str, Any], filter_fd: int) -> list[str]:
  command = [
    shutil.which('bwrap') or 'bwrap',
    '--unshare-pid',
    '--unshare-net',
    '--unshare-ipc',
    '--unshare-uts',
    '--unshare-cgroup-try',
    '--die-with-parent',
    '--new-session',
    '--clearenv',
    '--setenv',
    'PYTHONHASHSEED',
    '0',
  ]
  if spec['uid'] is None:
    command += ['--unshare-user', '--cap-drop', 'ALL']
  else:
    # Root keeps just enough to become nobody.
    command += ['--cap-drop', 'ALL', '--cap-add', 'CAP_SETUID']
    command += ['--cap-add', 'CAP_SETGID']
  # First: the interpreter's own trees can lie below it.
  size = str(spec['limits']['tmp_bytes'])
  command += ['--perms', '1777', '--size', size, '--tmpfs', '/tmp']
  # bwrap would make the parents of a private tree (/root) private too.
  parents = {
    str(d) for path in spec['readable'] for d in pathlib.PurePath(path).parents
  }
  for path in sorted(parents - {'/', '/tmp'} | {'/dev'}):
    command += ['--perms', '0755', '--dir', path]
  for path in spec['readable']:
    command += ['--ro-bind', path, path]
  for device in ('/dev/null', '/dev/zero', '/dev/urandom'):
    command += ['--dev-bind', device, device]
  command += ['--symlink', isolation.STDIN_FILE, '/dev/stdin']
  return [
    *command,
    '--remount-ro',
    '/',
    '--chdir',
    '/tmp',
    '--seccomp',
    str(filter_fd),
    '--',
  ]


def sealed(data: bytes) -> int:
  """A file in memory that nobody can change any more, read from its start."""
  fd = os.memfd_create('sandbox', os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
  with open(fd, 'wb', closefd=False) as file:
    file.write(data)
  fcntl.fcntl(
    fd,
    fcntl.F_ADD_SEALS,
    fcntl.F_SEAL_SEAL
    | fcntl.F_SEAL_SHRINK
    | fcntl.F_SEAL_GROW
    | fcntl.F_SEAL_WRITE,
  )
  os.lseek(fd, 0, os.SEEK_SET)
  return fd


def file_count(pid: int) -> int | None:
  """How many files the sandbox has that `pid`, a bwrap, holds.

  None before the interpreter runs in it, and after its end.
  """
  try:
    for _ in range(2):  # bwrap's own first process, then the interpreter.
      children = pathlib.Path(f'/proc/{pid}/task/{pid}/children').read_text()
      pid = int(children.split()[0])
    system = os.statvfs(f'/proc/{pid}/root/tmp')
  except (OSError, IndexError):
    return None
  return system.f_files - system.f_ffree


def stop(processes: Sequence[subprocess.Popen]) -> None:
  for process in processes:
    process.kill()
  for process in processes:
    process.wait()
