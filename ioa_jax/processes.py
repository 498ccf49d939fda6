"""Several processes, one run: all of them compute, the first one acts.

Every process calls the same compiled programs in the same order on the same
values. What only one of them can know is told to the others: a server's answer,
a verdict that hangs on a clock, a signal. With one process nothing here costs
anything.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
import concurrent.futures
import hashlib
import json
from typing import Any

import jax
from jax.experimental import multihost_utils
import numpy as np

# The others ask whether the first is done this often: devices that wait for
# another longer than some tens of seconds take it for dead.
_WAIT_SECONDS = 5.0


def is_first() -> bool:
  """Whether this process writes files and talks to servers."""
  return jax.process_index() == 0


def tell(value: Any = None) -> Any:
  """The first process's `value`, in all of them, as JSON has it.

  All must call it at the same place.
  """
  if jax.process_count() == 1:
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
  if jax.process_count() == 1:
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
    ValueError: in all processes, if `act` raised one.
  """
  if jax.process_count() == 1:
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
  except ValueError as e:
    tell({'error': str(e), 'kind': type(e).__name__})
    raise
  return tell(said)['value']


def _ended(pending: concurrent.futures.Future) -> bool:
  return bool(concurrent.futures.wait([pending], _WAIT_SECONDS).done)


def check_same(what: str, texts: Sequence[str]) -> None:
  """Ends this process if it has other `texts` than the first one.

  Raises:
    RuntimeError: rather than a wait for what the others never do.
  """
  if jax.process_count() == 1:
    return
  digest = hashlib.sha256('\n'.join(texts).encode()).hexdigest()
  if tell(digest) != digest:
    raise RuntimeError(
      f'process {jax.process_index()} has other {what} than process 0; all '
      'need the same files, packages and configuration.'
    )
