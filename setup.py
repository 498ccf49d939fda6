"""Packaging. Tool settings are in pyproject.toml."""

import ast
import pathlib

import setuptools

HERE = pathlib.Path(__file__).parent


def version() -> str:
  """`ioa_jax.__version__`, without importing what may not be installed yet."""
  source = (HERE / 'ioa_jax' / '__init__.py').read_text(encoding='utf-8')
  (value,) = (
    node.value
    for node in ast.parse(source).body
    if isinstance(node, ast.Assign) and node.targets[0].id == '__version__'
  )
  return ast.literal_eval(value)


# 0.10.2 is the last for Python 3.11, where all tests run. On 3.12 those of the
# gate ran with 0.11.2, which images of 2026 carry, and 0.12.0; with 0.11.2 also
# a window of steps with probes, and the sampler. Other 0.11 were not tried.
JAX = '>=0.10.2,<0.13,!=0.11.0,!=0.11.1'

CORE = [
  f'jax{JAX}',
  # 0.12.8 is the last for Python 3.11. It uses an API that jax 0.11.1 dropped;
  # 0.12.12 wants jax 0.11.1 or newer.
  'flax>=0.12.8,<0.13; python_version < "3.12"',
  'flax>=0.12.12,<0.13; python_version >= "3.12"',
  # 0.2.8 is what Muon with `consistent_rms` was tried with.
  'optax>=0.2.8,<0.3',
  # CheckpointManager with `args`; 0.12 writes what older ones cannot read.
  'orbax-checkpoint>=0.12,<0.13',
  # 5 nests RoPE parameters in config.json; 4 is read, 5 is written.
  'transformers>=5.0,<6',
  'datasets>=4.0,<6',
  # 4.9.9 reads without TensorFlow (`tfds.data_source`).
  'tensorflow-datasets>=4.9.9,<5',
  'absl-py>=2.1,<3',
  'ml-collections>=1.1,<2',
  # What the nine above bring along and this package imports itself; pyarrow has
  # Parquet.
  'numpy>=2.0,<3',
  # Bootstraps and permutation tests with `rng`.
  'scipy>=1.15,<2',
  # Paths of buckets, as Orbax takes them.
  'etils[epath]>=1.10,<2',
  'safetensors>=0.5,<1',
  'tokenizers>=0.22,<1',
  'pyarrow>=21,<30',
  'rich>=13.7,<16',
  # Prerequisite graphs: generations, ancestors, cycles.
  'networkx>=3.2,<4',
  # The report's HTML, with every model text escaped.
  'jinja2>=3.1,<4',
  # What a teacher answers: its JSON is checked with one, and mended with the
  # other before it is given up. Taxonomies are YAML.
  'pydantic>=2.7,<3',
  'json-repair>=0.40,<1',
  # The bounds of settings, as pydantic reads them.
  'annotated-types>=0.6,<1',
  'pyyaml>=6.0,<7',
  # Knows scripts and combining marks, which `re` does not; matches patterns of
  # a stranger's adapter within a limit of time. Versions are dates.
  'regex>=2025.10.22,<2028',
  # TensorBoard events without TensorFlow; `clu` is no longer maintained.
  'tensorboardX>=2.6.2,<3',
]

EVAL = [
  # ROUGE-L as MiniLLM and most papers report it; unchanged since 2022.
  'rouge-score>=0.1.2,<0.2',
  # Maths equivalence. Its wrong verdicts that `maths` guards against are pinned
  # by tests, so another minor version is a decision.
  'math-verify>=0.9,<0.10',
  # Its parser of LaTeX, which is called by itself; math-verify brings it.
  'latex2sympy2_extended>=1.11,<1.12',
  # MinHash for near-duplicates; 2.0 is what was tried.
  'datasketch>=2.0,<3',
]

HTTP = [
  # 3 moved to another HTTP library; what is used here is checked with it.
  'openai>=3.23,<4',
  # What openai sends with; its client is bounded here.
  'httpx2>=2.12,<3',
]

