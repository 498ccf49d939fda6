r"""Benchmarks: where their files are, what is asked, how answers are graded.

Prompts are zero-shot, fixed and named (`PROMPTS`); golden files in the tests
pin their rendering. Where lm-evaluation-harness has the task, the name says
whose prompt it is, and scores compare with that task run with `--num_fewshot=0`
and without a chat template: gsm8k (its flexible-extract), humaneval, mbpp,
gpqa_diamond (gpqa_diamond_cot_zeroshot; the order of choices is our own). math
and aime2024 ask for a box, which no task of the harness does without examples;
dolly and vicuna are MiniLLM's, livecodebench its authors'.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
import dataclasses
import hashlib
import pathlib
import random
from typing import Any

from ioa_jax.evaluation import code_grading, graders, livecodebench, maths
from ioa_jax.evaluation import sandbox as sandbox_lib
from ioa_jax.runtime import row_files as files

_ALPACA = (
  'Below is an instruction that describes a task{paired}. Write a response '
  'that appropriately completes the request.\n\n### Instruction:\n'
)
PROMPTS = {
  'lm-eval:gsm8k': 'Question: {question}\nAnswer:',
  # minerva_math with its own instruction, because there are no examples.
  'boxed': (
    'Problem:\n{problem}\n\nPut the final answer within \\boxed{{}}.\n\n'
    'Solution:'
  ),
  'lm-eval:humaneval': '{prompt}',
  'lm-eval:mbpp': (
    'You are an expert Python programmer, and here is your task: {text} Your '
    'code should pass these tests:\n\n{tests}\n[BEGIN]\n'
  ),
  # Where there is no system role, the harness puts its system message first.
  'livecodebench': (
    f'{livecodebench.SYSTEM_MESSAGE}\n\n'
    '### Question:\n{question}\n\n### Format: {format}\n```python\n{starter}\n'
    '```\n\n### Answer: (use the provided format with backticks)\n\n'
  ),
  # MiniLLM's templates, Alpaca's wording.
  'minillm': (_ALPACA.format(paired='') + '{instruction}\n\n### Response:\n'),
  'minillm:input': (
    _ALPACA.format(
      paired=', paired with an input that provides further context'
    )
    + '{instruction}\n\n### Input:\n{input}\n\n### Response:\n'
  ),
  'lm-eval:gpqa_diamond_cot_zeroshot': (
    'What is the correct answer to this question:{question}\nChoices:\n'
    "(A) {A}\n(B) {B}\n(C) {C}\n(D) {D}\nLet's think step by step: "
  ),
}
_LCB_FORMAT = {
  'functional': (
    'You will use the following starter code to write the solution to the '
    'problem and enclose your code within delimiters.'
  ),
  'stdin': (
    'Read the inputs from stdin solve the problem and write the answer to '
    'stdout (do not directly test on the sample inputs). Enclose your code '
    'within delimiters as follows. Ensure that when the python program runs, '
    'it reads the inputs, runs the algorithm and writes output to STDOUT.'
  ),
}


@dataclasses.dataclass(frozen=True)
class Item:
  """One question.

  Attributes:
    item_id: unique within its benchmark.
    prompt: what the model reads.
    reference: what the grader needs.
    task: what is asked, without the template: of a leak this is what remains.
  """

  item_id: str
  prompt: str
  reference: Mapping[str, Any]
  task: str


class Tools:
  """What graders hold open; started when first needed, closed together."""

  def __init__(self, sandbox: sandbox_lib.Sandbox | None = None):
    self._sandbox = sandbox
    self._maths: maths.Checker | None = None

  @property
  def sandbox(self) -> sandbox_lib.Sandbox:
    if self._sandbox is None:
      self._sandbox = sandbox_lib.Sandbox()
    return self._sandbox

  @property
  def maths(self) -> maths.Checker:
    if self._maths is None:
      self._maths = maths.Checker()
    return self._maths

  def __enter__(self) -> Tools:
    return self

  def __exit__(self, *exc) -> None:
    if self._maths is not None:
      self._maths.close()


@dataclasses.dataclass(frozen=True)
class Benchmark:
  """One benchmark.

  Attributes:
    hub: dataset id, configuration ('' is the only one) and split; None if no
      dataset on the hub has these items in plain columns.
    files: where its file may be under the data directory, best first.
    columns: what its rows must have; tuples are alternatives.
    metric: 'accuracy' | 'pass@k' | 'rouge_l_stemmed_f'.
    stops: texts that end an answer.
    max_tokens: of an answer.
    to_item: (place in the file, row) to item, None for a row without an answer
      to grade against (one published MATH file has three).
    grade: (tools, item, completion) to (score in [0, 1], reason).
  """

  name: str
  hub: tuple[str, str, str] | None
  files: tuple[str, ...]
  columns: tuple[str | tuple[str, ...], ...]
  metric: str
  stops: tuple[str, ...]
  max_tokens: int
  to_item: Callable[[str, files.Row], Item | None]
  grade: Callable[[Tools, Item, str], tuple[float, str]]

  def load(self, data_dir: pathlib.Path | None) -> tuple[list[Item], list[str]]:
    """Every item in the file's order, and the places of rows left out.

    Args:
      data_dir: where the files are; None reads the hub.

    Raises:
      ValueError: one line that names file, line and what is wrong.
    """
    if data_dir is None:
      path, rows = self._from_hub()
    else:
      path = files.find(data_dir, self.files)
      rows = files.read(path, self.columns)
    items, left_out = [], []
    for where, row in rows:
      item = self.to_item(where, row)
      if item is None:
        left_out.append(where)
      else:
        items.append(item)
    if not items:
      raise ValueError(f'{path}: no row has an answer.')
    if self.name == 'vicuna':
      items = _with_answers(items, data_dir)
    seen: set[str] = set()
    for item in items:
      if item.item_id in seen:
        raise ValueError(f'{path}: the item {item.item_id!r} is there twice.')
      seen.add(item.item_id)
    return items, left_out

  def _from_hub(self) -> tuple[str, list[tuple[str, files.Row]]]:
    """Its rows through `datasets`, from the hub or what is cached of it."""
    if self.hub is None:
      raise ValueError(
        f'{self.name}: no dataset on the hub has its items; name a folder with '
        f'{" or ".join(self.files)} (--data_dir, config.domain.benchmark_dir).'
      )
    import datasets  # Takes a second.

    name, config, split = self.hub
    try:
      rows = list(datasets.load_dataset(name, config or None, split=split))
    except Exception as e:  # Hubs, gates and builders fail in many types.
      reason = (str(e).strip() or repr(e)).splitlines()[0][:200]
      raise ValueError(
        f'{self.name}: {name} cannot be read from the hub '
        f'({type(e).__name__}: {reason}). Log in if it is gated, or name a '
        'folder of files (--data_dir, config.domain.benchmark_dir).'
      ) from None
    place = f'{name}[{split}]'
    return place, files.checked(place, enumerate(rows, 1), self.columns)

  def require(self, tools: Tools) -> None:
    """Checks what grading needs, before anything is generated.

    Raises:
      ValueError: naming the missing package or isolation.
    """
    if self.metric == 'pass@k':
      tools.sandbox  # noqa: B018
    elif self.metric == 'rouge_l_stemmed_f':
      graders.rouge_l_stemmed_f('a', ['a'])
    elif self.grade is _grade_maths:
      tools.maths  # noqa: B018

  def cut(self, completion: str) -> str:
    """The completion up to the first stop text."""
    ends = [completion.find(s) for s in self.stops if s in completion]
    return completion[: min(ends)] if ends else completion


def _number(where: str) -> str:
  return where.rsplit(':', 1)[1]


def _verdict(verdict: graders.Verdict) -> tuple[float, str]:
  return float(verdict.correct), verdict.reason


def _gsm8k(where: str, row: files.Row) -> Item:
  question = files.text_field(where, row, 'question')
  try:
    gold = graders.gsm8k_gold(files.text_field(where, row, 'answer'))
  except ValueError as e:
    raise ValueError(f'{where}: {e}') from None
  prompt = PROMPTS['lm-eval:gsm8k'].format(question=question)
  return Item(_number(where), prompt, {'gold': gold}, question)


def _boxed(where: str, row: files.Row) -> Item | None:
  problem = files.text_field(where, row, 'problem', 'Problem')
  given = next((row[n] for n in ('answer', 'Answer') if n in row), None)
  solution = row.get('solution') or row.get('Solution')
  if given is None and isinstance(solution, str):
    given = graders.last_boxed(solution)
  gold = '' if given is None else str(given).strip()
  if not gold:
    return None
  name = str(row.get('unique_id') or row.get('ID') or _number(where))
  prompt = PROMPTS['boxed'].format(problem=problem)
  return Item(name, prompt, {'gold': gold}, problem)


def _humaneval(where: str, row: files.Row) -> Item:
  names = ('task_id', 'prompt', 'test', 'entry_point')
  field = {n: files.text_field(where, row, n) for n in names}
  return Item(
    field.pop('task_id'),
    PROMPTS['lm-eval:humaneval'].format(prompt=field['prompt']),
    field,
    field['prompt'],
  )


def _mbpp(where: str, row: files.Row) -> Item:
  text = files.text_field(where, row, 'text', 'prompt')
  test_list = files.list_field(where, row, 'test_list')
  setup = row.get('test_setup_code') or '\n'.join(row.get('test_imports') or ())
  tests = '\n'.join(test_list)
  try:
    functions, imports = code_grading.tested_functions(
      tests, files.text_field(where, row, 'code'), setup
    )
  except SyntaxError as e:
    raise ValueError(f'{where}: not Python ({e}).') from None
  prompt = PROMPTS['lm-eval:mbpp'].format(text=text, tests=tests)
  reference = {
    'tests': tests,
    'functions': functions,
    'setup': f'{imports}\n{setup}',
  }
  return Item(str(row['task_id']), prompt, reference, text)


def _livecodebench(where: str, row: files.Row) -> Item:
  cases = livecodebench.test_cases(where, row)
  kind = cases[0]['testtype']
  if any(c['testtype'] != kind for c in cases):
    raise ValueError(f'{where}: cases of two test types.')
  reference: dict[str, Any] = {'kind': kind}
  if kind == 'functional':
    name, calls = livecodebench.functional(where, row, cases)
    reference |= {'function': name, 'cases': calls}
  else:
    reference['cases'] = [(c['input'], c['output']) for c in cases]
  question = files.text_field(where, row, 'question_content')
  prompt = PROMPTS['livecodebench'].format(
    question=question,
    format=_LCB_FORMAT[kind],
    starter=row.get('starter_code') or '# YOUR CODE HERE',
  )
  return Item(str(row['question_id']), prompt, reference, question)


def _instruction(where: str, row: files.Row) -> Item:
  instruction = files.text_field(where, row, 'instruction')
  context = row.get('input') or row.get('context') or ''
  name = 'output' if row.get('output') is not None else 'response'
  references = row[name] if isinstance(row[name], list) else [row[name]]
  if not references or not all(isinstance(r, str) for r in references):
    raise ValueError(f'{where}: {name!r} must be a text or a list of texts.')
  template = PROMPTS['minillm:input' if context else 'minillm']
  prompt = template.format(instruction=instruction, input=context)
  task = f'{instruction}\n{context}'.strip()
  return Item(_number(where), prompt, {'references': references}, task)


def _vicuna(where: str, row: files.Row) -> Item:
  instruction = files.text_field(where, row, 'text')
  prompt = PROMPTS['minillm'].format(instruction=instruction)
  name = str(row['question_id'])
  return Item(name, prompt, {'references': ()}, instruction)


_VICUNA_ANSWERS = ('vicuna/reference_answer.jsonl', 'vicuna/answer_gpt35.jsonl')


def _with_answers(items: list[Item], data_dir: pathlib.Path) -> list[Item]:
  """VicunaEval's references are in a file of their own."""
  path = files.find(data_dir, _VICUNA_ANSWERS)
  answers: dict[str, list[str]] = {}
  for where, row in files.read(path, ('question_id', 'text')):
    text = files.text_field(where, row, 'text')
    answers.setdefault(str(row['question_id']), []).append(text)
  missing = [i.item_id for i in items if i.item_id not in answers]
  if missing:
    raise ValueError(f'{path}: no answer to the questions {missing[:5]}.')
  return [
    dataclasses.replace(i, reference={'references': answers[i.item_id]})
    for i in items
  ]


