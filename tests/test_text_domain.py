"""Seeds in a file to a domain: splits, taxonomy, graders, and bad input."""

import decimal
import json
import time

import hypothesis
from hypothesis import strategies as st
import numpy as np
import pytest
import yaml

from ioa_jax import config as config_lib
from ioa_jax import subject as subject_lib
from ioa_jax.domains import seed_sources, taxonomy, text
from ioa_jax.evaluation import final_answers, sandbox

COLUMNS = {
  'module': 'unit',
  'problem': 'question',
  'solution': 'worked',
  'answer': '',
}


def rows(count=50, unit='a/b', added=1):
  return [
    (
      f'f:{n}',
      {
        'unit': unit,
        'question': f'What is {n} + {added}?',
        'worked': f'Add.\n#### {n + 1}',
      },
    )
    for n in range(count)
  ]


def make(rows_, taxonomy=None, **changes):
  settings = {'min_probes': 2, 'max_probes': 99, 'columns': COLUMNS} | changes
  return text.TextDomain(
    rows_, taxonomy, grader=final_answers.Number(), **settings
  )


def test_splits_are_disjoint_and_eight_to_two():
  domain = make(rows(50) + rows(50, 'a/c', added=2))
  for module in ('a/b', 'a/c'):
    seeds = {s.problem for s in domain.seeds(module, 999)}
    gate, held = (
      {p.prompt for p in domain.probes(split, '') if p.module == module}
      for split in ('gate', 'held_out')
    )
    assert (len(seeds), len(gate), len(held)) == (40, 5, 5)
    assert not seeds & gate and not seeds & held and not gate & held


def test_equal_problems_are_one_item():
  again = [(w, r | {'question': r['question'] + ' '}) for w, r in rows(50)]
  domain = make(rows(50) + again)
  every = [s.problem for s in domain.seeds('a/b', 999)]
  every += [
    p.prompt for s in ('gate', 'held_out') for p in domain.probes(s, '')
  ]
  assert len(every) == len(set(every)) == 50


def test_the_split_of_an_item_does_not_depend_on_the_order_of_the_file():
  one, other = make(rows(50)), make(rows(50)[::-1])
  assert one.probes('gate', '') == other.probes('gate', '')
  assert one.seeds('a/b', 7) == other.seeds('a/b', 7)


def test_answers_come_from_the_solution_or_their_column():
  seed = make(rows(50)).seeds('a/b', 1)[0]
  assert seed.answer == str(int(seed.problem.split()[2]) + 1)
  given = [(w, r | {'final': '7'}) for w, r in rows(50)]
  domain = make(given, columns=COLUMNS | {'answer': 'final'})
  assert {p.answer for p in domain.probes('held_out', '')} == {'7'}


@pytest.mark.parametrize('blank', [None, '', '  '])
def test_beside_an_answer_a_solution_may_be_missing(blank):
  given = [
    (w, r | {'final': n, 'worked': r['worked'] if n % 2 else blank})
    for n, (w, r) in enumerate(rows(50))
  ]
  domain = make(given, columns=COLUMNS | {'answer': 'final'})
  seeds = domain.seeds('a/b', 99)
  assert {bool(s.solution) for s in seeds} == {True, False}
  for seed in seeds:
    number = int(seed.problem.split()[2])
    assert seed.answer == str(number)
    assert bool(seed.solution) == bool(number % 2)
  with pytest.raises(text.DomainError, match=r'worked.* is missing or no text'):
    make(given)


def test_a_solution_column_is_needed_only_if_it_is_named(tmp_path):
  path = tmp_path / 'seeds.jsonl'
  lines = [{'module': 'm', 'problem': f'{n}?', 'answer': n} for n in range(50)]
  path.write_text('\n'.join(map(json.dumps, lines)))
  config = lambda **changes: config_lib.get(
    {'domain.seeds': str(path), 'domain.min_probes': 2}
    | {f'domain.columns.{k}': v for k, v in changes.items()}
  )
  load = lambda c: subject_lib.text_domain(c, final_answers.Number())
  assert len(load(config(answer='answer')).seeds('m', 99)) == 40
  # A name that somebody gave is no default: it may be misspelt.
  with pytest.raises(ValueError, match="no column 'workd'"):
    load(config(answer='answer', solution='workd'))
  with pytest.raises(ValueError, match="no column 'solution'"):
    load(config())


