"""A real server behind the OpenAI protocol: `transformers serve`."""

import contextlib
import json
import pathlib
import socket
import subprocess
import sys
import time
import urllib.request

import pytest

pytest.importorskip('openai', reason='needs the extra `http`')
pytest.importorskip('fastapi', reason='needs transformers[serving]')
pytest.importorskip('accelerate', reason='needs transformers[serving]')

from ioa_jax import subject as subject_lib
from ioa_jax.adapter import Level
from ioa_jax.models import huggingface, vocabulary
from ioa_jax.runtime import sharding
from ioa_jax.sampling import logits as logits_lib
from ioa_jax.sampling import sampler
from ioa_jax.teachers import ledger as ledger_lib
from ioa_jax.teachers import openai_http
from ioa_jax.teachers.client import Client
from ioa_jax.teachers.requests import Budget, Request
from tests import word_problem_teacher
from tests.test_pipeline import load_config
from tests.test_smollm2 import PROMPTS

pytestmark = pytest.mark.slow
TOKENS = 24
_LOADS_WITHIN_SECONDS = 300
_TRANSFORMERS = pathlib.Path(sys.executable).with_name('transformers')


@contextlib.contextmanager
def serving(model):
  """The base URL of a server of `model`, on a free port."""
  with socket.create_server(('127.0.0.1', 0)) as free:
    port = free.getsockname()[1]
  process = subprocess.Popen(
    [
      _TRANSFORMERS,
      'serve',
      model,
      '--device=cpu',
      '--host=127.0.0.1',
      f'--port={port}',
    ],
    stdout=subprocess.DEVNULL,
    stderr=subprocess.DEVNULL,
  )
  opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
  try:
    deadline = time.monotonic() + _LOADS_WITHIN_SECONDS
    while True:
      assert process.poll() is None, 'transformers serve has ended'
      with contextlib.suppress(OSError):
        opener.open(f'http://127.0.0.1:{port}/health', timeout=5).close()
        break
      assert time.monotonic() < deadline, 'transformers serve does not answer'
      time.sleep(0.5)
    yield f'http://127.0.0.1:{port}/v1'
  finally:
    process.kill()
    process.wait()


@pytest.fixture(scope='module')
def served(smollm2):
  with pytest.MonkeyPatch.context() as patch:
    patch.setenv('NO_PROXY', '127.0.0.1')
    with serving(smollm2) as url:
      yield url


def test_a_real_server_writes_what_the_same_weights_write_here(
  served, smollm2, tmp_path
):
  """Greedy, token for token; a second time nothing is sent."""
  settings = openai_http.Settings(base_url=served, api_key_env='')
  teacher = openai_http.OpenAITeacher(str(smollm2), settings)
  requests = [
    Request(str(smollm2), p, 0.0, 0, 1.0, max_tokens=TOKENS)
    for p in PROMPTS[:3]
  ]
  ledger = ledger_lib.Ledger(tmp_path / 'ledger.sqlite')
  try:
    client = Client(teacher, ledger, Budget())
    answers = client.ask(requests)
    cached = client.cached
    again = client.ask(requests)
    all_cached = client.cached
  finally:
    ledger.close()
  assert (cached, all_cached) == (0, 3) and again == answers
  codec = vocabulary.ChatCodec(smollm2)
  config = huggingface.read_config(smollm2)
  params = huggingface.load_params(smollm2, config)
  here = sampler.Sampler(
    config,
    stop_tokens=codec.stop_tokens,
    batch_size=3,
    max_new_tokens=TOKENS,
    prompt_bucket=codec.prompt_bucket,
  )
  greedy = logits_lib.Sampling(max_tokens=TOKENS)
  wrote = here(
    params, [codec.prompt(p) for p in PROMPTS[:3]], [greedy] * 3, [0] * 3
  )
  for answer, mine in zip(answers, wrote):
    # What is cut off is an outcome, and kept apart from an answer.
    assert answer.finish_reason == ('stop' if mine.stopped else 'length')
    text = answer.text if mine.stopped else answer.discarded
    assert text.strip() == codec.decode(mine.tokens).strip()
    assert answer.completion_tokens == pytest.approx(len(mine.tokens), abs=1)


def test_lessons_of_a_weak_teacher_are_each_kept_or_counted(
  served, smollm2, tmp_path
):
  """SmolLM2-135M can hardly write a lesson that holds."""
  seeds = tmp_path / 'seeds.jsonl'
  seeds.write_text('\n'.join(map(json.dumps, word_problem_teacher.seeds())))
  config = load_config(
    'smollm2_135m',
    {
      'domain.seeds': str(seeds),
      'domain.taxonomy': '',
      'domain.min_probes': 4,
      'domain.max_probes': 4,
      'gate.min_probes': 4,
      'teacher.base_url': served,
      'teacher.model': str(smollm2),
      'teacher.max_tokens': 64,
      'student.model': str(smollm2),
      'adapter.seeds_per_module': 2,
      'adapter.items_per_seed': 1,
    },
  )
  subject = subject_lib.open_subject(config, sharding.make_mesh(**config.mesh))
  adapter = subject.adapter
  items = adapter.plan(
    'apples/one', 'stage', stage=0, round=0, level=Level(score=0.5)
  )
  ledger = ledger_lib.Ledger(tmp_path / 'ledger.sqlite')

  def ask(requests, response_model=None):
    return Client(subject.teacher, ledger, subject.budget).ask(
      requests, response_model
    )

  try:
    lessons, rejected = adapter.write(items, ask, [])
  finally:
    ledger.close()
  assert len(items) == 2 and len(lessons) + len(rejected) == 2
  assert len(rejected) >= 1, rejected
