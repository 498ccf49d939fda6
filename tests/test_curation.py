"""Curation: what is dropped, on which evidence, and at what cost.

The full size, with time and memory:

  python -m tests.test_curation 100000
"""

from collections import Counter
import functools
import random
import resource
import sys
import time

from hypothesis import given, settings
from hypothesis import strategies as st
import pytest

from ioa_jax.adapter import curation
from tests import lessons as lessons_lib

pytest.importorskip('datasketch', reason='needs the extra "eval"')

PROBE = (
  'A farmer has 12 cows and 15 goats and sells 4 of the cows at the market; '
  'how many animals are left?'
)


def lesson(problem, completion='The answer is 7.', **lineage):
  return lessons_lib.lesson(problem, completion, lineage=lineage)


def count_tokens(text):
  return len(text.split())


def curate(lessons, **arguments):
  limits = {'min_tokens': 2, 'max_tokens': 50} | arguments
  return curation.curate(lessons, count_tokens=count_tokens, **limits)


def test_every_rejection_is_counted_with_its_evidence():
  lessons = [
    lesson('How many legs have three dogs and two birds?', request='first'),
    lesson('  '),
    lesson('why', completion='?', request='short'),
    lesson('word ' * 60),
    lesson('HOW many legs have three dogs, and two birds'),
    lesson('Think: ' + PROBE),
    lesson('What is asked?', completion=f'Solve it. {PROBE}'),
    lesson('How many wings have three dogs and two birds?'),
  ]
  kept, rejected = curate(
    lessons,
    min_tokens=3,
    contamination=curation.Contamination({'probes': [PROBE]}),
    near_duplicates=curation.NearDuplicates(),
  )
  assert kept == [lessons[0], lessons[7]]
  assert [(r.index, r.reason) for r in rejected] == [
    (1, 'empty'),
    (2, 'too_short'),
    (3, 'too_long'),
    (4, 'near_duplicate'),
    (5, 'contaminated'),
    (6, 'contaminated'),
  ]
  assert rejected[2].evidence == '64 tokens'
  assert rejected[3].evidence == 'first'
  assert rejected[4].evidence == ('probes: a farmer has 12 cows and 15 goats')


def test_duplicates_are_remembered_across_calls_and_rejects_are_not():
  seen = curation.NearDuplicates()
  text = 'Add the two numbers three hundred and four hundred'
  _, rejected = curate([lesson(text)], max_tokens=3, near_duplicates=seen)
  assert rejected[0].reason == 'too_long'
  assert curate([lesson(text)], near_duplicates=seen)[1] == []
  assert len(curate([lesson(text)], near_duplicates=seen)[1]) == 1


def test_a_threshold_of_one_keeps_what_differs_in_a_number():
  text = 'A train goes {} miles in {} hours; how fast does it go on average?'
  numbers = [(60, 2), (60, 3), (60, 2), (80, 2)]
  lessons = [lesson(text.format(*n)) for n in numbers]
  strict = curation.NearDuplicates(threshold=1.0)
  kept, _ = curate(lessons, near_duplicates=strict)
  assert [lessons.index(k) for k in kept] == [0, 1, 3]
  loose = curation.NearDuplicates(threshold=0.5)
  assert len(curate(lessons, near_duplicates=loose)[0]) == 1


