"""What all commands share: flags, configurations, help, one-line errors."""

from __future__ import annotations

from collections.abc import Callable, Sequence
import inspect
import pathlib
import re
import sys
import textwrap
from typing import Any

from absl import app, flags, logging
import ml_collections

from ioa_jax import config as config_lib
from ioa_jax.config import describe
from ioa_jax.runtime import terminal

Main = Callable[[Sequence[str]], None]
_WIDTH = 80
# Commands that `ioa` calls otherwise than their scripts are called.
SHORT = {'init_domain': 'init'}
NOT_BETTER = 3  # Exit code of a run whose student is not better than its base.


def DEFINE_config() -> None:  # Named like absl's own DEFINE functions.
  """--config, and a flag for each setting; read them with `config`."""
  flags.DEFINE_string(
    'config',
    None,
    'The name of a configuration that ships, or a Python file with '
    'get_config(); an argument of it stands after a colon, as '
    'students:qwen2.5-3b.',
  )
  flags.mark_flag_as_required('config')
  DEFINE_settings()


def DEFINE_settings() -> None:
  """A flag for each setting; read them with `changes`."""
  for field in config_lib.fields().values():
    # Texts: what they are is said by the checks that all ways in go through.
    parts = (flags.ArgumentParser(), flags.ArgumentSerializer())
    name = f'config.{field.path}'
    if field.kind is tuple:
      flag = flags.MultiFlag(*parts, name, None, field.meaning)
    else:
      flag = flags.Flag(
        *parts, name, None, field.meaning, boolean=field.kind is bool
      )
    flags.DEFINE_flag(flag)


def config() -> ml_collections.ConfigDict:
  """What --config and the flags of its settings come to.

  Raises:
    ConfigError: naming the file or field.
  """
  return config_lib.load(flags.FLAGS.config, changes())


def changes() -> dict[str, Any]:
  """The settings that flags give, by their dotted names.

  Raises:
    ConfigError: for a value that its setting does not take.
  """
  given = {}
  for path, field in config_lib.fields().items():
    texts = flags.FLAGS[f'config.{path}'].value
    if texts is None:
      continue
    if field.kind is tuple:
      given[path] = sum((config_lib.parse(path, t) for t in texts), ())
    else:
      given[path] = config_lib.parse(path, texts)
  return given


def DEFINE_workdir() -> None:
  flags.DEFINE_string('workdir', None, 'The run directory; made if absent.')
  flags.mark_flag_as_required('workdir')


def DEFINE_dry_run() -> None:
  flags.DEFINE_boolean(
    'dry_run',
    False,
    'Only say what the teacher would be asked and what it could cost.',
  )


def DEFINE_processes() -> None:
  flags.DEFINE_boolean(
    'distributed',
    False,
    'This is one of several processes, which find each other as JAX does on '
    'TPU pods, SLURM and Open MPI.',
  )
  flags.DEFINE_string(
    'coordinator',
    None,
    'host:port of process 0, where nothing tells; with --num_processes and '
    '--process. --workdir is one that all of them see.',
  )
  flags.DEFINE_integer('num_processes', None, 'How many, with --coordinator.')
  flags.DEFINE_integer('process', None, 'Which one, from 0.')


def join_processes() -> None:
  """As the flags say; before anything asks for a device.

  Raises:
    ValueError: if the others cannot be found.
  """
  args = flags.FLAGS
  if args.distributed or args.coordinator:
    from ioa_jax.runtime import sharding

    sharding.join(args.coordinator, args.num_processes, args.process)
  elif args.num_processes is not None or args.process is not None:
    raise ValueError(
      '--num_processes and --process are for --coordinator=HOST:PORT.'
    )


def seeds(texts: Sequence[str]) -> list[int]:
  """The numbers of a --seeds list."""
  return [config_lib.parse('seed', text) for text in texts]


def spelled(command: str) -> str:
  """A command as this process was called: of the package or of a checkout."""
  if pathlib.Path(sys.argv[0]).parent.name == 'scripts':
    return f'python scripts/{command}.py'
  return f'ioa {SHORT.get(command, command).replace("_", "-")}'


def run(main: Main, argv: Sequence[str] | None = None) -> None:
  """Runs `main`; a mistake of the caller ends in one line and exit code 2.

  Args:
    main: its module's docstring is the help. Its define_flags(), if there is
      one, is called first; POSITIONAL says what words without a flag are.
    argv: with the name of the command; by default the process's own.
  """
  logging.set_verbosity(logging.WARNING)
  module = sys.modules[main.__module__]
  if define := getattr(module, 'define_flags', None):
    define()
  parse = lambda argv: _parse(argv, module)
  app.run(_guarded(main), argv=argv, flags_parser=parse)


