"""What models write in answer to word problems and choices, and what it says.

Written for these tests in the manners of base and chat models. `said` is what a
careful reader takes for the answer; None where there is none or two.
"""

from typing import NamedTuple


class Output(NamedTuple):
  text: str
  said: str | None
  gold: str


def _o(text, said, gold=None):
  return Output(text, said, said if gold is None else gold)


NUMBERS = (
  # In the manner of GSM8K's own solutions.
  _o('16 - 3 - 4 = <<16-3-4=9>>9 eggs. 9 * 2 = <<9*2=18>>18.\n#### 18', '18'),
  _o('It takes 2/2=<<2/2=1>>1 bolt. 2+1=<<2+1=3>>3 bolts.\n#### 3', '3'),
  _o('He runs 3*3=9 sprints, 9*60=540 meters.\n#### 540', '540'),
  _o('80,000 + 50,000 = 130,000. The profit is 70,000.\n#### 70,000', '70000'),
  _o('She pays 1,000 + 200 = $1,200.\n#### $1,200', '1200'),
  _o('They drove 7 miles less.\n#### -7', '-7'),
  _o('60 * 0.5 = 30. So the answer is 30.\n#### 30', '30', '64'),
  _o('There are 18 eggs.\n#### 18 eggs', '18'),
  _o('4 weeks in a month.\n#### 48 hours in 4 weeks', '48'),
  # A last sentence.
  _o('She sells 9 eggs at $2 each. So she makes $18 every day.', '18'),
  _o('2 + 1 = 3. The answer is 3.', '3'),
  _o('2 + 1 = 4. The answer is 4.', '4', '3'),
  _o('The total is 5 + 13 = 18', '18'),
  _o('5 + 13 = 18, so the answer is 5 + 13 = 18.', '18', '5'),
  _o('The answer is: 540 meters', '540'),
  _o('Therefore, James runs a total of **540 meters** a week.', '540'),
  _o('**Answer: 20 cups**', '20'),
  _o('Final answer: $64', '64'),
  _o('Thus Toula paid \\$694 in total.', '694'),
  _o('\\[ 16 - 7 = 9, \\quad 9 \\times 2 = 18 \\]\n\n\\boxed{18}', '18'),
  _o('The final answer is $\\boxed{540}$. I hope it is correct.', '540'),
  _o('The answer is \\(\\boxed{1{,}200}\\) dollars.', '1200'),
  _o('So the temperature is -5 degrees.', '-5'),
  _o('Each pays 25% of 80, which is 20 dollars.', '20'),
  # Something with a number behind the answer.
  _o('The answer is 18. I checked it in 2 ways.', '18'),
  _o('The answer is 72. (48 in April and 24 in May.)', '72'),
  _o('She has 15 apples left. The answer is 15 apples after 3 days.', '15'),
  _o('So the answer is \\boxed{72} clips in 2 months.', '72'),
  _o(
    '**Answer:** 18\n\nStep 1 found 9 eggs, and step 2 multiplied by 2.', '18'
  ),
  _o('#### 18\n\nLet me verify: 9 * 2 = 18, and 18 / 2 = 9.', '18'),
  # The same number in another form.
  _o('The answer is 18.0', '18'),
  _o('The answer is $18.00.', '18'),
  _o('#### 70000.00', '70000'),
  _o('It comes to $1,234.50 in all.', '1234.50', '1234.5'),
  _o('The answer is eighteen.', '18'),
  # No answer, or not one.
  _o('The answer is 18 or 20.', None, '20'),
  _o('She arrives at 10:30.', None, '30'),
  _o('I cannot tell from what is given.', None, '18'),
  _o('The ratio is 3:2', None, '2'),
  _o('', None, '3'),
)
# The choices behind the letters, as the harness gets them with each item.
TEXTS = ('two', 'three', 'five', 'a dozen')
CHOICES = (
  _o('Let me think. The answer is (C).', 'C'),
  _o('The answer is (C)', 'C'),
  _o('The answer is (B).', 'B', 'C'),
  _o('Adding gives five. The correct answer is (C) five.', 'C'),
  _o('(C)', 'C'),
  _o('(C) five', 'C'),
  _o('**Answer: (C)**', 'C'),
  _o('Answer: C', 'C'),
  _o('The answer is: C', 'C'),
  _o('The answer is C.', 'C'),
  _o('The correct option is C.', 'C'),
  _o('**C**', 'C'),
  _o('C', 'C'),
  _o('C) five', 'C'),
  _o('I choose option C because it is odd.', 'C'),
  _o('\\boxed{C}', 'C'),
  _o('$\\boxed{\\text{(C)}}$', 'C'),
  _o('The answer is (C). (A) and (B) are too small.', 'C'),
  _o('The answer is (C), and not (D).', 'C'),
  _o('I first thought (B), but the answer is (C).', 'C'),
  _o('The answer is (B). Wait, that is wrong. The answer is (C).', 'C'),
  _o('It is five.', 'C'),
  _o('It is (A) or (B).', None, 'B'),
  _o('A cell divides in two.', None, 'A'),
  _o('I do not know.', None, 'C'),
  _o('(A) is too small, (B) is too small, (D) is too large.', None, 'D'),
)
