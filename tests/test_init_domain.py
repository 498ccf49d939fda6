"""From a file of problems to a configuration that a dry run accepts."""

import json
import os
import re
import subprocess
import sys
import types

import datasets
import pyarrow as pa
from pyarrow import parquet
import pytest

from ioa_jax import config as config_lib
from ioa_jax import pipeline
from ioa_jax.domains import seed_sources, taxonomy, text
from ioa_jax.evaluation import final_answers
from ioa_jax.identifier import seed_columns
from ioa_jax.phases import first_config
from tests import faulty_server, word_problem_teacher
from tests.test_generate import ROOT
from tests.test_text_pipeline import write_student


def init(*many):
  """Starts `ioa init` with each of these options; one process imports once."""
  done = subprocess.run(
    [sys.executable, '-m', 'tests.forked_commands'],
    cwd=ROOT,
    capture_output=True,
    text=True,
    input=json.dumps([['init', *map(str, options)] for options in many]),
    timeout=600,
    check=True,
    env=os.environ | {'JAX_PLATFORMS': 'cpu'},
  )
  return [
    types.SimpleNamespace(returncode=code, stdout=out, stderr=error)
    for code, out, error in json.loads(done.stdout)
  ]


def write_lines(path, rows):
  path.write_text(''.join(json.dumps(row) + '\n' for row in rows))
  return path


def sums(count=100, units=('sums/of_two', 'sums/of_three')):
  return [
    {
      'topic': unit,
      'question': f'{unit}: what is {n} + 1?',
      'answer': n + 1,
    }
    for n in range(count)
    for unit in units
  ]


@pytest.fixture(scope='module')
def student(tmp_path_factory):
  path = tmp_path_factory.mktemp('student')
  write_student(path)
  return path


def check(output, student):
  """What `distill --dry_run` does with it."""
  config = config_lib.load(
    str(output / 'config.py'), {'student.model': str(student)}
  )
  projected = pipeline.dry_run(config)
  assert re.search(r'total: .* requests, .* prompt tokens', projected)
  return config


CHOICES = [f'({"ABCD"[n % 4]})' for n in range(40)]
KINDS = {
  'numbers': (lambda n: str(n), 'number', 'answer'),
  'numbers as JSON': (lambda n: n / 2, 'number', 'answer'),
  'money': (lambda n: f'${n + 1},000', 'number', 'answer'),
  'letters': (lambda n: 'ABCD'[n % 4], 'choice', 'answer'),
  'formulas': (lambda n: f'\\frac{{{n}}}{{7}}', 'maths', 'answer'),
  'numbers and formulas': (
    lambda n: ['x^2', f'{n}x', f'\\sqrt{{{n}}}', str(n)][n % 4],
    'maths',
    '',
  ),
  'tests': (lambda n: f'assert double({n}) == {2 * n}', 'code', 'answer'),
  'a few words': (lambda n: f'red {"abc"[n % 3]}', 'last_line', 'answer'),
  'prose': (
    lambda n: f'Plants of kind {n} need light, water and warm soil to grow.',
    'rouge_l',
    'answer',
  ),
  'worked numbers': (lambda n: f'Add {n}.\n#### {n}', 'number', 'solution'),
  'worked formulas': (
    lambda n: f'So it is $\\boxed{{x^{n}}}$.',
    'maths',
    'solution',
  ),
  'worked letters': (
    lambda n: f'It floats. The answer is ({"ABCD"[n % 4]}).',
    'choice',
    'solution',
  ),
}


@pytest.mark.parametrize('kind', KINDS)
def test_the_grader_that_reads_the_answers_is_found(kind):
  make, grader, where = KINDS[kind]
  rows = [
    (f'f:{n}', {'prompt': f'Question {n}?', 'answer': make(n)})
    for n in range(40)
  ]
  found = seed_columns.recognise(rows, {})
  assert found.grader == grader, found
  if where:
    assert found.columns[where] == 'answer', found
  if grader not in ('code', 'maths'):
    # What was found by looks is what the domain takes.
    columns = found.columns | {'module': 'm'}
    tagged = [(w, row | {'m': 'm'}) for w, row in rows]
    used = seed_columns.usable(
      tagged, columns, final_answers.KINDS[grader](), 3
    )
    assert len(used.seeds) == 40 and not used.left_out


