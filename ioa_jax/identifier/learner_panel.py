"""What a learner panel tells: which module stands on which, and how hard.

The panel itself is one compiled program, `panel.py`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
import dataclasses

import jax
import ml_collections
import numpy as np

from ioa_jax.identifier import dependency, difficulty, graphs, panel
from ioa_jax.identifier import responses as responses_lib
from ioa_jax.identifier.responses import Responses
from ioa_jax.models import decoder, lora
from ioa_jax.records import ModuleDifficulty
from ioa_jax.training import curriculum as curriculum_lib
from ioa_jax.training import optimizer, packing, probing

_EPSILON = 1e-8  # The paper's.
PANEL_FILE = 'panel.npz'


def educate(
  program: panel.Program,
  student: decoder.Params,
  packed: Mapping[int, dict[str, np.ndarray]],
  bank: probing.ProbeBank,
  names: Sequence[str],
  mesh: jax.sharding.Mesh,
  *,
  learners: int,
  seed: int,
) -> Responses:
  """Teaches a random half of the modules to each learner, and probes all.

  Args:
    packed: rows of lessons by the index of their module; a module without any
      is taught to nobody.
    bank: the gate probes of all modules.
  """
  k, length = len(names), bank.rows['token'].shape[1]
  curriculum = curriculum_lib.add_rows(
    curriculum_lib.allocate(
      [len(packed[i]['token']) if i in packed else 0 for i in range(k)], length
    ),
    packed,
  )
  taught = sorted(packed)
  exposure = np.zeros((learners, k), bool)
  exposure[:, taught] = responses_lib.design(learners, len(taught), seed=seed)
  # Far from the seeds of other runs' learners, and from each other's.
  seed_N = np.arange(learners, dtype=np.uint32) + np.uint32(
    (seed * 10_007 + 1) % 2**32
  )
  outcome = panel.run(
    program, panel.Inputs(student, curriculum, bank, exposure, seed_N), mesh
  )
  valid_KxP = np.asarray(bank.valid_KxP)
  tokens = np.zeros(valid_KxP.shape, np.int32)
  np.add.at(
    tokens, (bank.module_Q[:, None], bank.probe_QxL), bank.rows['weight'] > 0
  )
  return Responses(
    tuple(names),
    exposure,
    outcome.right,
    outcome.nll,
    tokens,
    valid_KxP,
    (1 + np.arange(program.num_snapshots)) * program.steps_per_snapshot,
    outcome.tokens_NxT.sum()
    + outcome.tokens_NxT.size * (bank.rows['segment'] > 0).sum(),
  )


def make_program(
  config: ml_collections.ConfigDict,
  model: decoder.DecoderConfig,
  spec: lora.LoraSpec | None,
) -> panel.Program:
  """The panel's program from a configuration; AdamW, its own learning rate."""
  c = config.identifier.panel
  recipe = dataclasses.replace(
    optimizer.Recipe(**config.optimizer),
    name='adamw',
    learning_rate=c.learning_rate,
  )
  tx, _ = optimizer.make(recipe, c.snapshots * c.steps_per_snapshot)
  return panel.Program(
    model,
    tx,
    batch_rows=c.batch_rows,
    num_snapshots=c.snapshots,
    steps_per_snapshot=c.steps_per_snapshot,
    lora=spec,
  )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Thresholds:
  """What makes a pair of modules an edge, `config.identifier`.

  Attributes:
    tau_high, tau_low: shares of the teacher's score from which a learner
      counts as knowing a module, and below which as not (paper, Eq. 3).
    tau_dep: of Eq. 3's strength.
    tau_effect: of the effect of being taught.
    min_learners: on either side.
  """

  tau_high: float
  tau_low: float
  tau_dep: float
  tau_effect: float
  min_learners: int


def estimate(
  responses: Responses,
  teacher_K: np.ndarray,
  thresholds: Thresholds,
  *,
  response: str,
  seed: int,
  needed: str,
) -> dict[str, graphs.Graph]:
  """Both measured graphs.

  Args:
    teacher_K: its scores on the gate probes.
    response: what of the learners' answers counts, see `Responses.scores`.
    needed: the graph that must exist; another without evidence is left out.

  Raises:
    ValueError: if `needed` has no pair with enough learners.
  """
  t = thresholds
  limits = dict(min_learners=t.min_learners, epsilon=_EPSILON, seed=seed)
  contrasts = {
    # Eq. 3 asks who has mastered a module, which is a matter of right answers.
    'conditional': dependency.conditional(
      responses.scores('exact'),
      teacher_K,
      tau_high=t.tau_high,
      tau_low=t.tau_low,
      **limits,
    ),
    'interventional': dependency.interventional(
      responses.scores(response), responses.exposure_NxK, **limits
    ),
  }
  found = {}
  for name, contrast in contrasts.items():
    randomised = name == 'interventional'
    if name != needed and np.isnan(contrast.strength).all():
      continue
    found[name] = graphs.measured(
      contrast,
      responses.names,
      tau=t.tau_effect if randomised else t.tau_dep,
      needs_interval=randomised,
    )
  return found


def _answers(responses: Responses) -> np.ndarray:
  """Persons by items, module after module: every snapshot is a person."""
  n, t, k, p = responses.right_NxTxKxP.shape
  valid = responses.valid_KxP.reshape(-1)
  return responses.right_NxTxKxP.reshape(n * t, k * p)[:, valid]


def fit_items(responses: Responses) -> difficulty.ItemFit:
  """Difficulties of the panel's items, module after module."""
  return difficulty.fit(_answers(responses))


def difficulties(
  responses: Responses, fit: difficulty.ItemFit
) -> dict[str, ModuleDifficulty | None]:
  """Mean difficulty of each module's items, on the panel's ability scale.

  None where no item of a module tells learners apart: all or nobody answered
  each of them.
  """
  right = _answers(responses)
  module = np.repeat(
    np.arange(len(responses.names)), responses.valid_KxP.sum(axis=1)
  )
  varied = right.any(axis=0) & ~right.all(axis=0)
  found: dict[str, ModuleDifficulty | None] = {}
  for index, name in enumerate(responses.names):
    own = module == index
    found[name] = None
    if varied[own].any():
      se = np.sqrt(np.square(fit.difficulty_se_I[own]).mean() / own.sum())
      found[name] = ModuleDifficulty(
        mean=float(fit.difficulty_I[own].mean()),
        se=float(se),
        items=int(own.sum()),
      )
  return found


def item_places(
  examples: Sequence[Sequence[packing.Example]], row_length: int
) -> dict[tuple[int, ...], int]:
  """The panel's item of a token sequence: packing has its own order.

  Args:
    examples: the gate probes of each module.
  """
  texts = [
    text
    for probes in examples
    for text in packing.unpack(packing.pack(probes, row_length))
  ]
  return {text: i for i, text in enumerate(texts)}
