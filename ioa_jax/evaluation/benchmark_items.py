"""Rows of published benchmarks to items: what is asked, in which words.

Prompts are fixed and named (`PROMPTS`); golden files in the tests pin them.
Where lm-evaluation-harness has the task, the name says whose words they are.
math and aime2024 ask for a box, which no task of the harness does without
examples; dolly and vicuna are MiniLLM's, livecodebench its authors'.

An item is asked in one of `FORMS`.
"""

from __future__ import annotations

from collections.abc import Mapping
import dataclasses
import hashlib
import json
import pathlib
import random
from typing import Any

from ioa_jax.evaluation import code_grading, graders
from ioa_jax.evaluation import livecodebench as livecodebench_lib
from ioa_jax.runtime import row_files as files

# plain: the published prompt, which the model continues. chat: the same as a
# user's turn in the model's chat template. instruct: a user's turn that asks
# as one asks an assistant. trained: a user's turn as a run trains on it, the
# problem as scripts/domain_seeds.py writes it.
FORMS = ('plain', 'chat', 'instruct', 'trained')
_BOXED = 'Put the final answer within \\boxed{{}}.'
_ALPACA = (
  'Below is an instruction that describes a task{paired}. Write a response '
  'that appropriately completes the request.\n\n### Instruction:\n'
)
PROMPTS = {
  'lm-eval:gsm8k': 'Question: {question}\nAnswer:',
  # minerva_math with its own instruction, because there are no examples.
  'boxed': ('Problem:\n{problem}\n\n' + _BOXED + '\n\nSolution:'),
  # With examples, which show the box: minerva_math's words.
  'lm-eval:minerva_math': 'Problem:\n{problem}\n\nSolution:',
  'boxed:instruct': '{problem}\n\n' + _BOXED,
  'lm-eval:humaneval': '{prompt}',
  # The harness's, without the beginning of an answer that it puts after it.
  'lm-eval:humaneval_instruct': (
    'Write a solution to the following problem and make sure that it passes '
    'the tests:\n```python\n{prompt}\n```\n'
  ),
  'lm-eval:mbpp_instruct': (
    'You are an expert Python programmer, and here is your task:\n{text}\n'
    'Your code should pass these tests:\n{tests}'
  ),
  'lm-eval:mbpp': (
    'You are an expert Python programmer, and here is your task: {text} Your '
    'code should pass these tests:\n\n{tests}\n[BEGIN]\n'
  ),
  # Where there is no system role, the harness puts its system message first.
  'livecodebench': (
    f'{livecodebench_lib.SYSTEM_MESSAGE}\n\n'
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
    prompt: the published one.
    reference: what the grader needs.
    task: what is asked, without the template: of a leak this is what remains.
    instruct, trained: see `FORMS`.
    example: prompt and answer as an example before other items; '' if there is
      no worked answer.
    after_examples: the prompt behind examples; '' is the same one.
  """

  item_id: str
  prompt: str
  reference: Mapping[str, Any]
  task: str
  instruct: str
  trained: str
  example: str = ''
  after_examples: str = ''

  def text(self, form: str, examples: str = '') -> str:
    """What the model is asked in one of `FORMS`.

    Args:
      examples: `example` of other items, before a published prompt.
    """
    if form == 'instruct':
      return self.instruct
    if form == 'trained':
      return self.trained
    return examples + ((examples and self.after_examples) or self.prompt)


def _number(where: str) -> str:
  return where.rsplit(':', 1)[1]


def gsm8k(where: str, row: files.Row) -> Item:
  question = files.text_field(where, row, 'question')
  try:
    gold = graders.gsm8k_gold(files.text_field(where, row, 'answer'))
  except ValueError as e:
    raise ValueError(f'{where}: {e}') from None
  prompt = PROMPTS['lm-eval:gsm8k'].format(question=question)
  return Item(
    _number(where),
    prompt,
    {'gold': gold},
    question,
    instruct=PROMPTS['boxed:instruct'].format(problem=question),
    trained=question,
    example=f'{prompt} {row["answer"].strip()}\n\n',
  )


def boxed(where: str, row: files.Row) -> Item | None:
  problem = files.text_field(where, row, 'problem', 'Problem')
  given = next((row[n] for n in ('answer', 'Answer') if n in row), None)
  solution = row.get('solution') or row.get('Solution')
  if given is None and isinstance(solution, str):
    given = graders.last_boxed(solution)
  gold = '' if given is None else str(given).strip()
  if not gold:
    return None
  name = str(row.get('unique_id') or row.get('ID') or _number(where))
  shown = PROMPTS['lm-eval:minerva_math'].format(problem=problem)
  worked = isinstance(solution, str) and solution.strip()
  return Item(
    name,
    PROMPTS['boxed'].format(problem=problem),
    {'gold': gold},
    problem,
    instruct=PROMPTS['boxed:instruct'].format(problem=problem),
    trained=problem,
    example=f'{shown} {worked}\n\n' if worked else '',
    after_examples=shown,
  )


def humaneval(where: str, row: files.Row) -> Item:
  names = ('task_id', 'prompt', 'test', 'entry_point')
  field = {n: files.text_field(where, row, n) for n in names}
  name, prompt = field.pop('task_id'), field['prompt']
  # Seeds of code have words and tests, and HumanEval shows no tests.
  turn = PROMPTS['lm-eval:humaneval_instruct'].format(prompt=prompt)
  return Item(name, prompt, field, prompt, instruct=turn, trained=turn)


def mbpp(where: str, row: files.Row) -> Item:
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
  code = row['code'].replace('\r', '').strip()
  shown = '\n'.join([*(row.get('test_imports') or ()), tests])
  turn = f'{text.strip()}\nYour code should pass these tests:\n{shown}'
  return Item(
    str(row['task_id']),
    prompt,
    reference,
    text,
    instruct=PROMPTS['lm-eval:mbpp_instruct'].format(text=text, tests=tests),
    trained=turn.replace('\r', ''),
    example=f'{prompt}{code}\n[DONE]\n\n',
  )


def livecodebench(where: str, row: files.Row) -> Item:
  cases = livecodebench_lib.test_cases(where, row)
  kind = cases[0]['testtype']
  if any(c['testtype'] != kind for c in cases):
    raise ValueError(f'{where}: cases of two test types.')
  reference: dict[str, Any] = {'kind': kind}
  if kind == 'functional':
    name, calls = livecodebench_lib.functional(where, row, cases)
    reference |= {'function': name, 'cases': calls}
  else:
    reference['cases'] = [(c['input'], c['output']) for c in cases]
  question = files.text_field(where, row, 'question_content')
  prompt = PROMPTS['livecodebench'].format(
    question=question,
    format=_LCB_FORMAT[kind],
    starter=row.get('starter_code') or '# YOUR CODE HERE',
  )
  name = str(row['question_id'])
  return Item(name, prompt, reference, question, prompt, prompt)


def instruction(where: str, row: files.Row) -> Item:
  instruction = files.text_field(where, row, 'instruction')
  context = row.get('input') or row.get('context') or ''
  name = 'output' if row.get('output') is not None else 'response'
  references = row[name] if isinstance(row[name], list) else [row[name]]
  if not references or not all(isinstance(r, str) for r in references):
    raise ValueError(f'{where}: {name!r} must be a text or a list of texts.')
  template = PROMPTS['minillm:input' if context else 'minillm']
  prompt = template.format(instruction=instruction, input=context)
  task = f'{instruction}\n{context}'.strip()
  return Item(
    _number(where), prompt, {'references': references}, task, task, task
  )


def vicuna(where: str, row: files.Row) -> Item:
  instruction = files.text_field(where, row, 'text')
  prompt = PROMPTS['minillm'].format(instruction=instruction)
  name = str(row['question_id'])
  return Item(
    name, prompt, {'references': ()}, instruction, instruction, instruction
  )


VICUNA_ANSWERS = ('vicuna/reference_answer.jsonl', 'vicuna/answer_gpt35.jsonl')


def with_answers(items: list[Item], data_dir: pathlib.Path) -> list[Item]:
  """VicunaEval's references are in a file of their own."""
  path = files.find(data_dir, VICUNA_ANSWERS)
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


def gpqa(where: str, row: files.Row) -> Item:
  def clean(name):  # As lm-eval's `preprocess`, which keeps brackets by now.
    text = files.text_field(where, row, name).strip()
    return text.replace(' [title]', '. ').replace('  ', ' ')

  question = files.text_field(where, row, 'Question')
  choices = [clean('Correct Answer')]
  choices += [clean(f'Incorrect Answer {i}') for i in (1, 2, 3)]
  # A fixed order for each question, whatever else is in the file.
  digest = hashlib.sha256(question.encode()).digest()
  order = random.Random(digest).sample(range(4), 4)
  frame = PROMPTS['lm-eval:gpqa_diamond_cot_zeroshot']
  prompt = frame.format(
    question=question, **dict(zip('ABCD', (choices[i] for i in order)))
  )
  # Without the frame: its words, the same in every seed, would make each
  # lesson overlap with each probe.
  begin, end = frame.partition('{')[0], frame.rpartition('\n')[2]
  bare = prompt.removeprefix(begin).removesuffix(end).strip()
  name = str(row.get('Record ID') or _number(where))
  gold = 'ABCD'[order.index(0)]
  return Item(name, prompt, {'gold': gold}, question, prompt, bare)


def digest(value: Any) -> str:
  """SHA-256 of plain data, whatever the order of its fields."""
  text = json.dumps(value, sort_keys=True, default=repr)
  return hashlib.sha256(text.encode()).hexdigest()
