"""Lessons without training: the data set, its card, and a stop on the way."""

import io
import json

import datasets
import pytest
import rich.console

from ioa_jax import pipeline
from ioa_jax.adapter import dataset
from ioa_jax.runtime import display as display_lib
from tests import faulty_server, word_problem_teacher
from tests import lessons as lessons_lib
from tests.test_pipeline import SMALL, load_config, run_config
from tests.test_text_pipeline import config, files  # noqa: F401


def synthesize(settings, workdir):
  display = display_lib.Display(rich.console.Console(file=io.StringIO()))
  return pipeline.synthesize(settings, workdir, display)


def read(path):
  return [json.loads(x) for x in path.read_text().split('\n')[:-1]]


@pytest.fixture(scope='module')
def made(files, tmp_path_factory):  # noqa: F811
  workdir = tmp_path_factory.mktemp('made') / 'run'
  with faulty_server.FaultyServer(
    respond=word_problem_teacher.respond
  ) as server:
    lessons = synthesize(config(files, server.url), workdir)
  return workdir, lessons


def test_the_data_set_holds_the_lessons_in_three_forms(made):
  workdir, lessons = made
  rows = read(workdir / 'data' / dataset.FILE)
  assert len(rows) == len(lessons) == len(read(workdir / 'lessons.jsonl')) > 30
  for row, lesson in zip(rows, lessons):
    assert row['messages'] == [
      {'role': 'user', 'content': lesson.problem},
      {'role': 'assistant', 'content': lesson.completion},
    ]
    answer = word_problem_teacher.solve(lesson.problem)
    assert row['final_answer'] == str(answer)
  assert {r['module'] for r in rows} == set(word_problem_teacher.UNITS)
  saved = datasets.load_from_disk(str(workdir / 'data' / dataset.SAVED))
  assert saved.to_list() == rows
  card = (workdir / 'data' / 'README.md').read_text()
  counts = {
    u: sum(r['module'] == u for r in rows) for u in word_problem_teacher.UNITS
  }
  for unit, count in counts.items():
    assert f'| {unit} | {count} |' in card
  assert '- unconfirmed: ' in card and '- teacher: teacher' in card
  assert not (workdir / 'checkpoints').exists()
  assert 'What a lesson looks like' in (workdir / 'report.html').read_text()


def test_a_data_card_does_not_grow_with_the_lessons():
  """The tests that confirm code are of each lesson its own."""

  def lesson(n):
    verified = '2 of 3 independent solutions agree with tests that fail:'
    return lessons_lib.lesson(
      f'Write f{n}.',
      'c',
      solution={'verification': f'{verified}\nassert f{n}(1) == {n}'},
    )

  cards = [
    dataset.card(
      [lesson(n) for n in range(count)],
      lineage={'domain': 'code'},
      rejected={},
    )
    for count in (10, 99)
  ]
  assert (
    '- 2 of 3 independent solutions agree with tests that fail: 99\n'
    in (cards[1])
  )
  assert len(cards[0]) == len(cards[1])


def test_a_stopped_run_asks_only_for_what_is_missing(
  made,
  files,  # noqa: F811
  tmp_path,
):
  workdir = tmp_path / 'run'

  def breaks(body, headers):
    if breaks.left == 0:
      return 400, {}, {'error': {'message': 'gone'}}
    breaks.left -= 1
    return word_problem_teacher.respond(body, headers)

  breaks.left = 60
  with faulty_server.FaultyServer(respond=breaks) as server:
    with pytest.raises(ValueError, match='gone'):
      synthesize(config(files, server.url), workdir)
  assert not (workdir / 'data').exists()
  with faulty_server.FaultyServer(
    respond=word_problem_teacher.respond
  ) as server:
    synthesize(config(files, server.url), workdir)
    first = len(server.asked)
    # A finished one is made again without asking at all.
    synthesize(config(files, server.url), workdir)
    assert len(server.asked) == first
  with faulty_server.FaultyServer(
    respond=word_problem_teacher.respond
  ) as server:
    synthesize(config(files, server.url), tmp_path / 'unbroken')
    assert first < len(server.asked)
  for name in ('lessons.jsonl', f'data/{dataset.FILE}'):
    assert (workdir / name).read_bytes() == (made[0] / name).read_bytes()


def test_a_dry_run_leaves_remedial_lessons_out(files):  # noqa: F811
  settings = config(files)
  assert 'remedial' in pipeline.dry_run(settings)
  assert 'remedial' not in pipeline.dry_run(settings, remedial_rounds=0)


def test_a_teacher_without_json_stops_with_a_sample_of_what_it_said(
  files,  # noqa: F811
  tmp_path,
):
  def refuses(body, headers):
    status, more, reply = word_problem_teacher.respond(body, headers)
    if 'response_format' in body:
      reply['choices'][0]['message']['content'] = 'Sure! Here is a lesson.'
    return status, more, reply

  with faulty_server.FaultyServer(respond=refuses) as server:
    with pytest.raises(ValueError) as caught:
      synthesize(config(files, server.url), tmp_path / 'run')
  text = str(caught.value)
  assert "'Sure! Here is a lesson.'" in text and '30 schema' in text
  # Every paid answer is there, and so is the diagnosis.
  assert (tmp_path / 'run' / 'diagnosis.json').exists()
  assert (tmp_path / 'run' / 'ledger.sqlite').stat().st_size > 1000


@pytest.mark.slow  # It also trains, and compiles teacher, student and step.
def test_the_built_in_domain_makes_a_data_set_too(tmp_path):
  settings = load_config('quickstart', SMALL)
  lessons = synthesize(settings, tmp_path / 'run')
  assert len(read(tmp_path / 'run' / 'data' / dataset.FILE)) == len(lessons)
  # `distill` goes on from there, and asks no probe and no first lesson again.
  results, _ = run_config(settings, tmp_path / 'run')
  assert results['tokens']['teacher_cached'] > 100
  with pytest.raises(ValueError, match='has been trained in'):
    synthesize(settings, tmp_path / 'run')
