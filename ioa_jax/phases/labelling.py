"""Prompts without answers: a teacher is asked, and the majority decides."""

from __future__ import annotations

from collections.abc import Sequence
import pathlib

import ml_collections

from ioa_jax import people
from ioa_jax.adapter import labels
from ioa_jax.domains.text import Grader
from ioa_jax.identifier.decomposition import Asking
from ioa_jax.phases.first_config import rough_tokens
from ioa_jax.runtime import sharding
from ioa_jax.runtime.display import Display
from ioa_jax.runtime.rundir import LEDGER
from ioa_jax.teachers.client import Client
from ioa_jax.teachers.cost import Planned, render
from ioa_jax.teachers.ledger import Ledger
from ioa_jax.teachers.requests import Budget, Price, Request


def requests(
  config: ml_collections.ConfigDict,
  grader: Grader,
  prompts: Sequence[str],
  samples: int,
) -> list[Request]:
  """`samples` tries at each prompt.

  Raises:
    ValueError: naming the setting with which it cannot be done.
  """
  c = config.teacher
  if not c.model:
    raise ValueError(
      'config.teacher.model is empty, and --label asks it; set it: '
      '--config.teacher.model=NAME.'
    )
  asking = Asking(c.model, c.max_tokens, c.temperature, c.reasoning_effort)
  return [
    request
    for prompt in prompts
    for request in labels.requests(asking, grader, prompt, samples)
  ]


def describe(
  config: ml_collections.ConfigDict, asked: Sequence[Request]
) -> str:
  """What labelling would cost, in lines; nothing is sent."""
  tokens = [rough_tokens((r.system or '') + r.prompt) for r in asked]
  calls = 1 + config.teacher.max_regenerations
  planned = Planned(
    'labels',
    len(asked),
    len(asked),
    sum(tokens) / len(asked),
    config.teacher.max_tokens,
    max_calls=calls if config.teacher.kind == 'openai' else 1,
  )
  budget = Budget(
    config.teacher.max_completion_tokens, config.teacher.max_usd or None
  )
  return render([planned], Price(**config.teacher.price), budget)


def ask(
  config: ml_collections.ConfigDict,
  grader: Grader,
  asked: Sequence[Request],
  output: pathlib.Path,
  samples: int,
) -> list[labels.Label]:
  """A label for each `samples` requests; nothing is paid for twice.

  Args:
    output: the directory of the ledger.

  Raises:
    ValueError: if the teacher cannot go on; what was answered is kept.
  """
  teacher, _, _, budget, price = people.open_teacher(
    config, sharding.make_mesh(**config.mesh)
  )
  client = Client(
    teacher,
    Ledger(output / LEDGER),
    budget,
    price=price,
    recording=people.recording(config),
  )
  with Display() as display:
    display.update(phase='labelling', done=0, total=len(asked))
    said = client.ask(
      asked, None, lambda done, total: display.update(done=done, total=total)
    )
  return [
    labels.agreed(grader, said[i : i + samples])
    for i in range(0, len(said), samples)
  ]
