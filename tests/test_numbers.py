"""Numbers of word problems: whole ones, refused ones, and what is no answer."""

from fractions import Fraction

from hypothesis import given
from hypothesis import strategies as st
import pytest

from ioa_jax.evaluation import final_answers, graders, number_answers

# A completion (`\\n` is a new line), a gold, and whether it is right.
CASES = r"""
The answer is 16 - 3 - 4 = 9.|9|1
The answer is 16 - 3 - 4 = 9.|16|0
The answer is 16 - 3 - 4 = 9.|4|0
The answer is 3 x 5 = 15 apples.|15|1
The answer is 3 × 5 = 15.|15|1
The answer is 3 × 5 = 15.|3|0
Answer: 40/2 = $20|20|1
Answer: (3 + 4) * 2 = 14|14|1
The answer is (3 + 4) * 2 = 14|3|0
The answer is 5 + 13.|18|1
The answer is 5 + 13.|5|0
The answer is 5 + 13.|13|0
The answer is 18 = 5 + 13.|18|1
The answer is 1.5e3.|1500|1
The answer is 1.5e3.|3|0
The answer is 2E+5|200000|1
The answer is 1e400|1|0
The answer is 1.234,56.|1|0
The answer is 1.234,56.|56|0
The answer is 1.234,56|1234.56|1
The answer is 1.234.567|1234567|1
The answer is 12,34|12|0
The answer is 12,34|34|0
The answer is 1,2345|1|0
The answer is 1,23,456|123456|1
The answer is 1'234|1234|1
The answer is 0,500|500|0
The answer is 1 1/2 hours.|1.5|1
The answer is 1 1/2 hours.|1/2|0
The answer is 1 1/2 hours.|1|0
The answer is 1½ hours.|1.5|1
The answer is ½.|0.5|1
The answer is 18½|18.5|1
It is 2 and 1/2 hours.|2.5|1
It is two and a half hours.|2.5|1
It is 3 and a half.|3.5|1
\boxed{\frac{3}{4}}|0.75|1
\boxed{\frac{3}{4}}|4|0
\boxed{\frac{3}{4}}|3|0
\boxed{\dfrac{3}{4}}|3/4|1
\boxed{\tfrac34}|3/4|1
\boxed{2\tfrac34}|2.75|1
\boxed{2\,\frac{3}{4}}|2.75|1
\boxed{3/4}|0.75|1
The answer is $\frac{3}{4}$.|3/4|1
The answer is \(\frac{3}{4}\) of a mile|0.75|1
\boxed{12{,}345}|12345|1
\boxed{12{,}345}|345|0
\boxed{12\,345}|12345|1
\boxed{12\;345}|12345|1
\boxed{12~345}|12345|1
\boxed{12,345.50}|12345.5|1
\boxed{12 345}|12345|1
The total is 12 345.|12345|1
The total is 12 345.|12345|1
The total is 12 345.|345|0
The total is 12 345.|12345|1
\boxed{18\text{ cm}^2}|18|1
\boxed{18\text{ cm}^2}|2|0
\boxed{18\,\mathrm{m}^3}|18|1
\boxed{18 \text{ m}^2}|18|1
\boxed{18^\circ}|18|1
\boxed{18\%}|18|1
\boxed{18\text{ km/h}}|18|1
\boxed{18 \frac{\text{km}}{\text{h}}}|18|1
The area is 18 cm^2|18|1
The area is 18 m²|18|1
The area is 18 m2|18|1
The area is 18 square feet.|18|1
\boxed{10^3}|1000|1
\boxed{10^{3}}|1000|1
\boxed{10^3}|3|0
\boxed{10^3}|10|0
\boxed{3 \times 10^5}|300000|1
\boxed{3 \cdot 10^{5}}|300000|1
\boxed{3 \times 10^5}|5|0
\boxed{18x}|18|0
\boxed{18\pi}|18|0
\boxed{\sqrt{18}}|18|0
\boxed{18 \pm 2}|18|0
\boxed{18!}|18|0
\boxed{> 18}|18|0
\boxed{\geq 18}|18|0
\boxed{x > 18}|18|0
\boxed{\approx 18}|18|1
\boxed{-18}|-18|1
\boxed{-18}|18|0
\boxed{\$1,800}|1800|1
\boxed{\textbf{18}}|18|1
\boxed{\text{18 apples}}|18|1
\boxed{18\text{ apples and }20\text{ pears}}|18|0
\boxed{18\text{ apples and }20\text{ pears}}|20|0
\boxed{18, 20}|20|0
\boxed{18 \text{ to } 20}|18|0
\boxed{18 - 20}|20|0
\boxed{\text{Yes}}|18|0
\boxed{}|18|0
So \boxed{18} and then 20.|18|1
First \boxed{12}, finally \boxed{18}.|18|1
The answer is 18 or 20.|20|0
The answer is 18 or 20.|18|0
It is either 18 or 20.|20|0
It is 18 or 20.|20|0
It is between 17 and 18.|18|0
The answer is 18–20.|18|0
The answer is 18 to 20.|20|0
The answer is 18-20 apples.|20|0
The answer is 18, 20 and 22.|22|0
The answer is 18 and 20.|18|0
The answer is 18 (or 20 if she keeps two).|18|0
The answer is maybe 18, maybe 20.|18|0
The answer is not 18.|18|0
The answer is less than 18.|18|0
The answer is more than 18.|18|0
The answer is at least 18.|18|1
The answer is about 18.|18|1
The answer is exactly 18 apples.|18|1
The answer is 12:30.|12|0
The answer is 12:30.|30|0
The answer is 12:30 PM.|12|0
It takes 2 hours and 30 minutes.|30|0
It takes 2 hours and 30 minutes.|2|0
The answer is 2 hours 30 minutes.|2|0
He is 5 feet 6 inches tall.|6|0
It costs 3 dollars and 50 cents.|50|0
答案是18个苹果。|18|1
答案是 18 元|18|1
所以答案是：18|18|1
一共18元。|18|1
她每天赚18美元。|18|1
他有１８个苹果。|18|1
答案是十八。|18|1
18개|18|1
合計は18円です。|18|1
#### 18|18|1
#### 1,800|1800|1
#### -18|-18|1
#### 18.|18|1
#### **18**|18|1
#### $18 per day|18|1
#### 18%|18|1
#### 5 + 13 = 18|18|1
#### 5 + 13 = 18|5|0
#### Step 1\n5+13=18\n#### Step 2\n18*2=36\n#### 36|36|1
#### Step 1\nTom has 5.\n\n#### Step 2\nHe gets 13.\n\nHe has 18 in all.|18|1
#### 1. Count the eggs\n5+13=18\n\nThe answer is 18.|18|1
#### Answer\n18|18|1
#### Answer:\n**18**|18|1
####\n18|18|1
#### Result\n\n18 dollars|18|1
## Step 1\nfoo\n### Answer\n18|18|1
####|18|0
#### N/A\nIt was 18 before.|18|0
She has 18 apples left after 3 days.|18|1
She makes $18 every day for 7 days.|18|1
In 12 months she saves $1800.|1800|1
She saves $1800 in 12 months.|1800|1
Thus, he pays $64 for 16 glasses.|64|1
She sold 9 eggs for $18.|18|1
She is 18 years old.|18|1
The 18-year-old has 3 cats.|3|1
It is a 5-day trip of 18 miles.|18|1
She got 18 out of 20.|18|1
He ran 18 miles, which is more than 15.|18|1
The total is **18** (see step 3).|18|1
Therefore, Janet makes **$18** in 3 markets.|18|1
The answer is 18 [1].|18|1
Answer: 18\n\nExplanation: 5+13=18, and 18-0=18. Step 2 is a check.|18|1
Final Answer: 18 eggs|18|1
**Final Answer:** 18|18|1
Final answer is 18, I used 3 steps.|18|1
The answer should be 18.|18|1
The answer would be $18.|18|1
The answer to the question is 18.|18|1
The final answer is: $\boxed{18}$. I hope it is correct.|18|1
To check the answer: 18/2 = 9. So she has 18.|18|1
The answer is 18. To verify the answer: 20 - 2 = 18.|18|1
The answer is 18. That took 3 steps.|18|1
The answer is twenty-one.|21|1
The answer is twenty one.|21|1
The answer is one hundred and five.|105|1
The answer is two thousand.|2000|1
The answer is a dozen.|12|1
The answer is 2 dozen.|24|1
The answer is 2 dozen.|2|0
The answer is 1.5 million.|1500000|1
The answer is 1.5 million.|1.5|0
The answer is $2 billion.|2000000000|1
The answer is 3 hundred.|300|1
The answer is 18k.|18000|1
The answer is 18k.|18|0
The answer is one third.|1/3|1
The answer is three quarters.|0.75|1
The answer is two-thirds.|2/3|1
The answer is zero.|0|1
The answer is none.|0|0
The answer is negative 18.|-18|1
The answer is minus 18.|-18|1
The answer is -$18.|-18|1
The answer is −18.|-18|1
The answer is - 18.|-18|1
The answer is +18.|18|1
She has <<5+13=18>>18 apples.|18|1
She has 5+13=<<5+13=18>>18 apples.|18|1
Total: $18.00|18|1
Total = 18|18|1
So x = 18.|18|1
18 is the answer.|18|1
The number is 018.|18|1
2**3 = 8|8|1
He has 10% of 180 = 18.|18|1
H2O has 3 atoms.|3|1
H2O|2|0
Room B12|12|0
COVID-19 cases|19|0
v1.2.3|3|0
1/2/2024|2024|0
2024-01-18|18|0
18/0|18|0
The answer is 1/3.|0.333|0
The answer is .5|0.5|1
The answer is 5.|5|1
The answer is 5.0|5|1
The answer is 1,800,000|1800000|1
1,800,00|1800|0
The answer is **$1,800**.|1800|1
The answer is *18*.|18|1
The answer is `18`.|18|1
The answer is "18".|18|1
The answer is '18'.|18|1
The answer is [18].|18|1
The answer is {18}.|18|1
The answer is <18>.|18|0
<b>18</b>|18|1
<answer>18</answer>|18|1
The answer is ₹18.|18|1
The answer is ¥18.|18|1
The answer is 18 EUR.|18|1
The answer is A$18.|18|1
The answer is USD 18.|18|1
The answer is 18 (eighteen).|18|1
La respuesta es 18.|18|1
Die Antwort ist 18.|18|1
Réponse : 18|18|1
Ответ: 18|18|1
| Total | 18 ||18|1
The answer is 3 apples or 4 pears.|4|0
The answer is 18 or so.|18|1
The answer is 5-6 apples.|6|0
The answer is 5–6 apples.|5|0
The answer is ~18.|18|1
The answer is 18±2.|18|0
The answer is 2:1.|2|0
The answer is 2:1.|1|0
The answer is x.|18|0
The answer is 3x.|3|0
The answer is 3π.|3|0
The answer is 3\pi.|3|0
The answer is √18.|18|0
The answer is 2^10.|1024|1
The answer is 2^{10} = 1024.|1024|1
The answer is 10^-3.|0.001|1
The answer is 1.5 × 10^3.|1500|1
The answer is 1.5 x 10^3.|1500|1
The answer is 1.5 × 10^3.|3|0
The answer is 1.5*10^3|1.5|0
The answer is 3,5.|5|0
The answer is 3.5.2|5|0
The answer is 100,00.|100|0
The answer is 10,000,00|10000|0
The answer is 10 000 000.|10000000|1
The answer is 5 1/4 inches|5.25|1
The answer is 5-1/4 inches|5.25|0
The answer is 5-1/4 inches|0.25|0
The answer is 1/2/3|3|0
The answer is (5, 6).|6|0
The answer is (5, 6).|5|0
The answer is [5, 6]|5|0
The answer is {5, 6}|6|0
The answer is 5 and 6.|6|0
The answer is 5, then 6.|6|0
The answers are 5 and 6.|6|0
The answers are 5 and 6.|5|0
The answer is 5 (five).|5|1
The answer is five (5).|5|1
The answer is 5 = five.|5|1
The answer is $5 and 25 cents.|5|0
The answer is 5'6".|5|0
The answer is 1st.|1|1
The answer is 18th.|18|1
The answer is room 18.|18|1
The answer is No. 18|18|1
The answer is #18|18|1
The answer is 18#|18|1
The answer is 18 < 20.|18|0
The answer is ≥ 18.|18|0
The answer is > 18|18|0
The answer is 20 > 18|20|0
The answer is not 18, it is 20.|20|1
The answer is not 18, it is 20.|18|0
The answer is 18, not 20.|18|1
The answer is 18, not 20.|20|0
The answer is 18 rather than 20.|18|1
The answer is 18 instead of 20.|18|1
The answer is no more than 18.|18|0
The answer is unknown.|18|0
The answer cannot be 18.|18|0
I don't know, maybe 18?|18|1
The answer could be 18 or 20.|20|0
\boxed{5}, \boxed{6}|5|0
\boxed{\text{five}}|5|1
\boxed{5\text{ hours }30\text{ minutes}}|5|0
\boxed{5:30}|5|0
\boxed{5:30}|30|0
\boxed{5\text{ or }6}|6|0
\boxed{5\frac{1}{2}\text{ hours}}|5.5|1
\boxed{\frac{11}{2}\text{ hours}}|5.5|1
\boxed{\frac{x}{2}}|2|0
\boxed{x=5, y=6}|6|0
\boxed{x=5, y=6}|5|0
\boxed{5 \text{ m}^2}|5|1
\boxed{5\,\text{m/s}^2}|5|1
\boxed{5 \times 10^{-2}}|0.05|1
\boxed{0.\overline{3}}|3|0
\boxed{0.\overline{3}}|0|0
\boxed{(5)}|5|1
\boxed{+5}|5|1
\boxed{5 + 6}|11|1
\boxed{5 + 6}|6|0
\boxed{5 + 6 = 11}|11|1
\boxed{\sim 5}|5|1
\boxed{5\text{ dozen}}|5|0
\boxed{5\text{ million}}|5000000|1
\boxed{5\text{k}}|5|0
\boxed{\$5\text{k}}|5000|1
\boxed{5M}|5|0
$5M|5|0
$5 million|5000000|1
#### 5 or 6|6|0
#### 5, 6|6|0
#### 5:30|30|0
#### 5 hours 30 minutes|30|0
#### x = 5|5|1
#### \boxed{5}|5|1
#### $5$|5|1
#### five|5|1
#### 1.5e3|1500|1
#### 1,234.56|1234.56|1
####  5 |5|1
答案是5或6。|6|0
答案：5到6|6|0
大约5公里|5|1
第5天|5|1
共5，000元|5000|1
""".strip('\n').split('\n')


