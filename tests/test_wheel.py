"""The package without the checkout: commands, configurations, one version."""

import os
import pathlib
import re
import shutil
import site
import subprocess
import sys
import zipfile

import pytest

import ioa_jax
from ioa_jax import config as config_lib
from tests import test_pipeline

ROOT = pathlib.Path(__file__).parents[1]
SOURCE = (
  'ioa_jax',
  'configs',
  'setup.py',
  'pyproject.toml',
  'MANIFEST.in',
  'README.md',
  'LICENSE',
  'CHANGELOG.md',
)
SPECS = ('quickstart', 'smollm2_135m', 'students:qwen2.5-3b', 'domains:code')


def call(*command, **options):
  # What is in the tree must not be found by accident.
  env = {k: v for k, v in os.environ.items() if k != 'PYTHONPATH'}
  return subprocess.run(
    [str(word) for word in command],
    capture_output=True,
    text=True,
    env=env,
    **options,
  )


@pytest.fixture(scope='module')
def wheel(tmp_path_factory):
  """Built from a copy, which building fills with files of its own."""
  tree = tmp_path_factory.mktemp('tree')
  for name in SOURCE:
    if (ROOT / name).is_dir():
      shutil.copytree(
        ROOT / name, tree / name, ignore=shutil.ignore_patterns('__pycache__')
      )
    else:
      shutil.copy(ROOT / name, tree / name)
  done = call(
    sys.executable,
    '-m',
    'pip',
    'wheel',
    '--no-deps',
    '--no-index',
    '--no-build-isolation',
    '--wheel-dir=dist',
    '.',
    cwd=tree,
  )
  if 'No module named pip' in done.stderr:
    pytest.skip('pip is not installed here, and builds the wheel.')
  assert done.returncode == 0, done.stderr
  (path,) = (tree / 'dist').glob('*.whl')
  return path


@pytest.fixture(scope='module')
def installed(wheel, tmp_path_factory):
  """A fresh environment with the wheel; what it needs is lent from here."""
  place = tmp_path_factory.mktemp('installed')
  call(sys.executable, '-m', 'venv', '--without-pip', place / 'venv')
  python = place / 'venv/bin/python'
  done = call(
    sys.executable,
    '-m',
    'pip',
    f'--python={python}',
    'install',
    '--no-deps',
    '--no-index',
    wheel,
  )
  assert done.returncode == 0, done.stderr
  (packages,) = (place / 'venv').glob('lib/python*/site-packages')
  (packages / 'lent.pth').write_text('\n'.join(site.getsitepackages()))
  (place / 'work').mkdir()

  def run(command, *words):
    return call(place / 'venv/bin' / command, *words, cwd=place / 'work')

  done = run('python', '-c', 'import ioa_jax; print(ioa_jax.__file__)')
  assert pathlib.Path(done.stdout.strip()).is_relative_to(packages)
  return run


@pytest.mark.slow
def test_the_wheel_holds_the_configurations_once_and_one_version(wheel):
  names = zipfile.ZipFile(wheel).namelist()
  for path in (ROOT / 'configs').rglob('*.*'):
    if '__pycache__' not in path.parts:
      name = f'ioa_jax/configs/{path.relative_to(ROOT / "configs")}'
      assert names.count(name) == 1, name
  assert not [n for n in names if n.startswith(('configs/', 'scripts/'))]
  assert f'-{ioa_jax.__version__}-' in wheel.name
  assert (
    '0.1'
    not in re.sub(r'#.*', '', (ROOT / 'setup.py').read_text()).split(
      'setuptools.setup('
    )[1]
  )


@pytest.mark.slow
def test_commands_and_configurations_need_no_checkout(installed):
  assert installed('ioa', '--version').stdout.strip() == ioa_jax.__version__
  done = installed('ioa', 'distill', '--help')
  assert done.returncode == 0 and 'ioa distill --config=' in done.stdout
  code = (
    'import sys; from ioa_jax import config\n'
    'for spec in sys.argv[1:]: print(config.sha256(config.load(spec)))'
  )
  done = installed('python', '-c', code, *SPECS)
  assert done.stdout.split() == [
    config_lib.sha256(config_lib.load(spec)) for spec in SPECS
  ], done.stderr
  done = installed(
    'ioa', 'sweep', '--config=quickstart', '--workdir=W', '--print'
  )
  line = done.stdout.splitlines()[1]
  assert line == (
    'ioa distill --config=quickstart --config.domain.evaluate_on=development '
    '--config.gate.tau_mastery=0.8 --config.seed=0 '
    '--workdir=W/gate.tau_mastery=0.8-0'
  )
  done = installed(
    'ioa', 'distill', '--config=quickstart', '--workdir=RUN', '--dry_run'
  )
  assert done.returncode == 0 and 'probes of the teacher' in done.stdout


@pytest.mark.slow
def test_a_plan_runs_without_the_checkout(installed):
  """Its runs are processes of the same package."""
  small = test_pipeline.SMALL | {'train.total_steps': 10}
  plan = {'config': 'quickstart', 'runs': {'a': {}}, 'changes': small}
  text = f'def get_plan(): return {plan!r}'
  code = f'open("p.py", "w").write({text!r})'
  assert installed('python', '-c', code).returncode == 0
  done = installed('ioa', 'experiment', '--plan=p.py', '--workdir=W')
  assert done.returncode == 0, done.stderr
  assert '| a |' in done.stdout
