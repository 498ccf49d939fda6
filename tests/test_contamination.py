"""Leaks that are found, and honest lessons that pass.

On published data, with planted copies and paraphrases, as a table:

  python -m tests.test_contamination
"""

import random
import re

import pytest

from ioa_jax.adapter import contamination
from ioa_jax.adapter import words as words_lib
from ioa_jax.adapter.contamination import Contamination
from ioa_jax.runtime import row_files
from tests.outside import DATA

CUPS = 'Ann has 4 red cups and 3 blue cups'
FARMER = (
  'A farmer has 12 cows and 15 goats and sells 4 of the cows at the market; '
  'how many animals are left?'
)
SUM = 'Solve the problem and give the answer as a number: {}'
CAPITAL = (
  'Which of the following is the capital of {}? (A) Rome (B) {} (C) Oslo (D) '
  'Bern'
)


@pytest.mark.parametrize(
  ('item', 'lesson', 'leaks'),
  [
    # Signs, comparisons, brackets and points make another problem.
    ('What is 3 + 4?', 'what is 3+4', True),
    ('What is 3 + 4?', 'What is 3 - 4?', False),
    ('Compute 12 * 5.', 'Compute 12 / 5.', False),
    ('Compute 12 * 5.', r'Compute $12 \times 5$.', True),
    ('Solve 3x + 5 = 20 for x.', 'Solve 3x - 5 = 20 for x.', False),
    (
      'Solve |x - 2| < 3 over the reals.',
      'Solve |x - 2| > 3 over the reals.',
      False,
    ),
    (
      'What is 1.5 of the 10 coins here?',
      'What is 1/5 of the 10 coins here?',
      False,
    ),
    # A short item counts alone only.
    ('What is 3 + 4?', 'Tim asks: What is 3 + 4? Say it aloud.', False),
    # Clones: other names and things, the same numbers and words.
    (CUPS, 'Tom has 4 red pens and 3 blue pens', True),
    (CUPS, 'Tom has four red pens and three blue pens.', True),
    (CUPS, 'Tom has 4 red pens and 3 blue pens. How many has he?', True),
    (CUPS, 'Tom has 4 red pens and 5 blue pens', False),
    (CUPS, 'Tom has 3 red pens and 4 blue pens', False),
    (CUPS, 'Add 4 and 3, then say which is more.', False),
    (
      'Ann has 4 apples and gets 3 more. How many?',
      'Ben has 4 plums and gets 3 more. How many?',
      True,
    ),
    (
      'Ann has 4 apples and gets 3 more. How many?',
      'Ben has 4 plums and loses 3 of them. How many?',
      False,
    ),
    # Copies, whole and in part, in whatever frame and typography.
    (FARMER, f'Think well. **{FARMER.upper()}** Then explain.', True),
    (FARMER, 'a FARMER has 12 cows — and 15 goats!', True),
    (FARMER, 'A farmer has 12 cows and 16 goats and sells 4 of them', False),
    (
      '農夫は牛を十二頭とヤギを十五頭飼っています',
      '問題。農夫は牛を十二頭とヤギを十五頭飼っています。',
      True,
    ),
    (
      '农夫有12头牛和15只羊, 卖掉了4头牛。还剩几头?',
      '农夫有12头牛和17只羊, 卖掉了5头牛。还剩几头?',
      False,
    ),
    # What stands in many exercises is no leak, even if there is one item only.
    (SUM.format('3 + 4 * 2'), SUM.format('9 - 5'), False),
    (
      CAPITAL.format('France', 'Paris'),
      CAPITAL.format('Spain', 'Madrid'),
      False,
    ),
    (
      CAPITAL.format('France', 'Paris'),
      CAPITAL.format('France', 'Paris'),
      True,
    ),
  ],
)
def test_what_leaks_and_what_does_not(item, lesson, leaks):
  assert (Contamination({'probes': [item]}).find(lesson) is not None) is leaks


def test_leaks_are_found_in_the_completion_too():
  checker = Contamination({'probes': [FARMER]})
  assert checker.find('What is asked?', f'First, {FARMER}') is not None


_TEMPLATES = (
  '{n} has {a} {t} and gets {b} more, then gives {c} of the {t} to a friend. '
  'How many {t} does {n} have now?',
  'A box holds {a} {t}. {n} buys {b} boxes and loses {c} {t}. How many {t} are '
  'left?',
)


