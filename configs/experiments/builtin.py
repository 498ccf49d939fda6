"""Baselines and ablations of IOA at half of the quickstart's steps.

  python scripts/experiment.py --plan=configs/experiments/builtin.py \
    --workdir=runs/builtin --jobs=2
"""

from ioa_jax.domains import arithmetic


def get_plan():
  return {
    'config': 'quickstart',
    'says': 'What is each part of IOA worth when there is too little time?',
    'seeds': (0, 1, 2, 3, 4),
    # Where all methods still differ; at 4,000 most reach the teacher.
    # All of the paper's parts are on, also those that the default leaves out.
    'changes': {'train.total_steps': 2000, 'gate.max_rounds': 2},
    'runs': {
      'ioa': {},
      # Published methods, as far as they are public and mean something here.
      'self_instruct': {'method': 'self_instruct'},
      'lamini': {'method': 'lamini'},
      'lion': {'method': 'lion'},
      'dss': {'method': 'dss'},
      'cascod': {'method': 'cascod'},
      'star_agents': {'method': 'star_agents'},
      # With the teacher's weights at hand.
      'logit_distillation': {'method': 'logit_distillation'},
      'on_policy_distillation': {'method': 'on_policy_distillation'},
      # What reviewers asked for.
      'easy_to_hard': {'method': 'easy_to_hard'},
      'random_order': {'method': 'random_order'},
      # IOA without one part.
      'no_identifier': {'method': 'no_identifier'},
      'no_organizer': {'method': 'need_weighted'},
      'no_adapter': {'adapter.answer_format': 'direct'},
      'no_gate': {'method': 'ordered_no_gate'},
      'no_remediation': {'gate.max_rounds': 0},
      'no_replay': {'train.replay_share': 0.0},
      # What the paper has and the default does not.
      'smallest_first': {'adapter.smallest_first': True},
      # Without several.
      'gap_weighted': {'method': 'gap_weighted'},
      'uniform_steps': {'method': 'uniform_steps'},
    },
    'groups': {'multi-step': arithmetic.MULTI_STEP},
    'cores_per_run': 1,
    'untried': (
      'Strategies that bare formulas do not have: analogies, plain language, '
      'one template.',
      'MADA, of which nothing is public. Star-Agents is an adaptation: its '
      'formulas are not public.',
    ),
  }
