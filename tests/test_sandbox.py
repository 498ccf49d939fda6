"""Model-written code: what is accepted, what is stopped, and when none runs."""

import concurrent.futures
import json
import math
import os
import pathlib
import shutil
import subprocess
import sys
import time

from hypothesis import given
from hypothesis import strategies as st
import pytest

from ioa_jax.evaluation import benchmarks, code_grading
from ioa_jax.evaluation import sandbox as sandbox_lib
from ioa_jax.evaluation.sandbox import child as sandbox_child
from ioa_jax.evaluation.sandbox import executor
from tests import reference_solutions, sandbox_attacks

REPOSITORY = pathlib.Path(__file__).parents[1]
DATA = REPOSITORY.parent / 'shared' / 'data'
needs_data = pytest.mark.skipif(
  not DATA.is_dir(), reason=f'real benchmark files are not at {DATA}'
)


@pytest.fixture(scope='module', params=sandbox_lib.BACKENDS)
def backend(request):
  if problem := sandbox_lib.self_test(request.param):
    pytest.skip(f'{request.param}: {problem}')
  return request.param


@pytest.fixture(scope='module')
def sandbox(backend):
  return sandbox_lib.Sandbox(backend=backend)


@pytest.fixture(scope='module')
def tools():
  try:
    sandbox = sandbox_lib.Sandbox()
  except sandbox_lib.SandboxUnavailable as e:
    pytest.skip(str(e))
  with benchmarks.Tools(sandbox) as tools:
    yield tools


_literals = st.recursive(
  st.none()
  | st.booleans()
  | st.integers()
  | st.floats(allow_nan=False)
  | st.text()
  | st.binary()
  | st.complex_numbers(allow_nan=False),
  lambda inner: (
    st.lists(inner)
    | st.lists(inner).map(tuple)
    | st.dictionaries(st.text() | st.integers(), inner)
    | st.frozensets(st.integers() | st.text())
    | st.sets(st.text())
  ),
  max_leaves=20,
)


@given(_literals)
def test_literals_travel_unchanged(value):
  text = sandbox_child.encode(value)
  # JSON to anyone, not only to the scanner used here.
  assert json.loads(text) == sandbox_child._parse(text.encode())
  result = sandbox_child.decode(sandbox_child._parse(text.encode()))
  assert repr(result) == repr(value) or (
    result == value and type(result) is type(value)
  )


def test_literals_become_builtin_types():
  class Liar(int):
    __eq__ = lambda self, other: True
    __hash__ = int.__hash__

  result = sandbox_child.decode(
    sandbox_child._parse(sandbox_child.encode([Liar(1)]).encode())
  )
  assert type(result[0]) is int and result != [2]
  assert math.isnan(sandbox_child._parse(b'NaN'))
  with pytest.raises(sandbox_child.Inexpressible, match='type object'):
    sandbox_child.encode(object())


def test_tests_run_beside_the_candidate(sandbox):
  source = 'def add(a, b=1):\n  return {a: (a + b, None)}\n'
  tests = (
    'assert add(1) == {1: (2, None)}\n'
    "assert add('x', b='y') == {'x': ('xy', None)}\n"
    'import math\n'
    'assert helper(add(10 ** 5000, -1)) == 1\n'
  )
  setup = 'def helper(value):\n  return len(value)\n'
  result = sandbox.run_tests(source, tests, ['add'], setup)
  assert (result.outcome, result.calls) == ('passed', 3)


def test_a_wrong_answer_says_so(sandbox):
  result = sandbox.run_tests(
    'def f(x):\n  return x\n', "assert f(1) == 2, 'one is not two'", ['f']
  )
  assert result.outcome == 'assertion' and 'one is not two' in result.detail
  result = sandbox.run_tests('def f(x): return 1 / 0\n', 'f(1)', ['f'])
  assert result.outcome == 'error' and 'ZeroDivisionError' in result.detail


def test_expected_exceptions_reach_the_tests(sandbox):
  tests = 'try:\n  f(1)\nexcept ValueError:\n  pass\nelse:\n  assert False\n'
  raising = 'def f(x):\n  raise ValueError(x)\n'
  assert sandbox.run_tests(raising, tests, ['f']).passed
  assert not sandbox.run_tests('def f(x): return x\n', tests, ['f']).passed


def test_tests_that_ask_nothing_prove_nothing(sandbox):
  result = sandbox.run_tests('def f(): return 1\n', 'assert True', ['f'])
  assert result.outcome == 'no_calls' and not result.passed


