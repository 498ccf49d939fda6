"""Typed values as JSON text: what crosses between a candidate and its tests.

Plain data is rebuilt on the other side from exact builtin and standard library
types, so nothing of the sender's own code runs there. Whatever else there is
(objects of own classes, functions, iterators) crosses as the number of an
export, an opaque handle (see `remote`). Lists, dicts and other containers that
can change keep their identity within a message: a second mention is a mark.

Runs inside the sandbox: standard library only, and little of it at the start.
"""

import _json
import sys

MAX_LINE_BYTES = 32 << 20


class Inexpressible(BaseException):
  """A value that is too large or too deep to cross.

  No `Exception`, so that no test can take it for one of its own.
  """


def _named_builtins():
  """Builtin types and pure functions, which cross by name."""
  builtins = vars(sys.modules['builtins'])
  names = (
    'abs all any ascii bin bool bytearray bytes callable chr complex dict '
    'divmod enumerate filter float format frozenset hash hex int isinstance '
    'issubclass iter len list map max min next object oct ord pow print range '
    'repr reversed round set slice sorted str sum tuple type zip'
  ).split()
  found = {name: builtins[name] for name in names}
  return found | {'NoneType': type(None)}


NAMED = _named_builtins()
_NAME_OF = {id(value): name for name, value in NAMED.items()}
_CONSTANTS = {'Ellipsis': Ellipsis, 'NotImplemented': NotImplemented}
_VIEWS = {type({}.keys()): 'K', type({}.items()): 'I', type({}.values()): 'V'}
# Of the standard library: the type to how its constructor is called.
_LIBRARY = {
  ('fractions', 'Fraction'): lambda v: (v.numerator, v.denominator),
  ('decimal', 'Decimal'): lambda v: (str(v),),
  ('datetime', 'date'): lambda v: (v.year, v.month, v.day),
  ('datetime', 'time'): lambda v: (
    v.hour,
    v.minute,
    v.second,
    v.microsecond,
    v.tzinfo,
    v.fold,
  ),
  ('datetime', 'datetime'): lambda v: (
    v.year,
    v.month,
    v.day,
    v.hour,
    v.minute,
    v.second,
    v.microsecond,
    _fixed_zone(v),
    v.fold,
  ),
  ('datetime', 'timedelta'): lambda v: (v.days, v.seconds, v.microseconds),
  ('datetime', 'timezone'): lambda v: _zone(v),
  ('array', 'array'): lambda v: (v.typecode, v.tolist()),
  ('uuid', 'UUID'): lambda v: (str(v),),
}


def _zone(zone):
  offset, name = zone.utcoffset(None), zone.tzname(None)
  return (
    (offset,) if type(zone)(offset).tzname(None) == name else (offset, name)
  )


def _fixed_zone(moment):
  zone = moment.tzinfo
  if zone is None or type(zone).__name__ == 'timezone':
    return zone
  return _module('datetime').timezone(moment.utcoffset())


_DICTS = ('Counter', 'OrderedDict', 'defaultdict')


def _library_type(value):
  """(module, name) if the value's type is one of the standard library's."""
  kind = type(value)
  key = (kind.__module__, kind.__qualname__)
  if isinstance(key[0], str) and isinstance(key[1], str):
    module = sys.modules.get(key[0])
    if module is not None and getattr(module, key[1], None) is kind:
      return key
  return None, None


def _tagged(kind, *parts):
  """One part as it is, several as a list."""
  text = parts[0] if len(parts) == 1 else '[' + ','.join(parts) + ']'
  return '{"' + kind + '":' + text + '}'


def contents(container):
  """A changing container's members, flat and shallow."""
  if isinstance(container, dict):
    return [part for pair in container.items() for part in pair]
  return list(container)


