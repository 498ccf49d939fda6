"""Letters of choices: statements, hedges, denials, and names."""

import pytest

from ioa_jax.evaluation import choice_answers, graders

# A completion (`\\n` is a new line), then the letter, `-` for none.
CASES = r"""
The correct answer is C because mitochondria make ATP.|C
Answer: (C) mitochondrion or the powerhouse|C
I would go with option B.|B
I'd choose (D).|D
My choice is B.|B
So it's (B).|B
The answer is B) 12|B
The answer is (b).|B
The answer is d|D
The answer is a|A
The answer is a cell|-
The answer is a.|A
**Final Answer: C**|C
### Answer: C|C
Answer: C\nAnswer: C|C
Answer:\n\nAnswer: C|C
Antwort:\n\nAntwort: C|C
Antwort: A\nAntwort: C|C
Respuesta: B|B
La respuesta es B.|B
La réponse est (C).|C
Ответ: D|D
正解はCです|C
故选C。|C
选B|B
答案为 D|D
答案：（A）|A
The answer is Ａ.|A
Both A and C are correct.|-
A and B|-
A or B|-
The answer is A/B.|-
The answer is (A), (B).|-
The answer is A and B.|-
The answer is either A or B.|-
The answer could be A.|-
The answer might be C|-
The answer cannot be A.|-
It is not A.|-
I think the answer is C.|C
I believe the answer is C|C
I'm confident the answer is (C).|C
The answer is C, not D.|C
The answer is C rather than B or D.|C
The answer is (C) because (A) and (B) are wrong.|C
The answer is C. A and B are wrong.|C
The answer is C. Options A, B and D are incorrect.|C
The answer is C: the mitochondrion|C
The answer is C - the mitochondrion|C
The answer is C – the mitochondrion|C
The answer is C, the mitochondrion.|C
The answer is C (the mitochondrion).|C
The answer is (A). Wait, that is wrong.|-
The answer is A. Wait, no. The answer is B.|B
The answer is A. Let me double check. Yes, A is correct.|A
The answer is A. Hmm, actually B is correct.|B
The answer is A. On second thought, it must be D. So D.|D
Answer: A\n\nActually, I made a mistake. Answer: B|B
\boxed{A} no wait, \boxed{B}|B
\boxed{A or B}|-
\boxed{A, B}|-
\boxed{\text{A and C}}|-
\boxed{A\text{ or }B}|-
\boxed{(A), (C)}|-
\boxed{\text{Option C}}|C
\boxed{\text{Answer: C}}|C
\boxed{c}|C
\boxed{\mathbf{(D)}\ 42}|D
\boxed{\textbf{(D) } 42}|D
\boxed{\textbf{D}}|D
\boxed{\text{(D)}~42}|D
\boxed{\rm C}|C
\boxed{C)}|C
\boxed{[C]}|C
\boxed{A cell}|-
\boxed{\text{A cell}}|-
\boxed{D-glucose}|-
\boxed{B_{12}}|-
\boxed{CO_2}|-
\boxed{C = 12}|-
\boxed{A^2}|-
\boxed{2A}|-
\boxed{\text{Carbon}}|-
\boxed{12}\n\nThe answer is C.|C
The answer is C. \boxed{C}|C
\fbox{C}|C
The answer is E.|-
E|-
The correct answer is A: 5|A
The answer is A is wrong|-
The answer is A, but B is also correct.|-
Option A is incorrect. Option B is wrong. Therefore, option C is correct.|C
Option C is not correct.|-
C is correct.|C
(C) is the correct answer.|C
C is the answer.|C
The one that is correct is C.|C
A is correct.|A
Person A is correct.|-
Vitamin C is the answer.|-
Statement B is correct, so the answer is (D).|D
Which of these is correct? C|-
Is A correct? No. The answer is D.|D
Is the answer A?|-
Suppose the answer is A. Then x = 2.|-
Assume the answer is A; contradiction. Hence, (D).|D
If the answer is A, then x=2, which is false. Therefore the answer is B.|B
The answer is clearly (C).|C
The answer is most likely C|C
The answer would be C.|C
The answer should be (C).|C
The correct response is B.|B
The best choice is (B).|B
The right answer is B.|B
Correct answer: B. 5 cm|B
Correct option: D|D
Ans: C|C
Q: What?\nA: C|C
The answer is A-.|-
The answer is C++|-
The answer is C#|-
The answer is D's theory|-
The answer is DNA|-
The answer is A, which is wrong.|-
So, C.|C
Thus C|C
Therefore (B)|B
Hence option D|D
So A cell divides.|-
Thus A implies B.|-
So A and B are equal.|-
So A, B and C are collinear.|-
Thus, D = 5|-
Therefore, A = 3 and B = 4.|-
(A) 12\n(B) 13\n(C) 14\n(D) 15|-
A. 12\nB. 13|-
(A) 12 (B) 13. The answer is (B).|B
Let me analyze:\n(A) wrong\n(B) right\n\nAnswer: B|B
Options:\nA) 1\nB) 2\n\nB|B
The final answer is $\boxed{\text{B}}$. I hope it is correct.|B
The answer is B, I think.|B
The answer is B!|B
The answer: B|B
The answer is:\n\n**B**|B
The answer is:\n\nB. 12|B
The answer is \(\boxed{B}\).|B
The answer is \(B\).|B
The answer is $B$.|B
The answer is $\mathbf{B}$.|B
The answer is \textbf{B}.|B
The answer is \text{(B)}|B
The answer is <b>B</b>|B
The answer is 'B'.|B
The answer is ‘B’.|B
The answer is {B}|B
Answer = B|B
Answer ==> B|B
Answer is: B|B
ANSWER IS B|B
the answer is option (b)|B
None of the above|-
All of the above|-
I don't know|-
I cannot determine the answer: A, B, C or D.|-
The answer is one of A, B, C, D|-
not A, so B|B
We can eliminate A and B. This leaves C. The answer is C.|C
This matches option B.|B
This corresponds to answer choice (D).|D
which is option (A).|A
Only C is correct.|C
So the correct choice is therefore (D) 5.|D
So the answer is D) None of these|D
The answer is A) 5, since B) is 6|A
The answer is C and here is why.|C
The answer is B or, equivalently, 12.|B
Answer: B\nConfidence: 90%|B
Answer: B\nExplanation: Option A would be correct if x > 0.|B
Answer: B. Option A is correct only if x>0.|B
Final answer: (A) or maybe (B)|-
I was torn between A and B, but the answer is B.|B
The answer is in section C.|-
The answer is Grade A.|-
The answer is Type B.|-
The answer is point C.|-
The answer lies between A and B.|-
The answer is B-type.|-
The answer is B vitamins.|-
The answer is C major.|-
The answer is C elegans|-
The answer is A/C.|-
The answer is A.C.|-
The answer is A: an apple.|A
The answer is D (none of these).|D
The answer is D, none of these.|D
The answer is D none of these|-
The answer is A 5 cm|-
The answer is A5|-
The answer is D2O|-
The answer is C60|-
The answer is C6H12O6|-
The answer is A*B|-
The answer is A∪B|-
The answer is A → B|-
The answer is A and not B.|A
The answer is A, not B or C.|A
The answer is A, because B and C are wrong.|A
The answer is A (B is wrong).|A
The answer is A; B is wrong.|A
The answer is A. Not B.|A
I'd say C.|-
My final answer: C|C
Final answer - (C)|C
Final Answer: \boxed{C}|C
Final Answer: $\boxed{\text{(C)}}$|C
\boxed{\text{C}}.|C
\boxed{\text{The answer is C}}|C
\boxed{\text{C or D}}|-
\boxed{C/D}|-
\boxed{\text{C and D}}|-
\boxed{C \text{ or } D}|-
\boxed{ABCD}|-
\boxed{\text{None}}|-
\boxed{A.} or \boxed{B.}|B
The answer is A. Wait, let me reconsider. The correct answer is C.|C
Answer: A\nWait, actually it should be B.|-
Answer: A\nHmm, that's wrong. It is B. Answer: B|B
At first I thought the answer is A, but the answer is D.|D
Initially the answer is A seems right; the correct answer is B.|B
Some say the answer is A. However, the answer is B.|B
A student claims the answer is A.|-
Why is the answer C? Because...|-
Could the answer be A?|-
The answer is definitely not B.|-
The answer is neither A nor B.|-
The answer is none of A, B, C or D.|-
It can't be A or B, so the answer is C or D.|-
It can't be A or B, so the answer is C.|C
Eliminate A, B, D. So C.|C
(C)|C
[C]|C
**(C)**|C
C.|C
"C"|C
`C`|C
C)|C
Option C|C
Choice (C)|C
Letter C|-
c|-
C\n\nBecause it is.|C
C\n\nBecause A is wrong.|C
A. is wrong\nB. is right|-
The best answer is: B. Mitochondria|B
The most appropriate answer is (D)|D
The correct statement is B.|B
The answer is choice B: 12|B
The answer is option B) 12|B
The answer is letter B.|B
The correct answer would be B.|B
The correct answer has to be B.|B
Hence, the correct option is (B) 4.|B
Thus the answer is (B): 4|B
So the final answer is B|B
So our answer is (B).|B
So answer: B|B
Therefore the answer is $(B)$.|B
Therefore, the answer is \text{B}.|B
Therefore, (B) is the correct choice.|B
Therefore B is true.|B
It follows that B is correct.|B
We conclude B.|B
We conclude that (B) is correct.|B
B is the best answer|B
B is incorrect. C is correct.|C
B is correct and C is incorrect.|B
Both B and C seem correct, but B is the best answer.|B
""".strip().splitlines()


@pytest.mark.parametrize('case', CASES)
def test_the_letter_that_is_chosen(case):
  text, letter = case.rsplit('|', 1)
  text = text if '\\neq' in text else text.replace('\\n', '\n')
  found = choice_answers.find(text, 'ABCD')
  assert found == (None if letter == '-' else letter)


@pytest.mark.parametrize('letter', 'ABCD')
def test_options_are_read_alike(letter):
  """No letter is special, not even the article."""
  for text in (
    f'The answer is ({letter}).',
    f'Answer: {letter}',
    f'\\boxed{{\\text{{{letter}}}}}',
    f'So {letter} is correct.',
    f'{letter}) 12',
  ):
    assert graders.extract_choice(text, 'ABCD') == letter
    assert graders.extract_choice(text, 'EFGH') is None


def test_more_options_than_four():
  assert graders.extract_choice('The answer is (J).', 'ABCDEFGHIJ') == 'J'
  assert graders.extract_choice('So I think about it.', 'ABCDEFGHIJ') is None


@pytest.mark.parametrize(
  'text', ['A or ' * 3000, 'so ' * 9000, '\\boxed{' * 3000]
)
def test_long_text_takes_no_time(text):
  assert choice_answers.find(text, 'ABCD') is None
