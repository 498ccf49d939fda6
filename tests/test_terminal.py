"""What others wrote reaches no terminal as a command."""

import io

import pytest
import rich.console

from ioa_jax.runtime import display as display_lib
from ioa_jax.runtime import terminal

HOSTILE = {
  'title': '\x1b]0;owned\x07',
  'clear': '\x1b[2J\x1b[H',
  'one-byte escape': '\x9b2J',
  'carriage return': 'refused\raccepted',
  'backspace': 'no\b\byes',
  'bell': '\x07',
  'right to left': '\u202egnp.exe',
  'isolate': '\u2066x\u2069',
  'zero width': 'a\u200bb',
  'byte order mark': '\ufeff',
  'half a pair': '\ud83d',
  'delete': '\x7f',
}


@pytest.mark.parametrize('name', HOSTILE)
def test_unsafe_characters_are_written_out(name):
  shown = terminal.printable(HOSTILE[name])
  assert '\\u' in shown
  assert all(c.isprintable() for c in shown)
  shown.encode()


def test_plain_text_stays_as_it_is():
  text = 'ärger, 漢字, 🙂, x²\tand\nlines'
  assert terminal.printable(text) == text


@pytest.mark.parametrize('name', HOSTILE)
@pytest.mark.parametrize('is_terminal', [False, True])
def test_the_display_passes_nothing_on(name, is_terminal):
  text = io.StringIO()
  console = rich.console.Console(
    file=text, width=200, force_terminal=is_terminal
  )
  with display_lib.Display(console) as display:
    display.say(f'said {HOSTILE[name]}')
    display.update(
      phase='teaching',
      stage=0,
      num_stages=1,
      stage_modules=(HOSTILE[name],),
      mastery={HOSTILE[name]: 0.5},
    )
  assert HOSTILE[name] not in text.getvalue()
