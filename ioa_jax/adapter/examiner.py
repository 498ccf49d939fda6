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
from ioa_jax.evaluation import judging
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


def solving(
  asking: Asking, grader: Grader, problem: str, sample: int | None = None
) -> Request:
  """To solve a problem; `sample` None is greedy, else one of several tries."""
  solve = prompts.FORMS[grader.form].solve
  return asking.request(
    problem, sample=sample, system=solve.format(closing=grader.closing('...'))
  )


class Examiner:
  """Asks for solutions, confirms by them, and cleans.

  Args:
    asking: of solutions.
    judge: of open answers; None leaves their confirmation to the grader.

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
    judge: judging.Judge | None = None,
  ):
    self.grader, self.codec = grader, codec
    self.asking, self.checks = asking, checks
    self._judge = judge
    self.contamination = _contamination(domain, checks)
    self.repeats = curation.Repeats(checks.near_duplicate)

  def solve(
    self, problem: str, sample: int | None = None, *, module: str = ''
  ) -> Request:
    """See `solving`; a lesson's is paid for its module."""
    request = solving(self.asking, self.grader, problem, sample)
    return dataclasses.replace(request, module=module)

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
    # Each problem alone, paid for its module.
    solved = ask(
      [
        self.solve(d.problem, t, module=d.module)
        for d, _ in drafts
        for t in tries
      ]
    )
    agreeing = self._agreeing([d for d in drafts for _ in tries], solved)
    lessons, rejected = [], []
    for index, (lesson, key) in enumerate(drafts):
      here = slice(index * len(tries), (index + 1) * len(tries))
      confirmed = self._confirm(lesson, key, sum(agreeing[here]))
      if confirmed is None:
        item = of_request[lesson.metadata['request']]
        said = '\n---\n'.join(c.text for c in solved[here])
        rejected.append(item.rejected('unconfirmed', text_of(lesson), said))
      else:
        lessons.append(confirmed)
    return lessons, rejected

  def _agreeing(
    self,
    drafts: Sequence[tuple[Lesson, str]],
    solved: Sequence[Completion],
  ) -> list[bool]:
    """Whether each solution confirms its lesson; the judge asks for all.

    An open lesson must not lose to a solution in either order; overlap of the
    two texts says nothing of their truth.
    """
    tried = [
      (lesson.problem, key, c.text, c.finish_reason == 'stop')
      for (lesson, key), c in zip(drafts, solved)
    ]
    if self._judge is None:
      return [
        whole and self.grader.is_correct(text, key)
        for _, key, text, whole in tried
      ]
    judged = iter(
      self._judge.compare(
        [judging.Pair(*pair) for *pair, whole in tried if whole]
      )
    )
    return [whole and next(judged).holds for *_, whole in tried]

  def _confirm(self, lesson: Lesson, key: str, agreed: int) -> Lesson | None:
    """The lesson if most solutions agree with it, and says so."""
    if 2 * agreed <= self.checks.confirm_samples:
      return None
    of = f'{agreed} of {self.checks.confirm_samples} independent solutions'
    confirmed = f'{of} agree'
    if self._judge is not None:
      confirmed = f'{self._judge.name} prefers it or a tie to {of}'
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
