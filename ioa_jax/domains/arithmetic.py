"""The built-in domain: arithmetic in text, twelve modules deep enough to order.

Grammar. A problem is text such as `54*14`. Two prompts ask for it: `54*14=`
wants the value at once (*direct*), `54*14:` wants it *step by step*. A solution
is one level of calls `lhs=rhs`, each to a skill that is answered at once; calls
are joined by `;`, and the answer is what follows the last `=`:

    54*14:4*4+0=16;5*4+1=21;540+216=756

A module without steps ("leaf") is always asked directly. Division answers are
`quotientRremainder`. The larger of two numbers is `37|52=52`.

Text is written for people here, most significant digit first; `tokenizer.py`
reverses digits on the way to the model.

Probes. Each module reserves problems for three splits: 'gate' decides mastery,
'development' is what settings are chosen on, 'held_out' is for final tables. No
training text of a student contains a reserved problem, neither as its problem
nor as a call inside its steps: `training_problem` draws again until that holds.
The models that ship were trained before there was 'development' and may have
seen it; scores on it compare settings and nothing else.
"""

from __future__ import annotations

from collections.abc import Callable
import dataclasses
import functools
import re

import numpy as np

from ioa_jax.records import DIFFICULTIES, KnowledgeModule, Probe, Seed

GATE_PROBES = 32
HELD_OUT_PROBES = 48
DEVELOPMENT_PROBES = 24
_PROBES = GATE_PROBES + HELD_OUT_PROBES + DEVELOPMENT_PROBES
_SPLIT_SEED = 20261124  # Which problems are probes; never a run's seed.

Operands = tuple[int, ...]


@dataclasses.dataclass(frozen=True)
class _Skill:
  """One module's mathematics.

  Attributes:
    sample: draws operands; `size` in (0, 1] scales how large they may be.
    text: operands to problem text.
    answer: operands to answer text.
    steps: operands to calls, one level deep; () for a leaf.
    canonical: operands up to the symmetries that would leak an answer.
    may_probe: problems that may be reserved for probes.
  """

  module: KnowledgeModule
  sample: Callable[[np.random.Generator, float], Operands]
  text: Callable[..., str]
  answer: Callable[..., str]
  steps: Callable[..., tuple[str, ...]] | None = None
  canonical: Callable[[Operands], Operands] = lambda operands: operands
  may_probe: Callable[..., bool] = lambda *operands: True


def _between(rng, low, high, size):
  """Uniform in [low, high], the top cut to `size` of the range."""
  top = low + max(1, round((high - low) * size))
  return int(rng.integers(low, top + 1))


def _either_order(rng, a, b):
  return (a, b) if rng.random() < 0.5 else (b, a)


def _divide(a, b):
  return f'{a // b}R{a % b}'


def _sample_addition_small(rng, size):
  return _either_order(
    rng, _between(rng, 0, 99, size), _between(rng, 0, 9, size)
  )


def _sample_two(low, high):
  def sample(rng, size):
    return _between(rng, low, high, size), _between(rng, low, high, size)

  return sample


def _sample_descending(low, high):
  def sample(rng, size):
    pair = _between(rng, low, high, size), _between(rng, low, high, size)
    return max(pair), min(pair)

  return sample


def _sample_table(rng, size):
  return (
    _between(rng, 2, 9, size),
    _between(rng, 2, 9, size),
    _between(rng, 0, 9, size),
  )


def _sample_division(rng, size):
  b = int(rng.integers(2, 10))
  return _between(rng, 0, 10 * b - 1, size), b


def _sample_two_by_one(rng, size):
  return _either_order(
    rng, _between(rng, 10, 99, size), int(rng.integers(2, 10))
  )


def _sample_long_division(rng, size):
  # The first digit is less than the divisor, so the quotient has two digits.
  b = int(rng.integers(2, 10))
  return _between(rng, 100, 100 * b - 1, size), b


def _sample_linear(rng, size):
  a = int(rng.integers(2, 10))
  x = _between(rng, 0, 9, size)
  b = _between(rng, 10, 99 - a * x, size)
  return a, b, a * x + b


def _sample_two_by_teen(rng, size):
  return _between(rng, 11, 99, size), int(rng.integers(12, 20))


