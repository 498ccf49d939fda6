"""Benchmark files, prompts, pass@k, and an evaluation that is interrupted.

The rows are made up here in the published formats. Golden prompts are rewritten
by `UPDATE_GOLDEN=1 pytest tests/test_benchmarks.py`.
"""

import base64
import csv
import dataclasses
import difflib
import gzip
import itertools
import json
import os
import pathlib
import pickle
import subprocess
import sys
import zlib

import jax
import pytest
import tokenizers

from ioa_jax.evaluation import answers as answers_lib
from ioa_jax.evaluation import benchmarks, intervals, scoring
from ioa_jax.evaluation import sandbox as sandbox_lib
from ioa_jax.models import decoder, huggingface
from ioa_jax.runtime import row_files
from ioa_jax.sampling import guides
from tests.outside import DATA, ROOT, needs_data

GOLDEN = pathlib.Path(__file__).parent / 'golden_prompts'


def _private(cases):
  """As LiveCodeBench publishes hidden cases."""
  text = json.dumps(cases)
  return base64.b64encode(zlib.compress(pickle.dumps(text))).decode()


def _cases(kind, *pairs):
  return [{'input': i, 'output': o, 'testtype': kind} for i, o in pairs]


HUMANEVAL = {
  'task_id': 'Made/0',
  'prompt': 'def add(a, b):\n    """Adds."""\n',
  'canonical_solution': '    return a + b\n',
  'test': 'def check(candidate):\n    assert candidate(1, 2) == 3\n',
  'entry_point': 'add',
}
MBPP = {
  'task_id': 7,
  'text': 'Write a function to double a number.',
  'code': 'def double(x):\r\n  return 2 * x',
  'test_setup_code': '',
  'test_list': ['assert double(2) == 4', 'assert double(0) == 0'],
  'challenge_test_list': [],
}
LCB_CALL = {
  'question_id': 'call',
  'question_content': 'Double a number.',
  'starter_code': 'class Solution:\n    def twice(self, x: int) -> int:\n',
  'public_test_cases': json.dumps(_cases('functional', ('2', '4'))),
  'private_test_cases': _private(_cases('functional', ('5', '10'))),
  'metadata': '{"func_name": "twice"}',
}
LCB_STDIN = {
  'question_id': 'stdin',
  'question_content': 'Add two numbers.',
  'starter_code': '',
  'public_test_cases': json.dumps(_cases('stdin', ('1 2\n', '3\n'))),
  'private_test_cases': _private(_cases('stdin', ('4 5\n', '9\n'))),
  'metadata': '{}',
}
ROWS = {
  'gsm8k': [{'question': 'What is 1+2?', 'answer': '1+2=<<1+2=3>>3\n#### 3'}],
  'math': [
    {'problem': 'What is $1+1$?', 'answer': '2'},
    {'problem': 'Half?', 'solution': r'It is \boxed{\frac{1}{2}}.'},
    {'problem': 'Which?', 'answer': None},
  ],
  'aime2024': [{'ID': '2024-I-1', 'Problem': 'How many?', 'Answer': 204}],
  'humaneval': [HUMANEVAL],
  'mbpp': [MBPP],
  'livecodebench': [LCB_CALL, LCB_STDIN],
  'dolly': [
    {'instruction': 'Name a color.', 'input': '', 'output': 'red'},
    {'instruction': 'Who?', 'context': 'Ann ran.', 'response': 'Ann'},
  ],
  'vicuna': [{'question_id': 1, 'text': 'How to rest?', 'category': 'a'}],
  'gpqa_diamond': [
    {
      'Question': 'Which is even?',
      'Correct Answer': ' two\n',
      'Incorrect Answer 1': 'one',
      'Incorrect Answer 2': 'three [a]',
      'Incorrect Answer 3': 'five',
      'Record ID': 'rec1',
    }
  ],
}


def _write(path, rows):
  path.parent.mkdir(parents=True, exist_ok=True)
  if path.suffix == '.csv':
    with path.open('w', newline='', encoding='utf-8') as file:
      writer = csv.DictWriter(file, rows[0])
      writer.writeheader()
      writer.writerows(rows)
  else:
    path.write_text(''.join(json.dumps(r) + '\n' for r in rows))


