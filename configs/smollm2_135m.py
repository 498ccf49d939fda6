r"""SmolLM2-135M on grade-school word problems: a domain of text, with LoRA.

  pip install -e '.[http,eval]'
  python scripts/gsm8k_seeds.py --input=train.jsonl --output_dir=data/gsm8k
  python scripts/distill.py --config=configs/smollm2_135m.py \
    --config.teacher.base_url=http://127.0.0.1:8000/v1 \
    --config.teacher.model=NAME --workdir=runs/gsm8k

The template for a domain of your own: seeds in a file, a teacher behind any
OpenAI-compatible server. It fits two CPU cores and 6 GB.
"""

import ml_collections

from ioa_jax.adapter import prompts


def get_config() -> ml_collections.ConfigDict:
  config = ml_collections.ConfigDict()
  config.seed = 0
  config.method = 'ioa'

  config.domain = ml_collections.ConfigDict()
  config.domain.kind = 'text'
  config.domain.name = 'gsm8k'
  # What the teacher is told that the student is learning.
  config.domain.description = 'to solve grade-school word problems'
  # 'file', 'datasets' (a hub id, as openai/gsm8k:main) or 'tfds'.
  config.domain.source = 'file'
  config.domain.split = 'train'
  config.domain.seeds = 'data/gsm8k/seeds.jsonl'
  # '' takes the seeds' tags as they are, without prerequisites.
  config.domain.taxonomy = 'data/gsm8k/taxonomy.yaml'
  config.domain.columns = ml_collections.ConfigDict()
  config.domain.columns.module = 'module'
  config.domain.columns.problem = 'problem'
  config.domain.columns.solution = 'solution'
  # '' reads it from the solution.
  config.domain.columns.answer = ''
  # 'number', 'maths' (in \boxed{}), 'choice' (A to D), 'code' (the answer is
  # tests), 'rouge_l' (open answers) or 'last_line'.
  config.domain.grader = 'number'
  # Of a module, in each of the gate's and the held-out part.
  config.domain.min_probes = 8
  config.domain.max_probes = 16
  # Benchmarks that no lesson may overlap with, as scripts/evaluate.py names
  # them, and the folder of their files ('' reads the hub).
  config.domain.benchmarks = ()
  config.domain.benchmark_dir = ''

  config.teacher = ml_collections.ConfigDict()
  # 'openai' (any compatible server), 'local' (a model directory) or 'replay'
  # (`recording` alone). With the others, what `recording`, the ledger of an
  # earlier run, has an answer to is not asked again.
  config.teacher.kind = 'openai'
  config.teacher.model = 'teacher'
  config.teacher.base_url = 'http://127.0.0.1:8000/v1'
  # The environment variable that holds the key; '' sends none.
  config.teacher.api_key_env = ''
  config.teacher.max_concurrency = 16
  config.teacher.recording = ''
  config.teacher.max_attempts = 8
  config.teacher.max_retry_after_seconds = 600.0
  # US dollars; a limit of 0 is none, and a limit needs the prices.
  config.teacher.price = ml_collections.ConfigDict()
  config.teacher.price.prompt_usd_per_million = 0.0
  config.teacher.price.completion_usd_per_million = 0.0
  config.teacher.max_usd = 0.0
  config.teacher.max_completion_tokens = 1_000_000
  config.teacher.max_tokens = 1024
  # Of a module's probes: with more that get no answer its score is unknown.
  config.teacher.max_unanswered_share = 0.1
  config.teacher.temperature = 0.7
  # Of a local teacher.
  config.teacher.batch_size = 8
  config.teacher.scan_unroll = 1
  config.teacher.remat = 'none'
  config.teacher.dtype = 'float32'

  config.student = ml_collections.ConfigDict()
  config.student.model = 'HuggingFaceTB/SmolLM2-135M-Instruct'
  config.student.scan_unroll = 1
  config.student.remat = 'full'
  config.student.dtype = 'float32'
  config.student.export_dtype = 'bfloat16'
  config.student.batch_size = 16
  config.student.max_tokens = 192
  config.student.lora = ml_collections.ConfigDict()
  config.student.lora.rank = 16
  config.student.lora.alpha = 32.0
  config.student.lora.dropout = 0.05
  config.student.lora.targets = ('q_proj', 'k_proj', 'v_proj', 'o_proj')
  # Of weights that do not train (QLoRA): '' (none), 'int8' or 'nf4'.
  config.student.quantization = ''

  config.identifier = ml_collections.ConfigDict()
  config.identifier.tau_gap = 0.3
  config.identifier.alpha = 0.7
  config.identifier.target_share = 1.0
  # 'given', 'teacher' (asked for it), or measured on the learner panel:
  # 'interventional', or Eq. 3's 'conditional'.
  config.identifier.dependency = 'given'
  config.identifier.tau_high = 0.9
  config.identifier.tau_low = 0.7
  config.identifier.tau_dep = 0.3
  # Of the interventional strength, whose interval must be above 0 as well.
  config.identifier.tau_effect = 0.05
  # Fewer learners on a side of a comparison leave it undefined.
  config.identifier.min_learners = 3
  # Learners 0: no panel. An even number of learners.
  config.identifier.panel = ml_collections.ConfigDict()
  config.identifier.panel.learners = 0
  config.identifier.panel.snapshots = 3
  config.identifier.panel.steps_per_snapshot = 20
  config.identifier.panel.batch_rows = 4
  config.identifier.panel.learning_rate = 1e-4
  # 'exact', or 'likelihood' (of the answer, per token), which moves earlier.
  config.identifier.panel.response = 'likelihood'

  config.organizer = ml_collections.ConfigDict()
  config.organizer.tau_zpd = 0.15
  config.organizer.zpd = 'readiness'
  # What a stage is ready by: 'exact' is the student's score, 'likelihood' that
  # of the reference answers (per token), which differs where scores are all 0.
  config.organizer.response = 'exact'
  # Smaller stages are merged; above 1, prerequisites share a stage.
  config.organizer.min_stage_modules = 1
  config.organizer.consolidation_share = 0.25

  config.adapter = ml_collections.ConfigDict()
  config.adapter.answer_format = 'steps'
  # Any of prompts.STRATEGIES.
  config.adapter.strategies = tuple(prompts.STRATEGIES)
  # Who writes, in turn, for variety; () is nobody in particular.
  config.adapter.personas = prompts.PERSONAS
  config.adapter.seeds_per_module = 60
  config.adapter.items_per_seed = 3
  config.adapter.rehearsal_items_per_seed = 1
  config.adapter.remedial_items_per_seed = 1
  # Where no lesson of a module can be kept: 'stop', or 'skip' the module.
  config.adapter.on_no_lessons = 'stop'
  # Solutions from the problem alone that must agree, by majority.
  config.adapter.confirm_samples = 1
  config.adapter.near_duplicate = 0.8

  config.gate = ml_collections.ConfigDict()
  config.gate.scoring = 'graded'
  config.gate.tau_mastery = 0.9
  # One-sided, of the bounds that decide; 0.5 is the point estimate.
  config.gate.confidence = 0.5
  # Stops probing a module as soon as its verdict cannot change.
  config.gate.sequential = False
  # A mastered module that falls is probed and taught again.
  config.gate.reopen = False
  config.gate.min_probes = 8
  config.gate.probe_every_steps = 50
  config.gate.max_rounds = 2
  config.gate.remedial_share = 0.25
  config.gate.on_stall = 'advance'

  config.train = ml_collections.ConfigDict()
  config.train.total_steps = 600
  config.train.batch_rows = 4
  # Parts of a batch, one after the other; they divide batch_rows.
  config.train.microbatches = 1
  config.train.row_length = 512
  config.train.replay_share = 0.2
  config.train.need_floor = 0.2
  config.train.average_decay = 0.98
  config.train.steps_per_window = 10

  # Of the teacher's distribution over the next token, which a local teacher
  # with the student's vocabulary can give.
  config.distillation = ml_collections.ConfigDict()
  # 'none' learns the lessons' text; 'forward_kl', 'reverse_kl' or 'jsd'.
  config.distillation.divergence = 'none'
  # Of 'jsd': near 0 it is like forward KL, near 1 like reverse KL.
  config.distillation.beta = 0.5
  # Tokens that are kept of a distribution; the others are one event.
  config.distillation.top_k = 64
  config.distillation.temperature = 1.0
  # Share of the divergence in the loss; the rest is cross-entropy.
  config.distillation.weight = 1.0
  # How often the student writes texts of its own, which the teacher then
  # scores; 0 is never. They take their share of the later steps.
  config.distillation.on_policy_every_steps = 0
  config.distillation.on_policy_share = 0.5

  config.optimizer = ml_collections.ConfigDict()
  config.optimizer.name = 'adamw'
  config.optimizer.learning_rate = 5e-4
  config.optimizer.warmup_share = 0.03
  config.optimizer.final_share = 0.1
  config.optimizer.weight_decay = 0.01
  config.optimizer.b1 = 0.9
  config.optimizer.b2 = 0.95
  config.optimizer.clip_norm = 1.0
  config.optimizer.momentum_dtype = 'float32'

  config.mesh = ml_collections.ConfigDict()
  config.mesh.data = -1
  config.mesh.fsdp = 1
  config.mesh.sequence = 1
  config.mesh.tensor = 1

  config.run = ml_collections.ConfigDict()
  config.run.checkpoint_every_steps = 50
  config.run.keep_checkpoints = 3
  return config
