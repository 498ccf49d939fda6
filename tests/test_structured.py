"""What teachers write as JSON: read as it was meant, or not at all."""

import json
import re
import time

import hypothesis
from hypothesis import strategies as st
import pytest

from ioa_jax.teachers import json_text, structured
from ioa_jax.teachers.structured import Strict, parse


class Inner(Strict):
  steps: list[str]
  final: str


class Answer(Strict):
  problem: str
  inner: Inner
  count: int
  flag: bool


def written(problem='What?', **changes):
  value = {
    'problem': problem,
    'count': 3,
    'flag': True,
    'inner': {'steps': ['one', 'two'], 'final': '42'},
  }
  return json.dumps(value | changes)


def careless(text):
  """JSON of a model that does not double its backslashes."""
  return written('@').replace('@', text)


COMMANDS = (
  r'\frac{1}{2} \times \theta \neq \rho \boxed{42} \beta \nabla \text{ m} '
  r'\underline{x} \sqrt{16} \alpha \right) \left( \bar{x} \forall \tan \tau '
  r'\notin \tfrac \begin{matrix} \phi \rangle \therefore \bf \rm \flat \neg '
  r'\not \binom{3}{2} \triangle \tilde{x} \to \upsilon \cdot \( \) \[ \] \, '
  r'\; \! \{ \} \% \$ \_ \& \#'
).split()


@hypothesis.given(st.lists(st.sampled_from(COMMANDS), min_size=1, max_size=9))
@hypothesis.settings(deadline=None)
def test_latex_with_single_backslashes_is_what_was_written(commands):
  text = ' and '.join(commands)
  assert parse(careless(text), Answer).problem == text
  # And what is escaped rightly stays so, mended or not.
  right = written(text)
  assert parse(right, Answer).problem == text
  assert parse(right[:-1] + ',}', Answer).problem == text
  assert parse(f'Here it is:\n{right}\nBye', Answer).problem == text


@pytest.mark.parametrize(
  ('raw', 'meant'),
  [
    (r'First.\nNow the next, not the last.\n\nnote: x', None),
    (r'a\tb\tThen', None),
    (r'Lines\r\nof Windows\r\n', 'Lines\nof Windows\n'),
    (r'If $x \nu$ is 3', r'If $x \nu$ is 3'),
    (r'\frac{1}{2} \nu', r'\frac{1}{2} \nu'),
    (r'The numbers:\nu = 3', 'The numbers:\nu = 3'),
    (r'x \ne 0', r'x \ne 0'),
    (r'Fewer:\nless than 3', 'Fewer:\nless than 3'),
    (r'$a \nmid b$', r'$a \nmid b$'),
    (
      r'\begin{pmatrix} 1 \\ 2 \end{pmatrix}',
      r'\begin{pmatrix} 1 \\ 2 \end{pmatrix}',
    ),
    (r'It\'s', "It's"),
    (r'\u00e9t\u00e9', 'été'),
    (r'C:\/x', 'C:/x'),
  ],
)
def test_line_breaks_stay_line_breaks(raw, meant):
  assert parse(careless(raw), Answer).problem == (
    json.loads(f'"{raw}"') if meant is None else meant
  )


@hypothesis.given(st.text(), st.text('\\abfnrtu0/"\' $({x', max_size=40))
@hypothesis.settings(deadline=None)
def test_no_control_character_comes_through(plain, raw):
  right = written(plain)
  for text in (careless(raw), right, right.replace('\\\\', '\\')):
    found = parse(text, Answer)
    if found is not None:
      assert not re.search(r'[\x00-\x08\x0b-\x1f\x7f-\x9f]', found.problem)


def test_a_form_feed_that_begins_no_command_is_refused():
  assert parse(careless(r'a\f 1'), Answer) is None
  assert parse(careless(r'\u0007'), Answer) is None
  assert 'control' in structured.misfit(careless(r'a\f 1'), Answer)


