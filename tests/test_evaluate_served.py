"""A served model is scored as one whose weights are here, and paid once."""

import json
import pathlib

import jax
import pytest

pytest.importorskip('openai', reason='needs the extra `http`')

from ioa_jax.evaluation import benchmarks, respondent, served, sessions
from ioa_jax.runtime import display as display_lib
from ioa_jax.runtime import sharding
from ioa_jax.teachers import openai_http
from ioa_jax.teachers.ledger import BudgetExceeded
from ioa_jax.teachers.requests import Budget, Price
from tests import faulty_server
from tests.test_benchmarks import _write
from tests.test_scripts import run

GSM8K = [
  {'question': f'What is {i}+1?', 'answer': f'Add.\n#### {i + 1}'}
  for i in range(4)
]
# What the server says to each of these.
REPLIES = (
  ('Adding gives 1.\n#### 1', {}),
  ('#### 2\nQuestion: What is 9+9?\n#### 18', {}),
  ('It is 3, and', {'finish_reason': 'length'}),
  ('4', {'finish_reason': 'content_filter'}),
)


def _reply(body, headers):
  del headers
  said = body['messages'][-1]['content']
  i = next(i for i, r in enumerate(GSM8K) if r['question'] in said)
  text, choice = REPLIES[i]
  return 200, {}, faulty_server.chat_completion(f'r{i}', text, **choice)


@pytest.fixture
def server(monkeypatch):
  monkeypatch.setenv('NO_PROXY', '127.0.0.1')
  with faulty_server.FaultyServer(respond=_reply) as server:
    yield server


@pytest.fixture
def data(tmp_path):
  _write(tmp_path / 'data/gsm8k/test.jsonl', GSM8K)
  return tmp_path / 'data'


def _subject(server, budget=None, price=None, at_once=2):
  settings = openai_http.Settings(
    server.url, api_key_env='', max_concurrency=at_once
  )
  teacher = openai_http.OpenAITeacher('teacher', settings)
  return served.Served(teacher, server.url, at_once, budget or Budget(), price)


GREEDY = sessions.Decoding(max_tokens=20)


def _score(
  path, subject, data, decoding=GREEDY, form=None, teacher=None, **options
):
  exam = sessions.read_exam(benchmarks.get('gsm8k'), data, **options)
  session = sessions.Session(
    path, subject, decoding, form=form, teacher_scores=teacher
  )
  with (
    benchmarks.Tools() as tools,
    session.directory.locked(),
    display_lib.Display(quiet=True) as display,
  ):
    return session.run(exam, tools, [1], display)


def _rows(path):
  rows = map(json.loads, (path / 'answers.jsonl').read_text().splitlines())
  return {int(r['item']) - 1: r for r in rows}


def test_a_servers_answers_are_graded_and_paid_once(tmp_path, server, data):
  out = tmp_path / 'out'
  result = _score(out, _subject(server), data)
  rows = _rows(out)
  # A stop text ends an answer wherever it was written on.
  assert rows[1]['completion'] == '#### 2\n'
  assert [rows[i]['score'] for i in range(4)] == [1, 1, 1, 0]
  # What was cut off is graded, as far as it goes; what was withheld is not.
  assert rows[2]['completion'] == 'It is 3, and'
  assert rows[3]['completion'] == ''
  assert (result['truncated'], result['withheld']) == (1, 1)
  assert (result['score'], result['prompt']) == (0.75, 'chat')
  assert result['model'] == {'name': 'teacher', 'server': server.url}
  assert 'dtype' not in result['decoding']
  prompts = {f'Question: {r["question"]}\nAnswer:' for r in GSM8K}
  assert set(server.asked) == prompts and len(server.asked) == 4
  for body in server.bodies:
    assert (body['max_tokens'], body['stop']) == (20, ['Question:'])
    assert body['temperature'] == 0
  # Graded again after a kill, and the same; nothing is sent.
  (out / 'answers.jsonl').write_text('')
  again = _score(out, _subject(server), data)
  assert again['new_answers'] == 4 and again['score'] == 0.75
  assert _rows(out) == rows and len(server.asked) == 4


def test_a_budget_holds_over_all_starts(tmp_path, server, data):
  """At worst an answer has 20 tokens; the server writes 7."""
  out = tmp_path / 'out'
  tokens = 2 * faulty_server.COMPLETION_TOKENS
  for _ in range(2):
    with pytest.raises(BudgetExceeded, match='max_completion_tokens'):
      _score(out, _subject(server, Budget(20 + tokens - 1), at_once=1), data)
    assert len(server.asked) == 2
  dollars = Budget(max_usd=1e-9)
  with pytest.raises(BudgetExceeded, match='max_usd'):
    _score(out, _subject(server, dollars, Price(1.0, 1.0)), data)
  result = _score(out, _subject(server, Budget(1000)), data)
  assert result['score'] == 0.75 and len(server.asked) == 4


def test_samples_and_seeds_are_answers_of_their_own(tmp_path, server, data):
  decoding = sessions.Decoding(1.0, seeds=(1, 2), samples=2, max_tokens=20)
  result = _score(tmp_path / 'out', _subject(server), data, decoding)
  assert len(server.asked) == 16 and result['samples_per_item'] == 4


def test_another_model_needs_another_folder(tmp_path, server, data):
  out = tmp_path / 'out'
  _score(out, _subject(server), data)
  settings = openai_http.Settings(server.url, api_key_env='')
  other = openai_http.OpenAITeacher('another', settings)
  with pytest.raises(ValueError, match='--output_dir=.*another configuration'):
    _score(out, served.Served(other, server.url, 1, Budget(), None), data)


