"""What a student practises on before it is asked for remedial lessons.

Remedial requests show what the student got wrong. If that were the gate's own
probes, with their answers, the teacher would write lessons of them, and the
gate would measure what was taught to it. So it practises on training seeds.
"""

from __future__ import annotations

from ioa_jax.domains import Domain
from ioa_jax.records import Probe

_ALL = 1_000_000
COUNT = 16  # Items of a module that are practised on in a round.


def items(
  domain: Domain, module: str, *, round: int, count: int = COUNT
) -> tuple[Probe, ...]:
  """At most `count` training seeds as questions, others in each round.

  `round` and the seeds' order decide them; they begin anew after the last seed.
  """
  seeds = domain.seeds(module, _ALL)
  count = min(count, len(seeds))
  places = [(round * count + i) % len(seeds) for i in range(count)]
  return tuple(
    Probe(
      probe_id=f'practice/{module}/{place}',
      module=module,
      prompt=seeds[place].problem,
      reference=seeds[place].solution,
      answer=seeds[place].answer,
    )
    for place in places
  )
