r"""IOA on a domain of text against published methods and other orders.

  python scripts/gsm8k_seeds.py --input=train.jsonl --output_dir=data/gsm8k
  python scripts/experiment.py --plan=configs/experiments/text.py \
    --workdir=runs/text

Every run has the same teacher, seeds, number of lessons that are asked for,
budget of steps, student and evaluation. What else a method asks its teacher
(confirmations, marks) is on its own bill, which the table shows.
`teacher.max_completion_tokens` holds all to one budget.
"""


def get_plan():
  return {
    'config': 'smollm2_135m',
    'says': 'Does pedagogy matter on text, at the same lessons and steps?',
    'seeds': (0, 1, 2),
    # Three rounds of Lion get a lesson of each seed; so do all others.
    'changes': {'adapter.items_per_seed': 3},
    'runs': {
      'ioa': {},
      # Published methods; their docstrings name what is an adaptation.
      'self_instruct': {'method': 'self_instruct'},
      'lamini': {'method': 'lamini'},
      'lion': {'method': 'lion'},
      'dss': {'method': 'dss'},
      'cascod': {'method': 'cascod'},
      'star_agents': {'method': 'star_agents'},
      # IOA's own lessons in other orders.
      'easy_to_hard': {'method': 'easy_to_hard'},
      'random_order': {'method': 'random_order'},
      'uniform': {'method': 'uniform_steps'},
    },
    'cores_per_run': 1,
    'untried': (
      'The same texts in every order: lessons of a stage are written for the '
      'student as it is when the stage begins, so requests of other orders '
      'differ in their level.',
      "A large model's instruction-following difficulty for Star-Agents, which "
      'a served teacher does not give.',
    ),
  }
