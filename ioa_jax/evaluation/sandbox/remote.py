"""Calls between a candidate and its tests.

Both sides send requests as lines of JSON (see `values`) and serve those of the
other while they wait, so tests can call candidates and candidates can call
back. What an object of the other side is asked is bounded by what its answer
could give away (`Channel.operate`).

Runs inside the sandbox.
"""

import _json
import os
import select
import sys

from ioa_jax.evaluation.sandbox import exceptions, handles, operations, values

exceptions.MAX_DETAIL_CHARS = 300
_MAX_EXPORTS = 200_000
_MAX_NESTED_CALLS = 100
# Sends deep values without the candidate's own limit on recursion.
_RECURSION = 20_000


_ORDER = frozenset(('lt', 'le', 'gt', 'ge'))
_OPERATORS = _ORDER | frozenset(
  prefix + name
  for name in (
    'add sub mul truediv floordiv mod pow divmod matmul and or xor lshift '
    'rshift'
  ).split()
  for prefix in ('', 'r', 'i')
)
_NUMBERS = frozenset(
  'abs neg pos invert bool int float complex index round trunc floor '
  'ceil'.split()
)


class _Objects:
  """What of this side the other has handles of, and the reverse."""

  def __init__(self, channel):
    self._channel = channel
    self._exports, self._number_of = [], {}
    self._classes, self._handles, self._kinds = {}, {}, {}
    self._class_of = {}

  def export(self, value):
    if isinstance(value, handles.Handle):
      return object.__getattribute__(value, '_number')
    number = self._number_of.get(id(value))
    if number is None:
      if len(self._exports) >= _MAX_EXPORTS:
        raise values.Inexpressible('too many objects')
      number = self._number_of[id(value)] = len(self._exports)
      self._exports.append(value)
    kind = type(value)
    mask = 0
    for i, name in enumerate(handles.NAMES):
      if getattr(kind, name, None) is not None:
        mask |= 1 << i
    base = next(
      (b.__name__ for b in operations.BASES if isinstance(value, b)), None
    )
    own = self._class_number(value) if isinstance(value, type) else None
    name = kind.__name__ if isinstance(kind.__name__, str) else 'object'
    return number, self._class_number(kind), name, mask, base, own

  def _class_number(self, kind):
    """Tells classes apart; nothing can be done to them by this number."""
    return self._kinds.setdefault(id(kind), (len(self._kinds), kind))[0]

  def own(self, number):
    return self._exports[number]

  def exported(self, value):
    """Whether the other side was given this very object."""
    return id(value) in self._number_of

  def import_(self, number, kind, name, mask, base, own=None):
    if number not in self._handles:
      key = (kind, name, mask, base)
      if key not in self._classes:
        methods = {
          method: handles.METHODS[method]
          for i, method in enumerate(handles.NAMES)
          if mask >> i & 1
          and (method != '__contains__' or self._channel.trusts(kind))
        }
        if base is not None:
          # So that `isinstance(result, list)` holds where it held.
          base_type = values.NAMED[base]
          methods['__class__'] = property(lambda self: base_type)
        methods['__slots__'] = ()
        self._classes[key] = type(str(name), (handles.Handle,), methods)
      self._handles[number] = self._classes[key](
        self._channel, number, kind, base
      )
    if own is not None:
      self._class_of[number] = own
    return self._handles[number]

  def class_of(self, handle):
    """The number of the class that a handle stands for, or None."""
    return self._class_of.get(handle._number)


