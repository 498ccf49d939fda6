r"""The letter of the option that an answer to a multiple choice picks.

The last statement counts: a box, "the answer is (C)", "option C is correct",
"so (C).". A letter that only begins a word or a formula ("A cell", "D-glucose",
"C=O") is none, nor is a hedge ("(A) or (B)"), a denial, a supposition, or a
statement that is taken back later.
"""

from __future__ import annotations

import dataclasses
import re

from ioa_jax.evaluation import answer_text

_WRAPPERS = (
  'text',
  'textbf',
  'textit',
  'textrm',
  'texttt',
  'textsf',
  'mathrm',
  'mathbf',
  'mathit',
  'mathsf',
  'mathcal',
  'boldsymbol',
  'bm',
  'mbox',
  'operatorname',
  'underline',
  'emph',
)
# What may follow a bare letter; after a word it would be an article or a name.
_CONNECTORS = (
  'because|since|as|which|for|due|but|not|with|based|given|according|rather|'
  'instead|if|so|therefore|thus|hence|while|whereas|though|although|when'
)
_LINK = (
  r'(?:\s*(?:is|was|would be|must be|should be|has to be|can only be|'
  r'seems to be|appears to be|being|es|est|ist|è|é)\b|\s*[:=：\-–→>]+'
  r'|\s*\(?\s*$)'
)
_ADVERBS = (
  r'(?:\s*(?:,|:|：|therefore|thus|hence|then|clearly|likely|most likely|'
  r'probably|definitely|simply|indeed|actually|in fact|obviously|of course|'
  r'still|now|also|again|best described by|given by|just|that of|the one in|'
  r'the following|the|letter|option|choice|statement|answer|number|'
  r'alternative)(?![a-z]))*'
)
_DOUBT = re.compile(
  r'(?i)(?:\b(?:if|suppose|supposing|assume|assuming|assumed|whether|say|'
  r'imagine|unless|were|claims?|thought|guessed|consider|considered|'
  r'initially|seem(?:s|ed) like|at first|not sure|doubt|why|how|could|might|'
  r'may|'
  r"cannot|can't|isn't|isn’t|wasn't|don't|doesn't|never|not|neither|nor)"
  r'\b[^.;,:!?\n]{0,40})$'
)
_DENIED = re.compile(
  r'(?i)\s*(?:is|was|would be|seems|looks|must be|are|fails|can be)\s*'
  r"(?:clearly |definitely |also |just |simply )?(?:not\b|n't|wrong|incorrect|"
  r'false|invalid|impossible|ruled|excluded|eliminated|too\b|fails?|out\b)'
  r"|\s*(?:isn't|isn’t|wasn't|cannot|can't|fails|doesn't|does not)\b"
  r'|\s*,?\s*(?:which|but (?:that|this|it)) is (?:wrong|incorrect|false|not)\b'
)
_WITHDRAWN = re.compile(
  r'(?i)\bwait\b|\bscratch that\b|\bi made (?:a|an) (?:mistake|error)\b|'
  r"\bthat(?:'s|’s| is| was| can't be| cannot be) "
  r'(?:not (?:right|correct)|wrong|'
  r'incorrect|a mistake)\b|\b(?:this|my answer|it|the answer) (?:is|was) '
  r'(?:wrong|incorrect|not (?:right|correct))\b|'
  r'\blet me (?:re-?(?:check|consider|think|do|calculate|evaluate|examine)|'
  r'double[- ]check|think again)|\breconsider(?:ing)?\b|\bon second thought\b|'
  r'\bi (?:was|am) wrong\b|\bhmm+\b'
)
_MARKDOWN = re.compile(
  r'[*`"“”«»„$]+|</?[a-z]+>|(?<![A-Za-z0-9])_+|_+(?!\w)'
  r"|(?<!\w)['‘](?=\(?[A-Za-z]\)?['’])|(?<=[A-Za-z)])['’](?=[.,;:!]?\s|[.]?$)"
)


_MAX_BOXES = 20


@dataclasses.dataclass(frozen=True)
class _Statement:
  """One statement: where it stands, and the letter; None for a hedge."""

  start: int
  end: int
  letter: str | None


def find(completion: str, letters: str) -> str | None:
  """The chosen letter, None if none is or it is not clear which one.

  Args:
    letters: capitals that name the options.
  """
  text = _prepare(completion)
  one = f'[{letters}]'
  statements = [*_boxed(text, one), *_stated(text, one)]
  if not statements:
    return _alone(text, one)
  last = max(statements, key=lambda s: (s.start, s.end))
  if last.letter is not None and _WITHDRAWN.search(text, last.end):
    return None
  return last.letter


