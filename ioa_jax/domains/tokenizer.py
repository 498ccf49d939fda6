"""One token per character, numbers least significant digit first.

Small transformers learn carrying far sooner when the digit they write depends
only on digits they have already read, so every run of digits is reversed on the
way in and on the way out. The tokenizer itself does it, so that tokenizer.json
is all that another program needs. Text is in human order everywhere.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
import re

import tokenizers
from tokenizers import decoders, normalizers, pre_tokenizers

PAD, EOS = '<pad>', '<eos>'
PAD_ID, EOS_ID = 0, 1
# Longer runs of digits are left as they are, in both directions.
MAX_DIGITS = 8
_ALPHABET = '0123456789+-*/=:;|Rx()@<'
# Stand for the digits while a run is being reversed (private use).
_STAND_INS = [chr(0xE000 + digit) for digit in range(10)]


def build(
  alphabet: str = _ALPHABET, words: Sequence[str] = ()
) -> tokenizers.Tokenizer:
  """The tokenizer in Hugging Face's format, as it is shipped beside weights.

  Args:
    alphabet: characters that are tokens.
    words: tokens of several letters; a space follows each and belongs to it.
  """
  vocabulary = {PAD: PAD_ID, EOS: EOS_ID, '<unk>': 2}
  pieces = [*alphabet, *(f'{word} ' for word in words)]
  vocabulary |= {piece: 3 + i for i, piece in enumerate(pieces)}
  model = tokenizers.models.WordLevel(vocabulary, unk_token='<unk>')
  tokenizer = tokenizers.Tokenizer(model)
  # A stand-in in the text is no digit.
  foreign = normalizers.Replace(_any_of(''.join(_STAND_INS)), '\ufffd')
  tokenizer.normalizer = normalizers.Sequence(
    [foreign, *_reversal(normalizers.Replace)]
  )
  split = tokenizers.Regex(r'[a-z_]+ |[\s\S]') if words else ''
  tokenizer.pre_tokenizer = pre_tokenizers.Split(split, 'isolated')
  tokenizer.decoder = decoders.Sequence(
    [decoders.Fuse(), *_reversal(decoders.Replace)]
  )
  tokenizer.add_special_tokens([PAD, EOS, '<unk>'])
  return tokenizer


def _any_of(characters: str) -> tokenizers.Regex:
  return tokenizers.Regex(f'[{re.escape(characters)}]')


def _reversal(replace: Callable) -> list:
  """Replacements, one after the other, that reverse each run of digits.

  Such a rule cannot move text. So a stand-in for the k-th digit from the right
  is put before the run, for each k and digit; then the run is deleted, and
  stand-ins become digits.
  """
  start = '(?<![0-9])(?='
  rules = [
    replace(
      tokenizers.Regex(
        f'{start}[0-9]{{0,{MAX_DIGITS - 1 - k}}}{digit}[0-9]{{{k}}}(?![0-9]))'
      ),
      stand_in,
    )
    for k in range(MAX_DIGITS)
    for digit, stand_in in enumerate(_STAND_INS)
  ]
  behind = f'(?<=[{_STAND_INS[0]}-{_STAND_INS[-1]}])[0-9]+'
  rules.append(replace(tokenizers.Regex(behind), ''))
  rules += [replace(s, str(digit)) for digit, s in enumerate(_STAND_INS)]
  return rules


class DigitCodec:
  """How the built-in models read and write the domain's text.

  Args:
    tokenizer: of the model, as `build` makes it.

  Raises:
    ValueError: if it is another one, in which numbers would be misread.
  """

  stop_tokens = (EOS_ID,)
  prompt_bucket = 16

  def __init__(self, tokenizer: tokenizers.Tokenizer):
    if tokenizer.encode('12').tokens != ['2', '1']:
      raise ValueError(
        'the tokenizer does not write numbers least significant digit first, '
        'as the built-in models do; one that an older version exported is '
        'mended by the tokenizer.json of ioa_jax/assets/arithmetic/student.'
      )
    self._tokenizer = tokenizer
    # The answer is what follows the last of these, see `final_answer`.
    (self.answer_marker,) = self.span('=')

  def prompt(self, text: str, system: str = '') -> list[int]:
    """Tokens up to where the model answers; it knows no system prompt."""
    del system
    return self._tokenizer.encode(text).ids

  def question(self, tokens: Sequence[int]) -> str:
    """The question that `prompt` made these tokens of."""
    return self.decode(tokens)

  def answer(self, text: str) -> list[int]:
    """Tokens of a whole answer, its end included."""
    return [*self._tokenizer.encode(text).ids, EOS_ID]

  def span(self, text: str) -> list[int]:
    """Tokens of a part of an answer that begins and ends no number in its
    midst; they are the same wherever it stands."""
    return self._tokenizer.encode(text).ids

  def decode(self, tokens: Sequence[int]) -> str:
    return self._tokenizer.decode(list(tokens))
