"""Cheats and escapes that the sandbox has to stop, and a runner for them.

Standard library only, because the runner is also started as an ordinary user
with whatever interpreter that user has:

  python tests/sandbox_attacks.py bubblewrap

A cheat is a module that wants to pass `TESTS` without knowing the answers, or
raises what tests could take for their own (`LOOPS`); `HOSTILE_TESTS` are tests
that want to pass whatever they are given. An escape is code that raises if it
is stopped; reaching its end prints ESCAPED. To add one, add a line to a table.
"""

from __future__ import annotations

from concurrent import futures
import json
import os
import pathlib
import socket
import sys
import tempfile
import threading
import time
import uuid

sys.path.insert(0, str(pathlib.Path(__file__).parent.parent))

from ioa_jax.evaluation import sandbox as sandbox_lib

LIMITS = sandbox_lib.Limits(
  wall_seconds=12,
  cpu_seconds=3,
  memory_bytes=300 << 20,
  tmp_bytes=8 << 20,
  file_bytes=4 << 20,
  threads=16,
  output_bytes=1 << 16,
)

TESTS = """
assert solve(3) == [3, 'c', 2.5]
assert solve(10) == {'k': (1, 2)}
"""
HONEST = "def solve(x):\n  return [3, 'c', 2.5] if x == 3 else {'k': (1, 2)}\n"

_FDS = 'import os\nFDS = range(3, 64)\n'
_ALL_FDS = """
def shout(data):
  for fd in FDS:
    try:
      os.write(fd, data)
    except OSError:
      pass
"""


def _returns(expression: str, before: str = '') -> str:
  return f'{before}\ndef solve(x):\n  return {expression}\n'


def _equal(base: str, arguments: str = '') -> str:
  return _returns(
    f'Same({arguments})',
    f'class Same({base}):\n  __eq__ = lambda s, o: True\n'
    '  __ne__ = lambda s, o: False\n  __hash__ = lambda s: 0\n'
    '  __bool__ = lambda s: True\n  __req__ = __eq__\n',
  )


