"""What the adapters of the built-in domains have in common.

Problems are drawn here; the solution is the teacher's, and is kept only if the
domain's verifier confirms it.
"""

from __future__ import annotations

import abc
from collections.abc import Sequence
import dataclasses

from ioa_jax import adapter
from ioa_jax.adapter import Amounts, Ask
from ioa_jax.records import Lesson, Probe, Rejected
from ioa_jax.teachers.requests import Request


@dataclasses.dataclass(frozen=True, kw_only=True)
class Item(adapter.Item, abc.ABC):
  """One solution to be asked for."""

  @abc.abstractmethod
  def verify(self, text: str) -> str:
    """'' if the teacher's text may become a lesson, else the reason not."""

  @abc.abstractmethod
  def lesson(self, text: str) -> Lesson:
    """The lesson that the teacher's text makes."""


class VerifiedAdapter:
  """Asks for solutions and keeps what is confirmed; what is asked is planned by
  those that build on it.

  Args:
    seed: of the run; decides every problem.
    teacher: name that requests go to.
    max_tokens: of one solution.
    answer_format: of the lessons, 'steps' or 'direct'.
    smallest_first: lessons of a stage in the order of their difficulty.
    amounts: how many problems are asked for.
    confirmed: keep what the verifier confirms; else all that was answered and
      gives no probe away.
  """

  confirm_samples = 0  # The verifier needs no second opinion.

  def __init__(
    self,
    *,
    seed: int,
    teacher: str,
    max_tokens: int,
    answer_format: str,
    smallest_first: bool,
    amounts: Amounts,
    confirmed: bool = True,
  ):
    self._seed = seed
    self._teacher = teacher
    self._max_tokens = max_tokens
    self._answer_format = answer_format
    self._smallest_first = smallest_first
    self._amounts = amounts
    self._confirmed = confirmed

  def _request(self, prompt: str) -> Request:
    """Greedy: a confirmed solution has one form, so sampling adds errors."""
    return Request(
      model=self._teacher,
      prompt=prompt,
      temperature=0.0,
      top_k=0,
      top_p=1.0,
      max_tokens=self._max_tokens,
    )

  def question(self, probe: Probe) -> Request:
    """The probe as it stands."""
    return self._request(probe.prompt)

  def write(
    self, items: Sequence[Item], ask: Ask, earlier: Sequence[Lesson]
  ) -> tuple[list[Lesson], list[Rejected]]:
    """The teacher's solutions, kept where the verifier confirms them."""
    del earlier  # The problems are drawn here, and may come again.
    lessons: list[Lesson] = []
    rejected: list[Rejected] = []
    completions = ask([i.request for i in items])
    for item, completion in zip(items, completions, strict=True):
      text = completion.text
      if completion.finish_reason != 'stop':
        rejected.append(item.rejected('truncated', text))
        continue
      reason = item.verify(text)
      if reason == 'contains_probe' or (reason and self._confirmed):
        rejected.append(item.rejected(reason, text))
        continue
      lessons.append(item.lesson(text))
    return lessons, rejected
