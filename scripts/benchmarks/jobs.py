"""Work in a process of its own, that ends at a time; what it found is kept.

A process each, so that one leaves no memory on the device for the next, and a
crash of the driver ends that one alone.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
import dataclasses
import multiprocessing
import time
import traceback
from typing import Any

Found = Mapping[str, Any]
Say = Callable[[Found], None]  # Called by the work for each thing it found.

# Between asking a process to end and ending it.
_GRACE_SECONDS = 5.0


@dataclasses.dataclass(frozen=True)
class Job:
  """One piece of work.

  Attributes:
    part: the file that keeps what it finds.
    name: of this piece in the part.
    work: a module's function, as `work(say, *arguments)`.
    weight: its share of the time, beside the other jobs' weights.
  """

  part: str
  name: str
  work: Callable[..., None]
  arguments: tuple
  weight: float


def run(job: Job, seconds: float, keep: Say) -> str | None:
  """Has `keep` take what the job finds, at once; why it ended early, or None.

  Whatever happens in the job, this returns after `seconds` and a grace.
  """
  context = multiprocessing.get_context('spawn')
  mine, theirs = context.Pipe(duplex=False)
  process = context.Process(target=_serve, args=(job, theirs))
  end = time.monotonic() + seconds
  process.start()
  theirs.close()
  try:
    while mine.poll(max(0.0, end - time.monotonic())):
      kind, value = mine.recv()
      if kind != 'found':
        return value
      keep(value)
    process.terminate()
    return f'not done after {seconds:.0f} s'
  except EOFError:  # It is gone without a word.
    process.join(_GRACE_SECONDS)
    return f'its process ended with exit code {process.exitcode}'
  finally:
    _wait_for(process)
    mine.close()


def _wait_for(process) -> None:
  """Until it has ended, which it is made to where it does not."""
  for stop in (process.terminate, process.kill):
    process.join(_GRACE_SECONDS)
    if process.exitcode is None:
      stop()
  process.join()


def _serve(job: Job, pipe) -> None:
  """Sends what is found, and last why it ended: None if all is done."""
  reason = None
  try:
    job.work(lambda found: pipe.send(('found', found)), *job.arguments)
  except Exception as e:  # The other jobs go on, and the summary says it.
    traceback.print_exc()
    reason = f'{type(e).__name__}: {" ".join(str(e).split())[:300]}'
  pipe.send(('ended', reason))
