"""Scores in a folder: what an answer stands on, and what a result says of it.

A model that has learned nothing is asked; what is tested is which of its
answers count.
"""

import dataclasses
import json
import shutil

import jax
import pytest
import tokenizers

from ioa_jax.commands import domain_seeds
from ioa_jax.evaluation import answers as answers_lib
from ioa_jax.evaluation import benchmark_items, benchmarks, respondent, sessions
from ioa_jax.models import contents, decoder, huggingface, orbax_params
from ioa_jax.runtime import display as display_lib
from ioa_jax.runtime import row_files, sharding
from ioa_jax.sampling import logits as logits_lib
from tests.test_benchmarks import MBPP, ROWS, _write

TEMPLATE = (
  "{% for m in messages %}<{{ m['role'] }}>{{ m['content'] }}{% endfor %}"
  '{% if add_generation_prompt %}<assistant>{% endif %}'
)
GSM8K = [
  {'question': f'What is {i}+1?', 'answer': f'Add.\n#### {i + 1}'}
  for i in range(4)
]


def _model(path, seed):
  vocabulary = {'<pad>': 0, '<eos>': 1} | {
    chr(c): i for i, c in enumerate([10, *range(32, 127)], 2)
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
    max_positions=512,
  )
  params = decoder.init(config, jax.random.key(seed))
  # The end is never likeliest.
  params = jax.tree.map(
    lambda x: x.at[1].set(0) if x.shape[0] == len(vocabulary) else x, params
  )
  huggingface.save(
    path, config, params, dtype='float32', eos_token_id=1, pad_token_id=0
  )
  tokenizer.save(str(path / 'tokenizer.json'))
  (path / 'tokenizer_config.json').write_text(
    json.dumps(
      {
        'tokenizer_class': 'PreTrainedTokenizerFast',
        'eos_token': '<eos>',
        'chat_template': TEMPLATE,
      }
    )
  )
  return path


@pytest.fixture(scope='module')
def models(tmp_path_factory):
  root = tmp_path_factory.mktemp('models')
  return [_model(root / str(seed), seed) for seed in range(2)]


@pytest.fixture
def data(tmp_path):
  _write(tmp_path / 'data/gsm8k/test.jsonl', GSM8K)
  _write(tmp_path / 'data/dolly/valid.jsonl', ROWS['dolly'])
  return tmp_path / 'data'


@pytest.fixture
def quick(monkeypatch):
  """Instead of a model that has to be compiled: who writes is not tested."""

  class Quick:
    def __init__(self, directory, name, **loading):
      del directory, name, loading

    def answers(self, questions, asking, sampling, stops):
      del asking, sampling, stops
      for i, question in enumerate(questions):
        yield [(i, f'red {question.draw % 7}', 'stop')]

  monkeypatch.setattr(respondent, 'Respondent', Quick)


GREEDY = sessions.Decoding(max_tokens=6)


def _score(path, model, data, name, decoding=GREEDY, form='plain', **options):
  """One benchmark, as the command does it."""
  mesh = sharding.make_mesh(data=1, devices=jax.devices()[:1])
  exam = sessions.read_exam(benchmarks.get(name), data, **options)
  session = sessions.Session(
    path,
    respondent.Local(str(model), model, 'float32', 2, mesh),
    decoding,
    form=form,
  )
  with (
    benchmarks.Tools() as tools,
    session.directory.locked(),
    display_lib.Display(quiet=True) as display,
  ):
    return session.run(exam, tools, [1], display)


def _lines(path):
  return [json.loads(t) for t in (path / 'answers.jsonl').open()]


def test_other_weights_do_not_get_the_score_of_the_first(
  tmp_path, models, data
):
  model = tmp_path / 'model'
  shutil.copytree(models[0], model)
  out = tmp_path / 'out'
  _score(out, model, data, 'gsm8k')
  before = (out / 'answers.jsonl').read_bytes()
  shutil.copy(models[1] / 'model.safetensors', model / 'model.safetensors')
  with pytest.raises(
    ValueError, match=r'--output_dir=.* another configuration \(model.weig'
  ):
    _score(out, model, data, 'gsm8k')
  assert (out / 'answers.jsonl').read_bytes() == before
  # The same model elsewhere is the same model.
  assert _score(out, models[0], data, 'gsm8k')['new_answers'] == 0


@pytest.mark.parametrize(
  'change',
  [
    {'temperature': 1.0},
    {'seeds': (1,)},
    {'top_p': 0.5},
  ],
)
@pytest.mark.usefixtures('quick')
def test_another_way_of_sampling_needs_another_folder(
  tmp_path, models, data, change
):
  _score(tmp_path / 'out', models[0], data, 'gsm8k')
  other = dataclasses.replace(GREEDY, **change)
  with pytest.raises(ValueError, match='another configuration'):
    _score(tmp_path / 'out', models[0], data, 'gsm8k', other)


