"""Star-Agents (Zhou et al., NeurIPS 2024, arXiv:2411.14497), an adaptation.

The original has pairs of agents answer each instruction in their own way, keeps
data that is difficult for a small model and not for a large one and that a
judge finds good, and draws more on the pairs whose data was kept. Its exact
scores are not public; a summary names instruction-following difficulty (IFD; Li
et al., NAACL 2024, arXiv:2308.12032) of both models and a judge.

Here the small model is the base student and the large one the teacher. A
lesson's lag is the student's IFD less the teacher's; of each module the half
with the largest lag is kept, of what the judge finds good. Adaptations: one
agent, so nothing evolves; a served teacher's IFD is unknown, and the student's
alone decides; on built-in domains the verifier is the judge.
"""

from __future__ import annotations

from collections.abc import Sequence

from ioa_jax.baselines.method import Evidence, Method
from ioa_jax.records import Lesson

KEPT_SHARE = 0.5
GOOD_FROM = 6  # Marks of ten.


def select(lessons: Sequence[Lesson], evidence: Evidence) -> list[Lesson]:
  """The good lessons of each module that the student lags behind in most."""
  lag = list(evidence.student)
  if evidence.teacher is not None:
    lag = [s - t for s, t in zip(lag, evidence.teacher, strict=True)]
  kept = []
  for module in dict.fromkeys(lesson.module for lesson in lessons):
    own = [i for i, lesson in enumerate(lessons) if lesson.module == module]
    good = [i for i in own if _is_good(evidence, i)]
    hardest = sorted(good, key=lambda i: -lag[i])
    kept += hardest[: max(1, round(KEPT_SHARE * len(own)))]
  return [lessons[i] for i in sorted(kept)]


def _is_good(evidence: Evidence, index: int) -> bool:
  """What the judge gave no mark is not."""
  if evidence.marks is None:
    return True
  mark = evidence.marks[index]
  return mark is not None and mark >= GOOD_FROM


METHOD = Method(select=select, identified=False)