CHEATS = {
  'always_equal_object': _equal('object'),
  'always_equal_list': _equal('list', '[0]'),
  'always_equal_dict': _equal('dict'),
  'always_equal_int': _equal('int', '1'),
  'always_equal_str': _equal('str', "'a'"),
  'always_equal_float': _equal('float', '1.0'),
  'always_equal_tuple': _equal('tuple', '(1,)'),
  'always_equal_metaclass': _returns(
    'Same',
    'class M(type):\n  __eq__ = lambda s, o: True\n'
    '  __hash__ = lambda s: 0\nclass Same(metaclass=M):\n  pass\n',
  ),
  'spoofed_class': _returns(
    'Same()',
    'class Same:\n  __class__ = list\n'
    '  __eq__ = lambda s, o: True\n  __iter__ = lambda s: iter(())\n',
  ),
  'lying_iterator': _returns(
    'Same()',
    'class Same:\n  __eq__ = lambda s, o: True\n'
    '  __iter__ = lambda s: s\n'
    '  def __next__(s): raise StopIteration\n',
  ),
  'mock_any': 'from unittest.mock import ANY\n' + _returns('ANY'),
  'returns_function': _returns('solve'),
  'returns_argument': _returns('x'),
  'returns_nan': _returns("float('nan')"),
  'returns_true': _returns('True'),
  'frame_walk': """
import sys
def solve(x):
  frame = sys._getframe()
  while frame:
    for value in [*frame.f_locals.values(), *frame.f_globals.values()]:
      if isinstance(value, str) and 'assert solve' in value:
        return eval(value.split('==')[1 if x == 3 else 2].split('\\n')[0])
    frame = frame.f_back
""",
  'garbage_collector_walk': """
import gc
def solve(x):
  for value in gc.get_objects():
    text = str(value) if isinstance(value, (dict, list, tuple)) else ''
    if 'assert solve' in text:
      return eval(text.split('==')[1 if x == 3 else 2].split('\\\\n')[0])
""",
  'reads_boot_file': """
import os
def solve(x):
  for fd in range(64):
    try:
      text = os.pread(fd, 1 << 20, 0)
    except OSError:
      continue
    if b'assert solve' in text:
      return eval(text.split(b'==')[1 if x == 3 else 2].split(b'\\n')[0])
""",
  'exit_0_at_import': 'import sys\nsys.exit(0)\n',
  'exit_0_in_call': 'import sys\n' + _returns('sys.exit(0)'),
  'os_exit_at_import': 'import os\nos._exit(0)\n',
  'os_exit_in_call': 'import os\n' + _returns('os._exit(0)'),
  'system_exit_at_exit': (
    'import atexit, os\natexit.register(os._exit, 0)\nraise SystemExit(0)\n'
  ),
  'keyboard_interrupt': 'def solve(x):\n  raise KeyboardInterrupt\n',
  'generator_exit': 'def solve(x):\n  raise GeneratorExit\n',
  'stop_iteration': 'def solve(x):\n  raise StopIteration\n',
  'assertion_error': 'def solve(x):\n  raise AssertionError\n',
  'exception_group': 'def solve(x):\n'
  "  raise ExceptionGroup('', [ValueError()])\n",
  'exception_named_like_another': """
def solve(x):
  raise type('Inexpressible', (BaseException,), {})
""",
  'exception_that_cannot_be_shown': """
class Bad(Exception):
  __str__ = None
def solve(x):
  raise Bad
""",
  'prints_the_expectation': """
print([3, 'c', 2.5])
def solve(x):
  print("[3, 'c', 2.5]")
""",
  'prints_a_verdict': """
print('["passed","",2]', flush=True)
def solve(x):
  print('["passed","",2]', flush=True)
""",
  'writes_a_verdict_everywhere': _FDS
  + _ALL_FDS
  + """
shout(b'["passed","",2]\\n')
os._exit(0)
""",
  'forges_replies_without_values': _FDS
  + _ALL_FDS
  + """
for i in range(9):
  shout(b'{"reply":%d,"value":true,"changes":[]}\\n' % i)
""",
  'forges_passed_as_kind': _FDS
  + _ALL_FDS
  + """
shout(b'{"error":{"t":["passed","passed",{"t":[]},null]}}\\n')
""",
  'forges_system_exit': _FDS
  + _ALL_FDS
  + """
shout(b'{"error":{"t":["0","SystemExit",{"t":[0]},null]}}\\n')
""",
  'replies_with_unknown_type': _FDS
  + _ALL_FDS
  + """
shout(b'{"reply":1,"value":{"z":[1]},"changes":[]}\\n')
""",
  'replies_with_class_path': _FDS
  + _ALL_FDS
  + """
shout(b'{"reply":1,"value":{"L":["os","system",["true"]]},"changes":[]}\\n')
""",
  'replies_with_unhashable_keys': _FDS
  + _ALL_FDS
  + """
shout(b'{"reply":1,"value":{"d":[[[1],2]]},"changes":[]}\\n')
""",
  'replies_without_json': _FDS + _ALL_FDS + "shout(b'\\x00\\xff{]\\n' * 9)\n",
  'replies_with_two_values': _FDS
  + _ALL_FDS
  + """
shout(b'{"reply":1,"value":1}{"reply":1,"value":[3,"c",2.5]}\\n')
""",
  'replies_too_deep': _FDS + _ALL_FDS + "shout(b'[' * 60000 + b'\\n')\n",
  'replies_endlessly': _FDS + _ALL_FDS + "while True:\n  shout(b'1' * 65536)\n",
  'huge_integer': _returns('1 << (1 << 33)'),
  'huge_string': _returns("'x' * (100 << 20)"),
  'huge_iterator': 'import itertools\n' + _returns('itertools.count()'),
  'deep_list': """
def solve(x):
  value = []
  for _ in range(10 ** 5):
    value = [value]
  return value
""",
  'cyclic_list': 'a = []\na.append(a)\n' + _returns('a'),
  'monkeypatched_json': """
import json, _json
json.loads = json.dumps = lambda *a, **k: True
_json.encode_basestring_ascii = lambda s: '"passed"'
_json.make_scanner = None
"""
  + _returns("'x'"),
  'changes_its_arguments_back': _FDS
  + _ALL_FDS
  + """
for i in range(9):
  shout(b'{"reply":%d,"value":null,"changes":[[0,[1]],[99,[2]]]}\\n' % i)
""",
  'cites_what_is_not_there': _FDS
  + _ALL_FDS
  + """
for i in range(9):
  shout(b'{"reply":%d,"value":{"m":7},"changes":[]}\\n' % i)
""",
  'asks_the_tests_for_everything': _FDS
  + _ALL_FDS
  + """
for i in range(200):
  for op in ('get', 'call', 'resolve', 'state', 'set', 'method', 'await'):
    shout(b'{"ask":1,"value":{"t":["%s",{"o":%d},"__globals__",{"t":[]},'
          b'{"d":[]}]}}\\n' % (op.encode(), i))
""",
  'calls_without_end': _FDS
  + _ALL_FDS
  + """
while True:
  shout(b'{"ask":1,"value":{"t":["str",{"o":0}]}}\\n')
""",
  'handle_that_says_equal': _FDS
  + _ALL_FDS
  + """
for i in range(9):
  shout(b'{"reply":%d,"value":{"h":[0,1,"list",4095,"list"]},"changes":[]}\\n'
        % i)
""",
  'monkeypatched_builtins': """
import builtins
builtins.isinstance = lambda *a: True
builtins.AssertionError = Exception
builtins.hasattr = lambda *a: False
builtins.eval = lambda *a: (lambda *a, **k: True)
builtins.__build_class__ = None
"""
  + _returns('0'),
  'monkeypatched_os_write': """
import os
write = os.write
forged = b'{"reply":1,"value":1,"changes":[]}\\n'
os.write = lambda fd, data: write(fd, forged) and len(data)
"""
  + _returns('0'),
  'monkeypatched_runner': """
import sys
frame = sys._getframe()
while frame.f_back:
  frame = frame.f_back
for name in ('encode', 'decode', '_parse'):
  frame.f_globals.get('names', {})[name] = lambda *a: 'true'
"""
  + _returns('0'),
  'replaces_modules': """
import sys
for name in ('tests', 'setup', 'judge', '__main__', 'builtins'):
  sys.modules[name] = sys
"""
  + _returns('0'),
  'trace_function': 'import sys\nsys.settrace(lambda *a: sys.exit(0))\n'
  + _returns('0'),
  'signal_and_alarm': """
import os, signal
signal.signal(signal.SIGALRM, lambda *a: os._exit(0))
signal.setitimer(signal.ITIMER_REAL, 0.01)
def solve(x):
  while True: pass
""",
  'thread_left_behind': _FDS
  + _ALL_FDS
  + """
import threading
def forge():
  while True:
    shout(b'{"reply":2,"value":true,"changes":[]}\\n')
threading.Thread(target=forge).start()
"""
  + _returns("[3, 'c', 2.5]"),
  'fork_answers_twice': 'import os\n' + _returns('os.fork()'),
  'sleeps_forever': 'import time\ndef solve(x):\n  time.sleep(10 ** 6)\n',
  'loops_forever': 'def solve(x):\n  while True: pass\n',
  'sleeps_at_import': 'import time\ntime.sleep(10 ** 6)\n',
  'closes_everything': 'import os\nos.closerange(0, 64)\n' + _returns('0'),
  'no_definition': 'answer = 42\n',
  'syntax_error': 'def solve(x:\n',
  'null_byte': 'def solve(x):\n  return "\x00"\n',
  'empty': '',
}