def _gpqa(where: str, row: files.Row) -> Item:
  def clean(name):  # As lm-eval's `preprocess`, which keeps brackets by now.
    text = files.text_field(where, row, name).strip()
    return text.replace(' [title]', '. ').replace('  ', ' ')

  question = files.text_field(where, row, 'Question')
  choices = [clean('Correct Answer')]
  choices += [clean(f'Incorrect Answer {i}') for i in (1, 2, 3)]
  # A fixed order for each question, whatever else is in the file.
  digest = hashlib.sha256(question.encode()).digest()
  order = random.Random(digest).sample(range(4), 4)
  prompt = PROMPTS['lm-eval:gpqa_diamond_cot_zeroshot'].format(
    question=question, **dict(zip('ABCD', (choices[i] for i in order)))
  )
  name = str(row.get('Record ID') or _number(where))
  gold = 'ABCD'[order.index(0)]
  return Item(name, prompt, {'gold': gold}, question)


def _grade_number(tools, item, completion):
  del tools
  return _verdict(graders.grade_number(completion, item.reference['gold']))


def _grade_maths(tools, item, completion):
  return _verdict(tools.maths.grade(completion, item.reference['gold']))


def _grade_choice(tools, item, completion):
  del tools
  return _verdict(graders.grade_choice(completion, item.reference['gold']))


