"""The four domains of the paper, each to its end in miniature.

The teacher is a script that knows the seeds' own solutions, behind the chat
protocol; the student is tiny and random. Seeds are published items where they
are on this machine.
"""

import json
import os
import runpy
import subprocess
import sys

import pytest

from ioa_jax import config as config_lib
from ioa_jax.domains import text
from ioa_jax.evaluation import final_answers
from ioa_jax.runtime import row_files
from tests import faulty_server, word_problem_teacher
from tests.outside import DATA, ROOT
from tests.test_pipeline import run_config
from tests.test_text_pipeline import write_student

FILES = {
  'instructions': ('dolly', 'dolly/valid1000_full.jsonl'),
  'maths': ('math', 'math/rllm_math_train.json.gz'),
  'code': ('mbpp', 'mbpp/mbpp.jsonl'),
}
UNITS = ('unit/one', 'unit/two')
COLUMNS = {k: k for k in text.COLUMNS}


def gpqa_rows():
  """Made up: the real ones are not to be spread."""
  for n in range(80):
    yield {
      'Question': f'What is {n} thousand and thirty, in digits?',
      'Correct Answer': f'{n}030',
      **{f'Incorrect Answer {i}': f'{n}03{i}' for i in (1, 2, 3)},
    }


def convert(kind, source, output):
  done = subprocess.run(
    [
      sys.executable,
      'scripts/domain_seeds.py',
      f'--format={kind}',
      f'--input={source}',
      f'--output_dir={output}',
    ],
    cwd=ROOT,
    capture_output=True,
    text=True,
    env=os.environ | {'JAX_PLATFORMS': 'cpu'},
  )
  assert done.returncode == 0, done.stderr
  return [json.loads(x) for x in open(output / 'seeds.jsonl', encoding='utf-8')]


def test_a_seed_of_gpqa_is_the_question_without_the_benchmarks_frame(tmp_path):
  source = tmp_path / 'gpqa.jsonl'
  source.write_text(json.dumps(next(gpqa_rows())))
  (seed,) = convert('gpqa', source, tmp_path / 'out')
  question, choices = seed['problem'].split('\nChoices:\n')
  assert question == 'What is 0 thousand and thirty, in digits?'
  lines = dict(line.split(' ', 1) for line in choices.splitlines())
  assert lines[f'({seed["answer"]})'] == '0030'
  assert sorted(lines.values()) == ['0030', '0031', '0032', '0033']
  assert seed['solution'] == f'The answer is ({seed["answer"]}).'


def test_brackets_of_a_choice_are_kept(tmp_path):
  """They may be the answer: an interval, a list, a formula."""
  source = tmp_path / 'gpqa.jsonl'
  row = next(gpqa_rows()) | {
    'Correct Answer': '[0, 1]  of [Fe(CN)6]',
    'Incorrect Answer 1': '(0, 1) [title] it is',
  }
  source.write_text(json.dumps(row))
  (seed,) = convert('gpqa', source, tmp_path / 'out')
  assert f'({seed["answer"]}) [0, 1] of [Fe(CN)6]' in seed['problem']
  assert '(0, 1).  it is' in seed['problem'].replace('. it', '.  it')


def short(seed):
  """What the tiny student has characters and room for."""
  written = seed['problem'] + seed['solution']
  return written.isascii() and len(written) < 500


@pytest.fixture(scope='module')
def student(tmp_path_factory):
  path = tmp_path_factory.mktemp('student')
  write_student(path)
  return path


def seeds_of(domain, tmp_path):
  """Eighty published items, in two units; the file and its grader's kind."""
  if domain == 'academic':
    source = tmp_path / 'gpqa.jsonl'
    source.write_text('\n'.join(map(json.dumps, gpqa_rows())))
    kind = 'gpqa'
  else:
    kind, name = FILES[domain]
    source = DATA / name
    if not source.exists():
      pytest.skip(f'needs {DATA / name}')
  rows = list(filter(short, convert(kind, source, tmp_path / 'out')))[:80]
  assert len(rows) == 80
  for n, row in enumerate(rows):
    row['module'] = UNITS[n % 2]
  path = tmp_path / 'seeds.jsonl'
  path.write_text('\n'.join(map(json.dumps, rows)))
  return path


