"""A run on open answers, bought in batches and judged.

The judge knows what is right. False lessons repeat the words of a right answer,
which ROUGE-L takes for agreement.
"""

import io
import json
import re
import sqlite3

import pytest
import rich.console

pytest.importorskip('rouge_score', reason='needs the extra "eval"')
pytest.importorskip('openai', reason='needs the extra `http`')

from ioa_jax import people, pipeline
from ioa_jax.adapter import Level
from ioa_jax.evaluation import final_answers
from ioa_jax.phases import exams
from ioa_jax.phases.lessons import LessonBook, Order
from ioa_jax.runtime import display as display_lib
from tests import word_problem_teacher
from tests.batch_server import BatchServer
from tests.faulty_server import chat_completion
from tests.test_judging import opinion, parts
from tests.test_pipeline import run_config
from tests.test_text_pipeline import config, files  # noqa: F401

FIRST, SECOND = word_problem_teacher.UNITS


def problem(unit: str, n: int) -> str:
  if unit == FIRST:
    return f'Ann has {n} apples in her basket. Why?'
  return f'Ann has lost all of her plums but {n}. Why?'


def reason(n: int, said: int) -> str:
  return f'The number is {n} because Bob gave her {said} and kept the rest.'


def is_right(task: str, text: str) -> bool:
  (n,) = re.findall(r'\d+', task)
  return re.findall(r'\d+', text) == [n, n]


def lesson(prompt: str) -> str:
  """Every fifth is false in one word."""
  unit = re.search(r'"module" is "(.*?)"', prompt)[1]
  variant = int(re.search(r'Variant (\d+)', prompt)[1])
  n = 100 + variant
  said = n + (variant % 5 == 4)
  return json.dumps(
    word_problem_teacher.draft(
      unit, problem(unit, n), ['Say who gave what.'], reason(n, said)
    )
  )


def respond(body, headers):
  del headers
  user = next(m['content'] for m in body['messages'] if m['role'] == 'user')
  if body['model'] == 'the-judge':
    shown = parts(body)
    a, b = (is_right(shown['task'], shown[f'answer {x}']) for x in 'AB')
    text = opinion('tie' if a == b else 'A' if a else 'B')
  elif 'Unit: ' in user:
    text = lesson(user)
  else:
    (n,) = map(int, re.findall(r'\d+', user))
    text = reason(n, n)
  return 200, {}, chat_completion('r', text)


def in_batch(body, before):
  return {'response': {'status_code': 200, 'body': respond(body, None)[2]}}


def server_of_both() -> BatchServer:
  # Done at the first look: the next one would be a second later.
  return BatchServer(respond=respond, answer=in_batch, course=('completed',))


def judged(files, path, url):  # noqa: F811
  rows = [
    {'module': unit, 'problem': problem(unit, n), 'solution': reason(n, n)}
    for unit in (FIRST, SECOND)
    for n in range(40)
  ]
  (path / 'seeds.jsonl').write_text('\n'.join(map(json.dumps, rows)))
  changes = {
    'domain.seeds': str(path / 'seeds.jsonl'),
    'domain.grader': 'judge',
    'judge.model': 'the-judge',
    'judge.base_url': url,
    'judge.price.completion_usd_per_million': 10.0,
    'teacher.batch': 'lessons',
    'teacher.price.completion_usd_per_million': 10.0,
  }
  return config(files, url, **changes)


def test_without_training_lessons_come_in_batches_and_are_judged(
  files,  # noqa: F811
  tmp_path,
):
  shown = display_lib.Display(rich.console.Console(file=io.StringIO()))
  with server_of_both() as server:
    settings = judged(files, tmp_path, server.url)
    opened = pipeline._opened(
      settings, tmp_path / 'run', shown, people.NOTHING_GIVEN
    )
    with shown, opened as run:
      scores = exams.of_teacher(run, run.probes('gate'), 'probing').scores
      assert {s.mean for s in scores.values()} == {0.5}
      book = LessonBook(run)
      order = Order([(FIRST, 'stage'), (SECOND, 'stage')], 0)
      lessons = book.add(order, {k: Level(0.0) for k in run.names})
  # Two modules, ten seeds, three items each; every fifth is false.
  assert len(lessons) == 48
  assert all(is_right(x.problem, x.completion) for x in lessons)
  assert [r.reason for r in book.rejected] == ['unconfirmed'] * 12
  assert len(server.batches) == 2 and len(server.worked_on) == 120
  assert not any('Unit: ' in prompt for prompt in server.asked)