def test_a_worked_answer_stands_beside_a_final_one():
  rows = [
    ('f', {'problem': f'{n}?', 'solution': f'Add up {n}.', 'answer': n})
    for n in range(20)
  ]
  columns = seed_columns.recognise(rows, {}).columns
  assert columns['answer'] == 'answer' and columns['solution'] == 'solution'


def test_named_columns_come_before_guesses():
  rows = [
    ('f', {'question': '?', 'a': '1', 'answer': 'B', 'who': f'{n}'})
    for n in range(9)
  ]
  found = seed_columns.recognise(rows, {'answer': 'a', 'module': ''})
  assert found.columns['answer'] == 'a' and found.grader == 'number'
  assert found.unread == ('answer', 'who')
  with pytest.raises(seed_columns.Unrecognised, match='which no seed has'):
    seed_columns.recognise(rows, {'answer': 'b'})
  with pytest.raises(seed_columns.Unrecognised, match=r'columns\.problem=NAME'):
    seed_columns.recognise([('f', {'a': '1'})], {})


def test_names_of_their_own_for_every_row_are_no_tags():
  rows = [
    ('f', {'question': f'{n}?', 'answer': n, 'category': f'c{n}'})
    for n in range(40)
  ]
  found = seed_columns.recognise(rows, {})
  assert found.columns['module'] == ''
  assert '40 different texts' in found.reasons['module']


@pytest.mark.parametrize('count', range(40))
def test_probes_are_counted_as_the_domain_makes_them(count):
  seeds = [
    (f'f:{n}', {'module': 'm', 'problem': f'{n}?', 'answer': n})
    for n in range(count)
  ]
  columns = {k: k for k in text.COLUMNS}
  made = lambda least: text.TextDomain(
    seeds,
    None,
    columns=columns,
    grader=final_answers.Number(),
    min_probes=least,
    max_probes=99,
  )
  probes = text.num_probes(count)
  if count and probes:
    assert made(probes)
  if count:
    with pytest.raises(text.DomainError, match='Add seeds'):
      made(probes + 1)
  assert text.num_probes(text.seeds_needed(probes)) == probes


BAD = [
  {'topic': 'sums/of_two', 'question': 'what is it?', 'answer': 'a lot'},
  {'topic': 'sums/of_two', 'question': '  ', 'answer': 1},
  {'topic': 'rare', 'question': 'What is 1 + 1?', 'answer': 2},
  {'topic': 'sums/of_two', 'question': 'half \ud800', 'answer': 2},
]
FEW = [{'topic': 'rare', 'question': f'{n}?', 'answer': n} for n in range(3)]
NEW = [{'topic': 'new', 'question': f'{n}!', 'answer': n} for n in range(30)]
UNITS = """modules:
- name: sums/of_two
- {name: rare, prerequisites: [sums/of_two]}
- {name: sums/of_three, prerequisites: [rare]}
"""
PROMPTS = [{'prompt': f'What is {n} + 1?'} for n in range(20)]
UNTAGGED = [{'q': r['question'], 'answer': r['answer']} for r in sums(60)]
NAMED = '--config.domain.columns.problem=q'
LABEL, NUMBER = '--label', '--config.domain.grader=number'
MODEL = '--config.teacher.model=m'
# A name, seeds, further options, and what the error says; '' is none.
STARTS = [
  ('whole', sums(), [], ''),
  ('again', sums(), [], 'you may have corrected it'),
  ('bad', sums(28) + BAD, [], ''),
  ('given', sums(50) + FEW + NEW, ['--config.domain.taxonomy=units.yaml'], ''),
  ('untagged', UNTAGGED, [NAMED], ''),
  ('no answer', PROMPTS, [], '--label --config.domain.grader=number'),
  ('no grader', PROMPTS, [LABEL, MODEL], 'say how answers are compared'),
  ('no model', PROMPTS, [LABEL, NUMBER], 'teacher.model is empty'),
  (
    'code',
    PROMPTS,
    [LABEL, '--config.domain.grader=code', MODEL],
    'add a column of tests',
  ),
  (
    'greedy',
    PROMPTS,
    [LABEL, NUMBER, MODEL, '--config.teacher.temperature=0'],
    'would be one',
  ),
  ('nothing to label', sums(), [LABEL], 'the seeds have answers'),
  ('nothing to ask', sums(), ['--dry_run'], 'is for --label'),
]