def test_what_is_left_of_a_taxonomy_keeps_its_order():
  units = {
    'a': ('', ()),
    'b': ('', ('a',)),
    'c': ('', ('b',)),
    'd': ('', ('b', 'c', 'a')),
  }
  whole = taxonomy.order(units)
  assert taxonomy.only(whole, set(units)) == whole
  left = {m.name: m.prerequisites for m in taxonomy.only(whole, {'a', 'd'})}
  assert left == {'a': (), 'd': ('a',)}
  assert taxonomy.only(whole, set()) == ()


def test_taxonomy_orders_modules_by_what_they_stand_on(tmp_path):
  path = tmp_path / 't.yaml'
  path.write_text(
    'modules:\n- {name: c, prerequisites: [a, b]}\n'
    '- {name: b, prerequisites: [a], description: the second}\n- name: a\n'
  )
  modules = taxonomy.read(path)
  assert [(m.name, m.level) for m in modules] == [('a', 0), ('b', 1), ('c', 2)]
  assert modules[1].description == 'the second'
  assert modules[0].description == 'a'


@pytest.mark.parametrize(
  ('content', 'message'),
  [
    ('modules: []', 'wanted a list'),
    ('- a', 'wanted a list'),
    ('modules: [{nam: a}]', 'with a name'),
    ('modules: [{name: a, needs: [b]}]', "got \\['needs'\\]"),
    ('modules: [{name: a, prerequisites: b}]', 'list of prerequisites'),
    ('modules: [{name: a, prerequisites: [b]}]', 'which is not a module'),
    ('modules: [{name: a}, {name: a}]', 'is there twice'),
    (
      'modules: [{name: a, prerequisites: [b]}, {name: b, prerequisites: [a]}]',
      'in a circle: ',
    ),
    ('modules: {a: [', 'not YAML'),
    ('modules: [{name: a, 5: b, c: d}]', r"got \['5', 'c'\]"),
    ('modules: [{name: a, [b]: c}]', 'unhashable key'),
    ('modules: [{name: [a]}]', 'with a name'),
    ('modules: [{name: a, prerequisites: [[b]]}]', 'not one line of text'),
    ('modules: [{name: "a\\e[2J"}]', 'not one line of text'),
    ('modules: [{name: "a\\u202eb"}]', 'not one line of text'),
    (
      'a: &a [x, x]\nmodules: [{name: b, prerequisites: *a}]',
      't.yaml:2: an alias',
    ),
    ('modules: ' + '[' * 900, 'nested deeper than 8'),
    ('? ' * 50_000, 'nested deeper than 8'),
    ('[' * 100_000, 'nest'),
    ('#' * 1_000_001, 'a taxonomy has at most 1000000'),
    ('modules: [{name: a}]\n---\nb: c', 'not YAML'),
    ('\0', 'not YAML'),
  ],
)
def test_a_bad_taxonomy_is_named(tmp_path, content, message):
  path = tmp_path / 't.yaml'
  path.write_text(content)
  with pytest.raises(text.DomainError, match=message) as caught:
    taxonomy.read(path)
  assert '\n' not in str(caught.value) and len(str(caught.value)) < 500
  with pytest.raises(text.DomainError, match='no such file'):
    taxonomy.read(tmp_path / 'absent.yaml')


def test_a_taxonomy_of_aliases_cannot_hang(tmp_path):
  """Nine times nine, eight times over: a billion prerequisites."""
  rows = ['a0: &a0 [x, x, x, x, x, x, x, x, x]']
  for n in range(9):
    rows.append(f'a{n + 1}: &a{n + 1} [{", ".join([f"*a{n}"] * 9)}]')
  path = tmp_path / 't.yaml'
  path.write_text(
    '\n'.join([*rows, 'modules: [{name: b, prerequisites: *a9}]'])
  )
  start = time.monotonic()
  with pytest.raises(text.DomainError, match='an alias'):
    taxonomy.read(path)
  assert time.monotonic() - start < 20  # Not the hours that they would take.


def test_values_of_a_taxonomy_are_text(tmp_path):
  path = tmp_path / 't.yaml'
  path.write_text(
    'modules:\n- name: 2020-13-45\n  description:\n  prerequisites: null\n'
    '- {name: yes, description: 5, prerequisites: [2020-13-45]}\n'
  )
  modules = taxonomy.read(path)
  assert [(m.name, m.description, m.prerequisites) for m in modules] == [
    ('2020-13-45', '2020-13-45', ()),
    ('yes', '5', ('2020-13-45',)),
  ]
  taxonomy.write(path, modules)
  assert taxonomy.read(path) == modules


