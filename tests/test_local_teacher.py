"""A teacher on this machine: requests of every kind through one program."""

import json

import jax
import pytest
import tokenizers

from ioa_jax.models import decoder
from ioa_jax.sampling import likelihood
from ioa_jax.sampling import sampler as sampler_lib
from ioa_jax.teachers import local
from ioa_jax.teachers.client import Client
from ioa_jax.teachers.ledger import Ledger
from ioa_jax.teachers.requests import Budget, Request

LETTERS = ['\u0120', *map(chr, range(33, 127))]
CONFIG = decoder.DecoderConfig(
  vocab_size=97,
  width=32,
  num_layers=2,
  num_heads=4,
  num_kv_heads=2,
  head_width=8,
  mlp_width=48,
)


class LetterCodec:
  """A token is a letter; 1 ends an answer."""

  stop_tokens, prompt_bucket = (1,), 16

  def __init__(self, tokenizer):
    self._tokenizer = tokenizer

  def prompt(self, text, system=''):
    return self._tokenizer.encode(system + text).ids

  def answer(self, text):
    return [*self._tokenizer.encode(text).ids, 1]

  def decode(self, tokens):
    return self._tokenizer.decode(list(tokens))


@pytest.fixture(scope='module')
def tokenizer():
  vocabulary = {'<unk>': 0, '<end>': 1}
  vocabulary |= {c: i for i, c in enumerate(LETTERS, 2)}
  tokenizer = tokenizers.Tokenizer(tokenizers.models.BPE(vocabulary, []))
  tokenizer.add_special_tokens(['<unk>', '<end>'])
  tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(
    add_prefix_space=False
  )
  tokenizer.decoder = tokenizers.decoders.ByteLevel()
  return tokenizer


@pytest.fixture(scope='module')
def teacher(tokenizer):
  codec = LetterCodec(tokenizer)
  sampler = sampler_lib.Sampler(
    CONFIG, stop_tokens=codec.stop_tokens, batch_size=3, max_new_tokens=40
  )
  return local.LocalTeacher(
    'tiny',
    decoder.init(CONFIG, jax.random.key(4)),
    sampler,
    codec=codec,
    tokenizer_json=tokenizer.to_str(),
    vocab_size=CONFIG.vocab_size,
  )


def request(prompt, temperature=1.0, max_tokens=40, **more):
  return Request('tiny', prompt, temperature, 0, 1.0, max_tokens, **more)


def test_requests_of_every_kind_share_one_program(teacher, tmp_path):
  pytest.importorskip('llguidance')
  schema = json.dumps(
    {
      'type': 'object',
      'additionalProperties': False,
      'properties': {'even': {'type': 'boolean'}},
      'required': ['even'],
    }
  )
  plain = [request('a'), request('bc', 0.0, 7), request('d', 0.3, 21)]
  ledger = Ledger(tmp_path / 'ledger.sqlite')
  free = Client(teacher, ledger, Budget()).ask(plain)
  assert all(c.completion_tokens <= r.max_tokens for r, c in zip(plain, free))
  stop = free[0].text[4:6]
  special = [
    request('a', sample_index=1, response_schema=schema),
    request('a', sample_index=2, stop=(stop, '~~~')),
  ]
  answers = _answers(teacher, [*special, *plain])
  # The same text in other company.
  assert [a.text for a in answers[2:]] == [a.text for a in free]
  assert json.loads(answers[0].text).keys() == {'even'}
  assert answers[0].finish_reason == 'stop'
  assert stop not in answers[1].text and '~~~' not in answers[1].text
  assert teacher._sampler.compilations == 1
  ledger.close()


def test_a_stop_text_cuts_the_answer(teacher):
  """A key of its own gives another seed, so greedy texts are compared."""
  whole = request('xyz', 0.0)
  (_, free), *_ = next(teacher.complete([whole]))
  cut = request('xyz', 0.0, stop=(free.text[5:7],))
  (_, got), *_ = next(teacher.complete([cut]))
  assert got.text == free.text[: free.text.find(free.text[5:7])]
  assert got.finish_reason == 'stop'
  assert got.completion_tokens == len(got.text) + 2


def test_min_p_reaches_the_sampler(teacher):
  """1 keeps the likeliest token alone, which is greedy at any temperature."""
  greedy, hot = request('xyz', 0.0), request('xyz', 5.0)
  likeliest = request('xyz', 5.0, min_p=1.0)
  texts = [g.text for g in _answers(teacher, [greedy, hot, likeliest])]
  assert texts[0] == texts[2] != texts[1]


def test_a_greedy_answer_is_the_likeliest_of_its_length(teacher, tokenizer):
  """Letter by letter: no other letter in its place is likelier there."""
  asked = request('xyz', 0.0, 5)
  (answer,) = _answers(teacher, [asked])
  texts = [answer.text, *(answer.text[:4] + letter for letter in 'abcdefgh')]
  codec = LetterCodec(tokenizer)
  read = likelihood.Likelihood(CONFIG, batch_size=3)
  own, *rest = read(
    decoder.init(CONFIG, jax.random.key(4)),
    [codec.prompt(asked.prompt)] * len(texts),
    [codec.answer(text) for text in texts],
  )
  assert len(own) == 6  # Its end, too.
  for log_probs in rest:
    assert log_probs[:4] == pytest.approx(own[:4], abs=1e-5)
    assert log_probs[4] <= own[4] + 1e-5


def _answers(teacher, requests):
  pairs = dict(pair for part in teacher.complete(requests) for pair in part)
  return [pairs[i] for i in range(len(requests))]


@pytest.mark.parametrize(
  ('more', 'message'),
  [
    (dict(stop=('a',), response_schema='{}'), 'stop texts and a response_'),
    (dict(stop=('',)), 'a stop text is empty'),
    (dict(response_schema='{"type": "colour"}'), 'JSON schema'),
  ],
)
def test_what_it_cannot_do_is_said(teacher, more, message):
  if more.get('response_schema') and 'stop' not in more:
    pytest.importorskip('llguidance')
  with pytest.raises(ValueError, match=message):
    next(teacher.complete([request('a', **more)]))
