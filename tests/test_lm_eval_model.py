"""The harness's own class for transformers is the oracle of ours."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest
import tokenizers
import yaml

pytest.importorskip('lm_eval', reason='needs the extra "lm_eval"')
pytest.importorskip('accelerate', reason='the oracle needs it')

import lm_eval
from lm_eval.api.instance import Instance
from lm_eval.models.huggingface import HFLM
import lm_eval.tasks

from ioa_jax.evaluation import lm_eval_model
from ioa_jax.models import decoder, huggingface, rope
from tests.outside import ROOT
from tests.tiny_models import random_params

pytestmark = pytest.mark.slow
LETTERS = ['\n', *map(chr, range(32, 127))]
TEMPLATE = (
  "{% for m in messages %}<{{ m['role'] }}>{{ m['content'] }}"
  "{% if not loop.last or m['role'] == 'user' %}<eos>{% endif %}{% endfor %}"
  '{% if add_generation_prompt %}<assistant>'
  '{% if not enable_thinking %}(no){% endif %}{% endif %}'
)
POSITIONS = 96
# A tokenizer without a beginning of a text, and one that writes one.
KINDS = {
  'qwen2': dict(architecture='qwen2'),
  'llama': dict(rope_scaling=rope.Linear(2.0), tie_embeddings=False),
}


def _build(path, bos, **fields):
  special = ['<pad>', '<eos>', '<bos>']
  vocabulary = {c: i for i, c in enumerate([*special, *LETTERS])}
  vocabulary |= {'th': len(vocabulary), 'an': len(vocabulary) + 1}
  tokenizer = tokenizers.Tokenizer(
    tokenizers.models.BPE(vocabulary, [('t', 'h'), ('a', 'n')], unk_token=' ')
  )
  tokenizer.decoder = tokenizers.decoders.Fuse()
  tokenizer.add_special_tokens(special)
  if bos:
    tokenizer.post_processor = tokenizers.processors.TemplateProcessing(
      single='<bos> $A', special_tokens=[('<bos>', 2)]
    )
  config = decoder.DecoderConfig(
    vocab_size=len(vocabulary),
    width=32,
    num_layers=2,
    num_heads=4,
    num_kv_heads=2,
    head_width=8,
    mlp_width=48,
    max_positions=POSITIONS,
    **fields,
  )
  # Steep enough that answers differ, and not so that rounding shows.
  params = random_params(config, scale=0.3, seed=1)
  huggingface.save(
    path, config, params, dtype='float32', eos_token_id=1, pad_token_id=0
  )
  tokenizer.save(str(path / 'tokenizer.json'))
  settings = {
    'tokenizer_class': 'PreTrainedTokenizerFast',
    'eos_token': '<eos>',
    'pad_token': '<pad>',
    'chat_template': TEMPLATE,
    'clean_up_tokenization_spaces': False,
  } | ({'bos_token': '<bos>'} if bos else {})
  (path / 'tokenizer_config.json').write_text(json.dumps(settings))
  return path


@pytest.fixture(scope='module', params=KINDS)
def models(request, tmp_path_factory):
  """Our class, and the oracle."""
  path = tmp_path_factory.mktemp('model')
  _build(path, request.param == 'llama', **KINDS[request.param])
  theirs = HFLM(
    str(path), device='cpu', dtype='float32', batch_size=1, truncation=False
  )
  return lm_eval_model.IoaLM(str(path), batch_size=3), theirs


def _requests(kind, *arguments):
  return [Instance(kind, {}, a, i) for i, a in enumerate(arguments)]


LONG = 'the man and then another thing that can stand on the land ' * 3
PAIRS = (
  ('the', ' man'),
  ('a b ', 'c'),
  ('', 'than'),
  ('x\n', 'then\nand'),
  ('<bos>the', ' man'),
  (LONG, ' and the end'),
  ('?', LONG[:80]),
)


def test_likelihoods_of_continuations(models):
  ours, theirs = models
  here = ours.loglikelihood(_requests('loglikelihood', *PAIRS))
  there = theirs.loglikelihood(_requests('loglikelihood', *PAIRS))
  np.testing.assert_allclose(
    [x for x, _ in here], [x for x, _ in there], atol=1e-4
  )
  assert [x for _, x in here] == [x for _, x in there]


def test_a_greedy_continuation_is_known_as_one(models):
  ours, _ = models
  written = ours.generate_until(
    _requests('generate_until', ('the', {'until': [], 'max_gen_toks': 1}))
  )
  pairs = [('the', written[0]), ('the', '~~')]
  for model in models:
    found = model.loglikelihood(_requests('loglikelihood', *pairs))
    assert [greedy for _, greedy in found] == [True, False]


def test_likelihoods_of_whole_texts(models):
  """Past the model's positions in windows."""
  ours, theirs = models
  texts = [(t,) for t in ('the man', 'a', LONG, LONG[: POSITIONS - 1])]
  here = ours.loglikelihood_rolling(_requests('loglikelihood_rolling', *texts))
  there = theirs.loglikelihood_rolling(
    _requests('loglikelihood_rolling', *texts)
  )
  np.testing.assert_allclose(here, there, atol=1e-4, rtol=1e-6)


