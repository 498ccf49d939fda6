"""Numbers, maths, choices and overlap: right answers, wrong ones, traps."""

import dataclasses
from fractions import Fraction
import json
import time

from hypothesis import given
from hypothesis import strategies as st
import pytest

from ioa_jax.evaluation import benchmarks, graders, maths, maths_spelling
from tests.outside import DATA, needs_data


@pytest.fixture(scope='module')
def checker():
  pytest.importorskip('math_verify', reason='needs the extra "eval"')
  with maths.Checker() as checker:
    yield checker


@pytest.mark.parametrize(
  ('text', 'value'),
  [
    ('18', 18),
    ('$1,234.50', Fraction('1234.5')),
    ('-3', -3),
    ('−3', -3),
    ('3/4', Fraction(3, 4)),
    ('.5', Fraction(1, 2)),
    ('7.', 7),
    ('5%', 5),
    ('1,23', None),
    ('1,2345', None),
    ('1e9', None),  # An exponent could ask for gigabytes.
    ('٣', None),  # A digit to `\d` and to int(), not to a reader.
    ('3/0', None),
    ('x2', None),
    ('9' * 65, None),
    ('', None),
  ],
)
def test_numbers_are_exact_or_none(text, value):
  assert graders.parse_number(text) == value


@given(st.decimals(allow_nan=False, allow_infinity=False, places=4))
def test_a_number_equals_itself_in_any_spelling(value):
  plain, grouped = f'{value:f}', f'{value:,f}'
  want = Fraction(value)
  if len(plain) <= 60:
    assert graders.parse_number(plain) == want
    assert graders.grade_number(f'it is {grouped}.', plain).correct


@pytest.mark.parametrize(
  ('completion', 'answer'),
  [
    ('2+2=4\n#### 4', '4'),
    ('#### 4\n#### 5', '5'),
    ('so \\boxed{1,000} of 2000', '1,000'),
    ('The answer is 12. I checked it 3 times.', '12'),
    ('She has 3 apples and then 5 apples.', '5'),
    ('#### none, though 7 came close', '7'),
    ('#### unknown\nbut 7', None),
    ('no number', None),
    ('\\boxed{4', None),
  ],
)
def test_the_most_explicit_number_counts(completion, answer):
  assert graders.extract_number(completion) == answer


@needs_data
def test_all_gsm8k_golds_agree_with_themselves_and_with_no_neighbour():
  golds = []
  for line in (DATA / 'gsm8k/test.jsonl').open(encoding='utf-8'):
    answer = json.loads(line)['answer']
    gold = graders.gsm8k_gold(answer)
    assert graders.grade_number(answer, gold).correct
    wrong = str(graders.parse_number(gold) + 1)
    assert not graders.grade_number(answer, wrong).correct
    golds.append(gold)
  assert len(golds) == 1319


def test_a_gold_that_is_no_number_is_an_error():
  with pytest.raises(ValueError, match="'many' is not a number"):
    graders.grade_number('7', 'many')
  with pytest.raises(ValueError, match='no number after ####'):
    graders.gsm8k_gold('it is 7')


@pytest.mark.parametrize(
  ('text', 'content'),
  [
    (r'\boxed{1} and \boxed{2}', '2'),
    (r'\boxed{\frac{1}{2}}', r'\frac{1}{2}'),
    (r'\boxed{\{1, 2\}}', r'\{1, 2\}'),
    (r'\boxed{1} and \boxed{2', None),  # Not the earlier one.
    (r'\boxed 3', None),
    ('', None),
  ],
)
def test_only_the_last_balanced_box_counts(text, content):
  assert graders.last_boxed(text) == content


@pytest.mark.parametrize(
  ('completion', 'letter'),
  [
    ('The answer is (C).', 'C'),
    ('**Answer:** B', 'B'),
    ('Answer: **D**', 'D'),
    (r'so \boxed{\text{B}}', 'B'),
    ('The correct option is B because A fails.', 'B'),
    ('The answer is B, since option A is wrong.', 'B'),
    ('Answer: A\nNo, the answer is D', 'D'),
    ('because of this:\n(B)\n', 'B'),
    ('A cell has walls.', None),  # An article is no choice.
    ('the answer is A or B', None),
    ('A\nB', None),
    ('The answer is Apple.', None),
    ('the answer is not A', None),
    ('the answer is E', None),
    ('', None),
  ],
)
def test_choices(completion, letter):
  assert graders.extract_choice(completion, 'ABCD') == letter


def test_rouge_l_by_hand():
  pytest.importorskip('rouge_score', reason='needs the extra "eval"')
  # The longest common subsequence of (the cat sat) and (the dog sat) is 2 of 3
  # and 3 words: precision = recall = F = 2/3.
  score = graders.rouge_l_stemmed_f('the cat sat', ['the dog sat'])
  assert score == pytest.approx(2 / 3)
  # Stemmed: "runs" is "running". The better of two references counts.
  assert graders.rouge_l_stemmed_f('runs', ['cat', 'running']) == 1.0
  assert graders.rouge_l_stemmed_f('', ['cat']) == 0.0
  with pytest.raises(ValueError, match='no reference'):
    graders.rouge_l_stemmed_f('a', [])


