"""A domain that nobody has cut into modules: the teacher does it.

First it proposes the units of the domain, then it sorts every seed into one of
them, twice; a seed that lands in two places is left out. What comes of it is
written as the two files of a text domain, for a person to correct and reuse.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
import dataclasses
import re

import pydantic

from ioa_jax.domains import taxonomy
from ioa_jax.records import KnowledgeModule
from ioa_jax.teachers import structured
from ioa_jax.teachers.requests import Completion, Request, schema_text

FEWEST, MOST = 25, 35  # Units that the paper asks for.
NO_UNIT = 'none'
_SAMPLE = 200  # Characters of an answer, in an error.

_PROPOSE = """Cut the following domain into {fewest} to {most} units of \
knowledge, as a teacher would plan a course: {description}.

Each unit is something that one exercise can test on its own. Name it \
"category/unit", in lower case with underscores. List as prerequisites only \
units of your own list that a learner must master first; no circles.

Exercises of the domain:
{examples}

Answer with one JSON object and nothing else:
{{"units": [{{"name": "...", "description": "...", \
"prerequisites": ["..."]}}]}}"""

_SORT = """Which unit does the exercise belong to? Choose the one whose \
knowledge it tests most; if none fits, answer "{none}".

Units:
{units}

Exercise:
{problem}

Answer with one JSON object and nothing else: {{"unit": "name"}}"""


_ORDER = """A course on {description} has the units below. For each unit, list \
the units that a learner must master first: only direct ones, only names of \
this list, no circles, and none where none is needed.

Units:
{units}

Answer with one JSON object and nothing else, every unit once:
{{"units": [{{"name": "...", "prerequisites": ["..."]}}]}}"""


class _Unit(structured.Strict):
  name: str
  description: str
  prerequisites: list[str]


class Proposal(structured.Strict):
  units: list[_Unit]


class _Needs(structured.Strict):
  name: str
  prerequisites: list[str]


class Ordering(structured.Strict):
  units: list[_Needs]


class Choice(structured.Strict):
  unit: str


class BadProposal(ValueError):
  """The teacher's units cannot be taught from."""


@dataclasses.dataclass(frozen=True)
class Asking:
  """What all requests share."""

  teacher: str
  max_tokens: int
  temperature: float
  reasoning_effort: str = ''

  def request(
    self,
    prompt: str,
    response_model: type[pydantic.BaseModel] | None = None,
    *,
    sample: int | None,
    system: str = '',
  ) -> Request:
    """A request to the teacher; `sample` None is greedy, else one of several.

    Args:
      response_model: of the answer; None leaves it free.
    """
    return Request(
      model=self.teacher,
      prompt=prompt,
      system=system,
      temperature=0.0 if sample is None else self.temperature,
      top_k=0,
      top_p=1.0,
      max_tokens=self.max_tokens,
      sample_index=sample or 0,
      response_schema=schema_text(response_model) if response_model else '',
      reasoning_effort=self.reasoning_effort,
    )


def propose(
  asking: Asking,
  description: str,
  examples: Sequence[str],
  attempt: int,
  num_units: tuple[int, int] = (FEWEST, MOST),
) -> Request:
  """The request for units; `attempt` tells repeated ones apart."""
  prompt = _PROPOSE.format(
    description=description,
    fewest=num_units[0],
    most=num_units[1],
    examples='\n'.join(f'- {_one_line(e)}' for e in examples),
  )
  return asking.request(prompt, Proposal, sample=attempt)


def prerequisites(
  asking: Asking, description: str, modules: Sequence[KnowledgeModule]
) -> Request:
  """The request for what stands on what, of modules that exist."""
  prompt = _ORDER.format(description=description, units=_listed(modules))
  return asking.request(prompt, Ordering, sample=0)


def read_prerequisites(
  completion: Completion, modules: Sequence[KnowledgeModule]
) -> list[tuple[str, str]]:
  """Edges from prerequisite to dependent, as the teacher proposes them.

  Raises:
    BadProposal: no JSON of the schema, an unknown, repeated or missing unit, an
      unknown prerequisite, a unit that stands on itself. Circles are left to
      the caller.
  """
  ordering = structured.read(completion, Ordering)
  if ordering is None:
    raise BadProposal('not JSON of the schema that was asked for')
  names = {_name(m.name): m.name for m in modules}
  listed = [_name(u.name) for u in ordering.units]
  if sorted(listed) != sorted(names):
    odd = sorted(set(listed) ^ set(names)) or 'one unit twice'
    raise BadProposal(f'units do not match the modules: {odd}')
  found = []
  for unit in ordering.units:
    for needed in dict.fromkeys(map(_name, unit.prerequisites)):
      if needed not in names:
        raise BadProposal(f'{unit.name!r} stands on unknown {needed!r}')
      if needed == _name(unit.name):
        raise BadProposal(f'{unit.name!r} stands on itself')
      found.append((names[needed], names[_name(unit.name)]))
  return found


def sort(
  asking: Asking, modules: Sequence[KnowledgeModule], problem: str, sample: int
) -> Request:
  """The request to sort one exercise; `sample` tells the two votes apart."""
  prompt = _SORT.format(none=NO_UNIT, units=_listed(modules), problem=problem)
  return asking.request(prompt, Choice, sample=sample)


def read_units(
  completion: Completion, num_units: tuple[int, int] = (FEWEST, MOST)
) -> tuple[KnowledgeModule, ...]:
  """Checked modules, prerequisites first.

  Names are brought to one form and equal ones merged.

  Raises:
    BadProposal: no JSON of the schema, too few or many units, an unknown
      prerequisite, a circle.
  """
  proposal = structured.read(completion, Proposal)
  if proposal is None:
    said = _one_line(completion.text or completion.discarded)
    raise BadProposal(
      'not JSON of the schema that was asked for '
      f'({completion.finish_reason}); it said {said[:_SAMPLE]!r}'
    )
  units: dict[str, tuple[str, Sequence[str]]] = {}
  for unit in proposal.units:
    name = _name(unit.name)
    needs = sorted({_name(p) for p in unit.prerequisites} - {name})
    units.setdefault(name, (_one_line(unit.description), needs))
  low, high = num_units
  if not low <= len(units) <= high:
    raise BadProposal(f'{len(units)} different units, wanted {low} to {high}')
  try:
    return taxonomy.order(units)
  except taxonomy.DomainError as e:
    raise BadProposal(str(e)) from None


def agreed(
  votes: Iterable[Completion], modules: Sequence[KnowledgeModule]
) -> str | None:
  """The unit that every vote names, or None."""
  names = {m.name for m in modules}
  chosen = set()
  for vote in votes:
    choice = structured.read(vote, Choice)
    name = _name(choice.unit) if choice else None
    chosen.add(name if name in names else None)
  return chosen.pop() if len(chosen) == 1 else None


def _name(text: str) -> str:
  """`Category / Some Unit` to `category/some_unit`."""
  parts = [
    re.sub(r'\W+', '_', p.strip().casefold()).strip('_')
    for p in text.split('/')
  ]
  return '/'.join(p for p in parts if p)


def _listed(modules):
  return '\n'.join(f'- {m.name}: {m.description}' for m in modules)


def _one_line(text: str) -> str:
  return ' '.join(text.split())
