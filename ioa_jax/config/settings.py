"""Every setting: its default, type, range and meaning, each said once.

A class is a group of settings, a field a setting, and the text below a field
its meaning: `--help`, docs/settings.md, the checks and the defaults are made
from them. A setting that is added later has as its default what was done before
it, so runs of older configurations go on.
"""

from __future__ import annotations

from typing import Annotated, Literal

from annotated_types import Ge, Interval, Predicate

from ioa_jax.config.kinds import (
  AboveZero,
  Axis,
  BelowOne,
  Changeable,
  Count,
  CountOrAuto,
  CountOrNone,
  Dtype,
  Format,
  Group,
  NotNegative,
  Positive,
  Response,
  Says,
  Share,
)
from ioa_jax.config.methods import METHODS
from ioa_jax.config.people import Domain, Judge, Student, Teacher


class Panel(Group):
  """Learners that are taught for a short time, to measure what stands on what
  and how hard each probe is."""

  learners: Annotated[
    int,
    Predicate(lambda n: n == 0 or (n >= 4 and n % 2 == 0)),
    Says('0, or an even number >= 4'),
  ] = 0
  """0 is no panel. 16 add some minutes to the quickstart."""
  snapshots: Count = 3
  """How often each learner is probed."""
  steps_per_snapshot: Count = 20
  """Training steps before each probing."""
  batch_rows: Count = 4
  """Rows of a learner's step."""
  learning_rate: Positive = 1e-4
  """Of the learners, with AdamW."""
  response: Response = 'likelihood'
  """'exact' is whether an answer is right; 'likelihood' (of the answer, for a
  token) moves earlier."""


class Identifier(Group):
  """What the student does not know and its teacher does."""

  tau_gap: BelowOne = 0.3
  """A module with a larger gap is deficient."""
  alpha: Share = 0.7
  """Weight of the gap in the severity; the rest is how much stands on it."""
  target_share: AboveZero = 1.0
  """Of the deficient modules, the most severe first. The paper teaches the top
  20 to 30 % and repeats, see --rounds."""
  dependency: Literal['given', 'teacher', 'interventional', 'conditional'] = (
    'given'
  )
  """Where prerequisites come from: the domain, the teacher, or measured on the
  learner panel (the last is Eq. 3)."""
  tau_high: AboveZero = 0.9
  """A learner with this share of the teacher's score has mastered a module."""
  tau_low: AboveZero = 0.7
  """A learner below this share lacks it; at most tau_high."""
  tau_dep: BelowOne = 0.3
  """Conditional strength from which a module is a prerequisite."""
  tau_effect: BelowOne = 0.05
  """Likewise of the interventional strength, whose interval must be above 0 as
  well."""
  min_learners: Annotated[int, Ge(2)] = 3
  """Fewer on a side of a comparison leave it undefined."""
  panel: Panel = Panel()


class Organizer(Group):
  """In which stages the targets are taught."""

  tau_zpd: NotNegative = 0.15
  """Largest step from a stage to the next, as a share of the student's score on
  the former (Eq. 8); where it is larger, the stages between are split."""
  zpd: Literal['readiness', 'literal'] = 'readiness'
  """Which step is limited: how much harder the next stage is, or, as the paper
  prints it, how much easier."""
  response: Response = 'exact'
  """What a module is ready by: the student's score, or the likelihood of the
  reference answers, which differs where scores are all 0."""
  min_stage_modules: Count = 1
  """Smaller stages are merged; above 1, prerequisites share a stage."""
  consolidation_share: BelowOne = 0.25
  """Of the steps, for all targets together after the last stage."""