@pytest.mark.parametrize('case', CASES)
def test_the_number_that_is_stated(case):
  text, gold, right = case.rsplit('|', 2)
  text = text if '\\neq' in text else text.replace('\\n', '\n')
  assert graders.grade_number(text, gold).correct == (right == '1')


FRAMES = (
  'The answer is {}.',
  '#### {}',
  'So \\boxed{{{}}}.',
  'Answer: **{}**',
  'Therefore, she has {} apples in 3 baskets.',
  '答案是{}。',
  '{}',
)


@pytest.mark.parametrize('frame', FRAMES)
@given(value=st.integers(0, 10**9))
def test_a_number_is_found_in_every_frame(frame, value):
  for written in (str(value), f'{value:,}', f'{value}.00'):
    found = number_answers.find(frame.format(written))
    assert found.value == value


@pytest.mark.parametrize('frame', FRAMES)
@given(hours=st.integers(1, 12), minutes=st.integers(10, 59))
def test_no_part_of_a_refused_form_is_taken(frame, hours, minutes):
  text = frame.format(f'{hours}:{minutes}')
  for gold in (hours, minutes):
    if gold != 3:  # In the frame itself.
      assert not graders.grade_number(text, str(gold)).correct


@given(a=st.integers(1, 999), b=st.integers(1, 999), sign=st.sampled_from('+*'))
def test_an_equation_is_its_result(a, b, sign):
  result = a + b if sign == '+' else a * b
  found = number_answers.find(f'The answer is {a} {sign} {b} = {result}.')
  assert found.value == result


@given(st.integers(-999, 999), st.integers(1, 999))
def test_fractions_in_a_box(a, b):
  found = number_answers.find(f'\\boxed{{\\frac{{{a}}}{{{b}}}}}')
  assert found.value == Fraction(a, b)


def test_what_is_found_can_be_a_gold():
  """A domain takes its answers from solutions: they must grade again."""
  grader = final_answers.Number()
  for text in ('18 million', 'three quarters', '\\boxed{2\\frac12}', '1.5e3'):
    answer = grader.find(f'The answer is {text}')
    assert grader.fits(answer), answer
    assert grader.is_correct(f'The answer is {text}', answer)


@pytest.mark.parametrize(
  'text', ['(' * 20000, '1 ' * 20000, '\\frac{' * 3000, 'answer is ' * 5000]
)
def test_long_text_takes_no_time(text):
  number_answers.find(text)