@pytest.fixture
def data(tmp_path):
  for name, rows in ROWS.items():
    _write(tmp_path / benchmarks.get(name).files[0], rows)
  _write(
    tmp_path / 'vicuna/answer_gpt35.jsonl',
    [{'question_id': 1, 'text': 'Sleep.'}],
  )
  return tmp_path


def _require_golden(path, got):
  if os.environ.get('UPDATE_GOLDEN'):
    path.write_text(got, encoding='utf-8')
  want = path.read_text(encoding='utf-8')
  assert got == want, '\n'.join(
    difflib.unified_diff(want.split('\n'), got.split('\n'), lineterm='')
  )


@pytest.mark.parametrize('name', benchmarks.BENCHMARKS)
def test_prompts_are_golden(data, name):
  items, _ = benchmarks.get(name).load(data)
  got = '\n----\n'.join(f'{i.prompt}\n----\n{dict(i.reference)}' for i in items)
  _require_golden(GOLDEN / f'{name}.txt', got)


@pytest.mark.parametrize('name', benchmarks.BENCHMARKS)
def test_other_forms_are_golden(data, name):
  items, _ = benchmarks.get(name).load(data)
  forms = [
    text
    for i in items
    for text in (i.text('instruct'), i.text('trained'), i.example)
  ]
  _require_golden(GOLDEN / f'{name}_forms.txt', '\n----\n'.join(forms))


@needs_data
@pytest.mark.parametrize(
  ('name', 'count'),
  [
    ('gsm8k', 1319),
    ('humaneval', 164),
    ('mbpp', 974),
    ('dolly', 1000),
    ('vicuna', 80),
  ],
)
def test_real_files_are_read_whole(name, count):
  assert len(benchmarks.get(name).load(DATA)[0]) == count


@needs_data
def test_the_instruction_prompt_is_the_one_published():
  """The file carries MiniLLM's own rendering of each prompt."""
  path = DATA / 'dolly/valid1000_full.jsonl'
  published = [json.loads(line)['prompt'] for line in path.open()]
  items, _ = benchmarks.get('dolly').load(DATA)
  # In the file's prompts with an input, the word Input is blanked out.
  restored = [p.replace('###     :', '### Input:') for p in published]
  assert [i.prompt for i in items] == restored


@pytest.mark.parametrize(
  ('content', 'message'),
  [
    (
      b'{"question": "a", "answer": "#### 1"}\n{"question": \n',
      r':2: not JSON',
    ),
    (b'[{"question": "a"},\n {]', r':2: not JSON'),
    (b'{"prompt": "a", "answer": "#### 1"}', "no column 'question'; there is"),
    (
      b'\n\n{"question": "a"}',
      r":3: no column 'answer'; there is \['question'",
    ),
    (
      b'{"question": "\xff", "answer": "#### 1"}',
      r':1: byte 0xff is not UTF-8',
    ),
    (
      b'{"question": 5, "answer": "#### 1"}',
      "'question' must be text, not int",
    ),
    (b'{"question": "a", "answer": "none"}', r':1: no number after ####'),
    (b'["a"]', 'a row must be an object, not str'),
    (b'"a"', 'a row must be an object, not str'),
    (b'', 'no rows'),
    (b'[' * 100_000, 'not JSON'),
  ],
)
def test_a_broken_file_is_one_line_that_says_where(tmp_path, content, message):
  path = tmp_path / 'gsm8k/test.jsonl'
  path.parent.mkdir()
  path.write_bytes(content)
  with pytest.raises(ValueError, match=message) as error:
    benchmarks.get('gsm8k').load(tmp_path)
  assert str(path) in str(error.value) and '\n' not in str(error.value)


