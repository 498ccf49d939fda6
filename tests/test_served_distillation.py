"""Whole runs that learn from a served teacher's distributions."""

import json
import re
import sqlite3

import jax
import numpy as np
import pytest

pytest.importorskip('openai', reason='needs the extra `http`')

from ioa_jax import pipeline
from ioa_jax import subject as subject_lib
from ioa_jax.models import decoder, vocabulary
from ioa_jax.phases import training
from ioa_jax.runtime import sharding
from ioa_jax.training import distillation
from tests import scoring_server, word_problem_teacher
from tests.scoring_server import ScoringServer
from tests.test_pipeline import events, run_config, weights
from tests.test_scoring import CONFIG
from tests.test_text_pipeline import config, files  # noqa: F401

K = 5
LEARNS = {
  'distillation.divergence': 'jsd',
  'distillation.top_k': K,
  'distillation.weight': 0.5,
  'distillation.on_policy_every_steps': 3,
  'adapter.seeds_per_module': 6,
  'train.total_steps': 12,
  'gate.max_rounds': 0,
}


@pytest.fixture(scope='module')
def teacher():
  params = decoder.init(CONFIG, jax.random.key(7))
  return params | {'embedding': 3 * params['embedding']}


def serve(files, teacher, **settings):  # noqa: F811
  texts = vocabulary.token_texts(files / 'student')
  return ScoringServer(
    scoring_server.Model(CONFIG, teacher, texts),
    respond=word_problem_teacher.respond,
    **settings,
  )


def losses(workdir):
  return [e['train/loss'] for e in events(workdir) if e['event'] == 'train']


@pytest.mark.slow
def test_the_student_is_that_of_the_same_teacher_here(
  files,  # noqa: F811
  teacher,
  tmp_path,
  monkeypatch,
):
  served, local, again = (tmp_path / n for n in ('served', 'local', 'again'))
  with serve(files, teacher) as server:
    taught = config(files, server.url, **LEARNS)
    results, text = run_config(taught, served)
    assert 'teacher scores texts, 5 tokens at each place' in text
    # The question came before everything else, and nothing came twice.
    assert len(server.scored) == len(set(server.scored)) > 20
    first = load_ledger(served)[0]
    assert first['score'] == K and len(first['prompt'].split()) == 64
    scored = len(server.scored)
    # The same lessons, scored here.
    scorer = distillation.Scorer(CONFIG, teacher, k=K, batch_rows=4)
    with monkeypatch.context() as patched:
      patched.setattr(training, '_scorer', lambda run: scorer)
      plain, _ = run_config(taught, local)
    assert len(server.scored) == scored + 1  # The question, in a new ledger.
  assert results['compilations'] == plain['compilations'] == 1
  assert [e['event'] for e in events(served)].count('own_texts') > 2
  got, want = losses(served), losses(local)
  assert len(got) > 2
  np.testing.assert_allclose(got, want, atol=1e-5)
  for name, value in weights(served).items():
    # They are exported in bfloat16.
    other = np.asarray(weights(local)[name], np.float32)
    np.testing.assert_allclose(
      np.asarray(value, np.float32), other, rtol=2**-7, atol=1e-5
    )
  assert results['tokens'] == plain['tokens'] | {
    'teacher_generated': plain['tokens']['teacher_generated'] + scored - 1
  }
  # The server is stopped.
  replayed = config(
    files,
    server.url,
    **LEARNS
    | {
      'teacher.kind': 'replay',
      'teacher.recording': str(served / 'ledger.sqlite'),
    },
  )
  repeated, _ = run_config(replayed, again)
  assert repeated['modules'] == results['modules']
  assert repeated['stages'] == results['stages']
  assert losses(again) == got
  lessons = [(run / 'lessons.jsonl').read_bytes() for run in (served, again)]
  assert lessons[0] == lessons[1]
  first, second = weights(served), weights(again)
  assert all((first[k] == second[k]).all() for k in first)
  # What was stored is counted as it was; what was thrown away is not there.
  assert repeated['tokens'] == results['tokens'] | {
    'teacher_generated': stored_tokens(served)
  }


def load_ledger(workdir):
  with sqlite3.connect(workdir / 'ledger.sqlite') as db:
    rows = db.execute('SELECT request FROM completions ORDER BY rowid')
    return [json.loads(request) for (request,) in rows]


def stored_tokens(workdir):
  with sqlite3.connect(workdir / 'ledger.sqlite') as db:
    ((count,),) = db.execute('SELECT SUM(completion_tokens) FROM completions')
  return count


@pytest.mark.parametrize(
  'server_is,changes,message',
  [
    ({'kind': 'llama.cpp'}, {}, 'gives no log-probabilities of texts'),
    ({'max_logprobs': 4}, {}, 'does not give 5 log-probabilities'),
  ],
)
def test_what_a_server_cannot_do_is_said_before_it_is_paid_for_more(
  server_is,
  changes,
  message,
  files,  # noqa: F811
  teacher,
  tmp_path,
):
  with serve(files, teacher, **server_is) as server:
    taught = config(files, server.url, **LEARNS | changes)
    with pytest.raises(ValueError, match=message):
      run_config(taught, tmp_path / 'run')
    assert not server.asked and len(server.tried) <= 2
  assert not (tmp_path / 'run' / 'diagnosis.json').exists()


def test_the_student_keeps_to_the_tokens_that_there_are(files):  # noqa: F811
  """What pads its vocabulary is no token, as where the teacher is here."""
  taught = config(files, **LEARNS)
  subject = subject_lib.open_subject(taught, sharding.make_mesh())
  assert subject.student.config.num_tokens == 102
  assert subject.teacher_model is None
  with pytest.raises(ValueError, match='top_k is 102 and the models have 102'):
    subject_lib.open_subject(
      config(files, **LEARNS | {'distillation.top_k': 102}),
      sharding.make_mesh(),
    )


def test_a_dry_run_counts_the_texts_that_are_scored(files):  # noqa: F811
  """All lessons at most, and as many own texts as rows are drawn."""
  assert 'scoring' not in pipeline.dry_run(config(files))
  learns = config(files, **LEARNS)
  lines = re.findall(
    r'^(.*?): ([\d,]+) to ([\d,]+) requests', pipeline.dry_run(learns), re.M
  )
  ends = {
    name: [int(n.replace(',', '')) for n in both] for name, *both in lines
  }
  lessons = ends['stage lessons'][1]
  assert lessons and ends['scoring lessons'] == [1, 1 + lessons]
  # Two modules, four times, half of three steps of so many rows.
  each = -(-3 * learns.train.batch_rows // (2 * 2))
  assert ends["scoring the student's texts"] == [0, 4 * 2 * each]
