"""The whole loop on a domain of text: served teacher, LoRA, graded probes."""

import json
import os
import re
import shutil
import signal
import sqlite3
import string

import jax
import numpy as np
import pytest
import tokenizers

from ioa_jax import pipeline, teaching
from ioa_jax.adapter import WRONG_KEPT
from ioa_jax.evaluation import final_answers
from ioa_jax.models import (
  chat_template,
  decoder,
  huggingface,
  lora,
  peft,
  vocabulary,
)
from tests import faulty_server, word_problem_teacher
from tests.test_pipeline import (
  assert_same_run,
  events,
  exported,
  load_config,
  run_config,
)

CONFIG = decoder.DecoderConfig(
  vocab_size=104,
  width=32,
  num_layers=2,
  num_heads=4,
  num_kv_heads=2,
  head_width=8,
  mlp_width=48,
)
TEMPLATE = (
  '{% for m in messages %}{{ m.role }} {{ m.content }}{% endfor %}:'
  '{% if enable_thinking %}think{% endif %}'
)


def write_student(path):
  """A tiny Llama with random weights, one token for each ASCII character."""
  params = jax.jit(decoder.init, static_argnums=0)(CONFIG, jax.random.key(0))
  huggingface.save(
    path, CONFIG, params, dtype='float32', eos_token_id=1, pad_token_id=0
  )
  words = ['<pad>', '<eos>', *string.printable]
  model = tokenizers.models.WordLevel(
    {w: i for i, w in enumerate(words)}, unk_token='<pad>'
  )
  tokenizer = tokenizers.Tokenizer(model)
  tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.Split('', 'isolated')
  tokenizer.decoder = tokenizers.decoders.Fuse()
  tokenizer.save(str(path / 'tokenizer.json'))
  (path / 'tokenizer_config.json').write_text(
    json.dumps(
      {
        'tokenizer_class': 'PreTrainedTokenizerFast',
        'eos_token': '<eos>',
        'pad_token': '<pad>',
        'chat_template': TEMPLATE,
      }
    )
  )


@pytest.fixture(scope='module')
def files(tmp_path_factory):
  path = tmp_path_factory.mktemp('text')
  write_student(path / 'student')
  rows = word_problem_teacher.seeds()
  (path / 'seeds.jsonl').write_text('\n'.join(map(json.dumps, rows)))
  (path / 'taxonomy.yaml').write_text(
    'modules:\n- name: apples/two\n  prerequisites: [apples/one]\n'
    '- name: apples/one\n'
  )
  return path


def config(files, url='', **changes):
  return load_config(
    'smollm2_135m',
    {
      'domain.seeds': str(files / 'seeds.jsonl'),
      'domain.taxonomy': str(files / 'taxonomy.yaml'),
      'domain.min_probes': 4,
      'domain.max_probes': 4,
      'gate.min_probes': 4,
      'teacher.base_url': url or 'http://127.0.0.1:1/v1',
      'teacher.max_tokens': 64,
      'student.model': str(files / 'student'),
      'student.max_tokens': 16,
      'student.remat': 'none',
      'adapter.seeds_per_module': 10,
      'gate.probe_every_steps': 4,
      'gate.max_rounds': 1,
      'train.total_steps': 24,
      'train.row_length': 256,
      'train.steps_per_window': 3,
      'run.checkpoint_every_steps': 3,
      'optimizer.learning_rate': 1e-2,
    }
    | changes,
  )


@pytest.fixture(scope='module')
def finished(files, tmp_path_factory):
  workdir = tmp_path_factory.mktemp('whole') / 'run'
  with faulty_server.FaultyServer(
    respond=word_problem_teacher.respond
  ) as server:
    results, _ = run_config(config(files, server.url), workdir)
  return workdir, results


def test_it_ends_with_every_stage_tried_and_one_compilation(finished):
  workdir, results = finished
  assert results['compilations'] == 1
  assert results['domain'] == 'gsm8k'
  assert results['teacher'] == {'name': 'teacher', 'params': None, 'score': 1.0}
  assert [s['modules'] for s in results['stages'][:2]] == [
    ['apples/one'],
    ['apples/two'],
  ]
  assert sum(s['steps'] for s in results['stages']) == 24
  assert (workdir / 'report.html').exists()
  # A random student of 24 steps masters nothing, and the gate says so.
  assert all(s['outcome'] != 'mastered' for s in results['stages'])
  probes = [e for e in events(workdir) if e['event'] == 'probe']
  assert {e['decision'] for e in probes} >= {'stay', 'remediate', 'stall'}
  assert all(s['n'] == 4 for e in probes for s in e['scores'].values())