def _sample_product_sum(rng, size):
  return (
    _between(rng, 10, 99, size),
    int(rng.integers(2, 10)),
    _between(rng, 10, 400, size),
  )


def _multiply(a, b):
  """Digit by digit with carry: two calls to the table."""
  tens, ones = divmod(a, 10)
  carry = ones * b // 10
  return (
    f'{ones}*{b}+0={ones * b}',
    f'{tens}*{b}+{carry}={tens * b + carry}',
  )


def _divide_once(part, b):
  """The multiple below, and what remains."""
  multiple = part - part % b
  return f'{b}*{part // b}+0={multiple}', f'{part}-{multiple}={part % b}'


def _two_by_one_steps(a, b):
  a, b = max(a, b), min(a, b)
  return (*_multiply(a, b), f'={a * b}')


def _division_steps(a, b):
  return (*_divide_once(a, b), f'={_divide(a, b)}')


def _long_division_steps(a, b):
  first = a // 10
  second = first % b * 10 + a % 10
  return (
    *_divide_once(first, b),
    *_divide_once(second, b),
    f'={_divide(a, b)}',
  )


def _two_by_teen_steps(a, b):
  low = a * (b - 10)
  return (*_multiply(a, b - 10), f'{a * 10}+{low}={a * b}')


def _linear_steps(a, b, c):
  return (
    f'{c}-{b}={c - b}',
    f'{a}*{(c - b) // a}+0={c - b}',
    f'={(c - b) // a}',
  )


def _product_sum_steps(a, b, c):
  return (*_multiply(a, b), f'{a * b}+{c}={a * b + c}')


def _sorted(operands):
  return tuple(sorted(operands))


def _table_canonical(operands):
  a, b, c = operands
  return (min(a, b), max(a, b), c)


def _skill(name, description, prerequisites, level, **functions):
  module = KnowledgeModule(name, description, prerequisites, level)
  return _Skill(module=module, **functions)


_SKILLS: dict[str, _Skill] = {
  skill.module.name: skill
  for skill in (
    _skill(
      'comparison/larger',
      'the larger of two numbers',
      (),
      0,
      sample=_sample_two(0, 999),
      text='{}|{}'.format,
      answer=lambda a, b: f'{max(a, b)}',
      canonical=_sorted,
    ),
    _skill(
      'addition/small',
      'a number below 100 plus one digit',
      (),
      0,
      sample=_sample_addition_small,
      text='{}+{}'.format,
      answer=lambda a, b: f'{a + b}',
      canonical=_sorted,
    ),
    _skill(
      'addition/two_digit',
      'two-digit sums with carrying',
      ('addition/small',),
      1,
      sample=_sample_two(10, 99),
      text='{}+{}'.format,
      answer=lambda a, b: f'{a + b}',
      canonical=_sorted,
    ),
    _skill(
      'subtraction/two_digit',
      'two-digit differences with borrowing',
      ('addition/small',),
      1,
      sample=_sample_descending(10, 99),
      text='{}-{}'.format,
      answer=lambda a, b: f'{a - b}',
    ),
    _skill(
      'addition/three_digit',
      'sums of numbers below a thousand',
      ('addition/two_digit',),
      2,
      sample=_sample_two(10, 999),
      text='{}+{}'.format,
      answer=lambda a, b: f'{a + b}',
      canonical=_sorted,
    ),
    _skill(
      'multiplication/table',
      'one-digit products plus a small number',
      ('addition/small',),
      1,
      sample=_sample_table,
      text='{}*{}+{}'.format,
      answer=lambda a, b, c: f'{a * b + c}',
      canonical=_table_canonical,
      # The bare products are what other modules' lessons are made of.
      may_probe=lambda a, b, c: c > 0,
    ),
    _skill(
      'multiplication/two_by_one',
      'two-digit times one-digit',
      ('multiplication/table',),
      2,
      sample=_sample_two_by_one,
      text='{}*{}'.format,
      answer=lambda a, b: f'{a * b}',
      canonical=_sorted,
      steps=_two_by_one_steps,
    ),
    _skill(
      'division/remainder',
      'quotient and remainder of a small number',
      ('multiplication/table', 'subtraction/two_digit'),
      2,
      sample=_sample_division,
      text='{}/{}'.format,
      answer=_divide,
      steps=_division_steps,
    ),
    _skill(
      'multiplication/two_by_teen',
      'two-digit times twelve to nineteen',
      ('multiplication/two_by_one', 'addition/three_digit'),
      3,
      sample=_sample_two_by_teen,
      text='{}*{}'.format,
      answer=lambda a, b: f'{a * b}',
      steps=_two_by_teen_steps,
    ),
    _skill(
      'division/long',
      'three-digit by one-digit, two-digit quotient',
      ('division/remainder',),
      3,
      sample=_sample_long_division,
      text='{}/{}'.format,
      answer=_divide,
      steps=_long_division_steps,
    ),
    _skill(
      'equations/linear',
      'solve ax+b=c for a whole number x',
      ('subtraction/two_digit', 'multiplication/table'),
      2,
      sample=_sample_linear,
      text='{}x+{}={}'.format,
      answer=lambda a, b, c: f'{(c - b) // a}',
      steps=_linear_steps,
    ),
    _skill(
      'mixed/product_sum',
      'a*b+c with a of two digits',
      ('multiplication/two_by_one', 'addition/three_digit'),
      3,
      sample=_sample_product_sum,
      text='{}*{}+{}'.format,
      answer=lambda a, b, c: f'{a * b + c}',
      steps=_product_sum_steps,
    ),
  )
}

