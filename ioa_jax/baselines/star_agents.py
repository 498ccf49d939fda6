"""Star-Agents (Zhou et al., NeurIPS 2024, arXiv:2411.14497), an adaptation.

The original has pairs of agents answer each instruction in their own way, keeps
data that is hard for a small model and not for a large one, and draws more on
the pairs whose data was kept. Its exact scores are not public. Here the
small model is the base student, the large one the teacher, hardness is nats
per token of the solution, and the harder half of each module is kept. There is
one agent: the teacher's two formats answer different questions here.
"""

from __future__ import annotations

from collections.abc import Sequence

from ioa_jax.baselines.method import Method
from ioa_jax.records import Lesson

KEPT_SHARE = 0.5


def select(
  lessons: Sequence[Lesson],
  student_nats: Sequence[float],
  teacher_nats: Sequence[float],
) -> list[Lesson]:
  """The lessons of each module that the student lags behind in most."""
  lag = [s - t for s, t in zip(student_nats, teacher_nats, strict=True)]
  kept = []
  for module in dict.fromkeys(lesson.module for lesson in lessons):
    own = [i for i, lesson in enumerate(lessons) if lesson.module == module]
    hardest = sorted(own, key=lambda i: -lag[i])
    kept += hardest[: max(1, round(KEPT_SHARE * len(own)))]
  return [lessons[i] for i in sorted(kept)]


METHOD = Method(select=select)
