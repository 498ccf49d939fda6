"""What tests may use of Python: names without a way to the interpreter.

Tests of a lesson come from a model, so they are hostile too. Nothing here leads
to frames, descriptors, code objects or modules; `restricted` refuses in a
test's text what could reach them through an attribute. Runs in the sandbox,
where it is a second wall.
"""

import sys

from ioa_jax.evaluation.sandbox import exceptions, operations

# Attributes of generators, coroutines, frames, tracebacks and event loops that
# lead to the interpreter; of arrays, to files and memory.
_REFUSED = frozenset(
  'gi_frame gi_code gi_yieldfrom cr_frame cr_code cr_await cr_origin ag_frame '
  'ag_code ag_await f_back f_builtins f_code f_globals f_locals f_trace '
  'tb_frame tb_next get_loop get_stack tofile fromfile dump ctypes'.split()
)
_DUNDERS = frozenset(
  f'__{name}__'
  for name in (
    *operations.FORWARDED,
    *(
      'init name qualname class doc eq ne hash repr str format await new'
    ).split(),
  )
)
_NAMED_TUPLE = frozenset(('_asdict', '_fields', '_replace', '_make'))


def allowed_attribute(name):
  """Whether tests may read or write an attribute of this name."""
  if name.startswith('_'):
    return name in _DUNDERS or name in _NAMED_TUPLE
  return name not in _REFUSED


_HIDDEN_BUILTINS = frozenset(
  'eval exec compile open input breakpoint help exit quit copyright credits '
  'license globals locals vars dir getattr hasattr setattr delattr '
  '__import__ __loader__ __spec__'.split()
)
_ALL = '*'
# Modules to the names that tests may import; _ALL is every public one that is
# no module itself.
_MODULES = {
  '__future__': _ALL,
  'array': 'array',
  'asyncio': '',
  'bisect': _ALL,
  'cmath': _ALL,
  'collections': 'ChainMap Counter OrderedDict defaultdict deque namedtuple',
  'collections.abc': _ALL,
  'contextlib': 'nullcontext',
  'copy': 'copy deepcopy',
  'datetime': (
    'MAXYEAR MINYEAR date datetime time timedelta timezone tzinfo UTC'
  ),
  'decimal': (
    'Decimal DivisionByZero InvalidOperation ROUND_CEILING ROUND_DOWN '
    'ROUND_FLOOR ROUND_HALF_EVEN ROUND_HALF_UP ROUND_UP getcontext '
    'localcontext'
  ),
  'enum': 'Enum Flag IntEnum IntFlag auto',
  'fractions': 'Fraction',
  'functools': 'cmp_to_key partial reduce',
  'hashlib': 'blake2b md5 sha1 sha224 sha256 sha384 sha512',
  'heapq': (
    'heapify heappop heappush heappushpop heapreplace merge nlargest nsmallest'
  ),
  'io': 'BytesIO StringIO',
  'itertools': _ALL,
  'json': 'JSONDecodeError dumps loads',
  'math': _ALL,
  'numpy': (
    'abs all allclose any arange array array_equal asarray bool_ complex128 '
    'cos dot e exp eye float32 float64 full identity inf int32 int64 '
    'isclose isfinite isnan linspace log matmul max mean min nan ndarray '
    'newaxis ones pi prod reshape round shape sin size sort sqrt std sum '
    'transpose uint8 unique var hstack vstack where zeros'
  ),
  'numpy.linalg': 'det eigvals inv matrix_rank norm solve',
  'numpy.testing': (
    'assert_allclose assert_almost_equal assert_array_almost_equal '
    'assert_array_equal assert_equal'
  ),
  'numbers': 'Complex Integral Number Rational Real',
  'operator': (
    'add and_ concat contains countOf eq floordiv ge getitem gt index '
    'indexOf invert is_ is_not itemgetter le lshift lt matmul mod mul ne '
    'neg not_ or_ pos pow rshift sub truediv truth xor'
  ),
  'pytest': '',
  'random': (
    'Random choice choices gauss getrandbits randint random randrange '
    'sample seed shuffle uniform'
  ),
  're': (
    'A ASCII DOTALL I IGNORECASE M MULTILINE S VERBOSE X compile error '
    'escape findall finditer fullmatch match search split sub subn'
  ),
  'statistics': (
    'StatisticsError fmean geometric_mean harmonic_mean mean median '
    'median_high median_low mode multimode pstdev pvariance quantiles stdev '
    'variance'
  ),
  'string': (
    'ascii_letters ascii_lowercase ascii_uppercase capwords digits '
    'hexdigits octdigits printable punctuation whitespace'
  ),
  'sys': (
    'float_info getrecursionlimit getsizeof int_info maxsize maxunicode '
    'setrecursionlimit version_info'
  ),
  'textwrap': 'dedent fill indent wrap',
  'time': 'monotonic perf_counter process_time sleep time',
  'types': 'SimpleNamespace',
  'typing': (
    'Any Callable Collection Counter DefaultDict Deque Dict FrozenSet '
    'Generator Generic Hashable Iterable Iterator List Literal Mapping '
    'MutableMapping MutableSequence NoReturn Optional Sequence Set Sized '
    'Text Tuple Type TypeVar Union'
  ),
  'uuid': 'UUID',
}


