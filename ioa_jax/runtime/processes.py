"""Several processes, one run: all of them compute, the first one acts.

Every process calls the same compiled programs in the same order on the same
values. What only one of them can know is told to the others: a server's answer,
a verdict that hangs on a clock, a signal. With one process nothing here costs
anything.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
import concurrent.futures
import hashlib
import json
from typing import Any, TypeVar

import jax
from jax.experimental import multihost_utils
import numpy as np

T = TypeVar('T')

# The others ask whether the first is done this often: gloo, for one, takes a
# process that is waited for longer than half a minute for dead.
_WAIT_SECONDS = 5.0


def is_alone() -> bool:
  """Whether there is one process; then nothing here asks for a device."""
  return not jax.distributed.is_initialized() or jax.process_count() == 1


def is_first() -> bool:
  """Whether this process writes files and talks to servers."""
  return is_alone() or jax.process_index() == 0


def tell(value: Any = None) -> Any:
  """The first process's `value`, in all of them, as JSON has it.

  All must call it at the same place.
  """
  if is_alone():
    return value
  text = json.dumps(value).encode() if is_first() else b''
  size = int(multihost_utils.broadcast_one_to_all(np.int32(len(text))))
  # Few sizes, since each is compiled.
  buffer = np.zeros(1 << max(size - 1, 1).bit_length(), np.uint8)
  buffer[: len(text)] = np.frombuffer(text, np.uint8)
  told = np.asarray(multihost_utils.broadcast_one_to_all(buffer))
  return json.loads(told[:size].tobytes())


def any_of(flag: bool) -> bool:
  """Whether `flag` is set in any process; all must call it."""
  if is_alone():
    return flag
  return bool(multihost_utils.process_allgather(np.bool_(flag)).any())


def on_first(
  act: Callable[[], Any], errors: Sequence[type[ValueError]] = ()
) -> Any:
  """`act()` of the first process, however long it takes, told to all.

  Args:
    act: returns JSON types; it runs in a thread of its own if others wait.
    errors: classes that keep their type in the others.

  Raises:
    ValueError: in the others, if `act` raised anything.
  """
  if is_alone():
    return act()
  with concurrent.futures.ThreadPoolExecutor(1) as pool:
    pending = pool.submit(act) if is_first() else None
    while not tell(pending and _ended(pending)):
      pass
  if pending is None:
    said = tell()
    if 'error' in said:
      kind = {e.__name__: e for e in errors}.get(said['kind'], ValueError)
      raise kind(said['error'])
    return said['value']
  try:
    said = {'value': pending.result()}
  except BaseException as e:
    tell({'error': str(e) or repr(e), 'kind': type(e).__name__})
    raise
  return tell(said)['value']


def _ended(pending: concurrent.futures.Future) -> bool:
  return bool(concurrent.futures.wait([pending], _WAIT_SECONDS).done)


def in_all(act: Callable[[], T]) -> T:
  """`act()` of each process, if it goes well in all of them.

  Raises:
    ValueError: where `act` raised one, and then in all.
  """
  error, value = None, None
  try:
    value = act()
  except ValueError as e:
    error = e
  if any_of(error is not None):
    raise error or ValueError('another process failed and says why.')
  return value


def check_same(what: str, texts: Iterable[str]) -> None:
  """Ends all processes if one has other `texts` than the first one.

  Raises:
    ValueError: rather than a wait for what another never does.
  """
  if is_alone():
    return
  digest = hashlib.sha256('\n'.join(texts).encode()).hexdigest()
  if any_of(tell(digest) != digest):
    raise ValueError(
      f'processes of this run have different {what}; all need the same '
      'command, files and packages.'
    )
