"""Served teachers that score: one request a text, checked, paid for once."""

import dataclasses
import json
import os
import pathlib
import signal
import subprocess
import sys
import time
import types

import jax
import numpy as np
import pytest

pytest.importorskip('openai', reason='needs the extra `http`')

from ioa_jax import config as config_lib
from ioa_jax.models import decoder
from ioa_jax.phases import served_scorer
from ioa_jax.teachers import batch_teacher, openai_http, replay, scoring
from ioa_jax.teachers import ledger as ledger_lib
from ioa_jax.teachers.client import Client
from ioa_jax.teachers.connection import TeacherError
from ioa_jax.teachers.ledger import BudgetExceeded
from ioa_jax.teachers.requests import Budget, Price, Request
from ioa_jax.training import distillation, packing
from tests import scoring_server
from tests.killed_client import settings
from tests.scoring_server import ScoringServer
from tests.test_pipeline import load_config
from tests.test_text_pipeline import CONFIG as PADDED
from tests.test_text_pipeline import write_student

K = 6
# As a run has it: two rows of the embedding are no token's.
CONFIG = dataclasses.replace(PADDED, num_tokens=102)
ROOT = pathlib.Path(__file__).parents[1]


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch):
  monkeypatch.setenv('NO_PROXY', '127.0.0.1')


@pytest.fixture(scope='module')
def student(tmp_path_factory):
  path = tmp_path_factory.mktemp('student')
  write_student(path)
  return path


@pytest.fixture(scope='module')
def teacher():
  """Peaked enough to be worth learning from."""
  params = decoder.init(CONFIG, jax.random.key(7))
  return params | {'embedding': 3 * params['embedding']}


@pytest.fixture(scope='module')
def model(student, teacher):
  texts = served_scorer.vocabulary.token_texts(student)
  return scoring_server.Model(CONFIG, teacher, texts)


@pytest.fixture
def ledger(tmp_path):
  ledger = ledger_lib.Ledger(tmp_path / 'ledger.sqlite')
  yield ledger
  ledger.close()


def make_client(url, ledger, *, budget=None, price=None, **fields):
  """As a run has it, whose first process asks for all."""
  direct = openai_http.OpenAITeacher('teacher', settings(url, **fields))
  teacher = batch_teacher.BatchTeacher(direct, 'never')
  return Client(
    teacher, ledger, budget or Budget(), price=price, broadcast=True
  )


def scorer(client, student, k=K, said=None):
  """Of a run, as far as a scorer needs one."""
  run = types.SimpleNamespace(
    subject=types.SimpleNamespace(
      student=types.SimpleNamespace(directory=student)
    ),
    client=client,
    ask=client.ask,
    display=types.SimpleNamespace(say=[].append if said is None else said),
  )
  return served_scorer.ServedScorer(run, k)


def examples(count=9, seed=0):
  rng = np.random.default_rng(seed)
  draw = lambda most: rng.integers(2, 102, rng.integers(2, most)).tolist()
  return [packing.Example(draw(14), draw(9)) for _ in range(count)]


def rows(count=9, seed=0):
  return packing.pack(examples(count, seed), 48)


@pytest.mark.parametrize('kind', ['vllm', 'sglang'])
def test_its_fields_are_those_of_the_same_teacher_here(
  kind, model, teacher, student, ledger
):
  packed = rows()
  assert packed['segment'].max() > 1  # Several texts in a row.
  local = distillation.Scorer(CONFIG, teacher, k=K, batch_rows=2)(packed)
  with ScoringServer(model, kind=kind) as server:
    got = scorer(make_client(server.url, ledger), student)(packed)
    assert sorted(server.scored) == sorted(packing.unpack(packed))
  live = packed['segment'] > 0
  for name in packing.TEACHER_FIELDS:
    assert got[name].dtype == local[name].dtype
    np.testing.assert_array_equal(got[name][live], local[name][live])
    # Padding has been scored by nobody.
    assert not got[name][~live].any()
  for name in packing.FIELDS:
    assert got[name] is packed[name]
  # Before it was rounded.
  for e in examples():
    tokens = [*e.prompt, *e.completion]
    asked = scoring.request('teacher', tokens, K, ())
    (answer,) = ledger.find([asked])
    ids, log_probs = scoring.arrays(answer.text, asked)
    exact = model.likely(tuple(tokens))[:-1]
    order = np.argsort(-exact, kind='stable')[:, :K]
    np.testing.assert_array_equal(ids, order)
    np.testing.assert_allclose(
      log_probs, np.take_along_axis(exact, order, axis=1), atol=1e-5
    )