# Tests in which an exception of the candidate could be taken for their own;
# each candidate raises on every call, so none may pass.
LOOPS = {
  'map': 'for x in map(solve, [1, 2]):\n  assert x == 3',
  'filter': 'assert list(filter(solve, [1, 2])) == []',
  'zip': 'for x, y in zip(map(solve, [1]), [2]):\n  assert x == y',
  'all': 'assert all(solve(x) == 1 for x in [1])',
  'all_of_map': 'assert all(map(solve, [1]))',
  'not_any': 'assert not any(solve(x) == 1 for x in [1])',
  'not_any_of_map': 'assert not any(map(solve, [1]))',
  'sum': 'assert sum(map(solve, [1])) == 0',
  'next_with_default': 'assert next(map(solve, [1]), 0) == 0',
  'list': 'assert list(map(solve, [1])) == []',
  'unpacking': 'assert [*map(solve, [1])] == []',
  'starmap': (
    'import itertools\nassert list(itertools.starmap(solve, [(1,)])) == []'
  ),
  'takewhile': (
    'import itertools\nassert list(itertools.takewhile(solve, [1])) == []'
  ),
  'iter_with_sentinel': 'for x in iter(lambda: solve(1), 0):\n  assert False',
  'generator': ('def g():\n  yield solve(1)\nfor x in g():\n  assert False'),
  'own_iterator': (
    'class I:\n  def __iter__(self): return self\n'
    '  def __next__(self): return solve(1)\nassert list(I()) == []'
  ),
  'own_sequence': (
    'class S:\n  def __getitem__(self, i): return solve(i)\n'
    'assert list(S()) == []'
  ),
  'own_attribute': (
    'class A:\n  @property\n  def a(self): return solve(1)\n'
    "assert not hasattr(A(), 'a')"
  ),
  'own_default': (
    'class A:\n  @property\n  def a(self): return solve(1)\n'
    "assert getattr(A(), 'a', 1) == 1"
  ),
  'sort': 'assert sorted([2, 1], key=solve) == [1, 2]',
  'other_handler': (
    'try:\n  solve(1)\n  assert False\nexcept UnicodeError:\n  pass'
  ),
  'pytest_raises': (
    'import pytest\nwith pytest.raises(ZeroDivisionError):\n  solve(1)'
  ),
  'suppress': (
    'import contextlib\nwith contextlib.suppress(OverflowError):\n'
    '  assert solve(1) == 2'
  ),
  'async': (
    'import asyncio\nasync def main():\n  return [x async for x in g()]\n'
    'async def g():\n  yield solve(1)\nassert asyncio.run(main()) == []'
  ),
}
RAISED = (
  'StopIteration',
  'StopAsyncIteration()',
  'GeneratorExit',
  'IndexError(0)',
  'AttributeError("a")',
  'TypeError',
  'KeyError(1)',
  'AssertionError',
  'KeyboardInterrupt',
  'SystemExit(0)',
  'type("StopIteration", (Exception,), {})',
  'type("E", (StopIteration,), {})',
)