class Encoder:
  """Values to JSON text.

  Args:
    export: an object to (handle, its description), see `remote`.
    known: changing containers that both sides already have.
  """

  def __init__(self, export, known=()):
    self._export = export
    self.containers = []
    self._index = {}
    for container in known:
      self._first_mention(container)

  def _first_mention(self, container):
    self._index[id(container)] = len(self.containers)
    self.containers.append(container)

  def text(self, value):
    """JSON text; a subclass of a scalar becomes the scalar."""
    if value is None:
      return 'null'
    if value is True or value is False:
      return 'true' if value else 'false'
    kind = type(value)
    if kind is int:
      return int.__repr__(value)
    if kind is str:
      return _json.encode_basestring_ascii(value)
    if kind is list or kind is tuple:
      return self._sequence(value, kind)
    if isinstance(value, int):
      return int.__repr__(value)
    if isinstance(value, float):
      text = float.__repr__(value)
      return {'inf': 'Infinity', '-inf': '-Infinity', 'nan': 'NaN'}.get(
        text, text
      )
    if isinstance(value, str):
      return _json.encode_basestring_ascii(str.__str__(value))
    return self._other(value, kind)

  def _items(self, values):
    return '[' + ','.join([self.text(v) for v in values]) + ']'

  def _pairs(self, pairs):
    return '[' + ','.join([self._items(pair) for pair in pairs]) + ']'

  def _sequence(self, value, kind):
    if kind is tuple:
      return _tagged('t', self._items(value))
    return self._mention(value) or self._items(value)

  def _mention(self, container):
    """The mark of a container that was mentioned before, or ''."""
    index = self._index.get(id(container))
    if index is not None:
      return _tagged('m', str(index))
    self._first_mention(container)
    return ''

  def _other(self, value, kind):
    if kind is dict:
      return self._mention(value) or _tagged('d', self._pairs(value.items()))
    if kind is set:
      return self._mention(value) or _tagged('s', self._items(value))
    if kind is bytearray:
      return self._mention(value) or _tagged('a', f'"{value.hex()}"')
    if kind is frozenset:
      return _tagged('f', self._items(value))
    if kind is bytes or kind is memoryview:
      return _tagged('b', f'"{value.hex()}"')
    if kind is complex:
      return _tagged('c', self._items((value.real, value.imag)))
    if kind is range or kind is slice:
      parts = self._items((value.start, value.stop, value.step))
      return _tagged('r' if kind is range else 'l', parts)
    if kind in _VIEWS:
      return _tagged(_VIEWS[kind], self._items(list(value)))
    if value is Ellipsis or value is NotImplemented:
      return _tagged('k', '"Ellipsis"' if value is ... else '"NotImplemented"')
    if id(value) in _NAME_OF:
      return _tagged('n', f'"{_NAME_OF[id(value)]}"')
    return self._of_library(value, kind) or self._handle(value)

  def _of_library(self, value, kind):
    module, name = _library_type(value)
    if (module, name) in _LIBRARY:
      arguments = self._items(_LIBRARY[module, name](value))
      return _tagged('L', f'"{module}"', f'"{name}"', arguments)
    if module == 'collections' and name in _DICTS:
      if mark := self._mention(value):
        return mark
      factory = getattr(value, 'default_factory', None)
      factory = _NAME_OF.get(id(factory))
      head = self._items((name, factory))
      return _tagged('C', head, self._pairs(value.items()))
    if module == 'collections' and name == 'deque':
      if mark := self._mention(value):
        return mark
      return _tagged('Q', self.text(value.maxlen), self._items(value))
    if 'numpy' in sys.modules:
      numpy = sys.modules['numpy']
      if isinstance(value, numpy.generic) and value.dtype.kind in 'biufcSUmM':
        return self.text(value.item())
      if kind is numpy.ndarray and value.dtype.kind in 'biufcSU':
        head = self._items((value.dtype.str, value.shape))
        return _tagged('A', head, self._items(value.ravel().tolist()))
    fields = getattr(kind, '_fields', None)
    if kind.__bases__ == (tuple,) and type(fields) is tuple:
      parts = (kind.__name__, fields, tuple(value))
      return _tagged('N', self._items(parts))
    return ''

  def _handle(self, value):
    handle = self._export(value)
    if isinstance(handle, (int, str)):
      return _tagged('o', self.text(handle))  # The receiver's own object.
    return _tagged('h', self._items(handle))


