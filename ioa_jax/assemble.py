"""A run: a subject with its directory, ledger and display, held open."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
import dataclasses

from etils import epath
import jax
import ml_collections
import pydantic

from ioa_jax import config as config_lib
from ioa_jax.adapter import (
  Adapter,
)
from ioa_jax.baselines import methods
from ioa_jax.baselines.method import Method
from ioa_jax.domains import Domain
from ioa_jax.models import (
  contents,
)
from ioa_jax.records import Models, Probe
from ioa_jax.runtime import processes
from ioa_jax.runtime.display import Display
from ioa_jax.runtime.rundir import (
  JUDGEMENTS,
  LEDGER,
  MODELS,
  RunDirectory,
)
from ioa_jax.runtime.trackers import Trackers
from ioa_jax.student import Limits, Reader, Student
from ioa_jax.subject import Subject
from ioa_jax.teachers.client import Client
from ioa_jax.teachers.ledger import Ledger
from ioa_jax.teachers.requests import Completion, Request
from ioa_jax.training import packing


@dataclasses.dataclass(frozen=True)
class Run:
  """What a run holds open.

  Attributes:
    method: how its lessons are ordered, weighed and made.
    settled: what the configuration comes to with the method.
    counted: tokens read and written beside training, by who did:
      'student_inferred' and 'teacher_scored' for probes, likelihoods and own
      texts, 'panel' by the learners; 'teacher_cached' counts answers that were
      in the ledger before.
    teacher_reader: its likelihoods; None if its weights are not here.
    trackers: where its numbers go besides its files.
  """

  config: ml_collections.ConfigDict
  subject: Subject
  directory: RunDirectory
  client: Client
  mesh: jax.sharding.Mesh
  display: Display
  counted: Counter[str]
  method: Method
  settled: config_lib.Settled
  student: Student
  teacher_reader: Reader | None
  trackers: Trackers

  @property
  def domain(self) -> Domain:
    return self.subject.domain

  @property
  def adapter(self) -> Adapter:
    return self.subject.adapter

  @property
  def names(self) -> list[str]:
    """Of the modules, in the order of the K axis."""
    return [m.name for m in self.domain.MODULES]

  @property
  def checkpoint_dir(self) -> epath.Path:
    """Where all processes write their part of a checkpoint."""
    there = self.config.run.checkpoint_dir
    return epath.Path(there or self.directory.shared / 'checkpoints')

  def probes(self, split: str) -> tuple[Probe, ...]:
    """In the format that the student answers in."""
    return self.domain.probes(split, self.settled.answer_format)

  def held_out_probes(self) -> tuple[Probe, ...]:
    """Those that the run is judged by, `domain.evaluate_on`."""
    return self.probes(self.config.domain.evaluate_on)

  def gate_examples(self) -> list[list[packing.Example]]:
    """The gate probes of every module with their reference answers."""
    probes = self.probes('gate')
    return [
      [
        self.student.example(p.prompt, p.reference)
        for p in probes
        if p.module == name
      ]
      for name in self.names
    ]

  def ask(
    self,
    requests: Sequence[Request],
    response_model: type[pydantic.BaseModel] | None = None,
    *,
    for_lessons: bool = False,
  ) -> list[Completion]:
    """The teacher's completions, through the ledger and within the budget."""
    self.display.update(done=0, total=len(requests))

    def on_progress(done, total):
      spent = self.client.totals()
      self.display.update(
        done=done,
        total=total,
        teacher_tokens=spent['completion_tokens'],
        teacher_usd=spent['price_usd'],
      )

    before = self.client.cached
    completions = self.client.ask(
      requests,
      response_model,
      on_progress,
      for_lessons=for_lessons,
      on_wait=lambda line: self.display.update(batches=line),
    )
    self.display.update(batches='')
    self.counted['teacher_cached'] += self.client.cached - before
    return completions

  def ask_for_lessons(
    self,
    requests: Sequence[Request],
    response_model: type[pydantic.BaseModel] | None = None,
  ) -> list[Completion]:
    """As `ask`; with `teacher.batch` the answers may come hours later."""
    return self.ask(requests, response_model, for_lessons=True)


def open_run(
  config: ml_collections.ConfigDict,
  subject: Subject,
  directory: RunDirectory,
  mesh: jax.sharding.Mesh,
  display: Display,
) -> Run:
  """A subject in its run directory.

  Raises:
    ValueError: if a model is not what it was when the run began.
  """
  processes.in_all(lambda: _require_models(subject, directory))
  if subject.judge is not None:
    subject.judge.open(
      Ledger(directory.path / JUDGEMENTS),
      lambda done, total: display.update(done=done, total=total),
    )
  counted: Counter[str] = Counter()
  limits = lambda c: Limits(c.batch_size, c.max_tokens, config.train.row_length)
  teacher_reader = None
  if subject.teacher_model is not None:
    teacher_reader = Reader(
      subject.teacher_model,
      subject.teacher_codec,
      limits(config.teacher),
      counted,
      'teacher_scored',
    )
  return Run(
    config=config,
    subject=subject,
    directory=directory,
    client=Client(
      subject.teacher,
      Ledger(directory.path / LEDGER),
      subject.budget,
      price=subject.price,
      recording=subject.recording,
      # A model here is one over all devices, which every process asks.
      broadcast=subject.teacher_model is None,
    ),
    mesh=mesh,
    display=display,
    counted=counted,
    method=methods.of(config),
    settled=config_lib.settle(config),
    student=Student(
      subject.student, subject.codec, limits(config.student), counted, display
    ),
    teacher_reader=teacher_reader,
    trackers=Trackers(
      # One of several processes tells what all of them do.
      config.run.trackers if processes.is_first() else (),
      directory.path,
      config.to_dict(),
      display.say,
    ),
  )


def _require_models(subject: Subject, directory: RunDirectory) -> None:
  """Names tell nothing: weights can be replaced between two starts."""
  models = [subject.student, subject.teacher_model]

  def digests():
    return Models(*[m and contents.digests(m.source) for m in models])

  recorded = directory.read_record(MODELS, Models)
  if recorded is None:
    directory.write_record(MODELS, digests())
    return
  pairs = zip([recorded.student, recorded.teacher], models, strict=True)
  for known, model in pairs:
    if known is not None and model is not None:
      contents.check_same(known, model.source)