class Channel:
  """One side of the conversation.

  Args:
    read_fd, write_fd: pipes.
    serve: (operation, arguments) to a value, for requests of the other side.
    plain_errors: raise what was raised there as the builtin exception that it
      is. For candidates: tests may catch only what they name.
    seconds: to wait for a message; None is for ever.
  """

  def __init__(self, read_fd, write_fd, serve, *, plain_errors, seconds=None):
    self._read_fd, self._write_fd = read_fd, write_fd
    self._serve, self._plain_errors = serve, plain_errors
    self._seconds = seconds
    self._buffer = b''
    self._objects = _Objects(self)
    self._comparing, self._named, self._told = set(), set(), set()
    self._nested = self._asked = 0
    self.calls = 0

  def exported(self, value):
    """Whether the other side was given this very object."""
    return self._objects.exported(value)

  def name(self, value):
    """Notes that the tests name this class of the candidate."""
    if isinstance(value, handles.Handle):
      self._named.add(self._objects.class_of(value))

  def trusts(self, kind):
    """Whether objects of a class may tell what operators on them give.

    Those of classes that the tests name: these are what is tested. Another
    object would be shown what the tests expect, and could say that it fits.
    """
    return self._plain_errors or kind in self._named

  def operate(self, handle, name, args, kwargs):
    """One of the language's methods on an object of the other side."""
    if self._plain_errors:
      return self.ask('method', handle, name, args, kwargs)
    plain = any(not isinstance(a, handles.Handle) for a in args)
    if name in _OPERATORS:
      ordered = name in _ORDER and plain
      if ordered or not self.trusts(handle._kind):
        raise exceptions.CandidateError(f'{name!r} with an object of its own')
    if name in _NUMBERS and handle._number in self._told:
      raise exceptions.CandidateError(f'{name!r} of what was told a value')
    result = self.ask('method', handle, name, args, kwargs)
    if name in _OPERATORS and plain and result is not NotImplemented:
      if not isinstance(result, handles.Handle):
        raise exceptions.CandidateError(f'{name!r} of what was told a value')
      self._told.add(result._number)
    return result

  def same(self, one, other):
    """Whether two handles stand for the same object or for equal state."""
    if one._number == other._number:
      return True
    if one._kind != other._kind or other._base:
      return False
    key = (one._number, other._number)
    if key in self._comparing:
      return True  # Compared further up: a cycle.
    self._comparing.add(key)
    try:
      states = [self.ask('state', handle) for handle in (one, other)]
      return all(type(s) is dict for s in states) and states[0] == states[1]
    finally:
      self._comparing.discard(key)

  def _send(self, text):
    data = text.encode('ascii') + b'\n'
    if len(data) > values.MAX_LINE_BYTES:
      raise values.Inexpressible(f'{len(data)} bytes of JSON')
    while data:
      data = data[os.write(self._write_fd, data) :]

  def _receive(self):
    chunks, size = [self._buffer], len(self._buffer)
    while b'\n' not in chunks[-1]:
      if not select.select([self._read_fd], [], [], self._seconds)[0]:
        raise exceptions.CandidateError('no answer in time')
      chunk = os.read(self._read_fd, 1 << 18)
      size += len(chunk)
      if not chunk:
        return None
      if size > values.MAX_LINE_BYTES:
        raise exceptions.CandidateError('a message of too many bytes')
      chunks.append(chunk)
    line, _, self._buffer = b''.join(chunks).partition(b'\n')
    with _DeepRecursion():
      message = values.parse(line)
    return message if isinstance(message, dict) else {}

  def ask(self, operation, *arguments):
    """Has the other side do something.

    Raises:
      CandidateError: if that raised there, or no value came back.
      Inexpressible: if the arguments or the result cannot cross.
    """
    if self._nested > _MAX_NESTED_CALLS:
      raise exceptions.CandidateError('calls nested too deep')
    self.calls += operation not in ('resolve', 'get')
    self._asked += 1
    number = self._asked
    encoder = values.Encoder(self._objects.export)
    with _DeepRecursion():
      text = encoder.text((operation, *arguments))
    self._send(f'{{"ask":{number},"value":{text}}}')
    try:
      while True:
        reply = self._receive()
        if reply is None:
          raise exceptions.CandidateError('the candidate ended')
        if 'ask' not in reply:
          break
        self._answer(reply)
      result, error = self._result(reply, number, encoder.containers)
    except Exception as e:  # Whatever a hostile reply makes of decoding.
      raise exceptions.CandidateError(
        f'no value came back ({exceptions.describe(e)})'
      ) from None
    if error is not None:
      raise error
    return result

  def _result(self, reply, number, known):
    """(What came back, what was raised there or None)."""
    decoder = values.Decoder(self._objects.own, self._objects.import_, known)
    with _DeepRecursion():
      if 'error' in reply:
        detail, kind, arguments, handle = decoder.value(reply['error'])
        if kind == 'Inexpressible':
          return None, values.Inexpressible(
            str(detail)[: exceptions.MAX_DETAIL_CHARS]
          )
        handle = handle if isinstance(handle, handles.Handle) else None
        error = exceptions.CandidateError(
          str(detail), kind, tuple(arguments), handle
        )
        return None, exceptions.named(
          error, error.kind
        ) if self._plain_errors else error
      if reply.get('reply') != number:
        raise exceptions.CandidateError('a reply to another call')
      result = decoder.value(reply['value'])
      for index, members in reply['changes']:
        members = [decoder.value(m) for m in members]
        values.change(known[index], members)
    return result, None

  def serve_forever(self):
    """Answers requests until the other side hangs up."""
    while (request := self._receive()) is not None:
      self._answer(request)

  def _answer(self, request):
    self._nested += 1
    decoder = values.Decoder(self._objects.own, self._objects.import_)
    try:
      with _DeepRecursion():
        operation, *arguments = decoder.value(request['value'])
      before = [
        (c, values.contents(c)) for c in decoder.containers
      ]  # Identity counts, not equality: elements may lie about that.
      text = self._reply(request['ask'], before, operation, arguments)
    except BaseException as e:
      text = _error_text(e, self._objects.export)
    finally:
      self._nested -= 1
    self._send(text)

  def _reply(self, number, before, operation, arguments):
    result = self._serve(operation, arguments)
    encoder = values.Encoder(self._objects.export, [c for c, _ in before])
    with _DeepRecursion():
      text = encoder.text(result)
      changes = []
      for i, (container, members) in enumerate(before):
        now = values.contents(container)
        if len(now) != len(members) or not all(map(_is, now, members)):
          members = ','.join([encoder.text(m) for m in now])
          changes.append(f'[{i},[{members}]]')
    changes = ','.join(changes)
    text = f'{{"reply":{number},"value":{text},"changes":[{changes}]}}'
    if len(text) >= values.MAX_LINE_BYTES:
      raise values.Inexpressible('a result of too many bytes')
    return text


