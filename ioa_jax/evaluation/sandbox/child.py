"""What runs inside the sandbox: a candidate, the tests of one, or a program.

A candidate and its tests run in two sandboxes joined by two pipes, so whatever
the candidate does to its own interpreter, all that reaches the tests is data
(see `remote`). Standard library only; `typing`, `re`, `json` and `signal` are
not imported because starting Python twice per answer is most of what an answer
costs.
"""

import _signal
import marshal
import os
import sys

from ioa_jax.evaluation.sandbox import exceptions, operations, remote, values

# Room for the frames above a candidate's own.
_RECURSION_LIMIT = 1020
# What tests may ask for; and what a candidate may ask of objects of the tests.
_OF_CANDIDATES = frozenset(
  'call method next str repr format get set delete isinstance copy value state '
  'await'.split()
)
_OF_TESTS = frozenset('call method next str repr format get set state'.split())


def _module(name, source, preamble=''):
  module = type(sys)(name)
  sys.modules[name] = module
  if preamble:
    exec(compile(preamble, '<preamble>', 'exec'), module.__dict__)
  exec(compile(source, f'<{name}>', 'exec'), module.__dict__)
  return module


def serve(config):
  """Defines the candidate, then answers calls until the tests hang up."""
  failed = None
  seconds = config['cpu_seconds_per_call']
  sys.setrecursionlimit(_RECURSION_LIMIT)

  def answer(operation, arguments):
    if failed is not None:
      raise failed
    if seconds:
      # Its default action ends the process.
      _signal.setitimer(_signal.ITIMER_PROF, seconds)
    try:
      if operation == 'resolve':
        return eval(arguments[0], names)
      if operation not in _OF_CANDIDATES:
        raise ValueError(f'the operation {operation!r}')
      return operations.perform(operation, arguments)
    finally:
      if seconds:
        _signal.setitimer(_signal.ITIMER_PROF, 0)

  channel = remote.Channel(*config['fds'], answer, plain_errors=True)
  try:
    module = _module('candidate', config['source'], config['preamble'])
    names = vars(module)
  except BaseException as e:
    failed = e
  channel.serve_forever()


def judge(config):
  """Runs tests against a candidate in another process."""
  from ioa_jax.evaluation.sandbox import facade

  def answer(operation, arguments):
    if operation not in _OF_TESTS:
      raise ValueError(f'the operation {operation!r}')
    # Not of builtins, which cross by name.
    if not channel.exported(arguments[0]):
      raise ValueError('an object that no test gave away')
    if operation in ('get', 'set'):
      # No class either: of `type`, a candidate could make one that equals all.
      name = arguments[1]
      if name.startswith('_') or not facade.allowed_attribute(name):
        raise AttributeError(name)
    return operations.perform(operation, arguments)

  channel = remote.Channel(
    *config['fds'], answer, plain_errors=False, seconds=config['seconds']
  )
  names = facade.namespace()

  def resolve(expression):
    try:
      value = channel.ask('resolve', expression)
      channel.name(value)
      return value
    except exceptions.CandidateError as e:
      failed = e

    def missing(*args, **kwargs):
      channel.calls += 1
      raise failed

    return missing

  outcome, detail = 'passed', ''
  try:
    candidate = {n: resolve(e) for n, e in config['functions'].items()}
    names.update(candidate)
    exec(marshal.loads(config['setup']), names)
    names.update(candidate)
    exec(marshal.loads(config['tests']), names)
    if not channel.calls:
      outcome = 'no_calls'
  except values.Inexpressible as e:
    outcome, detail = 'inexpressible', exceptions.describe(e)
  except AssertionError as e:
    outcome, detail = 'assertion', exceptions.describe(e)
  except BaseException as e:
    outcome, detail = 'error', exceptions.describe(e)
  encoder = values.Encoder(None)
  text = encoder.text([outcome, detail, channel.calls])
  os.write(config['verdict_fd'], text.encode('ascii'))


def program(config):
  """Runs a whole program as `__main__` with the given standard input."""
  sys.stdin = open(0, encoding='utf-8', closefd=False)
  sys.stdout = open(1, 'w', encoding='utf-8', closefd=False)
  if '/dev/stdin' in config['source']:
    # Where the link of that name leads (see `isolation`).
    with open(config['stdin_file'], 'wb') as file:
      file.write(os.pread(0, os.fstat(0).st_size, 0))
  code = 0
  try:
    _module('__main__', config['source'], config['preamble'])
  except SystemExit as e:
    code = e.code if isinstance(e.code, int) else 0 if e.code is None else 1
    if config['exit_is_end']:
      code = 0
  except BaseException:
    code = 1
  try:
    sys.stdout.flush()
  finally:
    os._exit(code & 255)


class _Exit:
  """`exit` and `quit`, which the module `site` brings elsewhere."""

  def __init__(self, name):
    self._name = name

  def __repr__(self):
    return f'Use {self._name}() to exit'

  def __call__(self, code=None):
    raise SystemExit(code)


class _Pipe:
  """The two ends of asyncio's wake-up channel, which has no sockets here."""

  def __init__(self, fd):
    self._fd = fd

  def fileno(self):
    return self._fd

  def send(self, data):
    return os.write(self._fd, data)

  def recv(self, size):
    return os.read(self._fd, size)

  def close(self):
    os.close(self._fd)


class _Patches:
  """Makes modules work here as they are imported, whenever that is."""

  def find_spec(self, name, path=None, target=None):
    if name not in ('asyncio.selector_events', 'numpy'):
      return None
    sys.meta_path.remove(self)
    try:
      spec = __import__('importlib.util').util.find_spec(name)
    finally:
      sys.meta_path.insert(0, self)
    if spec is not None:
      load = spec.loader.exec_module
      patched = _load_asyncio if name.startswith('asyncio') else _load_numpy
      spec.loader.exec_module = lambda module: patched(load, module)
    return spec


def _load_numpy(load, module):
  """With one thread: each takes a stack out of the limit on memory."""
  os.putenv('OPENBLAS_NUM_THREADS', '1')
  load(module)
  os.unsetenv('OPENBLAS_NUM_THREADS')


def _load_asyncio(load, module):
  load(module)
  module.BaseSelectorEventLoop._make_self_pipe = _make_self_pipe


def _make_self_pipe(loop):
  """For event loops to wake themselves; sockets are refused."""
  read_fd, write_fd = os.pipe()
  for fd in (read_fd, write_fd):
    os.set_blocking(fd, False)
  loop._ssock, loop._csock = _Pipe(read_fd), _Pipe(write_fd)
  loop._internal_fds += 1
  loop._add_reader(read_fd, loop._read_from_self)


def main(config):
  """Last steps before foreign code: no environment, no inherited input."""
  os.environ.clear()
  sys.argv[:] = ['candidate']
  if config['stdin_fd'] is None:
    config['stdin_fd'] = os.open('/dev/null', os.O_RDWR)
  os.dup2(config['stdin_fd'], 0)
  os.close(config['stdin_fd'])
  # Exact integers of any size; converting them is bounded by the CPU limit.
  sys.set_int_max_str_digits(0)
  builtins = sys.modules['builtins']
  builtins.exit, builtins.quit = _Exit('exit'), _Exit('quit')
  sys.meta_path.insert(0, _Patches())
  if config['packages']:
    sys.path.append(config['packages'])
  {'serve': serve, 'judge': judge, 'program': program}[config['role']](config)
  os._exit(0)
