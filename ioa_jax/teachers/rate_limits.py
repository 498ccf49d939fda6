"""When the next call may go out: configured limits and what the server says.

The clock is an argument and nothing sleeps, so a test can drive it by hand.
Used from one thread (the event loop of the HTTP teacher).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
import dataclasses
import email.utils
import math
import re
import time

_WINDOW_SECONDS = 60.0
_AGES = 1e9  # Seconds: thirty years.
_UNITS = {'ms': 1e-3, 's': 1.0, 'm': 60.0, 'h': 3600.0, 'd': 86_400.0}
_DURATION = re.compile(r'(?:\d{1,9}(?:\.\d{1,9})?(?:ms|s|m|h|d)){1,5}')


def parse_duration(text: str) -> float | None:
  """Seconds of '1s', '6m0s', '12ms', '1h2m3.5s' or '17.5'; None if neither."""
  text = text.strip().lower()
  if _DURATION.fullmatch(text):
    parts = re.findall(r'([\d.]+)(ms|s|m|h|d)', text)
    return sum(float(number) * _UNITS[unit] for number, unit in parts)
  try:
    seconds = float(text)
  except ValueError:
    return None
  # Some servers give a time, in seconds or milliseconds since 1970.
  return seconds if 0 <= seconds < _AGES else None


def retry_after_seconds(headers: Mapping[str, str]) -> float | None:
  """`Retry-After` (seconds or a date) or `retry-after-ms`; at most `_AGES`."""
  milliseconds = parse_duration(headers.get('retry-after-ms', ''))
  if milliseconds is not None:
    return milliseconds / 1e3
  text = headers.get('retry-after', '')
  seconds = parse_duration(text)
  if seconds is None:
    seconds = _until(text)
  return None if seconds is None else min(max(0.0, seconds), _AGES)


def _until(text: str) -> float | None:
  """Seconds until a date; a number that is no duration is one all the same."""
  try:
    seconds = float(text)
    return seconds if math.isfinite(seconds) else None
  except ValueError:
    pass
  try:
    return email.utils.parsedate_to_datetime(text).timestamp() - time.time()
  except (ValueError, TypeError, OverflowError):
    return None


@dataclasses.dataclass
class _Quantity:
  """One limited quantity: requests, or tokens.

  Attributes:
    limit: per minute, as configured; the server may lower it.
    recent: (time, amount) of the last minute.
    in_flight: sent and not yet answered.
    remaining: what the server said is left until `reset_at`; None: unknown.
  """

  limit: float | None
  recent: deque = dataclasses.field(default_factory=deque)
  in_flight: float = 0.0
  remaining: float | None = None
  reset_at: float = 0.0

  def wait(self, amount: float, now: float) -> float:
    while self.recent and self.recent[0][0] <= now - _WINDOW_SECONDS:
      self.recent.popleft()
    if self.remaining is not None and now >= self.reset_at:
      self.remaining = None
    waits = [0.0]
    if self.limit is not None:
      # What is over the limit alone may go when nothing else is in its minute.
      excess = sum(a for _, a in self.recent) + amount - self.limit
      for sent_at, sent in self.recent:
        if excess <= 0:
          break
        waits.append(sent_at + _WINDOW_SECONDS - now)
        excess -= sent
    return max(*waits, self.told(amount, now))

  def told(self, amount: float, now: float) -> float:
    """Until what the server says is left suffices; 0 if it does."""
    if self.remaining is None or amount <= self.remaining:
      return 0.0
    return max(0.0, self.reset_at - now)

  def take(self, amount: float, now: float) -> None:
    self.recent.append((now, amount))
    self.in_flight += amount
    if self.remaining is not None:
      self.remaining -= amount


class RateLimiter:
  """Requests and tokens of any sixty seconds stay within both limits.

  Args:
    requests_per_minute, tokens_per_minute: None leaves it to the server.
    max_wait_seconds: no answer of `try_acquire` is longer; whoever asks hears
      from `told_seconds` how long the server would have it.
  """

  def __init__(
    self,
    requests_per_minute: float | None = None,
    tokens_per_minute: float | None = None,
    *,
    max_wait_seconds: float = 600.0,
    clock: Callable[[], float] = time.monotonic,
  ):
    self._max_wait_seconds = max_wait_seconds
    self._clock = clock
    self._quantities = {
      'requests': _Quantity(requests_per_minute),
      'tokens': _Quantity(tokens_per_minute),
    }
    self._not_before = 0.0

  def try_acquire(self, tokens: float) -> float:
    """0.0: go (`finish` must follow). Otherwise seconds until worth trying."""
    now = self._clock()
    amounts = {'requests': 1, 'tokens': tokens}
    wait = max(
      self._not_before - now,
      *(q.wait(amounts[k], now) for k, q in self._quantities.items()),
    )
    if wait > 0:
      return min(wait, self._max_wait_seconds)
    for k, q in self._quantities.items():
      q.take(amounts[k], now)
    return 0.0

  def told_seconds(self, tokens: float) -> float:
    """How long the server has such a call wait, by what it says is left."""
    now, amounts = self._clock(), {'requests': 1, 'tokens': tokens}
    return max(q.told(amounts[k], now) for k, q in self._quantities.items())

  def finish(self, tokens: float, headers: Mapping[str, str]) -> None:
    """An acquired call was answered (or failed: no headers)."""
    now = self._clock()
    amounts = {'requests': 1, 'tokens': tokens}
    for kind, q in self._quantities.items():
      q.in_flight -= amounts[kind]
      limit = _number(headers.get(f'x-ratelimit-limit-{kind}'))
      if limit:
        q.limit = limit if q.limit is None else min(q.limit, limit)
      remaining = _number(headers.get(f'x-ratelimit-remaining-{kind}'))
      reset = parse_duration(headers.get(f'x-ratelimit-reset-{kind}', ''))
      if remaining is not None and reset:
        # The server has not seen all of what is on its way.
        q.remaining = remaining - q.in_flight
        q.reset_at = now + reset

  def pause(self, seconds: float) -> None:
    """Nothing goes out for so long: the server said so to one of us."""
    self._not_before = max(self._not_before, self._clock() + seconds)


def _number(text: str | None) -> float | None:
  """Azure answers -1 where it does not know."""
  try:
    value = float(text or 'nan')
  except ValueError:
    return None
  return value if value >= 0 else None
