"""Commands: help, and what is said of wrong ones. Easy to add to."""

import json
import os
import pathlib
import subprocess
import sys

import pytest

from ioa_jax import commands
from ioa_jax import config as config_lib
from ioa_jax.runtime import commandline

ROOT = pathlib.Path(__file__).parents[1]
RUN = 'distill --config=quickstart --workdir=RUN'
TEXT = 'distill --config=smollm2_135m --workdir=RUN'

# A command, and what its one line says.
WRONG = [
  ('destill', 'ioa destill: no such command; there are distill, diagnose'),
  ('distill', 'is missing: The '),
  ('distill --config=quickstart', '--workdir is missing: The run directory'),
  ('distill --workdir=RUN', '--config is missing'),
  # Values in the wrong place.
  (
    f'{RUN} --config.gate.sequential false',
    'wanted --config.gate.sequential=false, with an equals sign',
  ),
  (f'{RUN} --dry_run false', 'wanted --dry_run=false, with an equals sign'),
  (f'{RUN} stray', "unexpected argument 'stray'; wanted flags only"),
  (f'{RUN} gate.reopen=true', "unexpected argument 'gate.reopen=true'"),
  ('evaluate --model=M --benchmarks=math --output_dir=O x', 'unexpected argum'),
  ('generate --model=M --prompt What is it?', "unexpected argument 'is'"),
  ('sweep --config=quickstart --workdir=RUN --print false', '--print=false'),
  ('ledger', 'wanted one run directory'),
  ('ledger a b', "wanted one run directory, got ['a', 'b']"),
  # Types and ranges, in words.
  (f'{RUN} --config.gate.tau_mastery=high', 'is high, wanted a number in (0'),
  (f'{RUN} --config.gate.tau_mastery=1.5', 'is 1.5, wanted a number in (0, 1]'),
  (f'{RUN} --config.gate.tau_mastery=', 'is , wanted a number in (0, 1]'),
  (f'{RUN} --config.train.total_steps=1e3', 'wanted a whole number >= 1'),
  (f'{RUN} --config.train.total_steps=1', 'so the learning rate would rise'),
  (f'{RUN} --config.gate.reopen=perhaps', 'is perhaps, wanted true or false'),
  (f'{RUN} --config.seed=4294967296', 'a whole number in [0, 4294967296)'),
  (f'{RUN} --config.optimizer.learning_rate=nan', 'wanted a number > 0'),
  (f'{RUN} --config.method=magic', "is 'magic', wanted one of 'ioa'"),
  (f'{TEXT} --config.adapter.strategies=shout', "wanted names of 'concretise'"),
  (f'{RUN} --config.mesh.data=-1 --config.mesh.fsdp=-1', 'at most one axis'),
  (f'{RUN} --rounds=0', '--rounds=0: wanted a whole number >= 1'),
  (f'{RUN} --rounds=many', '--rounds=many: wanted a whole number >= 1'),
  (f'{RUN} --dry_run=maybe', '--dry_run=maybe: wanted true or false'),
  ('generate --model=M --top_p=2', '--top_p=2: wanted a number >= 0.0 and'),
  ('generate --model=M --seed=4294967296', 'wanted a whole number >= 0 and <='),
  ('generate --model=M --dtype=int8', 'one of float32, bfloat16'),
  # Names.
  (f'{RUN} --config.gate.tau_mastrey=1', 'the nearest is config.gate.tau_mast'),
  (f'{RUN} --noconfig.gate.reopn', 'the nearest is config.gate.reopen'),
  (f'{RUN} --config.tau_mastery=1', 'the nearest is config.gate.tau_mastery'),
  (f'{RUN} --config.teacher=builtin', 'config.teacher is a group of settings'),
  (f'{RUN} --wrkdir=RUN', '--wrkdir: no such flag; the nearest is --workdir'),
  (f'{RUN} --wrkdir RUN', '--wrkdir: no such flag; the nearest is --workdir'),
  # Files.
  ('distill --workdir=RUN --config=quikstart', 'one of those that ship: '),
  ('distill --workdir=RUN --config=configs', 'configs is a directory; wanted'),
  ('distill --workdir=RUN --config=broken.py', 'broken.py: line 1: '),
  ('distill --workdir=RUN --config=empty.py', 'it has no get_config()'),
  ('distill --workdir=RUN --config=students:gpt', 'no such student; choose of'),
  ('distill --workdir=RUN --config=domains:music', 'no such domain; choose of'),
  ('distill --workdir=RUN --config=quickstart:x', 'quickstart:x: get_config()'),
  ('sweep --config=smollm2_135m --workdir=W', 'it has no get_sweep()'),
  ('sweep --config=quickstart --workdir=W --seeds=a', 'seed is a, wanted a wh'),
  ('sweep --config=nope --workdir=W', 'nope: no such file'),
  ('experiment --plan=nope --workdir=W', 'that ship: builtin, quickstart'),
  ('experiment --plan=builtin --workdir=W --runs=x', "--runs: ['x'] unknown"),
  # Asked for what cannot be.
  (
    f'{RUN} --rounds=2 --config.seed=4294967295',
    'config.seed is 4294967296, wanted a whole number in [0, 4294967296)',
  ),
  (f'{RUN} --process=1', 'are for --coordinator=HOST:PORT'),
  (f'{TEXT} --config.method=dss', "method 'dss' asks for direct answers"),
  (f'{TEXT} --config.teacher.kind=replay', 'teacher.recording is empty'),
  ('init --output_dir=O', '--seeds is missing: The file'),
  ('init --seeds=none.jsonl --output_dir=O', 'none.jsonl: cannot be read'),
  ('init --seeds=configs --output_dir=O', 'configs'),
  ('init --seeds=empty.py --output_dir=O', 'empty.py: no rows'),
  ('init --seeds=S --output_dir=O --samples=0', 'wanted a whole number >= 1'),
  ('generate --model=M --compare', 'M is not a run directory; --model=RUN'),
  ('evaluate --model=M --output_dir=O', '--benchmarks or --items is missing'),
  ('evaluate --model=M --items=x --output_dir=O', 'add --run=RUN'),
  ('ledger RUN', 'RUN does not exist; is RUN a run directory?'),
]
HELP = [
  *((c.replace('_', '-'), '--help') for c in commands.COMMANDS),
  ('distill', '-h'),
  ('distill', '--config=quickstart', '--helpfull'),
  ('convert_checkpoint', '--help'),
  ('--help',),
  (),
]


