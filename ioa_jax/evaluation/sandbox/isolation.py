"""Isolation of the current process: namespaces, Landlock, seccomp, limits.

`enter_namespaces` is for the `namespaces` backend of the sandbox,
`enter_limits` for what bubblewrap leaves to its child. Both run in the process
to be isolated, to which this file is sent: standard library only, and little of
it, because imports are most of the cost of a short program. Constants are the
kernel's, from its uapi headers.
"""

import os
import resource
import select
import struct

# What computing in CPython needs; everything else fails with EPERM. Absent on
# purpose: sockets, fork, exec, kill, ptrace, mounts, namespaces, memfd and SysV
# memory (not counted by RLIMIT_AS), io_uring, bpf, keys. Numbers: x86_64 and
# aarch64 (None where the architecture never had the call).
_SYSCALLS = {
  'read': (0, 63),
  'write': (1, 64),
  'open': (2, None),
  'close': (3, 57),
  'stat': (4, None),
  'fstat': (5, 80),
  'lstat': (6, None),
  'poll': (7, None),
  'lseek': (8, 62),
  'mmap': (9, 222),
  'mprotect': (10, 226),
  'munmap': (11, 215),
  'brk': (12, 214),
  'rt_sigaction': (13, 134),
  'rt_sigprocmask': (14, 135),
  'rt_sigreturn': (15, 139),
  'ioctl': (16, 29),
  'pread64': (17, 67),
  'pwrite64': (18, 68),
  'readv': (19, 65),
  'writev': (20, 66),
  'access': (21, None),
  'pipe': (22, None),
  'select': (23, None),
  'sched_yield': (24, 124),
  'mremap': (25, 216),
  'msync': (26, 227),
  'mincore': (27, 232),
  'madvise': (28, 233),
  'dup': (32, 23),
  'dup2': (33, None),
  'pause': (34, None),
  'nanosleep': (35, 101),
  'getitimer': (36, 102),
  'alarm': (37, None),
  'setitimer': (38, 103),
  'getpid': (39, 172),
  'exit': (60, 93),
  'wait4': (61, 260),
  'uname': (63, 160),
  'fcntl': (72, 25),
  'flock': (73, 32),
  'fsync': (74, 82),
  'fdatasync': (75, 83),
  'truncate': (76, 45),
  'ftruncate': (77, 46),
  'getdents': (78, None),
  'getcwd': (79, 17),
  'chdir': (80, 49),
  'rename': (82, None),
  'mkdir': (83, None),
  'rmdir': (84, None),
  'unlink': (87, None),
  'readlink': (89, None),
  'chmod': (90, None),
  'fchmod': (91, 52),
  'umask': (95, 166),
  'gettimeofday': (96, 169),
  'getrlimit': (97, 163),
  'getrusage': (98, 165),
  'sysinfo': (99, 179),
  'times': (100, 153),
  'getuid': (102, 174),
  'getgid': (104, 176),
  'geteuid': (107, 175),
  'getegid': (108, 177),
  'getppid': (110, 173),
  'getpgrp': (111, None),
  'getgroups': (115, 158),
  'getpgid': (121, 155),
  'getsid': (124, 156),
  'sigaltstack': (131, 132),
  'statfs': (137, 43),
  'fstatfs': (138, 44),
  'arch_prctl': (158, None),
  'gettid': (186, 178),
  'time': (201, None),
  'futex': (202, 98),
  'sched_getaffinity': (204, 123),
  'getdents64': (217, 61),
  'set_tid_address': (218, 96),
  'restart_syscall': (219, 128),
  'fadvise64': (221, 223),
  'clock_gettime': (228, 113),
  'clock_getres': (229, 114),
  'clock_nanosleep': (230, 115),
  'exit_group': (231, 94),
  'epoll_wait': (232, None),
  'epoll_ctl': (233, 21),
  'tgkill': (234, 131),
  'openat': (257, 56),
  'mkdirat': (258, 34),
  'newfstatat': (262, 79),
  'unlinkat': (263, 35),
  'renameat': (264, 38),
  'readlinkat': (267, 78),
  'fchmodat': (268, 53),
  'faccessat': (269, 48),
  'pselect6': (270, 72),
  'ppoll': (271, 73),
  'set_robust_list': (273, 99),
  'utimensat': (280, 88),
  'epoll_pwait': (281, 22),
  'eventfd2': (290, 19),
  'epoll_create1': (291, 20),
  'dup3': (292, 24),
  'pipe2': (293, 59),
  'preadv': (295, 69),
  'pwritev': (296, 70),
  'prlimit64': (302, 261),
  'getcpu': (309, 168),
  'renameat2': (316, 276),
  'getrandom': (318, 278),
  'membarrier': (324, 283),
  'statx': (332, 291),
  'rseq': (334, 293),
  'close_range': (436, 436),
  'faccessat2': (439, 439),
}
# What a launcher still does after the filter is in place: start the
# interpreter, leave uid 0. Without fork, and with no uid to return to, neither
# gives the candidate anything.
_LAUNCH_SYSCALLS = {
  'execve': (59, 221),
  'setuid': (105, 146),
  'setgid': (106, 144),
  'setgroups': (116, 159),
  'setresuid': (117, 147),
  'setresgid': (119, 149),
}
_CLONE, _CLONE3 = (56, 220), (435, 435)
_MACHINES = {'x86_64': (0, 0xC000003E), 'aarch64': (1, 0xC00000B7)}