class Raises:
  """`pytest.raises`: as a context manager, or called with a function."""

  def __init__(self, expected, match=None):
    self._expected, self._match = expected, match
    self.value = self.type = None

  def __enter__(self):
    return self

  def __exit__(self, kind, error, traceback):
    if error is None:
      raise AssertionError(f'{self._expected} was not raised')
    types = exceptions.catchable(self._expected)
    if isinstance(error, exceptions.CandidateError):
      error = exceptions.named(error, types)
    if not isinstance(error, types):
      return False
    self.value, self.type = error, type(error)
    if self._match is not None:
      import re

      if re.search(self._match, str(error)) is None:
        raise AssertionError(f'{error} does not match {self._match!r}')
    return True


def _raises(expected, *function, match=None, **kwargs):
  context = Raises(expected, match)
  if not function:
    return context
  with context:
    function[0](*function[1:], **kwargs)
  return context


class _Suppress:
  """`contextlib.suppress`."""

  def __init__(self, *expected):
    self._expected = exceptions.catchable(expected)

  def __enter__(self):
    return None

  def __exit__(self, kind, error, traceback):
    if isinstance(error, exceptions.CandidateError):
      error = exceptions.named(error, self._expected)
    return isinstance(error, self._expected)


class Approximately:
  """`pytest.approx`: numbers within tolerance, also in lists and dicts."""

  def __init__(self, expected, rel=None, abs=None, nan_ok=False):
    self._expected, self._options = expected, (rel, abs, nan_ok)

  def __eq__(self, other):
    want, (rel, tolerance, nan_ok) = self._expected, self._options
    again = lambda value: Approximately(value, rel, tolerance, nan_ok)
    if isinstance(want, dict):
      return (
        isinstance(other, dict)
        and want.keys() == other.keys()
        and all(again(v) == other[k] for k, v in want.items())
      )
    if isinstance(want, (list, tuple)):
      return (
        isinstance(other, (list, tuple))
        and len(want) == len(other)
        and all(again(a) == b for a, b in zip(want, other))
      )
    if want == other:
      return True
    try:
      if nan_ok and want != want and other != other:
        return True
      relative = (1e-6 if rel is None else rel) * abs(want)
      if tolerance is None:
        margin = max(relative, 1e-12)
      else:
        margin = tolerance if rel is None else max(relative, tolerance)
      infinite = float('inf') in (abs(want), abs(other))
      return not infinite and abs(want - other) <= margin
    except TypeError:
      return False

  def __repr__(self):
    return f'approx({self._expected!r})'


def _run(main, **options):
  """`asyncio.run`, also of what a candidate's function returned."""
  import asyncio

  async def wait():
    return await main

  return asyncio.run(wait())


async def _gather(*awaitables):
  import asyncio

  async def wait(awaitable):
    return await awaitable

  return await asyncio.gather(*[wait(a) for a in awaitables])


async def _sleep(delay, result=None):
  import asyncio

  return await asyncio.sleep(delay, result)


async def _wait_for(awaitable, timeout):
  import asyncio

  async def wait():
    return await awaitable

  return await asyncio.wait_for(wait(), timeout)


_OWN = {
  'asyncio': {
    'run': _run,
    'gather': _gather,
    'sleep': _sleep,
    'wait_for': _wait_for,
    'TimeoutError': TimeoutError,
  },
  'contextlib': {'suppress': _Suppress},
  'pytest': {'raises': _raises, 'approx': Approximately},
}


def _module(name, cache):
  """A module's allowed names, as a module of its own."""
  if name in cache:
    return cache[name]
  if name not in _MODULES:
    raise ImportError(f'tests may not import {name!r}')
  names = _MODULES[name].split()
  facade = cache[name] = type(sys)(name)
  if names:
    __import__(name)
    module = sys.modules[name]
    if names == [_ALL]:
      names = [n for n in dir(module) if not n.startswith('_')]
    for one in names:
      value = getattr(module, one, None)
      if value is not None and not isinstance(value, type(sys)):
        setattr(facade, one, value)
  vars(facade).update(_OWN.get(name, {}))
  # Submodules as attributes, as of `import numpy`.
  for other in _MODULES:
    parent, _, child = other.rpartition('.')
    if parent == name:
      setattr(facade, child, _module(other, cache))
  return facade


def _importer():
  cache = {}

  def import_(name, globals=None, locals=None, fromlist=(), level=0):
    if type(fromlist) is list:
      # Not a statement but C code (numpy's) that imports as it runs, with the
      # builtins of whoever called it. It does not look at what is returned.
      __import__(name)
      return None
    if level:
      raise ImportError('tests may not import relatively')
    found = _module(name, cache)
    return found if fromlist else _module(name.partition('.')[0], cache)

  return import_


def _checked(name):
  if type(name) is not str or not allowed_attribute(name):
    raise AttributeError(f'tests may not use the attribute {name!r}')
  return name


def _getattr(value, name, *default):
  return getattr(value, _checked(name), *default)


def _hasattr(value, name):
  return hasattr(value, _checked(name))


def _setattr(value, name, new):
  setattr(value, _checked(name), new)


def _delattr(value, name):
  delattr(value, _checked(name))


def namespace():
  """The global names that tests start with."""
  builtins = {
    name: value
    for name, value in vars(sys.modules['builtins']).items()
    if name not in _HIDDEN_BUILTINS
  }
  builtins |= {
    '__import__': _importer(),
    'getattr': _getattr,
    'hasattr': _hasattr,
    'setattr': _setattr,
    'delattr': _delattr,
  }
  return {
    '__name__': 'tests',
    '__builtins__': builtins,
    '__CandidateError__': exceptions.CandidateError,
    '__named__': exceptions.named,
    '__catchable__': exceptions.catchable,
  }
