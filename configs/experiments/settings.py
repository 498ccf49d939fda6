"""The paper's thresholds, one at a time, where there is too little time.

  python scripts/experiment.py --plan=configs/experiments/settings.py \
    --workdir=runs/settings --jobs=2
"""

from ioa_jax.domains import arithmetic


def get_plan():
  return {
    'config': 'configs/quickstart.py',
    'says': (
      'How much do the thresholds matter? `ioa` has the defaults: mastery at '
      "0.9 of the teacher's score by the point estimate, ZPD 0.15 by readiness."
    ),
    'seeds': (0, 1, 2),
    # As in builtin.py, so the two pages can be read together.
    'changes': {'train.total_steps': 2000},
    'runs': {
      'ioa': {},
      'mastery_0.8': {'gate.tau_mastery': 0.8},
      'mastery_0.95': {'gate.tau_mastery': 0.95},
      'confident_0.9': {'gate.confidence': 0.9},
      'zpd_0.05': {'organizer.tau_zpd': 0.05},
      'zpd_0.3': {'organizer.tau_zpd': 0.3},
      'zpd_literal': {'organizer.zpd': 'literal'},
    },
    'groups': {'multi-step': arithmetic.MULTI_STEP},
    'cores_per_run': 1,
    'untried': (
      'Two settings changed together.',
      "The identifier's thresholds.",
    ),
  }  # fmt: skip
