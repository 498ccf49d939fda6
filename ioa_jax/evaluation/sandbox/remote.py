"""Calls between a candidate and its tests, and handles of each other's objects.

Both sides send requests as lines of JSON (see `values`) and serve those of the
other while they wait, so tests can call candidates and candidates can call
back. A handle stands for an object of the other side: what is done to it is
done there, and only plain values or further handles come back. Whether two
values are equal is decided here, on rebuilt values: objects of the candidate's
classes are equal if class and state are, whatever their `__eq__` says.

Runs inside the sandbox.
"""

import _json
import os
import select
import sys

from ioa_jax.evaluation.sandbox import exceptions, operations, values

exceptions.MAX_DETAIL_CHARS = 300
_MAX_EXPORTS = 200_000
_MAX_NESTED_CALLS = 100
# Sends deep values without the candidate's own limit on recursion.
_RECURSION = 20_000


class Handle:
  """An object of the other side."""

  __slots__ = ('_base', '_channel', '_kind', '_number')
  _is_handle = True

  def __init__(self, channel, number, kind, base):
    for name, value in zip(
      ('_channel', '_number', '_kind', '_base'), (channel, number, kind, base)
    ):
      object.__setattr__(self, name, value)

  def __getattr__(self, name):
    try:
      return self._channel.ask('get', self, name)
    except exceptions.CandidateError as e:
      # Only this one, because `hasattr` and default values rest on it.
      if e.kind is AttributeError:
        raise AttributeError(str(e)) from None
      raise

  def __setattr__(self, name, value):
    self._channel.ask('set', self, name, value)

  def __delattr__(self, name):
    self._channel.ask('delete', self, name)

  def __str__(self):
    return str(self._channel.ask('str', self))

  def __repr__(self):
    return str(self._channel.ask('repr', self))

  def __format__(self, spec):
    return str(self._channel.ask('format', self, spec))

  def __instancecheck__(self, instance):
    return isinstance(instance, Handle) and (
      self._channel.ask('isinstance', instance, self) is True
    )

  def __eq__(self, other):
    if self._base:
      if isinstance(other, Handle):
        other = other._channel.ask('value', other) if other._base else other
      return self._channel.ask('value', self) == other
    if not isinstance(other, Handle):
      return False
    return self._channel.same(self, other)

  def __hash__(self):
    if self._base in ('tuple', 'frozenset'):
      return hash(self._channel.ask('value', self))
    return hash(self._kind)

  def __copy__(self):
    return self._channel.ask('copy', self, False)

  def __deepcopy__(self, memo):
    return self._channel.ask('copy', self, True)


def _forwarder(name):
  def method(self, *args, **kwargs):
    return self._channel.ask('method', self, name, args, kwargs)

  method.__name__ = f'__{name}__'
  return method


def _call(self, *args, **kwargs):
  return self._channel.ask('call', self, args, kwargs)


def _next(self):
  reply = self._channel.ask('next', self)
  if type(reply) is not tuple or len(reply) != 2:
    raise exceptions.CandidateError('no pair of a value and an end')
  if reply[1]:
    raise StopIteration
  return reply[0]


def _await(self):
  return self._channel.ask('await', self)
  yield


_METHODS = {f'__{name}__': _forwarder(name) for name in operations.FORWARDED}
_METHODS |= {'__call__': _call, '__next__': _next, '__await__': _await}
_FORWARDED_NAMES = (
  *(f'__{name}__' for name in operations.FORWARDED),
  '__await__',
)


class _Objects:
  """What of this side the other has handles of, and the reverse."""

  def __init__(self, channel):
    self._channel = channel
    self._exports, self._number_of = [], {}
    self._classes, self._handles, self._kinds = {}, {}, {}

  def export(self, value):
    if isinstance(value, Handle):
      return object.__getattribute__(value, '_number')
    number = self._number_of.get(id(value))
    if number is None:
      if len(self._exports) >= _MAX_EXPORTS:
        raise values.Inexpressible('too many objects')
      number = self._number_of[id(value)] = len(self._exports)
      self._exports.append(value)
    kind = type(value)
    mask = 0
    for i, name in enumerate(_FORWARDED_NAMES):
      if getattr(kind, name, None) is not None:
        mask |= 1 << i
    base = next(
      (b.__name__ for b in operations.BASES if isinstance(value, b)), None
    )
    name = kind.__name__ if isinstance(kind.__name__, str) else 'object'
    return number, self._class_number(kind), name, mask, base

  def _class_number(self, kind):
    """Tells classes apart; nothing can be done to them by this number."""
    return self._kinds.setdefault(id(kind), (len(self._kinds), kind))[0]

  def own(self, number):
    return self._exports[number]

  def exported(self, value):
    """Whether the other side was given this very object."""
    return id(value) in self._number_of

  def import_(self, number, kind, name, mask, base):
    if number not in self._handles:
      key = (kind, name, mask, base)
      if key not in self._classes:
        methods = {
          method: _METHODS[method]
          for i, method in enumerate(_FORWARDED_NAMES)
          if mask >> i & 1
        }
        if base is not None:
          # So that `isinstance(result, list)` holds where it held.
          base_type = values.NAMED[base]
          methods['__class__'] = property(lambda self: base_type)
        methods['__slots__'] = ()
        self._classes[key] = type(str(name), (Handle,), methods)
      self._handles[number] = self._classes[key](
        self._channel, number, kind, base
      )
    return self._handles[number]


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
    self._comparing = set()
    self._nested = self._asked = 0
    self.calls = 0

  def exported(self, value):
    """Whether the other side was given this very object."""
    return self._objects.exported(value)

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
        handle = handle if isinstance(handle, Handle) else None
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
      text = self._error(e)
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

  def _error(self, error):
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
      encoder = values.Encoder(self._objects.export)
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