MODULES: tuple[KnowledgeModule, ...] = tuple(
  skill.module for skill in _SKILLS.values()
)
# What the shipped base student has seen. The teacher has seen everything.
EASY_MODULES = tuple(m.name for m in MODULES[:4])
MULTI_STEP = tuple(name for name, s in _SKILLS.items() if s.steps is not None)


@dataclasses.dataclass(frozen=True)
class Problem:
  """One problem of one module, with everything that can be said about it."""

  module: str
  operands: Operands

  @property
  def text(self) -> str:
    return _SKILLS[self.module].text(*self.operands)

  @property
  def answer(self) -> str:
    return _SKILLS[self.module].answer(*self.operands)

  def prompt(self, answer_format: str) -> str:
    """`answer_format` is 'steps' or 'direct'; leaves have only one."""
    return self.text + (
      ':' if answer_format == 'steps' and has_steps(self.module) else '='
    )

  def completion(self, answer_format: str) -> str:
    steps = _SKILLS[self.module].steps
    if answer_format == 'steps' and steps is not None:
      return ';'.join(steps(*self.operands))
    return self.answer

  @property
  def canonical(self) -> tuple[str, Operands]:
    return self.module, _SKILLS[self.module].canonical(self.operands)

  @property
  def difficulty_tag(self) -> str:
    """By the size of the operands, in thirds of what the module can draw."""
    return DIFFICULTIES[
      int(np.searchsorted(_size_thirds(self.module), sum(self.operands)))
    ]


def has_steps(module: str) -> bool:
  return _SKILLS[module].steps is not None


@functools.cache
def _size_thirds(module):
  rng = np.random.default_rng(_SPLIT_SEED)
  sums = [sum(_SKILLS[module].sample(rng, 1.0)) for _ in range(600)]
  return np.quantile(sums, [1 / 3, 2 / 3])


@functools.cache
def _reserved() -> tuple[dict[str, tuple[Problem, ...]], frozenset[str]]:
  """The probes of every module, and every text that would give one away."""
  probes = {}
  for index, (name, skill) in enumerate(_SKILLS.items()):
    rng = np.random.default_rng([_SPLIT_SEED, index])
    chosen: dict = {}
    while len(chosen) < _PROBES:
      problem = Problem(name, skill.sample(rng, 1.0))
      if skill.may_probe(*problem.operands):
        chosen.setdefault(problem.canonical, problem)
    probes[name] = tuple(chosen.values())
  texts = set()
  for problems in probes.values():
    for problem in problems:
      texts.add(problem.text)
      texts.update(_same_value(problem))
  return probes, frozenset(texts)


def _same_value(problem: Problem) -> list[str]:
  """Other orders of the operands that `canonical` calls the same problem."""
  o = problem.operands
  skill = _SKILLS[problem.module]
  orders = {
    2: [(1, 0)],
    3: [(1, 0, 2)],
  }[len(o)]
  swapped = [tuple(o[i] for i in order) for order in orders]
  return [
    skill.text(*s) for s in swapped if skill.canonical(s) == skill.canonical(o)
  ]


