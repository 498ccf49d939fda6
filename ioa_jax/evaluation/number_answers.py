r"""The number that a worked solution gives as its answer.

The most explicit statement counts: after GSM8K's `####`, in the last
`\boxed{}`, after "the answer is", else what the text comes to at its end.
docs/benchmarks.md says where lm-eval's flexible-extract differs. A statement
that hedges ("18 or 20"), or whose number is refused (`12:30`), is no answer;
nothing else is taken instead.
"""

from __future__ import annotations

import re

from ioa_jax.evaluation import (
  answer_text,
  number_sentences,
  number_statements,
  number_tokens,
)
from ioa_jax.evaluation.number_chains import Found
from ioa_jax.evaluation.number_tokens import Token

_MAX_STATEMENTS = 20
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
  r'(?i)(?:\b(?:answers?|ans|antwort|respuesta|resposta|risposta|réponse|ответ)\b'
  r'(?P<about>(?: (?!is\b|was\b|are\b|equals\b)[a-z]+){0,8}?)'
  r'\W{0,4}?(?:\s*(?:is|are|was|would be|must be|should be|equals|ist|est|es|é)'
  r'\b'
  r'|[:=：]|\s*->|→|\n)'
  r'|(?:答案|答え|答|정답)\s*(?:[:：=]|是|为|為|は|은))'
)
# "To check the answer: ..." states nothing.
_UNSTATED = re.compile(
  r'(?i)\b(?:check|verify|confirm|find|get|calculate|compute|determine|reach|'
  r'round|write|simplify|obtain|express|give|state)\w*(?: \w+){0,3} $'
)


def find(completion: str) -> Found | None:
  """The answer of a word problem; None if there is no number at all."""
  for mark in reversed(list(_MARK.finditer(completion))[-_MAX_STATEMENTS:]):
    line, rest = mark[1], answer_text.ending(completion[mark.end() :])
    if not line.strip() and rest.strip():
      line = rest.strip().split('\n')[0]
    elif _is_heading(line, rest):
      continue
    return number_statements.stated(_tokens(line)) or number_sentences.last(
      _tokens(line)
    )
  if re.search(r'\\(?:boxed|fbox)\s*\{', completion):
    boxed = answer_text.last_boxed(completion)
    tokens = _tokens(boxed or '')
    return number_statements.stated(
      tokens, strict=True
    ) or number_sentences.last(tokens)
  text = number_tokens.prepare(answer_text.ending(completion))
  for match in reversed(list(_STATED.finditer(text))[-_MAX_STATEMENTS:]):
    if _UNSTATED.search(text[: match.start()][-40:]):
      continue
    rest = number_tokens.tokenize(text[match.end() :])
    found = number_statements.stated(rest) or number_sentences.last(rest)
    if found:
      return found
  return number_sentences.last(number_tokens.tokenize(text))


def _tokens(text: str) -> list[Token]:
  return number_tokens.tokenize(number_tokens.prepare(answer_text.ending(text)))


def _is_heading(line: str, rest: str) -> bool:
  """Whether `####` opens a Markdown heading and not GSM8K's answer."""
  if not rest.strip():
    return False
  if _HEADING.match(line):
    return True
  numbers = [t for t in _tokens(line) if t.kind == 'num' and not t.spelled]
  if numbers:
    return (
      number_statements.stated(_tokens(line)) is None
      and line.strip()[:1].isupper()
    )
  return not _NO_ANSWER.match(line)