DOCS = [
  # The site of the documents; 9.8 is what was tried. It adds 110 MB to the
  # tests' environment.
  'mkdocs-material>=9.8,<10',
]

# Brings the compiler for TPUs, which needs no TPU.
TPU = [f'jax[tpu]{JAX}']

QLORA = [
  # Arrays in 8 and 4 bits. 0.1.8 is what was tried; its API is not settled.
  'qwix>=0.1.8,<0.2',
]

SCHEMA = [
  # Token masks of a JSON schema, without torch. 1.9 is what was tried.
  'llguidance>=1.9,<2',
]

LM_EVAL = [
  # The model class over the sampler here, and the filters that
  # `tests/test_lm_eval.py` grades by too; the table in docs/benchmarks.md was
  # counted with 0.4.13. It adds 73 MB to the tests' environment.
  'lm_eval>=0.4.13,<0.5',
]

# Where a run's numbers can be sent besides TensorBoard; each is the version
# that was tried, offline. The whole of mlflow wants an older pyarrow.
TRACKERS = {
  'wandb': ['wandb>=0.31,<0.32'],
  'mlflow': ['mlflow-skinny>=3.17,<4'],
  'trackio': ['trackio>=0.43,<0.44'],
}

EXTRAS = {
  'eval': EVAL,
  # Answers of a local teacher that keep to a JSON schema.
  'schema': SCHEMA,
  'test': [
    *EVAL,
    'pytest>=8.2,<10',
    # Compiling is most of the time, and one core's work.
    'pytest-xdist>=3.6,<4',
    # A test that hangs is named, with every thread's stack.
    'pytest-timeout>=2.3,<3',
    'hypothesis>=6.100,<7',
    'ruff>=0.12,<1',
    # The independent oracle of parity tests. Pinned: an open range pulls
    # gigabytes of CUDA.
    'torch==2.13.0',
    # The oracle of adapters; another minor version brings other kinds of them.
    'peft>=0.19,<0.20',
    # Reads the TensorBoard events back.
    'tensorboard>=2.17,<3',
    # A real server for the HTTP teacher.
    'transformers[serving]>=5.0,<6',
    *HTTP,
    *SCHEMA,
    *QLORA,
    *LM_EVAL,
    *DOCS,
    *TPU,
  ],
  # lm-evaluation-harness over the sampler here, beside `evaluate`.
  'lm_eval': LM_EVAL,
  'docs': DOCS,
  # A teacher behind an OpenAI-compatible server.
  'http': HTTP,
  # LoRA over a frozen base in 8 or 4 bits.
  'qlora': QLORA,
  'tpu': TPU,
  # Checkpoints in gs:// buckets. Versions are dates.
  'gcs': ['gcsfs>=2026.1,<2028'],
  # The driver decides which: 525 or newer has 12, 580 or newer 13.
  'cuda12': [f'jax[cuda12]{JAX}'],
  'cuda13': [f'jax[cuda13]{JAX}'],
  **TRACKERS,
}

# In a checkout they stand at the top, where one looks for them.
CONFIGS = {
  'ioa_jax.configs': 'configs',
  'ioa_jax.configs.experiments': 'configs/experiments',
}

setuptools.setup(
  name='ioa_jax',
  version=version(),
  description='Pedagogically ordered distillation of language models in JAX',
  long_description=(HERE / 'README.md').read_text(encoding='utf-8'),
  long_description_content_type='text/markdown',
  license='Apache-2.0',
  python_requires='>=3.11',
  packages=[
    *setuptools.find_packages(include=['ioa_jax', 'ioa_jax.*']),
    *CONFIGS,
  ],
  package_dir=CONFIGS,
  package_data={
    'ioa_jax': ['assets/**/*', 'report/*.html', 'report/*.css'],
    'ioa_jax.configs.experiments': ['*.md'],
  },
  entry_points={'console_scripts': ['ioa = ioa_jax.commands:main']},
  install_requires=CORE,
  extras_require=EXTRAS,
)
