"""What crosses a border between stages, as frozen records with a JSON form.

Every record is made of JSON types only. `to_json` gives one line of text;
`from_json` checks field names, so a file of an older layout fails with the name
of the field instead of half-loading.
"""

from __future__ import annotations

import dataclasses
import json
from typing import Any, Self

DIFFICULTIES = ('introductory', 'intermediate', 'advanced')


class _Record:
  """JSON in and out for the frozen dataclasses below."""

  def to_dict(self) -> dict[str, Any]:
    return dataclasses.asdict(self)

  def to_json(self) -> str:
    return json.dumps(self.to_dict(), ensure_ascii=False)

  @classmethod
  def from_dict(cls, value: dict[str, Any]) -> Self:
    fields = {f.name for f in dataclasses.fields(cls)}
    if set(value) != fields:
      missing, extra = fields - set(value), set(value) - fields
      raise ValueError(
        f'{cls.__name__}: missing fields {sorted(missing)}, unknown fields '
        f'{sorted(extra)}; the file was written by another version.'
      )
    return cls(
      **{k: tuple(v) if isinstance(v, list) else v for k, v in value.items()}
    )

  @classmethod
  def from_json(cls, line: str) -> Self:
    return cls.from_dict(json.loads(line))


@dataclasses.dataclass(frozen=True)
class KnowledgeModule(_Record):
  """One unit of what a domain teaches (`category/module` in METHOD terms).

  Attributes:
    name: unique, `category/module`.
    description: one line for people.
    prerequisites: names of the modules this one stands on.
    level: 0 for modules without prerequisites, else 1 + the deepest of them.
  """

  name: str
  description: str
  prerequisites: tuple[str, ...]
  level: int


@dataclasses.dataclass(frozen=True)
class Seed(_Record):
  """An example problem of a module that requests imitate in style.

  Attributes:
    solution: as it was written by whoever made the seed; '' is unknown.
  """

  module: str
  problem: str
  answer: str
  solution: str = ''


@dataclasses.dataclass(frozen=True)
class Probe(_Record):
  """A question whose answer is known; it never appears in training text.

  Attributes:
    probe_id: unique, `split/module/index`.
    module: the module it measures.
    prompt: what the model reads.
    reference: one full correct completion, in the format lessons use.
    answer: the span that is scored.
  """

  probe_id: str
  module: str
  prompt: str
  reference: str
  answer: str


@dataclasses.dataclass(frozen=True)
class Score(_Record):
  """Probe outcomes of one model on one module.

  Sum and count travel apart, so an empty measurement has no value rather than
  the value 0.

  Attributes:
    correct: sum of the probes' scores, each in [0, 1]; where an answer is
      right or wrong, the number of right ones.
    n: number of probes.
  """

  correct: float
  n: int

  @property
  def mean(self) -> float | None:
    return self.correct / self.n if self.n else None


@dataclasses.dataclass(frozen=True)
class Lesson(_Record):
  """One synthetic item, with METHOD §4's keys and its lineage.

  Attributes:
    module: the module it teaches.
    prereq: modules whose skill it uses.
    difficulty_tag: one of DIFFICULTIES.
    problem: the text the student reads (the prompt).
    completion: the text the student learns to write.
    solution: steps, final answer, and how the answer was confirmed.
    adapter_flags: which strategies the item applies.
    metadata: stage_id, seed_style_ref, kind, request hash, teacher, round.
  """

  module: str
  prereq: tuple[str, ...]
  difficulty_tag: str
  problem: str
  completion: str
  solution: dict[str, Any]
  adapter_flags: dict[str, Any]
  metadata: dict[str, Any]
