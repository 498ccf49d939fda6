"""Records: what is written is read again, and what is damaged has a name."""

import json
import math

import hypothesis
from hypothesis import strategies as st
import pytest

from ioa_jax import records
from tests import synthetic_run

EDGE = '{"from": "a", "to": "b", "strength": 0.5}'


@pytest.mark.parametrize(
  'record',
  [
    records.Score(2.5, 4),
    records.StrongEdge('a', 'b', None),
    records.Probing(
      event='probe',
      step=5,
      stage=0,
      round=1,
      decision='stay',
      scores={'x/y': records.Score(1, 2)},
      reopened=('x/y',),
    ),
    records.Progress(lessons=3, wrong={'k': ()}, counted={'panel': 7}),
  ],
)
def test_a_record_survives_its_file(record):
  text = record.to_json()
  assert '\n' not in text
  assert type(record).from_json(text) == record


def test_names_in_files_are_those_of_the_contract():
  event = records.Training('train', 5, 0, 0.25, 1.0, 1e-3, 100)
  assert '"train/loss": 0.25' in event.to_json()
  assert records.parse_event(event.to_json(), 'here') == event
  assert records.StrongEdge('a', 'b', 0.5).to_json() == EDGE


def test_a_failed_step_keeps_its_loss():
  event = records.Training('train', 5, 0, math.nan, math.inf, 1e-3, 100)
  again = records.parse_event(event.to_json(), 'here')
  assert math.isnan(again.loss) and again.grad_norm == math.inf


@pytest.mark.parametrize(
  'text,message',
  [
    ('{"from": "a", "to": "b"}', 'field strength is missing'),
    (EDGE.replace('0.5', '"x"'), "strength is 'x', wanted a valid number"),
    (EDGE.replace('0.5', 'NaN'), 'strength is nan, wanted a finite number'),
    (EDGE.replace('"a"', '7'), 'from is 7, wanted a valid string'),
    (EDGE.replace('}', ', "more": 1}'), 'field more is unknown'),
    (EDGE[:-1], r'not JSON \('),
    ('[' * 10_000, r'not JSON \('),
    ('null', 'the value is None'),
    ('', r'not JSON \('),
  ],
)
def test_a_damaged_file_names_itself_and_the_field(text, message):
  with pytest.raises(ValueError, match=f'^file.json: {message}') as raised:
    records.StrongEdge.from_json(text, 'file.json')
  assert len(str(raised.value).splitlines()) == 1
  assert len(str(raised.value)) < 300


@pytest.mark.parametrize(
  'correct,n', [(3, 2), (-1, 2), (math.nan, 1), (0, -1), ('many', 2)]
)
def test_a_score_that_cannot_be_is_refused_where_it_is_made(correct, n):
  with pytest.raises(ValueError):
    records.Score(correct, n)


def test_an_unknown_event_is_refused():
  with pytest.raises(ValueError, match='metrics line 3: .*party'):
    records.parse_event('{"event": "party", "step": 1}', 'metrics line 3')


def test_half_a_surrogate_pair_can_be_stored():
  lesson = records.KnowledgeModule('a\ud83d', '', (), 0)
  text = lesson.to_json()
  assert text.encode()
  assert records.KnowledgeModule.from_json(text).name == 'a?'


def test_sums_of_shares_may_be_rounded():
  assert records.Score(3.0000001, 3).mean == pytest.approx(1)


@pytest.fixture(scope='module')
def files(tmp_path_factory):
  return synthetic_run.write(tmp_path_factory.mktemp('run'))


READERS = {
  'diagnosis.json': records.Diagnosis.from_json,
  'curriculum.json': records.Curriculum.from_json,
  'results.json': records.Results.from_json,
  'lessons.jsonl': records.Lesson.from_json,
  'metrics.jsonl': records.parse_event,
}
HOSTILE = [
  None,
  True,
  -1,
  2**70,
  10**400,
  1e308,
  float('nan'),
  float('inf'),
  '',
  'x',
  '\ud800',
  [],
  {},
  [[]],
  {'a': {}},
  '1',
  '-0',
  [None],
  'k' * 10_000,
]


def _places(value, path=()):
  """The path of everything in a JSON value."""
  yield path
  items = ()
  if isinstance(value, dict):
    items = value.items()
  elif isinstance(value, list):
    items = list(enumerate(value))[:3]
  for key, child in items:
    yield from _places(child, (*path, key))


@hypothesis.settings(
  max_examples=300,
  deadline=2000,
  suppress_health_check=[hypothesis.HealthCheck.function_scoped_fixture],
)
@hypothesis.given(data=st.data(), name=st.sampled_from(sorted(READERS)))
def test_any_damage_is_a_value_or_one_line(files, data, name):
  content = files[name]
  if name.endswith('.jsonl'):
    content = content[data.draw(st.integers(0, len(content) - 1))]
  content = json.loads(json.dumps(content))
  place = data.draw(st.sampled_from(list(_places(content))))
  new = data.draw(st.sampled_from(HOSTILE))
  if place:
    *path, last = place
    target = content
    for key in path:
      target = target[key]
    if data.draw(st.booleans()) and isinstance(target, dict):
      del target[last]
    else:
      target[last] = new
  else:
    content = new
  text = json.dumps(content)
  cut = data.draw(st.integers(0, len(text)))
  text = text[:cut] if data.draw(st.integers(0, 3)) == 0 else text
  try:
    READERS[name](text, name)
  except ValueError as e:
    assert str(e).startswith(f'{name}: ')
    assert len(str(e).splitlines()) == 1 and len(str(e)) < 600
