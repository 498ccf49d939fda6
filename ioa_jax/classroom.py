"""The people and things of a run: teacher, student, ledger, display.

What needs more than one of them is here: asking a model, writing lessons.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
import json

import jax
import ml_collections
import numpy as np
import pydantic

from ioa_jax import processes
from ioa_jax.adapter import Item, Level, agreed, measures, rejections
from ioa_jax.baselines import methods
from ioa_jax.evaluation import scoring
from ioa_jax.models import decoder
from ioa_jax.progress import Display
from ioa_jax.records import Lesson, Probe, Score
from ioa_jax.rundir import LEDGER, RunDirectory
from ioa_jax.sampling import choosing, likelihood
from ioa_jax.sampling import sampler as sampler_lib
from ioa_jax.subject import Subject
from ioa_jax.teachers.ledger import Ledger
from ioa_jax.teachers.requests import Completion, Request
from ioa_jax.training import packing

_SAMPLE = 200  # Characters of what a teacher said, in an error.
WrongAnswers = dict[str, list[dict[str, str]]]
Scores = tuple[dict[str, Score], WrongAnswers]


class NoLessons(ValueError):
  """A stage has a module that nothing can be taught of."""


class Classroom:
  """What a run holds open: models with their samplers, ledger, directory."""

  def __init__(
    self,
    config: ml_collections.ConfigDict,
    directory: RunDirectory,
    subject: Subject,
    mesh: jax.sharding.Mesh,
    display: Display,
  ):
    self.config = config
    self.method = methods.METHODS[config.method]
    self.answer_format = methods.answer_format(config)
    self.distillation = methods.distillation_fields(config)
    self.directory = directory
    self.subject = subject
    self.domain = subject.domain
    self.names = [m.name for m in subject.domain.MODULES]
    self.student = subject.student
    self.mesh = mesh
    self.display = display
    self.ledger = Ledger(directory.path / LEDGER)
    self._common_words = measures.common_words(
      seed
      for name in self.names
      for seed in self.domain.seeds(name, config.adapter.seeds_per_module)
    )
    # 'student_inferred' and 'teacher_scored' are tokens that they read or wrote
    # for probes, own texts and likelihoods, 'panel' those of the learners;
    # 'teacher_cached' are answers that were in the ledger before.
    self.meter: Counter[str] = Counter()
    self.logged = 0
    self.lessons: list[Lesson] = []
    self.rejected: Counter[str] = Counter()  # Of this start, by reason.
    self.untaught: list[str] = []  # Modules of which no lesson could be had.
    self._student_sampler = sampler_lib.Sampler(
      decoder.for_decoding(self.student.config),
      stop_tokens=subject.codec.stop_tokens,
      batch_size=config.student.batch_size,
      max_new_tokens=config.student.max_tokens,
      prompt_bucket=subject.codec.prompt_bucket,
    )
    self._likelihood = {
      'student_inferred': likelihood.Likelihood(
        self.student.config, batch_size=config.student.batch_size
      )
    }
    if subject.teacher_model is not None:
      self._likelihood['teacher_scored'] = likelihood.Likelihood(
        subject.teacher_model.config, batch_size=config.teacher.batch_size
      )

  def ask_teacher(self, probes: Sequence[Probe], phase: str) -> Scores:
    """The teacher's scores; its answers are in the ledger like any others.

    Raises:
      ValueError: if more than `teacher.max_unanswered_share` of a module's
        probes, or all, got no answer (cut off, filtered, refused). Fewer are
        left out: no answer is no evidence.
    """
    self.display.update(phase=phase)
    completions = self.ask([self.subject.adapter.question(p) for p in probes])
    answered, asked, silent = [], Counter(), Counter()
    for probe, completion in zip(probes, completions, strict=True):
      asked[probe.module] += 1
      if completion.text or completion.finish_reason == 'stop':
        answered.append((probe, completion.text))
      else:
        silent[probe.module, completion.finish_reason] += 1
    most = self.config.teacher.max_unanswered_share
    for module, number in asked.items():
      reasons = {r: n for (name, r), n in silent.items() if name == module}
      count = sum(reasons.values())
      if count > most * number or count == number:
        raise ValueError(
          f'{module}: {count} of {number} probes got no answer from the '
          f'teacher ({", ".join(reasons)}), so its score is unknown. Raise '
          'teacher.max_tokens, use another teacher, or bear more of it: '
          f'teacher.max_unanswered_share is {most}.'
        )
    return self._graded(*zip(*answered))

  def ask_student(
    self, params: decoder.Params, probes: Sequence[Probe], phase: str
  ) -> Scores:
    """Greedy answers of a student, graded."""
    texts = [''] * len(probes)
    codec = self.subject.codec
    greedy = choosing.Sampling(max_tokens=self.config.student.max_tokens)
    prompts = [codec.prompt(p.prompt) for p in probes]
    self.display.update(phase=phase, done=0, total=len(probes))
    done = 0
    for ended in self._student_sampler.finished(
      params, prompts, [greedy] * len(probes), [0] * len(probes)
    ):
      for i, generation in ended:
        self._count_writing(prompts[i], generation)
        texts[i] = codec.decode(generation.tokens)
      done += len(ended)
      self.display.update(done=done)
    return self._graded(probes, texts)

  def _graded(self, probes, texts) -> Scores:
    """Graded once: what a sandbox says may hang on a clock."""

    def grade():
      scores, wrong = scoring.score(probes, texts, self.domain.score)
      return {k: v.to_dict() for k, v in scores.items()}, wrong

    scores, wrong = processes.on_first(grade)
    return {k: Score.from_dict(v) for k, v in scores.items()}, wrong

  def _count_writing(self, prompt, generation: sampler_lib.Generation):
    written = len(generation.tokens) + generation.stopped
    self.meter['student_inferred'] += len(prompt) + written

  def student_losses(
    self, params: decoder.Params, probes: Sequence[Probe]
  ) -> list[scoring.Loss | None]:
    """Of each probe's reference answer; None where `_losses` has none."""
    return self._losses('student_inferred', params, self.subject.codec, probes)

  def teacher_losses(
    self, probes: Sequence[Probe]
  ) -> list[scoring.Loss | None]:
    """Likewise, in the teacher's tokens; None if its weights are not here."""
    if self.subject.teacher_model is None:
      return [None] * len(probes)
    return self._losses(
      'teacher_scored', self.subject.teacher_model.params,
      self.subject.teacher_codec, probes,
    )  # fmt: skip

  def _losses(self, reader, params, codec, probes):
    """None for references that are unknown or longer than a row."""
    examples = {}
    for i, p in enumerate(probes):
      if p.reference:
        prompt, answer = codec.prompt(p.prompt), codec.answer(p.reference)
        if len(prompt) + len(answer) - 1 <= self.config.train.row_length:
          examples[i] = packing.Example(prompt, answer)
    found = self._log_probs(reader, params, list(examples.values()))
    losses = {
      i: scoring.Loss(-float(log_probs.sum()), len(log_probs))
      for i, log_probs in zip(examples, found, strict=True)
    }
    return [losses.get(i) for i in range(len(probes))]

  def student_texts(
    self,
    params: decoder.Params,
    prompts: Sequence[Sequence[int]],
    seeds: Sequence[int],
  ) -> list[packing.Example]:
    """What a student writes of itself, as it thinks: no filter, temperature 1.

    No longer than a row. The end of a text that was cut off is not learned.
    """
    codec = self.subject.codec
    fits = self.config.train.row_length + 1
    sampling = [
      choosing.Sampling(
        temperature=1.0,
        max_tokens=min(self.config.student.max_tokens, fits - len(prompt)),
      )
      for prompt in prompts
    ]
    self.display.update(phase='the student writes', done=0, total=len(prompts))
    written = self._student_sampler(params, prompts, sampling, seeds)
    for prompt, generation in zip(prompts, written, strict=True):
      self._count_writing(prompt, generation)
    # Which stop token does not matter: it is predicted and never read.
    end = codec.stop_tokens[:1]
    return [
      packing.Example(prompt, [*g.tokens, *(end if g.stopped else ())])
      for prompt, g in zip(prompts, written, strict=True)
    ]

  def ask(
    self,
    requests: Sequence[Request],
    response_model: type[pydantic.BaseModel] | None = None,
  ) -> list[Completion]:
    """The teacher's completions, through the ledger and within the budget."""
    self.display.update(done=0, total=len(requests))
    processes.check_same('requests', (r.key() for r in requests))

    def on_progress(done, total):
      spent = self.ledger.totals()
      self.display.update(
        done=done, total=total, teacher_tokens=spent['completion_tokens'],
        teacher_usd=spent['price_usd'],
      )  # fmt: skip

    completions, cached = self.subject.teacher.ask(
      self.ledger, requests, budget=self.subject.budget,
      response_model=response_model, on_progress=on_progress,
    )  # fmt: skip
    self.meter['teacher_cached'] += cached
    return completions

  def supply(
    self,
    wanted: Sequence[tuple[str, str]],
    stage: int,
    round: int,
    step: int,
    levels: Mapping[str, Level],
  ) -> list[Lesson]:
    """Lessons for (module, kind) pairs, appended to `lessons.jsonl`.

    A module whose first lessons came to nothing is in `untaught` then.

    Args:
      levels: where the student stands in each module.

    Raises:
      NoLessons: instead, with `adapter.on_no_lessons='stop'`; all that was
        answered is in the ledger, and what was kept in `lessons.jsonl`.
    """
    adapter = self.subject.adapter
    items = [
      item
      for module, kind in wanted
      for item in adapter.plan(
        module, kind, stage=stage, round=round, level=levels[module]
      )
    ]
    before = self.ledger.totals()['completion_tokens']
    self.display.update(phase='writing lessons')
    lessons, rejected = self._write(items, self.lessons)
    if self.method.select is not None and lessons:
      written = len(lessons)
      lessons = self.method.select(
        lessons,
        self._nats('student_inferred', self.student.params, lessons),
        self._nats(
          'teacher_scored', self.subject.teacher_model.params, lessons
        ),
      )
      rejected['not_selected'] += written - len(lessons)
    self.lessons += lessons
    self.rejected += rejected
    self.directory.append_lines('lessons.jsonl', (x.to_json() for x in lessons))
    taught = {lesson.module for lesson in lessons}
    untaught = [
      name for name, kind in wanted
      if name not in taught and kind in ('stage', 'bridging')
    ]  # fmt: skip
    self.log([{
      'event': 'supply', 'step': step, 'stage': stage,
      'kind': wanted[-1][1], 'modules': [m for m, _ in wanted],
      'lessons': len(lessons), 'rejected': dict(rejected),
      'untaught': untaught,
      'teacher_tokens': self.ledger.totals()['completion_tokens'] - before,
      'measures': {
        'seeds': measures.of_seeds(
          dict.fromkeys(item.seed for item in items), self._common_words
        ),
        'lessons': measures.of_lessons(lessons, self._common_words),
      },
    }])  # fmt: skip
    for name in untaught:
      why = self._no_lessons(name, items, rejected)
      if self.config.adapter.on_no_lessons == 'stop':
        raise NoLessons(
          f'{why} Change the teacher, the seeds or the adapter, in another '
          '--workdir; or continue without it: '
          '--config.adapter.on_no_lessons=skip.'
        )
      self.display.say(f'{why} It is passed over.')
    self.untaught += untaught
    return lessons

  def _write(
    self, items: Sequence[Item], before: Sequence[Lesson]
  ) -> tuple[list[Lesson], Counter[str]]:
    found = self.subject.adapter.write(items, self.ask, before)
    lessons, rejected = agreed(*found)
    return lessons, rejections.count(rejected)

  def _no_lessons(self, module, items, rejected) -> str:
    """What came instead of lessons of `module`, with a sample of it."""
    first = next((i for i in items if i.seed.module == module), None)
    said = ''
    if first is not None:
      (answer,) = self.ledger.find([first.request])
      said = ' '.join((answer.text or answer.discarded).split())
    counts = ', '.join(f'{n} {reason}' for reason, n in rejected.most_common())
    return (
      f'{module}: the teacher wrote no lesson that could be kept '
      f'(of all that was asked for together: {counts or "nothing"}). It said, '
      f'for example: {said[:_SAMPLE]!r}. Every answer is in ledger.sqlite.'
    )

  def _nats(self, reader: str, params, lessons):
    """Nats per token of each lesson's solution."""
    examples = [self.example(x.problem, x.completion) for x in lessons]
    log_probs = self._log_probs(reader, params, examples)
    return [-float(found.mean()) for found in log_probs]

  def _log_probs(self, reader: str, params, examples) -> list[np.ndarray]:
    """Of every completion's tokens; `reader` as the meter calls it."""
    # A text's last token is predicted and not read.
    self.meter[reader] += sum(
      len(e.prompt) + len(e.completion) - 1 for e in examples
    )
    return self._likelihood[reader](
      params, [e.prompt for e in examples], [e.completion for e in examples]
    )

  def panel_lessons(self) -> list[Lesson]:
    """Lessons of every module for the learner panel.

    They are rehearsals of stage 0: what a run rehearses later costs nothing
    again. Only the ledger keeps them.
    """
    items = [
      item
      for module in self.names
      for item in self.subject.adapter.plan(
        module, 'rehearsal', stage=0, round=0, level=Level()
      )
    ]
    self.display.update(phase='lessons for the learner panel')
    return self._write(items, [])[0]

  def gate_examples(self) -> list[list[packing.Example]]:
    """The gate probes of every module with their reference answers."""
    probes = self.domain.probes('gate', self.answer_format)
    return [
      [self.example(p.prompt, p.reference) for p in probes if p.module == name]
      for name in self.names
    ]

  def recall(self, count: int) -> None:
    """Takes up the first `count` lessons of an earlier start; drops others."""
    self.directory.keep_lines('lessons.jsonl', lambda i, _: i < count)
    lines = self.directory.read_lines('lessons.jsonl')
    if len(lines) != count:
      raise ValueError(
        f'{self.directory.path / "lessons.jsonl"} has {len(lines)} lessons and '
        f'the checkpoint {count}; restore the file, or start in another '
        '--workdir.'
      )
    self.lessons = [Lesson.from_json(line) for line in lines]

  def log(self, events: Sequence[dict]) -> None:
    self.directory.append_lines('metrics.jsonl', map(json.dumps, events))
    self.logged += len(events)

  def examples(self, lessons: Sequence[Lesson]) -> dict[str, list]:
    """The sequences of every module, as the method makes them."""
    grouped: dict[str, list[packing.Example]] = {}
    for lesson in lessons:
      grouped.setdefault(lesson.module, []).extend(
        self.method.examples(lesson, self.subject.codec)
      )
    return grouped

  def example(self, prompt: str, completion: str) -> packing.Example:
    codec = self.subject.codec
    return packing.Example(codec.prompt(prompt), codec.answer(completion))
