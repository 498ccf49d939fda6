r"""The number that a worked solution gives as its answer.

The most explicit statement counts: after GSM8K's `####`, in the last
`\boxed{}`, after "the answer is", else what the text comes to at its end, as in
lm-eval's flexible-extract. A statement that hedges ("18 or 20"), or whose
number is refused (`12:30`), is no answer; nothing else is taken instead.
"""

from __future__ import annotations

from collections.abc import Sequence
import dataclasses
from fractions import Fraction
import re

from ioa_jax.evaluation import answer_text, number_tokens
from ioa_jax.evaluation.number_tokens import Token

_MAX_CHAIN = 80
_MAX_STATEMENTS = 20
_SIGNS = frozenset('+-*/^()')
_MARK = re.compile(r'(?m)(?<!#)####(?!#)(.*)$')
_HEADING = re.compile(
  r'(?i)\s*\**\s*(?:(?:step|part|case|question|problem|example|section|stage|'
  r'phase|method|approach|equation|solution|option|task|round|scenario)\b'
  r'|[0-9]+\s*[.):]\s+\S)'
)
_NO_ANSWER = re.compile(
  r'(?i)\W*(?:unknown|none|null|nan|n/?a|undefined|undetermined|unclear|'
  r'not |no |cannot|can.t|impossible|\?|$)'
)
_STATED = re.compile(
  r'(?i)(?:\b(?:answer|ans|antwort|respuesta|resposta|risposta|réponse|ответ)\b'
  r'(?P<about>(?: (?!is\b|was\b|are\b|equals\b)[a-z]+){0,8}?)'
  r'\W{0,4}?(?:\s*(?:is|was|would be|must be|should be|equals|ist|est|es|é)\b'
  r'|[:=：]|\s*->|→|\n)'
  r'|(?:答案|答え|答|정답)\s*(?:[:：=]|是|为|為|は|은))'
)
# "To check the answer: ..." states nothing.
_UNSTATED = re.compile(
  r'(?i)\b(?:check|verify|confirm|find|get|calculate|compute|determine|reach|'
  r'round|write|simplify|obtain|express|give|state)\w*(?: \w+){0,3} $'
)
_STEP = frozenset(
  'step steps part eq equation equations case figure fig problem question '
  'method line formula lines'.split()
)
_FILLERS = frozenset(
  'is are was be equals equal to just simply only exactly approximately about '
  'around roughly nearly approx a an total of the therefore thus so hence then '
  'also that usd inr eur gbp us rs dollars sum amount number final answer value '
  'now still and we he she it they have has get gets find'.split()
)  # fmt: skip
_LEADS = frozenset('therefore thus so hence total answer'.split())
_VERBS = frozenset(
  'is are was were makes make made equals equal gives give gave leaves leave '
  'becomes remain remains gets get costs cost totals has have had comes will '
  'would can means yields results takes take'.split()
)  # fmt: skip
# What follows these says more about an answer that is complete already.
_TAILS = frozenset(
  'because since as which where when if that who for per in on at after before '
  'by from with during each every more less left and so but while until than '
  'over out to given see if not'.split()
)  # fmt: skip
_MEASURES = (
  ('hour', 'hr', 'minute', 'min', 'day', 'week', 'month', 'year', 'foot', 'feet',
   'ft', 'yard', 'mile', 'meter', 'pound', 'lb', 'dollar', 'gallon', 'dozen'),
  ('minute', 'min', 'second', 'sec', 'hour', 'day', 'week', 'month', 'inche',
   'inch', 'in', 'feet', 'foot', 'cent', 'ounce', 'oz', 'cm', 'pint', 'quart'),
)  # fmt: skip
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
_NEGATIONS = frozenset(("not", "isn't", "isn’t", "wasn't", "never"))
_BOUNDS = frozenset('more less fewer greater higher lower smaller larger'.split())


@dataclasses.dataclass(frozen=True)
class Found:
  """A number that was found.

  Attributes:
    text: as written, in prepared text.
    value: None for one that is refused.
  """

  text: str
  value: Fraction | None