def _grade_rouge(tools, item, completion):
  del tools
  score = graders.rouge_l_stemmed_f(completion, item.reference['references'])
  return score, 'rouge_l_stemmed_f'


def _grade_humaneval(tools, item, completion):
  return _verdict(
    code_grading.grade_humaneval(tools.sandbox, completion, **item.reference)
  )


def _grade_mbpp(tools, item, completion):
  return _verdict(
    code_grading.grade_mbpp(tools.sandbox, completion, **item.reference)
  )


def _grade_livecodebench(tools, item, completion):
  reference = dict(item.reference)
  if reference.pop('kind') == 'functional':
    grade = code_grading.grade_functional
  else:
    grade = code_grading.grade_stdin
  return _verdict(grade(tools.sandbox, completion, **reference))


BENCHMARKS = {
  b.name: b
  for b in (
    Benchmark(
      'gsm8k',
      ('openai/gsm8k', 'main', 'test'),
      ('gsm8k/test.jsonl',),
      ('question', 'answer'),
      'accuracy',
      ('Question:',),
      512,
      _gsm8k,
      _grade_number,
    ),
    Benchmark(
      'math',
      ('HuggingFaceH4/MATH-500', '', 'test'),
      (
        'math/test.jsonl',
        'math/math500_test.jsonl',
        'math/test.json',
        'math/rllm_math_train.json',
      ),
      (('problem',), ('answer', 'solution')),
      'accuracy',
      ('Problem:',),
      1024,
      _boxed,
      _grade_maths,
    ),
    Benchmark(
      'aime2024',
      ('HuggingFaceH4/aime_2024', '', 'train'),
      ('aime2024/test.jsonl', 'aime2024/aime2024.jsonl', 'aime2024/test.csv'),
      (('problem', 'Problem'), ('answer', 'Answer')),
      'accuracy',
      ('Problem:',),
      2048,
      _boxed,
      _grade_maths,
    ),
    Benchmark(
      'humaneval',
      ('openai/openai_humaneval', '', 'test'),
      ('humaneval/HumanEval.jsonl',),
      ('task_id', 'prompt', 'test', 'entry_point'),
      'pass@k',
      (),
      512,
      _humaneval,
      _grade_humaneval,
    ),
    Benchmark(
      'mbpp',
      ('google-research-datasets/mbpp', 'full', 'test'),
      ('mbpp/mbpp_test.jsonl', 'mbpp/mbpp.jsonl', 'mbpp/sanitized-mbpp.json'),
      ('task_id', ('text', 'prompt'), 'code', 'test_list'),
      'pass@k',
      ('[DONE]',),
      512,
      _mbpp,
      _grade_mbpp,
    ),
    Benchmark(
      'livecodebench',
      None,
      ('livecodebench/test.jsonl', 'livecodebench/test6.jsonl'),
      ('question_id', 'question_content', 'public_test_cases'),
      'pass@k',
      (),
      2048,
      _livecodebench,
      _grade_livecodebench,
    ),
    Benchmark(
      'dolly',
      None,
      ('dolly/valid1000_full.jsonl', 'dolly/valid.jsonl'),
      ('instruction', ('output', 'response')),
      'rouge_l_stemmed_f',
      (),
      512,
      _instruction,
      _grade_rouge,
    ),
    Benchmark(
      'vicuna',
      None,
      ('vicuna/question.jsonl',),
      ('question_id', 'text'),
      'rouge_l_stemmed_f',
      (),
      512,
      _vicuna,
      _grade_rouge,
    ),
    Benchmark(
      'gpqa_diamond',
      ('Idavidrein/gpqa', 'gpqa_diamond', 'train'),
      ('gpqa/gpqa_diamond.csv', 'gpqa/gpqa_diamond.jsonl'),
      (
        'Question',
        'Correct Answer',
        'Incorrect Answer 1',
        'Incorrect Answer 2',
        'Incorrect Answer 3',
      ),
      'accuracy',
      (),
      1024,
      _gpqa,
      _grade_choice,
    ),
  )
}


def get(name: str) -> Benchmark:
  if name not in BENCHMARKS:
    raise ValueError(f'benchmark {name!r}; there are {sorted(BENCHMARKS)}.')
  return BENCHMARKS[name]