@pytest.mark.parametrize(
  ('one', 'other'),
  [
    ('Compute 12 + 5.', 'Compute 12 - 5.'),
    ('Compute 12 * 5.', 'Compute 12 / 5.'),
    ('Solve x + 3 = 7 for x.', 'Solve x \u2212 3 = 7 for x.'),
    ('Solve |x| < 3.', 'Solve |x| > 3.'),
    ('Is 3 <= x?', 'Is 3 < x?'),
    ('What is (2 + 3) * 4?', 'What is 2 + 3 * 4?'),
    ('What is -5 + 8?', 'What is 5 + 8?'),
    ('What is 1.5 of 10?', 'What is 1/5 of 10?'),
    ('What is 1.5 of 10?', 'What is 15 of 10?'),
    (
      r'Simplify $\\frac{3}{4}+\\frac{1}{2}$.',
      r'Simplify $\\frac{3}{4}-\\frac{1}{2}$.',
    ),
    ('Return a < b of f(a, b).', 'Return a > b of f(a, b).'),
    ('What is 5\u00b2?', 'What is 52?'),
    ('What is x\u00b2?', 'What is x\u00b3?'),
    ('What is 5! of all?', 'What is 5 of all?'),
    ("Find f'(2) of it.", 'Find f(2) of it.'),
    ('What is 20% of 50?', 'What is 20 of 50?'),
    ('Share it in 3:2 parts.', 'Share it in 3, 2 parts.'),
    ('-x is asked here', 'x is asked here'),
    ('Return !x of it.', 'Return x of it.'),
    ('Write i++ in C.', 'Write i-- in C.'),
    ('Is p && q true?', 'Is p || q true?'),
    ('Give 10^-3 in words.', 'Give 10^3 in words.'),
    ('Is x in [0, 1) here?', 'Is x in (0, 1] here?'),
    ('Count: \U0001f34e\U0001f34e', 'Count: \U0001f34e\U0001f34e\U0001f34e'),
    # Vowels are marks in Hindi, and Thai has no blanks.
    (
      '\u0915\u093f\u0924\u093e\u092c \u0915\u0939\u093e\u0901?',
      '\u0915\u0924\u092c \u0915\u0939?',
    ),
    (
      '\u0e2a\u0e32\u0e21\u0e1a\u0e27\u0e01\u0e2a\u0e35\u0e48',
      '\u0e2a\u0e32\u0e21\u0e25\u0e1a\u0e2a\u0e35\u0e48',
    ),
  ],
)
def test_what_makes_another_problem_is_no_duplicate(one, other):
  for threshold in (0.8, 1.0):
    seen = curation.NearDuplicates(threshold=threshold)
    assert seen.add('one', one) is None
    assert seen.add('other', other) is None
    assert seen.add('again', one) == 'one'


@pytest.mark.parametrize(
  ('one', 'other'),
  [
    ('What is 3 + 4?', 'what is  3+4'),
    ('What is 3 * 4?', r'What is $3 \\times 4$?'),
    ('What is 3 - 4?', 'What is 3\u22124'),
    ('Take 0.50 of them', 'Take .5 of them'),
    ('It costs 1,234.50 euros', 'It costs **1234.5** euros!'),
    ('She has 4 cats \u2014 and a dog.', 'She has four cats, and a dog'),
    (
      'A well-known list:\n- 5 apples\n- 6 pears',
      'a well known list: 5 apples, 6 pears',
    ),
    ('Ist 5 gr\u00f6\u00dfer?', 'IST 5 GR\u00d6SSER'),
  ],
)
def test_typography_makes_no_other_problem(one, other):
  seen = curation.NearDuplicates(threshold=1.0)
  seen.add('one', one)
  assert seen.add('other', other) == 'one'


def test_repeats_are_of_what_is_handed_in():
  """Whatever was asked before, as if it were asked of a new one."""
  texts = [f'Word{i} has {i} cats and a dog in house {i}' for i in range(6)]
  lessons = [lesson(t, request=str(i)) for i, t in enumerate(texts)]
  repeats = curation.Repeats(0.8)
  rng = random.Random(0)
  for _ in range(30):
    earlier = rng.sample(lessons, rng.randrange(7))
    kept, _ = curate(lessons, near_duplicates=repeats.of(earlier))
    assert kept == [x for x in lessons if x not in earlier]


@functools.cache
def _grams(text):
  words = curation.words(text)
  return {' '.join(words[i : i + 3]) for i in range(len(words) - 2)}


def _jaccard(a, b):
  both = len(_grams(a) & _grams(b))
  return both / (len(_grams(a)) + len(_grams(b)) - both)


def test_near_duplicates_agree_with_every_pair_compared():
  """The index against the quadratic definition, on texts with many repeats."""
  rng = random.Random(0)
  vocabulary = [f'w{i}' for i in range(500)]
  texts = []
  for _ in range(300):
    if texts and rng.random() < 0.5:
      tokens = rng.choice(texts).split()
      for _ in range(rng.randrange(4)):
        tokens[rng.randrange(len(tokens))] = rng.choice(vocabulary)
    else:
      tokens = rng.choices(vocabulary, k=40)
    texts.append(' '.join(tokens))
  seen = curation.NearDuplicates(threshold=0.8)
  kept, missed = [], 0
  for text in texts:
    earlier = seen.add(text, text)
    expected = any(_jaccard(text, k) >= 0.8 for k in kept)
    if earlier is not None:
      assert _jaccard(text, earlier) >= 0.8  # No false alarm, ever.
      continue
    missed += expected
    kept.append(text)
  assert len(kept) < 250 and missed <= 5


