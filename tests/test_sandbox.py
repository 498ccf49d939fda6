"""Model-written code: what is accepted, what is stopped, and when none runs."""

import concurrent.futures
import json
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import time

import pytest

from ioa_jax.evaluation import benchmarks, code_grading
from ioa_jax.evaluation import sandbox as sandbox_lib
from ioa_jax.evaluation.sandbox import executor, launcher
from tests import reference_solutions, sandbox_attacks
from tests.outside import DATA, ROOT, needs_data


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


@pytest.fixture
def below_tmp():
  with tempfile.TemporaryDirectory(dir='/tmp') as folder:
    yield pathlib.Path(folder)


def test_an_environment_below_tmp(sandbox, below_tmp, monkeypatch):
  tree = below_tmp / 'lib' / 'numpy'
  tree.mkdir(parents=True)
  stand_in = 'class ndarray: pass\nclass generic: pass\nanswer = 42\n'
  (tree / '__init__.py').write_text(stand_in)
  found = (str(tree),), str(tree.parent)
  monkeypatch.setattr(launcher, '_numpy', lambda: found)
  source = (
    'import os, numpy\ndef f():\n  return numpy.answer\n'
    'def g(path):\n  open(path, "w").write("1")\n  return os.listdir("/tmp")\n'
  )
  for tests, outcome in (
    ('assert f() == 42', 'passed'),
    ("assert 'mine' in g('/tmp/mine')", 'passed'),
    (f'assert g({str(tree / "__init__.py")!r})', 'error'),
    (f'assert g({str(tree.parent / "new.py")!r})', 'error'),
  ):
    result = sandbox.run_tests(source, tests, ['f', 'g'])
    assert result.outcome == outcome, result.detail
  assert (tree / '__init__.py').read_text() == stand_in


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
  real = launcher._readable()
  readable = (*real, '/etc/passwd')
  monkeypatch.setattr(launcher, '_readable', lambda: readable)
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
        [path, '-c', check],
        user=65534,
        group=65534,
        extra_groups=[],
        cwd='/',
        capture_output=True,
        check=True,
      )
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
      source, target = ROOT / name, folder / name
      if source.is_dir():
        shutil.copytree(
          source,
          target,
          ignore=lambda d, names: [
            n
            for n in names
            if not (n.endswith('.py') or os.path.isdir(os.path.join(d, n)))
          ],
        )
      else:
        target.parent.mkdir(parents=True)
        shutil.copy(source, target)
    for path in [folder, *folder.rglob('*')]:
      path.chmod(0o755 if path.is_dir() else 0o644)
    done = subprocess.run(
      [interpreter, '-B', str(folder / 'tests/sandbox_attacks.py'), backend],
      user=65534,
      group=65534,
      extra_groups=[],
      cwd='/',
      timeout=300,
      capture_output=True,
      text=True,
      check=False,
      env={},
    )
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
  assert rejected == {}
  assert [k for k, r in reasons.items() if r[1] == 'equal'] == []


@pytest.mark.slow
def test_executions_side_by_side(tools):
  prompt = 'from typing import List\n\ndef f(x: List[int]) -> int:\n'
  test = 'def check(candidate):\n' + ''.join(
    f'  assert candidate([{i}, 1]) == {i + 1}\n' for i in range(8)
  )

  def one(_):
    return code_grading.grade_humaneval(
      tools.sandbox,
      '  return sum(x)\n',
      prompt=prompt,
      test=test,
      entry_point='f',
    ).correct

  start = time.monotonic()
  with concurrent.futures.ThreadPoolExecutor(2) as pool:
    assert all(pool.map(one, range(100)))
  print(f'100 executions, 2 at a time: {time.monotonic() - start:.1f} s')


def test_the_tests_of_mbpp_name_what_the_reference_defines():
  tests = 'assert sum(1, 2) == 3\nassert len(g(1)) == sys.maxsize'
  reference = 'import sys\ndef sum(a, b): pass\ndef g(x): pass\ny = 1\n'
  assert code_grading.tested_functions(tests, reference) == (
    ['sum', 'g'],
    'import sys',
  )


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
    ('1 2\n', '1 2\r\n', True),
    ('a 1.0', 'a 1', False),
    ('a  b', 'a b', False),
    ('sNaN', 'snan', False),
    ('1', 'sNaN', False),
    ('-sNaN1 2', '-sNaN1  2', False),
    ('1e3', '1000', True),
    ('0.1', '0.10000000000000001', False),
    ('1e999999999', '2e999999999', False),
  ],
)
def test_output_comparison(expected, got, same):
  assert code_grading.same_output(expected, got) is same


def test_one_object_answers_all_cases_as_upstream(tools):
  code = (
    'class Solution:\n  def __init__(self):\n    self.n = 0\n'
    '  def f(self):\n    self.n += 1\n    return self.n, (1,)\n'
  )
  for cases, correct in (
    ([([], [1, [1]])], False),  # Only the outer tuple is a list.
    ([([], [1])], False),
  ):
    verdict = code_grading.grade_functional(
      tools.sandbox, code, function='f', cases=cases
    )
    assert verdict.correct is correct
  counting = code.replace(', (1,)', '')
  assert code_grading.grade_functional(
    tools.sandbox, counting, function='f', cases=[([], 1), ([], 2)]
  ).correct


def test_output_may_be_larger_than_a_megabyte(tools):
  code = 'for i in range(int(input())): print(10 ** 9 + i)'
  lines = ''.join(f'{10**9 + i}\n' for i in range(150_000))
  assert code_grading.grade_stdin(
    tools.sandbox, code, cases=[('150000\n', lines)]
  ).correct


@pytest.mark.parametrize(
  ('tests', 'names'),
  [
    ('assert f(1) == 2', ['f']),
    ('import math\nassert math.isclose(f(g(1)), 2)', ['f', 'g']),
    ('s = Stack()\ns.push(1)\nassert s.pop() == 1', ['Stack']),
    ('assert sum([1]) == 1', ['sum']),
    ('assert f(len([1])) == sum([K])', ['f', 'K']),
    ('import pytest\nwith pytest.raises(E):\n  f(1)', ['f', 'E']),
    ('def g(x):\n  return x\nassert g(1) == 1', []),
    ('f(1)', []),
    ('assert True', []),
    ('import os\nassert f(os.getcwd())', ['f']),
    ('assert f.__globals__ == g(1)', []),
    ('assert (', []),
  ],
)
def test_names_that_tests_use_of_the_candidate(tests, names):
  assert code_grading.called_functions(tests) == names


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
    # As upstream: what a program exits with is not judged.
    ('print(sum(map(int, input().split())))\nexit(1)', 'equal'),
    ('print(sum(map(int, input().split())))\nquit()', 'equal'),
    ('print(floor(sum(map(int, sys.stdin.read().split()))))', 'equal'),
    ('import math\nprint(pow(sum(map(int, input().split())), 1, 99))', 'equal'),
    ("print(sum(map(int, open('/dev/stdin').read().split())))", 'equal'),
    ('print(numpy)', 'error'),
    (
      'import numpy as np\nprint(np.sum(list(map(int, input().split()))))',
      'equal',
    ),
    (
      'f = lambda n: n and 1 + f(n - 1)\nf(9000)\n'
      'print(sum(map(int, input().split())))',
      'equal',
    ),
    ("print('NaN')", 'different'),
    ("print('sNaN')", 'different'),
  ):
    verdict = code_grading.grade_stdin(tools.sandbox, code, cases=cases)
    assert verdict.reason == reason
  assert not code_grading.grade_stdin(
    tools.sandbox, 'print()', cases=[]
  ).correct
