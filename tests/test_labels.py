"""Labels: what most samples of a teacher say, and what is unsure."""

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st
import pytest

from ioa_jax.adapter import labels
from ioa_jax.evaluation import final_answers
from ioa_jax.identifier.decomposition import Asking
from ioa_jax.teachers.requests import Completion

NUMBER = final_answers.Number()
ASKING = Asking('teacher', 64, 0.7)


def said(text, finish='stop'):
  return Completion(
    text=text, finish_reason=finish, prompt_tokens=1, completion_tokens=1
  )


@given(
  st.lists(st.tuples(st.integers(0, 3), st.booleans()), min_size=1, max_size=9)
)
def test_an_answer_is_kept_if_more_than_half_of_all_agree(samples):
  completions = [
    said(f'Count.\nThe answer is {n}.', 'stop' if whole else 'length')
    for n, whole in samples
  ]
  label = labels.agreed(NUMBER, completions)
  votes = Counter(str(n) for n, whole in samples if whole)
  answer, most = votes.most_common(1)[0] if votes else ('', 0)
  if 2 * most > len(samples):
    assert (label.answer, label.agreed) == (answer, most)
    assert label.solution.endswith(f'The answer is {answer}.')
  else:
    assert label.answer == label.solution == '' and label.agreed == most
  assert label.said == tuple(str(n) if whole else '' for n, whole in samples)


@pytest.mark.parametrize(
  'grader,texts,answer',
  [
    ('number', ['It is 1/2.', 'The answer is 0.5.', 'It is 3.'], '1/2'),
    ('number', ['Who knows?', 'Nobody.', 'The answer is 3.'], ''),
    ('choice', ['The answer is (B).', '(B)', 'The answer is (A).'], 'B'),
    ('last_line', ['So:\nRed', 'red', 'blue'], 'Red'),
    ('maths', [r'$\boxed{2x}$', r'\boxed{x^2}', r'\boxed{2x}'], '2x'),
    (
      'rouge_l',
      ['Plants need light and water.', 'Light and water for plants.', 'No.'],
      'Plants need light and water.',
    ),
  ],
)
def test_answers_are_compared_as_the_domain_does(grader, texts, answer):
  grader = final_answers.KINDS[grader]()
  label = labels.agreed(grader, [said(t) for t in texts])
  assert label.answer == answer
  if answer and grader.form == 'open':
    assert label.solution == ''  # It is the answer itself.
  elif answer:
    assert label.solution == texts[0]


def test_samples_are_told_apart_and_asked_as_a_lesson_is_confirmed():
  asked = labels.requests(ASKING, NUMBER, 'What is 1 + 1?', 3)
  assert len({r.key() for r in asked}) == 3
  assert {r.prompt for r in asked} == {'What is 1 + 1?'}
  assert all('The answer is ...' in r.system for r in asked)
  (one,) = labels.requests(Asking('t', 64, 0.0), NUMBER, 'a', 1)
  assert one.temperature == 0
  with pytest.raises(ValueError, match='3 samples would be one'):
    labels.requests(Asking('t', 64, 0.0), NUMBER, 'a', 3)