@pytest.mark.parametrize('divergence', ['forward_kl', 'reverse_kl', 'jsd'])
def test_its_loss_is_that_of_the_same_teacher_here(
  divergence, model, teacher, student, ledger
):
  packed = rows()
  objective = distillation.make_objective(
    divergence=divergence,
    beta=0.5,
    weight=0.7,
    temperature=1.5,
    on_policy_share=0.5,
  )
  params = decoder.init(CONFIG, jax.random.key(3))

  @jax.jit
  def loss(rows):
    hidden = decoder.forward(
      CONFIG, params, rows['token'], rows['segment'], rows['position']
    )
    total, count = distillation.token_loss(
      CONFIG, params, hidden, rows, objective
    )
    return total / count

  local = distillation.Scorer(CONFIG, teacher, k=K, batch_rows=2)
  with ScoringServer(model) as server:
    served = scorer(make_client(server.url, ledger), student)
    got, want = (float(loss(score(packed))) for score in (served, local))
  assert want > 0.1 and abs(got - want) < 1e-5


def test_nothing_is_asked_twice_and_it_is_counted(
  model, student, ledger, tmp_path
):
  packed, price = rows(), Price(2.0, 3.0)
  with ScoringServer(model) as server:
    client = make_client(server.url, ledger, price=price)
    want = scorer(client, student)(packed)
    sent = len(server.scored)
    again = scorer(client, student)(packed)
    other = scorer(client, student, K - 1)(packed)
    assert (sent, len(server.scored)) == (9, 18)  # Another k is another text.
  totals, read = client.totals(), sum(map(len, packing.unpack(packed)))
  assert (totals['calls'], totals['completion_tokens']) == (18, 18)
  assert totals['prompt_tokens'] == 2 * read
  assert totals['price_usd'] == pytest.approx((4 * read + 54) / 1e6)
  assert not totals['unsettled']['calls']
  name = packing.TEACHER_FIELDS[0]
  np.testing.assert_array_equal(again[name], want[name])
  np.testing.assert_array_equal(other[name], want[name][..., : K - 1])
  # The server is gone, and a recording is a teacher.
  path = tmp_path / 'ledger.sqlite'
  for kind in ('replay', 'recording'):
    new = ledger_lib.Ledger(tmp_path / f'{kind}.sqlite')
    if kind == 'replay':
      client = Client(replay.ReplayTeacher(path), new, Budget())
    else:
      recording = ledger_lib.Ledger(path, read_only=True)
      direct = openai_http.OpenAITeacher('teacher', settings(server.url))
      client = Client(direct, new, Budget(), recording=recording)
    got = scorer(client, student)(packed)
    for field in packing.TEACHER_FIELDS:
      np.testing.assert_array_equal(got[field], want[field])
    assert client.totals()['price_usd'] == 0
    assert client.totals()['prompt_tokens'] == read
    new.close()


@pytest.mark.parametrize(
  'budget,price',
  [
    (Budget(max_completion_tokens=4), None),
    (Budget(max_usd=150e-6), Price(2.0, 3.0)),
  ],
)
def test_a_budget_is_kept_and_what_was_scored_stays(
  budget, price, model, student, ledger
):
  with ScoringServer(model) as server:
    client = make_client(server.url, ledger, budget=budget, price=price)
    with pytest.raises(BudgetExceeded, match='does not allow the next call'):
      scorer(client, student)(rows())
    scored = len(server.scored)
    assert 0 < scored < 9 and client.totals()['completions'] == scored
    # With more of it the rest is asked for, and no more.
    scorer(make_client(server.url, ledger), student)(rows())
    assert len(server.scored) == 9