@pytest.mark.usefixtures('quick')
def test_a_replaced_data_file_is_answered_again(tmp_path, models, data):
  out = tmp_path / 'out'
  first = _score(out, models[0], data, 'gsm8k')
  assert first['new_answers'] == 4
  # Another question, and another answer to an old one.
  rows = [dict(r) for r in GSM8K]
  rows[0]['question'] = 'What is 7+7?'
  rows[1]['answer'] = '#### 99'
  _write(data / 'gsm8k/test.jsonl', rows)
  second = _score(out, models[0], data, 'gsm8k')
  assert second['new_answers'] == 2
  assert first['files'].keys() == second['files'].keys()
  assert first['files'] != second['files']


@pytest.mark.parametrize(
  'again', [{'form': 'chat'}, {'shots': 1}, {'decoding': 7}]
)
@pytest.mark.usefixtures('quick')
def test_another_prompt_or_limit_is_answered_again(
  tmp_path, models, data, again
):
  _write(data / 'gsm8k/train.jsonl', GSM8K[:1])
  if 'decoding' in again:
    again['decoding'] = sessions.Decoding(max_tokens=7)
  out = tmp_path / 'out'
  for _ in range(2):
    first = _score(out, models[0], data, 'gsm8k')
    assert len(_lines(out)) == 4
  second = _score(out, models[0], data, 'gsm8k', **again)
  assert second['new_answers'] == 4
  differ = {
    k
    for k in ('prompt', 'shots', 'examples_sha256', 'decoding')
    if first[k] != second[k]
  }
  assert differ == (
    {'prompt'}
    if 'form' in again
    else {'shots', 'examples_sha256'}
    if 'shots' in again
    else {'decoding'}
  )
  assert _score(out, models[0], data, 'gsm8k')['new_answers'] == 0


@pytest.mark.usefixtures('quick')
def test_results_of_benchmarks_are_added_and_say_how_they_were_measured(
  tmp_path, models, data
):
  out = tmp_path / 'out'
  _score(out, models[0], data, 'gsm8k', limit=2)
  _score(out, models[0], data, 'dolly')
  results = json.loads((out / 'results.json').read_text())['benchmarks']
  assert list(results) == ['gsm8k', 'dolly']
  r = results['gsm8k']
  assert (r['prompt'], r['shots'], r['items']) == ('plain', 0, 2)
  assert list(r['files']) == [str(data / 'gsm8k/test.jsonl')]
  assert r['model']['sha256'] == contents.digests(models[0])
  assert r['examples_sha256'] == results['dolly']['examples_sha256']
  assert r['decoding'] == {
    'temperature': 0.0,
    'top_p': 1.0,
    'seeds': [0],
    'dtype': 'float32',
    'samples': 1,
    'max_tokens': 6,
    'max_prompt_tokens': None,
  }
  assert {'ioa_jax', 'jax', 'transformers'} <= r['versions'].keys()
  (out / 'results.json').write_text('{"benchmarks": [')
  with pytest.raises(ValueError, match=r'results.json: is damaged'):
    _score(out, models[0], data, 'dolly')


