"""What is shown while a run goes on, as lines and as a panel."""

import io

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
    'left 9 s',
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