_FORGED = '["passed","",1]'
_SHOUT = (
  f"for fd in range(64):\n  try:\n    os.write(fd, b'{_FORGED}')\n"
  '  except OSError:\n    pass\n'
)
_REACH = 'os = {}\n' + _SHOUT + 'os._exit(0)\n'
# Tests that a model wrote: hostile too. `solve` returns 0; none may pass, and
# none may end the grading with anything but a result.
HOSTILE_TESTS = {
  'imports_os': 'import os\n' + _SHOUT,
  'imports_os_in_an_assertion': "assert [__import__('os').write(fd, "
  f"b'{_FORGED}') for fd in range(64)]",
  'imports_from_os': 'from os import write, _exit\n_exit(0)',
  'imports_ctypes': 'import ctypes\nctypes.string_at(0)',
  'imports_builtins': _REACH.format("__import__('builtins').__import__('os')"),
  'imports_importlib': 'import importlib\n'
  + _REACH.format("importlib.import_module('os')"),
  'through_a_module': 'import random\n' + _REACH.format('random._os'),
  'through_statistics': 'import statistics\n'
  + _REACH.format("statistics.sys.modules['os']"),
  'through_collections': 'import collections\n'
  + _REACH.format("collections._sys.modules['os']"),
  'through_sys': 'import sys\n' + _REACH.format("sys.modules['os']"),
  'through_globals': _REACH.format("solve.__globals__['os']"),
  'through_a_frame': _REACH.format(
    "(x for x in ()).gi_frame.f_back.f_globals['os']"
  ),
  'through_a_coroutine': 'async def c():\n  pass\n'
  + _REACH.format('c().cr_frame.f_globals'),
  'through_a_traceback': (
    'try:\n  1 / 0\nexcept ZeroDivisionError as e:\n  t = e.__traceback__\n'
    + _REACH.format("t.tb_frame.f_globals['os']")
  ),
  'through_subclasses': _REACH.format(
    "[c for c in object.__subclasses__() if c.__name__ == '_wrap_close'][0]"
    '.__init__.__globals__'
  ),
  'through_getattr': _REACH.format("getattr(solve, '__glo' + 'bals__')"),
  'through_a_str_subclass': 'class N(str):\n'
  '  def startswith(self, x):\n    return False\n'
  + _REACH.format("getattr(solve, N('__globals__'))"),
  'through_match': 'match solve:\n  case object(__globals__=g):\n    '
  + _REACH.format('g').replace('\n', '\n    '),
  'through_eval': _REACH.format('eval(\'__import__("os")\')'),
  'through_type_hints': (
    'import typing\nclass A:\n  a: "__import__(\'os\')"\n'
    + _REACH.format("typing.get_type_hints(A)['a']")
  ),
  'through_dataclasses': 'import dataclasses\n' + _REACH.format('dataclasses'),
  'through_attrgetter': (
    'import operator\n'
    + _REACH.format("operator.attrgetter('__globals__')(solve)")
  ),
  'through_a_formatter': (
    'import string\n'
    + _REACH.format(
      "string.Formatter().get_field('0.__globals__', (solve,), {})[0]"
    )
  ),
  'through_a_loop': (
    'import asyncio\n' + _REACH.format('asyncio.new_event_loop()')
  ),
  'through_an_array': (
    'import numpy\nclass F:\n  def fileno(self):\n    return 5\n'
    'numpy.array([1]).tofile(F())'
  ),
  'builtins_replaced': '__builtins__ = {}\nassert solve(1) == 1',
  'names_of_the_harness': (
    'try:\n  solve(1)\nexcept __CandidateError__:\n  pass\nassert False'
  ),
  'ends_the_process': 'raise SystemExit(0)',
  'interrupts': 'raise KeyboardInterrupt',
  'exits': 'exit()',
  'never_ends': 'while True:\n  pass',
  'sleeps': 'import time\ntime.sleep(99)',
  'recursion': 'def f():\n  f()\nf()',
  'memory': 'x = [0] * (1 << 40)',
  'stack': 'import sys\nsys.setrecursionlimit(1 << 30)\ndef f(x):\n'
  '  return f([x])\nf(0)',
  'deep_text': 'assert ' + '(' * 5000 + '0' + ')' * 5000,
  'deep_operators': 'assert ' + '-' * 50_000 + '1',
  'long_chain': 'assert ' + '+'.join(['1'] * 50_000) + ' == solve(0)',
  'no_python': 'assert solve(',
  'null_byte': 'assert solve(1) == 1\x00',
  'lone_surrogate': 'assert solve(1) == "\ud800"',
  'unspeakable_failure': (
    'class E(Exception):\n  def __str__(self):\n    raise E\nraise E'
  ),
  'lying_failure': (
    'class T(str):\n  def __getitem__(self, x):\n    return [0]\n'
    'class E(Exception):\n  def __str__(self):\n    return T("x")\nraise E'
  ),
  'huge_failure': 'assert solve(1), "x" * (1 << 28)',
  'asks_nothing': 'assert True',
  'empty': '',
  'forged_by_print': f"print('{_FORGED}')\nassert solve(1) == 1",
}

