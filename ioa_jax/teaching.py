"""The teaching phase: the compiled loop, with lessons and checkpoints."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
import dataclasses
import functools
import json
import math
import time
from typing import Any

import jax
import numpy as np

from ioa_jax import sharding
from ioa_jax.adapter import WRONG_KEPT, Level, practice
from ioa_jax.classroom import Classroom, WrongAnswers
from ioa_jax.models import decoder, lora
from ioa_jax.organizer import curriculum as organizer
from ioa_jax.records import Score
from ioa_jax.training import (
  checkpoint,
  decoded_probes,
  distillation,
  loop,
  optimizer,
  packing,
  probing,
  setup,
)
from ioa_jax.training import curriculum as curriculum_lib
from ioa_jax.training import gate as gate_lib
from ioa_jax.training import metrics as metrics_lib
from ioa_jax.training import step as step_lib

Record = dict[str, Any]

_PRACTISED = 16  # Seeds of a module that it practises on in a round.


@dataclasses.dataclass
class Account:
  """What a checkpoint must know besides arrays; restored with it."""

  lessons: int = 0
  events: int = 0
  tokens: int = 0
  train_seconds: float = 0.0
  synthesise_seconds: float = 0.0
  meter: dict[str, int] = dataclasses.field(default_factory=dict)
  # Modules of which no lesson could be had.
  untaught: list[str] = dataclasses.field(default_factory=list)
  own_step: int = 0  # When the student last wrote its own texts.
  # The student's latest wrong answers, which remedial requests show.
  wrong: WrongAnswers = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Taught:
  """The outcome: the final state and what it took.

  Attributes:
    params: of the taught student, for decoder and sampler.
    adapters: what trained, if not all of it did.
  """

  state: step_lib.TrainState
  params: decoder.Params
  adapters: lora.Adapters | None
  account: Account
  compilations: int


class Teaching:
  """One teaching phase, held open over its windows."""

  def __init__(self, room: Classroom, diagnosis: Record, curriculum: Record):
    c = room.config
    self._room = room
    self._names = room.names
    self._curriculum = curriculum
    self._account = Account(wrong=dict(diagnosis['wrong_answers']))
    # An earlier start's, if this one did not diagnose.
    room.meter = Counter(diagnosis.get('tokens', {}))
    self._reopened: set[str] = set()
    self._last_save = 0
    self._mesh = room.mesh
    tx, self._learning_rate = optimizer.make(
      total_steps=c.train.total_steps, **c.optimizer
    )
    teacher = [diagnosis['modules'][name]['teacher'] for name in self._names]
    self._plan = setup.make_plan(
      curriculum, self._names,
      np.asarray([t['correct'] / t['n'] for t in teacher]),
      gated=room.method.gated,
      tau_mastery=c.gate.tau_mastery, confidence=c.gate.confidence,
      sequential=c.gate.sequential, reopen=c.gate.reopen,
      min_probes=c.gate.min_probes,
      max_rounds=c.gate.max_rounds, on_stall=c.gate.on_stall,
    )  # fmt: skip
    mix = setup.make_mix(
      diagnosis, curriculum['rehearsed'], self._names,
      weighting=room.method.weighting,
      replay_share=c.train.replay_share, need_floor=c.train.need_floor,
    )  # fmt: skip
    # A sequence never takes more than a row, so this many rows always suffice.
    a = c.adapter
    rows = (
      room.method.max_examples
      * a.seeds_per_module
      * (
        max(a.items_per_seed, a.rehearsal_items_per_seed)
        + c.gate.max_rounds * a.remedial_items_per_seed
      )
    )
    self._lora = room.subject.lora
    self._scorer, objective = self._distillation()
    student = room.student.params
    trained = student
    if self._lora is not None:
      trained = lora.init(self._lora, student, jax.random.key(c.seed))
    d, k = room.distillation, len(self._names)
    allocate = functools.partial(
      curriculum_lib.allocate, length=c.train.row_length,
      multiple_of=sharding.num_row_shards(self._mesh),
      top_k=d['top_k'] if self._scorer else 0,
    )  # fmt: skip
    on_policy = d['on_policy_every_steps'] > 0
    own = None
    if on_policy:
      # As many texts as rows are drawn until the next ones come.
      drawn = d['on_policy_every_steps'] * d['on_policy_share']
      own = allocate([math.ceil(drawn * c.train.batch_rows / k)] * k)
    self.inputs = setup.make_inputs(
      allocate([rows] * k).replace(own=own),
      mix, self._plan, self._bank(), self._mesh,
      seed=c.seed, total_steps=c.train.total_steps,
      probe_every_steps=c.gate.probe_every_steps,
      average_decay=c.train.average_decay,
      base=None if self._lora is None else student,
      distillation=objective,
    )  # fmt: skip
    self.state = setup.make_state(
      trained, tx, diagnosis, self._names, self._plan, self._mesh,
      averages=c.train.average_decay > 0, on_policy=on_policy,
    )  # fmt: skip
    self._window = step_lib.Window(
      step_lib.Program(
        room.student.config, tx, batch_rows=c.train.batch_rows,
        microbatches=c.train.microbatches, lora=self._lora,
      ),
      num_steps=c.train.steps_per_window,
      state_shardings=sharding.state_shardings(self._mesh, self.state),
      metric_sharding=sharding.replicated(self._mesh),
    )  # fmt: skip
    self._checkpoints = checkpoint.Checkpoints(
      room.directory.shared / 'checkpoints', keep=c.run.keep_checkpoints
    )

  def _gate_probes(self):
    return self._room.domain.probes('gate', self._room.answer_format)

  def _bank(self) -> probing.ProbeBank | decoded_probes.DecodedBank | None:
    """Probes for the step, unless answers need a grader."""
    room = self._room
    if room.config.gate.scoring == 'graded':
      return None
    if room.config.gate.scoring == 'decoded':
      codec = room.subject.codec
      return decoded_probes.build(
        [
          [(codec.prompt(p.prompt), codec.span(p.answer))
           for p in self._gate_probes() if p.module == name]
          for name in self._names
        ],
        marker=codec.answer_marker, stop_tokens=codec.stop_tokens,
        max_new_tokens=room.config.student.max_tokens,
        multiple_of=sharding.num_row_shards(self._mesh),
      )  # fmt: skip
    c = room.config.train
    return probing.build(
      room.gate_examples(), c.row_length, c.batch_rows // c.microbatches,
      multiple_of=sharding.num_row_shards(self._mesh),
    )  # fmt: skip

  def _distillation(self):
    """The teacher as a scorer and what is learned from it, or neither."""
    c = self._room.distillation
    if c['divergence'] == 'none':
      return None, None
    shards = sharding.num_row_shards(self._mesh)
    teacher = self._room.subject.teacher_model
    scorer = distillation.Scorer(
      teacher.config, teacher.params, k=c['top_k'],
      batch_rows=-(-self._room.config.teacher.batch_size // shards) * shards,
    )  # fmt: skip
    return scorer, distillation.make_objective(
      divergence=c['divergence'], beta=c['beta'], weight=c['weight'],
      temperature=c['temperature'], on_policy_share=c['on_policy_share'],
    )  # fmt: skip

  def _score(self, rows: setup.Rows) -> setup.Rows:
    """Rows with what the teacher thinks of them, if it is learned from."""
    if self._scorer is None:
      return rows
    self._room.meter['teacher_scored'] += int((rows['segment'] > 0).sum())
    return self._scorer(rows)

  def _params(self) -> decoder.Params:
    """The averaged student, as decoder and sampler take it."""
    trained = step_lib.evaluated(self.state)
    return step_lib.assemble(trained, self.inputs.base, self._lora)

  def resume(self) -> None:
    """Continues from the newest checkpoint, or prepares the first step."""
    room = self._room
    restored = self._checkpoints.restore(
      self.state, self.inputs, room.display.say
    )
    if restored:
      self.state, self.inputs, account = restored
      if unknown := set(account) - {
        field.name for field in dataclasses.fields(Account)
      }:
        raise ValueError(
          f'{room.directory.path} was begun by another version of ioa_jax (its '
          f'checkpoints know {sorted(unknown)}); finish it with that one, or '
          'start in another --workdir.'
        )
      self._account = Account(**account)
      room.meter = Counter(self._account.meter)
      room.untaught = self._account.untaught
      self._drop_untaught()
      room.logged = self._account.events
      self._last_save = int(self.state.step)
      room.display.say(f'Continuing from step {self._last_save}.')
    # What was written after that checkpoint is written again, the same.
    room.recall(self._account.lessons)
    room.directory.keep_lines(
      'metrics.jsonl', lambda i, _: i < self._account.events
    )
    if not restored:
      self._first_lessons()

  def _first_lessons(self):
    """Lessons of the first stage, and of what must not be forgotten."""
    first = self._curriculum['stages'][0]['modules']
    rehearsed = self._curriculum['rehearsed']
    self._add([(k, 'rehearsal') for k in rehearsed], 0, 0, 0)
    kind = organizer.request_kind(self._curriculum, 0)
    self._add([(k, kind) for k in first], 0, 0, 0)
    self.state = loop.skip_untaught(self.state, self.inputs)

  def _add(self, wanted: Sequence[tuple[str, str]], stage, round, step):
    if not wanted:
      return
    start = time.monotonic()
    untaught = len(self._room.untaught)
    lessons = self._room.supply(wanted, stage, round, step, self._levels())
    self._account.lessons += len(lessons)
    if len(self._room.untaught) > untaught:
      self._drop_untaught()
    self.inputs = setup.add_lessons(
      self.inputs, self._room.examples(lessons), self._names,
      self._room.config.train.row_length, self._mesh, self._score,
    )  # fmt: skip
    self._account.synthesise_seconds += time.monotonic() - start

  def _drop_untaught(self):
    self.inputs, self._plan = setup.drop_modules(
      self.inputs, self._plan, self._room.untaught, self._names, self._mesh
    )

  def _levels(self) -> dict[str, Level]:
    """Where the student stood at the latest probing of each module."""
    correct_K, probed_K = jax.device_get(
      (self.state.gate.correct_K, self.state.gate.probed_K)
    )
    return {
      name: Level(
        score=float(correct / probed) if probed else None,
        wrong=self._account.wrong.get(name, []),
      )
      for name, correct, probed in zip(self._names, correct_K, probed_K)
    }

  def supply(self, state, inputs, remedial: bool) -> step_lib.Inputs:
    """What the gate asked for: a stage's first lessons, or remedial ones."""
    self.state, self.inputs = state, inputs
    stage, round = int(state.gate.stage), int(state.gate.round)
    in_stage_K = np.asarray(gate_lib.in_stage(state.gate, self._plan))
    if remedial:
      weak_K = in_stage_K & ~np.asarray(
        gate_lib.mastered(state.gate, self._plan)
      )
      wanted = [(self._names[k], 'remedial') for k in np.flatnonzero(weak_K)]
      round += 1
      self._practise([name for name, _ in wanted], round)
    else:
      empty_K = in_stage_K & (np.asarray(inputs.curriculum.count_K) == 0)
      kind = organizer.request_kind(self._curriculum, stage)
      wanted = [(self._names[k], kind) for k in np.flatnonzero(empty_K)]
    self._add(wanted, stage, round, int(state.step))
    self._show(state)
    return self.inputs

  def _practise(self, modules: Sequence[str], round: int) -> None:
    """Finds what the student gets wrong of seeds, for requests to show."""
    if self._room.config.domain.kind != 'text':
      return  # The built-in domain's requests show nothing.
    items = [
      item
      for name in modules
      for item in practice.items(
        self._room.domain, name, round=round, count=_PRACTISED
      )
    ]
    _, wrong = self._room.ask_student(self._params(), items, 'practising')
    for name in modules:
      self._account.wrong[name] = wrong.get(name, [])[:WRONG_KEPT]

  def grade(self, state: step_lib.TrainState, ask_K: np.ndarray) -> loop.Counts:
    """Has the student answer the gate probes of `ask_K`, and grades them."""
    self.state = state
    asked = [n for n, ask in zip(self._names, ask_K) if ask]
    probes = [p for p in self._gate_probes() if p.module in asked]
    scores, _ = self._room.ask_student(
      self._params(), probes, 'probing the student'
    )
    self._show(state)
    none = Score(0, 0)
    found = [scores.get(name, none) for name in self._names]
    return (
      np.asarray([s.correct for s in found], np.float32),
      np.asarray([s.n for s in found], np.int32),
    )

  def renew(self, state, inputs) -> step_lib.Inputs:
    """Has the student, as it is, write texts to learn from, if they are due."""
    room, step = self._room, int(state.step)
    every = room.distillation['on_policy_every_steps']
    if not every or step - self._account.own_step < every:
      return inputs
    key = jax.random.key(room.config.seed)
    key = jax.random.fold_in(jax.random.fold_in(key, step_lib.ON_POLICY), step)
    most = int(inputs.curriculum.own.capacity_K[0])
    asked: list[tuple[str, list[int]]] = []
    for name, examples in room.examples(room.lessons).items():
      here = jax.random.fold_in(key, self._names.index(name))
      order = np.asarray(jax.random.permutation(here, len(examples)))
      asked += [(name, examples[i].prompt) for i in np.resize(order, most)]
    texts = room.student_texts(
      step_lib.assemble(state.params, inputs.base, self._lora),
      [prompt for _, prompt in asked],
      np.asarray(jax.random.bits(key, len(asked))).tolist(),
    )
    grouped: dict[str, list] = {}
    for (name, _), text in zip(asked, texts, strict=True):
      grouped.setdefault(name, []).append(text)
    inputs = setup.renew_own(
      inputs, grouped, self._names, self._mesh, self._score
    )
    self._account.own_step = step
    room.log([{
      'event': 'own_texts', 'step': step, 'texts': len(texts),
      'tokens': sum(len(text.completion) for text in texts),
    }])  # fmt: skip
    return inputs

  def observe(self, state: step_lib.TrainState, metrics: loop.Metrics) -> None:
    """Records a window's events and shows them."""
    room = self._room
    events = metrics_lib.window_events(
      metrics, self._names,
      tokens_before=self._account.tokens,
      learning_rate=self._learning_rate,
      every=room.config.gate.probe_every_steps,
    )  # fmt: skip
    self._account.tokens += int(metrics['tokens'].sum())
    room.meter['student_inferred'] += int(metrics['probe_tokens'].sum())
    room.log(events)
    losses = [e['train/loss'] for e in events if e['event'] == 'train']
    self._show(state, losses[-1] if losses else None)
    for event in events:
      if event['event'] != 'probe':
        continue
      if event['decision'] != 'stay':
        room.display.say(_sentence(event, self._taught_in(event['stage'])))
      for name in set(event['reopened']) - self._reopened:
        room.display.say(
          f'step {event["step"]}: {name} was mastered and has fallen; it is '
          'taught again beside the stage.'
        )
      self._reopened = set(event['reopened'])

  def _taught_in(self, stage: int) -> list[str]:
    modules = self._curriculum['stages'][stage]['modules']
    return [name for name in modules if name not in self._room.untaught]

  def _show(self, state, loss=None):
    stage = int(state.gate.stage)
    stages = self._curriculum['stages']
    names = tuple(self._taught_in(stage)) if stage < len(stages) else ()
    ratio_K = np.asarray(gate_lib.ratio(state.gate, self._plan))
    self._room.display.update(
      phase='teaching',
      done=int(state.step), total=self._room.config.train.total_steps,
      stage=stage, num_stages=len(stages), stage_modules=names,
      round=int(state.gate.round),
      mastery={n: float(ratio_K[self._names.index(n)]) for n in names},
      **({} if loss is None else {'loss': loss}),
    )  # fmt: skip

  def save(self, state, inputs, *, force: bool = False) -> None:
    every = self._room.config.run.checkpoint_every_steps
    step = int(state.step)
    if step == self._last_save or not (
      force or step - self._last_save >= every
    ):
      return
    self._account.meter = dict(self._room.meter)
    self._account.untaught = self._room.untaught
    self._account.events = self._room.logged
    self._checkpoints.save(state, inputs, dataclasses.asdict(self._account))
    self._last_save = step

  def run(self) -> Taught | None:
    """Teaches to the end; None if a signal stopped it, with all saved."""
    start, before = time.monotonic(), self._account.synthesise_seconds
    spent = self._account.train_seconds

    def save(state, inputs):
      synthesised = self._account.synthesise_seconds - before
      self._account.train_seconds = (
        spent + time.monotonic() - start - synthesised
      )
      self.save(state, inputs)

    try:
      with loop.StopRequest() as stop:
        self.state, self.inputs = loop.run(
          self._window, self.state, self.inputs,
          supply=self.supply, grade=self.grade, observe=self.observe,
          save=save, stop=stop, renew=self.renew,
        )  # fmt: skip
    except loop.NonFiniteLoss as e:
      lines = ', '.join(map(str, self._lessons_in(e.rows))) or 'none'
      raise ValueError(
        f'{e} The step read these lines of lessons.jsonl: {lines}.'
      ) from None
    self.save(self.state, self.inputs, force=True)
    self._checkpoints.close()
    self._tensorboard()
    if stop.agree():
      self._room.display.say(
        f'Stopped by {stop.agreed} at step {int(self.state.step)}; saved. '
        'The same command continues.'
      )
      return None
    return Taught(
      self.state, self._params(),
      step_lib.evaluated(self.state) if self._lora is not None else None,
      self._account, self._window.compilations,
    )  # fmt: skip

  def _lessons_in(self, numbers: Sequence[int]) -> list[int]:
    """Line numbers, from 1, of the lessons in these rows of the curriculum."""
    room, line = self._room, {}
    for number, lesson in enumerate(room.lessons, 1):
      for e in room.method.examples(lesson, room.subject.codec):
        line.setdefault((*e.prompt, *e.completion), number)
    rows = self.inputs.curriculum.rows
    found = packing.unpack(
      {
        name: sharding.fetch(rows[name])[np.asarray(numbers, int)]
        for name in ('token', 'target', 'segment')
      }
    )
    return sorted({line[tokens] for tokens in found})

  def _tensorboard(self):
    """Events for TensorBoard, made from metrics.jsonl, so both always agree."""
    lines = self._room.directory.read_lines('metrics.jsonl')
    metrics_lib.write_tensorboard(
      self._room.directory.path / 'tensorboard', map(json.loads, lines)
    )


def _sentence(event: Mapping[str, Any], modules: Sequence[str]) -> str:
  """One decision of the gate in words."""
  names = ', '.join(modules)
  what = {
    'advance': 'mastered',
    'remediate': 'not mastered yet; asking for remedial lessons',
    'stall': 'left unmastered after its last round',
  }[event['decision']]
  return f'step {event["step"]}: stage {event["stage"] + 1} ({names}) {what}.'