def test_programs(sandbox):
  source = 'import sys\nfor line in sys.stdin:\n  print(int(line) * 2)\n'
  result = sandbox.run_program(source, '1\n2\n')
  assert result == sandbox_lib.ProgramResult('exited', 0, '2\n4\n')
  assert sandbox.run_program('raise ValueError', '').exit_code == 1
  assert sandbox.run_program('import sys\nsys.exit(0)', '').exit_code == 0
  # Threads work: a large stack for deep recursion is a common idiom.
  deep = (
    'import sys, threading\nsys.setrecursionlimit(10**6)\n'
    'threading.stack_size(1 << 27)\n'
    'def f(n):\n  return 0 if n == 0 else 1 + f(n - 1)\n'
    't = threading.Thread(target=lambda: print(f(50000)))\n'
    't.start()\nt.join()\n'
  )
  assert sandbox.run_program(deep, '').stdout == '50000\n'
  own = "open('/tmp/x', 'w').write('1')\nprint(open('/tmp/x').read())\n"
  assert sandbox.run_program(own, '').stdout == '1\n'


def test_limits_are_kept(backend):
  limits = sandbox_lib.Limits(wall_seconds=3, cpu_seconds=1, output_bytes=99)
  sandbox = sandbox_lib.Sandbox(limits, backend)
  start = time.monotonic()
  assert sandbox.run_program('while True: pass', '').outcome == 'limit'
  sleep = 'import time\ntime.sleep(99)'
  assert sandbox.run_program(sleep, '').outcome == 'limit'
  result = sandbox.run_program("print('x' * 100)", '')
  assert (result.outcome, len(result.stdout)) == ('output', 99)
  assert time.monotonic() - start < 10
  assert sandbox_attacks.left_behind() == []


def test_no_isolation_means_no_execution(monkeypatch):
  monkeypatch.setattr(executor, 'self_test', lambda name: f'no {name}')
  with pytest.raises(
    sandbox_lib.SandboxUnavailable, match='no bubblewrap.*no namespaces'
  ):
    sandbox_lib.Sandbox()
  with pytest.raises(ValueError, match="backend 'none'; there are"):
    sandbox_lib.Sandbox(backend='none')


def test_a_broken_isolation_is_noticed(monkeypatch, backend):
  """The self-test tells an open sandbox from a closed one."""
  real = executor._readable()
  readable = (*real, '/etc/passwd')
  monkeypatch.setattr(executor, '_readable', lambda: readable)
  problem = executor.self_test.__wrapped__(backend)
  assert problem == 'not isolated: reads /etc/passwd'


def _check_attacks(wrong):
  assert int(wrong.pop('count')[0]) >= 60
  assert wrong == {'passed': [], 'escaped': [], 'left': []}


@pytest.mark.slow
def test_attacks(backend):
  _check_attacks(sandbox_attacks.run(backend))


def _ordinary_interpreter() -> str | None:
  """A Python that user 65534 can start (root's own may be in /root)."""
  check = 'import sys; sys.exit(sys.version_info < (3, 11))'
  for path in (sys._base_executable, '/usr/bin/python3'):
    try:
      subprocess.run(
        [path, '-c', check], user=65534, group=65534, extra_groups=[],
        cwd='/', capture_output=True, check=True,
      )  # fmt: skip
    except (OSError, subprocess.CalledProcessError):
      continue
    return path
  return None


@pytest.mark.slow
def test_attacks_as_an_ordinary_user(backend):
  """`test_attacks` runs as whoever runs the tests; root also tries this."""
  if os.geteuid() != 0:
    pytest.skip('already an ordinary user')
  interpreter = _ordinary_interpreter()
  if interpreter is None:
    pytest.skip('no interpreter that another user can start')
  # A copy, because the checkout may be closed to others; not below pytest's
  # folder, which is.
  folder = pathlib.Path(f'/tmp/ioa_jax-attacks-{os.getpid()}')
  try:
    for name in ('ioa_jax/__init__.py', 'ioa_jax/evaluation', 'tests'):
      source, target = REPOSITORY / name, folder / name
      if source.is_dir():
        shutil.copytree(
          source, target, ignore=lambda d, names: [
            n for n in names
            if not (n.endswith('.py') or os.path.isdir(os.path.join(d, n)))
          ],
        )  # fmt: skip
      else:
        target.parent.mkdir(parents=True)
        shutil.copy(source, target)
    for path in [folder, *folder.rglob('*')]:
      path.chmod(0o755 if path.is_dir() else 0o644)
    done = subprocess.run(
      [interpreter, '-B', str(folder / 'tests/sandbox_attacks.py'), backend],
      user=65534, group=65534, extra_groups=[], cwd='/', timeout=300,
      capture_output=True, text=True, check=False, env={},
    )  # fmt: skip
  finally:
    shutil.rmtree(folder, ignore_errors=True)
  assert done.returncode == 0, done.stderr[-2000:]
  _check_attacks(json.loads(done.stdout))