@pytest.mark.parametrize(
  ('name', 'change', 'message'),
  [
    ('humaneval', {'test': None}, "'test' must be text, not NoneType"),
    ('humaneval', {'entry_point': ...}, "no column 'entry_point'"),
    ('mbpp', {'test_list': 'assert 1'}, "'test_list' must be a list of texts"),
    ('mbpp', {'test_list': ['assert (']}, 'not Python'),
    ('dolly', {'output': 5}, "'output' must be a text or a list"),
    ('livecodebench', {'public_test_cases': '{'}, "'public_test_cases' is no"),
    ('livecodebench', {'metadata': '{}'}, 'needs metadata.func_name'),
    (
      'livecodebench',
      {'public_test_cases': '[]', 'private_test_cases': ''},
      'no test cases',
    ),
    ('vicuna', {'question_id': 2}, r"no answer to the questions \['2'\]"),
    ('gpqa_diamond', {'Correct Answer': ''}, "'Correct Answer' must be text"),
  ],
)
def test_wrong_fields_are_named(data, name, change, message):
  row = {k: v for k, v in (ROWS[name][0] | change).items() if v is not ...}
  _write(data / benchmarks.get(name).files[0], [row])
  with pytest.raises(ValueError, match=message):
    benchmarks.get(name).load(data)


def test_a_pickle_that_calls_is_not_loaded(data, tmp_path):
  class Call:
    def __reduce__(self):
      return (pathlib.Path.touch, (tmp_path / 'called',))

  bad = base64.b64encode(zlib.compress(pickle.dumps(Call()))).decode()
  row = LCB_STDIN | {'private_test_cases': bad}
  _write(data / 'livecodebench/test.jsonl', [row])
  with pytest.raises(ValueError, match="'private_test_cases' is no list"):
    benchmarks.get('livecodebench').load(data)
  assert not (tmp_path / 'called').exists()


def test_missing_files_and_names(data, tmp_path):
  with pytest.raises(ValueError, match=r"benchmark 'gsm'; there are \['aime"):
    benchmarks.get('gsm')
  (data / 'gsm8k/test.jsonl').rename(data / 'gsm8k/tset.jsonl')
  with pytest.raises(ValueError, match=r"holds \['tset.jsonl'\]"):
    benchmarks.get('gsm8k').load(data)
  (data / 'humaneval/HumanEval.jsonl.gz').write_bytes(
    gzip.compress((data / 'humaneval/HumanEval.jsonl').read_bytes())[:-9]
  )
  (data / 'humaneval/HumanEval.jsonl').unlink()
  with pytest.raises(ValueError, match='cannot be read'):
    benchmarks.get('humaneval').load(data)
  _write(data / 'humaneval/HumanEval.jsonl', [HUMANEVAL] * 2)
  with pytest.raises(ValueError, match="item 'Made/0' is there twice"):
    benchmarks.get('humaneval').load(data)


def test_lines_end_at_newlines_only(tmp_path):
  path = tmp_path / 'a.jsonl'
  path.write_text(json.dumps({'a': 'x\u2028y'}, ensure_ascii=False))
  ((_, row),) = row_files.read(path, ['a'])
  assert row['a'] == 'x\u2028y'


@pytest.mark.parametrize(
  ('name', 'right', 'wrong'),
  [
    ('gsm8k', '1+2=3. The answer is 3.', 'The answer is 4.'),
    ('math', r'\boxed{2.0}', r'\boxed{3}'),
    ('aime2024', r'\boxed{204}', '204'),
    ('humaneval', '    return b + a\n', '    return a\n'),
    ('mbpp', 'def double(x):\n  return x + x\n[DONE]\nfoo(', 'double = None'),
    (
      'livecodebench',
      '```python\nclass Solution:\n  def twice(self, x):\n    return 2 * x\n'
      '```',
      '```python\nclass Solution:\n  def twice(self, x):\n    return 4\n```',
    ),
    ('dolly', 'red', 'blue'),
    ('vicuna', 'sleep', ''),
  ],
)
def test_each_benchmark_tells_right_from_wrong(data, name, right, wrong):
  benchmark = benchmarks.get(name)
  item = benchmark.load(data)[0][0]
  with benchmarks.Tools() as tools:
    try:
      benchmark.require(tools)
    except ValueError as e:
      pytest.skip(str(e))
    scores = [
      benchmark.grade(
        tools, item, guides.StopTexts(str, benchmark.stops).cut(text)
      )[0]
      for text in (right, wrong)
    ]
  assert scores == [1.0, 0.0]


