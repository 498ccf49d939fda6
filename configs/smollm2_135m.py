r"""SmolLM2-135M on grade-school word problems: a domain of text, with LoRA.

  pip install -e '.[http,eval]'
  python scripts/gsm8k_seeds.py --input=train.jsonl --output_dir=data/gsm8k
  python scripts/distill.py --config=configs/smollm2_135m.py \
    --config.teacher.base_url=http://127.0.0.1:8000/v1 \
    --config.teacher.model=NAME --workdir=runs/gsm8k

The template for a domain of your own: seeds in a file, a teacher behind any
OpenAI-compatible server. It fits two CPU cores and 6 GB. The defaults are those
of this run, so little stands here; docs/settings.md has them all.
"""

from ioa_jax import config as config_lib


def get_config():
  return config_lib.get(
    {
      'domain.name': 'gsm8k',
      'domain.description': 'to solve grade-school word problems',
      'domain.seeds': 'data/gsm8k/seeds.jsonl',
      'domain.taxonomy': 'data/gsm8k/taxonomy.yaml',
      'teacher.model': 'teacher',
      'student.model': 'HuggingFaceTB/SmolLM2-135M-Instruct',
    }
  )