def test_answers_before_and_after_are_kept_and_agree_with_the_scores(finished):
  workdir, results = finished
  lines = (workdir / 'answers.jsonl').read_text().splitlines()
  answers = [json.loads(x) for x in lines]
  assert len(answers) == sum(m['n'] for m in results['modules'].values())
  grader = final_answers.Number()
  for when in ('before', 'after'):
    for name, module in results['modules'].items():
      mine = [a for a in answers if a['module'] == name]
      scores = [a[when]['score'] for a in mine]
      assert sum(scores) / len(scores) == pytest.approx(module[when])
      assert scores == [
        grader.score(a[when]['text'], a['answer']) for a in mine
      ]
    # One token is at most one character, and the end takes one of 16.
    cut = [a[when]['truncated'] for a in answers]
    assert results['student'][f'truncated_{when}'] == sum(cut)
    assert all(c or len(a[when]['text']) < 16 for a, c in zip(answers, cut))
  assert any(a[w]['truncated'] for a in answers for w in ('before', 'after'))


def test_only_confirmed_lessons_are_kept_and_the_rest_is_counted(finished):
  workdir, _ = finished
  rejected = {}
  for event in events(workdir):
    if event['event'] == 'supply':
      for reason, count in event['rejected'].items():
        rejected[reason] = rejected.get(reason, 0) + count
  assert rejected['unconfirmed'] and rejected['schema']
  lessons = [
    json.loads(x) for x in (workdir / 'lessons.jsonl').read_text().splitlines()
  ]
  assert len({x['problem'] for x in lessons}) == len(lessons) > 30
  for x in lessons:
    answer = word_problem_teacher.solve(x['problem'])
    assert x['completion'].endswith(f'The answer is {answer}.')
  # The server has no more to say in remedial rounds, and that is noticed.
  assert rejected['near_duplicate']


def test_remedial_requests_show_what_the_student_wrote(finished):
  workdir, _ = finished
  with sqlite3.connect(workdir / 'ledger.sqlite') as db:
    asked = [
      json.loads(r)['prompt']
      for (r,) in db.execute('SELECT request FROM completions')
    ]
  remedial = [p for p in asked if 'still fails' in p]
  assert remedial
  for prompt in remedial:
    assert prompt.count('The student wrote: ') == WRONG_KEPT
    assert 'The student answers 0% of such problems' in prompt


def test_only_adapters_train_and_the_export_is_the_merged_student(
  finished, files
):
  workdir, _ = finished
  base = huggingface.load_params(files / 'student', CONFIG)
  got = huggingface.load_params(exported(workdir), CONFIG)
  adapters, spec = peft.load(exported(workdir, 'adapter'), CONFIG.num_layers)
  assert spec == lora.LoraSpec(targets=tuple(sorted(lora.LoraSpec().targets)))
  want = lora.merge(base, adapters, spec)
  # Exported in bfloat16.
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, rtol=2**-8, atol=1e-6),
    got,
    want,
  )
  assert max(float(abs(x['b']).max()) for x in adapters.values()) > 1e-3
  raw = json.loads(
    (exported(workdir, 'adapter') / 'adapter_config.json').read_text()
  )
  assert raw['base_model_name_or_path'] == str((files / 'student').resolve())
  newest = max(
    (p for p in (workdir / 'checkpoints').iterdir() if p.name.isdigit()),
    key=lambda p: int(p.name),
  )
  kept = (newest / 'state' / '_METADATA').read_text()
  assert 'q_proj' in kept and 'embedding' not in kept
  # Whoever serves it asks as it was taught.
  raw = json.loads((exported(workdir) / 'tokenizer_config.json').read_text())
  assert raw['chat_template'] == chat_template.with_default(TEMPLATE, False)


def test_a_dry_run_bounds_what_was_asked_and_sends_nothing(finished, files):
  with faulty_server.FaultyServer(
    respond=word_problem_teacher.respond
  ) as server:
    text = pipeline.dry_run(config(files, server.url))
    assert not server.asked
  ((low, high),) = re.findall(r'total: ([\d,]+) to ([\d,]+) requests', text)
  with sqlite3.connect(finished[0] / 'ledger.sqlite') as db:
    ((asked,),) = db.execute('SELECT COUNT(*) FROM calls')
  assert int(low.replace(',', '')) < asked < int(high.replace(',', ''))


def test_a_finished_run_needs_no_server_and_no_model(finished, files):
  gone = config(files, **{'teacher.base_url': 'http://127.0.0.1:1/v1'})
  gone.student.model = str(files / 'student')
  results, text = run_config(gone, finished[0])
  assert results == finished[1] and 'finished before' in text


