"""One token per character, numbers least significant digit first.

Small transformers learn carrying far sooner when the digit they write depends
only on digits they have already read, so every run of digits is reversed on the
way in and on the way out. Text elsewhere in the project is in human order.
"""

from __future__ import annotations

from collections.abc import Sequence
import re

import tokenizers

PAD, EOS = '<pad>', '<eos>'
PAD_ID, EOS_ID = 0, 1
_ALPHABET = '0123456789+-*/=:;|Rx()@<'


def build() -> tokenizers.Tokenizer:
  """The tokenizer in Hugging Face's format, as it is shipped beside weights."""
  vocabulary = {PAD: PAD_ID, EOS: EOS_ID, '<unk>': 2}
  vocabulary |= {c: 3 + i for i, c in enumerate(_ALPHABET)}
  model = tokenizers.models.WordLevel(vocabulary, unk_token='<unk>')
  tokenizer = tokenizers.Tokenizer(model)
  tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.Split('', 'isolated')
  tokenizer.decoder = tokenizers.decoders.Fuse()
  tokenizer.add_special_tokens([PAD, EOS, '<unk>'])
  return tokenizer


def reverse_digits(text: str) -> str:
  """Reverses each run of digits; its own inverse."""
  return re.sub(r'\d+', lambda run: run[0][::-1], text)


class DigitCodec:
  """How the built-in models read and write the domain's text.

  Args:
    tokenizer: of the model, as `build` makes it.
  """

  stop_tokens = (EOS_ID,)
  prompt_bucket = 16

  def __init__(self, tokenizer: tokenizers.Tokenizer):
    self._tokenizer = tokenizer
    # The answer is what follows the last of these, see `final_answer`.
    (self.answer_marker,) = self.span('=')

  def prompt(self, text: str, system: str = '') -> list[int]:
    """Tokens up to where the model answers; it knows no system prompt."""
    del system
    return self._tokenizer.encode(reverse_digits(text)).ids

  def answer(self, text: str) -> list[int]:
    """Tokens of a whole answer, its end included."""
    return [*self._tokenizer.encode(reverse_digits(text)).ids, EOS_ID]

  def span(self, text: str) -> list[int]:
    """Tokens of a part of an answer; one token a character, so they are the
    same wherever it stands."""
    return self._tokenizer.encode(reverse_digits(text)).ids

  def decode(self, tokens: Sequence[int]) -> str:
    return reverse_digits(self._tokenizer.decode(list(tokens)))
