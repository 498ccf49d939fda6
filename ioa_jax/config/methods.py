"""What a method decides in the place of the configuration, settled once.

How methods order, weigh and select is in `ioa_jax.baselines`.
"""

from __future__ import annotations

from collections.abc import Mapping
import dataclasses
from typing import Any

import ml_collections


@dataclasses.dataclass(frozen=True, kw_only=True)
class Plain:
  """Lessons of a text domain that are adapted to nobody.

  Attributes:
    way: how problems are asked for, of `adapter.plain_lessons.WAYS`.
    judged: requests by which the teacher judges a lesson.
    confirmed: an answer needs confirmation; else it is taught as it comes.
  """

  way: str = 'examples'
  judged: int = 0
  confirmed: bool = False


@dataclasses.dataclass(frozen=True, kw_only=True)
class Terms:
  """A method's own terms.

  Attributes:
    answer_format: 'steps' or 'direct', of probes; None is the configured one.
      Of built-in domains; text has worked solutions only.
    lesson_format: likewise, of lessons; None is that of the probes.
    adapted: lessons are adapted to the student (here: smallest operands first).
    plain: how lessons of a text domain are had, if not adapted to the student.
    confirmed: a lesson needs confirmation; else what was answered is taught.
    distillation: settings of `distillation`, for a configuration that leaves
      them off ('none' or 0).
  """

  answer_format: str | None = None
  lesson_format: str | None = None
  adapted: bool = True
  plain: Plain | None = None
  confirmed: bool = True
  distillation: Mapping[str, Any] = dataclasses.field(default_factory=dict)


METHODS: Mapping[str, Terms] = {
  'ioa': Terms(),
  'ordered_no_gate': Terms(),
  'need_weighted': Terms(),
  'gap_weighted': Terms(),
  'uniform_steps': Terms(),
  'no_identifier': Terms(),
  'random_order': Terms(),
  'easy_to_hard': Terms(),
  # The teacher's plain answers.
  'uniform_direct': Terms(answer_format='direct'),
  'self_instruct': Terms(
    answer_format='direct', adapted=False, plain=Plain(), confirmed=False
  ),
  # Its teacher answers in steps unasked, as GPT-3 did not.
  'lamini': Terms(adapted=False, plain=Plain(way='topics'), confirmed=False),
  # Judged in both orders of teacher and student.
  'lion': Terms(adapted=False, plain=Plain(way='rounds', judged=2)),
  # Labels are asked for, labels and rationales are learned.
  'dss': Terms(
    answer_format='direct',
    lesson_format='steps',
    adapted=False,
    plain=Plain(),
  ),
  # It keeps rationales that end in the right answer.
  'cascod': Terms(adapted=False, plain=Plain(confirmed=True)),
  'star_agents': Terms(adapted=False, plain=Plain(judged=1)),
  'logit_distillation': Terms(distillation={'divergence': 'forward_kl'}),
  'on_policy_distillation': Terms(
    distillation={'divergence': 'jsd', 'on_policy_every_steps': 50}
  ),
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settled:
  """What a configuration comes to with its method.

  Attributes:
    answer_format, lesson_format: 'steps' or 'direct', of probes and lessons.
    smallest_first: see `adapter.smallest_first`.
    plain: see `Terms`; None on built-in domains.
    confirmed: a lesson of a built-in domain needs confirmation.
    distillation: every setting of `distillation`.
  """

  answer_format: str
  lesson_format: str
  smallest_first: bool
  plain: Plain | None
  confirmed: bool
  distillation: Mapping[str, Any]

  @property
  def distills(self) -> bool:
    """Whether the teacher's distributions are learned from."""
    return self.distillation['divergence'] != 'none'


def settle(config: ml_collections.ConfigDict) -> Settled:
  """The method's terms before the configuration's."""
  terms = METHODS[config.method]
  plain = terms.plain if config.domain.kind == 'text' else None
  answer_format = config.adapter.answer_format
  lesson_format = answer_format
  # Plain lessons of text have the one format that text has.
  if plain is None:
    answer_format = terms.answer_format or answer_format
    lesson_format = terms.lesson_format or answer_format
  off = {k for k, v in config.distillation.items() if v in ('none', 0)}
  return Settled(
    answer_format=answer_format,
    lesson_format=lesson_format,
    plain=plain,
    smallest_first=config.adapter.smallest_first and terms.adapted,
    confirmed=terms.confirmed,
    distillation={
      **config.distillation,
      **{k: v for k, v in terms.distillation.items() if k in off},
    },
  )