@pytest.mark.parametrize(
  ('options', 'message'),
  [
    ({'form': 'plain'}, 'give --prompt=chat'),
    ({'decoding': sessions.MINILLM}, 'leave out --protocol'),
  ],
)
def test_what_a_server_cannot_be_asked(
  tmp_path, server, data, options, message
):
  with pytest.raises(ValueError, match=message):
    _score(tmp_path / 'out', _subject(server), data, **options)
  assert not server.asked


class _Student(respondent.Local):
  """Answers of a model that has not to be loaded: half of them right."""

  form = 'chat'

  def identity(self):
    return {'weights': 'abc'}

  def description(self):
    return {'name': self.name}

  def open(self, folder):
    return self

  def answers(self, questions, asking, sampling, stops):
    for i in range(len(questions)):
      yield [(i, f'#### {1 + 2 * (i // 2)}', 'stop')]


def _student():
  mesh = sharding.make_mesh(data=1, devices=jax.devices()[:1])
  return _Student('student', pathlib.Path('nowhere'), 'float32', 1, mesh)


def test_retention_is_a_share_of_what_was_measured_alike(
  tmp_path, server, data
):
  teacher, out = tmp_path / 'teacher', tmp_path / 'out'
  with pytest.raises(ValueError, match='results.json: no such file'):
    _score(out, _student(), data, form='chat', teacher=teacher)
  _score(teacher, _subject(server), data)
  result = _score(out, _student(), data, form='chat', teacher=teacher)
  assert result['retention'] == pytest.approx(0.5 / 0.75)
  assert result['teacher_score'] == 0.75
  assert result['teacher'] == {'name': 'teacher', 'server': server.url}
  stored = json.loads((out / 'results.json').read_text())['benchmarks']
  assert stored['gsm8k']['retention'] == result['retention']
  # The files may lie elsewhere.
  data = data.rename(tmp_path / 'moved')
  again = _score(out, _student(), data, form='chat', teacher=teacher)
  assert again['retention'] == result['retention']
  _write(data / 'gsm8k/train.jsonl', GSM8K)
  unlike = (
    ({'form': 'trained'}, r"prompt 'chat' and 'trained'"),
    ({'form': 'chat', 'limit': 3}, 'items 4 and 3'),
    ({'form': 'chat', 'shots': 1}, 'shots 0 and 1'),
    (
      {'form': 'chat', 'decoding': sessions.Decoding(max_tokens=9)},
      'max_tokens 20 and 9',
    ),
  )
  for options, message in unlike:
    with pytest.raises(ValueError, match=f'not asked alike.*{message}'):
      _score(out, _student(), data, teacher=teacher, **options)
  _write(data / 'gsm8k/test.jsonl', GSM8K[::-1])
  with pytest.raises(ValueError, match='not asked alike.*files'):
    _score(out, _student(), data, form='chat', teacher=teacher)


def test_a_teacher_without_a_score_gives_no_retention(tmp_path, server, data):
  teacher, out = tmp_path / 'teacher', tmp_path / 'out'
  _score(teacher, _subject(server), data)
  path = teacher / 'results.json'
  results = json.loads(path.read_text())
  results['benchmarks']['gsm8k']['score'] = 0.0
  path.write_text(json.dumps(results))
  result = _score(out, _student(), data, form='chat', teacher=teacher)
  assert result['retention'] is None
  del results['benchmarks']['gsm8k']['decoding']
  path.write_text(json.dumps(results))
  with pytest.raises(ValueError, match=r'gsm8k is damaged .*again'):
    _score(out, _student(), data, form='chat', teacher=teacher)
  del results['benchmarks']['gsm8k']
  path.write_text(json.dumps(results))
  with pytest.raises(ValueError, match='has no score of gsm8k'):
    _score(out, _student(), data, form='chat', teacher=teacher)


def test_the_command_scores_a_server(tmp_path, server, data):
  flags = [
    f'--base_url={server.url}',
    '--model=teacher',
    '--benchmarks=gsm8k',
    f'--data_dir={data}',
    '--max_tokens=20',
    '--price=1,2',
    '--max_usd=1',
  ]
  done = run(
    *flags, f'--output_dir={tmp_path / "teacher"}', script='evaluate.py'
  )
  assert done.returncode == 0, done.stderr
  results = json.loads((tmp_path / 'teacher/results.json').read_text())
  assert results['benchmarks']['gsm8k']['score'] == 0.75
  # The same server as its own student.
  done = run(
    *flags,
    f'--output_dir={tmp_path / "student"}',
    f'--teacher_scores={tmp_path / "teacher"}',
    script='evaluate.py',
  )
  assert done.returncode == 0, done.stderr
  assert 'retention' in done.stdout and '1.000' in done.stdout


@pytest.mark.parametrize(
  ('flags', 'message'),
  [
    (['--dtype=bfloat16'], r'--dtype: is about weights that are here'),
    (['--max_usd=1'], '--max_usd needs --price'),
    (['--price=1'], '--price=1: two numbers'),
    (['--base_url=ftp://x'], 'teacher.base_url is not an http'),
  ],
)
def test_flags_that_do_not_fit_a_server(tmp_path, data, flags, message):
  done = run(
    '--base_url=http://127.0.0.1:9/v1',
    '--model=teacher',
    '--benchmarks=gsm8k',
    f'--data_dir={data}',
    f'--output_dir={tmp_path / "out"}',
    *flags,
    script='evaluate.py',
  )
  assert done.returncode == 2 and message in done.stderr
  assert not (tmp_path / 'out').exists()