_REFUSED = Found('', None)


@dataclasses.dataclass(frozen=True)
class _Chain:
  """Numbers joined by signs: `16 eggs - 3 eggs = 13`; tokens[start:end]."""

  start: int
  end: int
  found: Found
  # Whether it says more than one number, and whether it says what they make.
  joined: bool
  equated: bool = False


def find(completion: str) -> Found | None:
  """The answer of a word problem; None if there is no number at all."""
  for mark in reversed(list(_MARK.finditer(completion))[-_MAX_STATEMENTS:]):
    line, rest = mark[1], answer_text.ending(completion[mark.end() :])
    if not line.strip() and rest.strip():
      line = rest.strip().split('\n')[0]
    elif _is_heading(line, rest):
      continue
    return _stated(_tokens(line)) or _last(_tokens(line))
  if re.search(r'\\(?:boxed|fbox)\s*\{', completion):
    boxed = answer_text.last_boxed(completion)
    tokens = _tokens(boxed or '')
    return _stated(tokens, strict=True) or _last(tokens)
  text = number_tokens.prepare(answer_text.ending(completion))
  for match in reversed(list(_STATED.finditer(text))[-_MAX_STATEMENTS:]):
    if _UNSTATED.search(text[max(0, match.start() - 40) : match.start()] + ' '):
      continue
    if _UNSTATED.search(re.sub(r'\S+ $', '', text[: match.start()][-40:])):
      continue
    rest = number_tokens.tokenize(text[match.end() :])
    found = _stated(rest) or _last(rest)
    if found:
      return found
  return _last(number_tokens.tokenize(text))


def _tokens(text: str) -> list[Token]:
  return number_tokens.tokenize(
    number_tokens.prepare(answer_text.ending(text))
  )


def _is_heading(line: str, rest: str) -> bool:
  """Whether `####` opens a Markdown heading and not GSM8K's answer."""
  if not rest.strip():
    return False
  if _HEADING.match(line):
    return True
  numbers = [t for t in _tokens(line) if t.kind == 'num' and not t.spelled]
  if numbers:
    return _stated(_tokens(line)) is None and line.strip()[:1].isupper()
  return not _NO_ANSWER.match(line)


def _chain(tokens: Sequence[Token], start: int) -> _Chain | None:
  """The longest chain that begins at `start`."""
  parts: list[list[Token]] = [[]]
  i, end, numbers = start, start, 0
  while i < len(tokens) and i - start < _MAX_CHAIN:
    token = tokens[i]
    after_number = bool(parts[-1]) and (
      parts[-1][-1].kind == 'num' or parts[-1][-1].text == ')'
    )
    if token.kind == 'num':
      fraction = [t.text for t in tokens[i + 1 : i + 2]] == ['/']
      mixed = after_number and fraction and parts[-1][-1].text.isdigit()
      if after_number and not mixed:
        break
      parts[-1].append(token)
      numbers, i = numbers + 1, i + 1
      end = i
    elif token.text in _SIGNS:
      if token.text == '(' and after_number and not token.glued:
        break
      parts[-1].append(token)
      i += 1
      end = i if token.text == ')' else end
    elif token.text in ('=', '≈') and after_number:
      parts.append([])
      i += 1
    elif after_number and (skip := _unit_before_sign(tokens, i)):
      i = skip
    else:
      break
  else:
    if i - start >= _MAX_CHAIN:
      return _Chain(start, i, _REFUSED, True)
  if not numbers:
    return None
  return _read_chain(tokens, start, end, parts, numbers)