@pytest.fixture(scope='module')
def started(tmp_path_factory):
  """Each start's output directory and what it said."""
  root = tmp_path_factory.mktemp('starts')
  (root / 'units.yaml').write_text(UNITS)
  asked, outputs = [], {}
  for name, rows, options, _ in STARTS:
    seeds = write_lines(root / f'{name}.jsonl', rows)
    outputs[name] = root / ('whole' if name == 'again' else name)
    options = [x.replace('=units', f'={root}/units') for x in options]
    asked.append(
      [f'--seeds={seeds}', f'--output_dir={outputs[name]}', *options]
    )
  done = dict(zip(outputs, init(*asked), strict=True))
  return {name: (outputs[name], done[name]) for name in outputs}


@pytest.mark.parametrize('name', [x[0] for x in STARTS])
def test_it_ends_well_or_says_what_to_do(started, name):
  (message,) = [x[3] for x in STARTS if x[0] == name]
  output, done = started[name]
  if not message:
    assert done.returncode == 0, done.stderr
    return
  assert done.returncode == 2 and message in done.stderr
  assert len(done.stderr.splitlines()) == 1
  assert name == 'again' or not output.exists()


def commands(done):
  return [x.strip() for x in done.stdout.splitlines() if x.startswith('  ioa ')]


def test_what_it_writes_a_dry_run_accepts(started, student):
  output, done = started['whole']
  config = check(output, student)
  assert config.domain.seeds.endswith('whole.jsonl')  # Nothing was changed.
  assert config.domain.columns.problem == 'question'
  assert config.domain.grader == 'number'
  assert config.domain.min_probes == config.gate.min_probes == 8
  modules = taxonomy.read(output / 'taxonomy.yaml')
  assert {m.name for m in modules} == {'sums/of_two', 'sums/of_three'}
  settings = [
    x for x in (output / 'config.py').read_text().splitlines() if "': " in x
  ]
  assert 12 <= len(settings) <= 20
  assert all(re.search(r',  # \S', x) for x in settings), settings
  assert config.train.total_steps == 'auto'
  (counted,) = re.findall(r"'auto' is ([\d,]+): ", pipeline.dry_run(config))
  (said,) = re.findall(r'^(\d+) steps of 4 rows', done.stdout, re.M)
  # Tokens are guessed there, as this student is another one.
  assert int(said) == pytest.approx(int(counted.replace(',', '')), rel=0.5)
  assert re.search(r'total: 40 to [\d,]+ requests', done.stdout)
  said = commands(done)
  assert [x.split()[1] for x in said] == ['distill', 'distill', 'generate']
  assert said[0].endswith('--dry_run') and '--compare' in said[2]


def test_what_cannot_be_used_is_listed_and_left_out(started, student):
  output, done = started['bad']
  left_out = [
    json.loads(x) for x in (output / 'left_out.jsonl').read_text().splitlines()
  ]
  assert [x['seed']['question'] for x in left_out][:3] == [
    'what is it?',
    '  ',
    'half ?',
  ]
  assert "'rare' has too few different seeds, 1" in left_out[3]['reason']
  config = check(output, student)
  # 28 seeds give a module 3 probes in each split, the fewest that say a thing.
  assert config.domain.min_probes == config.gate.min_probes == 3
  assert '78 seeds give a module 8' in done.stdout
  assert len((output / 'seeds.jsonl').read_text().splitlines()) == 56


def test_a_given_taxonomy_loses_the_modules_without_seeds(started, student):
  output, done = started['given']
  assert 'without what has too few seeds: rare.' in done.stdout
  two, three = taxonomy.read(output / 'taxonomy.yaml')
  assert two.name == 'sums/of_two' and three.name == 'sums/of_three'
  # What stood on it stands on what it stood on.
  assert three.prerequisites == ('sums/of_two',)
  config = check(output, student)
  assert config.domain.taxonomy == str(output / 'taxonomy.yaml')
  left_out = (output / 'left_out.jsonl').read_text()
  assert left_out.count('is not in the taxonomy') == 30


def test_seeds_without_tags_are_one_module_until_they_are_mapped(
  started, student
):
  output, done = started['untagged']
  check(output, student)
  (module,) = taxonomy.read(output / 'taxonomy.yaml')
  assert module.name == output.name
  rows = seed_sources.read('file', str(output / 'seeds.jsonl'), '', ())
  assert len(rows) == 120
  mapping, again, projecting = commands(done)
  assert mapping.startswith('ioa map-seeds ') and '--max_units=3' in mapping
  assert again.startswith('ioa init ') and 'taxonomy=' in again
  assert projecting.endswith('--dry_run')