def calls(completion: str) -> list[str]:
  """Left sides of the calls in a completion; an empty one restates."""
  sides = [c.rpartition('=')[0] for c in completion.split(';') if '=' in c]
  return [side for side in sides if side]


def is_reserved(problem: Problem) -> bool:
  """Whether training on `problem`, in any format, would show a probe."""
  texts = _reserved()[1]
  return problem.text in texts or any(
    call in texts for call in calls(problem.completion('steps'))
  )


def training_problem(
  module: str, rng: np.random.Generator, size: float = 1.0
) -> Problem:
  """Draws a problem that neither is nor contains a probe.

  Args:
    module: name of the module.
    rng: NumPy generator, advanced.
    size: in (0, 1], how large the operands may be ("smallest first").

  Raises:
    ValueError: if every small problem is reserved; raise `size`.
  """
  for _ in range(1000):
    problem = Problem(module, _SKILLS[module].sample(rng, size))
    if not is_reserved(problem):
      return problem
  raise ValueError(
    f'{module}: no free problem at size {size}; every draw of 1000 is a probe '
    'or contains one. Use a larger size.'
  )


def probes(split: str, answer_format: str = 'steps') -> tuple[Probe, ...]:
  """All probes of a split, grouped by module.

  Splits and training text are disjoint; they do not depend on a run's seed, so
  scores of different runs are comparable.

  Args:
    split: 'gate', 'held_out' or 'development'.
  """
  held_out = GATE_PROBES + HELD_OUT_PROBES
  ranges = {
    'gate': slice(0, GATE_PROBES),
    'held_out': slice(GATE_PROBES, held_out),
    'development': slice(held_out, _PROBES),
  }
  return tuple(
    Probe(
      probe_id=f'{split}/{name}/{i}',
      module=name,
      prompt=problem.prompt(answer_format),
      reference=problem.completion(answer_format),
      answer=problem.answer,
    )
    for name, problems in _reserved()[0].items()
    for i, problem in enumerate(problems[ranges[split]])
  )


def seeds(module: str, count: int) -> tuple[Seed, ...]:
  """Example problems of a module, never probes, the same for every run."""
  rng = np.random.default_rng([_SPLIT_SEED, 1, list(_SKILLS).index(module)])
  found = (training_problem(module, rng) for _ in range(count))
  return tuple(Seed(module, p.text, p.answer) for p in found)


def final_answer(completion: str) -> str:
  """The scored span: what follows the last `=`, or all of a direct answer."""
  return completion.rpartition('=')[2].strip()


def is_correct(completion: str, answer: str) -> bool:
  """Whether a completion ends in the right answer, however it got there."""
  return final_answer(completion) == answer


def score(completion: str, answer: str) -> float:
  """See `Domain`: right or wrong."""
  return float(is_correct(completion, answer))


_CALL = re.compile(
  r'(?:(\d+)([+|-])(\d+)=(\d+)|(\d+)\*(\d+)\+(\d+)=(\d+)|=\d+(?:R\d+)?)'
)
_MAX_DIGITS = 12  # Model text is hostile: no arithmetic on huge numbers.


def steps_hold(completion: str) -> bool:
  """Whether every call of a step-by-step completion is true arithmetic.

  Only the grammar's own forms are evaluated; anything else is false, and so is
  an answer without any call.
  """
  if not calls(completion):
    return False
  for call in completion.split(';'):
    match = _CALL.fullmatch(call)
    if not match or len(call) > 4 * _MAX_DIGITS:
      return False
    if match[2]:
      a, b, value = int(match[1]), int(match[3]), int(match[4])
      if value != {'+': a + b, '-': a - b, '|': max(a, b)}[match[2]]:
        return False
    elif match[5]:
      a, b, c, value = (int(match[i]) for i in (5, 6, 7, 8))
      if value != a * b + c:
        return False
  return True


def verify_lesson(problem: Problem, answer_format: str, text: str) -> str:
  """'' if a teacher's completion may become a lesson, else the reason not."""
  if not is_correct(text, problem.answer):
    return 'wrong_answer'
  if answer_format == 'steps' and has_steps(problem.module):
    if not steps_hold(text):
      return 'wrong_step'
    if any(call in _reserved()[1] for call in calls(text)):
      return 'contains_probe'
  return ''