SHAPES = [
  ({'problem': 42}, 'problem', '42'),
  ({'problem': 1.50}, 'problem', '1.5'),
  ({'problem': True}, 'problem', 'true'),
  ({'problem': ['a', 'b']}, 'problem', 'a\nb'),
  ({'count': '3'}, 'count', 3),
  ({'count': 3.0}, 'count', 3),
  ({'flag': 'true'}, 'flag', True),
  ({'extra': 1}, 'count', 3),
  (
    {'inner': {'steps': 'one\ntwo', 'final': 42}},
    'inner.steps',
    ['one', 'two'],
  ),
  ({'inner': {'steps': [1, 2.5], 'final': 'x'}}, 'inner.steps', ['1', '2.5']),
  (
    {'inner': {'steps': {'1': 'a', '2': 'b'}, 'final': 'x'}},
    'inner.steps',
    ['a', 'b'],
  ),
  (
    {'inner': {'steps': [{'step': 1, 'text': 'a'}], 'final': 'x'}},
    'inner.steps',
    ['a'],
  ),
  ({'inner': {'steps': None, 'final': 'x'}}, 'inner.steps', []),
  ({'inner': [{'steps': ['a'], 'final': 'x'}]}, 'inner.final', 'x'),
  ({'inner': {'Steps': ['a'], 'FINAL': 'x'}}, 'inner.final', 'x'),
]


@pytest.mark.parametrize(('change', 'place', 'value'), SHAPES)
def test_another_shape_is_read_and_not_paid_again(change, place, value):
  found = parse(written(**change), Answer)
  for name in place.split('.'):
    found = getattr(found, name)
  assert found == value


def test_numbers_keep_their_spelling():
  text = written('@').replace('"@"', '1.50')
  assert parse(text, Answer).problem == '1.50'
  text = written('@').replace('"@"', '123456789012345678901234567890')
  assert parse(text, Answer).problem == '123456789012345678901234567890'


@pytest.mark.parametrize(
  'change',
  [
    {'inner': 'x'},
    {'inner': {'steps': ['a']}},
    {'count': 'three'},
    {'problem': {'a': 'x', 'b': 'y'}},
    {'flag': 'perhaps'},
  ],
)
def test_nothing_is_made_up(change):
  assert parse(written(**change), Answer) is None


def test_the_last_object_in_prose_is_the_answer():
  text = f'Draft: {written("one")} Better: {written("two")} Done.'
  assert parse(text, Answer).problem == 'two'
  assert parse(f'```json\n{written("one")}\n```', Answer).problem == 'one'
  assert parse(f'````\n{written("```x```")}\n````', Answer).problem == '```x```'
  assert parse(f'[{written("one")}]', Answer).problem == 'one'
  assert parse(f'{{"answer": {written("one")}}}', Answer).problem == 'one'
  assert parse('\ufeff' + written('one'), Answer).problem == 'one'


def test_a_long_text_is_read_or_refused_at_once():
  long = 'x' * 150_000
  assert parse(written(long), Answer).problem == long
  assert list(json_text.values(written(long * 2))) == []


@pytest.mark.parametrize(
  'text',
  [
    '{' * 450 + 'x' * 39_000,
    '{1' * 450 + '}' * 39_000,
    '{"' * 20_000,
    ',{' * 450 + 'x' * 39_000,
    '[' * 40_000,
    '$' * 20_000 + r'\nu' * 6_000,
  ],
)
def test_no_text_is_looked_at_for_long(text):
  begun = time.process_time()
  assert parse(text, Answer) is None
  assert time.process_time() - begun < 2


def test_a_long_lesson_is_mended():
  steps = [rf'Step {i}: \frac{{{i}}}{{2}} = {i / 2}' for i in range(400)]
  whole = written(inner={'steps': steps, 'final': '42'})
  assert len(whole) > 12_000
  assert parse(whole[:-1] + ', "extra": nothing,}', Answer).inner.steps == steps