def _guarded(main: Main) -> Main:
  def call(argv):
    try:
      main(argv)
    except ValueError as e:
      fail(str(e))
    except BrokenPipeError:  # As with `| head`.
      sys.stderr.close()
    except OSError as e:
      if e.filename is None:  # Of no path that a person gave.
        raise
      fail(f'{e.filename}: {e.strerror}.')
    except KeyboardInterrupt:
      print('stopped.', file=sys.stderr)
      sys.exit(130)  # As shells count SIGINT.

  return call


def fail(message: str) -> None:
  """Ends the process: one line, exit code 2."""
  message = ' '.join(message.split())
  terminal.say(f'error: {message}', file=sys.stderr)
  sys.exit(2)


def _parse(argv: Sequence[str], module) -> list[str]:
  if set(argv) & {'-h', '-help', '--help', '--helpfull', '--helpshort'}:
    print(_help(module), end='')
    sys.exit(0)
  try:
    rest = flags.FLAGS(argv)
  except (flags.Error, ValueError) as e:
    fail(_in_words(e))
  if len(rest) > 1 and not hasattr(module, 'POSITIONAL'):
    fail(_stray(rest[1], argv))
  return rest


def _stray(word: str, argv: Sequence[str]) -> str:
  """What is said of a word that belongs to no flag."""
  before = argv[argv.index(word) - 1].lstrip('-')
  if before in flags.FLAGS and flags.FLAGS[before].boolean:
    return f'--{before} {word}: wanted --{before}={word}, with an equals sign.'
  return f'unexpected argument {word!r}; wanted flags only, as --name=value.'


def _in_words(error: Exception) -> str:
  """absl's errors, with what to do."""
  if isinstance(error, flags.UnrecognizedFlagError):
    name = error.flagname.removeprefix('no')
    if name.startswith('config.') and 'config.seed' in flags.FLAGS:
      try:
        config_lib.check_name(name.removeprefix('config.'))
      except config_lib.ConfigError as e:
        return f'--{e}'
    known = [n for n in flags.FLAGS if not n.startswith('config.')]
    return (
      f'--{error.flagname}: no such flag; the nearest is '
      f'--{config_lib.nearest(error.flagname, known)}.'
    )
  text = str(error)
  if missing := re.search(r'Flag --(\w+) must have a value', text):
    about = flags.FLAGS[missing[1]].help
    return f'--{missing[1]} is missing: {about}'
  if illegal := re.match(r'flag --([\w.]+)=(.*?): ', text, re.DOTALL):
    if wanted := _wanted(flags.FLAGS[illegal[1]].parser):
      return f'--{illegal[1]}={illegal[2]}: wanted {wanted}.'
  return text


def _wanted(parser: flags.ArgumentParser) -> str:
  """What a flag of absl's own types takes; '' is any text."""
  if isinstance(parser, flags.EnumParser):
    return f'one of {", ".join(parser.enum_values)}'
  if isinstance(parser, flags.BooleanParser):
    return 'true or false'
  if not isinstance(parser, (flags.IntegerParser, flags.FloatParser)):
    return ''
  low, high = parser.lower_bound, parser.upper_bound
  bounds = [f'>= {low}' if low is not None else '']
  bounds += [f'<= {high}' if high is not None else '']
  noun = 'a whole number' if parser.flag_type() == 'int' else 'a number'
  return ' '.join([noun, ' and '.join(filter(None, bounds))]).strip()


def _help(module) -> str:
  """The command's own text, its flags, and the settings if it takes any."""
  about = inspect.getdoc(module) or ''
  about = re.sub(r'python scripts/(\w+)\.py', lambda m: spelled(m[1]), about)
  lines = [about, '', 'Flags:']
  for name, flag in sorted(_own_flags().items()):
    if name.startswith('config.'):
      continue
    lines.append(f'  --{"[no]" if flag.boolean else ""}{name}')
    facts = [_wanted(flag.parser)]
    if flag.default not in (None, ''):
      default = flag.default
      default = tuple(default) if isinstance(default, list) else default
      facts.append(f'default: {describe.render(default)}')
    facts = '; '.join(filter(None, facts))
    about = f'{flag.help} ({facts})' if facts else flag.help
    lines += textwrap.wrap(
      about, _WIDTH, initial_indent=' ' * 6, subsequent_indent=' ' * 6
    )
  if 'config.seed' in flags.FLAGS:
    lines += ['', 'Settings, with their defaults:', describe.help_text(_WIDTH)]
  return '\n'.join(lines) + '\n'


def _own_flags() -> dict[str, flags.Flag]:
  """Those that this project defines, not absl."""
  return {
    flag.name: flag
    for module, defined in flags.FLAGS.flags_by_module_dict().items()
    if not module.startswith('absl')
    for flag in defined
  }
