"""Final answers of free text: where one stands, how right it is.

One class for each kind of answer, each a `domains.text.Grader`.
"""

from __future__ import annotations

from collections.abc import Sequence

from ioa_jax.evaluation import code_grading, graders, maths, number_answers
from ioa_jax.evaluation import sandbox as sandbox_lib


class Exact:
  """What kinds with one right answer share: a verdict is a score of 0 or 1."""

  form = 'value'

  def score(self, completion: str, answer: str) -> float:
    return float(self.is_correct(completion, answer))

  def fits(self, answer: str) -> bool:
    try:
      return self.is_correct(self.closing(answer), answer)
    except ValueError:
      return False

  def key(self, final_answer: str, verification: str) -> str:
    del verification  # The teacher's own claim proves nothing.
    return final_answer

  def proves(self, key: str) -> bool:
    del key
    return True

  def completion(self, steps: Sequence[str], answer: str) -> str:
    return '\n'.join([*steps, self.closing(answer)])


class Number(Exact):
  """A number, as in GSM8K."""

  def find(self, text: str) -> str | None:
    found = number_answers.find(text)
    # A refused form is named to the one who wrote it.
    return found and (graders.extract_number(text) or found.text or None)

  def is_correct(self, completion: str, answer: str) -> bool:
    return graders.grade_number(completion, answer).correct

  def closing(self, answer: str) -> str:
    return f'The answer is {answer}.'


class Maths(Exact):
  r"""A formula in `\boxed{}`, as in MATH; needs the extra `eval`."""

  def __init__(self):
    self._checker = maths.Checker()

  def find(self, text: str) -> str | None:
    return graders.last_boxed(text)

  def is_correct(self, completion: str, answer: str) -> bool:
    return self._checker.grade(completion, answer).correct

  def closing(self, answer: str) -> str:
    return f'The answer is $\\boxed{{{answer}}}$.'


class Choice(Exact):
  """One of the letters A to D, as in GPQA."""

  form = 'choice'
  _LETTERS = 'ABCD'

  def find(self, text: str) -> str | None:
    return graders.extract_choice(text, self._LETTERS)

  def is_correct(self, completion: str, answer: str) -> bool:
    return graders.grade_choice(completion, answer, self._LETTERS).correct

  def closing(self, answer: str) -> str:
    return f'The answer is ({answer}).'


class LastLine(Exact):
  """The last line, without regard to case."""

  def find(self, text: str) -> str | None:
    lines = text.strip().splitlines()
    return lines[-1].strip() if lines else None

  def is_correct(self, completion: str, answer: str) -> bool:
    found = self.find(completion)
    return found is not None and found.casefold() == answer.strip().casefold()

  def closing(self, answer: str) -> str:
    return answer


class Code(Exact):
  """Python that passes tests, as in MBPP; the tests are the answer.

  Tests are assertions with the imports that they need. They and the code run
  in the sandbox only.

  Raises:
    SandboxUnavailable: if there is no isolation on this machine.
  """

  form = 'code'
  # Functions that know nothing; tests that let one pass prove nothing.
  _STUBS = ('None', '0', 'True', '[]', "''", 'args[0]')

  def __init__(self):
    # Short functions, and many of them: a student's endless loop costs 5 s.
    limits = sandbox_lib.Limits(wall_seconds=30.0, cpu_seconds=5)
    self._sandbox = sandbox_lib.Sandbox(limits)

  def find(self, text: str) -> str | None:
    """None: tests are in no solution, so they need a column of their own."""
    return None

  def fits(self, answer: str) -> bool:
    return bool(code_grading.called_functions(answer))

  def is_correct(self, completion: str, answer: str) -> bool:
    functions = code_grading.called_functions(answer)
    if not functions:
      raise ValueError(f'no assertion calls a function in {answer[:60]!r}.')
    return code_grading.grade_mbpp(
      self._sandbox, completion, tests=answer, functions=functions
    ).correct

  def closing(self, answer: str) -> str:
    return f'```python\n{answer}\n```'

  def key(self, final_answer: str, verification: str) -> str:
    """The tests, which teachers give as the verification of their code."""
    del final_answer
    return code_grading.extract_code(verification) or verification.strip()

  def proves(self, key: str) -> bool:
    """Whether every trivial function fails the tests."""
    names = code_grading.called_functions(key)
    return not any(
      self.is_correct(
        self.closing(
          '\n'.join(f'def {name}(*args):\n  return {value}' for name in names)
        ),
        key,
      )
      for value in self._STUBS
    )


class RougeL:
  """An open answer, scored by its overlap with a reference, as in DollyEval.

  A lesson is confirmed by overlap from `AGREES` on. Measured on the 80
  questions of VicunaEval: of GPT-3.5's and Vicuna-13B's answers to the same
  question 91 % overlap that much, to different questions 4 %.
  """

  form = 'open'
  AGREES = 0.2

  def __init__(self):
    self.score('a', 'a')  # A missing package shows before anything is paid.

  def find(self, text: str) -> str | None:
    return text.strip() or None

  def fits(self, answer: str) -> bool:
    return self.score(answer, answer) > 0

  def score(self, completion: str, answer: str) -> float:
    return graders.rouge_l_stemmed_f(completion, [answer])

  def is_correct(self, completion: str, answer: str) -> bool:
    return self.score(completion, answer) >= self.AGREES

  def closing(self, answer: str) -> str:
    return answer

  def key(self, final_answer: str, verification: str) -> str:
    del verification
    return final_answer

  def proves(self, key: str) -> bool:
    del key
    return True

  def completion(self, steps: Sequence[str], answer: str) -> str:
    """The answer alone: steps are how it was found, and none of it."""
    del steps
    return answer


KINDS = {
  'number': Number,
  'maths': Maths,
  'choice': Choice,
  'last_line': LastLine,
  'code': Code,
  'rouge_l': RougeL,
  # What is an open answer is the same; `judging` says how good it is.
  'judge': RougeL,
}
