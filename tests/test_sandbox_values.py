"""What crosses between a candidate and its tests: honest code is accepted."""

import collections
import datetime
import decimal
import fractions
import json
import math
import time

from hypothesis import given, settings
from hypothesis import strategies as st
import pytest

from ioa_jax.evaluation import sandbox as sandbox_lib
from ioa_jax.evaluation.sandbox import exceptions, restricted, values


@pytest.fixture(scope='module')
def sandbox():
  try:
    return sandbox_lib.Sandbox()
  except sandbox_lib.SandboxUnavailable as e:
    pytest.skip(str(e))


def _crossed(value):
  """The value as the other side has it; nothing may need a handle."""
  text = values.Encoder(None).text(value)
  # JSON to anyone, not only to the scanner used here.
  assert repr(json.loads(text)) == repr(values.parse(text.encode()))
  return values.Decoder(None, None).value(values.parse(text.encode()))


_hashable = st.none() | st.booleans() | st.integers() | st.text()
_scalars = (
  _hashable
  | st.floats(allow_nan=False)
  | st.binary()
  | st.complex_numbers(allow_nan=False)
  | st.decimals(allow_nan=False)
  | st.fractions()
  | st.dates()
  | st.times()
  | st.datetimes(timezones=st.none() | st.just(datetime.UTC))
  | st.timedeltas()
  | st.binary().map(bytearray)
)
_values = st.recursive(
  _scalars,
  lambda inner: (
    st.lists(inner)
    | st.lists(inner).map(tuple)
    | st.dictionaries(_hashable, inner)
    | st.sets(_hashable)
    | st.frozensets(_hashable)
    | st.builds(collections.deque, st.lists(inner), st.none() | st.just(3))
    | st.dictionaries(_hashable, inner).map(collections.OrderedDict)
    | st.dictionaries(_hashable, st.integers()).map(collections.Counter)
  ),
  max_leaves=12,
)


@settings(max_examples=60, deadline=None)
@given(_values)
def test_values_travel_unchanged(value):
  result = _crossed(value)
  assert type(result) is type(value)
  assert result == value
  assert repr(result) == repr(value) or isinstance(
    value, (set, frozenset, list, tuple, dict, collections.deque)
  )


def test_values_become_builtin_types():
  class Liar(int):
    __eq__ = lambda self, other: True
    __hash__ = int.__hash__

  result = _crossed([Liar(1)])
  assert type(result[0]) is int and result != [2]
  assert math.isnan(_crossed(float('nan')))
  assert _crossed(decimal.Decimal('sNaN')).is_snan()


def test_containers_keep_their_identity():
  inner = [1]
  cycle = [inner, (inner,), {'a': inner}]
  cycle.append(cycle)
  result = _crossed(cycle)
  assert result[0] is result[1][0] is result[2]['a']
  assert result[3] is result and result[0] == [1]