def test_what_the_server_can_do_is_asked_once_and_said(model, student, ledger):
  said = []
  with ScoringServer(model, kind='sglang') as server:
    client = make_client(server.url, ledger)
    scorer(client, student, said=said.append).require()
    # One of each protocol, of ids from the whole vocabulary.
    assert server.tried == ['/v1/completions', '/generate']
    (tokens,) = server.scored
    assert len(tokens) == 64 and (tokens[0], tokens[-1]) == (0, 101)
    scorer(client, student, said=said.append).require()
    scorer(client, student)(rows())
    assert server.tried == ['/v1/completions'] + ['/generate'] * 10
    # A new start, which knows no server: one of the texts tries both.
    ledger.drop([e['key'] for e in ledger.entries()])
    scorer(make_client(server.url, ledger), student)(rows())
    assert server.tried.count('/v1/completions') == 2
    assert len(server.scored) == 19
  assert said[0].startswith('teacher scores texts, 6 tokens at each place; 64 ')


def _spoiled(change):
  """Changes the third place of vLLM's reply."""

  def spoil(reply):
    places = reply['choices'][0]['prompt_logprobs']
    change(places)
    return reply

  return spoil


def _set(value, place=3):
  def change(places):
    entry = places[place]
    entry[max(entry, key=lambda t: entry[t]['logprob'])]['logprob'] = value

  return _spoiled(change)


def _drop_one(places):
  ranks = {places[3][t]['rank']: t for t in places[3]}
  del places[3][ranks[2]]


def _rename(places):
  places[3] = {str(int(t) + 200): v for t, v in places[3].items()}


def _another_text(places):
  for place in places[1:]:
    for entry in place.values():
      entry['decoded_token'] = 'q'


def _without_texts(places):
  for place in places[1:]:
    for entry in place.values():
      entry['decoded_token'] = None


def _twice(places):
  first = next(t for t in places[3] if places[3][t]['rank'] == 1)
  places[3]['0' + first] = places[3][first]


def _unlikely(places):
  for entry in places[3].values():
    entry['logprob'] = -0.1


# Name: (what the server does, what is said of it).
HOSTILE = {
  'no log-probabilities': (
    {'kind': 'llama.cpp'},
    r'gives no log-probabilities of texts \(.*/v1/completions: its reply has '
    r'no prompt_logprobs; .*/generate: 404: Not Found\)',
  ),
  'k above the limit': (
    {'max_logprobs': 5},
    'does not give 6 log-probabilities of a token .*max allowed: 5.*Lower '
    'distillation.top_k',
  ),
  'others ids': (
    {'spoil': _spoiled(_rename)},
    r'token \d+ was sent at position 3 and another came back',
  ),
  'a place is null': (
    {'spoil': _spoiled(lambda places: places.__setitem__(3, None))},
    r'token \d+ was sent at position 3 and another came back',
  ),
  'too few places': (
    {'spoil': _spoiled(lambda places: places.pop())},
    'another came back',
  ),
  'shifted by one': (
    {'spoil': _spoiled(lambda places: places.pop(1))},
    'at position 1 and another came back',
  ),
  'too few entries': (
    {'spoil': _spoiled(_drop_one)},
    '5 tokens where 6 were asked for, at position 3',
  ),
  'an entry twice': (
    {'spoil': _spoiled(_twice)},
    'is no token, or is there twice',
  ),
  'NaN': ({'spoil': _set(float('nan'))}, 'nan is no log-probability'),
  'infinite': ({'spoil': _set(-float('inf'))}, '-inf is no log-probability'),
  'positive': ({'spoil': _set(0.5)}, '0.5 is no log-probability'),
  'a text': ({'spoil': _set('-1')}, "'-1' is no log-probability"),
  'true': ({'spoil': _set(True)}, "'True' is no log-probability"),
  'more than 1': (
    {'spoil': _spoiled(_unlikely)},
    'probabilities of more than 1 together, at position 3',
  ),
  'another tokenizer': (
    {'spoil': _spoiled(_another_text)},
    r"its token \d+ is 'q' and the student has .* different tokenizers",
  ),
  'no texts': (
    {'spoil': _spoiled(_without_texts)},
    'no token comes with its text',
  ),
  'not an object': ({'spoil': lambda reply: [1]}, 'gives no log-probabilities'),
  'choices of texts': (
    {'spoil': lambda reply: {'choices': ['x']}},
    'gives no log-probabilities',
  ),
  'HTML': (
    {'spoil': lambda reply: '<html><body>Sign in</body></html>'},
    r'failed 2 times .* last: not JSON .*Sign in',
  ),
  'truncated': (
    {'spoil': lambda reply: json.dumps(reply)[:-40]},
    'failed 2 times .* last: not JSON',
  ),
  'an error with status 200': (
    {'spoil': lambda reply: {'error': {'message': 'no GPU', 'code': 500}}},
    'failed 2 times .* last: 500 no GPU',
  ),
}