def test_greedy_texts(models):
  """With stop texts and without, and where contexts lose their beginning."""
  ours, theirs = models
  first = ours.generate_until(
    _requests('generate_until', ('the', {'until': [], 'max_gen_toks': 24}))
  )[0]
  asked = [
    ('the', {'until': [], 'max_gen_toks': 24}),
    ('the', {'until': [first[4:6]], 'max_gen_toks': 24}),
    ('an', {'until': [first[0], '\n'], 'do_sample': False}),
    ('A longer question: how?', {'until': ['e'], 'max_gen_toks': 40}),
    (LONG, {'until': ['\n\n'], 'max_gen_toks': 32, 'temperature': 0.0}),
  ]
  asked[2][1]['max_gen_toks'] = 30
  here = ours.generate_until(_requests('generate_until', *asked))
  there = theirs.generate_until(_requests('generate_until', *asked))
  assert here == there and len(set(here)) >= 3
  assert here[1] == first[: first.index(first[4:6])]


def test_chats_are_as_transformers_writes_them(models):
  ours, theirs = models
  chat = [
    {'role': 'system', 'content': 'Be brief.'},
    {'role': 'user', 'content': 'the?'},
  ]
  begun = [*chat, {'role': 'assistant', 'content': 'th'}]
  assert ours.apply_chat_template(chat) == theirs.apply_chat_template(chat)
  for model in models:
    text = model.apply_chat_template(begun, add_generation_prompt=False)
    assert text.endswith('<assistant>th')
  assert ours.chat_template(True) == theirs.chat_template(True) == TEMPLATE
  thinking = lm_eval_model.IoaLM(ours._name, batch_size=1, thinking=True)
  text = thinking.apply_chat_template(chat)
  assert ours.apply_chat_template(chat) == f'{text}(no)'
  with pytest.raises(ValueError, match='thinking=True is for answers'):
    thinking.loglikelihood(_requests('loglikelihood', *PAIRS[:1]))


def test_samples_of_one_question_differ_and_are_drawn_again_the_same(models):
  ours, _ = models
  kwargs = {'do_sample': True, 'temperature': 1.0, 'max_gen_toks': 16}
  requests = _requests('generate_until', *[('the', kwargs)] * 3)
  first = ours.generate_until(requests)
  assert len(set(first)) == 3 and ours.generate_until(requests) == first


@pytest.mark.parametrize(
  ('call', 'message'),
  [
    (lambda m: _generate(m, repetition_penalty=1.1), 'repetition_penalty'),
    (lambda m: _generate(m, max_gen_toks=POSITIONS), 'max_gen_toks is 96'),
    (lambda m: lm_eval_model.IoaLM(m._name, batch_size='auto'), 'batch_size'),
    (lambda m: lm_eval_model.IoaLM(m._name, max_length=97), '96 positions'),
    (lambda m: m.loglikelihood(_requests('x', ('a', LONG))), 'longer than'),
    (lambda m: m.loglikelihood(_requests('x', ('a', ''))), 'no tokens'),
  ],
)
def test_what_cannot_be_done_is_said(models, call, message):
  with pytest.raises(ValueError, match=message):
    call(models[0])


def _generate(model, **kwargs):
  return model.generate_until(_requests('generate_until', ('the', kwargs)))