def _templated(rng):
  """A problem of a template, and what makes it this problem."""
  key = rng.randrange(2), *(rng.randint(2, 9) for _ in range(3))
  text = _TEMPLATES[key[0]].format(
    n=rng.choice('Ann Tom Eva Bo Kim'.split()),
    t=rng.choice('apples pens cups coins'.split()),
    **dict(zip('abc', key[1:])),
  )
  return text, key


@pytest.mark.parametrize('decided_by', contamination.DECIDED_BY)
def test_in_a_templated_domain_the_numbers_decide(decided_by):
  rng = random.Random(0)
  probes = [_templated(rng) for _ in range(24)]
  checker = Contamination(
    {'probes': [text for text, _ in probes]},
    seeds=[_templated(rng)[0] for _ in range(200)],
    decided_by=decided_by,
  )
  leaked = {key for _, key in probes}
  lessons = [_templated(rng) for _ in range(1000)]
  assert 5 < sum(key in leaked for _, key in lessons) < 100
  for text, key in lessons:
    assert (checker.find(text) is not None) is (key in leaked), text


def test_a_story_of_one_probe_leaks_with_other_numbers_unless_numbers_decide():
  rng = random.Random(0)
  seeds = [_templated(rng)[0] for _ in range(50)]
  clone = FARMER.replace('12', '21').replace('15', '51').replace('4', '14')
  for decided_by, leaks in (('wording', True), ('numbers', False)):
    checker = Contamination(
      {'probes': [FARMER]}, seeds=seeds, decided_by=decided_by
    )
    assert (checker.find(clone) is not None) is leaks
    assert checker.find(FARMER.replace('farmer', 'peasant')) is not None
  # Where a training seed tells the story, lessons may tell it as well.
  checker = Contamination(
    {'probes': [FARMER]},
    seeds=[*seeds, FARMER.replace('12', '22').replace('15', '25')],
  )
  assert checker.find(clone) is None


def test_a_phrase_that_many_items_share_is_no_evidence():
  frame = '{}\nYour code should pass these tests, which are asserts:\n{}'
  words = 'alpha beta gamma delta epsilon zeta eta theta iota kappa'.split()
  rng = random.Random(0)
  make = lambda: frame.format(
    ' '.join(rng.sample(words, 6)), f'assert f({rng.random()})'
  )
  checker = Contamination({'probes': [make() for _ in range(30)]})
  assert not any(checker.find(make()) for _ in range(100))


def test_arguments_are_checked():
  with pytest.raises(ValueError, match="decided by 'luck'"):
    Contamination({}, decided_by='luck')


# What a leak may have gone through; each takes a text and words that are no
# names.
_NAMES = 'Aino Bo Chidi Dara Eero Farah Goro Hana Ivo Jun'.split()
_SPELT = {digits: w for w, digits in words_lib._NUMBER_WORDS.items()}


def _renamed(text, lower, rng):
  new = {}

  def name(match):
    word = match[0]
    if word.lower() in lower:
      return word
    return new.setdefault(word, _NAMES[len(new) % len(_NAMES)])

  return re.sub(r'\b[A-Z][a-z]+\b', name, text)


def _with_other_things(text, lower, rng):
  things = {}
  for word in re.findall(r'\d\s+([a-z]+)', text):
    if word not in contamination._NO_THING:
      things.setdefault(word, f'gadget{"abcdefghij"[len(things) % 10]}')
  return re.sub(
    r'[a-z]+', lambda m: things.get(m[0], m[0]), _renamed(text, lower, rng)
  )


def _reordered(text, lower, rng):
  *told, asked = re.split(r'(?<=[.!?])\s+', text)
  rng.shuffle(told)
  return ' '.join([*told, asked])


def _edited(share):
  def edit(text, lower, rng):
    return ' '.join(
      f'other{rng.randrange(9)}' if w.isalpha() and rng.random() < share else w
      for w in text.split(' ')
    )

  return edit


def _spelt(text, lower, rng):
  number = r'(?<![\d.,])\d+(?![\d.,%])'
  return re.sub(number, lambda m: _SPELT.get(m[0], m[0]), text)


def _with_other_numbers(text, lower, rng):
  return re.sub(r'\d+', lambda m: str(int(m[0]) + rng.randint(1, 9)), text)