def _read_chain(tokens, start, end, parts, numbers) -> _Chain:
  last = next(p for p in reversed(parts) if any(t.kind == 'num' for t in p))
  # A sign or a bracket that nothing follows belongs to the sentence.
  while last[-1].kind != 'num' and last[-1].text != ')':
    last = last[:-1]
  while last[-1].text == ')' and _depth(last) < 0:
    last = last[:-1]
  while last[0].text in ('(', '*', '/', '+', '^') and (
    _depth(last) > 0 or last[0].text != '('
  ):
    last = last[1:]
  value = number_tokens.evaluate(last)
  text = re.sub(r'(?<=[0-9]) ?([*/^]) ?(?=[0-9])', r'\1',
                ' '.join(t.text for t in last))  # fmt: skip
  text = re.sub(r'^([-+]) ', r'\1', text)
  dashes = [t for t in last[1:] if t.text == '-']
  if len(parts) == 1 and dashes and not any(t.text in '+*/^' for t in last):
    value = None  # `18-20` is more often a range than a difference.
  before = [t.text for t in tokens[max(0, start - 2) : start]]
  if before and (before[-1][0] == '\\' or before[-1] == '√' or (
    before[-1] == '{' and before[0][0] == '\\'
  )):  # fmt: skip
    value = None  # `\sqrt{18}`.
  following = tokens[end : end + 1]
  if following and _spoils(following[0]):
    value = None
  return _Chain(start, end, Found(text, value), numbers > 1, len(parts) > 1)


def _depth(tokens: Sequence[Token]) -> int:
  return sum({'(': 1, ')': -1}.get(t.text, 0) for t in tokens)


def _spoils(token: Token) -> bool:
  r"""Whether a number is only a coefficient or a bound: `18x`, `18\pi`, `18±1`."""
  if token.text.startswith('\\') or token.text in ('±', 'π', '√'):
    return True
  if token.kind == 'word' and token.glued and len(token.text) == 1:
    return token.text in 'xyznabtMBkKi'
  return False


def _unit_before_sign(tokens: Sequence[Token], i: int) -> int:
  """Where the sign stands after the unit words at `i`; 0 for none."""
  for j in range(i, min(i + 4, len(tokens))):
    if tokens[j].text in ('+', '-', '*', '/', '=', '≈'):
      following = tokens[j + 1 : j + 2]
      return j if j > i and following and (
        following[0].kind == 'num' or following[0].text == '('
      ) and not tokens[j].glued else 0  # fmt: skip
    if tokens[j].text in '%°':
      continue
    if tokens[j].kind != 'word' or tokens[j].word in _VERBS | _TAILS:
      return 0
  return 0


def _stated(tokens: Sequence[Token], strict: bool = False) -> Found | None:
  """The number that a statement opens with; None if it opens with none.

  Args:
    strict: nothing but a remark may follow, as in a box.
  """
  i = _first_quantity(tokens)
  if i is None:
    return None
  if isinstance(i, Found):
    return i
  chain = _chain(tokens, i)
  if chain is None or (tokens[i].spelled and _is_pronoun(tokens, i)):
    return None
  end = chain.end
  if _is_hedged(tokens, end) or strict and [
    t.text for t in tokens[end : end + 1]
  ] == ['!']:
    return _REFUSED
  j = end
  while j < len(tokens) and tokens[j].kind != 'end':
    if tokens[j].word in _TAILS or tokens[j].text in ('(', ',', ':'):
      break
    if tokens[j].word in _VERBS and not chain.found.text.count('='):
      return None
    if tokens[j].kind == 'num' and tokens[j - 1].text not in ('^', '_'):
      return _REFUSED if strict or tokens[j].value is None else None
    j += 1
  return chain.found


def _is_pronoun(tokens: Sequence[Token], i: int) -> bool:
  following = [t.word for t in tokens[i + 1 : i + 2]]
  return following == ['of'] or tokens[i].word in ('one', 'half') and (
    following in (['more'], ['way'], ['possible'])
  )  # fmt: skip