@pytest.mark.parametrize('name', HOSTILE)
def test_a_hostile_server_is_one_line_and_nothing_is_half_written(
  name, model, student, ledger
):
  server_is, message = HOSTILE[name]
  packed = rows(1)
  before = {k: v.copy() for k, v in packed.items()}
  with ScoringServer(model, **server_is) as server:
    client = make_client(server.url, ledger, max_attempts=2)
    with pytest.raises(TeacherError, match=message) as e:
      scorer(client, student)(packed)
    with pytest.raises(TeacherError):
      scorer(client, student).require()
  assert '\n' not in str(e.value) and len(str(e.value)) < 900
  # What arrived was paid for, and nothing of it can be used.
  assert client.totals()['completions'] == 0
  assert packed.keys() == before.keys()
  for k, value in before.items():
    np.testing.assert_array_equal(packed[k], value)
  # The same ledger serves a server that is put right.
  with ScoringServer(model) as server:
    got = scorer(make_client(server.url, ledger), student)(packed)
  assert packing.TEACHER_FIELDS[1] in got


@pytest.mark.parametrize(
  'spoil,message',
  [
    (lambda info: info['input_top_logprobs'].pop(), 'positions for'),
    (lambda info: info['input_token_logprobs'].pop(), 'positions for'),
    (
      lambda info: info['input_top_logprobs'][2].pop(),
      '5 tokens where 6 were asked for, at position 2',
    ),
    (
      lambda info: info['input_top_logprobs'].__setitem__(2, None),
      '0 tokens where 6 were asked for, at position 2',
    ),
    (
      lambda info: info['input_token_logprobs'][2].__setitem__(1, 7),
      'was sent at position 2 and 7 came back',
    ),
    (
      lambda info: info['input_token_logprobs'].__setitem__(2, 'x'),
      'was sent at position 2 and another came back',
    ),
    (
      lambda info: info['input_top_logprobs'][2][0].__setitem__(1, 2**40),
      'is no token',
    ),
    (
      lambda info: info['input_top_logprobs'][2].append(
        info['input_top_logprobs'][2][0]
      ),
      'is there twice',
    ),
  ],
)
def test_a_hostile_server_of_the_other_protocol(
  spoil, message, model, student, ledger
):
  def change(reply):
    if 'meta_info' in reply:
      spoil(reply['meta_info'])
    return reply

  with ScoringServer(model, kind='sglang', spoil=change) as server:
    client = make_client(server.url, ledger)
    with pytest.raises(TeacherError, match=message):
      scorer(client, student)(rows(1))
  assert client.totals()['completions'] == 0


def test_a_token_that_the_student_does_not_have(
  model, teacher, student, ledger
):
  """Models of one family pad their vocabulary differently."""

  def pad(reply):
    for place in reply['choices'][0]['prompt_logprobs'][1:]:
      place['104'] = {'logprob': -1e-6, 'rank': 1, 'decoded_token': ''}
      for entry in place.values():
        entry['logprob'] -= 3.0
      place['104']['logprob'] = -0.1
    return reply

  with ScoringServer(model, spoil=pad) as server:
    with pytest.raises(ValueError, match='finds token 104 likely, and the stu'):
      scorer(make_client(server.url, ledger), student)(rows(1))


def test_a_busy_server_is_waited_for(model, student, ledger):
  times = []

  def spoil(reply):
    times.append(1)
    return '{"choices": [{"te' if len(times) == 1 else reply

  with ScoringServer(model, spoil=spoil) as server:
    client = make_client(server.url, ledger)
    scorer(client, student)(rows(2))
  totals = client.totals()
  assert (totals['calls'], totals['unsettled']['calls']) == (2, 1)


