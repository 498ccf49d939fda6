"""The number that a statement opens with, as behind "the answer is"."""

from __future__ import annotations

from collections.abc import Sequence

from ioa_jax.evaluation import number_chains
from ioa_jax.evaluation.number_chains import REFUSED, TAILS, VERBS, Found
from ioa_jax.evaluation.number_tokens import Token

FILLERS = frozenset(
  'is are was be equals equal to just simply only exactly approximately about '
  'around roughly nearly approx a an total of the therefore thus so hence then '
  'also that usd inr eur gbp us rs dollars sum amount number final answer '
  'value now still and we he she it they have has get gets find'.split()
)
_BESIDE = frozenset('or and to through versus 或 或者 到 至 和'.split())
BOUNDS = frozenset(
  'more less fewer greater higher lower smaller larger'.split()
)


def stated(tokens: Sequence[Token], strict: bool = False) -> Found | None:
  """The number that a statement opens with; None if it opens with none.

  Args:
    strict: nothing but a remark may follow, as in a box.
  """
  i = _first_quantity(tokens)
  if i is None:
    return None
  if isinstance(i, Found):
    return i
  chain = number_chains.chain_at(tokens, i)
  if chain is None or (
    tokens[i].spelled and number_chains.is_pronoun(tokens, i)
  ):
    return None
  end = chain.end
  if is_hedged(tokens, end) or (
    strict and [t.text for t in tokens[end : end + 1]] == ['!']
  ):
    return REFUSED
  if strict and any(t.text == '=' for t in tokens[end:]):
    return REFUSED  # `x=5, y=6`.
  j = end
  while j < len(tokens) and tokens[j].kind != 'end':
    if tokens[j].word in TAILS or tokens[j].text in ('(', ',', ':'):
      break
    if tokens[j].word in VERBS and not chain.found.text.count('='):
      return None
    if tokens[j].kind == 'num' and tokens[j - 1].text not in ('^', '_'):
      return REFUSED if strict or tokens[j].value is None else None
    j += 1
  return chain.found


def _first_quantity(tokens: Sequence[Token]) -> int | Found | None:
  i = 0
  while i < len(tokens):
    token = tokens[i]
    following = tokens[i + 1 : i + 2]
    if token.kind == 'num' or (
      token.text in ('-', '+', '(') and number_chains.opens(tokens, i)
    ):
      return i
    if token.word in ('either', 'between', 'from'):
      numbers = [t for t in tokens[i : i + 12] if t.kind == 'num']
      return REFUSED if len(numbers) > 1 else None
    if token.word in BOUNDS and following and following[0].word == 'than':
      return REFUSED
    if token.text in ('<', '±'):
      return REFUSED
    if token.word in ('negative', 'minus') and following:
      if following[0].kind == 'num' and following[0].value is not None:
        return Found('-' + following[0].text, -following[0].value)
    assigned = _assigned(tokens, i)
    if assigned:
      i = assigned
    elif token.word in FILLERS or token.text in '\n:：*,\'([{|=≈→"‘’#-+>':
      i += 1
    elif (
      token.text == 'at'
      and following
      and (following[0].word in ('least', 'most'))
    ):
      i += 2
    else:
      return None
  return None


def _assigned(tokens: Sequence[Token], i: int) -> int:
  """Behind the `=` of `x =`, `Total cost =`; 0 for no assignment."""
  for j in range(i, min(i + 5, len(tokens))):
    if tokens[j].text == '=':
      return j + 1 if j > i else 0
    if tokens[j].kind != 'word':
      return 0
  return 0


def is_hedged(tokens: Sequence[Token], end: int) -> bool:
  """Whether another number stands beside the one that ends at `end`."""
  i, words = end, 0
  while i < len(tokens) and tokens[i].kind != 'end':
    token = tokens[i]
    following = tokens[i + 1 : i + 3]
    if token.word in _BESIDE or (
      token.text in (',', '/', '&', '±', '-', '–', '~')
    ):
      if following and (
        following[0].kind == 'num'
        or (
          following[0].word in ('or', 'and', 'maybe', 'perhaps', 'possibly')
          and len(following) > 1
          and following[1].kind == 'num'
        )
      ):
        return not number_chains.is_pronoun(tokens, i + 1)
    if token.text == '(' and following and following[0].word == 'or':
      return True
    if token.kind == 'num' and number_chains.is_measure(tokens, end, i):
      return True
    if token.kind == 'num' or token.word in VERBS | (TAILS - {'and', 'to'}):
      return False
    if token.kind == 'word':
      words += 1
    if words > 4:
      return False
    i += 1
  return False
