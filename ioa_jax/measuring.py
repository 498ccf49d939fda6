"""The measuring phase: a learner panel, and the graphs it and others give."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from ioa_jax.classroom import Classroom
from ioa_jax.evaluation import scoring
from ioa_jax.identifier import decomposition, dependency, difficulty, graphs
from ioa_jax.identifier import responses as responses_lib
from ioa_jax.identifier.responses import Responses
from ioa_jax.records import Probe, Score
from ioa_jax.training import curriculum as curriculum_lib
from ioa_jax.training import optimizer, packing, panel, probing

_EPSILON = 1e-8  # METHOD §6.
PANEL_FILE = 'panel.npz'


def respond(room: Classroom) -> Responses:
  """Educates the panel and returns its answers; kept in the run directory.

  A module of which the teacher wrote no lesson is taught to nobody, and said.
  """
  path = room.directory.path / PANEL_FILE
  if not path.exists():
    responses_lib.save(path, _educate(room))
  responses = responses_lib.load(path)
  room.meter['panel'] += int(responses.spent)
  return responses


def _educate(room: Classroom) -> Responses:
  c = room.config
  length = c.train.row_length
  examples = room.examples(room.panel_lessons())
  taught = [k for k, name in enumerate(room.names) if name in examples]
  for name in room.names:
    if name not in examples:
      room.display.say(
        f'{name}: the teacher wrote no lesson that could be kept, so no '
        'learner of the panel is taught it; what it stands on stays unknown.'
      )
  if not taught:
    raise ValueError(
      'the teacher wrote no lesson that could be kept, so there is nothing to '
      'teach a panel; see ledger.sqlite for its answers.'
    )
  packed = {k: packing.pack(examples[room.names[k]], length) for k in taught}
  curriculum = curriculum_lib.add_rows(
    curriculum_lib.allocate(
      [len(packed[k]['token']) if k in packed else 0
       for k in range(len(room.names))],
      length,
    ),
    packed,
  )  # fmt: skip
  bank = probing.build(
    room.gate_examples(), length, c.identifier.panel.batch_rows
  )
  exposure = np.zeros((c.identifier.panel.learners, len(room.names)), bool)
  exposure[:, taught] = responses_lib.design(
    len(exposure), len(taught), seed=c.seed
  )
  program = make_program(c, room.student.config, room.subject.lora)
  room.display.update(phase='teaching the learner panel', done=0, total=0)
  inputs = panel.Inputs(
    room.student.params, curriculum, bank, exposure,
    # Far from the seeds of other runs' learners, and from each other's.
    np.arange(len(exposure), dtype=np.uint32)
    + np.uint32((c.seed * 10_007 + 1) % 2**32),
  )  # fmt: skip
  outcome = panel.run(program, inputs, room.mesh)
  valid_KxP = np.asarray(bank.valid_KxP)
  tokens = np.zeros(valid_KxP.shape, np.int32)
  np.add.at(
    tokens, (bank.module_Q[:, None], bank.probe_QxL), bank.rows['weight'] > 0
  )
  return Responses(
    tuple(room.names), exposure, outcome.right, outcome.nll, tokens,
    valid_KxP,
    (1 + np.arange(program.num_snapshots)) * program.steps_per_snapshot,
    outcome.tokens_NxT.sum()
    + outcome.tokens_NxT.size * (bank.rows['segment'] > 0).sum(),
  )  # fmt: skip


def make_program(config, model, lora) -> panel.Program:
  """The panel's program from a configuration; AdamW, its own learning rate."""
  c = config.identifier.panel
  tx, _ = optimizer.make(**{
    **config.optimizer, 'name': 'adamw', 'learning_rate': c.learning_rate,
    'total_steps': c.snapshots * c.steps_per_snapshot,
  })  # fmt: skip
  return panel.Program(
    model, tx, batch_rows=c.batch_rows, num_snapshots=c.snapshots,
    steps_per_snapshot=c.steps_per_snapshot, lora=lora,
  )  # fmt: skip


def known_graphs(
  room: Classroom, teacher: Mapping[str, Score], responses: Responses | None
) -> dict[str, graphs.Graph]:
  """The given graph, the teacher's if it was asked for, and the panel's.

  Raises:
    ValueError: if the teacher's proposal cannot be used, or the panel says
      nothing of any pair.
  """
  c = room.config.identifier
  given = [
    (needed, m.name) for m in room.domain.MODULES for needed in m.prerequisites
  ]
  found = {'given': graphs.stated(given, room.names)}
  if c.dependency == 'teacher':
    found['teacher'] = graphs.stated(_ask_teacher(room), room.names)
  if responses is not None:
    found |= estimate(
      responses,
      np.array([teacher[n].mean or 0.0 for n in room.names]),
      response=c.panel.response, tau_high=c.tau_high, tau_low=c.tau_low,
      tau_dep=c.tau_dep, tau_effect=c.tau_effect,
      min_learners=c.min_learners, seed=room.config.seed,
      needed=c.dependency,
    )  # fmt: skip
  for name, graph in found.items():
    for a, b in graph.removed:
      room.display.say(f'{name} graph: {a} -> {b} closed a circle; removed.')
  return found


