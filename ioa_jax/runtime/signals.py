"""SIGTERM and SIGINT as a wish, so that what is under way is saved."""

from __future__ import annotations

import signal
import threading
from typing import Any

from ioa_jax.runtime import processes

# The signal that this process was last asked to stop by, and did.
stopped_by: str | None = None
_open: list[StopRequest] = []


def exit_code() -> int:
  """As shells count the signal that stopped the run; 0 if none did."""
  return 128 + signal.Signals[stopped_by] if stopped_by else 0


def is_stopping() -> bool:
  """Whether this process was asked to stop, for waits inside a window."""
  return any(request.signal_name is not None for request in _open)


class StopRequest:
  """Turns SIGTERM and SIGINT into a flag, so that a window ends and is saved.

  Used as a context; outside the main thread it never asks to stop.
  """

  def __init__(self):
    self.signal_name: str | None = None
    # What all processes know of, since they last agreed.
    self.agreed: str | None = None
    self._previous: dict[int, Any] = {}

  def __enter__(self):
    _open.append(self)
    if threading.current_thread() is threading.main_thread():
      for number in (signal.SIGTERM, signal.SIGINT):
        self._previous[number] = signal.signal(number, self._on_signal)
    return self

  def _on_signal(self, number, _):
    self.signal_name = signal.Signals(number).name
    # A second signal of the same kind acts as it would without us.
    signal.signal(number, self._previous[number])

  def agree(self) -> bool:
    """Whether any process of the run was asked to stop; all must call it."""
    global stopped_by
    if processes.any_of(self.signal_name is not None):
      self.agreed = self.signal_name or 'a signal to another process'
      stopped_by = self.signal_name or 'SIGTERM'
    return self.agreed is not None

  def __exit__(self, *_):
    _open.remove(self)
    for number, handler in self._previous.items():
      signal.signal(number, handler)