@pytest.mark.parametrize(
  'texts,read,same',
  [
    (['a', ' b', 'c'], ['a', 'b', 'c'], True),
    # A part of a character reads as nothing, or as all of it, where it stands.
    (['a', '\ufffd', 'c'], ['a', '\u00e9', 'c'], True),
    (['a', '\ufffd', 'c'], ['a', '', 'd'], False),
    (['a', 'b', 'c'], ['a', None, 'c'], True),
    (['a', 'b', 'c'], ['a', None, None], False),
    (['a', 'b', 'c'], ['a', 'b', 7], True),
    (['a', 'b', 'c'], ['a', 'b', ''], False),
  ],
)
def test_which_tokens_read_the_same(texts, read, same):
  asked = scoring.request('m', [1, 2, 3], 1, texts)
  place = lambda token, text: {
    str(token): {'logprob': -0.5, 'rank': 1, 'decoded_token': text}
  }
  places = [None, place(2, read[1]), place(3, read[2])]
  reply = {'choices': [{'prompt_logprobs': places}]}
  if same:
    scoring.read(scoring.WAYS[0], reply, asked)
  else:
    with pytest.raises(scoring.Unusable, match='tokenizer|no token comes'):
      scoring.read(scoring.WAYS[0], reply, asked)


def test_old_keys_stay_what_they_were():
  """An answer from before texts were scored is found again."""
  asked = Request('m', 'p', 0.7, 0, 1.0, 8)
  assert 'score' not in asked.to_json()
  scored = scoring.request('m', [3, 4], 2, ['a', 'b'])
  assert scored.key() == scoring.request('m', [3, 4], 2, []).key()
  assert Request.from_json(scored.to_json()) == scored
  keys = {
    scoring.request(*what, []).key()
    for what in (
      ('m', [3, 4], 2),
      ('m', [3, 4], 3),
      ('m', [34], 2),
      ('n', [3, 4], 2),
    )
  }
  assert len(keys) == 4


@pytest.mark.parametrize(
  'text', ['', 'x', '[]', '{"format": 1, "top_k": 6}', '{"format": 2}']
)
def test_a_store_that_cannot_be_read_says_how_to_go_on(text):
  asked = scoring.request('m', [3, 4, 5], K, ())
  with pytest.raises(ValueError, match='cannot be read .*--drop --key='):
    scoring.arrays(text, asked)


@pytest.mark.parametrize('kind', ['given', 'replay', 'openai', 'local'])
def test_who_can_be_learned_from(kind):
  config = load_config(
    'smollm2_135m',
    {
      'distillation.divergence': 'jsd',
      'teacher.kind': kind,
      'teacher.recording': 'x',
    },
  )
  if kind != 'given':
    config_lib.validate(config)
    return
  message = "kind is 'given', wanted one of local, openai, replay: .* its dist"
  with pytest.raises(config_lib.ConfigError, match=message):
    config_lib.validate(config)


@pytest.mark.slow
def test_kill_9_asks_for_nothing_that_was_stored(model, student, tmp_path):
  path = tmp_path / 'ledger.sqlite'
  with ScoringServer(model) as server:
    for trial in range(4):
      process = subprocess.Popen(
        [
          sys.executable,
          '-m',
          'tests.killed_scorer',
          server.url,
          str(path),
          str(student),
        ],
        cwd=ROOT,
        env=os.environ | {'NO_PROXY': '127.0.0.1'},
      )
      seen = len(server.scored)
      while process.poll() is None and len(server.scored) < seen + 20:
        time.sleep(0.002)
      if trial < 3:
        process.send_signal(signal.SIGKILL)
      assert process.wait(60) == (-signal.SIGKILL if trial < 3 else 0)
    times = [server.scored.count(t) for t in set(server.scored)]
  # Only what was under way at a kill is asked again.
  assert len(times) == 100
  assert sum(times) - len(times) <= 3 * settings(server.url).max_concurrency
  reader = ledger_lib.Ledger(path, read_only=True)
  assert reader.totals()['completions'] == 100
  reader.close()