@pytest.fixture(scope='module')
def answers(tmp_path_factory):
  """Words of a command to its exit code, stdout and stderr."""
  asked = [tuple(words.split()) for words, _ in WRONG] + HELP
  asked.append(('--version',))
  place = tmp_path_factory.mktemp('place')
  (place / 'broken.py').write_text('def get_config(:')
  (place / 'empty.py').write_text('')
  (place / 'configs').mkdir()
  done = subprocess.run(
    [sys.executable, '-m', 'tests.forked_commands'],
    input=json.dumps(asked),
    capture_output=True,
    text=True,
    cwd=place,
    env=os.environ | {'PYTHONPATH': str(ROOT)},
    check=True,
  )
  assert sorted(os.listdir(place)) == ['broken.py', 'configs', 'empty.py']
  return dict(zip(asked, json.loads(done.stdout), strict=True))


@pytest.mark.parametrize('words,message', WRONG, ids=lambda v: v[:50])
def test_a_mistake_is_one_line_and_exit_code_2(answers, words, message):
  code, out, err = answers[tuple(words.split())]
  assert (code, out) == (2, ''), err
  assert err.startswith('error: ') and err.count('\n') == 1, err
  assert message in err


@pytest.mark.parametrize('words', HELP, ids=' '.join)
def test_help_is_asked_for_and_comes(answers, words):
  code, out, err = answers[words]
  assert (code, err) == (0, '')
  assert max(map(len, out.splitlines())) < 100 and len(out) > 300
  assert 'python scripts' not in out


def test_help_lists_every_flag_and_every_setting(answers):
  _, text, _ = answers['distill', '--help']
  for name in ('workdir', '[no]dry_run', 'rounds', 'coordinator', 'config'):
    assert f'  --{name}\n' in text
  flat = ' '.join(text.split())
  for path, field in config_lib.fields().items():
    assert f'  --config.{path}=' in text
    assert field.wanted in flat
  assert '(a whole number >= 1; default: 1)' in flat
  assert 'ioa distill --config=' in text
  # A command without settings has none.
  assert '--config.' not in answers['ledger', '--help'][1]


def test_a_command_of_each_script_and_a_script_of_each_command(answers):
  _, overview, _ = answers['--help',]
  for name in commands.COMMANDS:
    script = (ROOT / f'scripts/{name}.py').read_text()
    assert f'commandline.run({name}.main)' in script
    assert len(script.splitlines()) < 10
    spoken = commandline.SHORT.get(name, name).replace('_', '-')
    assert f'  {spoken} ' in overview


def test_a_script_spells_itself_as_a_script():
  done = subprocess.run(
    [sys.executable, 'scripts/diagnose.py', '--help'],
    cwd=ROOT,
    capture_output=True,
    text=True,
  )
  assert done.returncode == 0
  assert 'python scripts/diagnose.py --config=' in done.stdout


def test_flags_and_changes_come_to_the_same():
  code = (
    'from ioa_jax import config\n'
    'from ioa_jax.runtime import commandline\n'
    'def define_flags(): commandline.DEFINE_config()\n'
    'def main(argv): print(config.to_json(commandline.config()), end="")\n'
    'commandline.run(main)'
  )
  done = subprocess.run(
    [
      sys.executable,
      '-c',
      code,
      '--config.seed',
      '7',
      '--config=quickstart',
      '--config.gate.reopen',
      '--noconfig.gate.sequential',
      '--config.adapter.strategies=template',
      '--config.adapter.strategies=decompose,concretise',
      "--config.adapter.personas=('a, b', 'c')",
    ],
    capture_output=True,
    text=True,
    check=True,
  )
  wanted = config_lib.load(
    'quickstart',
    {
      'seed': 7,
      'gate.reopen': True,
      'gate.sequential': False,
      'adapter.strategies': ('template', 'decompose', 'concretise'),
      'adapter.personas': ('a, b', 'c'),
    },
  )
  assert done.stdout == config_lib.to_json(wanted)