@pytest.mark.parametrize(
  ('value', 'read'),
  [
    (42, '42'),
    (2.5, '2.5'),
    (5.0, '5'),
    (-0.125, '-0.125'),
    (-0.0, '0'),
    (10**30, '1' + '0' * 30),
    (1e20, '100000000000000000000'),
    (1e-7, '0.0000001'),
    (np.int64(7), '7'),
    (np.float32(2.1), '2.1'),
    (decimal.Decimal('3.10'), '3.1'),
    ('1,000', '1,000'),
  ],
)
def test_an_answer_may_be_a_number(value, read):
  given = [(w, r | {'final': value}) for w, r in rows(50)]
  domain = make(given, columns=COLUMNS | {'answer': 'final'})
  assert {p.answer for p in domain.probes('gate', '')} == {read}


@pytest.mark.parametrize(
  'value',
  [True, None, float('nan'), float('inf'), 1e200, [1], {'text': ['1']}, 1j],
)
def test_what_is_no_answer_is_named_with_its_column(value):
  given = [(w, r | {'final': value}) for w, r in rows(50)]
  with pytest.raises(text.DomainError, match="f:0: column 'final'") as caught:
    make(given, columns=COLUMNS | {'answer': 'final'})
  assert '\n' not in str(caught.value)


def test_an_answer_needs_no_solution_beside_it():
  given = [
    (w, {'unit': 'a/b', 'question': r['question'], 'final': n})
    for n, (w, r) in enumerate(rows(50))
  ]
  columns = COLUMNS | {'solution': '', 'answer': 'final'}
  domain = make(given, columns=columns)
  (probe, *_) = domain.probes('gate', '')
  assert probe.reference == f'The answer is {probe.answer}.'
  assert domain.score(probe.reference, probe.answer) == 1.0
  assert all(s.solution == '' for s in domain.seeds('a/b', 99))
  with pytest.raises(text.DomainError, match='nothing says what is right'):
    make(given, columns=columns | {'answer': ''})


# Values of every shape that YAML and JSON have, around the keys that count.
_KEYS = st.sampled_from(
  [
    'name',
    'description',
    'prerequisites',
    'modules',
    'unit',
    'question',
    'worked',
    'x',
  ]
)
_VALUES = st.recursive(
  st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
  lambda inner: (
    st.lists(inner, max_size=4)
    | st.dictionaries(_KEYS | st.text(max_size=3), inner, max_size=4)
  ),
  max_leaves=20,
)
_YAML = st.text('[]{}:-,&*!|>?#\'"% \n\tab1~<', max_size=60) | _VALUES.map(
  lambda value: yaml.dump({'modules': value})
)
_FUZZ = hypothesis.settings(
  deadline=2000,
  max_examples=200,
  suppress_health_check=[hypothesis.HealthCheck.function_scoped_fixture],
)


def assert_value_or_one_line(function, *arguments):
  try:
    function(*arguments)
  except ValueError as e:
    assert str(e) and '\n' not in str(e)


@pytest.mark.slow
@_FUZZ
@hypothesis.given(content=_YAML | st.binary(max_size=60))
def test_any_taxonomy_is_modules_or_one_line(tmp_path, content):
  path = tmp_path / 't.yaml'
  data = (
    content
    if isinstance(content, bytes)
    else content.encode(errors='surrogatepass')
  )
  path.write_bytes(data)
  assert_value_or_one_line(taxonomy.read, path)


@pytest.mark.slow
@_FUZZ
@hypothesis.given(
  content=st.lists(_VALUES, max_size=3).map(
    lambda values: '\n'.join(map(json.dumps, values)).encode()
  )
  | st.binary(max_size=60),
  name=st.sampled_from(
    ['s.jsonl', 's.json', 's.csv', 's.jsonl.gz', 's.parquet']
  ),
)
def test_any_file_of_seeds_is_a_domain_or_one_line(tmp_path, content, name):
  (tmp_path / name).write_bytes(content)

  def read():
    found = seed_sources.read('file', str(tmp_path / name), 'train', ())
    make(found, min_probes=1)

  assert_value_or_one_line(read)


@pytest.mark.slow
@_FUZZ
@hypothesis.given(
  values=st.lists(st.dictionaries(_KEYS, _VALUES, max_size=5), max_size=5)
)
def test_any_rows_are_a_domain_or_one_line(values):
  rows_ = [(f'f:{n}', row) for n, row in enumerate(values)]
  assert_value_or_one_line(lambda: make([*rows(50), *rows_]))


