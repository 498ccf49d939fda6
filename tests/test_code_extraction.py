"""Code out of chat: what a reader would take for the answer is what runs."""

import time

import pytest

from ioa_jax.evaluation import code_extraction, code_grading

CODE = 'def sq(x):\n    return x * x\n'
# Answers in which `sq` squares, by how they are written. To add one, add a
# line.
RIGHT = {
  'bare': CODE,
  'bare_and_stray_fence': f'{CODE}```',
  'bare_fence_and_words': f'{CODE}```\nThis squares x.\n',
  'bare_fence_and_usage': f'{CODE}```\nUsage:\n```python\nprint(sq(2))\n```',
  'opening_fence_only': f'```python\n{CODE}',
  'words_around_bare_code': f'Sure! Here:\n\n{CODE}\nThis squares x and retu',
  'one_word_before': f'Answer\n{CODE}',
  'a_note_before': f'Note: this\n{CODE}',
  'cut_in_a_call': f'{CODE}\nprint(sq(2',
  'cut_in_a_docstring': f'{CODE}\ndef other(y):\n    """An unfinished',
  'cut_in_a_block': f'```python\n{CODE}\n# test\nprint(sq(2',
  'no_language': f'```\n{CODE}```',
  'py3': f'```py3\n{CODE}```',
  'capital': f'```Python\n{CODE}```',
  'attributes': f'```python title="sq.py"\n{CODE}```',
  'braces': f'```{{.python}}\n{CODE}```',
  'tildes': f'~~~python\n{CODE}~~~',
  'four_backticks': f'````python\n{CODE}````',
  'crlf': f'```python\n{CODE}```\n'.replace('\n', '\r\n'),
  'fence_on_the_last_line': f'```python\n{CODE.rstrip()}```\nDone.',
  'end_of_text_mark': f'```python\n{CODE}```<|im_end|>',
  'in_a_list': (
    '1. Code:\n   ```python\n   def sq(x):\n       return x * x\n   ```\n'
  ),
  'indented_code': 'It is:\n\n    def sq(x):\n        return x * x\n\nDone.',
  'backticks_in_a_docstring': (
    '```python\ndef sq(x):\n  """Doc.\n\n  ```\n  sq(2)\n  ```\n  """\n'
    '  return x * x\n```\nDone.'
  ),
  'backticks_in_a_string': (
    '```python\ndef sq(x):\n    mark = "```"\n    return x * x\n```'
  ),
  'other_languages_first': (
    f'```bash\npython a.py\n```\n```json\n{{"a": 1}}\n```\n```python\n{CODE}```'
  ),
  'bash_behind': f'```python\n{CODE}```\nRun:\n```bash\npython a.py\n```\n',
  'test_behind': f'```python\n{CODE}```\n```python\nassert sq(2) == 4\n```',
  'draft_first': f'```python\ndef sq(x): return x\n```\n```python\n{CODE}```',
  'helper_first': (
    '```python\ndef mul(a, b):\n    return a * b\n```\n'
    '```python\ndef sq(x):\n    return mul(x, x)\n```'
  ),
  'helper_last': (
    '```python\ndef sq(x):\n    return mul(x, x)\n```\nwith\n'
    '```python\ndef mul(a, b):\n    return a * b\n```'
  ),
  'imports_and_constants_first': (
    '```python\nfrom math import pow as p\nK = 2\nprint(input())\n```\n'
    '```python\ndef sq(x):\n    return int(p(x, K))\n```'
  ),
  'words_between': (
    'import math\n\nNow:\n\ndef sq(x):\n    return int(math.pow(x, 2))\n'
  ),
  'lambda': '```bash\nls\n```\n```python\nsq = lambda x: x * x\n```',
  'thoughts': f'<think>\n```python\ndef sq(x): return 0\n```\n</think>\n{CODE}',
  'thoughts_opened_by_the_template': (
    f'so ```python\ndef sq(x): return 0\n```\n</think>\n```\n{CODE}```'
  ),
  'another_language_named': f'```text\n{CODE}```',
}
WRONG = {
  'nothing': '',
  'words': 'I cannot do that.',
  'thoughts_without_end': f'<think>\n```python\n{CODE}```',
  'syntax_error_in_a_closed_block': f'```python\n{CODE})\n```',
  'corrected_into_a_wrong_one': (
    f'```python\n{CODE}```\nBetter:\n```python\ndef sq(x): return x\n```'
  ),
  'broken_correction': (
    f'```python\n{CODE}```\nBetter:\n```python\ndef sq(x): return x +\n```'
  ),
}
PROMPT = (
  'from typing import List\n\n\ndef total(xs: List[int]) -> int:\n'
  '    """ Sum of xs.\n    >>> total([1, 2])\n    3\n    """\n'
)
BODY = '    return sum(xs)\n'
RIGHT_BODIES = {
  'body': BODY,
  'blank_line_first': f'\n{BODY}',
  'fence_behind': f'{BODY}```\n',
  'fence_and_words_behind': f'{BODY}```\n\nThis adds them.\n',
  'example_behind': f'{BODY}\nExample:\n```python\nprint(total([1, 2]))\n```\n',
  'words_behind': f'{BODY}\nExample: total([1, 2]) is 3.\n',
  'program_behind': f'{BODY}\n\ndef main():\n    print(input())\n\nmain()\n',
  'wrong_function_behind': (
    f'{BODY}```\nBetter?\n```python\ndef total(xs):\n    return 0\n```'
  ),
  'helper_behind': (
    '    return helper(xs)\n\ndef helper(xs):\n    return sum(xs)\n'
  ),
  'cut_behind': f'{BODY}\n    # unreachable ( babble\n    x = (',
  'indent_stripped': 'return sum(xs)\n',
  'first_indent_stripped': (
    't = 0\n    for x in xs:\n        t += x\n    return t'
  ),
  'all_indent_stripped': 't = 0\nfor x in xs:\n    t += x\nreturn t',
  'body_in_a_fence': f'```python\n{BODY}```',
  'bare_body_in_a_fence': '```python\nreturn sum(xs)\n```',
  'whole_function': f'{PROMPT}{BODY}',
  'whole_function_in_a_fence': f'Here:\n```python\n{PROMPT}{BODY}```',
  'whole_function_in_words': (
    f'Here:\n\ndef total(xs: List[int]) -> int:\n{BODY}\nThat is all'
  ),
}
WRONG_BODIES = {
  'nothing': '',
  'comment': '    # to do\n',
  'words': 'The answer is 3.',
  'wrong_body_and_right_function': (
    f'    return 0\n```\nor\n```python\ndef total(xs):\n{BODY}```'
  ),
}


