"""Which lessons of a user's own domain are kept, whoever wrote them.

An answer is kept if the teacher reaches it again from the problem alone, in
the majority of its attempts; a lesson if it is neither too long, nor a
repetition, nor an item of the probes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
import dataclasses

from ioa_jax import adapter
from ioa_jax.adapter import curation, prompts
from ioa_jax.domains import Domain
from ioa_jax.domains.text import Grader
from ioa_jax.identifier.decomposition import Asking
from ioa_jax.models.vocabulary import ChatCodec
from ioa_jax.records import Lesson, Rejected
from ioa_jax.teachers.requests import Completion, Request

_ALL = 1_000_000  # Seeds.
SPLITS = ('gate', 'held_out')


@dataclasses.dataclass(frozen=True, kw_only=True)
class Checks:
  """What a lesson has to pass.

  Attributes:
    confirm_samples: solutions by which a lesson's answer is confirmed.
    near_duplicate: similarity of problems, in (0, 1], from which one is left
      out.
    contamination: of `contamination.DECIDED_BY`.
    benchmarks: name to texts of its items, which no lesson may give away.
    row_length: tokens of a training row; a lesson takes one at most.
  """

  confirm_samples: int
  near_duplicate: float
  contamination: str
  benchmarks: Mapping[str, Sequence[str]]
  row_length: int


class Examiner:
  """Asks for solutions, confirms by them, and cleans.

  Args:
    asking: of solutions.

  Attributes:
    grader, codec, asking, checks: as they were given.
    contamination: of the domain's probes and of benchmarks.
    repeats: near-duplicates of a run's lessons.
  """

  def __init__(
    self,
    domain: Domain,
    grader: Grader,
    codec: ChatCodec,
    asking: Asking,
    checks: Checks,
  ):
    self.grader, self.codec = grader, codec
    self.asking, self.checks = asking, checks
    self.contamination = _contamination(domain, checks)
    self.repeats = curation.Repeats(checks.near_duplicate)

  def solve(self, problem: str, sample: int | None = None) -> Request:
    """`sample` None is greedy, else one of several tries."""
    return Request(
      model=self.asking.teacher,
      prompt=problem,
      system=prompts.FORMS[self.grader.form].solve.format(
        closing=self.grader.closing('...')
      ),
      temperature=0.0 if sample is None else self.asking.temperature,
      top_k=0,
      top_p=1.0,
      max_tokens=self.asking.max_tokens,
      sample_index=sample or 0,
      reasoning_effort=self.asking.reasoning_effort,
    )

  def unfit(self, problem: str, answer: str) -> str:
    """Why a student cannot learn a text, as one word; '' if it can."""
    if any(c in problem + answer for c in self.codec.control_texts):
      return 'control_token'
    tokens = [*self.codec.prompt(problem), *self.codec.answer(answer)]
    # The last token is only a target.
    return 'too_long' if len(tokens) - 1 > self.checks.row_length else ''

  def confirmed(
    self,
    drafts: Sequence[tuple[Lesson, str]],
    ask: adapter.Ask,
    of_request: Mapping[str, adapter.Item],
  ) -> tuple[list[Lesson], list[Rejected]]:
    """Lessons that most of `confirm_samples` solutions agree with.

    Args:
      drafts: each with the key that solutions are compared with.
    """
    tries = range(self.checks.confirm_samples)
    solved = ask([self.solve(d.problem, t) for d, _ in drafts for t in tries])
    lessons, rejected = [], []
    for index, (lesson, key) in enumerate(drafts):
      mine = solved[index * len(tries) : (index + 1) * len(tries)]
      confirmed = self._confirm(lesson, key, mine)
      if confirmed is None:
        item = of_request[lesson.metadata['request']]
        said = '\n---\n'.join(c.text for c in mine)
        rejected.append(item.rejected('unconfirmed', text_of(lesson), said))
      else:
        lessons.append(confirmed)
    return lessons, rejected

  def _confirm(
    self, lesson: Lesson, key: str, solved: Sequence[Completion]
  ) -> Lesson | None:
    """The lesson if most solutions agree with it, and says so."""
    agreed = sum(
      c.finish_reason == 'stop' and self.grader.is_correct(c.text, key)
      for c in solved
    )
    if 2 * agreed <= len(solved):
      return None
    confirmed = f'{agreed} of {len(solved)} independent solutions agree'
    if self.grader.form == 'code':
      confirmed += f' with tests that trivial functions fail:\n{key}'
    return dataclasses.replace(
      lesson, solution=lesson.solution | {'verification': confirmed}
    )

  def clean(
    self,
    lessons: Sequence[Lesson],
    of_request: Mapping[str, adapter.Item],
    near_duplicates: curation.NearDuplicates | None = None,
  ) -> tuple[list[Lesson], list[Rejected]]:
    kept, dropped = curation.curate(
      lessons,
      count_tokens=lambda text: len(self.codec.answer(text)),
      min_tokens=8,
      max_tokens=self.checks.row_length,
      contamination=self.contamination,
      near_duplicates=near_duplicates,
    )
    return kept, [
      of_request[lessons[r.index].metadata['request']].rejected(
        r.reason,
        text_of(lessons[r.index]),
        r.evidence,
      )
      for r in dropped
    ]


def _contamination(domain: Domain, checks: Checks) -> curation.Contamination:
  return curation.Contamination(
    {
      f'{split} probes': [p.prompt for p in domain.probes(split, '')]
      for split in SPLITS
    }
    | checks.benchmarks,
    seeds=[
      seed.problem
      for module in domain.MODULES
      for seed in domain.seeds(module.name, _ALL)
    ],
    decided_by=checks.contamination,
  )


def text_of(lesson: Lesson) -> str:
  return f'{lesson.problem}\n{lesson.completion}'
