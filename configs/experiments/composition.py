"""IOA beside published methods and without its parts, where steps are scarce.

The domain's prerequisites are real and the budget is a quarter of the
quickstart's. Scores are of the test set, which no default was chosen on.

  python scripts/experiment.py --plan=configs/experiments/composition.py \
    --workdir=runs/composition --jobs=2
"""

from ioa_jax.domains import composition

_DEPTHS = {
  'depth 1 to 2': (1, 2),
  'depth 3 to 4': (3, 4),
  'depth 5 to 6': (5, 6),
}


def get_plan():
  return {
    'config': 'domains:composition',
    'says': 'Is IOA worth anything where prerequisites are real and steps few?',
    'seeds': tuple(range(20)),
    'changes': {
      'domain.evaluate_on': 'held_out',
      'train.total_steps': 1000,
    },
    'runs': {
      'ioa': {},
      # Published methods, as far as they are public and mean something here.
      'lion': {'method': 'lion'},
      'cascod': {'method': 'cascod'},
      'star_agents': {'method': 'star_agents'},
      'self_instruct': {'method': 'self_instruct'},
      # The same lessons: of all modules at once, and in other orders.
      'uniform_steps': {'method': 'uniform_steps'},
      'easy_to_hard': {'method': 'easy_to_hard'},
      'random_order': {'method': 'random_order'},
      # IOA without one part.
      'no_identifier': {'method': 'no_identifier'},
      'no_organizer': {'method': 'need_weighted'},
      'no_adapter': {'adapter.answer_format': 'direct'},
      'no_gate': {'method': 'ordered_no_gate'},
      'no_gap_weighting': {'train.need_floor': 1.0},
      'no_replay': {'train.replay_share': 0.0},
    },
    'rivals': ('lion', 'cascod', 'star_agents', 'self_instruct'),
    'groups': {
      'multi-step': composition.MULTI_STEP,
      **{
        name: [m.name for m in composition.MODULES if low <= m.level <= high]
        for name, (low, high) in _DEPTHS.items()
      },
    },
    'cores_per_run': 1,
    'untried': (
      'Half and the whole of the budget, and an eighth of it.',
      'Budgets of teacher tokens: every method is given the same lessons of '
      'each module, and may not use them up.',
      'Distilling Step-by-Step, LaMini (the same data as Self-Instruct where '
      'the domain draws the problems) and MADA, of which nothing is public. '
      'Star-Agents is an adaptation: its formulas are not public.',
      'Other domains, students and teachers.',
    ),
  }
