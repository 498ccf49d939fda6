"""Handles: what stands for an object of the other side.

What is done to a handle is done there, and only plain values or further handles
come back. Whether two values are equal is decided here, on rebuilt values:
objects of the candidate's classes are equal if class and state are, whatever
their `__eq__` says.

Runs inside the sandbox.
"""

from ioa_jax.evaluation.sandbox import exceptions, operations


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
    return self._channel.operate(self, name, args, kwargs)

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


METHODS = {f'__{name}__': _forwarder(name) for name in operations.FORWARDED}
METHODS |= {'__call__': _call, '__next__': _next, '__await__': _await}
NAMES = (
  *(f'__{name}__' for name in operations.FORWARDED),
  '__await__',
)
