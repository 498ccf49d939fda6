"""What one side does for the other, on an object of its own.

Runs inside the sandbox.
"""

# Methods of the language that a handle has if its object's class has them.
FORWARDED = (
  'call iter next len length_hint getitem setitem delitem contains bool int '
  'float complex index round trunc floor ceil enter exit abs neg pos invert '
  'add radd iadd sub rsub isub mul rmul imul truediv rtruediv floordiv '
  'rfloordiv mod rmod pow rpow divmod rdivmod matmul rmatmul and rand iand or '
  'ror ior xor rxor ixor lshift rshift lt le gt ge reversed bytes fspath '
  'aenter aexit aiter anext'
).split()
BASES = (list, tuple, dict, set, frozenset)


def perform(operation, arguments):
  """What either side does for the other: an operation on its own object."""
  target, *rest = arguments
  if operation == 'call':
    args, kwargs = rest
    return target(*args, **kwargs)
  if operation == 'method':
    name, args, kwargs = rest
    if name not in FORWARDED:
      raise ValueError(f'the operation {name!r}')
    return getattr(type(target), f'__{name}__')(target, *args, **kwargs)
  if operation == 'next':
    try:
      return type(target).__next__(target), False
    except StopIteration:
      return None, True
  if operation in ('str', 'repr'):
    return str(target) if operation == 'str' else repr(target)
  if operation == 'format':
    return format(target, *rest)
  if operation == 'get':
    return getattr(target, *rest)
  if operation == 'set':
    return setattr(target, *rest)
  if operation == 'delete':
    return delattr(target, *rest)
  if operation == 'isinstance':
    return isinstance(target, *rest)
  if operation == 'copy':
    copy = __import__('copy')
    return (copy.deepcopy if rest[0] else copy.copy)(target)
  if operation == 'value':
    return plain(target)
  if operation == 'state':
    return state(target)
  if operation == 'await':
    return run_coroutine(target)
  raise ValueError(f'the operation {operation!r}')


def plain(value):
  """An object of a class derived from a container, as that container."""
  base = next(b for b in BASES if isinstance(value, b))
  return dict(value.items()) if base is dict else base(value)


def state(value):
  """An object's attributes by name, None if it has no state of its own."""
  kind = type(value)
  if isinstance(value, type) or callable(value) or hasattr(kind, '__next__'):
    return None
  found = dict(getattr(value, '__dict__', {}))
  for base in kind.__mro__:
    names = base.__dict__.get('__slots__', ())
    for name in (names,) if isinstance(names, str) else names:
      if hasattr(value, name) and name not in ('__dict__', '__weakref__'):
        found[name] = getattr(value, name)
  return found


_loop = None


def run_coroutine(awaitable):
  """Runs it to its end; one event loop for all of a candidate's."""
  global _loop
  asyncio = __import__('asyncio')
  if _loop is None:
    _loop = asyncio.new_event_loop()

  async def main():
    return await awaitable

  return _loop.run_until_complete(main())
