"""What all scripts share: flags, configs, and errors as one line."""

from __future__ import annotations

from collections.abc import Callable, Sequence
import pathlib
import re
import runpy
import sys

from absl import app, flags, logging
from ml_collections import config_flags

from ioa_jax import config as config_lib


def DEFINE_config() -> None:  # Named like absl's own DEFINE functions.
  config_flags.DEFINE_config_file(
    'config', None, 'A Python file with get_config().', lock_config=True
  )
  flags.mark_flag_as_required('config')


def DEFINE_processes() -> None:
  flags.DEFINE_boolean(
    'distributed', False, 'This is one of several processes, which find each '
    'other as JAX does on TPU pods, SLURM and Open MPI.',
  )  # fmt: skip
  flags.DEFINE_string(
    'coordinator', None, 'host:port of process 0, where nothing tells; with '
    '--num_processes and --process. --workdir is one that all of them see.',
  )  # fmt: skip
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
  try:
    return [int(text) for text in texts]
  except ValueError:
    raise ValueError(
      f'--seeds={",".join(texts)}: wanted whole numbers, as 0,1,2.'
    ) from None


def run(main: Callable[[Sequence[str]], None]) -> None:
  """Runs `main`; a mistake of the caller ends in one line and exit code 2."""
  logging.set_verbosity(logging.WARNING)
  app.run(_guarded(main), flags_parser=_parse)


def _guarded(main):
  def call(argv):
    try:
      main(argv)
    except ValueError as e:
      _fail(str(e))
    except KeyboardInterrupt:
      print('stopped.', file=sys.stderr)
      sys.exit(130)  # As shells count SIGINT.

  return call


def _fail(message: str) -> None:
  print('error: ' + ' '.join(message.split()), file=sys.stderr)
  sys.exit(2)


def _parse(argv: Sequence[str]) -> list[str]:
  try:
    file = _config_file(argv)
    # The library says so only when the config is read, in many lines.
    if file and not pathlib.Path(file).exists():
      raise ValueError(f'--config={file}: no such file; see configs/.')
    return flags.FLAGS(argv)
  except AttributeError as e:  # ml_collections: an unknown field.
    _fail(_unknown_field(str(e), argv))
  except (flags.Error, ValueError, TypeError) as e:
    _fail(str(e))
  raise AssertionError('unreachable')


def _config_file(argv: Sequence[str]) -> str | None:
  return next(
    (m[1] for a in argv if (m := re.match(r'--?config=([^:]+)', a))), None
  )


def _unknown_field(message: str, argv: Sequence[str]) -> str:
  """Names the override that no field has, and the nearest that exists."""
  file = _config_file(argv)
  fields = [m[1] for a in argv if (m := re.match(r'--?config\.([\w.]+)', a))]
  if file and fields:
    config = runpy.run_path(file)['get_config']()
    known = config_lib.flatten(config)
    for field in fields:
      if field not in known:
        return (
          f'--config.{field}: {file} has no such field; the nearest is '
          f'--config.{config_lib.nearest(field, config)}.'
        )
  return message
