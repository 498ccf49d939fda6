"""Levels that are asked for, against the sizes of what is examined."""

from collections import Counter
import re
import statistics

from hypothesis import given
from hypothesis import strategies as st
import pytest

from ioa_jax.adapter import Level, levels
from ioa_jax.domains import text
from ioa_jax.evaluation import final_answers
from ioa_jax.records import DIFFICULTIES
from tests import test_text_lessons
from tests.test_text_domain import COLUMNS

NO_SIZES = levels.Scale(())


def problem(number):
  return f'Ann has {number:,} red apples and eats 1 of them. How many?'


@pytest.mark.parametrize(
  'written,size',
  [
    ('Ann has 51 apples and gets 3 more.', 51),
    ('1,250 cups at 2.75 each', 1250),
    ('Half of 0.5', 0.5),
    ('What is a verb?', None),
  ],
)
def test_the_size_of_a_problem_is_its_largest_number(written, size):
  assert levels.size(written) == size


@given(
  st.sampled_from(['stage', 'rehearsal', 'remedial']),
  st.integers(1, 60),
  st.none() | st.floats(0, 1),
)
def test_any_number_of_lessons_reaches_what_is_examined(kind, count, score):
  """From the student's level to the hardest, all alike."""
  wanted = levels.wanted(kind, Level(score), NO_SIZES, count)
  assert len(wanted) == count
  stands = DIFFICULTIES.index(
    levels.wanted('bridging', Level(score), NO_SIZES, 1)[0]
  )
  lowest = DIFFICULTIES[0 if kind == 'rehearsal' else stands]
  assert set(wanted) <= set(DIFFICULTIES[DIFFICULTIES.index(lowest) :])
  if count > 1:
    assert {lowest, 'advanced'} <= set(wanted)
  counts = Counter(wanted)
  if count >= 3:
    expected = DIFFICULTIES[DIFFICULTIES.index(lowest) :]
    assert set(counts) == set(expected)
    assert max(counts.values()) - min(counts.values()) <= 1


@given(st.lists(st.integers(0, 10**6), min_size=1, max_size=80))
def test_the_levels_share_the_sizes_of_the_problems(sizes):
  """Each problem is within its level; the levels climb, and leave no gap."""
  scale = levels.Scale.of([problem(n) for n in sizes])
  # "eats 1" is a number as well.
  sizes = [max(n, 1) for n in sizes]
  assert list(scale.bounds) == sorted(scale.bounds)
  assert (scale.bounds[0], scale.bounds[-1]) == (min(sizes), max(sizes))
  for n in sizes:
    place = DIFFICULTIES.index(scale.level(problem(n)))
    assert scale.bounds[place] <= n <= scale.bounds[place + 1]
  if len(set(sizes)) == len(sizes):
    held = Counter(scale.level(problem(n)) for n in sizes)
    assert max(held.values()) <= len(sizes) // 3 + 1


@given(st.lists(st.integers(1, 99), min_size=1, max_size=3), st.integers(1, 9))
def test_a_remedy_is_as_large_as_what_failed(failed, count):
  scale = levels.Scale((1, 33, 66, 99))
  wrong = [{'prompt': problem(n), 'answer': '', 'student': ''} for n in failed]
  wanted = levels.wanted('remedial', Level(0.0, wrong), scale, count)
  assert len(wanted) == count
  assert set(wanted) <= {scale.level(problem(n)) for n in failed}
  if count >= len(failed):
    assert set(wanted) == {scale.level(problem(n)) for n in failed}


def test_problems_without_numbers_have_levels_in_words_alone():
  scale = levels.Scale.of(['What is a verb?', 'Name 2 nouns.', 'Spell cat.'])
  assert scale == NO_SIZES and scale.level('Name 2 nouns.') is None
  assert scale.difficulty('advanced').says == 'advanced'
  # What failed has no size, so the whole range is asked for.
  wrong = [{'prompt': 'What is a verb?', 'answer': '', 'student': ''}]
  wanted = levels.wanted('remedial', Level(0.1, wrong), scale, 3)
  assert set(wanted) == set(DIFFICULTIES)


def asked(adapter, kind, score=None, wrong=()):
  """Middles of the ranges that requests name, smallest first."""
  items = adapter.plan('a/b', kind, stage=0, round=1, level=Level(score, wrong))
  found = [
    re.search(r'number is between ([\d.]+) and ([\d.]+)', i.request.prompt)
    for i in items
  ]
  return sorted((float(m[1]) + float(m[2])) / 2 for m in found)


@pytest.mark.parametrize('each', [1, 2, 3, 10])
def test_requests_differ_by_kind_in_what_they_ask_for(each, monkeypatch):
  """Against the probes' own sizes, for any number of items of a seed."""
  rows = [
    {'q': problem(n), 's': f'First.\n#### {n - 1}', 'm': 'a/b'}
    for n in range(2, 102)
  ]
  columns = {'problem': 'q', 'solution': 's', 'answer': '', 'module': 'm'}
  assert set(columns) == set(COLUMNS)
  domain = text.TextDomain(
    [(f'line {i}', row) for i, row in enumerate(rows)],
    None,
    columns=columns,
    grader=final_answers.Number(),
    min_probes=2,
    max_probes=99,
  )
  monkeypatch.setattr(
    test_text_lessons,
    'AMOUNTS',
    test_text_lessons.Amounts(
      seeds_per_module=9,
      items_per_seed=each,
      rehearsal_items_per_seed=each,
      remedial_items_per_seed=each,
    ),
  )
  adapter = test_text_lessons.adapter(domain=domain)
  probes = [levels.size(p.prompt) for p in domain.probes('gate', '')]
  middle = statistics.median(probes)
  stage = asked(adapter, 'stage')
  assert len(stage) == 9 * each
  assert abs(statistics.median(stage) - middle) < 25
  # A gate probe of each third is within a range that is asked for.
  assert stage[0] < 34 < stage[len(stage) // 2] < 68 < stage[-1]
  (seed,) = [s for s in domain.seeds('a/b', 99) if levels.size(s.problem) == 51]
  wrong = [{'prompt': seed.problem, 'answer': '50', 'student': '9'}]
  assert all(abs(x - 51) < 20 for x in asked(adapter, 'remedial', 0.1, wrong))
  # One notch above what the student can do, and it climbs with the student.
  bridges = [asked(adapter, 'bridging', score) for score in (0.1, 0.6, 0.9)]
  assert all(len(set(bridge)) == 1 for bridge in bridges)
  assert bridges[0] < bridges[1] < bridges[2]
