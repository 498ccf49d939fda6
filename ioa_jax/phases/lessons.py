"""The lessons of a run: asked for, confirmed, kept in `lessons.jsonl`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
import dataclasses

from ioa_jax.adapter import (
  Item,
  Level,
  agreed,
  lots,
  measures,
  rejections,
)
from ioa_jax.assemble import Run
from ioa_jax.phases import judging
from ioa_jax.records import (
  DIFFICULTIES,
  Bought,
  Lesson,
  Measures,
  Rejected,
  Supply,
)
from ioa_jax.runtime.rundir import LESSONS, METRICS, REJECTED
from ioa_jax.teachers.requests import Completion, Price, Request
from ioa_jax.training import packing

_FEW = 0.5  # Of the lessons asked for: fewer kept are said.
_SAMPLE = 200  # Characters of what a teacher said, in an error.


class NoLessons(ValueError):
  """A stage has a module that nothing can be taught of."""


@dataclasses.dataclass(frozen=True)
class Order:
  """What is wanted of the teacher, and when.

  Attributes:
    wanted: (module, kind) pairs.
    round: remedial round of the stage.
    step: of training.
    lots: by need, which lot of its lessons each module gets; {} is all.
  """

  wanted: Sequence[tuple[str, str]]
  stage: int
  round: int = 0
  step: int = 0
  lots: Mapping[str, int] = dataclasses.field(default_factory=dict)

  def numbers(self) -> dict[str, int]:
    """Of the lots; other kinds than a stage's own lessons come whole."""
    return {
      module: self.lots[module]
      for module, kind in self.wanted
      if kind in ('stage', 'bridging') and module in self.lots
    }


class LessonBook:
  """All lessons that a run has kept.

  Attributes:
    lessons: in the order of `lessons.jsonl`.
    rejected: of this start, those that were not kept.
    untaught: modules of which no lesson could be had.
  """

  def __init__(self, run: Run):
    self._run = run
    self.lessons: list[Lesson] = []
    self.rejected: list[Rejected] = []
    self.untaught: list[str] = []
    self._common_words = measures.common_words(
      seed
      for name in run.names
      for seed in run.domain.seeds(name, run.config.adapter.seeds_per_module)
    )

  def recall(
    self, count: int, rejected: int = 0, untaught: Sequence[str] = ()
  ) -> None:
    """Takes up the first `count` lessons of an earlier start; drops others.

    Args:
      rejected: lines of `rejected.jsonl` that belong to them.

    Raises:
      ValueError: if there are fewer, or one is damaged.
    """
    directory = self._run.directory
    directory.truncate(LESSONS, count)
    directory.truncate(REJECTED, rejected)
    self.lessons = [
      Lesson.from_json(line, f'{directory.path / LESSONS} line {i}')
      for i, line in enumerate(directory.read_lines(LESSONS), 1)
    ]
    self.untaught = list(untaught)

  def add(self, order: Order, levels: Mapping[str, Level]) -> list[Lesson]:
    """Has lessons written and keeps them; a module without any is `untaught`.

    Args:
      levels: where the student stands in each module.

    Raises:
      NoLessons: instead, with `adapter.on_no_lessons='stop'`; all that was
        answered is in the ledger, and what was kept in `lessons.jsonl`.
    """
    run = self._run
    items, more = self._items(order, levels)
    before = run.client.totals()['completion_tokens']
    bill = _Bill(run, items)
    found = run.adapter.write(items, bill.ask, self.lessons)
    written, rejected = agreed(*found)
    lessons = self._selected(written)
    reasons = rejections.count(rejected)
    if len(lessons) < len(written):
      reasons['not_selected'] += len(written) - len(lessons)
    self.lessons += lessons
    self.rejected += rejected
    run.directory.append_lines(LESSONS, (x.to_json() for x in lessons))
    run.directory.append_lines(REJECTED, (x.to_json() for x in rejected))
    for line in rejections.shortfalls(
      items, lessons, rejected, least_share=_FEW
    ):
      run.display.say(line)
    taught = more | {lesson.module for lesson in self.lessons}
    untaught = [
      name
      for name, kind in order.wanted
      if name not in taught and kind in ('stage', 'bridging')
    ]
    supply = Supply(
      event='supply',
      step=order.step,
      stage=order.stage,
      kind=order.wanted[-1][1],
      modules=[module for module, _ in order.wanted],
      lessons=len(lessons),
      rejected=dict(reasons),
      untaught=untaught,
      teacher_tokens=run.client.totals()['completion_tokens'] - before,
      measures=self._measures(items, lessons),
      usd=bill.usd(),
      bought=self._bought(items, lessons),
      lots=order.numbers(),
    )
    run.directory.append_lines(METRICS, [supply.to_json()])
    if later := [name for name, number in supply.lots.items() if number]:
      run.display.say(
        f'step {order.step}: {len(lessons)} more lessons of {", ".join(later)}.'
      )
    for name in untaught:
      self._pass_over(name, items, reasons)
    self.untaught += untaught
    return lessons

  def _items(
    self, order: Order, levels: Mapping[str, Level]
  ) -> tuple[list[Item], set[str]]:
    """What is asked for; and modules of which later lots could be."""
    numbers, each = order.numbers(), self._run.config.adapter.lot_items_per_seed
    found: list[Item] = []
    more = set()
    for module, kind in order.wanted:
      items = self._run.adapter.plan(
        module,
        kind,
        stage=order.stage,
        round=order.round,
        level=levels[module],
      )
      if module in numbers:
        if numbers[module] + 1 < lots.count(items, each):
          more.add(module)
        items = lots.take(items, numbers[module], each)
      found += items
    return found, more

  def lines_of(self, texts: Sequence[tuple[int, ...]]) -> list[int]:
    """Line numbers, from 1, of the lessons behind token sequences."""
    line: dict[tuple[int, ...], int] = {}
    for number, lesson in enumerate(self.lessons, 1):
      for e in _examples(self._run, lesson):
        line.setdefault((*e.prompt, *e.completion), number)
    return sorted({line[text] for text in texts})

  def _bought(self, items, lessons) -> dict[str, Bought]:
    """Tokens as the ledger has them, so a restart finds the same."""
    kept = Counter(lesson.module for lesson in lessons)
    tokens: Counter[str] = Counter()
    answers = self._run.client.find([item.request for item in items])
    for item, answer in zip(items, answers, strict=True):
      tokens[item.seed.module] += answer.completion_tokens
    return {m: Bought(kept[m], n) for m, n in tokens.items()}

  def _measures(self, items, lessons) -> Measures:
    seeds = dict.fromkeys(item.seed for item in items)
    return Measures(
      seeds=measures.of_seeds(seeds, self._common_words),
      lessons=measures.of_lessons(lessons, self._common_words),
    )

  def _selected(self, lessons: list[Lesson]) -> list[Lesson]:
    """Those that the method teaches."""
    run = self._run
    if run.method.select is None or not lessons:
      return lessons
    return run.method.select(lessons, judging.evidence(run, lessons))

  def _pass_over(self, module, items, rejected) -> None:
    """Ends the run, or says that it goes on without the module."""
    run = self._run
    why = _no_lessons(run, module, items, rejected)
    if run.config.adapter.on_no_lessons == 'stop':
      raise NoLessons(
        f'{why} Change the teacher, the seeds or the adapter, in another '
        '--workdir; or continue without it: '
        '--config.adapter.on_no_lessons=skip.'
      )
    run.display.say(f'{why} It is passed over.')


