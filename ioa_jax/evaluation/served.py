"""A model behind a server that is asked benchmarks, as a run asks a teacher.

Every answer is in a ledger before it is graded, so nothing is paid twice.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
import contextlib
import dataclasses
import pathlib
from typing import Any

from ioa_jax.evaluation.answers import Asking, Question
from ioa_jax.sampling import guides
from ioa_jax.sampling import logits as logits_lib
from ioa_jax.teachers import Teacher
from ioa_jax.teachers.client import Client
from ioa_jax.teachers.ledger import Ledger
from ioa_jax.teachers.requests import Budget, Completion, Price, Request

LEDGER = 'ledger.sqlite'
# So many times what is under way at once is asked before any of it is graded:
# more waits less for the last one, and fewer are graded while others are asked.
_PART = 8


@dataclasses.dataclass(frozen=True)
class Served:
  """What is known of a served model.

  Attributes:
    teacher: asks it.
    server: its address.
    at_once: how many answers it writes at the same time.
    budget, price: as a run's of its teacher.
  """

  teacher: Teacher
  server: str
  at_once: int
  budget: Budget
  price: Price | None

  # Servers of chat models apply a template to whatever they get.
  usual_form = 'chat'
  dtype = None

  @property
  def name(self) -> str:
    return self.teacher.name

  def identity(self) -> dict[str, str]:
    """As of a run's teacher the name, which may move to another address."""
    return {'served': self.name}

  def description(self) -> dict[str, Any]:
    return {'name': self.name, 'server': self.server}

  def scope(self) -> contextlib.AbstractContextManager[Any]:
    return contextlib.nullcontext()

  def check(self, asking: Asking) -> None:
    """Raises ValueError for what a server cannot be asked."""
    if asking.form == 'plain':
      raise ValueError(
        '--prompt=plain: a server puts its chat template around everything; '
        'give --prompt=chat, which is the same words in it.'
      )
    if asking.max_prompt_tokens is not None:
      raise ValueError(
        'a protocol that cuts prompts to tokens needs the tokenizer, which a '
        'served model keeps to itself; leave out --protocol.'
      )

  def open(self, folder: pathlib.Path) -> _Respondent:
    return _Respondent(self, folder / LEDGER)


class _Respondent:
  """Asks through the ledger at `path`."""

  def __init__(self, served: Served, path: pathlib.Path):
    self._served, self._path = served, path

  def answers(
    self,
    questions: Sequence[Question],
    asking: Asking,
    sampling: logits_lib.Sampling,
    stops: Sequence[str],
  ) -> Iterator[list[tuple[int, str, str]]]:
    """As `respondent.Respondent.answers`.

    Raises:
      BudgetExceeded: before what could cross the budget.
      TeacherError: the server refuses or fails too often.
    """
    requests = [
      Request(
        self._served.name,
        question.text,
        sampling.temperature,
        sampling.top_k,
        sampling.top_p,
        asking.max_tokens,
        # Tells samples and seeds apart, the same on every start.
        sample_index=question.draw,
        stop=tuple(stops),
      )
      for question in questions
    ]
    # Servers that know no stop texts write on behind them.
    cut = guides.StopTexts(lambda tokens: '', stops).cut
    size = _PART * self._served.at_once
    with contextlib.closing(Ledger(self._path)) as ledger:
      client = Client(
        self._served.teacher,
        ledger,
        self._served.budget,
        price=self._served.price,
      )
      for start in range(0, len(requests), size):
        part = client.ask(requests[start : start + size])
        yield [
          (i, cut(_written(completion)), completion.finish_reason)
          for i, completion in enumerate(part, start)
        ]


def _written(completion: Completion) -> str:
  """What is graded: of a text that was cut off, what there is of it."""
  if completion.finish_reason == 'length':
    return completion.text or completion.discarded
  return completion.text