_ALLOW, _KILL, _ERRNO = 0x7FFF0000, 0x80000000, 0x00050000
_EPERM, _ENOSYS = 1, 38
_LOAD, _JEQ, _JSET, _RET = 0x20, 0x15, 0x45, 0x06
_CLONE_THREAD = 0x00010000

_NEW = {
  'mount': 0x00020000,
  'uts': 0x04000000,
  'ipc': 0x08000000,
  'user': 0x10000000,
  'pid': 0x20000000,
  'net': 0x40000000,
}
_MS_RDONLY, _MS_NOSUID, _MS_NODEV, _MS_REMOUNT = 1, 2, 4, 32
_MS_BIND, _MS_REC, _MS_PRIVATE = 4096, 16384, 1 << 18
_MNT_DETACH = 2
_PR_SET_PDEATHSIG, _PR_SET_SECCOMP, _PR_SET_NO_NEW_PRIVS = 1, 22, 38
_SIGKILL = 9
_LANDLOCK = {'create': 444, 'add_rule': 445, 'restrict_self': 446}
# File rights by ABI: 13 since ABI 1, then REFER, TRUNCATE, IOCTL_DEV.
_FS_RIGHTS = {1: 13, 2: 14, 3: 15, 4: 15}
_FS_READ = 0b1101  # EXECUTE, READ_FILE, READ_DIR.
_FS_READ_FILE, _FS_WRITE_FILE, _FS_READ_DIR = 4, 2, 8
# Where /dev/stdin leads: there is no /proc, which it needs elsewhere.
STDIN_FILE = '/tmp/.stdin'


def supported_machine() -> bool:
  return (u := os.uname()).sysname == 'Linux' and u.machine in _MACHINES


def seccomp_program(*, launcher: bool) -> bytes:
  """The filter as BPF: an allow list, threads but no processes.

  Args:
    launcher: also allow what a launcher needs to start the interpreter.
  """
  column, arch = _MACHINES[os.uname().machine]
  calls = {**_SYSCALLS, **(_LAUNCH_SYSCALLS if launcher else {})}

  def op(code: int, k: int, true: int = 0, false: int = 0) -> bytes:
    return struct.pack('HBBI', code, true, false, k)

  program = [
    op(_LOAD, 4),  # seccomp_data.arch: other ABIs number calls differently.
    op(_JEQ, arch, true=1),
    op(_RET, _KILL),
    op(_LOAD, 0),  # seccomp_data.nr
    # glibc falls back from clone3, whose flags are behind a pointer, to clone.
    op(_JEQ, _CLONE3[column], false=1),
    op(_RET, _ERRNO | _ENOSYS),
    op(_JEQ, _CLONE[column], false=4),
    op(_LOAD, 16),  # The low word of the first argument, the flags.
    op(_JSET, _CLONE_THREAD, true=1),
    op(_RET, _ERRNO | _EPERM),
    op(_RET, _ALLOW),
  ]
  for numbers in calls.values():
    if numbers[column] is not None:
      program += [op(_JEQ, numbers[column], false=1), op(_RET, _ALLOW)]
  return b''.join([*program, op(_RET, _ERRNO | _EPERM)])


def _libc():
  import ctypes  # Costs as much as the interpreter; bubblewrap needs none.

  return ctypes.CDLL(None, use_errno=True)


