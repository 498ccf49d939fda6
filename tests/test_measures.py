"""Measures of adaptation, on texts that are counted by hand."""

import json

from ioa_jax.adapter import measures
from ioa_jax.records import Seed
from ioa_jax.report import facts, page, read
from tests import lessons as lessons_lib


def lesson(problem, steps):
  return lessons_lib.lesson(
    problem,
    '',
    solution={'steps': steps},
    flags={
      'concretization': True,
      'decomposition': True,
      'simplified_language': True,
    },
  )


def value(sums):
  return {k: (v['sum'], v['n']) for k, v in sums.items()}


def test_each_measure_counts_what_its_name_says():
  got = value(
    measures.of_lessons(
      [
        lesson(
          'Imagine 3 hens. Buy 1,200 more!',
          ['First, add 3 and 1200.', 'So it is 1203.'],
        ),
        lesson('What is 7?', ['Therefore, it is 7.']),
      ],
      frozenset(['is', 'it', 'and', 'what']),
    )
  )
  # imagine hens / buy more / first add and / so it is / what is / therefore
  # it is: 15 words in six sentences, 8 of them not common.
  assert got == {
    'steps': (3, 2),
    'words': (15, 6),
    'rare words': (8, 15),
    'digits': (6, 3),
    'numbers': (3, 2),
    'template': (2, 3),
    'analogies': (1, 2),
  }


def test_a_seed_without_a_solution_has_no_steps_to_count():
  seeds = [Seed('m', 'Add 2.', '2'), Seed('m', 'Add 3.', '3', 'Add.\n\nIt is.')]
  got = value(measures.of_seeds(seeds, frozenset()))
  assert got['steps'] == (2, 1) and got['template'] == (0, 2)


def test_common_words_cover_nine_tenths_of_the_seeds():
  seeds = [Seed('m', 'a ' * 60 + 'b ' * 31 + 'c ' * 6 + 'd e f', '')]
  common = measures.common_words(seeds)
  assert common == {'a', 'b'}
  got = measures.of_seeds(seeds, common)['rare words']
  assert got['sum'] / got['n'] <= 0.1
  # Among equally frequent words the name decides, and not their order.
  assert measures.common_words([Seed('m', 'z y x', '')]) == (
    measures.common_words([Seed('m', 'x z y', '')])
  )


def event(seeds, lessons, common):
  return {
    'event': 'supply',
    'step': 0,
    'stage': 0,
    'kind': 'stage',
    'modules': ['m'],
    'lessons': len(lessons),
    'rejected': {},
    'untaught': [],
    'teacher_tokens': 1,
    'measures': {
      'seeds': measures.of_seeds(seeds, common),
      'lessons': measures.of_lessons(lessons, common),
    },
  }


def test_the_report_shows_seeds_beside_lessons(tmp_path):
  seeds = [Seed('m', 'Add 4000 and 5000.', '9000', 'It is 9000.')]
  first = [lesson('Add 4 and 5.', ['First, 4.', 'Therefore, 9.'])]
  second = [lesson('Add 1 and 2.', ['First, 1.', 'Next, 2.', 'Next, 3.', '3.'])]
  lines = [event(seeds, first, frozenset()), event(seeds, second, frozenset())]
  (tmp_path / 'metrics.jsonl').write_text(
    ''.join(json.dumps(x) + '\n' for x in lines)
  )
  (tmp_path / 'lessons.jsonl').write_text(
    ''.join(x.to_json() + '\n' for x in first + second)
  )
  rows = {r['unit']: r for r in facts.adaptation(read.read(tmp_path))}
  steps = rows['steps per solution']
  assert (steps['seeds'], steps['lessons']) == (1, 3)
  digits = rows['digits per number of the problem']
  assert (digits['seeds'], digits['lessons']) == (4, 1)
  assert rows['steps that open with First, Next, ...']['lessons'] == 5 / 6
  html = page.write(tmp_path).read_text()
  assert 'digits per number of the problem' in html and '4.00' in html