def estimate(
  responses: Responses, teacher_K: np.ndarray, *, response: str,
  tau_high: float, tau_low: float, tau_dep: float, tau_effect: float,
  min_learners: int, seed: int, needed: str,
) -> dict[str, graphs.Graph]:  # fmt: skip
  """Both measured graphs.

  Args:
    needed: the one that must exist; another without any evidence is left out.

  Raises:
    ValueError: if `needed` has no pair with enough learners.
  """
  limits = dict(min_learners=min_learners, epsilon=_EPSILON, seed=seed)
  score = responses.scores(response)
  contrasts = {
    # Eq. 3 asks who has mastered a module, which is a matter of right answers.
    'conditional': dependency.conditional(
      responses.scores('exact'),
      teacher_K,
      tau_high=tau_high,
      tau_low=tau_low,
      **limits,
    ),
    'interventional': dependency.interventional(
      score, responses.exposure_NxK, **limits
    ),
  }
  found = {}
  for name, contrast in contrasts.items():
    randomised = name == 'interventional'
    if name != needed and np.isnan(contrast.strength).all():
      continue
    found[name] = graphs.measured(
      contrast, responses.names,
      tau=tau_effect if randomised else tau_dep, needs_interval=randomised,
    )  # fmt: skip
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
) -> dict[str, dict[str, float] | None]:
  """Mean difficulty of each module's items, on the panel's ability scale.

  None where no item of a module tells learners apart: all or nobody answered
  each of them.
  """
  right = _answers(responses)
  module = np.repeat(
    np.arange(len(responses.names)), responses.valid_KxP.sum(axis=1)
  )
  varied = right.any(axis=0) & ~right.all(axis=0)
  found = {}
  for index, name in enumerate(responses.names):
    own = module == index
    error = np.sqrt(np.square(fit.difficulty_se_I[own]).mean() / own.sum())
    found[name] = {
      'mean': float(fit.difficulty_I[own].mean()),
      'se': float(error),
      'items': int(own.sum()),
    } if varied[own].any() else None  # fmt: skip
  return found


def items(
  room: Classroom,
  probes: Sequence[Probe],
  student: Sequence[scoring.Loss | None],
  teacher: Sequence[scoring.Loss | None],
  fit: difficulty.ItemFit | None,
) -> Iterator[dict[str, Any]]:
  """How hard every gate probe is for whom, the records of `items.jsonl`.

  Args:
    student, teacher: losses of the probes' reference answers.
    fit: of the panel's answers to them.
  """
  place = None if fit is None else _places(room)
  loss = lambda found: found and {
    'nats_per_token': found.nats / found.tokens, 'tokens': found.tokens
  }  # fmt: skip
  for probe, of_student, of_teacher in zip(
    probes, student, teacher, strict=True
  ):
    of_panel = None
    if place is not None:
      example = room.example(probe.prompt, probe.reference)
      i = place[*example.prompt, *example.completion]
      of_panel = {
        'mean': float(fit.difficulty_I[i]), 'se': float(fit.difficulty_se_I[i])
      }  # fmt: skip
    yield {
      'module': probe.module,
      'prompt': probe.prompt,
      'reference': probe.reference,
      'student': loss(of_student),
      'teacher': loss(of_teacher),
      'difficulty': of_panel,
    }


def _places(room: Classroom) -> dict[tuple[int, ...], int]:
  """The panel's item of a token sequence: packing has its own order."""
  packed = [
    text
    for examples in room.gate_examples()
    for text in packing.unpack(
      packing.pack(examples, room.config.train.row_length)
    )
  ]
  return {text: i for i, text in enumerate(packed)}


def _ask_teacher(room: Classroom) -> Sequence[dependency.Edge]:
  c = room.config
  request = decomposition.prerequisites(
    decomposition.Asking(
      room.subject.teacher.name, c.teacher.max_tokens, c.teacher.temperature,
      c.teacher.reasoning_effort,
    ),
    c.domain.description, room.domain.MODULES,
  )  # fmt: skip
  (completion,) = room.ask([request], decomposition.Ordering)
  try:
    return decomposition.read_prerequisites(completion, room.domain.MODULES)
  except decomposition.BadProposal as e:
    raise ValueError(
      f'the teacher proposed prerequisites that cannot be used ({e}). Choose '
      'another identifier.dependency, or another teacher.'
    ) from None