class Adapter(Group):
  """How lessons are written."""

  answer_format: Format = 'steps'
  """Worked solutions, or the answer at once (built-in domains only)."""
  smallest_first: bool = False
  """Small operands first (built-in domains only): the paper's cognitive load;
  text has levels and a strategy for it."""
  strategies: tuple[
    Literal[
      'concretise', 'decompose', 'cognitive_load', 'template', 'plain_language'
    ],
    ...,
  ] = (
    'concretise',
    'decompose',
    'cognitive_load',
    'template',
    'plain_language',
  )
  """What the teacher is asked to heed."""
  personas: tuple[str, ...] = (
    'a patient teacher of young children',
    'a shopkeeper who shows everything with the goods at hand',
    'a coach who says aloud what comes next',
    'a parent at the kitchen table',
    'an engineer who checks every result',
  )
  """Who writes, in turn, for variety; () is nobody in particular."""
  seeds_per_module: Count = 60
  """Seeds that are written from, at most."""
  items_per_seed: Count = 3
  """Lessons for each seed, J in Eq. 1."""
  rehearsal_items_per_seed: Count = 1
  """Likewise, of modules that the student knows already."""
  remedial_items_per_seed: Count = 1
  """Likewise, of a remedial round."""
  supply: Literal['fixed', 'by_need'] = 'fixed'
  """'fixed' buys all lessons of a module when its stage begins; 'by_need' buys
  them in lots, while it learns too slowly from those that it has."""
  lot_items_per_seed: Count = 1
  """By need: lessons for each seed of a lot; items_per_seed is the most that
  a module can get."""
  passes_per_lot: Positive = 4.0
  """By need: how often a module reads its lessons before it may get a lot."""
  budget_share: AboveZero = 0.5
  """By need: of the lessons that 'fixed' would buy, for all modules together,
  the neediest first; a first lot of each is always bought."""
  on_no_lessons: Changeable[Literal['stop', 'skip']] = 'stop'
  """Where no lesson of a module can be kept: stop, or go on without it."""
  confirm_samples: Count = 1
  """Solutions from the problem alone that must agree, by majority."""
  near_duplicate: AboveZero = 0.8
  """Similarity of two problems from which one is left out."""
  contamination: Literal['wording', 'numbers'] = 'wording'
  """What gives a probe away; 'numbers' where problems differ in those only."""


class Gate(Group):
  """When a stage is left."""

  scoring: Literal['graded', 'in_step', 'decoded'] = 'graded'
  """'in_step': one form of the answer, by a forward pass of the train step;
  'decoded': the step writes answers and compares them; 'graded': the host
  grades them."""
  tau_mastery: AboveZero = 0.9
  """Share of the teacher's score that is mastery."""
  confidence: Annotated[float, Interval(ge=0.5, lt=1)] = 0.5
  """One-sided, of the bounds that decide; 0.5 is the point estimate."""
  sequential: bool = False
  """Stop probing a module as soon as its verdict cannot change."""
  reopen: bool = False
  """Probe and teach a mastered module again when it falls."""
  min_probes: Count = 8
  """Fewer answered probes of a module are no evidence. So few that half of
  tau_mastery passes more than 15 % of looks by luck are refused."""
  probe_every_steps: Count = 50
  """Steps between two probings."""
  max_rounds: CountOrNone = 2
  """Remedial rounds of a stage at most."""
  remedial_share: BelowOne = 0.25
  """Of a stage's steps, which each remedial round adds to it."""
  on_stall: Literal['advance', 'stop'] = 'advance'
  """What to do with a stage whose rounds are spent."""


class Train(Group):
  """Steps and batches."""

  total_steps: CountOrAuto = 600
  """Of the whole run, stages and consolidation together. 'auto' counts lessons
  and probes before anything is paid: enough for train.epochs, and for every
  stage with its remedial rounds."""
  epochs: Positive = 10.0
  """Of total_steps 'auto': how often each lesson of the stages is read, if all
  modules are taught. If fewer are, theirs are read more often."""
  batch_rows: Count = 4
  """Rows of a step."""
  microbatches: Count = 1
  """Parts of a batch, one after the other; they divide batch_rows."""
  row_length: Annotated[int, Ge(8)] = 512
  """Tokens of a row, into which lessons are packed."""
  replay_share: BelowOne = 0.2
  """Of a batch, from modules of earlier stages."""
  need_floor: AboveZero = 0.2
  """Least weight of a module in a batch, the neediest having 1."""
  readiness_power: NotNegative = 0.0
  """Modules weigh less where their prerequisites are not mastered: by the
  product of their mastery to this power; 0 does not look at it."""
  easy_first_share: BelowOne = 0.0
  """Of a stage's steps, over which its lessons come in, the easiest first; 0
  draws from all of them at once."""
  average_decay: BelowOne = 0.98
  """Of the average of weights that is probed and exported; 0 keeps none."""
  keep_best: bool = True
  """Keep the weights that answered most when all modules were asked together
  (as much memory as the average), and export them if the last ones have lost
  more than their interval."""
  ending_share: BelowOne = 0.0
  """Of the steps, to end with once all modules were mastered twice in a row;
  0 goes on to total_steps."""
  steps_per_window: Count = 10
  """Steps in one call of the compiled program."""