# Candidate and tests, both honest: what Python accepts is accepted. To add one,
# add a line.
HONEST = {
  'keys': ("def f(): return {'a': 1}.keys()", "assert f() == {'a'}"),
  'items': ("def f(): return {'a': 1}.items()", "assert f() == {('a', 1)}"),
  'values': ("def f(): return {'a': 1}.values()", 'assert list(f()) == [1]'),
  'fraction': (
    'from fractions import Fraction\ndef f(): return Fraction(1, 2)',
    'assert f() == 0.5 and f().denominator == 2',
  ),
  'decimal': (
    'from decimal import Decimal\ndef f(): return [Decimal("0.10")]',
    'from decimal import Decimal\nassert f() == [Decimal("0.1")]',
  ),
  'date': (
    'import datetime\ndef f(d): return d + datetime.timedelta(days=1)',
    'from datetime import date\n'
    'assert f(date(2024, 2, 28)) == date(2024, 2, 29)',
  ),
  'deque': (
    'from collections import deque\ndef f(): return deque([1, 2], 5)',
    'from collections import deque\nassert f() == deque([1, 2])',
  ),
  'defaultdict': (
    'from collections import defaultdict\ndef f(): return defaultdict(list)',
    'd = f()\nd[1].append(2)\nassert d == {1: [2]}',
  ),
  'counter': (
    'from collections import Counter\ndef f(s): return Counter(s)',
    "assert f('aab').most_common(1) == [('a', 2)]",
  ),
  'named_tuple': (
    'from collections import namedtuple\nP = namedtuple("P", "x y")\n'
    'def f(): return P(1, 2)',
    'assert f().x == 1 and f() == (1, 2) and isinstance(f(), tuple)',
  ),
  'match': (
    'import re\ndef f(s): return re.match("a(b)", s)',
    'assert f("ab") and not f("c")\nassert f("ab").group(1) == "b"',
  ),
  'sorted_in_place': (
    'def f(a): a.sort()',
    'l = [2, 1]\nassert f(l) is None\nassert l == [1, 2]',
  ),
  'nested_in_place': (
    'def f(d): d["a"].append(1); d["b"] = d["a"]; return d',
    'x = []\nd = {"a": x}\nassert f(d) is d and d["b"] is x == [1]',
  ),
  'set_and_bytearray_in_place': (
    'def f(s, b): s.add(1); b += b"x"',
    's, b = set(), bytearray()\nf(s, b)\nassert s == {1} and b == b"x"',
  ),
  'callback': (
    'def f(g, xs): return [g(x) for x in xs]',
    'seen = []\ndef g(x):\n  seen.append(x)\n  return -x\n'
    'assert f(g, [1, 2]) == [-1, -2] and seen == [1, 2]',
  ),
  'builtin_callback': (
    'def f(g, x): return g(x)',
    'assert f(str, 1) == "1" and f(len, "ab") == 2',
  ),
  'callback_that_raises': (
    'def f(g):\n  try:\n    return g()\n  except KeyError as e:\n'
    '    return e.args',
    'def g():\n  return {}[3]\nassert f(g) == (3,)',
  ),
  'returned_function': (
    'def f(n): return lambda x: x + n',
    'assert f(2)(3) == 5',
  ),
  'recursion_through_tests': (
    'def f(g, n): return 1 if n == 0 else n * g(n - 1)',
    'g = lambda n: f(g, n)\nassert g(6) == 720',
  ),
  'generator': ('def f():\n  yield 1\n  yield 2', 'assert list(f()) == [1, 2]'),
  'endless_generator': (
    'import itertools\ndef f(): return itertools.count(1)',
    'assert [x for x, _ in zip(f(), range(3))] == [1, 2, 3]',
  ),
  'iterator_argument': (
    'def f(it): return next(it)',
    'assert f(iter([7])) == 7',
  ),
  'own_class': (
    'class S:\n  def __init__(self): self.a = []\n'
    '  def push(self, x): self.a.append(x); return self\n'
    '  def __len__(self): return len(self.a)',
    's = S()\ns.push(1).push(2)\nassert len(s) == 2 and s.a == [1, 2]\n'
    'assert isinstance(s, S) and S() != s and S().push(1).push(2) == s',
  ),
  'own_subclass_of_list': (
    'class S(list):\n  def push(self, x): self.append(x)',
    's = S()\ns.push(1)\nassert s == [1] and isinstance(s, list)\n'
    'assert s[0] == 1 and sorted(s) == [1]',
  ),
  'dataclass': (
    'import dataclasses\n@dataclasses.dataclass\nclass P:\n  x: int = 1\n'
    'def f(): return P(3)',
    'assert f() == P(3) and f() != P(4) and f().x == 3',
  ),
  'tree': (
    'class N:\n  def __init__(self, v):\n    self.v, self.l = v, None\n'
    'def f(n): return n.v + (f(n.l) if n.l else 0)',
    'n = N(1)\nn.l = N(2)\nassert f(n) == 3',
  ),
  'class_of_the_tests': (
    'def f(n): return n.v + n.twice()',
    'class N:\n  v = 1\n  def twice(self): return 2 * self.v\n'
    'assert f(N()) == 3',
  ),
  'own_operators': (
    'import functools\n@functools.total_ordering\nclass P:\n'
    '  def __init__(self, x): self.x = x\n'
    '  def __add__(self, other): return P(self.x + other.x)\n'
    '  def __mul__(self, n): return P(self.x * n)\n'
    '  def __abs__(self): return abs(self.x)\n'
    '  def __lt__(self, other): return self.x < other.x\n'
    '  def __eq__(self, other): return self.x == other.x\n'
    '  def __contains__(self, x): return x == self.x',
    'assert P(1) + P(2) == P(3) and P(2) * 3 == P(6) and abs(P(-1)) == 1\n'
    'assert P(1) < P(2) and max([P(1), P(3)]) == P(3) and 3 in P(3)',
  ),
  'enum': (
    'import enum\nclass E(enum.Enum):\n  A = 1\ndef f(): return E.A',
    'assert f() == E.A and f().name == "A" and f().value == 1',
  ),
  'complex_nan_and_big': (
    'def f(): return [1j, float("nan"), 10 ** 5000]',
    'a, b, c = f()\nassert a == 1j and b != b and c == 10 ** 5000',
  ),
  'array': (
    'from array import array\ndef f(): return array("i", [1, 2])',
    'assert list(f()) == [1, 2]',
  ),
  'numpy': (
    'import numpy as np\ndef f(n): return np.arange(n).reshape(2, -1)',
    'import numpy as np\nassert np.allclose(f(4), [[0, 1], [2, 3]])\n'
    'assert f(4).tolist() == [[0, 1], [2, 3]] and f(4).sum() == 6',
  ),
  'asyncio_inside': (
    'import asyncio\nasync def g(x):\n  await asyncio.sleep(0)\n  return x\n'
    'def f(x): return asyncio.run(g(x))',
    'assert f(2) == 2',
  ),
  'asyncio_outside': (
    'import asyncio\nasync def f(x):\n  await asyncio.sleep(0.01)\n  return x',
    'import asyncio\nassert asyncio.run(f(2)) == 2\n'
    'async def main():\n  return await asyncio.gather(f(1), f(3))\n'
    'assert asyncio.run(main()) == [1, 3]',
  ),
  'raises': (
    'def f(): raise ValueError("bad")',
    'try:\n  f()\n  assert False\nexcept ValueError as e:\n'
    '  assert str(e) == "bad" and type(e) is ValueError',
  ),
  'raises_a_subclass': (
    'def f(): return b"\\xff".decode()',
    'try:\n  f()\n  assert False\nexcept ValueError as e:\n'
    '  assert type(e) is UnicodeDecodeError and e.start == 0',
  ),
  'raises_its_own': (
    'class E(Exception): pass\ndef f(): raise E("z")',
    'import pytest\nwith pytest.raises(E, match="z"):\n  f()\n'
    'try:\n  f()\n  assert False\nexcept E as e:\n  assert str(e) == "z"',
  ),
  'raises_something': (
    'def f(): raise KeyError("k")',
    'try:\n  f()\nexcept Exception as e:\n  caught = e\n'
    'assert isinstance(caught, KeyError)',
  ),
  'raises_stop_iteration': (
    'def f(): return next(iter([]))',
    'import pytest\nwith pytest.raises(StopIteration):\n  f()',
  ),
  'raises_an_assertion': (
    'def f(x): assert x > 0',
    'import pytest\nwith pytest.raises(AssertionError):\n  f(-1)\n'
    'assert f(1) is None',
  ),
  'approx': (
    'def f(): return [0.1 + 0.2]',
    'import pytest\nassert f() == pytest.approx([0.3])',
  ),
  'context_manager': (
    'import contextlib\n@contextlib.contextmanager\ndef f():\n  yield 3',
    'with f() as x:\n  assert x == 3',
  ),
  'constant': (
    'K = {"a": 1}\ndef f(): return K',
    'assert f() == K == {"a": 1}',
  ),
  'exit_is_there': (
    'def f(x):\n  if x: exit(3)\n  return 1',
    'assert f(0) == 1\ntry:\n  f(1)\n  assert False\nexcept SystemExit as e:\n'
    '  assert e.code == 3',
  ),
}
# What a liar would like to pass; each is Python's own answer without the lie.
DIFFERENT = {
  'own_equality': (
    'class P:\n  def __init__(self, x): self.x = x\n'
    '  def __eq__(self, other): return True\ndef f(): return P(1)',
    'assert f() == P(2)',
  ),
  'other_class': (
    'class A: pass\nclass P: pass\ndef f(): return A()',
    'assert f() == P()',
  ),
  'object_for_a_value': (
    'class P:\n  __eq__ = lambda s, o: True\ndef f(): return [P()]',
    'assert f() == [3]',
  ),
  'subclass_of_list': (
    'class P(list):\n  __eq__ = lambda s, o: True\ndef f(): return P([1])',
    'assert f() == [3]',
  ),
  'true_match': (
    'import re\ndef f(s): return re.match("a", s)',
    'assert f("a") == True',
  ),
  'class_made_beside_the_tests': (
    'def f(cls):\n'
    '  channel = object.__getattribute__(cls, "_channel")\n'
    '  kinds = [cls]\n'
    '  for n in range(9):\n'
    '    kinds.append(channel._objects.import_(n, 0, "x", 0, None))\n'
    '  kinds.append(type)\n'
    '  for name in ("__class__", "__base__"):\n'
    '    try:\n'
    '      kinds.append(channel.ask("get", cls, name))\n'
    '    except Exception:\n'
    '      pass\n'
    '  lie = {"__eq__": lambda *both: True}\n'
    '  for kind in kinds:\n'
    '    try:\n'
    '      made = channel.ask("call", kind, ("Same", (), lie), {})\n'
    '      return channel.ask("call", made, (), {})\n'
    '    except Exception:\n'
    '      pass\n',
    'class C: pass\nassert f(C) == [3]',
  ),
  'no_pair_from_next': (
    'def f():\n  raise TypeError',
    'import pytest\nwith pytest.raises(ValueError):\n  next(map(f, [1]))',
  ),
  'order': (
    'class A:\n  __gt__ = __lt__ = lambda s, o: True\ndef f(): return A()',
    'assert f() > 5 and 5 < f()',
  ),
  'order_of_a_named_class': (
    'class P:\n  __gt__ = __lt__ = lambda s, o: True\ndef f(p): return P()',
    'assert f(P()) > 5',
  ),
  'difference': (
    'class A:\n  __sub__ = __rsub__ = lambda s, o: 0.0\ndef f(): return A()',
    'assert abs(f() - 2.5) < 1e-6',
  ),
  'difference_of_a_named_class': (
    'class P:\n  __sub__ = __rsub__ = lambda s, o: s\n'
    '  __abs__ = __float__ = lambda s: 0.0\ndef f(p): return P()',
    'assert abs(f(P()) - 2.5) < 1e-6',
  ),
  'membership': (
    'class A:\n  __contains__ = lambda s, o: True\n'
    '  __iter__ = lambda s: iter(())\ndef f(): return A()',
    'assert 3 in f()',
  ),
  'membership_in_what_holds_liars': (
    'class A:\n  __eq__ = lambda s, o: True\ndef f(): return [A()]',
    'assert 3 in f()',
  ),
  'order_of_two': (
    'class A:\n  __gt__ = __lt__ = lambda s, o: True\ndef f(x): return A()',
    'assert f(1) < f(2)',
  ),
  'wrong_exception': (
    'def f(): raise UnicodeDecodeError("u", b"", 0, 1, "x")',
    'import pytest\nwith pytest.raises(TypeError):\n  f()',
  ),
  'exception_of_the_same_name': (
    'class ValueError(Exception): pass\ndef f(): raise ValueError',
    'import builtins\ntry:\n  f()\nexcept ValueError:\n  pass',
  ),
}