def test_a_killed_evaluation_continues_and_is_the_same(tmp_path, models, data):
  sampled = sessions.Decoding(1.0, max_tokens=6, samples=2)
  out = tmp_path / 'out'
  whole = _score(out, models[0], data, 'gsm8k', sampled)
  rows = _lines(out)
  text = ''.join(json.dumps(r) + '\n' for r in rows)
  # In the middle of a line.
  (out / 'answers.jsonl').write_text(text[: len(text) * 2 // 3])
  again = _score(out, models[0], data, 'gsm8k', sampled)
  assert 0 < again['new_answers'] < 8
  key = lambda r: (r['item'], r['sample'])
  assert sorted(_lines(out), key=key) == sorted(rows, key=key)
  assert again['score'] == whole['score']


@pytest.mark.usefixtures('quick')
def test_minillms_protocol_is_a_mean_over_seeds(tmp_path, models, data):
  assert sessions.MINILLM.seeds == (10, 20, 30, 40, 50)
  short = dataclasses.replace(
    sessions.MINILLM, max_tokens=8, max_prompt_tokens=20
  )
  r = _score(tmp_path / 'out', models[0], data, 'dolly', short)
  rows = _lines(tmp_path / 'out')
  assert len(rows) == 2 * 5
  assert len({r['completion'] for r in rows}) > 3
  by_seed = {
    str(s): sum(r['score'] for r in rows if r['seed'] == s) / 2
    for s in (10, 20, 30, 40, 50)
  }
  assert r['by_seed'] == pytest.approx(by_seed)
  assert r['score'] == pytest.approx(sum(by_seed.values()) / 5)
  spread = sum((v - r['score']) ** 2 for v in by_seed.values()) / 4
  assert r['spread_over_seeds'] == pytest.approx(spread**0.5)


@pytest.mark.parametrize('name', ['math', 'mbpp', 'gpqa_diamond', 'dolly'])
def test_the_trained_turn_is_the_problem_of_a_seed(name):
  """So a run's student is asked as it was taught."""
  format_name = {'gpqa_diamond': 'gpqa'}.get(name, name)
  _, convert = domain_seeds._FORMATS[format_name]
  for i, row in enumerate(ROWS[name]):
    item = benchmarks.get(name).to_item(f'file:{i}', row)
    seed = convert(row_files, f'file:{i}', row)
    assert (item and item.text('trained')) == (seed and seed[1])


@pytest.mark.usefixtures('quick')
def test_a_runs_student_is_asked_as_it_was_trained(tmp_path, models, data):
  student = tmp_path / 'run/student'
  shutil.copytree(models[0], student)
  assert respondent.usual_form(student) == 'plain'
  config = tmp_path / 'run/config.json'
  for kind, form in (('text', 'trained'), ('arithmetic', 'plain')):
    config.write_text(json.dumps({'domain': {'kind': kind}}))
    assert respondent.usual_form(student) == form
    assert respondent.usual_form(models[0]) == 'plain'
  config.write_text(json.dumps({'domain': {'kind': 'text'}}))
  out = tmp_path / 'out'
  assert _score(out, student, data, 'gsm8k', form=None)['prompt'] == 'trained'
  assert [r['prompt'] for r in _lines(out)] == [r['question'] for r in GSM8K]
  with pytest.raises(ValueError, match='give --prompt=plain'):
    _write(data / 'gsm8k/train.jsonl', GSM8K)
    _score(out, student, data, 'gsm8k', form=None, shots=1)


def _asked(model, form, stops=(), max_tokens=6, mesh=None, **limits):
  item = benchmark_items.Item('1', 'abc', {}, 'task', 'instructed', 'trained')
  asking = answers_lib.Asking(form, max_tokens=max_tokens, **limits)
  (question,) = answers_lib.questions(benchmarks.get('dolly'), [item], asking)
  mesh = mesh or sharding.make_mesh(data=1, devices=jax.devices()[:1])
  asked = respondent.Respondent(
    model, 'name', dtype='float32', mesh=mesh, batch_size=1
  )
  with jax.set_mesh(mesh):
    ((one,),) = asked.answers([question], asking, logits_lib.Sampling(), stops)
  return asked, question, asking, one


@pytest.mark.parametrize(
  ('form', 'text'),
  [
    ('plain', 'abc'),
    ('chat', '<user>abc<assistant>'),
    ('instruct', '<user>instructed<assistant>'),
    ('trained', '<user>trained<assistant>'),
  ],
)
def test_what_the_model_reads_in_each_form(models, form, text):
  asked, question, asking, _ = _asked(models[0], form)
  tokens = asked._prompt(asked._codec(form), question, asking)
  assert asked._model.decode(tokens) == text
  cut = dataclasses.replace(asking, max_prompt_tokens=5)
  assert asked._prompt(asked._codec(form), question, cut) == tokens[:5]


def test_stop_texts_end_an_answer_and_only_limits_truncate(models):
  *_, (_, text, finish) = _asked(models[0], 'plain', max_tokens=12)
  assert finish == 'length' and len(text) == 12
  stop = text[5:7]
  *_, (_, stopped, finish) = _asked(models[0], 'plain', (stop,), max_tokens=12)
  assert (stopped, finish) == (text[: text.index(stop)], 'stop')


def test_answers_end_where_the_model_has_no_more_room(models):
  *_, (_, text, finish) = _asked(models[0], 'plain', max_tokens=600)
  assert (len(text), finish) == (512 - 3, 'length')


@pytest.mark.parametrize('axes', [{'fsdp': 2}, {'tensor': 2}])
def test_a_model_over_several_devices_answers_the_same(models, axes):
  devices = jax.devices()[:2]
  if len(devices) < 2:
    pytest.skip('needs two devices')
  mesh = sharding.make_mesh(**{'data': 1} | axes, devices=devices)
  asked, *_, split = _asked(models[0], 'plain', mesh=mesh)
  *_, alone = _asked(models[0], 'plain')
  assert split == alone
  arrays = jax.tree.leaves(asked._model.params)
  assert all(len(x.sharding.device_set) == 2 for x in arrays)


def test_a_model_in_orbax_format_answers_the_same(tmp_path, models):
  config = huggingface.read_config(models[0])
  params = huggingface.load_params(models[0], config, 'float32')
  orbax_params.save(tmp_path / 'o', config, params, source=models[0])
  *_, plain = _asked(models[0], 'plain')
  *_, orbax = _asked(tmp_path / 'o', 'plain')
  assert orbax == plain


def test_answers_are_saved_while_others_are_written(monkeypatch, data):
  """And what was written before an error is kept, too."""
  benchmark = benchmarks.get('gsm8k')
  asked = answers_lib.questions(
    benchmark,
    benchmark.load(data)[0],
    answers_lib.Asking('plain', max_tokens=9),
  )
  clock = [0.0]
  monkeypatch.setattr(answers_lib.time, 'monotonic', lambda: clock[0])
  saved = []

  def written():
    yield [(2, '3', 'stop')]
    yield [(0, '1', 'length')]
    assert not saved
    clock[0] += 30
    yield [(1, '5', 'stop')]
    for _ in range(100):  # Grading has threads of its own.
      if len(saved) >= 2:
        break
      clock[0] += 30
      yield []
    assert [r['item'] for r in saved][:2] == ['3', '1']
    yield [(3, '4', 'stop')]
    raise KeyboardInterrupt

  with pytest.raises(KeyboardInterrupt):
    answers_lib.grade(benchmark, None, asked, written(), saved.extend)
  assert {(r['item'], r['score']) for r in saved} == {
    ('3', 1.0),
    ('1', 1.0),
    ('2', 0.0),
    ('4', 1.0),
  }
  assert [r['finish_reason'] for r in saved if r['item'] == '1'] == ['length']


def test_mbpp_scores_what_is_published(tmp_path):
  ids = (1, 2, 10, 11, 510, 511, 974)
  rows = [MBPP | {'task_id': i} for i in ids]
  _write(tmp_path / 'mbpp/mbpp.jsonl', rows)
  mbpp = benchmarks.get('mbpp')
  read = lambda **o: [
    i.item_id for i in sessions.read_exam(mbpp, tmp_path, **o).items
  ]
  assert read() == ['11', '510']
  assert read(all_items=True) == [str(i) for i in ids]
  # The published prompts begin with task 2.
  examples = sessions.read_exam(mbpp, tmp_path, shots=2).examples
  example = mbpp.to_item('file:1', rows[0]).example
  assert examples == example * 2
  with pytest.raises(ValueError, match='has 2 worked items'):
    sessions.read_exam(mbpp, tmp_path, shots=3)
  _write(tmp_path / 'mbpp/mbpp.jsonl', rows[:2])
  with pytest.raises(ValueError, match='none of the items that published'):
    read()


def test_training_items_are_never_scored(tmp_path):
  rows = [{'problem': 'x?', 'solution': r'\boxed{1}'}]
  _write(tmp_path / 'math/train.jsonl', rows)
  _write(tmp_path / 'math/rllm_math_train.json', rows)
  with pytest.raises(ValueError, match=r'none of math/test.jsonl, .*holds'):
    benchmarks.get('math').load(tmp_path)


def test_examples_stand_before_the_published_prompt(tmp_path):
  _write(tmp_path / 'gsm8k/test.jsonl', GSM8K)
  _write(tmp_path / 'gsm8k/train.jsonl', GSM8K[2:])
  exam = sessions.read_exam(benchmarks.get('gsm8k'), tmp_path, shots=2)
  assert exam.items[0].text('plain', exam.examples) == (
    'Question: What is 2+1?\nAnswer: Add.\n#### 3\n\n'
    'Question: What is 3+1?\nAnswer: Add.\n#### 4\n\n'
    'Question: What is 0+1?\nAnswer:'
  )
  _write(tmp_path / 'math/test.jsonl', ROWS['math'])
  _write(tmp_path / 'math/train.jsonl', ROWS['math'])
  exam = sessions.read_exam(benchmarks.get('math'), tmp_path, shots=1)
  # An example shows the box, so nothing asks for it. It has a solution.
  assert exam.items[0].text('plain', exam.examples) == (
    'Problem:\nHalf?\n\nSolution: It is \\boxed{\\frac{1}{2}}.\n\n'
    'Problem:\nWhat is $1+1$?\n\nSolution:'
  )
  _write(tmp_path / 'humaneval/HumanEval.jsonl', ROWS['humaneval'])
  with pytest.raises(ValueError, match='humaneval has no examples'):
    sessions.read_exam(benchmarks.get('humaneval'), tmp_path, shots=1)