class Script:
  """Solves with the seeds' solutions; lessons are seeds that a run leaves."""

  def __init__(self, path, kind, used):
    rows = row_files.read(path, text.COLUMNS)
    self.grader = final_answers.KINDS[kind]()
    domain = text.TextDomain(
      rows,
      None,
      columns=COLUMNS,
      grader=self.grader,
      min_probes=2,
      max_probes=4,
    )
    self.solution = {row['problem'].strip(): row for _, row in rows}
    self.spare = {u: domain.seeds(u, 99)[used:] for u in UNITS}
    self.lessons = 0

  def respond(self, body, headers):
    user = next(m['content'] for m in body['messages'] if m['role'] == 'user')
    if 'Unit: ' in user:
      unit = next(u for u in UNITS if f'"module" is "{u}"' in user)
      answer = self._lesson(unit)
    else:
      answer = self._solve(user)
    return 200, {}, faulty_server.chat_completion('r', answer)

  def _solve(self, problem):
    row = self.solution[problem.strip()]
    if self.grader.form == 'open':  # A teacher that is not word for word.
      words = row['answer'].split()
      return ' '.join(words[: max(1, round(0.8 * len(words)))])
    return row['solution']

  def _lesson(self, unit):
    spare = self.spare[unit]
    seed = spare[self.lessons % len(spare)]
    self.lessons += 1
    row = self.solution[seed.problem]
    final, tests = row['answer'], 'looked up'
    if self.grader.form == 'code':
      final, tests = row['solution'].strip('`').removeprefix('python'), final
    draft = word_problem_teacher.draft(
      unit, seed.problem, ['First, think.'], final.strip()
    )
    draft['solution']['verification'] = tests
    return json.dumps(draft)


def configured(domain, seeds, student, url, **changes):
  config = runpy.run_path(str(ROOT / 'configs/domains.py'))['get_config'](
    domain
  )
  config.update_from_flattened_dict(
    {
      'domain.seeds': str(seeds),
      'domain.taxonomy': '',
      'domain.benchmarks': (),
      'domain.min_probes': 4,
      'domain.max_probes': 4,
      'gate.min_probes': 4,
      'teacher.base_url': url,
      'teacher.max_tokens': 512,
      'student.model': str(student),
      'student.max_tokens': 16,
      'student.batch_size': 8,
      'student.remat': 'none',
      'student.dtype': 'float32',
      'mesh.data': -1,
      'mesh.fsdp': 1,
      'identifier.target_share': 1.0,
      'adapter.seeds_per_module': 4,
      'adapter.items_per_seed': 3,
      'adapter.confirm_samples': 1,
      'gate.probe_every_steps': 2,
      'gate.max_rounds': 1,
      'train.total_steps': 8,
      'train.batch_rows': 4,
      'train.microbatches': 1,
      'train.row_length': 1024,
      'train.steps_per_window': 2,
      'run.checkpoint_every_steps': 8,
    }
    | changes
  )
  return config


@pytest.mark.parametrize(
  'domain', ['instructions', 'maths', 'code', 'academic']
)
def test_the_configs_are_valid_and_at_the_papers_values(domain):
  config = runpy.run_path(str(ROOT / 'configs/domains.py'))['get_config'](
    domain
  )
  config_lib.validate(config)
  assert config.train.row_length == (2048 if domain == 'instructions' else 4096)
  assert config.optimizer.learning_rate == 2e-5
  assert config.adapter.items_per_seed == 10
  assert (config.train.batch_rows, config.gate.tau_mastery) == (128, 0.9)
  with pytest.raises(ValueError, match='no such domain'):
    runpy.run_path(str(ROOT / 'configs/domains.py'))['get_config']('music')


@pytest.mark.slow  # The loop is compiled for each: its probes and rows differ.
@pytest.mark.parametrize(
  'domain', ['instructions', 'maths', 'code', 'academic']
)
def test_a_domain_runs_to_its_end(domain, student, tmp_path):
  seeds = seeds_of(domain, tmp_path)
  kind = configured(domain, seeds, student, 'x').domain.grader
  script = Script(seeds, kind, used=4)
  with faulty_server.FaultyServer(respond=script.respond) as server:
    results, _ = run_config(
      configured(domain, seeds, student, server.url), tmp_path / 'run'
    )
  assert results['compilations'] == 1
  assert {m for s in results['stages'] for m in s['modules']} == set(UNITS)
  lessons = [json.loads(x) for x in open(tmp_path / 'run' / 'lessons.jsonl')]
  assert len(lessons) > 4
  assert all('1 of 1' in x['solution']['verification'] for x in lessons)
  if domain == 'instructions':
    # Shares of a score, from the probes to the report.
    assert 0.7 < results['teacher']['score'] < 1
    diagnosis = json.loads((tmp_path / 'run' / 'diagnosis.json').read_text())
    for module in diagnosis['modules'].values():
      assert module['teacher']['correct'] % 1  # A sum of shares, out of 4.
      assert module['teacher']['n'] == 4
  else:
    assert results['teacher']['score'] == 1.0
  assert (tmp_path / 'run' / 'report.html').exists()
