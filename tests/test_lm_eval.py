"""The same outputs graded here and by lm-evaluation-harness's own extraction.

Filters and metrics are read from the task files of the installed harness, so
this is its verdict and not our idea of it. docs/benchmarks.md has the counts.
"""

from collections import Counter
from fractions import Fraction
import importlib.resources
import importlib.util

import pytest
import yaml

from ioa_jax.evaluation import benchmark_items, graders
from tests.lm_eval_outputs import CHOICES, NUMBERS, TEXTS
from tests.outside import ROOT

pytestmark = [
  pytest.mark.slow,
  pytest.mark.skipif(
    importlib.util.find_spec('lm_eval') is None,
    reason='needs the extra "lm_eval"',
  ),
]
TASKS = {
  'gsm8k': 'gsm8k/gsm8k.yaml',
  'gpqa_diamond': 'gpqa/cot_zeroshot/_gpqa_cot_zeroshot_yaml',
}
OUTPUTS = {'gsm8k': NUMBERS, 'gpqa_diamond': CHOICES}
# In this order: who finds an output right. The reader is the truth.
COUNTED = (
  'outputs',
  'here as the reader',
  'flexible-extract as the reader',
  'strict-match as the reader',
  'here as flexible-extract',
)


class _Loader(yaml.SafeLoader):
  """Functions of a task are left out; nothing here needs them."""


_Loader.add_multi_constructor('!function', lambda loader, suffix, node: None)


def _task(name):
  path = importlib.resources.files('lm_eval') / 'tasks' / TASKS[name]
  return yaml.load(path.read_text(), _Loader)


def _theirs(task, output, gold, document):
  """Filter's name to verdict."""
  from lm_eval.api.metrics import exact_match_hf_evaluate
  from lm_eval.api.registry import get_filter
  import lm_eval.filters  # noqa: F401  (registers them)

  metric = {
    k: v
    for k, v in task['metric_list'][0].items()
    if k in ('ignore_case', 'ignore_punctuation', 'regexes_to_ignore')
  }
  found = {}
  for pipeline in task['filter_list']:
    first, *rest = pipeline['filter']
    assert [step['function'] for step in rest] == ['take_first']
    arguments = {k: v for k, v in first.items() if k != 'function'}
    extract = get_filter(first['function'])(**arguments)
    ((answer, *_),) = extract.apply([[output]], [document])
    score = exact_match_hf_evaluate([answer], [gold], **metric)
    found[pipeline['name']] = bool(score['exact_match'])
  return found


def _verdicts(name):
  """(output, verdicts) of every output, 'here' and 'reader' among them."""
  task = _task(name)
  for output in OUTPUTS[name]:
    if name == 'gsm8k':
      found = _theirs(task, output.text, f'#### {output.gold}', {})
      here = graders.grade_number(output.text, output.gold)
      value = lambda text: None if text is None else Fraction(text)
      reader = value(output.said) == value(output.gold)
    else:
      document = {'choices': TEXTS}
      found = _theirs(task, output.text, f'({output.gold})', document)
      here = graders.grade_choice(output.text, output.gold)
      reader = output.said == output.gold
    yield output, found | {'here': here.correct, 'reader': reader}


def _counts(name):
  counts = Counter(dict.fromkeys(COUNTED, 0))
  for _, v in _verdicts(name):
    counts['outputs'] += 1
    counts['here as the reader'] += v['here'] == v['reader']
    for theirs in ('flexible-extract', 'strict-match'):
      counts[f'{theirs} as the reader'] += v[theirs] == v['reader']
    counts['here as flexible-extract'] += v['here'] == v['flexible-extract']
  return [counts[c] for c in COUNTED]


@pytest.mark.parametrize('name', TASKS)
def test_where_the_harness_is_right_so_are_we(name):
  """But for a choice that is named by its text alone, which is no letter."""
  worse = [
    output.text
    for output, v in _verdicts(name)
    if v['flexible-extract'] == v['reader'] != v['here']
  ]
  assert worse == (['It is five.'] if name == 'gpqa_diamond' else [])


@pytest.mark.parametrize('name', TASKS)
def test_the_plain_prompt_is_the_harnesss(name):
  """With its templates' names of columns."""
  theirs = _task(name)['doc_to_text']
  ours = next(
    text
    for key, text in benchmark_items.PROMPTS.items()
    if key.startswith(f'lm-eval:{name}')
  )
  columns = {'Question': 'question'} | {
    f'choice{i}': letter for i, letter in enumerate('ABCD', 1)
  }
  for column, field in columns.items():
    theirs = theirs.replace('{{' + column + '}}', '{{' + field + '}}')
  assert theirs.replace('{{', '{').replace('}}', '}') == ours


def test_the_table_of_the_docs_is_what_was_counted():
  text = (ROOT / 'docs/benchmarks.md').read_text(encoding='utf-8')
  for name in TASKS:
    row = ' | '.join(map(str, _counts(name)))
    assert f'| {name} | {row} |' in text