def _check(result: int, what: str) -> int:
  if result < 0:
    import ctypes

    code = ctypes.get_errno()
    raise OSError(code, f'{what}: {os.strerror(code)}')
  return result


def install_seccomp() -> None:
  """Filters this process from here on; cannot be undone."""
  import ctypes

  libc, program = _libc(), seccomp_program(launcher=False)
  buffer = ctypes.create_string_buffer(program, len(program))

  class Program(ctypes.Structure):
    _fields_ = (('len', ctypes.c_ushort), ('filter', ctypes.c_void_p))

  _check(libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), 'no_new_privs')
  filter_ = Program(len(program) // 8, ctypes.addressof(buffer))
  _check(libc.prctl(_PR_SET_SECCOMP, 2, ctypes.byref(filter_), 0, 0), 'seccomp')


def landlock_abi() -> int:
  """The kernel's Landlock version, 0 if it has none."""
  return max(0, _libc().syscall(_LANDLOCK['create'], None, 0, 1))


def install_landlock(readable: list[str], writable: list[str]) -> None:
  """Denies every file outside the given trees, and TCP; cannot be undone."""
  from ctypes import c_size_t

  libc, abi = _libc(), landlock_abi()
  if abi < 1:
    raise OSError(_ENOSYS, 'this kernel has no Landlock')
  rights = (1 << _FS_RIGHTS.get(abi, 16)) - 1
  # handled_access_fs, handled_access_net (bind, connect), scoped (abstract
  # sockets, signals); older kernels take a shorter structure.
  attributes = struct.pack('QQQ', rights, 3, 3)
  size = 8 if abi < 4 else 16 if abi < 6 else 24
  ruleset = _check(
    libc.syscall(_LANDLOCK['create'], attributes, c_size_t(size), 0),
    'landlock_create_ruleset',
  )
  for path, allowed in [
    *((p, _FS_READ) for p in readable),
    *((p, rights) for p in writable),
  ]:
    if not os.path.isdir(path):
      allowed &= _FS_READ_FILE | _FS_WRITE_FILE | 1
    target = os.open(path, os.O_PATH | os.O_CLOEXEC)
    rule = struct.pack('=Qi', allowed, target)
    _check(
      libc.syscall(_LANDLOCK['add_rule'], ruleset, 1, rule, 0), f'rule {path}'
    )
    os.close(target)
  _check(libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), 'no_new_privs')
  _check(libc.syscall(_LANDLOCK['restrict_self'], ruleset, 0), 'landlock')
  os.close(ruleset)


def set_limits(limits: dict) -> None:
  """Resource limits of the sandbox, hard ones."""
  for name, value in (
    ('RLIMIT_AS', limits['memory_bytes']),
    ('RLIMIT_FSIZE', limits['file_bytes']),
    ('RLIMIT_NPROC', limits['threads']),
    ('RLIMIT_NOFILE', 64),
    ('RLIMIT_CORE', 0),
    ('RLIMIT_MEMLOCK', 0),
    ('RLIMIT_MSGQUEUE', 0),
  ):
    resource.setrlimit(getattr(resource, name), (value, value))
  # The stack is counted by RLIMIT_AS too; programs that recurse deeply raise
  # Python's limit and would die in 8 MiB.
  _, hard = resource.getrlimit(resource.RLIMIT_STACK)
  want = 64 << 20
  soft = want if hard == resource.RLIM_INFINITY else min(want, hard)
  resource.setrlimit(resource.RLIMIT_STACK, (soft, soft))
  cpu = limits['cpu_seconds']
  resource.setrlimit(resource.RLIMIT_CPU, (cpu, cpu + 1))


def leave_root(uid: int | None) -> None:
  """Becomes an unprivileged user that nothing else runs as.

  RLIMIT_NPROC does not bind root; with a uid of its own the sandbox's threads
  are counted apart from everyone else's.
  """
  if uid is not None:
    os.setgroups([])
    os.setresgid(uid, uid, uid)
    os.setresuid(uid, uid, uid)


def enter_limits(spec: dict) -> None:
  """The part of isolation that bubblewrap's child does for itself."""
  leave_root(spec['uid'])
  set_limits(spec['limits'])