def _first_quantity(tokens: Sequence[Token]) -> int | Found | None:
  i = 0
  while i < len(tokens):
    token = tokens[i]
    following = tokens[i + 1 : i + 2]
    if token.kind == 'num' or (
      token.text in ('-', '+', '(') and _opens(tokens, i)
    ):
      return i
    if token.word in ('either', 'between', 'from'):
      numbers = [t for t in tokens[i : i + 12] if t.kind == 'num']
      return _REFUSED if len(numbers) > 1 else None
    if token.word in _BOUNDS and following and following[0].word == 'than':
      return _REFUSED
    if token.text in ('<', '±'):
      return _REFUSED
    if token.word in ('negative', 'minus') and following:
      if following[0].kind == 'num' and following[0].value is not None:
        return Found('-' + following[0].text, -following[0].value)
    assigned = _assigned(tokens, i)
    if assigned:
      i = assigned
    elif token.word in _FILLERS or token.text in "\n:：*,'([{|=≈→\"‘’#-+>":
      i += 1
    elif token.text == 'at' and following and (
      following[0].word in ('least', 'most')
    ):
      i += 2  # fmt: skip
    else:
      return None
  return None


def _opens(tokens: Sequence[Token], i: int) -> bool:
  for token in tokens[i + 1 : i + 4]:
    if token.kind == 'num':
      return True
    if token.text not in ('-', '('):
      return False
  return False


def _assigned(tokens: Sequence[Token], i: int) -> int:
  """Behind the `=` of `x =`, `Total cost =`; 0 for no assignment."""
  for j in range(i, min(i + 5, len(tokens))):
    if tokens[j].text == '=':
      return j + 1 if j > i else 0
    if tokens[j].kind != 'word':
      return 0
  return 0


def _is_hedged(tokens: Sequence[Token], end: int) -> bool:
  """Whether another number stands beside the one that ends at `end`."""
  i, words = end, 0
  while i < len(tokens) and tokens[i].kind != 'end':
    token = tokens[i]
    following = tokens[i + 1 : i + 3]
    if token.word in ('or', 'and', 'to', 'through', 'versus') or (
      token.text in (',', '/', '&', '±', '-', '–', '~')
    ):
      if following and (following[0].kind == 'num' or (
        following[0].word in ('or', 'and', 'maybe', 'perhaps', 'possibly')
        and len(following) > 1 and following[1].kind == 'num'
      )):  # fmt: skip
        return not _is_pronoun(tokens, i + 1)
    if token.text == '(' and following and following[0].word == 'or':
      return True
    if token.kind == 'num' and _is_measure(tokens, end, i):
      return True
    if token.kind == 'num' or token.word in _VERBS | (_TAILS - {'and', 'to'}):
      return False
    if token.kind == 'word':
      words += 1
    if words > 4:
      return False
    i += 1
  return False


def _is_measure(tokens: Sequence[Token], end: int, i: int) -> bool:
  """`2 hours 30 minutes`: two numbers of one quantity."""
  units = [
    tokens[j].word.removesuffix('s') if 0 <= j < len(tokens) else ''
    for j in (end, i + 1)
  ]
  return units[0] != units[1] and all(
    u in known for u, known in zip(units, _MEASURES)
  )


def _last(tokens: Sequence[Token]) -> Found | None:
  """What free text comes to: its last number that counts something."""
  sentences = _sentences(tokens)
  for sentence in reversed(sentences):
    chains = _chains(sentence)
    if not chains:
      continue
    if sentence[0].word in _LEADS:
      stated = _stated(sentence)
      if stated:
        return stated
    outside = _outside_brackets(sentence, chains)
    counted = [c for c in outside if _counts(sentence, c)]
    if not counted:
      if any(_negated(sentence, c) for c in outside):
        return _REFUSED
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
      if t.kind == 'num' and t.spelled and not _is_pronoun(sentence, i)
    ]
    if words:
      chain = _chain(sentence, words[-1])
      if len(words) > 1 and _is_hedged(sentence, words[-2] + 1):
        return _REFUSED
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