DOCUMENTS = [
  {'q': 'the man', 'options': [' can', ' than', ' stand'], 'gold': 1},
  {'q': 'and then', 'options': ['x', 'yy', ' an end'], 'gold': 0},
  {'q': 'another', 'options': [' thing', ' one', '!'], 'gold': 2},
]
TASKS = {
  'tiny_choice': {
    'output_type': 'multiple_choice',
    'doc_to_text': '{{q}}',
    'doc_to_choice': '{{options}}',
    'doc_to_target': 'gold',
    'num_fewshot': 0,
    'metric_list': [{'metric': 'acc'}, {'metric': 'acc_norm'}],
  },
  'tiny_words': {
    'output_type': 'loglikelihood_rolling',
    'doc_to_text': '',
    'doc_to_target': '{{q}}',
    'metric_list': [{'metric': 'bits_per_byte'}],
  },
  'tiny_answer': {
    'output_type': 'generate_until',
    'doc_to_text': 'Q: {{q}}\nA:',
    'doc_to_target': '{{options[gold]}}',
    'fewshot_split': 'test',
    'num_fewshot': 1,
    'generation_kwargs': {'until': ['\n'], 'max_gen_toks': 12},
    'metric_list': [{'metric': 'exact_match'}],
  },
}


@pytest.fixture(scope='module')
def tasks(tmp_path_factory):
  path = tmp_path_factory.mktemp('tasks')
  rows = path / 'rows.jsonl'
  rows.write_text(''.join(json.dumps(d) + '\n' for d in DOCUMENTS))
  for name, fields in TASKS.items():
    task = fields | {
      'task': name,
      'dataset_path': 'json',
      'dataset_kwargs': {
        'data_files': {'test': str(rows)},
        'cache_dir': str(path / 'cache'),
      },
      'test_split': 'test',
    }
    (path / f'{name}.yaml').write_text(yaml.safe_dump(task))
  return path


def _evaluated(model, tasks, **options):
  found = lm_eval.simple_evaluate(
    model=model,
    tasks=list(TASKS),
    task_manager=lm_eval.tasks.TaskManager(
      include_path=str(tasks), include_defaults=False
    ),
    bootstrap_iters=0,
    log_samples=True,
    **options,
  )
  metrics = {
    (task, name): value
    for task, values in found['results'].items()
    for name, value in values.items()
    if name.endswith(',none') and 'stderr' not in name
  }
  answers = [s['resps'] for s in found['samples']['tiny_answer']]
  return metrics, answers


@pytest.mark.parametrize('chat', [False, True])
def test_real_tasks_have_the_harnesss_scores(models, tasks, chat):
  options = {'apply_chat_template': chat, 'fewshot_as_multiturn': chat}
  ours, theirs = models
  here, answers = _evaluated(ours, tasks, **options)
  there, want = _evaluated(theirs, tasks, **options)
  assert answers == want
  assert here.keys() == there.keys() and len(here) == 4
  for name, value in here.items():
    assert value == pytest.approx(there[name], abs=1e-4), name


def test_the_command_runs_a_task(models, tasks, tmp_path):
  done = subprocess.run(
    [
      sys.executable,
      '-m',
      'ioa_jax.evaluation.lm_eval_model',
      '--tasks=tiny_choice',
      f'--include_path={tasks}',
      f'--model_args=pretrained={models[0]._name}',
      '--batch_size=2',
      f'--output_path={tmp_path / "scores.json"}',
    ],
    cwd=ROOT,
    capture_output=True,
    text=True,
    env=os.environ | {'HF_HUB_OFFLINE': '1', 'HF_DATASETS_OFFLINE': '1'},
    timeout=900,
  )
  assert done.returncode == 0, done.stderr[-2000:]
  (path,) = tmp_path.rglob('*.json')
  scores = json.loads(path.read_text())
  assert scores['config']['model'] == 'ioa_jax'
  here, _ = _evaluated(models[0], tasks)
  score = scores['results']['tiny_choice']['acc,none']
  assert score == here['tiny_choice', 'acc,none']


def test_smollm2_is_scored_as_by_transformers(smollm2, tasks):
  theirs = HFLM(str(smollm2), device='cpu', dtype='float32', batch_size=1)
  ours = lm_eval_model.IoaLM(str(smollm2), batch_size=3)
  for options in (
    {},
    {'apply_chat_template': True, 'fewshot_as_multiturn': True},
  ):
    here, answers = _evaluated(ours, tasks, **options)
    there, want = _evaluated(theirs, tasks, **options)
    assert answers == want
    for name, value in here.items():
      assert value == pytest.approx(there[name], abs=1e-4), name