def enter_namespaces(spec: dict) -> None:
  """Moves into new namespaces; returns only in the isolated process.

  This process stays outside and exits with the status of the isolated one,
  which is the child of the new PID namespace's first process: when that one
  ends, the kernel kills everything in the namespace.
  """
  libc = _libc()
  libc.prctl(_PR_SET_PDEATHSIG, _SIGKILL, 0, 0, 0)
  user, group = os.getuid(), os.getgid()
  flags = sum(v for k, v in _NEW.items() if k != 'user')
  if user != 0 or libc.unshare(flags) < 0:
    _check(libc.unshare(flags | _NEW['user']), 'unshare')
    _write('/proc/self/setgroups', 'deny')
    _write('/proc/self/uid_map', f'{user} {user} 1')
    _write('/proc/self/gid_map', f'{group} {group} 1')
    spec = {**spec, 'uid': None}  # Only one uid is mapped.
  alive, hold = os.pipe()
  first = os.fork()
  if first:
    _exit_like(first)
  os.close(hold)
  os.setsid()
  _new_root(libc, spec)
  leave_root(spec['uid'])
  _drop_capabilities(libc)
  # Only now: a change of the user id clears it.
  libc.prctl(_PR_SET_PDEATHSIG, _SIGKILL, 0, 0, 0)
  if select.select([alive], [], [], 0)[0]:
    os._exit(1)  # The parent was gone before it could take us along.
  os.close(alive)
  install_landlock(
    [*spec['readable'], *spec['folders'], '/dev'], ['/tmp', '/dev/null']
  )
  child = os.fork()
  if child:
    _close_all()
    _exit_like(child)
  set_limits(spec['limits'])
  install_seccomp()


def _write(path: str, text: str) -> None:
  with open(path, 'w') as file:
    file.write(text)


def _exit_like(child: int) -> None:
  """Waits for a child (and reaps orphans), then ends as it did."""
  while True:
    pid, status = os.wait()
    if pid == child:
      code = os.waitstatus_to_exitcode(status)
      os._exit(code if code >= 0 else 128 - code)


def _close_all() -> None:
  """Lets readers at the other end of inherited pipes see the child's end."""
  os.closerange(0, 1024)


def _new_root(libc, spec: dict) -> None:
  """A root that holds the interpreter, read-only, and an empty /tmp."""

  def mount(source, target, kind, flags, options=None):
    encoded = (
      None if s is None else os.fsencode(s) for s in (source, target, kind)
    )
    data = None if options is None else options.encode()
    _check(libc.mount(*encoded, flags, data), f'mount {target}')

  mount(None, '/', None, _MS_REC | _MS_PRIVATE)
  mount('tmpfs', '/tmp', 'tmpfs', _MS_NOSUID | _MS_NODEV, 'size=1m,mode=755')
  os.chdir('/tmp')
  os.mkdir('old')
  _check(libc.pivot_root(b'.', b'old'), 'pivot_root')
  os.chdir('/')
  # First: the interpreter's own trees can lie below it.
  os.mkdir('/tmp')
  size = spec['limits']['tmp_bytes']
  mount(
    'tmpfs',
    '/tmp',
    'tmpfs',
    _MS_NOSUID | _MS_NODEV,
    f'size={size},nr_inodes={spec["limits"]["files"]},mode=1777',
  )
  for path in [*spec['readable'], '/dev/null', '/dev/urandom', '/dev/zero']:
    source, device = '/old' + path, path.startswith('/dev/')
    if os.path.isdir(source):
      os.makedirs(path, exist_ok=True)
    else:
      os.makedirs(os.path.dirname(path), exist_ok=True)
      os.close(os.open(path, os.O_CREAT | os.O_WRONLY))
    mount(source, path, None, _MS_BIND | _MS_REC)
    if not device:
      # A namespace may not clear flags that the outer mount has.
      inherited = os.statvfs(path).f_flag & (_MS_NOSUID | _MS_NODEV | 8 | 1024)
      mount(
        None,
        path,
        None,
        _MS_BIND | _MS_REMOUNT | _MS_RDONLY | _MS_NOSUID | inherited,
      )
  os.symlink(STDIN_FILE, '/dev/stdin')
  _check(libc.umount2(b'/old', _MNT_DETACH), 'umount /old')
  os.rmdir('/old')
  mount(
    None,
    '/',
    None,
    _MS_REMOUNT | _MS_RDONLY | _MS_NOSUID | _MS_NODEV | _MS_BIND,
  )
  os.chdir('/tmp')


def _drop_capabilities(libc) -> None:
  """Empties all sets; the first process of a user namespace has every one."""
  header = struct.pack('Ii', 0x20080522, 0)
  _check(libc.capset(header, bytes(24)), 'capset')