@pytest.mark.parametrize(
  ('row', 'message'),
  [
    ({'question': None}, "f:0: column 'question' is missing or no text"),
    ({'worked': ' '}, "column 'worked' is missing or no text"),
    ({'worked': 'So it is.'}, 'finds no final answer'),
    ({'unit': 5}, 'domain.columns.module names the one'),
    ({'worked': '#### 1/0'}, "'1/0' is not an answer"),
    ({'question': 'Add \ud800.'}, "column 'question' holds half a character"),
  ],
)
def test_a_bad_seed_is_named(row, message):
  bad = rows(50)
  bad[0] = ('f:0', bad[0][1] | row)
  with pytest.raises(text.DomainError, match=message):
    make(bad)


def test_too_few_probes_and_unknown_tags_are_refused(tmp_path):
  with pytest.raises(text.DomainError, match="'a/b' has 9 seeds, so 1 gate"):
    make(rows(9))
  path = tmp_path / 't.yaml'
  path.write_text('modules: [{name: a/c}]')
  with pytest.raises(text.DomainError, match=r"tagged \['a/b'\]"):
    make(rows(50), path)


@pytest.mark.parametrize(
  ('kind', 'answer', 'other'),
  [
    ('number', '1,234', '1235'),
    ('number', '-0.5', '0.5'),
    ('maths', '\\frac{1}{2}', '\\frac{1}{3}'),
    ('choice', 'B', 'C'),
    ('last_line', 'Paris', 'London'),
  ],
)
def test_every_grader_reads_its_own_closing_line(kind, answer, other):
  grader = final_answers.KINDS[kind]()
  lesson = f'First, think of {other}.\n{grader.closing(answer)}'
  assert grader.is_correct(lesson, answer)
  assert not grader.is_correct(lesson, other)
  assert grader.find(lesson).strip() == answer
  assert not grader.is_correct('', answer)


MBPP = 'assert double(2) == 4\nassert double(-1) == -2'


@pytest.fixture(scope='module')
def code():
  try:
    return final_answers.Code()
  except sandbox.SandboxUnavailable as e:
    pytest.skip(str(e))


@pytest.mark.parametrize(
  ('body', 'right'),
  [
    ('return 2 * x', 1.0),
    ('return x + 2', 0.0),
    ('import os; os._exit(0)', 0.0),
    ('return', 0.0),
  ],
)
def test_code_is_right_if_it_passes_its_tests(code, body, right):
  text = f'It doubles.\n```python\ndef double(x):\n  {body}\n```'
  assert code.score(text, MBPP) == right
  assert code.score('I cannot.', MBPP) == 0.0


@pytest.mark.parametrize(
  ('tests', 'fits', 'proves'),
  [
    (MBPP, True, True),
    ('assert double(0) == 0', True, False),  # So is a function of zero.
    ('assert double(3)', True, False),
    ('assert double(2) == 4 or True', True, False),
    ('import math\nassert math.isclose(double(0.75), 1.5)', True, True),
    ('assert 4 == 4', False, None),
    ('assert double(2) ==', False, None),
    ('import os\nos.remove(double(1))', False, None),
    ('double = lambda x: 4\nassert double(2) == 4', False, None),
    ('', False, None),
  ],
)
def test_tests_that_prove_nothing_are_told(code, tests, fits, proves):
  assert code.fits(tests) is fits
  if fits:
    assert code.proves(code.key('', tests)) is proves
  else:
    with pytest.raises(ValueError, match='no assertion calls'):
      code.score('x', tests)


def test_a_function_that_shadows_a_builtin_is_the_candidates(code):
  tests = 'assert sum([1, 2]) == 12'
  assert code.score('```\ndef sum(x):\n  return 12\n```', tests) == 1.0


def test_open_answers_have_a_share_of_the_score():
  grader = final_answers.RougeL()
  assert grader.score('the cat sat on the mat', 'the cat sat') == (
    pytest.approx(2 * 0.5 * 1 / 1.5)  # Precision 3/6, recall 3/3.
  )
  assert grader.completion(['First, think.'], 'A cat.') == 'A cat.'
  assert grader.is_correct('the cat sat on the mat', 'the cat sat')
  assert not grader.is_correct('dogs', 'the cat sat')
  assert not grader.fits('?!')


def test_untagged_seeds_are_sent_to_map_seeds():
  bare = [(w, {k: v for k, v in r.items() if k != 'unit'}) for w, r in rows(50)]
  with pytest.raises(text.DomainError, match=r'is missing.*map_seeds\.py'):
    make(bare)
  with pytest.raises(text.DomainError, match=r'is empty.*map_seeds\.py'):
    make(rows(50), columns=COLUMNS | {'module': ''})


def test_records_of_the_domain_are_json():
  probe = make(rows(50)).probes('gate', '')[0]
  assert json.loads(probe.to_json())['reference'].startswith('Add.')