def _function(source, name):
  """What a source makes of a name; these texts are our own."""
  names = {}
  try:
    exec(source, names)
  except Exception:  # A wrong answer may fail in any way.
    return None
  return names.get(name)


def _squares(text):
  source = code_grading.extract_code(text, 'sq') or text
  function = _function(source, 'sq')
  return function is not None and function(3) == 9


@pytest.mark.parametrize('name', RIGHT)
def test_right_code_is_found(name):
  assert _squares(RIGHT[name]), code_grading.extract_code(RIGHT[name], 'sq')


@pytest.mark.parametrize('name', WRONG)
def test_nothing_else_is_credited(name):
  text = code_extraction.answer(WRONG[name])
  assert not _squares(text)


@pytest.mark.parametrize('name', [*RIGHT_BODIES, *WRONG_BODIES])
def test_bodies_and_whole_functions(name):
  text = {**WRONG_BODIES, **RIGHT_BODIES}[name]
  if name in RIGHT_BODIES and name in WRONG_BODIES:
    pytest.fail(f'{name!r} is in both tables')
  source = code_grading.function_source(PROMPT, text, 'total')
  function = _function(source, 'total')
  right = function is not None and function([1, 2]) == 3
  assert right is (name in RIGHT_BODIES), source


PROGRAM = 'print(sum(map(int, input().split())))\n'


@pytest.mark.parametrize(
  'text',
  [
    PROGRAM,
    f'Input:\n```\n1 2\n```\nso\n```py\n{PROGRAM}```\nOutput:\n```\n3\n```',
    f'```python\nprint(0)\n```\nNo:\n```python\n{PROGRAM}```',
    f'{PROGRAM}```\nThis adds.',
    f'Here it is:\n\n{PROGRAM}\nIt adds them.',
    f'```\n{PROGRAM}```',
    f'```python\n{PROGRAM}\nprint(su',
  ],
)
def test_the_last_python_block_is_the_program(text):
  assert code_extraction.program_code(text).strip() == PROGRAM.strip()


def test_a_closed_block_is_taken_as_it_is():
  text = f'```python\n{PROGRAM})\n```\n{PROGRAM}'
  assert code_extraction.program_code(text) == f'{PROGRAM})\n'


def test_extraction_is_not_slow():
  start = time.monotonic()
  for text in (
    'prose and (more of it\n' * 800,
    '```python\n' * 500,
    '```python\n' + 'x = (1,\n' * 500,
    CODE + 'Some words behind it.\n' * 800,
    '```' * 20_000,
  ):
    code_grading.extract_code(text, 'sq')
    code_extraction.program_code(text)
  assert time.monotonic() - start < 20


def test_code_is_taken_from_the_block_that_defines_it():
  text = 'First:\n```python\ndef g(): pass\n```\n```\ndef f(x): return 1\n```\n'
  assert code_grading.extract_code(text, 'f') == 'def f(x): return 1\n'
  assert code_grading.extract_code(text) == 'def g(): pass\n'
  assert code_grading.extract_code('```py\nx = 1', 'f') == 'x = 1'
  assert code_grading.extract_code('no code') is None


def test_a_continuation_ends_where_the_body_does():
  prompt = 'def f(x):\n  """Doc."""\n'
  source = code_grading.function_source(
    prompt, '  return x\n\nprint(f(1))\n  more\n', 'f'
  )
  assert source == prompt + '  return x\n\n'
  whole = '```python\ndef f(x):\n  return 2\n```'
  assert code_grading.function_source(prompt, whole, 'f').endswith(
    '\n\ndef f(x):\n  return 2\n\n'
  )
