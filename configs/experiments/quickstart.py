"""What each part of IOA is worth when there is time to master the stages.

  python scripts/experiment.py --plan=configs/experiments/quickstart.py \
    --workdir=runs/compare --jobs=2
"""

from ioa_jax.domains import arithmetic


def get_plan():
  return {
    'config': 'quickstart',
    'says': 'What is each part worth when there is time for mastery?',
    'seeds': (0, 1, 2, 3, 4),
    'runs': {
      'ioa': {},
      'no_organizer': {'method': 'need_weighted'},
      'no_gate': {'method': 'ordered_no_gate'},
      'no_gap_weighting': {'train.need_floor': 1.0},
      'no_replay': {'train.replay_share': 0.0},
      # What the paper has and the default does not.
      'remediation': {'gate.max_rounds': 2},
      'smallest_first': {'adapter.smallest_first': True},
      # Without several.
      'uniform_steps': {'method': 'uniform_steps'},
    },
    'groups': {'multi-step': arithmetic.MULTI_STEP},
    'cores_per_run': 1,
    'untried': ('Other domains and students.',),
  }