CHANGES = {
  'typography': lambda t, lower, rng: t.upper().replace('.', ' !'),
  'embedded': lambda t, lower, rng: (
    f'Read this with care before you begin to write. {t} Then say what you '
    'did, and why, in a few short lines.'
  ),
  'first half': lambda t, lower, rng: (
    ' '.join(t.split(' ')[: t.count(' ') // 2 + 1]) + ' and so on.'
  ),
  'other names': _renamed,
  'other names and things': _with_other_things,
  'numbers spelt': _spelt,
  'sentences reordered': _reordered,
  '10 % of words replaced': _edited(0.1),
  '20 % of words replaced': _edited(0.2),
  '30 % of words replaced': _edited(0.3),
  'other numbers': _with_other_numbers,
}


def _rows(name):
  path = DATA / name
  if not path.exists():
    pytest.skip(f'needs {path}')
  return [row for _, row in row_files.read(path, ())]


def published(name):
  """(items that no lesson may give away, honest lessons, their seeds)."""
  if name == 'gsm8k':
    test = [r['question'] for r in _rows('gsm8k/test.jsonl')]
    train = [r['question'] for r in _rows('gsm8k/train.jsonl.gz')]
    return test, train[:2000], train[2000:]
  if name == 'math':
    texts = [r['problem'] for r in _rows('math/rllm_math_train.json.gz')]
    random.Random(0).shuffle(texts)
    return texts[:500], texts[500:2500], texts[2500:6500]
  rows = _rows('mbpp/mbpp.jsonl')
  test = [r['text'] for r in rows if 11 <= r['task_id'] <= 510]
  train = [r for r in rows if 601 <= r['task_id'] <= 974]
  if name == 'mbpp':
    return test, [r['text'] for r in train], []
  seeds = [  # In the form of scripts/domain_seeds.py.
    f'{r["text"].strip()}\nYour code should pass these tests:\n'
    + '\n'.join(r['test_list'])
    for r in train
  ]
  return seeds[::10], [s for i, s in enumerate(seeds) if i % 10], []


def false_alarms(name, with_seeds=False):
  """(lessons that are flagged and are no item word for word, all lessons)."""
  items, lessons, seeds = published(name)
  checker = Contamination({name: items}, seeds=seeds if with_seeds else ())
  same = {' '.join(words_lib.words(text)) for text in items}
  honest = [x for x in lessons if ' '.join(words_lib.words(x)) not in same]
  return sum(checker.find(x) is not None for x in honest), len(honest)


def found(name, change, number=200):
  """(planted leaks that are found, all that differ from their item)."""
  items, _, _ = published(name)
  checker = Contamination({name: items})
  rng = random.Random(0)
  chosen = rng.sample(items, number)
  made = [CHANGES[change](text, checker._lower, rng) for text in chosen]
  changed = [m for m, text in zip(made, chosen) if m != text]
  return sum(checker.find(m) is not None for m in changed), len(changed)


@pytest.mark.slow
@pytest.mark.parametrize(
  ('name', 'most'),
  [('gsm8k', 0.005), ('math', 0.03), ('mbpp', 0.05), ('mbpp seeds', 0.02)],
)
def test_few_published_training_items_are_taken_for_test_items(name, most):
  alarms, honest = false_alarms(name)
  assert alarms <= most * honest


@pytest.mark.slow
@pytest.mark.parametrize(
  ('change', 'least'),
  [
    ('typography', 0.99),
    ('embedded', 0.99),
    ('other names', 0.99),
    ('other names and things', 0.95),
    ('numbers spelt', 0.99),
    ('sentences reordered', 0.95),
    ('10 % of words replaced', 0.95),
    ('20 % of words replaced', 0.8),
    ('other numbers', 0.95),
  ],
)
def test_planted_word_problems_are_found(change, least):
  hits, planted = found('gsm8k', change)
  assert planted > 100 and hits >= least * planted


if __name__ == '__main__':
  for name in ('gsm8k', 'math', 'mbpp', 'mbpp seeds'):
    for with_seeds in (False, True):
      alarms, honest = false_alarms(name, with_seeds)
      print(f'{name}, {with_seeds=}: {alarms} of {honest} honest ones flagged')
  for name in ('gsm8k', 'math', 'mbpp'):
    for change in CHANGES:
      hits, planted = found(name, change)
      print(f'{name}, {change}: {hits} of {planted} found')
