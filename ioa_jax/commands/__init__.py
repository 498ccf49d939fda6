"""What `ioa` and scripts/ run: one module a command, its docstring its help.

A command has main(argv), and define_flags() so that importing one defines none.
"""

from __future__ import annotations

import importlib
import sys

from ioa_jax.runtime import commandline, terminal

# In the order in which one needs them.
COMMANDS = (
  'distill',
  'diagnose',
  'synthesize',
  'evaluate',
  'generate',
  'init_domain',
  'map_seeds',
  'gsm8k_seeds',
  'domain_seeds',
  'experiment',
  'sweep',
  'ledger',
  'convert_checkpoint',
)


def main() -> None:
  """The console command `ioa`: its first word says what to do."""
  first, *rest = sys.argv[1:] or ['--help']
  if first in ('-h', '--help', 'help'):
    terminal.say(_overview(), end='')
    return
  if first == '--version':
    import ioa_jax

    terminal.say(ioa_jax.__version__)
    return
  names = {commandline.SHORT.get(c, c): c for c in COMMANDS}
  name = first.replace('-', '_')
  name = names.get(name, name)
  if name not in COMMANDS:
    commandline.fail(
      f'ioa {first}: no such command; there are '
      f'{", ".join(c.replace("_", "-") for c in names)}.'
    )
  module = importlib.import_module(f'ioa_jax.commands.{name}')
  commandline.run(module.main, [f'ioa {first}', *rest])


def _overview() -> str:
  lines = ['Pedagogically ordered distillation: ioa COMMAND --help.', '']
  for name in COMMANDS:
    module = importlib.import_module(f'ioa_jax.commands.{name}')
    about = (module.__doc__ or '').split('\n')[0]
    spoken = commandline.SHORT.get(name, name).replace('_', '-')
    lines.append(f'  {spoken:20}{about}')
  return '\n'.join(lines) + '\n'
