"""What is shown while a run goes on, as lines and as a panel."""

import io
import re

import rich.console

from ioa_jax.runtime import display as display_lib


def display(**settings):
  text = io.StringIO()
  console = rich.console.Console(file=text, width=160, **settings)
  return display_lib.Display(console), text


def test_lines_tell_stage_loss_mastery_tokens_cost_and_time(monkeypatch):
  now = [0.0]
  monkeypatch.setattr(display_lib.time, 'monotonic', lambda: now[0])
  shown, text = display()
  with shown:
    shown.update(phase='writing lessons', done=0, total=10)
    now[0] = 6.0
    shown.update(
      done=4,
      teacher_tokens=1200,
      teacher_usd=1.234,
      stage=0,
      num_stages=3,
      stage_modules=('a/one', 'a/two'),
      round=1,
      loss=0.5,
      mastery={'a/one': 0.75},
    )
  line = text.getvalue().splitlines()[-1]
  for part in (
    'writing lessons',
    'progress 4/10',
    'stage 1/3 (one, two)',
    'remedial round 1',
    'loss 0.5000',
    'teacher tokens 1,200',
    'tokens/s 200',
    'teacher cost $1.23',
    'this phase 9 s left',
    'whole run 6 s elapsed',
    'a/one=0.75',
  ):
    assert part in line, part


def test_without_a_terminal_lines_are_few(monkeypatch):
  now = [0.0]
  monkeypatch.setattr(display_lib.time, 'monotonic', lambda: now[0])
  shown, text = display()
  with shown:
    for step in range(100):
      now[0] += 0.1
      shown.update(phase='teaching', done=step, total=100)
  assert 2 <= len(text.getvalue().splitlines()) <= 4


def test_the_panel_shows_names_as_they_are():
  """A module may be called anything; brackets are rich's markup."""
  shown, text = display(force_terminal=True)
  with shown:
    shown.update(
      phase='teaching',
      done=1,
      total=2,
      stage=0,
      num_stages=1,
      stage_modules=('x/[bold]y',),
      mastery={'[link=z]w': 0.5},
    )
    shown.say('[red]as it is[/red]')
  panel = io.StringIO()
  rich.console.Console(file=panel, width=160).print(shown._panel())
  assert '([bold]y)' in panel.getvalue()
  assert '[link=z]w' in panel.getvalue()
  assert '[red]as it is[/red]' in text.getvalue()


def test_the_whole_run_has_one_line_of_elapsed_and_left(monkeypatch):
  now = [100.0]
  monkeypatch.setattr(display_lib.time, 'monotonic', lambda: now[0])
  shown, _ = display()
  shown.update(spent_before=3600.0, run_left=125.0)
  now[0] += 5.0
  assert shown.elapsed() == 3605.0 and shown.whole_left() == 120.0
  assert 'whole run 1 h 0 min elapsed, about 2 min 0 s left' in shown._line()
  now[0] += 500.0
  assert shown.whole_left() == 0.0


def test_a_phase_takes_no_number_of_the_one_before():
  shown, _ = display()
  shown.update(
    phase='teaching', done=3, total=9, loss=0.5, mastery={'a/b': 0.5}
  )
  shown.update(phase='writing lessons')
  line = shown._line()
  for stale in ('3/9', 'loss', 'mastery', 'a/b'):
    assert stale not in line


def test_nothing_is_said_of_rounds_where_there_are_none():
  shown, _ = display()
  shown.update(phase='teaching', stage=0, num_stages=2, stage_modules=('a/b',))
  assert 'stage 1/2 (b)' in shown._line() and 'round' not in shown._line()


def test_the_threshold_stands_on_the_bar():
  shown, _ = display(force_terminal=True)
  mastery = {f'm/{i}': i / 20 for i in range(12)}
  shown.update(phase='teaching', mastery=mastery, threshold=0.9)
  panel = io.StringIO()
  rich.console.Console(file=panel, width=160).print(shown._panel())
  text = panel.getvalue()
  rows = [row for row in text.splitlines() if '┃' in row]
  # The weakest are what the gate waits for.
  assert [row.split()[0] for row in rows] == [f'm/{i}' for i in range(6)]
  assert 'and 6 that are further' in text
  bar = rows[0].split()[1]
  assert len(bar) == 30 and bar.index('┃') == 27  # 0.9 of 30.


def test_a_log_tells_the_time_of_each_line():
  shown, text = display()
  shown.say('something')
  assert re.fullmatch(r'\d\d:\d\d:\d\d something\n', text.getvalue())