def _chains(sentence: Sequence[Token]) -> list[_Chain]:
  """Chains with digits in them."""
  chains, i = [], 0
  while i < len(sentence):
    starts = sentence[i].kind == 'num' or (
      sentence[i].text in ('-', '+', '(') and _opens(sentence, i)
      and not (i and sentence[i].glued and sentence[i - 1].kind == 'word')
    )  # fmt: skip
    chain = _chain(sentence, i) if starts else None
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
  sentence: Sequence[Token], chains: list[_Chain]
) -> list[_Chain]:
  depth, outside = 0, []
  depths = []
  for token in sentence:
    depth = max(0, depth + {'(': 1, '[': 1, ')': -1, ']': -1}.get(token.text, 0))
    depths.append(depth)
  for chain in chains:
    before = depths[chain.start - 1] if chain.start else 0
    if not before:
      outside.append(chain)
  return outside or chains


def _counts(sentence: Sequence[Token], chain: _Chain) -> bool:
  """Whether a number can be an answer: not `step 3`, `3-day`, `x2`."""
  before = [sentence[i] if i >= 0 else None
            for i in (chain.start - 1, chain.start - 2)]  # fmt: skip
  after = list(sentence[chain.end : chain.end + 2])
  first = sentence[chain.start]
  if before[0] is not None:
    if before[0].word in _STEP or before[0].text in ('#', '_'):
      return False
    if before[0].word == 'of' and before[1] and before[1].word == 'out':
      return False
    if before[0].word == 'than' and before[1] and before[1].word in _BOUNDS:
      return False
    if before[0].text == '^' or _negated(sentence, chain):
      return False
    # `COVID-19`, and the number that a letter and a point end in.
    if first.glued and before[0].text in ('-', '.') and before[0].glued and (
      before[1] is not None and before[1].kind == 'word'
    ):
      return False  # fmt: skip
    if first.glued and first.text[0] == '.' and before[0].kind == 'word':
      return False
  # `18-year-old`.
  return not (
    len(after) == 2 and after[0].text == '-' and after[0].glued
    and after[1].glued and after[1].kind == 'word'
  )  # fmt: skip


def _main(sentence: Sequence[Token], counted: list[_Chain]) -> list[_Chain]:
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
  last = counted[-1]
  ranged = last.start and sentence[last.start - 1].word in ('to', 'and')
  return counted if ranged else counted[:1]


def _is_adjunct(
  sentence: Sequence[Token], begin: int, chain: _Chain, inherited: bool
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
    if word in _VERBS and before != 'to':
      subject = [t.word for t in sentence[max(0, i - 3) : i]
                 if t.kind == 'word']  # fmt: skip
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
    if word == 'at' and part_of or word == 'for' and before.startswith('last'):
      return False
    # `for $18.`: a price, where no thing is counted.
    price = following[0] in ('', 'dollar', 'dollars', 'cent', 'cents')
    return not (word in ('for', 'at', 'with', 'by') and price
                and i == chain.start - 1)  # fmt: skip
  return inherited or (part_of and begin > 0)


def _negated(sentence: Sequence[Token], chain: _Chain) -> bool:
  before = sentence[max(0, chain.start - 2) : chain.start]
  return any(t.word in _NEGATIONS or t.text in '<±' for t in before[-1:]) or (
    len(before) == 2 and before[0].word in _NEGATIONS
    and before[1].word in _FILLERS
  )  # fmt: skip


def _choose(sentence: Sequence[Token], counted: list[_Chain]) -> Found:
  chosen = counted[-1]
  opening = sentence[chosen.start - 1].word if chosen.start else ''
  if len(counted) > 1:
    before = counted[-2]
    gap = sentence[before.end : chosen.start]
    words = [t.word for t in gap]
    if len(gap) <= 5 and (words[-1:] == ['or'] or '/' in [t.text for t in gap]):
      return _REFUSED
    lead = [t.word for t in sentence[max(0, before.start - 2) : before.start]]
    if 'between' in lead and 'and' in words[-1:]:
      return _REFUSED
    if _is_measure(sentence, before.end, chosen.start) and len(gap) <= 3:
      return _REFUSED
  if opening in ('under', 'over', 'negative') and opening == 'negative':
    value = chosen.found.value
    return Found('-' + chosen.found.text, None if value is None else -value)
  return chosen.found
