"""What runs inside the sandbox: a candidate, the tests of one, or a program.

The candidate and its tests run in two sandboxes joined by two pipes. A call and
its result are lines of JSON made of literals only, so whatever the candidate
does to its own interpreter, all that reaches the tests is a plain value of a
builtin type. Standard library only; `typing`, `re` and `json` are not imported
because starting Python twice per answer is most of what an answer costs.
"""

import _json
import os
import sys

# A reply of the candidate is read up to here; also bounds what a test sends.
_MAX_LINE_BYTES = 8 << 20
_MAX_ITEMS = 100_000
_MAX_DETAIL_CHARS = 300


class Inexpressible(Exception):
  """A value that is no literal."""


class CandidateError(Exception):
  """The candidate raised, ended, or broke the protocol."""


def encode(value):
  """Literal to JSON text; subclasses become their base type.

  Types that JSON lacks are objects with one key: t(uple), d(ict), s(et),
  f(rozenset), c(omplex), b(ytes), a (bytearray), r(ange), i(terator).
  """
  if value is None:
    return 'null'
  if isinstance(value, bool):
    return 'true' if value else 'false'
  if isinstance(value, int):
    return int.__repr__(value)
  if isinstance(value, float):
    return {'inf': 'Infinity', '-inf': '-Infinity', 'nan': 'NaN'}.get(
      text := float.__repr__(value), text
    )
  if isinstance(value, str):
    return _json.encode_basestring_ascii(value)
  if isinstance(value, list):
    return _sequence(value)
  if isinstance(value, tuple):
    return '{"t":' + _sequence(value) + '}'
  if isinstance(value, dict):
    pairs = ['[' + encode(k) + ',' + encode(v) + ']' for k, v in value.items()]
    return '{"d":[' + ','.join(pairs) + ']}'
  if isinstance(value, set):
    return '{"s":' + _sequence(value) + '}'
  if isinstance(value, frozenset):
    return '{"f":' + _sequence(value) + '}'
  if isinstance(value, complex):
    return '{"c":' + _sequence((value.real, value.imag)) + '}'
  if isinstance(value, bytes):
    return '{"b":"' + value.hex() + '"}'
  if isinstance(value, bytearray):
    return '{"a":"' + value.hex() + '"}'
  if isinstance(value, range):
    return '{"r":' + _sequence((value.start, value.stop, value.step)) + '}'
  if hasattr(value, '__next__') and hasattr(value, '__iter__'):
    items = []
    for item in value:
      items.append(item)
      if len(items) > _MAX_ITEMS:
        raise Inexpressible('an iterator of too many items')
    return '{"i":' + _sequence(items) + '}'
  raise Inexpressible(f'a value of type {type(value).__name__}')


def _sequence(values):
  return '[' + ','.join([encode(v) for v in values]) + ']'


class _Decoder:
  """What the C scanner behind `json.loads` is configured with."""

  strict = True
  object_hook = None
  object_pairs_hook = None
  parse_float = float
  parse_int = int
  memo = None
  parse_constant = {
    'NaN': float('nan'), 'Infinity': float('inf'), '-Infinity': float('-inf')
  }.__getitem__  # fmt: skip


_scan = _json.make_scanner(_Decoder())


def _parse(line):
  text = line.decode('ascii').strip()
  try:
    value, end = _scan(text, 0)
  except StopIteration:
    raise ValueError('no JSON') from None
  if end != len(text):
    raise ValueError('text behind the JSON')
  return value


_BUILD = {
  't': tuple, 'd': lambda pairs: {k: v for k, v in pairs}, 's': set,
  'f': frozenset, 'c': lambda v: complex(*v), 'b': bytes.fromhex,
  'a': bytearray.fromhex, 'r': lambda v: range(*v), 'i': iter,
}  # fmt: skip


def decode(value):
  """Parsed JSON to the literal, built of exact builtin types."""
  if isinstance(value, list):
    return [decode(v) for v in value]
  if isinstance(value, dict):
    ((kind, content),) = value.items()
    return _BUILD[kind](decode(content))
  return value


class _Channel:
  """Lines of JSON over two pipes, bounded in length."""

  def __init__(self, read_fd, write_fd):
    self._read_fd, self._write_fd = read_fd, write_fd
    self._buffer = b''

  def send(self, text):
    data = text.encode('ascii') + b'\n'
    if len(data) > _MAX_LINE_BYTES:
      raise Inexpressible(f'{len(data)} bytes of JSON')
    while data:
      data = data[os.write(self._write_fd, data) :]

  def receive(self):
    chunks, size = [self._buffer], len(self._buffer)
    while b'\n' not in chunks[-1]:
      chunk = os.read(self._read_fd, 1 << 16)
      size += len(chunk)
      if not chunk:
        return None
      if size > _MAX_LINE_BYTES:
        raise CandidateError('a reply of too many bytes')
      chunks.append(chunk)
    line, _, self._buffer = b''.join(chunks).partition(b'\n')
    return _parse(line)