class _Bill:
  """Puts requests to the teacher, and knows what the answers cost."""

  def __init__(self, run: Run, items: Sequence[Item]):
    self._run = run
    self._module = {item.request: item.seed.module for item in items}
    self._paid: dict[Request, float] = {}

  def ask(self, requests, response_model=None) -> list[Completion]:
    # A second time it is asked to confirm what it wrote.
    what = 'confirming lessons' if self._paid else 'writing lessons'
    self._run.display.update(phase=what)
    answers = self._run.ask_for_lessons(requests, response_model)
    self._run.display.update(phase='checking lessons')
    for request, answer in zip(requests, answers, strict=True):
      self._paid[request] = answer.price_usd
    return answers

  def usd(self) -> dict[str, float] | None:
    """Dollars by module; None where no price is known."""
    if self._run.subject.price == Price():
      return None
    sums: Counter[str] = Counter()
    for request, usd in self._paid.items():
      sums[request.module or self._module[request]] += usd
    return dict(sums)


def easiest_first(lessons: Sequence[Lesson]) -> list[Lesson]:
  """By the level they are of, and within one by the length of the answer."""
  size = lambda x: (DIFFICULTIES.index(x.difficulty_tag), len(x.completion))
  return sorted(lessons, key=size)


def examples(run: Run, lessons: Sequence[Lesson]) -> dict[str, list]:
  """The sequences of every module, as the method makes them of lessons."""
  grouped: dict[str, list[packing.Example]] = {}
  for lesson in lessons:
    grouped.setdefault(lesson.module, []).extend(_examples(run, lesson))
  return grouped


def _examples(run: Run, lesson: Lesson) -> Sequence[packing.Example]:
  return run.method.examples(lesson, run.student.codec, run.subject.answers)


def rehearsals(run: Run) -> list[Lesson]:
  """Lessons of every module for the learner panel.

  They are rehearsals of stage 0: what a run rehearses later costs nothing
  again. Only the ledger keeps them.
  """
  items = [
    item
    for module in run.names
    for item in run.adapter.plan(
      module, 'rehearsal', stage=0, round=0, level=Level()
    )
  ]
  run.display.update(phase='lessons for the learner panel')
  return agreed(*run.adapter.write(items, run.ask_for_lessons, []))[0]


def _no_lessons(run: Run, module: str, items: Sequence[Item], rejected) -> str:
  """What came instead of lessons of `module`, with a sample of it."""
  first = next((i for i in items if i.seed.module == module), None)
  said = ''
  if first is not None:
    (answer,) = run.client.find([first.request])
    said = ' '.join((answer.text or answer.discarded).split())
  counts = ', '.join(f'{n} {reason}' for reason, n in rejected.most_common())
  return (
    f'{module}: the teacher wrote no lesson that could be kept '
    f'(of all that was asked for together: {counts or "nothing"}). It said, '
    f'for example: {said[:_SAMPLE]!r}. Every answer is in ledger.sqlite.'
  )