def _error_text(error, export):
  if isinstance(error, exceptions.CandidateError):  # Of a call back.
    kind = exceptions.NAME_OF.get(error.kind)
  elif isinstance(error, values.Inexpressible):
    kind = 'Inexpressible'
  else:
    kind = next(
      (
        exceptions.NAME_OF[c]
        for c in type(error).__mro__
        if c in exceptions.NAME_OF
      ),
      None,
    )
  detail = _json.encode_basestring_ascii(exceptions.describe(error))
  kind = 'null' if kind is None else f'"{kind}"'
  try:
    own = (
      error.values
      if isinstance(error, exceptions.CandidateError)
      else error.args
    )
    encoder = values.Encoder(export)
    arguments = encoder.text(tuple(own))
    handle = encoder.text(error)
  except BaseException:
    arguments, handle = '{"t":[]}', 'null'
  return f'{{"error":{{"t":[{detail},{kind},{arguments},{handle}]}}}}'


def _is(one, other):
  return one is other


class _DeepRecursion:
  """Room for nested values, whatever the limit is that a candidate set."""

  def __enter__(self):
    self._limit = sys.getrecursionlimit()
    sys.setrecursionlimit(max(self._limit, _RECURSION))

  def __exit__(self, *exc):
    sys.setrecursionlimit(self._limit)