EQUAL = r"""
\frac12|0.5
1\frac12|1.5
\frac{3}{4}|3/4
-\frac{1}{2}|\frac{-1}{2}
2\sqrt{3}|\sqrt{12}
\frac{\sqrt{2}}{2}|\frac{1}{\sqrt2}
\frac{1}{3}|0.333333
1,000|1000
20,\!000|20000
x=5|5
x+1|1+x
\{1,2\}|\{2,1\}
1,2|2,1
\pm 3|-3,3
\text{(A)}|A
\text{even}|even
\text{Tuesday}|tuesday
90^\circ|90
5\text{ cm}|5
5\text{ inches}|5\text{ in}
5\text{ cm}^2|5\text{ square centimeters}
\$5|5\text{ dollars}
1234_5|1234_{5}
10\%|10
\log_2 8|3
x^2-1=0|x^2=1
1|\sin^2 x+\cos^2 x
12|12.
""".strip().split('\n')
# The first five are what math-verify 0.9 alone calls equal.
DIFFERENT = r"""
5\text{ cm}|5\text{ m}
11111_2|11111
\frac{1}{2^{99}}|\frac{1}{2^{98}}
0.0000001|0.0000002
(1,2)|\{1,2\}
(2^{-99},1)|(2^{-98},1)
\frac{x}{2^{99}}|\frac{x}{2^{98}}
11111_2|31
11111_2|11111_3
5\text{ cm}^2|5\text{ cm}^3
5\text{ miles}|5\text{ kilometers}
\$5|5\text{ cents}
90^\circ|90\text{ cm}
(1,2)|[1,2]
(1,2)|(2,1)
1,2|1
5|5,6
5|5\text{ or }6
7|7\pm 1
1\frac{1}{2}|\frac{1}{2}
1,000|1
x=5|y=5
\text{even}|\text{odd}
\text{east}|\text{seat}
3x^2|3x^3
-5|5
\infty|-\infty
x \le 1|x<1
2:3|3:2
10^{20}+1|10^{20}
4.999999999|5
\frac{1}{3}|0.33
5|x
""".strip().split('\n')


@pytest.mark.parametrize('pair', EQUAL)
def test_equivalent_maths(checker, pair):
  gold, answer = pair.split('|')
  assert checker.compare(gold, answer).correct


@pytest.mark.parametrize('pair', DIFFERENT)
def test_different_maths(checker, pair):
  gold, answer = pair.split('|')
  assert not checker.compare(gold, answer).correct


@pytest.mark.parametrize(
  'answer',
  [
    '9^{9^{9^{9^9}}}',
    '(' * 900,
    r'\frac{1}{' * 200,
    '100000000!',
    r'__import__(\text{os}).system(1)',
    '\x00\ud800',
    '',
    ' ',
  ],
)
def test_hostile_maths_is_wrong_and_bounded(answer):
  pytest.importorskip('math_verify', reason='needs the extra "eval"')
  start = time.monotonic()
  with maths.Checker(cpu_seconds=1) as checker:
    assert not checker.compare('5', answer).correct
    # The worker is there again.
    assert checker.compare('5', '10/2').correct
  assert time.monotonic() - start < 60


def test_a_silent_worker_is_stopped():
  pytest.importorskip('math_verify', reason='needs the extra "eval"')
  with maths.Checker(cpu_seconds=30, wall_seconds=8) as checker:
    assert checker.compare('5', '10/2').correct
    assert checker.compare('5', '9^{9^{9^{9^9}}}').reason == 'limit'


def test_boxes_are_required(checker):
  assert checker.grade(r'first \boxed{6}, no: \boxed{5}', '5').correct
  assert checker.grade('it is 5', '5').reason == 'no_answer'
  assert not checker.grade(r'\boxed{4}, \boxed{5}, \boxed{6}', '5').correct
  with pytest.raises(ValueError, match='gold answer is empty'):
    checker.compare(' ', '5')


def _training_items():
  files = ('math/rllm_math_train.json',)
  return dataclasses.replace(benchmarks.get('math'), files=files).load(DATA)


@needs_data
def test_all_maths_golds_agree_with_themselves(checker):
  items, left_out = _training_items()
  assert (len(items), len(left_out)) == (7470, 4)
  for item in items:
    gold = item.reference['gold']
    assert checker.grade(f'so \\boxed{{{gold}}}', gold).correct, gold


@needs_data
def test_maths_golds_agree_through_the_engine(checker):
  """The comparison itself, not the equality of two texts."""
  items, _ = _training_items()
  reasons = {}
  for item in items[::60]:
    gold = maths_spelling.normalize(item.reference['gold'])
    reasons[gold] = checker._ask(gold, gold)
  assert {g: r for g, r in reasons.items() if r != 'equal'} == {}