def _prepare(completion: str) -> str:
  text = answer_text.plain_unicode(answer_text.ending(completion))
  text = answer_text.unwrap(text, _WRAPPERS)
  text = re.sub(
    r'\\[()\[\]]|\\(?:left|right|quad|qquad|rm|bf|it)(?![A-Za-z])', ' ', text
  )
  text = re.sub(r'\\[ ,;:!]', ' ', text)
  text = _MARKDOWN.sub('', text)
  # `Q: ... A: C` in the form of a dialogue.
  text = re.sub(r'(?m)^\s*A:(?=\s*\(?[A-Z]\)?\W*$)', 'Answer:', text)
  # `<C>`, `[C]` and `{C}` as `(C)`.
  return re.sub(r'[<\[{]\s*([A-Za-z])\s*[>\]}]', _bracketed, text)


def _bracketed(match: re.Match) -> str:
  box = re.search(r'\\(?:boxed|fbox)\s*$', match.string[: match.start()])
  return match[0] if box else f'({match[1]})'


def _boxed(text: str, one: str) -> list[_Statement]:
  found = []
  boxes = list(re.finditer(r'\\(?:boxed|fbox)\s*\{', text))
  for match in boxes[-_MAX_BOXES:]:
    end = answer_text.closing_brace(text, match.end())
    if end is None:
      continue
    letter = _labelled(text[match.end() : end].strip(), one)
    if letter != '':
      found.append(_Statement(match.start(), end, letter))
  return found


def _labelled(content: str, one: str) -> str | None:
  """The letter of `C`, `(C) 42`, `C: text`; '' for none, None for a hedge."""
  content = re.sub(
    r'(?i)^(?:(?:the )?(?:final |correct )?(?:answer|option|choice)'
    r'(?:\s+is)?\s*:?\s*)+',
    '',
    content,
  )
  upper = content.upper() if len(content.strip('(). ')) == 1 else content
  match = re.match(
    rf'\(\s*({one})\s*\)|({one})(?=\s*(?:[.):,]|-\s|–|$|(?:or|and|&|/)\W))',
    upper,
  )
  if match is None:
    return ''
  if _other_letter(upper[match.end() :], one):
    return None
  return match[1] or match[2]


def _other_letter(rest: str, one: str) -> bool:
  """Whether a second letter is offered beside the one before `rest`."""
  return (
    re.match(
      rf'[^.;\n]{{0,40}}?(?:\bor\b|\band/or\b|/)\s*(?:(?:option|choice|answer|maybe|perhaps|possibly|'
      rf'even|else|alternatively)\s*,?\s*)*'
      rf'(?:\(\s*{one}\s*\)|{one}(?![\w\'’=+-]))'
      rf'|\s*\)?\s*(?:,|&|and)\s*(?:(?:and|or)\s*)?(?:both\s*)?(?:option\s*)?'
      rf'(?:\(\s*{one}\s*\)|{one}(?=\s*(?:[.,)&]|$|\n|and\b|or\b|are\b)))',
      _clause(rest),
    )
    is not None
  )


def _clause(rest: str) -> str:
  """What still belongs to the choice: not the reasons for it."""
  return re.split(
    r'(?i)\b(?:because|since|as|not|while|whereas|but|rather|instead|than|over|'
    r'unlike|compared|which|whereas|eliminat\w+|exclud\w+|so|due)\b',
    rest,
  )[0]


