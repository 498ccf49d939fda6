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

import pathlib
import runpy

import ml_collections

_HERE = pathlib.Path(__file__).parent
# Grader, what is learnt, context, seeds of the paper, benchmarks to keep out.
_DOMAINS = {
  'instructions': (
    'rouge_l', 'to follow instructions and answer open questions', 2048, 800,
    ('dolly', 'vicuna'),
  ),
  'maths': (
    'maths', 'to solve competition and school mathematics', 4096, 900,
    ('gsm8k', 'math', 'aime2024'),
  ),
  'code': (
    'code', 'to write Python functions', 4096, 700, ('humaneval', 'mbpp'),
  ),
  'academic': (
    'choice', 'graduate-level biology, physics and chemistry', 4096, 600,
    ('gpqa_diamond',),
  ),
}  # fmt: skip
_TRAINING_SHARE = 0.8
_EPOCHS = 3


def get_config(domain: str = 'maths') -> ml_collections.ConfigDict:
  if domain == 'composition':
    quickstart = runpy.run_path(str(_HERE / 'quickstart.py'))
    config = quickstart['get_config']()
    config.domain.kind = domain
    return config
  if domain not in _DOMAINS:
    raise ValueError(
      f'configs/domains.py:{domain}: no such domain; choose of '
      f'{("composition", *_DOMAINS)}.'
    )
  grader, description, context, seeds, benchmarks = _DOMAINS[domain]
  students = runpy.run_path(str(_HERE / 'students.py'))
  config = students['get_config']('qwen2.5-3b')
  config.domain.name = domain
  config.domain.description = description
  config.domain.grader = grader
  config.domain.seeds = f'data/{domain}/seeds.jsonl'
  config.domain.taxonomy = f'data/{domain}/taxonomy.yaml'
  config.domain.columns.answer = 'answer'
  # Set benchmark_dir to a folder of files, or have the hub at hand; dolly and
  # vicuna are files only.
  config.domain.benchmarks = benchmarks
  # 25 to 35 modules share the seeds; a fifth of each is probes.
  config.domain.min_probes = 2
  config.gate.min_probes = 2
  config.identifier.target_share = 0.25
  config.adapter.items_per_seed = 10
  # No key proves these: three independent solutions, and a majority of them.
  config.adapter.confirm_samples = 3
  config.train.row_length = context
  lessons = round(_TRAINING_SHARE * seeds) * config.adapter.items_per_seed
  config.train.total_steps = _EPOCHS * lessons // config.train.batch_rows
  config.gate.probe_every_steps = 10
  return config
