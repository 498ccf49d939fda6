r"""How often the gate errs: simulated stages of one module.

  python scripts/gate_errors.py --probes=32 --looks=15

A student's true share of its teacher's score stays the same for a whole stage,
and the gate looks at it again and again, each time with all probes answered.
Prints, for each true share and confidence, the share of stages in which a look
passes. A module below gate.tau_mastery that passes is an error; one above it
that never passes is one as well. With many looks the point estimate (confidence
0.5) passes by luck sooner or later.
"""

from collections.abc import Sequence

from absl import flags

from ioa_jax.runtime import commandline, terminal

_PROBES = flags.DEFINE_integer('probes', 32, 'Of a module.', lower_bound=1)
_LOOKS = flags.DEFINE_integer('looks', 15, 'Of a stage.', lower_bound=1)
_STAGES = flags.DEFINE_integer('stages', 20_000, 'Simulated.', lower_bound=1)
_TAU = flags.DEFINE_float(
  'tau_mastery', 0.9, 'See docs/settings.md.', lower_bound=0, upper_bound=1
)
_CONFIDENCES = (0.5, 0.8, 0.9, 0.95)
_SHARES = (0.7, 0.75, 0.8, 0.85, 0.9, 0.95, 0.98, 1.0)


def table(
  probes: int, looks: int, stages: int, tau: float
) -> dict[float, list[float]]:
  """True share to the share of stages that pass, by confidence.

  Where the answers to one look are independent of the last one's, which is the
  worst case: a student changes between looks.
  """
  import jax.numpy as jnp
  import numpy as np

  from ioa_jax.training import gate

  rng = np.random.default_rng(0)
  found = {}
  for share in _SHARES:
    correct = rng.binomial(probes, share, (stages, looks))
    found[share] = []
    for confidence in _CONFIDENCES:
      z = jnp.float32(gate.normal_quantile(confidence))
      low, _ = gate.wilson(jnp.arange(probes + 1), jnp.int32(probes), z)
      passes = np.asarray(low) >= tau - 1e-6
      found[share].append(float(passes[correct].any(axis=1).mean()))
  return found


def main(argv: Sequence[str]) -> None:
  del argv
  rows = table(_PROBES.value, _LOOKS.value, _STAGES.value, _TAU.value)
  names = [f'{c:g}' for c in _CONFIDENCES]
  terminal.say('| true share | ' + ' | '.join(names) + ' |')
  terminal.say('|---' * (1 + len(names)) + '|')
  for share, passed in rows.items():
    cells = ' | '.join(f'{100 * p:.1f} %' for p in passed)
    terminal.say(f'| {share:g} | {cells} |')


if __name__ == '__main__':
  commandline.run(main)