def test_a_teacher_that_is_cut_off_has_no_score(files, tmp_path):
  def cut(body, headers):
    status, more, reply = word_problem_teacher.respond(body, headers)
    reply['choices'][0]['finish_reason'] = 'length'
    return status, more, reply

  with faulty_server.FaultyServer(respond=cut) as server:
    with pytest.raises(
      ValueError, match=r'4 of 4 probes got no answer .*length'
    ):
      run_config(config(files, server.url), tmp_path / 'run')
  assert not (tmp_path / 'run' / 'diagnosis.json').exists()


def speechless_on(units):
  """A teacher that solves everything and writes no lesson of some units."""

  def respond(body, headers):
    user = next(m['content'] for m in body['messages'] if m['role'] == 'user')
    if any(f'"module" is "{unit}"' in user for unit in units):
      return 200, {}, faulty_server.chat_completion('r', 'Apples are nice.')
    return word_problem_teacher.respond(body, headers)

  return respond


def test_a_module_without_lessons_stops_the_run_and_says_how_to_go_on(
  files, tmp_path
):
  workdir = tmp_path / 'run'
  with faulty_server.FaultyServer(respond=speechless_on(['apples/two'])) as s:
    with pytest.raises(ValueError, match='no lesson.*Apples are.*skip') as e:
      run_config(config(files, s.url), workdir)
    assert 'apples/two' in str(e.value) and '30 schema' in str(e.value)
    # Nothing is asked again.
    asked = len(s.asked)
    skip = config(files, s.url, **{'adapter.on_no_lessons': 'skip'})
    results, _ = run_config(skip, workdir)
    assert len(s.asked) == asked
  assert results['stages'][1]['outcome'] == 'untaught'


@pytest.mark.parametrize(
  'units', [['apples/one'], ['apples/two'], ['apples/one', 'apples/two']]
)
def test_a_module_without_lessons_can_be_passed_over(files, tmp_path, units):
  """The others are taught, and it is recorded that this one was not."""
  workdir = tmp_path / 'run'
  settings = {'adapter.on_no_lessons': 'skip'}
  with faulty_server.FaultyServer(respond=speechless_on(units)) as server:
    results, text = run_config(config(files, server.url, **settings), workdir)
  assert text.count('It is passed over.') == len(units)
  for stage in results['stages']:
    assert stage['untaught'] == [m for m in stage['modules'] if m in units]
    is_empty = stage['untaught'] == stage['modules']
    assert (stage['outcome'] == 'untaught') == is_empty
    assert (stage['steps'] == 0) == is_empty
    assert not stage['untaught'] or stage['outcome'] != 'mastered'
  nothing = len(units) == 2
  assert (results['tokens']['student_train'] == 0) == nothing
  assert results['compilations'] == (0 if nothing else 1)
  assert (results['lessons'] == 0) == nothing
  assert 'not taught' in (workdir / 'report.html').read_text()


def test_what_was_passed_over_stays_so_when_a_run_continues(files, tmp_path):
  settings = {'adapter.on_no_lessons': 'skip'}
  with faulty_server.FaultyServer(
    respond=speechless_on(['apples/one'])
  ) as server:
    taught = config(files, server.url, **settings)
    whole, _ = run_config(taught, tmp_path / 'whole')
    again = tmp_path / 'again'
    shutil.copytree(tmp_path / 'whole', again)
    (again / 'results.json').unlink()
    newest = max(int(p.name) for p in (again / 'checkpoints').glob('[0-9]*'))
    shutil.rmtree(again / 'checkpoints' / str(newest))
    results, text = run_config(taught, again)
  assert 'Continuing from step' in text and 'passed over' not in text
  assert results['stages'] == whole['stages']
  assert_same_run(tmp_path / 'whole', again)


def test_a_teacher_that_knows_nothing_is_not_a_student_that_knows_all(
  files, tmp_path
):
  def wrong(body, headers):
    return 200, {}, faulty_server.chat_completion('r', 'The answer is -1.')

  with faulty_server.FaultyServer(respond=wrong) as server:
    with pytest.raises(ValueError, match='answers no held-out probe'):
      run_config(config(files, server.url), tmp_path / 'run')