@pytest.fixture(scope='module')
def finished(files, tmp_path_factory):  # noqa: F811
  path = tmp_path_factory.mktemp('judged')
  with server_of_both() as server:
    settings = judged(files, path, server.url)
    projected = pipeline.dry_run(settings)
    assert not server.asked and not server.calls
    results, _ = run_config(settings, path / 'run')
  return path / 'run', results, server, projected


def stored(path):
  with sqlite3.connect(path) as db:
    return [
      json.loads(r)
      for (r,) in db.execute('SELECT request FROM completions').fetchall()
    ]


@pytest.mark.slow
def test_false_lessons_that_overlap_are_not_kept(finished):
  workdir, *_ = finished
  assert final_answers.RougeL().is_correct(reason(7, 8), reason(7, 7))
  rows = (workdir / 'lessons.jsonl').read_text().splitlines()
  kept = [json.loads(x) for x in rows]
  assert len(kept) > 10
  for x in kept:
    assert is_right(x['problem'], x['completion'])
    assert 'the-judge prefers it or a tie' in x['solution']['verification']
  rows = (workdir / 'rejected.jsonl').read_text().splitlines()
  assert 'unconfirmed' in {json.loads(x)['reason'] for x in rows}


@pytest.mark.slow
def test_the_judge_scores_and_is_reported(finished):
  workdir, results, *_ = finished
  # The teacher's answers tie with the references.
  assert results['teacher']['score'] == 0.5
  judge = results['judge']
  assert judge['name'] == 'the-judge' and judge['unjudged'] == 0
  assert 8 <= judge['pairs'] <= 16 and judge['losses'] == judge['pairs']
  assert judge['self_agreement'] == 1.0 and judge['price_usd'] > 0
  report = (workdir / 'report.html').read_text()
  assert 'The scores are those of a judge, the-judge' in report


@pytest.mark.slow
def test_lessons_come_in_batches_and_each_pays_for_itself(finished):
  workdir, results, server, _ = finished
  assert server.batches and not any('Unit: ' in p for p in server.asked)
  assert {r['model'] for r in stored(workdir / 'ledger.sqlite')} == {'teacher'}
  assert {r['model'] for r in stored(workdir / 'judge.sqlite')} == {'the-judge'}
  with sqlite3.connect(workdir / 'ledger.sqlite') as db:
    prices = {
      price: count
      for price, count in db.execute(
        'SELECT price_usd, COUNT(*) FROM calls GROUP BY price_usd'
      )
    }
  # Probes at 7 tokens in full, lessons and their confirmations at half.
  assert set(prices) == {7e-5, 3.5e-5}
  assert prices[3.5e-5] == sum(server.worked_on.values())
  total = sum(7 * n for n in prices.values())
  assert results['tokens']['teacher_generated'] == total


@pytest.mark.slow
def test_a_dry_run_bounds_what_both_are_asked_and_cost(finished):
  workdir, _, _, projected = finished
  of_teacher, of_judge = projected.split('judge:\n')
  for text, ledger in ((of_teacher, 'ledger'), (of_judge, 'judge')):
    ((low, high),) = re.findall(r'total: ([\d,]+) to ([\d,]+) requests', text)
    ((cheap, dear),) = re.findall(r'total: .*\$([\d.]+) to ([\d.]+)', text)
    with sqlite3.connect(workdir / f'{ledger}.sqlite') as db:
      ((asked, paid),) = db.execute(
        'SELECT COUNT(*), SUM(price_usd) FROM calls'
      )
    # Equal answers are a tie that the judge is not asked for.
    if ledger == 'ledger':
      assert int(low.replace(',', '')) < asked
      assert float(cheap) < paid
    assert asked < int(high.replace(',', '')) and paid < float(dear)