def _run(sandbox, pair):
  source, tests = pair
  names = [n for n in ('f', 'S', 'P', 'N', 'E', 'K') if f' {n}' in f' {source}']
  return sandbox.run_tests(source, tests, names)


@pytest.mark.parametrize('name', HONEST)
def test_honest_code_is_accepted(sandbox, name):
  result = _run(sandbox, HONEST[name])
  assert result.passed, result


@pytest.mark.parametrize('name', DIFFERENT)
def test_what_differs_is_refused(sandbox, name):
  assert not _run(sandbox, DIFFERENT[name]).passed


def test_each_case_has_its_own_limit_on_time():
  limits = sandbox_lib.Limits(wall_seconds=20, cpu_seconds=1)
  try:
    sandbox = sandbox_lib.Sandbox(limits)
  except sandbox_lib.SandboxUnavailable as e:
    pytest.skip(str(e))
  source = (
    'import time\ndef f(n):\n  end = time.process_time() + n\n'
    '  while time.process_time() < end: pass\n  return n\n'
  )
  tests = 'for n in [0.4, 0.4, 0.4]:\n  assert f(n) == n'
  assert sandbox.run_tests(source, tests, ['f'], cases=3).passed
  assert not sandbox.run_tests(source, tests, ['f']).passed
  start = time.monotonic()
  assert not sandbox.run_tests(source, 'f(99)', ['f'], cases=9).passed
  assert time.monotonic() - start < 9