@needs_data
@pytest.mark.slow
@pytest.mark.parametrize(('name', 'every'), [('humaneval', 4), ('mbpp', 20)])
def test_reference_solutions(tools, name, every):
  """A sample; `python tests/reference_solutions.py DATA` takes all of them."""
  reasons = reference_solutions.grade(DATA, name, tools, every)
  rejected = {k: r for k, r in reasons.items() if r[0] != 'equal'}
  assert set(rejected) <= reference_solutions.INEXPRESSIBLE
  assert [k for k, r in reasons.items() if r[1] == 'equal'] == []


@pytest.mark.slow
def test_executions_side_by_side(tools):
  prompt = 'from typing import List\n\ndef f(x: List[int]) -> int:\n'
  test = 'def check(candidate):\n' + ''.join(
    f'  assert candidate([{i}, 1]) == {i + 1}\n' for i in range(8)
  )

  def one(_):
    return code_grading.grade_humaneval(
      tools.sandbox, '  return sum(x)\n', prompt=prompt, test=test,
      entry_point='f',
    ).correct  # fmt: skip

  start = time.monotonic()
  with concurrent.futures.ThreadPoolExecutor(2) as pool:
    assert all(pool.map(one, range(100)))
  print(f'100 executions, 2 at a time: {time.monotonic() - start:.1f} s')


def test_code_is_taken_from_the_block_that_defines_it():
  text = 'First:\n```python\ndef g(): pass\n```\n```\ndef f(x): return 1\n```\n'
  assert code_grading.extract_code(text, 'f') == 'def f(x): return 1\n'
  assert code_grading.extract_code(text) == 'def g(): pass\n'
  assert code_grading.extract_code('```py\nx = 1', 'f') == 'x = 1'
  assert code_grading.extract_code('no code') is None


def test_a_continuation_ends_where_the_body_does():
  prompt = 'def f(x):\n  """Doc."""\n'
  source = code_grading.function_source(
    prompt, '  return x\n\nprint(f(1))\n  more\n', 'f'
  )
  assert source == prompt + '  return x\n\n'
  whole = '```python\ndef f(x):\n  return 2\n```'
  assert code_grading.function_source(prompt, whole, 'f').endswith(
    '\n\ndef f(x):\n  return 2\n\n'
  )


def test_the_tests_of_mbpp_name_what_the_reference_defines():
  tests = 'assert sum(1, 2) == 3\nassert len(g(1)) == sys.maxsize'
  reference = 'import sys\ndef sum(a, b): pass\ndef g(x): pass\ny = 1\n'
  assert code_grading.tested_functions(tests, reference) == (
    ['sum', 'g'], 'import sys'
  )  # fmt: skip


@pytest.mark.parametrize(
  ('expected', 'got', 'same'),
  [
    ('1 2\n3\n', '1 2\n3', True),
    ('1 2', '1  2 \n', True),
    ('1.50', '1.5', True),
    ('1', '2', False),
    ('1\n2', '1 2', False),
    ('NaN', 'nan', False),
    ('YES', 'yes', False),
    ('1', '', False),
    ('1', '1\n1', False),
  ],
)
def test_output_comparison(expected, got, same):
  assert code_grading.same_output(expected, got) is same


def test_livecodebench_forms(tools):
  functional = {'function': 'twice', 'cases': [([3], 6), ([[1]], [1, 1])]}
  method = 'class Solution:\n  def twice(self, x: List) -> int:\n'
  for code, correct in (
    (f'{method}    return tuple(x * 2) if x == [1] else x * 2\n', True),
    (f'{method}    return x\n', False),
    ('def twice(x):\n  return x * 2\n', True),
    ('def other(x):\n  return x * 2\n', False),
  ):
    verdict = code_grading.grade_functional(
      tools.sandbox, f'```python\n{code}```', **functional
    )
    assert verdict.correct is correct
  cases = [('1 2\n', '3\n'), ('4 5\n', '9\n')]
  for code, reason in (
    ('print(sum(map(int, input().split())))', 'equal'),
    ('print(3)', 'different'),
    ('print(3)\nraise ValueError', 'error'),
  ):
    verdict = code_grading.grade_stdin(tools.sandbox, code, cases=cases)
    assert verdict.reason == reason
  assert not code_grading.grade_stdin(
    tools.sandbox, 'print()', cases=[]
  ).correct