def test_an_answer_ends_as_the_template_ends_it(files, tmp_path):
  """Llama 3 names <|end_of_text|> first and ends turns with another token."""
  path = tmp_path / 'model'
  shutil.copytree(files / 'student', path)
  settings = json.loads((path / 'generation_config.json').read_text())
  settings['eos_token_id'] = [1, 95]  # The second is '~' in this vocabulary.
  (path / 'generation_config.json').write_text(json.dumps(settings))
  tokenizer = json.loads((path / 'tokenizer_config.json').read_text())
  end = string.printable[93]
  tokenizer['chat_template'] = (
    '{% for m in messages %}{{ m.content }}' + end + '{% endfor %}'
  )
  (path / 'tokenizer_config.json').write_text(json.dumps(tokenizer))
  codec = vocabulary.ChatCodec(path)
  assert codec.answer('7')[-1] == 95
  assert codec.decode(codec.answer('7')[:-1]) == '7'


@pytest.fixture(scope='module')
def replayed(finished, files, tmp_path_factory):
  """The same run from its own recording."""
  settings = config(
    files,
    **{
      'teacher.kind': 'replay',
      'teacher.recording': str(finished[0] / 'ledger.sqlite'),
    },
  )
  workdir = tmp_path_factory.mktemp('replayed') / 'run'
  return workdir, run_config(settings, workdir)[0], settings


def test_a_recorded_teacher_repeats_the_run_offline(finished, replayed):
  workdir, again, _ = replayed
  assert again['modules'] == finished[1]['modules']
  assert again['stages'] == finished[1]['stages']
  assert (workdir / 'lessons.jsonl').read_bytes() == (
    finished[0] / 'lessons.jsonl'
  ).read_bytes()


def test_a_stopped_run_continues_to_the_same_end(
  replayed, tmp_path, monkeypatch
):
  grade = teaching._Phase.grade
  for at in (8, 20):  # Between a probe's steps and its scores.
    signals = [signal.SIGTERM]  # A second one would end this process.

    def grade_then_signal(self, names, at=at, signals=signals):
      # A stage that is left has all others graded at the same step.
      if self.trainer.step == at and signals:
        os.kill(os.getpid(), signals.pop())
      return grade(self, names)

    with monkeypatch.context() as patch:
      patch.setattr(teaching._Phase, 'grade', grade_then_signal)
      results, text = run_config(replayed[2], tmp_path / 'run')
    assert results is None and f'at step {at}' in text
  run_config(replayed[2], tmp_path / 'run')
  assert_same_run(replayed[0], tmp_path / 'run')


@pytest.mark.parametrize(
  ('changes', 'message'),
  [
    (
      {'domain.min_probes': 5, 'domain.max_probes': 9},
      "'apples/one' has 40 seeds, so 4 gate probes",
    ),
    ({'gate.min_probes': 5}, 'gate.min_probes is 5 .* never be mastered'),
    ({'domain.columns.problem': 'question'}, "no column 'question'"),
    ({'domain.seeds': 'nothing.jsonl'}, 'nothing.jsonl'),
    ({'domain.grader': 'maths'}, 'domain.grader finds no final answer'),
    ({'adapter.strategies': ('sing',)}, 'sing.* wanted names of'),
    ({'teacher.base_url': 'nowhere'}, 'not an http'),
    ({'teacher.api_key_env': 'NO_SUCH_KEY'}, 'NO_SUCH_KEY is not set'),
    ({'teacher.kind': 'replay', 'teacher.recording': 'x'}, 'no such ledger'),
    ({'domain.kind': 'songs'}, 'config.domain.kind'),
    ({'gate.scoring': 'in_step'}, "scoring is 'in_step', wanted 'graded'"),
    ({'method': 'uniform_direct'}, 'asks for direct answers'),
    ({'domain.max_probes': 3}, 'max_probes 3 is below'),
    ({'teacher.max_usd': 5.0}, 'max_usd is set and config.teacher.price is'),
    ({'student.export_dtype': 'bf16'}, "export_dtype is 'bf16', wanted"),
    (
      {'student.lora.targets': ('x_proj',)},
      'lora.targets is .*wanted names',
    ),
    ({'train.microbatches': 3}, 'does not divide'),
    ({'domain.columns.module': ''}, 'columns.module is empty.*map_seeds'),
    ({'domain.columns.module': 'tag'}, "column 'tag' is missing.*map_seeds"),
    ({'domain.benchmarks': ('gsm',)}, 'gsm.* wanted names of'),
    (
      {'domain.benchmarks': ('gsm8k',), 'domain.benchmark_dir': 'nowhere'},
      'nowhere: none of gsm8k/test.jsonl',
    ),
  ],
)
def test_bad_input_is_named_and_leaves_nothing(
  files, tmp_path, changes, message
):
  with pytest.raises(ValueError, match=message):
    run_config(config(files, **changes), tmp_path / 'run')
  assert not (tmp_path / 'run').exists()
