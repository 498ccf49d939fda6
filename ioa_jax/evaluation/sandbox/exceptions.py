"""How what one side raises arrives on the other: as one class, or as named.

Runs inside the sandbox.
"""

import sys

MAX_DETAIL_CHARS = 300
_BUILTIN_ERRORS = {
  name: value
  for name, value in vars(sys.modules['builtins']).items()
  if isinstance(value, type) and issubclass(value, BaseException)
}
NAME_OF = {value: name for name, value in _BUILTIN_ERRORS.items()}


class CandidateError(BaseException):
  """The other side raised, ended, or broke the protocol.

  No `Exception`: whatever was raised there, no code that waits for an
  exception of its own (a loop for StopIteration, a handler for TypeError) can
  take it for that. Where tests name what they catch, `named` gives it to them.

  Attributes:
    kind: the builtin exception that was raised, or the nearest one of which it
      is a subclass; None for a broken protocol.
    values: its arguments.
    handle: the exception itself, as a handle, or None.
  """

  def __init__(self, detail, kind=None, arguments=(), handle=None):
    super().__init__(detail[:MAX_DETAIL_CHARS])
    self.kind = _BUILTIN_ERRORS.get(kind)
    self.values = arguments
    self.handle = handle


# Caught only by their own names: the first three end loops and generators of
# whoever raises them, an assertion is the tests' own, the rest end programs.
_EXACT = (
  StopIteration,
  StopAsyncIteration,
  GeneratorExit,
  AssertionError,
  SystemExit,
  KeyboardInterrupt,
)


def named(error, types):
  """`error` as the builtin exception it is, if `types` name that.

  Args:
    error: a CandidateError.
    types: what a handler catches: a class or nested tuples of them.

  Returns:
    What to raise: an instance of exactly the class that was raised there, of
    the class that stands for one of the candidate's own, or `error` itself.
  """
  if isinstance(types, tuple):
    for one in types:
      found = named(error, one)
      if found is not error:
        return found
    return error
  own = getattr(types, '_own_error', None)
  if own is not None:
    if error.handle is not None and isinstance(error.handle, own):
      instance = types(*error.values)
      instance._handle = error.handle
      return instance
    return error
  kind = error.kind
  if kind is None or not isinstance(types, type):
    return error
  if not issubclass(kind, types) or (kind in _EXACT and types is not kind):
    return error
  try:
    instance = kind(*error.values)
  except Exception:
    return error
  return instance if isinstance(instance, kind) else error


_CATCHABLE = {}


def catchable(types):
  """What a handler names, with classes of the candidate made catchable."""
  if isinstance(types, tuple):
    return tuple(catchable(one) for one in types)
  if not getattr(type(types), '_is_handle', False):
    return types
  number = object.__getattribute__(types, '_number')
  if number not in _CATCHABLE:
    _CATCHABLE[number] = type(
      str(types.__name__),
      (Exception,),
      {
        '_own_error': types,
        '_handle': None,
        '__getattr__': lambda self, name: getattr(self._handle, name),
      },
    )
  return _CATCHABLE[number]


def describe(error):
  """`Type: text` of any exception, even one that cannot be shown."""
  try:
    text = f'{type(error).__name__}: {error}'
  except BaseException:
    text = 'an exception that cannot be shown'
  return text[:MAX_DETAIL_CHARS]