def test_choices_are_shuffled_the_same_way_every_time(data):
  benchmark = benchmarks.get('gpqa_diamond')
  first, second = (benchmark.load(data)[0][0] for _ in range(2))
  assert first == second
  gold = first.reference['gold']
  assert f'({gold}) two\n' in first.prompt
  assert benchmark.grade(None, first, f'The answer is ({gold})')[0] == 1.0


def test_pass_at_k_is_the_share_of_subsets():
  for n, c in ((5, 2), (4, 0), (4, 4), (6, 1)):
    outcomes = [i < c for i in range(n)]
    for k in range(1, n + 1):
      subsets = list(itertools.combinations(outcomes, k))
      share = sum(any(s) for s in subsets) / len(subsets)
      assert scoring.pass_at_k(n, c, k) == pytest.approx(share)
  with pytest.raises(ValueError, match=r'pass@3: 1 correct of 2'):
    scoring.pass_at_k(2, 1, 3)


def test_bootstrap_covers_what_it_should():
  values = [0.0] * 50 + [1.0] * 50
  low, high = intervals.bootstrap_mean(values, seed=0)
  wilson = intervals.wilson(50, 100)
  assert low == pytest.approx(wilson[0], abs=0.02)
  assert high == pytest.approx(wilson[1], abs=0.02)
  assert intervals.bootstrap_mean(values, seed=0) == (low, high)
  assert intervals.bootstrap_mean([0.3] * 9, seed=1) == pytest.approx(
    (0.3, 0.3)
  )
  with pytest.raises(ValueError, match='no values'):
    intervals.bootstrap_mean([], seed=0)


def test_missing_answers_are_no_score(data):
  benchmark = benchmarks.get('gsm8k')
  items, _ = benchmark.load(data)
  asked = answers_lib.questions(
    benchmark, items, answers_lib.Asking('plain', max_tokens=9)
  )
  with pytest.raises(ValueError, match=r'1 of 1 items lack answers'):
    answers_lib.summarize(benchmark, asked, {}, ks=[1])


def test_answers_of_an_item_have_their_own_seeds():
  seeds = {
    answers_lib.answer_seed(s, b, i, n)
    for s in (0, 1)
    for b in ('a', 'b')
    for i in ('1', '11')
    for n in (0, 1)
  }
  assert len(seeds) == 16


@pytest.fixture(scope='module')
def model_dir(tmp_path_factory):
  """A model that has learned nothing, which is enough to be scored."""
  path = tmp_path_factory.mktemp('model') / 'model'
  vocabulary = {'<pad>': 0, '<eos>': 1} | {
    chr(c): i for i, c in enumerate(range(32, 127), 2)
  }
  tokenizer = tokenizers.Tokenizer(
    tokenizers.models.BPE(vocabulary, [], unk_token=' ')
  )
  tokenizer.decoder = tokenizers.decoders.Fuse()
  config = decoder.DecoderConfig(
    vocab_size=len(vocabulary),
    width=16,
    num_layers=1,
    num_heads=2,
    num_kv_heads=1,
    head_width=8,
    mlp_width=16,
  )
  params = decoder.init(config, jax.random.key(0))
  huggingface.save(
    path, config, params, dtype='float32', eos_token_id=1, pad_token_id=0
  )
  tokenizer.save(str(path / 'tokenizer.json'))
  return path


def _evaluate(*arguments):
  return subprocess.run(
    [sys.executable, 'scripts/evaluate.py', *arguments],
    cwd=ROOT,
    capture_output=True,
    text=True,
    timeout=300,
    env=os.environ | {'JAX_PLATFORMS': 'cpu', 'PYTHONPATH': str(ROOT)},
  )


