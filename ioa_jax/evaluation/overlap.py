"""ROUGE-L, in any script.

Google's `rouge_score` keeps only a-z and 0-9: of a Russian or Chinese text
nothing is left, or one Latin name, which then decides alone. A reference that
is not written in Latin letters is cut by `UnicodeWords` instead.
"""

from __future__ import annotations

from collections.abc import Sequence
import functools
import unicodedata

# First and last code point. These scripts are written without blanks: a
# character is a token there, the usual convention for Chinese.
_UNSPACED = (
  (0x0E00, 0x0EFF),
  (0x0F00, 0x0FFF),
  (0x1000, 0x109F),
  (0x1780, 0x17FF),
  (0x3040, 0x30FF),
  (0x31F0, 0x31FF),
  (0x3400, 0x4DBF),
  (0x4E00, 0x9FFF),
  (0xF900, 0xFAFF),
  (0x20000, 0x323AF),
)


class UnicodeWords:
  """Tokens of any script: `rouge_score`'s tokenizer protocol.

  After NFKC and case folding, a token is a run of letters, marks and digits;
  in scripts without blanks (Chinese, Japanese kana, Thai, Lao, Khmer, Burmese,
  Tibetan) one letter with its marks. Nothing is stemmed.
  """

  def tokenize(self, text: str) -> list[str]:
    tokens: list[str] = []
    joins = False
    for char in unicodedata.normalize('NFKC', text).casefold():
      kind = unicodedata.category(char)[0]
      if kind not in 'LMN':
        joins = False
        continue
      alone = _is_unspaced(char)
      if tokens and (kind == 'M' or (joins and not alone)):
        tokens[-1] += char
      else:
        tokens.append(char)
      # A mark leaves it as it was: `กำ` is one token, and so is `नि` in a word.
      joins = joins if kind == 'M' else not alone
    return tokens


def rouge_l_stemmed_f(completion: str, references: Sequence[str]) -> float:
  """ROUGE-L F-measure with Porter stemming, the best over the references.

  MiniLLM's variant, in [0, 1]; papers multiply by 100. Unstemmed or
  whitespace-split variants differ by up to three points, hence the name. Of
  references in other scripts than Latin, `UnicodeWords` makes the tokens.

  Raises:
    ValueError: without a reference.
  """
  if not references:
    raise ValueError('ROUGE-L: no reference to compare with.')
  return max(
    _scorer(is_latin(r)).score(r, completion)['rougeL'].fmeasure
    for r in references
  )


def is_latin(text: str) -> bool:
  """Whether at least half of the letters are Latin; true of none at all."""
  letters = [c for c in text if c.isalpha()]
  latin = sum(
    c.isascii() or unicodedata.name(c, '').startswith('LATIN') for c in letters
  )
  return 2 * latin >= len(letters)


def _is_unspaced(char: str) -> bool:
  return any(first <= ord(char) <= last for first, last in _UNSPACED)


@functools.cache
def _scorer(latin: bool):
  try:
    from rouge_score import rouge_scorer
  except ImportError:
    raise ValueError(
      'ROUGE-L needs the package rouge-score: pip install "ioa_jax[eval]".'
    ) from None
  if latin:
    return rouge_scorer.RougeScorer(['rougeL'], use_stemmer=True)
  return rouge_scorer.RougeScorer(['rougeL'], tokenizer=UnicodeWords())