def _stated(text: str, one: str) -> list[_Statement]:
  # Lower case only where a letter stands alone: `the answer is c`.
  letter = (
    rf'(?:\(\s*(?P<round>(?i:{one}))\s*\)'
    rf'|(?P<bare>{one})(?=\s*(?:\.(?!\w)|[,;:)!。，、）：！\u3040-\u9fff]|$|\n|(?:{_CONNECTORS}|or|and|is)\b|[-–—]\s|\())'
    rf'|(?P<pair>{one})(?=\s*(?:[/&,]|or\b|and\b))'
    rf'|(?P<small>(?i:{one}))(?=\s*\)?\s*(?:[.!]?\s*$|[.!]\s*\n)))'
  )
  option = r'(?:option|choice|answer|alternative|letter)s?'
  correct = (
    r'(?:the\s+)?(?:only\s+)?(?:correct|right|true|best|most \w+|valid|'
    r'appropriate)(?![\w-])|the\s+(?:final\s+)?(?:answer|solution)\b'
  )
  lead = (
    r'(?:therefore|thus|hence|so|consequently|accordingly|in conclusion|'
    r'actually|instead|indeed|yes|no|finally|conclude|concluding|correct is)'
  )
  patterns = (
    # The answer is C; correct option: (C).
    rf'(?i:\b(?:(?:final|correct|right|best|my|our|the)\s+)*(?:answer|ans\.?|'
    rf'(?:correct|right|best)\s+(?:option|choice|statement|letter|one|'
    rf'alternative|response|selection)|choice|antwort|respuesta|resposta|risposta|'
    rf'réponse|ответ|selection)'
    rf'(?P<about>(?:\s+(?!is\b|was\b|would\b|must\b|should\b|could\b|might\b|may\b|'
    rf"isn't\b|not\b|were\b|has\b|can\b|seems\b|appears\b|being\b)[a-z]+){{0,7}}?)"
    rf'{_LINK}{_ADVERBS})\s*{letter}',
    rf'(?i:答案|答え|答|正解|정답|故选|应选|选择|选)\s*[:：是为為はは은:]*\s*{letter}',
    # So C. Therefore, option (C).
    rf'(?i:\b{lead}\b\s*,?\s*(?:the\s+)?(?:{option}\s+)?'
    rf"(?:(?:it|this|that|we|i)\s*(?:is|'s|must be|get|have|choose|pick|"
    rf'select)\s+)?'
    rf'(?:{option}\s+)?){letter}',
    # I choose C.
    rf'(?i:\b(?:choose|pick|select|go(?:ing)? with|opt(?:ing)? for|settle on|'
    rf'vote for|choosing|selecting|picking)\s+(?:the\s+)?'
    rf'(?:{option}\s+)?){letter}',
    # Option C is correct; (C) is the answer.
    rf'(?i:(?:^|(?<=[.,;:!?\n(])|\b(?:{lead}|that|because|since|only|but|{option})\b)\s*'
    rf'(?:{option}\s+)?){letter}\)?(?:\s*[^\n.;]{{0,60}}?)?'
    rf'(?i:\s+(?:is|must be|'
    rf'would be|seems|remains)\s+(?P<also>also\s+)?(?:{correct}))'
    rf'(?!\s+(?:only|if|when|for|provided|about))',
    # Answer C, alone on its line.
    rf'(?im:^\W*(?:(?:final|correct|my|the)\s+)*(?:answer|option|choice)\s+){letter}'
    rf'(?=\W*$)',
    # ... which is option C.
    rf'(?i:\b(?:corresponds? to|matches|match|(?:this|that|which|it) is|'
    rf'gives?|leads? to|points? to)\s+(?:the\s+)?'
    rf'(?:(?:option|choice|answer)\s+)+){letter}',
  )
  found = []
  for pattern in patterns:
    for match in re.finditer(pattern, text, re.MULTILINE):
      statement = _read(text, match, one)
      if statement is not None:
        found.append(statement)
  return found


def _read(text: str, match: re.Match, one: str) -> _Statement | None:
  groups = match.groupdict()
  name = next(n for n in ('round', 'bare', 'pair', 'small') if groups.get(n))
  letter, end = groups[name].upper(), match.end(name)
  before = text[max(0, match.start() - 60) : match.start()]
  if _DOUBT.search(before) or re.search(
    r'(?i)\b(?:if|suppose|assum\w+|whether)\b[^.,;:!?\n]*$', before
  ):
    return None
  inner = text[match.start() : match.start(name)]
  if re.search(r"(?i)\b(?:not|n't|never|were|could|might|may|isn't)\b", inner):
    return None
  rest = text[end:]
  rest = rest[1:] if name == 'round' else rest
  rest = rest.lstrip() if name == 'round' else rest
  rest = rest.removeprefix(')')
  if name in ('bare', 'pair') and re.match(r"['’=+]|-\w", rest):
    return None
  # The letter that begins a text, as in `A cell`, was not matched as bare.
  if _DENIED.match(rest) or re.match(r'[^.!\n]{0,30}\?', rest):
    return None
  if groups.get('also') or _other_letter(rest, one):
    return _Statement(match.start(), match.end(), None)
  if name == 'pair':
    return None
  return _Statement(match.start(), match.end(), letter)


def _alone(text: str, one: str) -> str | None:
  """A letter that has a line to itself, or opens the only labelled line."""
  alone = re.findall(rf'(?m)^\W*\(?\s*({one})\s*(?:\)|\.|:)?\W*$', text)
  if alone:
    return alone[-1] if len(set(alone)) == 1 else None
  labelled = re.findall(rf'(?m)^\s*(?:\(\s*({one})\s*\)|({one})\))\s*\S', text)
  named = {a or b for a, b in labelled}
  if not named:
    lines = [line.strip() for line in text.strip().splitlines() if line.strip()]
    for line in lines[:1] + lines[-1:]:
      if match := re.match(rf'({one})[.:]\s+\S', line):
        named.add(match[1])
  if re.search(
    r'(?i)\b(?:is|are) (?:not |in)(?:correct|right)?|\bwrong\b', text
  ):
    return None
  return named.pop() if len(named) == 1 else None
