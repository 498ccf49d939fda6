"""The people and things of a run: teacher, student, ledger, display.

What needs more than one of them is here: asking a model, writing lessons.
"""

from __future__ import annotations

from collections.abc import Sequence
import json

import jax
import ml_collections
import numpy as np

from ioa_jax.adapter import arithmetic_lessons as adapter
from ioa_jax.baselines import methods
from ioa_jax.domains import arithmetic as domain
from ioa_jax.domains import tokenizer as tokenizer_lib
from ioa_jax.evaluation import scoring
from ioa_jax.models import decoder, loading
from ioa_jax.progress import Display
from ioa_jax.records import Lesson, Probe, Score
from ioa_jax.rundir import RunDirectory
from ioa_jax.sampling import sampler as sampler_lib
from ioa_jax.teachers import ledger as ledger_lib
from ioa_jax.teachers import local
from ioa_jax.training import packing

NAMES = [m.name for m in domain.MODULES]
_KINDS = ('stage', 'remedial', 'bridging', 'rehearsal')
Scores = tuple[dict[str, Score], dict[str, list[dict[str, str]]]]


class Classroom:
  """What a run holds open: models with their samplers, ledger, directory."""

  def __init__(
    self,
    config: ml_collections.ConfigDict,
    directory: RunDirectory,
    teacher: loading.Model,
    student: loading.Model,
    mesh: jax.sharding.Mesh,
    display: Display,
  ):
    self.config = config
    self.method = methods.METHODS[config.method]
    self.answer_format = (
      self.method.answer_format or config.adapter.answer_format
    )
    self.directory = directory
    self.student = student
    self.mesh = mesh
    self.display = display
    self.ledger = ledger_lib.Ledger(directory.path / 'ledger.sqlite')
    self.cached = 0
    self.teacher_model = teacher
    self.teacher = local.LocalTeacher(
      teacher.name,
      teacher.params,
      self._sampler(teacher),
      batch_size=config.teacher.batch_size,
      encode=lambda text: teacher.encode(tokenizer_lib.reverse_digits(text)),
      decode=lambda ids: tokenizer_lib.reverse_digits(teacher.decode(ids)),
    )
    self._student_sampler = self._sampler(student)

  def _sampler(self, model):
    return sampler_lib.Sampler(
      model.config,
      stop_tokens=[tokenizer_lib.EOS_ID],
      batch_size=self.config.teacher.batch_size,
      max_new_tokens=self.config.teacher.max_tokens,
    )

  def ask_teacher(self, probes: Sequence[Probe], phase: str) -> Scores:
    """The teacher's scores; its answers are in the ledger like any others."""
    requests = [
      ledger_lib.Request(
        self.teacher.name, p.prompt, 0.0, 0, 1.0, self.config.teacher.max_tokens
      )
      for p in probes
    ]
    completions = self._ask(requests, phase)
    return scoring.score(
      probes, [c.text for c in completions], domain.is_correct
    )

  def ask_student(
    self, params: decoder.Params, probes: Sequence[Probe], phase: str
  ) -> Scores:
    """Greedy answers of a student, graded."""
    texts: list[str] = []
    greedy = sampler_lib.Sampling(max_tokens=self.config.teacher.max_tokens)
    prompts = [self._encode(p.prompt) for p in probes]
    self.display.update(phase=phase, done=0, total=len(probes))
    for batch in self._student_sampler(
      params, prompts, [greedy] * len(probes), [0] * len(probes)
    ):
      texts += [
        tokenizer_lib.reverse_digits(self.student.decode(g.tokens))
        for g in batch
      ]
      self.display.update(done=len(texts))
    return scoring.score(probes, texts, domain.is_correct)

  def _encode(self, text):
    return self.student.encode(tokenizer_lib.reverse_digits(text))

  def _ask(self, requests, phase):
    self.display.update(phase=phase, done=0, total=len(requests))

    def on_progress(done, total):
      tokens = self.ledger.totals()['completion_tokens']
      self.display.update(done=done, total=total, teacher_tokens=tokens)

    completions, cached = local.ask(
      self.teacher, self.ledger, requests,
      max_completion_tokens=self.config.teacher.max_completion_tokens,
      on_progress=on_progress,
    )  # fmt: skip
    self.cached += cached
    return completions

  def plan(
    self, module: str, kind: str, stage: int, round: int
  ) -> list[adapter.Item]:
    """The items of one module; the same ones whenever this is called."""
    c = self.config.adapter
    per_seed = {
      'stage': c.items_per_seed,
      'bridging': c.items_per_seed,
      'remedial': c.remedial_items_per_seed,
      'rehearsal': c.rehearsal_items_per_seed,
    }[kind]
    return adapter.plan_items(
      module,
      domain.seeds(module, c.seeds_per_module),
      kind=kind,
      items_per_seed=per_seed,
      answer_format=self.answer_format,
      smallest_first=c.smallest_first,
      stage_id=stage,
      round=round,
      rng=np.random.default_rng(
        [
          self.config.seed,
          NAMES.index(module),
          stage,
          round,
          _KINDS.index(kind),
        ]
      ),
    )

  def supply(
    self, wanted: Sequence[tuple[str, str]], stage: int, round: int, step: int
  ) -> list[Lesson]:
    """Lessons for (module, kind) pairs, appended to `lessons.jsonl`."""
    items = [i for m, kind in wanted for i in self.plan(m, kind, stage, round)]
    requests = [
      i.request(self.teacher.name, self.config.teacher.max_tokens)
      for i in items
    ]
    before = self.ledger.totals()['completion_tokens']
    completions = self._ask(requests, 'writing lessons')
    lessons, rejected = adapter.curate(items, requests, completions)
    self.directory.append_lines('lessons.jsonl', (x.to_json() for x in lessons))
    self.log([{
      'event': 'supply', 'step': step, 'stage': stage,
      'kind': wanted[-1][1], 'modules': [m for m, _ in wanted],
      'lessons': len(lessons), 'rejected': dict(rejected),
      'teacher_tokens': self.ledger.totals()['completion_tokens'] - before,
    }])  # fmt: skip
    return lessons

  def log(self, events: Sequence[dict]) -> None:
    self.directory.append_lines('metrics.jsonl', map(json.dumps, events))

  def examples(self, lessons: Sequence[Lesson]) -> dict[str, list]:
    grouped: dict[str, list[packing.Example]] = {}
    for lesson in lessons:
      grouped.setdefault(lesson.module, []).append(
        self.example(lesson.problem, lesson.completion)
      )
    return grouped

  def example(self, prompt: str, completion: str) -> packing.Example:
    return packing.Example(
      self._encode(prompt), [*self._encode(completion), tokenizer_lib.EOS_ID]
    )