_SYSCALL = """
import ctypes
libc = ctypes.CDLL(None, use_errno=True)
def syscall(*arguments):
  if libc.syscall(*arguments) < 0:
    raise OSError(ctypes.get_errno(), 'syscall')
"""
_CONNECT = 's = socket.socket({kind})\ns.connect({address})\ns.send(b"x")\n'

# Placeholders: CANARY a directory anyone may write, PORT a listener on
# loopback, ABSTRACT a listener without a file, HERE this repository.
ESCAPES = {
  'reads_passwd': "open('/etc/passwd')",
  'reads_shadow': "open('/etc/shadow')",
  'reads_hosts': "open('/etc/hosts')",
  'lists_etc': "import os\n'passwd' in os.listdir('/etc') or 1 / 0",
  'reads_root_home': "import os\nos.listdir('/root/.ssh')",
  'reads_home': "import os\nos.listdir('/home')",
  'reads_this_repository': "open('HERE/setup.py')",
  'reads_canary': "open('CANARY/secret')",
  'reads_through_symlink': (
    "import os\nos.symlink('/etc/passwd', '/tmp/l')\nopen('/tmp/l')"
  ),
  'reads_proc_environ': "open('/proc/self/environ')",
  'reads_parent_environ': "open('/proc/1/environ')",
  'reads_proc_memory': "open('/proc/self/mem', 'rb')",
  'reads_sys': "import os\nos.listdir('/sys/kernel')",
  'reads_disk': "open('/dev/vda', 'rb')",
  'reads_kernel_memory': "open('/dev/mem', 'rb')",
  'reads_environment': "import os\nos.environ['SANDBOX_SECRET']",
  'any_environment': 'import os\n1 / len(os.environ)',
  'environment_through_libc': """
import ctypes
ctypes.CDLL(None).getenv.restype = ctypes.c_char_p
libc = ctypes.CDLL(None)
libc.getenv.restype = ctypes.c_char_p
1 / len(libc.getenv(b'SANDBOX_SECRET') or b'')
""",
  'writes_canary': "open('CANARY/written', 'w')",
  'overwrites_canary': "open('CANARY/secret', 'w')",
  'makes_directory_outside': "import os\nos.mkdir('CANARY/made')",
  'removes_canary': "import os\nos.unlink('CANARY/secret')",
  'links_out_of_tmp': """
import os
open('/tmp/f', 'w').close()
os.link('/tmp/f', 'CANARY/linked')
""",
  'renames_out_of_tmp': """
import os
open('/tmp/f', 'w').close()
os.rename('/tmp/f', 'CANARY/moved')
""",
  'writes_root': "open('/written', 'w')",
  'writes_interpreter': "import os\nopen(os.__file__, 'a')",
  'writes_shared_memory': "open('/dev/shm/written', 'w')",
  'writes_var_tmp': "open('/var/tmp/written', 'w')",
  'climbs_out': "import os\nos.chdir('../../../../CANARY')",
  'connects_tcp': 'import socket\n'
  + _CONNECT.format(kind='socket.AF_INET', address="('127.0.0.1', PORT)"),
  'sends_udp': 'import socket\nsocket.socket(socket.AF_INET, socket.SOCK_DGRAM)'
  ".sendto(b'x', ('127.0.0.1', PORT))",
  'connects_ipv6': 'import socket\n'
  + _CONNECT.format(kind='socket.AF_INET6', address="('::1', PORT)"),
  'connects_abstract': 'import socket\n'
  + _CONNECT.format(kind='socket.AF_UNIX', address="'\\0ABSTRACT'"),
  'listens': "import socket\nsocket.create_server(('127.0.0.1', 0))",
  'socketpair': 'import socket\nsocket.socketpair()',
  'netlink': 'import socket\nsocket.socket(socket.AF_NETLINK, socket.SOCK_RAW)',
  'raw_socket': 'import socket\n'
  'socket.socket(socket.AF_PACKET, socket.SOCK_RAW)',
  'resolves_names': "import socket\nsocket.getaddrinfo('localhost', 80)",
  'fetches_a_page': 'import urllib.request\n'
  "urllib.request.urlopen('http://127.0.0.1:PORT')",
  'forks': 'import os\nos.fork()',
  'forks_through_libc': _SYSCALL + 'libc.fork() < 0 and 1 / 0',
  'daemonizes': """
import os
if os.fork() == 0:
  os.setsid()
  if os.fork() == 0:
    open('CANARY/daemon', 'w')
""",
  'shell': "import os\n1 / (os.system('true') == 0)",
  'subprocess': "import subprocess\nsubprocess.run(['/bin/true'], check=True)",
  'spawns': "import os\nos.posix_spawn('/bin/true', ['true'], {})",
  'multiprocessing': """
import multiprocessing
p = multiprocessing.Process(target=print)
p.start()
""",
  'executes_itself': """
import os, sys
code = "open('/etc/passwd'); print('ESCAPED')"
os.execv(sys.executable, [sys.executable, '-S', '-c', code])
""",
  'executes_own_file': """
import os
with open('/tmp/x', 'w') as f:
  f.write('#!/bin/sh\\necho ESCAPED\\n')
os.chmod('/tmp/x', 0o755)
os.execv('/tmp/x', ['x'])
""",
  'fork_bomb': 'import os\nwhile True:\n  os.fork()',
  'thread_bomb': """
import threading, time
for i in range(200):
  threading.Thread(target=time.sleep, args=(60,), daemon=True).start()
""",
  'small_thread_bomb': """
import threading, time
threading.stack_size(32768)
for i in range(200):
  threading.Thread(target=time.sleep, args=(60,), daemon=True).start()
""",
  'memory_bomb': 'x = bytearray(10 << 30)',
  'slow_memory_bomb': 'x = []\nwhile len(x) < 2000:\n'
  '  x.append(bytearray(1 << 20))',
  'mapped_memory': 'import mmap\nmmap.mmap(-1, 10 << 30)',
  'memory_file': """
import os
for i in range(40):
  fd = os.memfd_create('x')
  os.truncate(fd, 4 << 20)
  os.write(fd, bytes(4 << 20))
""",
  'system_v_memory': _SYSCALL + 'syscall(29, 0, 1 << 30, 0o1600)',
  'locked_memory': _SYSCALL + 'libc.mlockall(3) and 1 / 0',
  'file_of_10_gb': """
with open('/tmp/x', 'wb') as f:
  for i in range(10 << 10):
    f.write(bytes(1 << 20))
""",
  'sparse_file': "import os\nopen('/tmp/x', 'w').close()\n"
  "os.truncate('/tmp/x', 10 << 30)",
  'many_files': """
for i in range(100):
  with open(f'/tmp/{i}', 'wb') as f:
    f.write(bytes(1 << 20))
""",
  'half_a_million_empty_files': """
for i in range(500_000):
  open(f'/tmp/{i}', 'w').close()
""",
  'half_a_million_files_and_words': """
for i in range(500_000):
  open(f'/tmp/{i}', 'w').close()
  i % 50 or print(flush=True)
""",
  'half_a_million_folders': """
import os
for i in range(500_000):
  os.mkdir(f'/tmp/{i}')
""",
  'many_descriptors': "x = [open('/dev/null') for i in range(500)]",
  'output_of_10_gb': """
import os
for i in range(10 << 14):
  os.write(1, bytes(1 << 16))
""",
  'becomes_root': 'import os\nos.setuid(0)',
  'raises_limits': """
import resource
resource.setrlimit(resource.RLIMIT_AS, (1 << 40, 1 << 40))
""",
  'raises_priority': 'import os\nos.setpriority(os.PRIO_PROCESS, 0, -20)',
  'kills_first_process': 'import os\nos.kill(1, 9)',
  'kills_everyone': 'import os\nos.kill(-1, 9)',
  'new_namespaces': _SYSCALL + 'libc.unshare(0x10000000) and 1 / 0',
  'joins_namespace': "import os\nopen('/proc/1/ns/mnt')",
  'mounts': _SYSCALL + "libc.mount(b'x', b'/tmp', b'tmpfs', 0, None) and 1 / 0",
  'unmounts': _SYSCALL + "libc.umount2(b'/tmp', 2) and 1 / 0",
  'changes_root': "import os\nos.chroot('/tmp')",
  'makes_device': "import os\nos.mknod('/tmp/d', 0o60600, os.makedev(254, 0))",
  'makes_fifo': "import os\nos.mkfifo('/tmp/p')",
  'traces': _SYSCALL + 'libc.ptrace(0, 0, 0, 0) and 1 / 0',
  'traces_first_process': _SYSCALL + 'libc.ptrace(16, 1, 0, 0) and 1 / 0',
  'reads_other_memory': _SYSCALL
  + 'libc.process_vm_readv(1, 0, 0, 0, 0, 0) < 0 and 1 / 0',
  'renames_host': "import socket\nsocket.sethostname('owned')",
  'sets_clock': 'import time\ntime.clock_settime(time.CLOCK_REALTIME, 0)',
  'loads_bpf': _SYSCALL + 'syscall(321, 0, 0, 0)',
  'io_uring': _SYSCALL + 'syscall(425, 1, ctypes.create_string_buffer(128))',
  'user_faults': _SYSCALL + 'syscall(323, 1)',
  'kernel_keys': _SYSCALL + 'syscall(250, 0, -3, 1)',
  'x32_calls': _SYSCALL + 'syscall(0x40000000 + 41, 2, 1, 0)',
  'lifts_seccomp': _SYSCALL + 'libc.prctl(22, 0, 0, 0, 0) and 1 / 0',
  'terminal_input': "import fcntl\nfcntl.ioctl(0, 0x5412, b'x')",
  'controlling_terminal': "open('/dev/tty')",
}
# System call numbers above are those of x86_64.
X86_ONLY = frozenset(
  (
    'system_v_memory',
    'loads_bpf',
    'io_uring',
    'user_faults',
    'kernel_keys',
    'x32_calls',
  )
)