class Distillation(Group):
  """Learning the teacher's distribution over the next token. A local teacher
  gives it, and a server that scores texts (vLLM, SGLang) with the student's
  vocabulary."""

  divergence: Literal['none', 'forward_kl', 'reverse_kl', 'jsd'] = 'none'
  """'none' learns the lessons' text."""
  beta: Share = 0.5
  """Of 'jsd': near 0 it is like forward KL, near 1 like reverse KL."""
  top_k: Count = 64
  """Tokens that are kept of a distribution; the others are one event. A server
  has a limit: vLLM's is 20 unless --max-logprobs raises it."""
  temperature: Positive = 1.0
  """Of both distributions."""
  weight: Share = 1.0
  """Share of the divergence in the loss; the rest is cross-entropy."""
  across_vocabularies: Literal['refuse', 'spans', 'ranked_spans'] = 'refuse'
  """Where the teacher has other tokens than the student: an error, or spans of
  equal text are compared; 'ranked_spans' also compares tokens that only one of
  them has, by their rank."""
  on_policy_every_steps: CountOrNone = 0
  """How often the student writes texts of its own, which the teacher then
  scores; 0 is never."""
  on_policy_share: AboveZero = 0.5
  """Of the later steps, for those texts."""
  schedule: Literal['mixed', 'after', 'remedial'] = 'mixed'
  """When those texts are written: 'mixed' all along, 'after' while every module
  of the stage stands above on_policy_above, 'remedial' of modules that the gate
  has failed, until the stage ends."""
  on_policy_above: Share = 0.8
  """Share of the teacher's score that 'after' waits for."""


class Optimizer(Group):
  """How weights change."""

  name: Literal['adamw', 'muon'] = 'adamw'
  """'muon' is for whole weights."""
  learning_rate: Positive = 5e-4
  """At its peak."""
  warmup_share: Share = 0.03
  """Of the steps, in which the rate rises; at least one step of each side."""
  final_share: Share = 0.1
  """The last rate, as a share of the peak."""
  weight_decay: NotNegative = 0.01
  """Of matrices; Muon wants about 0.1 or more."""
  b1: BelowOne = 0.9
  """Decay of Adam's first moment."""
  b2: BelowOne = 0.95
  """Decay of Adam's second moment."""
  clip_norm: Positive = 1.0
  """Global norm from which gradients are scaled down."""
  momentum_dtype: Dtype = 'float32'
  """Of the first moment; bfloat16 saves an eighth of the state."""


class Mesh(Group):
  """Devices along each axis; one may be -1, which takes what is left."""

  data: Axis = -1
  """Rows of a batch."""
  fsdp: Axis = 1
  """Rows of a batch; parameters are split as well."""
  sequence: Axis = 1
  """The tokens of a row that is too long for one device."""
  tensor: Axis = 1
  """Heads, feed-forward and vocabulary."""


class Run(Group):
  """How the run is kept."""

  checkpoint_every_steps: Changeable[Count] = 50
  """Steps between two checkpoints."""
  keep_checkpoints: Changeable[Count] = 3
  """The newest that are kept."""
  checkpoint_dir: Changeable[str] = ''
  """Where they lie, as gs://BUCKET/RUN; empty is in the run directory."""
  trackers: Changeable[
    tuple[Literal['tensorboard', 'wandb', 'mlflow', 'trackio'], ...]
  ] = ('tensorboard',)
  """Where numbers and sample lessons are sent while the run goes on; () is
  nowhere. Each reads its own environment variables, see docs/trackers.md."""


class Settings(Group):
  """A run."""

  seed: Annotated[int, Interval(ge=0, lt=2**32)] = 0
  """Of all that is drawn; another seed is another run."""
  method: Literal[tuple(METHODS)] = 'ioa'
  """'ioa', or another way to spend the same tokens, to compare with."""
  domain: Domain = Domain()
  teacher: Teacher = Teacher()
  judge: Judge = Judge()
  student: Student = Student()
  identifier: Identifier = Identifier()
  organizer: Organizer = Organizer()
  adapter: Adapter = Adapter()
  gate: Gate = Gate()
  train: Train = Train()
  distillation: Distillation = Distillation()
  optimizer: Optimizer = Optimizer()
  mesh: Mesh = Mesh()
  run: Run = Run()
