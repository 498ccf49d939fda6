"""What a process is: its command, versions, commit and devices."""

from __future__ import annotations

import datetime
import importlib.metadata
import pathlib
import platform
import shlex
import subprocess
import sys

import jax

import ioa_jax
from ioa_jax.records import Start

_PACKAGES = ('jax', 'jaxlib', 'flax', 'optax', 'transformers')
_ROOT = pathlib.Path(ioa_jax.__file__).parent.parent


def start() -> Start:
  """Of this process, now."""
  devices = jax.devices()
  return Start(
    date=datetime.datetime.now(datetime.UTC).isoformat(timespec='seconds'),
    command=command(sys.argv),
    commit=_commit(),
    versions={
      'ioa_jax': ioa_jax.__version__,
      'python': platform.python_version(),
      **{name: importlib.metadata.version(name) for name in _PACKAGES},
    },
    devices=f'{len(devices)} x {devices[0].device_kind}',
    processes=jax.process_count(),
  )


def command(argv: list[str]) -> str:
  """As it can be typed again, where it was typed."""
  program = pathlib.Path(argv[0])
  words = [program.name] if program.name == 'ioa' else ['python', argv[0]]
  return shlex.join([*words, *argv[1:]])


def _commit() -> str:
  """Of the checkout that this package is in; '' if it is installed."""

  def git(*words):
    return subprocess.run(
      ['git', '-C', str(_ROOT), *words], capture_output=True, text=True
    )

  try:
    tracked = git('ls-files', '--error-unmatch', 'ioa_jax/__init__.py')
    if tracked.returncode:
      return ''  # Another project's checkout, with this one in its packages.
    changed = git('status', '--porcelain', '-uno', '--', 'ioa_jax', 'configs')
    head = git('rev-parse', 'HEAD').stdout.strip()
    return f'{head} with changes' if changed.stdout.strip() else head
  except OSError:
    return ''  # There is no git.