def _describe(error):
  try:
    text = f'{type(error).__name__}: {error}'
  except BaseException:
    text = 'an exception that cannot be shown'
  return text[:_MAX_DETAIL_CHARS]


def _module(name, source):
  module = type(sys)(name)
  sys.modules[name] = module
  exec(compile(source, f'<{name}>', 'exec'), module.__dict__)
  return module


def serve(config):
  """Defines the candidate, then answers calls until the tests hang up."""
  channel = _Channel(*config['fds'])
  failed = None
  try:
    names = vars(_module('candidate', config['source']))
  except BaseException as e:
    failed = _describe(e)
  while (request := channel.receive()) is not None:
    try:
      if failed is not None:
        raise CandidateError(failed)
      call = decode(request)
      # `Solution().method` is LiveCodeBench's form; a fresh object per call.
      function = eval(call['name'], names)
      result = encode(function(*call['args'], **call['kwargs']))
      reply = '{"id":' + encode(call['id']) + ',"result":' + result + '}'
      if len(reply) >= _MAX_LINE_BYTES:
        raise Inexpressible('a result of too many bytes')
    except BaseException as e:
      kind = encode(type(e).__name__)
      if isinstance(e, Inexpressible):
        kind = '"Inexpressible"'
      reply = '{"error":' + encode(_describe(e)) + ',"kind":' + kind + '}'
    channel.send(reply)


def _exception_type(kind):
  """A builtin exception that tests may expect, else CandidateError.

  AssertionError stays the tests' own; what ends an interpreter is no Exception.
  """
  found = vars(sys.modules['builtins']).get(kind)
  if (
    isinstance(found, type)
    and issubclass(found, Exception)
    and found is not AssertionError
  ):
    return found
  return CandidateError


def judge(config):
  """Runs trusted tests against a candidate in another process."""
  channel = _Channel(*config['fds'])
  calls = 0

  def proxy(name):
    def call(*args, **kwargs):
      nonlocal calls
      calls += 1
      request = {'id': calls, 'name': name, 'args': args, 'kwargs': kwargs}
      channel.send(encode(request))
      try:
        reply = channel.receive()
      except (ValueError, RecursionError) as e:
        raise CandidateError(f'a reply that is no JSON ({e})') from None
      if not isinstance(reply, dict):
        raise CandidateError('the candidate ended')
      if 'error' in reply:
        kind, detail = str(reply.get('kind')), str(reply['error'])
        if kind == 'Inexpressible':
          raise Inexpressible(detail)
        raise _exception_type(kind)(detail[:_MAX_DETAIL_CHARS])
      if reply.get('id') != calls or 'result' not in reply:
        raise CandidateError('a reply to another call')
      try:
        return decode(reply['result'])
      except (ValueError, TypeError, KeyError, RecursionError) as e:
        raise CandidateError(f'a result that is no literal ({e})') from None

    call.__name__ = name
    return call

  names = {'__name__': 'tests'}
  outcome, detail = 'passed', ''
  try:
    exec(compile(config['setup'], '<setup>', 'exec'), names)
    names.update({name: proxy(f) for name, f in config['functions'].items()})
    exec(compile(config['tests'], '<tests>', 'exec'), names)
    if not calls:
      outcome = 'no_calls'
  except Inexpressible as e:
    outcome, detail = 'inexpressible', _describe(e)
  except AssertionError as e:
    outcome, detail = 'assertion', _describe(e)
  except BaseException as e:
    outcome, detail = 'error', _describe(e)
  text = encode({'outcome': outcome, 'detail': detail, 'calls': calls})
  os.write(config['verdict_fd'], text.encode('ascii'))


def program(config):
  """Runs a whole program as `__main__` with the given standard input."""
  sys.stdin = open(0, encoding='utf-8', closefd=False)
  sys.stdout = open(1, 'w', encoding='utf-8', closefd=False)
  code = 0
  try:
    _module('__main__', config['source'])
  except SystemExit as e:
    code = e.code if isinstance(e.code, int) else 0 if e.code is None else 1
  except BaseException:
    code = 1
  try:
    sys.stdout.flush()
  finally:
    os._exit(code & 255)


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
  {'serve': serve, 'judge': judge, 'program': program}[config['role']](config)
  os._exit(0)
