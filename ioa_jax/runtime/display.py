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


@dataclasses.dataclass
class Status:
  """The facts on display; None is not known yet."""

  phase: str = 'starting'
  done: int = 0
  total: int = 0
  stage: int | None = None
  num_stages: int = 0
  stage_modules: tuple[str, ...] = ()
  round: int = 0
  loss: float | None = None
  mastery: dict[str, float] = dataclasses.field(default_factory=dict)
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
    self._phase_start = time.monotonic()
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
    self.console.print(text, markup=False, highlight=False, soft_wrap=True)

  def update(self, **facts) -> None:
    """Changes facts of the status; a new phase restarts its clock."""
    now = time.monotonic()
    new_phase = facts.get('phase', self.status.phase) != self.status.phase
    if new_phase:
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
      facts.append(('left', f'{left:.0f} s'))
    return [(name, terminal.printable(value)) for name, value in facts]

  def _line(self) -> str:
    parts = [self.status.phase, *(f'{k} {v}' for k, v in self._facts())]
    if self.status.mastery:
      parts.append(
        'mastery '
        + ' '.join(f'{k}={v:.2f}' for k, v in self.status.mastery.items())
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
    for name, value in self.status.mastery.items():
      grid.add_row(
        rich.text.Text(terminal.printable(name)),
        rich.progress_bar.ProgressBar(
          total=1.0, completed=min(value, 1.0), width=30
        ),
        f'{value:.2f}',
      )
    return grid