@pytest.mark.parametrize(
  ('problem', 'found'),
  [
    ('a FARMER has 12 cows — and 15 goats!', True),
    ('A farmer has 12 cows and 16 goats and sells 4 of them', False),
    ('What is 3 + 4?', True),  # A short item counts as a whole problem
    ('Tell me, what is 3 + 4?', False),  # and not as a part of one.
    ('', False),
  ],
)
def test_contamination(problem, found):
  checker = curation.Contamination({'a': [PROBE], 'b': ['what is 3+4', '']})
  assert (checker.find(problem) is not None) is found


def test_overlap_does_not_cross_from_problem_to_completion():
  checker = curation.Contamination({'a': ['one two three four five six']})
  assert checker.find('one two three', 'four five six') is None
  assert checker.find('x', 'one two three four five six') is not None


def test_scripts_without_spaces_are_compared_too():
  probe = '農夫は牛を十二頭とヤギを十五頭飼っています'
  checker = curation.Contamination({'a': [probe]})
  assert checker.find(f'問題。{probe}。') is not None


@settings(deadline=None)  # A busy machine is no failure.
@given(st.text())
def test_any_text_is_its_own_duplicate(text):
  seen = curation.NearDuplicates()
  assert seen.add('a', text) is None
  assert seen.add('b', text) == 'a'


@pytest.mark.parametrize(
  'text',
  ['-' * 200_000, '* ' * 100_000, '**a' * 9_000, '(' * 200_000, '1,' * 15_000]
  + ['9' * 200_000, '\u0301' * 200_000, ' \n' * 100_000, '\\le' * 50_000],
  ids=lambda text: repr(text[:3]),
)
def test_a_hostile_text_takes_no_time(text):
  start = time.monotonic()
  checker = curation.Contamination({'probes': [PROBE, text]})
  checker.find(text + ' a', text)
  curation.NearDuplicates().add('a', text)
  assert time.monotonic() - start < 10  # A busy machine; alone it takes 2.


def test_arguments_are_checked():
  with pytest.raises(ValueError, match=r'threshold 0 not in \(0, 1\]'):
    curation.NearDuplicates(threshold=0)
  with pytest.raises(ValueError, match='min_words 9'):
    curation.Contamination({}, min_words=9)


def measure(count):
  """(seconds, bytes at most, kept) of curating `count` made-up lessons."""
  rng = random.Random(0)
  vocabulary = [f'word{i}' for i in range(20_000)]
  probes = [' '.join(rng.choices(vocabulary, k=60)) for _ in range(3000)]
  lessons = []
  for i in range(count):
    if i % 10 == 1:  # A near-duplicate.
      tokens = lessons[-1].problem.split()
      tokens[5] = 'changed'
    elif i % 100 == 2:  # A leak.
      tokens = rng.choice(probes).split()
    else:
      tokens = rng.choices(vocabulary, k=60)
    completion = ' '.join(rng.choices(vocabulary, k=90))
    lessons.append(lesson(' '.join(tokens), completion))
  start = time.monotonic()
  kept, rejected = curate(
    lessons,
    max_tokens=1000,
    contamination=curation.Contamination({'probes': probes}),
    near_duplicates=curation.NearDuplicates(),
  )
  seconds = time.monotonic() - start
  peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
  assert len(kept) + len(rejected) == count
  reasons = Counter(r.reason for r in rejected)
  assert reasons['contaminated'] == count // 100
  assert 0.97 <= reasons['near_duplicate'] / (count // 10) <= 1
  return seconds, peak, len(kept)


@pytest.mark.slow
def test_duplicates_and_leaks_are_found_among_thousands():
  seconds, _, kept = measure(5000)
  assert 4400 <= kept <= 4500
  print(f'5,000 lessons: {seconds:.1f} s')


if __name__ == '__main__':
  seconds, peak, kept = measure(int(sys.argv[1]))
  print(
    f'{sys.argv[1]} lessons, {kept} kept: {seconds:.1f} s, '
    f'{peak / 2**20:.0f} MiB at most'
  )
