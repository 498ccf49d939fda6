r"""Other domains than the quickstart's, by name.

The built-in one of operations that call each other, whose prerequisites are
real: no lesson can be answered without what it calls.

  python scripts/distill.py --config=configs/domains.py:composition \
    --workdir=runs/composition

The four of the paper, at its values:

  python scripts/domain_seeds.py --format=mbpp --input=mbpp.jsonl \
    --output_dir=data/code
  python scripts/map_seeds.py --config=configs/domains.py:code \
    --config.domain.columns.module='' --config.domain.taxonomy='' \
    --config.domain.seeds=data/code/seeds.jsonl --output_dir=data/code/mapped \
    --config.teacher.base_url=URL --config.teacher.model=NAME
  python scripts/distill.py --config=configs/domains.py:code --workdir=RUN \
    --config.domain.seeds=data/code/mapped/seeds.jsonl \
    --config.domain.taxonomy=data/code/mapped/taxonomy.yaml ...

  instructions  open answers, graded by ROUGE-L       dolly, self_instruct
  maths         a formula in \boxed{}                 math
  code          Python, graded by unit tests          mbpp
  academic      one of four choices                   gpqa

The student is Qwen2.5-3B, trained whole; --config.student and its fields choose
another. Only the differences to configs/students.py stand here. Nobody has run
one of these four to its end with this project.
"""

from ioa_jax import config as config_lib

# Grader, what is learnt, context, seeds of the paper, benchmarks to keep out.
_DOMAINS = {
  'instructions': (
    'rouge_l',
    'to follow instructions and answer open questions',
    2048,
    800,
    ('dolly', 'vicuna'),
  ),
  'maths': (
    'maths',
    'to solve competition and school mathematics',
    4096,
    900,
    ('gsm8k', 'math', 'aime2024'),
  ),
  'code': (
    'code',
    'to write Python functions',
    4096,
    700,
    ('humaneval', 'mbpp'),
  ),
  'academic': (
    'choice',
    'graduate-level biology, physics and chemistry',
    4096,
    600,
    ('gpqa_diamond',),
  ),
}
_TRAINING_SHARE = 0.8
_EPOCHS = 3
_ITEMS_PER_SEED = 10


def get_config(domain: str = 'maths'):
  if domain == 'composition':
    # Of 64 probes; a true 0.80 passes in 2 % of stages of 12 looks.
    changes = {'domain.kind': domain, 'gate.confidence': 0.8}
    return config_lib.get('quickstart', changes)
  if domain not in _DOMAINS:
    raise ValueError(f'no such domain; choose of {("composition", *_DOMAINS)}.')
  grader, description, context, seeds, benchmarks = _DOMAINS[domain]
  config = config_lib.get('students:qwen2.5-3b')
  lessons = round(_TRAINING_SHARE * seeds) * _ITEMS_PER_SEED
  return config_lib.get(
    config,
    {
      'domain.name': domain,
      'domain.description': description,
      'domain.grader': grader,
      'domain.seeds': f'data/{domain}/seeds.jsonl',
      'domain.taxonomy': f'data/{domain}/taxonomy.yaml',
      'domain.columns.answer': 'answer',
      # Set benchmark_dir to a folder of files, or have the hub at hand; dolly
      # and vicuna are files only.
      'domain.benchmarks': benchmarks,
      # A fifth of each module's seeds is probes, half of them the gate's. Fewer
      # than three of these say nothing, and they take 28 seeds a module: so the
      # seeds above are enough for 21 to 32 modules, and not for the paper's 25
      # to 35 in every domain.
      'domain.min_probes': 3,
      'gate.min_probes': 3,
      'identifier.target_share': 0.25,
      'adapter.items_per_seed': _ITEMS_PER_SEED,
      # No key proves these: a majority of three independent solutions.
      'adapter.confirm_samples': 3,
      'train.row_length': context,
      'train.total_steps': _EPOCHS * lessons // config.train.batch_rows,
      'gate.probe_every_steps': 10,
    },
  )
