"""What a person sees while a run goes on: a live panel, or plain lines.

A terminal gets one panel that is redrawn in place; anything else (a file, a CI
log) gets a line when something happened and at most every few seconds.
"""

from __future__ import annotations

import dataclasses
import time

import rich.console
import rich.live
import rich.progress_bar
import rich.table
import rich.text

from ioa_jax.runtime import terminal

_PLAIN_EVERY_SECONDS = 5.0
_MOST_MODULES, _BAR = 6, 30


@dataclasses.dataclass
class Status:
  """The facts on display; None is not known yet.

  Attributes:
    done, total: of what the phase counts.
    stage: from 0; people are told from 1.
    mastery: a module's score over its teacher's.
    threshold: the mastery at which a stage is left.
    spent_before: seconds that earlier starts of the run took.
    run_left: seconds to the end of the run, as of when it was set.
  """

  phase: str = 'starting'
  done: int = 0
  total: int = 0
  stage: int | None = None
  num_stages: int = 0
  stage_modules: tuple[str, ...] = ()
  round: int = 0
  loss: float | None = None
  mastery: dict[str, float] = dataclasses.field(default_factory=dict)
  threshold: float | None = None
  spent_before: float = 0.0
  run_left: float | None = None
  teacher_tokens: int = 0
  teacher_usd: float = 0.0
  batches: str = ''


class Display:
  """Shows a `Status`; a context, so the terminal is left clean on any exit."""

  def __init__(
    self, console: rich.console.Console | None = None, quiet: bool = False
  ):
    self.console = console or rich.console.Console(quiet=quiet)
    self.status = Status()
    self._live = None
    self._start = self._phase_start = self._left_set = time.monotonic()
    self._phase_start_done = 0
    self._phase_start_tokens = 0
    self._last_line = 0.0

  def __enter__(self):
    if self.console.is_terminal:
      self._live = rich.live.Live(
        get_renderable=self._panel,
        console=self.console,
        refresh_per_second=4,
        transient=True,
      )
      self._live.__enter__()
    return self

  def __exit__(self, *exception):
    if self._live:
      self._live.__exit__(*exception)

  def say(self, text: str) -> None:
    """One line that stays, above the panel."""
    text = terminal.printable(text)
    if not self.console.is_terminal:
      text = f'{time.strftime("%H:%M:%S")} {text}'
    self.console.print(text, markup=False, highlight=False, soft_wrap=True)

  def update(self, **facts) -> None:
    """Changes facts of the status.

    A new phase has a clock of its own, and none of the numbers before it.
    """
    now = time.monotonic()
    new_phase = facts.get('phase', self.status.phase) != self.status.phase
    if 'run_left' in facts:
      self._left_set = now
    if new_phase:
      facts = {'done': 0, 'total': 0, 'loss': None, 'mastery': {}} | facts
      self._phase_start = now
      self._phase_start_done = facts.get('done', 0)
      self._phase_start_tokens = self.status.teacher_tokens
    self.status = dataclasses.replace(self.status, **facts)
    due = new_phase or now - self._last_line >= _PLAIN_EVERY_SECONDS
    if self._live is None and due:
      self._last_line = now
      self.say(self._line())

  def seconds_left(self) -> float | None:
    """Of this phase, from its own speed so far."""
    worked = self.status.done - self._phase_start_done
    if worked <= 0 or self.status.total <= self.status.done:
      return None
    spent = time.monotonic() - self._phase_start
    return spent / worked * (self.status.total - self.status.done)

  def elapsed(self) -> float:
    """Seconds that the run took so far, all its starts together."""
    return self.status.spent_before + time.monotonic() - self._start

  def whole_left(self) -> float | None:
    """Seconds to the end of the run, as far as the plan tells."""
    if self.status.run_left is None:
      return None
    return max(0.0, self.status.run_left - (time.monotonic() - self._left_set))

  def _whole(self) -> str:
    left = self.whole_left()
    ahead = '' if left is None else f', about {_time(left)} left'
    return f'{_time(self.elapsed())} elapsed{ahead}'

  def _facts(self) -> list[tuple[str, str]]:
    s = self.status
    facts = []
    if s.total:
      facts.append(('progress', f'{s.done}/{s.total}'))
    if s.batches:
      facts.append(('batches', s.batches))
    if s.stage is not None and s.stage < s.num_stages:
      names = ', '.join(n.rpartition('/')[2] for n in s.stage_modules)
      facts.append(('stage', f'{s.stage + 1}/{s.num_stages} ({names})'))
      if s.round:
        facts.append(('remedial round', str(s.round)))
    if s.loss is not None:
      facts.append(('loss', f'{s.loss:.4f}'))
    if s.teacher_tokens:
      facts.append(('teacher tokens', f'{s.teacher_tokens:,}'))
    left = self.seconds_left()
    written = s.teacher_tokens - self._phase_start_tokens
    if left is not None and written > 0:
      spent = time.monotonic() - self._phase_start
      facts.append(('tokens/s', f'{written / spent:,.0f}'))
    if s.teacher_usd:
      facts.append(('teacher cost', f'${s.teacher_usd:,.2f}'))
    if left is not None:
      facts.append(('this phase', f'{_time(left)} left'))
    facts.append(('whole run', self._whole()))
    return [(name, terminal.printable(value)) for name, value in facts]

  def _weakest(self) -> list[tuple[str, float]]:
    """The modules that the gate waits for, the weakest first."""
    mastery = sorted(self.status.mastery.items(), key=lambda item: item[1])
    return mastery[:_MOST_MODULES]

  def _line(self) -> str:
    parts = [self.status.phase, *(f'{k} {v}' for k, v in self._facts())]
    if shown := self._weakest():
      bar = self.status.threshold
      of = '' if bar is None else f' of {bar:.2f}'
      parts.append(
        f'mastery{of}: ' + ' '.join(f'{k}={v:.2f}' for k, v in shown)
      )
    return ' | '.join(parts)

  def _panel(self):
    grid = rich.table.Table.grid(padding=(0, 2))
    # As Text: names of modules are not ours, and brackets would be markup.
    grid.add_row(rich.text.Text(self.status.phase, style='bold'))
    for name, value in self._facts():
      grid.add_row(name, rich.text.Text(value))
    if self.status.total:
      grid.add_row(
        '',
        rich.progress_bar.ProgressBar(
          total=self.status.total, completed=self.status.done, width=50
        ),
      )
    for name, value in self._weakest():
      grid.add_row(
        rich.text.Text(terminal.printable(name)),
        _bar(value, self.status.threshold),
        f'{value:.2f}',
      )
    if (more := len(self.status.mastery) - _MOST_MODULES) > 0:
      grid.add_row('', f'and {more} that are further')
    return grid


def _bar(value: float, threshold: float | None) -> rich.text.Text:
  """A bar of mastery, with the threshold on it."""
  filled = round(_BAR * min(value, 1.0))
  bar = rich.text.Text('━' * filled, style='bar.complete')
  bar.append('━' * (_BAR - filled), style='bar.back')
  if threshold is not None:
    at = min(_BAR - 1, round(_BAR * threshold))
    mark = rich.text.Text('┃', style='bold')
    bar = bar[:at] + mark + bar[at + 1 :]
  return bar


def _time(seconds: float) -> str:
  """As 8 s, 12 min 5 s, 3 h 7 min."""
  seconds = round(seconds)
  if seconds < 60:
    return f'{seconds} s'
  minutes, seconds = divmod(seconds, 60)
  if minutes < 60:
    return f'{minutes} min {seconds} s'
  return '{} h {} min'.format(*divmod(minutes, 60))
