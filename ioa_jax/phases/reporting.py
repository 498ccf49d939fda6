"""report.html while the run goes on, and when it stops or fails."""

from __future__ import annotations

from collections.abc import Iterator
import contextlib
import datetime
import time

from ioa_jax.assemble import Run
from ioa_jax.records import Standing
from ioa_jax.report import page
from ioa_jax.runtime import processes, signals
from ioa_jax.runtime.rundir import STANDING

# Of the time between two drawings, so that long runs with many lessons are not
# held up.
_SHARE = 0.02


class Reports:
  """Draws the report of one run, and says in it where the run stands."""

  def __init__(self, run: Run):
    self._run = run
    self._cost = 0.0
    self._drawn = float('-inf')

  def at_checkpoint(self) -> None:
    """Draws it, unless the last drawing was too dear to do so again yet."""
    if time.monotonic() - self._drawn >= self._cost / _SHARE:
      self.draw('running')

  def draw(self, state: str, why: str = '') -> None:
    """Draws it now. That it fails is said, and stops nothing else."""
    if not processes.is_first():
      return
    begun = time.monotonic()
    run, display = self._run, self._run.display
    run.directory.write_record(
      STANDING,
      Standing(
        state=state,
        date=datetime.datetime.now(datetime.UTC).isoformat(timespec='seconds'),
        phase=display.status.phase,
        why=why,
        elapsed_seconds=display.elapsed(),
        left_seconds=display.whole_left() if state == 'running' else None,
      ),
    )
    try:
      page.write(run.directory.path)
    except Exception as e:  # Whatever it is, the run is worth more.
      reason = ' '.join(str(e).split())[:300] or repr(e)
      display.say(f'report.html could not be drawn ({reason}).')
    self._drawn = time.monotonic()
    self._cost = self._drawn - begun


@contextlib.contextmanager
def kept(run: Run) -> Iterator[Reports]:
  """A report that is drawn however this ends, unless it is killed."""
  reports = Reports(run)
  try:
    yield reports
  except BaseException as e:
    stopped = signals.stopped_by or (
      'SIGINT' if isinstance(e, KeyboardInterrupt) else ''
    )
    why = stopped or ' '.join(str(e).split()) or repr(e)
    reports.draw('stopped' if stopped else 'failed', why)
    raise