class Decoder:
  """Parsed JSON to values of exact types.

  Args:
    own: an export's number to the object.
    handle: a description to what stands for the sender's object.
    known: as for the encoder.
  """

  def __init__(self, own, handle, known=()):
    self._own, self._handle = own, handle
    self.containers = list(known)

  def value(self, parsed):
    """The value.

    Raises:
      ValueError, TypeError, KeyError, IndexError, RecursionError and more: of
        text that no encoder wrote.
    """
    if isinstance(parsed, list):
      return self._fill([], parsed)
    if isinstance(parsed, dict):
      ((kind, content),) = parsed.items()
      return getattr(self, f'_build_{kind}')(content)
    return parsed

  def _fill(self, container, parsed):
    self.containers.append(container)
    container.extend([self.value(v) for v in parsed])
    return container

  def _all(self, parsed):
    return [self.value(v) for v in parsed]

  def _fill_dict(self, container, pairs):
    self.containers.append(container)
    for key, content in pairs:
      key = self.value(key)
      container[key] = self.value(content)
    return container

  def _build_m(self, index):
    return self.containers[index]

  def _build_t(self, parsed):
    return tuple(self._all(parsed))

  def _build_d(self, pairs):
    return self._fill_dict({}, pairs)

  def _build_s(self, parsed):
    self.containers.append(found := set())
    found.update(self._all(parsed))
    return found

  def _build_f(self, parsed):
    return frozenset(self._all(parsed))

  def _build_b(self, text):
    return bytes.fromhex(text)

  def _build_a(self, text):
    self.containers.append(found := bytearray.fromhex(text))
    return found

  def _build_c(self, parts):
    return complex(*self._all(parts))

  def _build_r(self, parts):
    return range(*parts)

  def _build_l(self, parts):
    return slice(*self._all(parts))

  def _build_K(self, parsed):
    return dict.fromkeys(self._all(parsed)).keys()

  def _build_I(self, parsed):
    return dict(self._all(parsed)).items()

  def _build_V(self, parsed):
    return dict(enumerate(self._all(parsed))).values()

  def _build_k(self, name):
    return _CONSTANTS[name]

  def _build_n(self, name):
    return NAMED[name]

  def _build_L(self, parts):
    module, name, arguments = parts
    if (module, name) not in _LIBRARY:
      raise KeyError(name)
    arguments, kind = self._all(arguments), getattr(_module(module), name)
    if name in ('time', 'datetime'):
      return kind(*arguments[:-1], fold=arguments[-1])
    return kind(*arguments)

  def _build_C(self, parts):
    (name, factory), pairs = parts
    if name not in _DICTS:
      raise KeyError(name)
    container = getattr(_module('collections'), name)()
    if factory is not None:
      container.default_factory = NAMED[factory]
    return self._fill_dict(container, pairs)

  def _build_Q(self, parts):
    maxlen, parsed = parts
    return self._fill(_module('collections').deque(maxlen=maxlen), parsed)

  def _build_A(self, parts):
    (dtype, shape), parsed = parts
    array = _module('numpy').array(self._all(parsed), dtype=dtype)
    return array.reshape(self.value(shape))

  def _build_N(self, parts):
    name, fields, values = self._all(parts)
    return _module('collections').namedtuple(name, fields)(*values)

  def _build_o(self, number):
    return self._own(number)

  def _build_h(self, parts):
    return self._handle(*self._all(parts))


def _module(name):
  __import__(name)
  return sys.modules[name]


def change(container, members):
  """Gives a container new members in place, as `contents` lists them."""
  if isinstance(container, dict):
    members = list(zip(members[::2], members[1::2], strict=True))
    container.clear()
    for key, value in members:
      container[key] = value
  elif isinstance(container, set):
    container.clear()
    container.update(members)
  elif isinstance(container, (list, bytearray)):
    container[:] = members
  else:
    container.clear()
    container.extend(members)


class _Scanner:
  """What the C scanner behind `json.loads` is configured with."""

  strict = True
  object_hook = None
  object_pairs_hook = None
  parse_float = float
  parse_int = int
  memo = None
  parse_constant = {
    'NaN': float('nan'),
    'Infinity': float('inf'),
    '-Infinity': float('-inf'),
  }.__getitem__


_scan = _json.make_scanner(_Scanner())


def parse(line):
  """One line of JSON.

  Raises:
    ValueError: if it is none.
  """
  text = line.decode('ascii').strip()
  try:
    value, end = _scan(text, 0)
  except StopIteration:
    raise ValueError('no JSON') from None
  if end != len(text):
    raise ValueError('text behind the JSON')
  return value