@pytest.mark.slow
def test_an_interrupted_evaluation_continues(data, tmp_path, model_dir):
  if all(sandbox_lib.self_test(b) for b in sandbox_lib.BACKENDS):
    pytest.skip('no isolation for code here')
  rows = [
    {'question': f'What is {i}+1?', 'answer': f'#### {i + 1}'} for i in range(5)
  ]
  _write(data / 'gsm8k/test.jsonl', rows)
  out = tmp_path / 'scores'
  arguments = [
    f'--model={model_dir}',
    '--benchmarks=gsm8k,humaneval,dolly',
    f'--data_dir={data}',
    f'--output_dir={out}',
    '--max_tokens=8',
    '--batch_size=2',
    '--samples=2',
    '--k=1,2',
    '--temperature=1',
  ]
  done = _evaluate(*arguments)
  assert done.returncode == 0, done.stderr
  lines = (out / 'answers.jsonl').read_text().splitlines()
  results = json.loads((out / 'results.json').read_text())['benchmarks']
  assert len(lines) == 2 * (5 + 1 + 2)
  assert results['gsm8k']['items'] == 5
  assert set(results['humaneval']['pass_at_k']) == {'1', '2'}
  assert results['dolly']['metric'] == 'rouge_l_stemmed_f'
  assert 'pass@2' in done.stdout and 'gsm8k' in done.stdout
  # Killed in the middle of a line: what is whole stays, the rest is the same.
  kept = ''.join(line + '\n' for line in lines[:5])
  (out / 'answers.jsonl').write_text(kept + lines[5][:20])
  done = _evaluate(*arguments)
  assert done.returncode == 0, done.stderr
  again = (out / 'answers.jsonl').read_text().splitlines()
  key = lambda line: (json.loads(line)['item'], json.loads(line)['sample'])
  assert sorted(again, key=key) == sorted(lines, key=key)
  new = json.loads((out / 'results.json').read_text())['benchmarks']
  assert new['gsm8k'].pop('new_answers') == 5
  assert new['gsm8k']['score'] == results['gsm8k']['score']
  done = _evaluate(*arguments, '--seed=1')
  assert done.returncode == 2 and 'another configuration' in done.stderr


@pytest.mark.parametrize(
  ('arguments', 'message'),
  [
    (['--benchmarks=gsm'], "benchmark 'gsm'; there are"),
    (['--benchmarks=gsm8k', '--k=2'], '--k=2: numbers from 1 to --samples'),
    (['--benchmarks=gsm8k', '--samples=2'], 'set --temperature'),
    (['--benchmarks=gsm8k', '--data_dir=/nowhere'], '/nowhere'),
    (['--benchmarks=gsm8k', '--mesh=fsdp'], "--mesh='fsdp': AXIS=SIZE"),
    (['--benchmarks=gsm8k', '--protocol=minillm'], 'is for dolly and vicuna'),
    (
      ['--benchmarks=dolly', '--protocol=minillm', '--seed=1'],
      '--seed: --protocol=minillm sets this',
    ),
  ],
)
def test_mistakes_are_one_line(tmp_path, arguments, message):
  done = _evaluate(
    '--model=none',
    f'--data_dir={tmp_path}',
    f'--output_dir={tmp_path}/o',
    *arguments,
  )
  assert done.returncode == 2 and message in done.stderr, done.stderr
  assert 'Traceback' not in done.stderr
  assert not (tmp_path / 'o').exists()


def test_the_hub_gives_the_same_items_as_a_file(tmp_path):
  """A folder stands in for the hub: `datasets` reads both the same way."""
  rows = [
    {'question': f'What is {n} + 1?', 'answer': f'Add.\n#### {n + 1}'}
    for n in range(3)
  ]
  path = tmp_path / 'gsm8k' / 'test.jsonl'
  path.parent.mkdir()
  path.write_text('\n'.join(map(json.dumps, rows)))
  stand_in = dataclasses.replace(
    benchmarks.get('gsm8k'), hub=(str(path.parent), '', 'test')
  )
  assert stand_in.load(None) == stand_in.load(tmp_path)
  assert stand_in.load(None)[0][2].task == 'What is 2 + 1?'
  # Fields and splits are checked as a file's are.
  wrong = dataclasses.replace(stand_in, columns=('problem',))
  with pytest.raises(ValueError, match="no column 'problem'; there is"):
    wrong.load(None)
  gone = dataclasses.replace(stand_in, hub=(str(path.parent), '', 'train'))
  with pytest.raises(ValueError, match='cannot be read from the hub'):
    gone.load(None)
  with pytest.raises(ValueError, match='no dataset on the hub has its items'):
    benchmarks.get('vicuna').load(None)
