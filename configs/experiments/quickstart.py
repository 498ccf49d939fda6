"""IOA against the same lessons spent otherwise, at the quickstart's budget.

  python scripts/experiment.py --plan=configs/experiments/quickstart.py \
    --workdir=runs/compare --jobs=2
"""

from ioa_jax.domains import arithmetic


def get_plan():
  return {
    'config': 'configs/quickstart.py',
    'says': 'Does the curriculum pay when there is time to learn everything?',
    'seeds': (0, 1, 2),
    'runs': {
      'ioa': {},
      'uniform_direct': {'method': 'uniform_direct'},
      'uniform_steps': {'method': 'uniform_steps'},
      'gap_weighted': {'method': 'gap_weighted'},
    },
    'groups': {'multi-step': arithmetic.MULTI_STEP},
    'cores_per_run': 1,
    'untried': (
      'Other domains and students.',
      'A budget at which every stage passes.',
    ),
  }