def test_a_handler_gets_what_it_names_and_nothing_else():
  error = exceptions.CandidateError('', 'KeyError', (1,))
  assert type(exceptions.named(error, LookupError)) is KeyError
  assert type(exceptions.named(error, (OSError, (KeyError,)))) is KeyError
  assert exceptions.named(error, (ValueError, TypeError)) is error
  for kind in ('StopIteration', 'AssertionError', 'SystemExit'):
    error = exceptions.CandidateError('', kind)
    assert exceptions.named(error, (Exception, BaseException)) is error
  # Arguments that the class refuses must not turn into a TypeError.
  broken = exceptions.CandidateError('', 'UnicodeDecodeError', (1,))
  assert exceptions.named(broken, (ValueError, TypeError)) is broken
  assert not isinstance(error, Exception)


@pytest.mark.parametrize(
  ('source', 'message'),
  [
    ('f.__globals__', "attribute '__globals__'"),
    ('(x for x in []).gi_frame', "attribute 'gi_frame'"),
    ('__import__("os")', "name '__import__'"),
    ('def f(__x): pass', "name '__x'"),
    ('match f:\n  case object(a=b): pass', 'MatchClass'),
    ('assert (', 'no Python'),
    ('assert 1\0', 'no Python|null bytes'),
    ('(' * 9999, 'no Python'),
  ],
)
def test_tests_are_checked_before_they_run(source, message):
  with pytest.raises(ValueError, match=message):
    restricted.parse(source)


def test_fractions_cross_as_their_parts():
  assert values.Encoder(None).text(fractions.Fraction(1, 2)) == (
    '{"L":["fractions","Fraction",[1,2]]}'
  )