class _Outside:
  """What an escape could touch: files, listeners, the environment."""

  def __init__(self):
    self._folder = tempfile.TemporaryDirectory()
    self.canary = pathlib.Path(self._folder.name)
    self.canary.chmod(0o777)
    secret = self.canary / 'secret'
    secret.write_text('secret')
    secret.chmod(0o666)
    self.tcp = socket.create_server(('127.0.0.1', 0))
    self.abstract = f'ioa-{uuid.uuid4().hex}'
    self.local = socket.socket(socket.AF_UNIX)
    self.local.bind('\0' + self.abstract)
    self.local.listen()
    os.environ['SANDBOX_SECRET'] = 'secret'

  def fill(self, source: str) -> str:
    return (
      source.replace('CANARY', str(self.canary))
      .replace('PORT', str(self.tcp.getsockname()[1]))
      .replace('ABSTRACT', self.abstract)
      .replace('HERE', str(pathlib.Path(__file__).parent.parent))
    )

  def touched(self) -> list[str]:
    found = sorted(p.name for p in self.canary.iterdir())
    traces = [] if found == ['secret'] else [f'files {found}']
    if (self.canary / 'secret').read_text() != 'secret':
      traces.append('the canary')
    for listener in (self.tcp, self.local):
      listener.settimeout(0)
      try:
        listener.accept()
        traces.append(f'a connection to {listener.getsockname()}')
      except BlockingIOError:
        pass
    return traces

  def close(self) -> None:
    self.tcp.close()
    self.local.close()
    self._folder.cleanup()


