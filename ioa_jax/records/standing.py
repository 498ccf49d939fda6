"""Who worked on a run and where it stands: `starts.jsonl`, `standing.json`."""

from __future__ import annotations

from typing import Literal

from ioa_jax.records.base import Count, Record, record


@record
class Start(Record):
  """A line of `starts.jsonl`: a process that worked on the run.

  Attributes:
    date: in UTC, ISO 8601.
    command: as it can be typed again.
    commit: of the checkout, '' where the package was installed.
    devices: how many of what kind, over all processes.
  """

  date: str
  command: str
  commit: str
  versions: dict[str, str]
  devices: str
  processes: Count


@record
class Standing(Record):
  """`standing.json`: where the run stood when its report was last drawn.

  Attributes:
    date: in UTC, ISO 8601.
    phase: what was being done, in words.
    why: the error, or the signal; '' where there is none.
    elapsed_seconds: since this process began.
    left_seconds: of the whole run, as far as that can be told.
  """

  state: Literal['running', 'stopped', 'failed', 'finished']
  date: str
  phase: str
  why: str
  elapsed_seconds: float
  left_seconds: float | None
