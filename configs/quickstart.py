r"""The whole method on the built-in arithmetic domain.

  python scripts/distill.py --config=configs/quickstart.py \
    --workdir=runs/quickstart

Two CPU cores, no network. The teacher and the student ship with the package.
"""

import ml_collections


def get_config() -> ml_collections.ConfigDict:
  config = ml_collections.ConfigDict()
  config.seed = 0
  config.domain = ml_collections.ConfigDict()
  config.domain.kind = 'arithmetic'
  # 'ioa', or one of the ways to compare with in baselines/methods.py.
  config.method = 'ioa'

  config.teacher = ml_collections.ConfigDict()
  config.teacher.kind = 'local'
  # A model directory, or 'builtin' for the one that ships with the domain.
  config.teacher.model = 'builtin'
  # Layers laid out per iteration of the scan: all of them is fastest on CPU.
  config.teacher.scan_unroll = 4
  config.teacher.remat = 'none'
  config.teacher.dtype = 'float32'
  config.teacher.batch_size = 128
  config.teacher.max_tokens = 48
  # Of a module's probes: with more that get no answer its score is unknown.
  config.teacher.max_unanswered_share = 0.1
  # The ledger of another run, whose answers are taken where they fit.
  config.teacher.recording = ''
  # Hard budget of the whole run; nothing is sent that could cross it.
  config.teacher.max_completion_tokens = 2_000_000

  config.student = ml_collections.ConfigDict()
  config.student.model = 'builtin'
  config.student.scan_unroll = 3
  config.student.remat = 'none'
  config.student.dtype = 'float32'
  config.student.export_dtype = 'float32'
  # Of answers to probes.
  config.student.batch_size = 128
  config.student.max_tokens = 48
  # Rank 0 trains all weights.
  config.student.lora = ml_collections.ConfigDict()
  config.student.lora.rank = 0
  config.student.quantization = ''

  config.identifier = ml_collections.ConfigDict()
  config.identifier.tau_gap = 0.3
  config.identifier.alpha = 0.7
  # The paper teaches the top 20-30 % and repeats. One round here covers all.
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
  # Learners 0: no panel. 16 add some minutes on two CPU cores.
  config.identifier.panel = ml_collections.ConfigDict()
  config.identifier.panel.learners = 0
  config.identifier.panel.snapshots = 3
  config.identifier.panel.steps_per_snapshot = 60
  config.identifier.panel.batch_rows = 4
  config.identifier.panel.learning_rate = 4e-3
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
  # Share of the steps for all targets together, after the last stage.
  config.organizer.consolidation_share = 0.25

  config.adapter = ml_collections.ConfigDict()
  config.adapter.seeds_per_module = 60
  config.adapter.items_per_seed = 15  # J in Eq. 1.
  config.adapter.answer_format = 'steps'
  # The paper's cognitive load: small operands first. Here it costs more than it
  # gives, see configs/experiments/builtin.md.
  config.adapter.smallest_first = False
  config.adapter.rehearsal_items_per_seed = 5
  config.adapter.remedial_items_per_seed = 4
  # Where no lesson of a module can be kept: 'stop', or 'skip' the module.
  config.adapter.on_no_lessons = 'stop'

  config.gate = ml_collections.ConfigDict()
  # 'in_step': one form of the answer, by one forward pass of the step;
  # 'decoded': the step writes answers and compares them; 'graded': the host.
  config.gate.scoring = 'in_step'
  config.gate.tau_mastery = 0.9
  # One-sided, of the bounds that decide; 0.5 is the point estimate.
  config.gate.confidence = 0.5
  # Stops probing a module as soon as its verdict cannot change.
  config.gate.sequential = False
  # A mastered module that falls is probed and taught again.
  config.gate.reopen = False
  config.gate.min_probes = 32
  config.gate.probe_every_steps = 50
  # The paper remediates until mastery. Here such rounds cost teacher tokens and
  # gain nothing that shows, see configs/experiments/.
  config.gate.max_rounds = 0
  # Share of a stage's steps that each remedial round adds to it.
  config.gate.remedial_share = 0.2
  config.gate.on_stall = 'advance'

  config.train = ml_collections.ConfigDict()
  config.train.total_steps = 4000
  config.train.batch_rows = 16
  # Parts of a batch, one after the other; they divide batch_rows.
  config.train.microbatches = 1
  config.train.row_length = 64
  config.train.replay_share = 0.3
  config.train.need_floor = 0.2
  config.train.average_decay = 0.998
  config.train.steps_per_window = 200

  # Of the teacher's distribution over the next token, which a local teacher
  # with the student's vocabulary can give.
  config.distillation = ml_collections.ConfigDict()
  # 'none' learns the lessons' text; 'forward_kl', 'reverse_kl' or 'jsd'.
  config.distillation.divergence = 'none'
  # Of 'jsd': near 0 it is like forward KL, near 1 like reverse KL.
  config.distillation.beta = 0.5
  # Tokens that are kept of a distribution; the others are one event.
  config.distillation.top_k = 8
  config.distillation.temperature = 1.0
  # Share of the divergence in the loss; the rest is cross-entropy.
  config.distillation.weight = 1.0
  # How often the student writes texts of its own, which the teacher then
  # scores; 0 is never. They take their share of the later steps.
  config.distillation.on_policy_every_steps = 0
  config.distillation.on_policy_share = 0.5

  config.optimizer = ml_collections.ConfigDict()
  # 'muon', or the paper's 'adamw' (learning rate 6e-3, decay 0.01 here).
  config.optimizer.name = 'muon'
  config.optimizer.learning_rate = 5e-3
  config.optimizer.warmup_share = 0.03
  config.optimizer.final_share = 0.1
  config.optimizer.weight_decay = 0.3
  config.optimizer.b1 = 0.9
  config.optimizer.b2 = 0.95
  config.optimizer.clip_norm = 1.0
  config.optimizer.momentum_dtype = 'float32'

  # Devices along each mesh axis; -1 takes what is left.
  config.mesh = ml_collections.ConfigDict()
  config.mesh.data = -1
  config.mesh.fsdp = 1
  config.mesh.sequence = 1
  config.mesh.tensor = 1

  config.run = ml_collections.ConfigDict()
  config.run.checkpoint_every_steps = 1000
  config.run.keep_checkpoints = 3
  return config


def get_sweep():
  """What scripts/sweep.py varies: the gate's and the zone's thresholds."""
  # Scores are 0 almost everywhere here, so only likelihoods tell modules apart.
  likelihood = {'organizer.response': 'likelihood'}
  return [
    {},
    {'gate.tau_mastery': 0.8},
    {'gate.tau_mastery': 0.95},
    {'gate.confidence': 0.9},
    {'gate.reopen': True},
    likelihood,
    {**likelihood, 'organizer.tau_zpd': 0.05},
    {**likelihood, 'organizer.tau_zpd': 0.3},
    {**likelihood, 'organizer.zpd': 'literal'},
    {'organizer.min_stage_modules': 3},
  ]