def left_behind(seconds: float = 3.0) -> list[str]:
  """Sandboxed processes of this runner that still live after a while.

  The kernel takes a namespace down after its first process, not in the same
  moment.
  """
  deadline = time.monotonic() + seconds
  while (found := _sandboxed()) and time.monotonic() < deadline:
    time.sleep(0.05)
  return found


def _sandboxed() -> list[str]:
  mark, found = sandbox_lib.process_mark().encode(), []
  for path in pathlib.Path('/proc').glob('[0-9]*/cmdline'):
    try:
      if mark in path.read_bytes().split(b'\0'):
        found.append(path.parent.name)
    except OSError:
      continue
  return found


def run(backend: str) -> dict[str, list[str]]:
  """Runs every attack; returns what went wrong, by kind, empty if nothing."""
  sandbox = sandbox_lib.Sandbox(LIMITS, backend)
  outside = _Outside()
  lock = threading.Lock()
  wrong: dict[str, list[str]] = {'passed': [], 'escaped': [], 'left': []}

  def cheat(attack):
    name, source, tests = attack
    result = sandbox.run_tests(source, tests, ['solve'])
    if result.passed:
      with lock:
        wrong['passed'].append(name)

  def escape(name):
    body = outside.fill(ESCAPES[name]).replace('\n', '\n  ')
    source = f'try:\n  {body}\nexcept BaseException as e:\n  print(repr(e))\n'
    source += "else:\n  print('ESCAPED')\n"
    result = sandbox.run_program(source, '')
    if 'ESCAPED' in result.stdout:
      with lock:
        wrong['escaped'].append(name)

  cheats = [(name, source, TESTS) for name, source in CHEATS.items()]
  cheats += [
    (f'{error} in {name}', f'def solve(x):\n  raise {error}\n', tests)
    for name, tests in LOOPS.items()
    for error in RAISED
    if not (error.startswith('Attr') and name == 'own_attribute')
  ]
  cheats += [
    (name, 'def solve(x):\n  return 0\n', tests)
    for name, tests in HOSTILE_TESTS.items()
  ]
  names = [
    n for n in ESCAPES if os.uname().machine == 'x86_64' or n not in X86_ONLY
  ]
  if not sandbox.run_tests(HONEST, TESTS, ['solve']).passed:
    wrong['passed'].append('the honest solution is rejected')
  try:
    with futures.ThreadPoolExecutor(4) as pool:
      list(pool.map(cheat, cheats))
      list(pool.map(escape, names))
    wrong['left'] = left_behind()
    wrong['escaped'] += outside.touched()
  finally:
    outside.close()
  wrong['count'] = [str(len(cheats) + len(names))]
  return wrong


if __name__ == '__main__':
  print(json.dumps(run(sys.argv[1])))