def _lines(path, rows):
  return write_lines(path / 'seeds.jsonl', rows)


def _messages(path, rows):
  chats = [
    {
      'topic': r['topic'],
      'messages': [
        {'role': 'system', 'content': 'Be brief.'},
        {'role': 'user', 'content': r['question']},
        {'role': 'assistant', 'content': f'The answer is {r["answer"]}.'},
      ],
    }
    for r in rows
  ]
  return write_lines(path / 'chats.jsonl', chats)


def _csv(path, rows):
  lines = [','.join(rows[0])] + [','.join(map(str, r.values())) for r in rows]
  (path / 'seeds.csv').write_text('\n'.join(lines))
  return path / 'seeds.csv'


def _parquet(path, rows):
  parquet.write_table(pa.Table.from_pylist(rows), path / 'seeds.parquet')
  return path / 'seeds.parquet'


def _saved(path, rows):
  datasets.Dataset.from_list(rows).save_to_disk(path / 'saved')
  return path / 'saved'


@pytest.mark.parametrize(
  'write', [_lines, _messages, _csv, _parquet, _saved], ids=lambda f: f.__name__
)
def test_every_form_of_file_comes_to_the_same_seeds(tmp_path, write):
  seeds = write(tmp_path, sums(10))
  config = config_lib.get({'domain.seeds': str(seeds)})
  rows = seed_columns.read(config.domain, {})
  found = seed_columns.recognise(rows, {})
  used = seed_columns.usable(rows, found.columns, final_answers.Number(), 1)
  assert found.grader == 'number' and found.columns['module'] == 'topic'
  assert [(s.module, s.problem, s.answer) for s in used.seeds] == [
    (r['topic'], r['question'], str(r['answer'])) for r in sums(10)
  ]


def test_names_of_strangers_stay_text(tmp_path):
  name = "a\n  import os\u2028', 1/0"
  found = {f'domain.{n}': (name, name) for n in ('name', 'seeds')}
  source = first_config.source(found, [name])
  scope = {}
  exec(compile(source, 'config.py', 'exec'), scope)
  assert scope['get_config']()['domain']['name'] == name


def respond(body, headers):
  """Right, but it cannot make up its mind about one prompt."""
  question = body['messages'][-1]['content']
  answer = word_problem_teacher.solve(question)
  if 'has 7 apples' in question:
    respond.wavering += 1
    answer += respond.wavering
  return (
    200,
    {},
    faulty_server.chat_completion('r', f'Count.\nThe answer is {answer}.'),
  )


def test_prompts_alone_are_labelled_by_a_majority(tmp_path, student):
  respond.wavering = 0
  rows = [
    {'module': r['module'], 'prompt': r['problem']}
    for r in word_problem_teacher.seeds()
  ]
  seeds = write_lines(tmp_path / 'prompts.jsonl', rows)
  output = tmp_path / 'mine'
  with faulty_server.FaultyServer(respond=respond) as server:
    options = [
      f'--seeds={seeds}',
      f'--output_dir={output}',
      '--label',
      '--samples=3',
      '--config.domain.grader=number',
      '--config.teacher.model=teacher',
      f'--config.teacher.base_url={server.url}',
    ]
    projected, done = init(
      [*options, f'--output_dir={tmp_path / "no"}', '--dry_run'], options
    )
    assert '240 requests' in projected.stdout, projected.stderr
    assert not (tmp_path / 'no').exists()
    assert done.returncode == 0, done.stderr
    assert len(server.bodies) == 240
    (output / 'config.py').unlink()
    (output / 'taxonomy.yaml').unlink()
    (again,) = init(options)
    assert again.returncode == 0, again.stderr
    assert len(server.bodies) == 240  # All of it is in the ledger.
  unsure = [
    json.loads(x) for x in (output / 'unsure.jsonl').read_text().splitlines()
  ]
  assert len(unsure) == 2 and all(
    'has 7 apples' in x['problem'] for x in unsure
  )
  assert all(len(set(x['said'])) == 3 and x['agreed'] == 1 for x in unsure)
  seeds = [
    json.loads(x) for x in (output / 'seeds.jsonl').read_text().splitlines()
  ]
  assert len(seeds) == 78
  for x in seeds:
    assert x['answer'] == str(word_problem_teacher.solve(x['problem']))
    assert x['solution'].endswith(f'The answer is {x["answer"]}.')
  config = check(output, student)
  assert config.teacher.base_url == server.url
  assert config.domain.min_probes == 4
