r"""The number that free text comes to: the last one that counts something.

Not `step 3`, nor `in 12 months`: what stands in the main clause of the last
sentence with numbers.
"""

from __future__ import annotations

from collections.abc import Sequence

from ioa_jax.evaluation import number_chains, number_statements
from ioa_jax.evaluation.number_chains import REFUSED, VERBS, Chain, Found
from ioa_jax.evaluation.number_tokens import Token

_STEP = frozenset(
  'step steps part eq equation equations case figure fig problem question '
  'method line formula lines'.split()
)
_LEADS = frozenset('therefore thus so hence total answer'.split())
# A number behind one of these tells when, for what or for how long.
_CLAUSES = frozenset(
  'if when because since after before while given until once though although '
  'despite as'.split()
)
_ADJUNCTS = _CLAUSES | frozenset(
  'in over for by at within during from on per to with without throughout '
  'through across upon out around into among every each than between'.split()
)
_MODALS = frozenset(
  'has have had need needs wants want wanted going able used needed plans plan '
  'decides managed gets got adds add amounts comes come rises equal up down '
  'required expected'.split()
)
_PASSIVE = frozenset('is are was were be been being'.split())
# Verb forms that name a result; other ones with -ing tell by what means.
_RESULTING = frozenset(
  'leaving making giving totaling totalling bringing having being equaling '
  'yielding earning costing saving'.split()
)
_SUBJECTS = frozenset('he she it they we i you'.split())
_NEGATIONS = frozenset(
  ('cannot', "can't", 'can’t', 'not', "isn't", 'isn’t', "wasn't", 'never')
)


def last(tokens: Sequence[Token]) -> Found | None:
  """What free text comes to: its last number that counts something."""
  sentences = _sentences(tokens)
  for sentence in reversed(sentences):
    chains = _chains(sentence)
    if not chains:
      continue
    if any(c.found is REFUSED for c in chains):  # A sum without an end.
      return REFUSED
    if sentence[0].word in _LEADS:
      stated = number_statements.stated(sentence)
      if stated:
        return stated
    outside = _outside_brackets(sentence, chains)
    counted = [c for c in outside if _counts(sentence, c)]
    if not counted:
      if any(_negated(sentence, c) for c in outside):
        return REFUSED
      continue
    bold = [c for c in counted if sentence[c.end - 1].bold]
    return _choose(sentence, bold or _main(sentence, counted))
  # Nothing but words: `eighteen`; or only what counts nothing.
  return _in_words(sentences)


def _in_words(sentences: Sequence[list[Token]]) -> Found | None:
  for sentence in reversed(sentences):
    words = [
      i
      for i, t in enumerate(sentence)
      if t.kind == 'num'
      and t.spelled
      and not number_chains.is_pronoun(sentence, i)
    ]
    if words:
      chain = number_chains.chain_at(sentence, words[-1])
      if len(words) > 1 and number_statements.is_hedged(
        sentence, words[-2] + 1
      ):
        return REFUSED
      return chain.found if chain else None
  return None


def _sentences(tokens: Sequence[Token]) -> list[list[Token]]:
  sentences: list[list[Token]] = [[]]
  for token in tokens:
    if token.kind == 'end':
      sentences.append([])
    else:
      sentences[-1].append(token)
  return [s for s in sentences if s]


def _chains(sentence: Sequence[Token]) -> list[Chain]:
  """Chains with digits in them."""
  chains, i = [], 0
  while i < len(sentence):
    starts = sentence[i].kind == 'num' or (
      sentence[i].text in ('-', '+', '(')
      and number_chains.opens(sentence, i)
      and not (i and sentence[i].glued and sentence[i - 1].kind == 'word')
    )
    chain = number_chains.chain_at(sentence, i) if starts else None
    if chain is None:
      i += 1
      continue
    numbers = [t for t in sentence[i : chain.end] if t.kind == 'num']
    if not all(t.spelled and len(t.text) > 1 for t in numbers) or (
      chain.joined and not all(t.spelled for t in numbers)
    ):
      chains.append(chain)
    elif any(t.text[-1].isdigit() or t.text[0].isdigit() for t in numbers):
      chains.append(chain)
    i = max(chain.end, i + 1)
  return chains


def _outside_brackets(
  sentence: Sequence[Token], chains: list[Chain]
) -> list[Chain]:
  depth, outside = 0, []
  depths = []
  for token in sentence:
    depth = max(
      0, depth + {'(': 1, '[': 1, ')': -1, ']': -1}.get(token.text, 0)
    )
    depths.append(depth)
  for chain in chains:
    before = depths[chain.start - 1] if chain.start else 0
    if not before:
      outside.append(chain)
  return outside or chains


