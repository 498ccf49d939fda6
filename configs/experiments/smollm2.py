r"""Real weights, real text: IOA against uniform lessons, small.

  hf download HuggingFaceTB/SmolLM2-135M-Instruct \
    --local-dir=data/smollm2-135m-instruct
  python scripts/gsm8k_seeds.py --input=train.jsonl --output_dir=data/gsm8k
  python -m tests.gsm8k_teacher data/gsm8k 60 8000 &
  python scripts/experiment.py --plan=configs/experiments/smollm2.py \
    --workdir=runs/smollm2 --jobs=2

The teacher is what people wrote: GSM8K's own solutions, behind the chat
protocol. Its answers are kept in WORKDIR/teacher/; with a copy of that folder
in another --workdir the same command repeats the plan without a teacher.
"""


def get_plan():
  return {
    'config': 'smollm2_135m',
    'says': 'Does the order of lessons matter to real weights in a short time?',
    'seeds': (0, 1, 2),
    'changes': {
      'student.model': 'data/smollm2-135m-instruct',
      # A decode step reads all weights, so all probes are asked at once.
      'student.batch_size': 48,
      'student.max_tokens': 160,
      # The memory is there, and reading a row twice is a third of the time.
      'student.remat': 'none',
      'train.total_steps': 32,
      'train.batch_rows': 2,
      'train.steps_per_window': 4,
      'gate.probe_every_steps': 4,
      'gate.max_rounds': 1,
      # As long as the first lessons: a round is a whole number of probings.
      'gate.remedial_share': 0.5,
    },
    'runs': {
      'ioa': {},
      'uniform': {'method': 'uniform_steps'},
    },
    'cores_per_run': 1,
    'untried': (
      'A budget at which a stage passes: a student that solves one in a hundred'
      ' such problems needs far more than 32 steps of 2 rows.',
      'A model as the teacher, which would write lessons for the student.',
    ),
  }
