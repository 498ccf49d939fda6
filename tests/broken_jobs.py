"""Jobs of `benchmarks.jobs` that end in every way; a process imports little."""

import os
import time


def two_things(say):
  say({'n': 1})
  say({'n': 2})


def fails(say):
  say({'n': 1})
  raise MemoryError('no room\nat all')


def is_killed(say):
  say({'n': 1})
  os.kill(os.getpid(), 9)


def hangs(say):
  say({'n': 1})
  time.sleep(600)