def _counts(sentence: Sequence[Token], chain: Chain) -> bool:
  """Whether a number can be an answer: not `step 3`, `3-day`, `x2`."""
  before = [
    sentence[i] if i >= 0 else None for i in (chain.start - 1, chain.start - 2)
  ]
  after = list(sentence[chain.end : chain.end + 2])
  first = sentence[chain.start]
  if before[0] is not None:
    if before[0].word in _STEP or before[0].text in ('#', '_'):
      return False
    if before[0].word == 'of' and before[1] and before[1].word == 'out':
      return False
    if (
      before[0].word == 'than'
      and before[1]
      and before[1].word in number_statements.BOUNDS
    ):
      return False
    if before[0].text == '^' or _negated(sentence, chain):
      return False
    # `COVID-19`, and the number that a letter and a point end in.
    if (
      first.glued
      and before[0].text in ('-', '.')
      and before[0].glued
      and (before[1] is not None and before[1].kind == 'word')
    ):
      return False
    if first.glued and first.text[0] == '.' and before[0].kind == 'word':
      return False
  # `18-year-old`.
  return not (
    len(after) == 2
    and after[0].text == '-'
    and after[0].glued
    and after[1].glued
    and after[1].kind == 'word'
  )


def _main(sentence: Sequence[Token], counted: list[Chain]) -> list[Chain]:
  """Without `in 3 days`, `to dig 20 holes`, `if he sells 5`: main clauses."""
  main, end, adjunct = [], 0, False
  for chain in counted:
    adjunct = _is_adjunct(sentence, end, chain, adjunct)
    end = chain.end
    if not adjunct:
      main.append(chain)
  if main:
    return main
  # `from 5 to 18` comes to its last, `for 20 minutes after 5 days` does not.
  latest = counted[-1]
  ranged = latest.start and sentence[latest.start - 1].word in ('to', 'and')
  return counted if ranged else counted[:1]


def _is_adjunct(
  sentence: Sequence[Token], begin: int, chain: Chain, inherited: bool
) -> bool:
  """Reads back from a number to what governs it."""
  following = [t.word for t in sentence[chain.end : chain.end + 4]] + [''] * 4
  if {'ago', 'later', 'earlier'} & set(following[1:3]) or (
    following[1:3] == ['from', 'now']
  ):
    return True
  if chain.equated:
    return False
  part_of = False
  for i in range(chain.start - 1, begin - 1, -1):
    token, word = sentence[i], sentence[i].word
    before = sentence[i - 1].word if i else ''
    if token.text in (':', '=', '≈', '→'):
      return False
    if token.text == ',':
      return inherited and i == chain.start - 1
    if word in VERBS and before != 'to':
      subject = [
        t.word for t in sentence[max(0, i - 3) : i] if t.kind == 'word'
      ]
      return len(subject) == min(i, 3) and bool(_CLAUSES & set(subject))
    if word.endswith('ing') and len(word) > 5 and word != 'remaining':
      return word not in _RESULTING
    if word == 'total' and before == 'a':
      return False
    if word in _SUBJECTS:
      return bool(_CLAUSES & {before})
    part_of |= word == 'of'
    if word not in _ADJUNCTS:
      continue
    if word == 'to' and i == chain.start - 1:
      return inherited
    if word == 'to' and (before in _MODALS or not i):
      if i < 2 or sentence[i - 2].word not in _PASSIVE:
        continue
    lasting = word == 'for' and before.startswith('last')
    if lasting or (word == 'at' and part_of):
      return False
    # `for $18.`: a price, where no thing is counted.
    price = following[0] in ('', 'dollar', 'dollars', 'cent', 'cents')
    return not (
      word in ('for', 'at', 'with', 'by') and price and i == chain.start - 1
    )
  return inherited or (part_of and begin > 0)


def _negated(sentence: Sequence[Token], chain: Chain) -> bool:
  before = sentence[max(0, chain.start - 2) : chain.start]
  return any(t.word in _NEGATIONS or t.text in '<±' for t in before[-1:]) or (
    len(before) == 2
    and before[0].word in _NEGATIONS
    and before[1].word in number_statements.FILLERS
  )


def _choose(sentence: Sequence[Token], counted: list[Chain]) -> Found:
  chosen = counted[-1]
  opening = sentence[chosen.start - 1].word if chosen.start else ''
  if len(counted) > 1:
    before = counted[-2]
    gap = sentence[before.end : chosen.start]
    words = [t.word for t in gap]
    if len(gap) <= 5 and (
      words[-1:] in (['or'], ['或'], ['或者']) or '/' in [t.text for t in gap]
    ):
      return REFUSED
    lead = [t.word for t in sentence[max(0, before.start - 2) : before.start]]
    if 'between' in lead and 'and' in words[-1:]:
      return REFUSED
    if (
      number_chains.is_measure(sentence, before.end, chosen.start)
      and len(gap) <= 3
    ):
      return REFUSED
  if opening in ('under', 'over', 'negative') and opening == 'negative':
    value = chosen.found.value
    return Found('-' + chosen.found.text, None if value is None else -value)
  return chosen.found
