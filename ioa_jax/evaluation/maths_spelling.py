r"""One spelling of formulas: LaTeX as people, models and Unicode write it.

Nothing here changes what a formula says: `\dfrac12`, `½` and `\frac{1}{2}`
come out alike, so do `1{,}000` and `1\,000`, `\varnothing` and `\{\}`.
"""

from __future__ import annotations

from fractions import Fraction
import re

from ioa_jax.evaluation import answer_text, number_tokens

_SYMBOLS = str.maketrans(
  {
    'π': r'\pi ',
    '∞': r'\infty ',
    '×': r'\times ',
    '·': r'\cdot ',
    '⋅': r'\cdot ',
    '∙': r'\cdot ',
    '÷': '/',
    '≤': r'\le ',
    '≥': r'\ge ',
    '⩽': r'\le ',
    '⩾': r'\ge ',
    '≠': r'\ne ',
    '∪': r'\cup ',
    '∩': r'\cap ',
    '∅': r'\emptyset ',
    '∈': r'\in ',
    '±': r'\pm ',
    '∓': r'\mp ',
    '≈': r'\approx ',
    'ℝ': r'\mathbb{R}',
    '…': r'\ldots ',
    '⋯': r'\ldots ',
    '°': r'^{\circ}',
    '√': r'\sqrt ',
    '∛': r'\sqrt[3]',
    'θ': r'\theta ',
    'α': r'\alpha ',
    'β': r'\beta ',
    'γ': r'\gamma ',
    'φ': r'\phi ',
    'λ': r'\lambda ',
    'ω': r'\omega ',
    '∖': r'\setminus ',
    '⟨': '(',
    '⟩': ')',
    '\u2044': '/',
    '，': ',',
    '：': ':',
    '；': ';',
    '。': '',
    '“': '',
    '”': '',
  }
)
_ROOM = (
  r'left|right|bigl?|bigr?|Bigl?|Bigr?|biggl?|biggr?|displaystyle|textstyle|'
  r'scriptstyle|limits|tiny|small|normalsize|large|Large|LARGE|huge|Huge|rm|bf|'
  r'it|qquad|quad|hspace\{[^{}]*\}|hfill|strut|phantom\{[^{}]*\}|nolimits'
)
_TEXT = r'text|textbf|textit|textrm|textnormal|mathrm|mathbf|mathit|mbox|hbox|'
_TEXT += (
  r'textsf|mathsf|texttt|mathtt|operatorname|boldsymbol|bm|emph|underline'
)
_BREAK = '\ue001'  # A line of a matrix ends: `\\\\`.
_REPLACED = tuple(
  (re.compile(pattern), by)
  for pattern, by in (
    (r'\\\\(?:\[[^\[\]]*\])?', _BREAK),
    (r'\\\$', r'\\text{dollars}'),
    (r'\*\*\s*([^*]+?)\s*\*\*', r'\1'),
    (r'\*\*', '^'),
    (r'\$|\\[()\[\]]|`', ' '),
    (
      r'(?<=[0-9])(?:,\s?\\!\s?|\\!\s?,|\{,\}|\\[,;: ]|~)(?=[0-9]{3}(?![0-9]))',
      '',
    ),
    (
      r'(?<![0-9.,])([1-9][0-9]{0,2})((?: [0-9]{3})+)(?![0-9])',
      lambda m: m[1] + m[2].replace(' ', ''),
    ),
    (rf'\\(?:{_ROOM})(?![a-zA-Z])', ' '),
    (r'\\(?:text)?color\s*\{[^{}]*\}', ''),
    (r'\\[!]', ''),
    (r'\\(?=[ ,;:>])[ ,;:>]?|~', ' \u2009'),
    (r'\\[dtc]frac(?![a-zA-Z])', r'\\frac'),
    (r'\\(?:varnothing|empty)(?![a-zA-Z])|\\\{\s*\\\}', r'\\emptyset '),
    (r'\\lbrace(?![a-zA-Z])', r'\\{'),
    (r'\\rbrace(?![a-zA-Z])', r'\\}'),
    (r'\\(?:leqslant|leq|leqq)(?![a-zA-Z])|<=', r'\\le '),
    (r'\\(?:geqslant|geq|geqq)(?![a-zA-Z])|>=', r'\\ge '),
    (r'\\(?:neq|not\s*=)(?![a-zA-Z])|!=', r'\\ne '),
    (r'\\lt(?![a-zA-Z])', '<'),
    (r'\\gt(?![a-zA-Z])', '>'),
    (r'\\(?:dots|cdots|dotsc|ldotp)(?![a-zA-Z])|\.\.\.+', r'\\ldots '),
    (r'\\(?:colon|ratio)(?![a-zA-Z])', ':'),
    (r'\\(?:lor|vee)(?![a-zA-Z])', r'\\text{ or }'),
    (r'\\(?:land|wedge)(?![a-zA-Z])', r'\\text{ and }'),
    (r'\\(?:degree|degrees)(?![a-zA-Z])|\^\s*\{?\s*\\circ\s*\}?', r'^{\\circ}'),
    (
      r'\^\{\\circ\}\s*(?:\\[a-z]+\{)?\s*([CF])(?![a-zA-Z])\s*\}?',
      r'^{\\circ}\\text{\1}',
    ),
    (r'\\langle(?![a-zA-Z])', '('),
    (r'\\rangle(?![a-zA-Z])', ')'),
    (r'\\infin(?:ty)?(?![a-zA-Z])', r'\\infty '),
    (
      r'\\mathbb\s*R(?![a-zA-Z])|\\R(?![a-zA-Z])|\\Reals(?![a-zA-Z])',
      r'\\mathbb{R}',
    ),
    (r'\\(?:neg|sim)(?![a-zA-Z])', ' '),
    (r'(?<!\\)%', r'\\%'),
    (r'(?<![a-zA-Z\\])sqrt(?![a-zA-Z])', r'\\sqrt'),
    (r'(?<![a-zA-Z\\])(?:infinity|inf)(?![a-zA-Z])', r'\\infty '),
    (r'(?<![a-zA-Z\\])pi(?![a-zA-Z])', r'\\pi '),
    (r'(?<=[0-9])\s*[xX]\s*(?=10\s*\^)', r'\\times '),
    (
      r'(?<![a-zA-Z])([0-9]+(?:\.[0-9]+)?)[eE]([-+]?[0-9]{1,3})(?![0-9a-zA-Z.])',
      lambda m: rf'{m[1]}\times 10^{{{int(m[2])}}}',
    ),
    (r'\^\s*([0-9]{2,})', r'^{\1}'),
    (r'\\log\s*_\s*([0-9]+|[a-z])(?![0-9])', r'\\log_{\1}'),
    (r'\{\s*([^{}]*?)\s*\\choose\s*([^{}]*?)\s*\}', r'\\binom{\1}{\2}'),
    (r'^\s*(\w+)\s*\\choose\s*(\w+)\s*$', r'\\binom{\1}{\2}'),
    (
      r'(?<![0-9.,])([0-9]+)\s+([0-9]+)\s*/\s*([0-9]+)(?![0-9.])',
      r'\1\\frac{\2}{\3}',
    ),
    (
      r'(\\(?:sin|cos|tan|cot|sec|csc)\s*(?:\^\{?[0-9]+\}?)?)\s*[({]?\s*'
      r'([0-9]+(?:\.[0-9]+)?)\s*\^\{\\circ\}\s*[)}]?',
      r'\1(\\frac{\2\\pi}{180})',
    ),
    (r'\*', r'\\cdot '),
    (r'\\(?:div)(?![a-zA-Z])', '/'),
  )
)
_ANNOUNCED = re.compile(
  r'(?i)^\s*(?:(?:so|thus|therefore|hence),?\s+)?(?:(?:the\s+|my\s+)?'
  r'(?:final\s+|correct\s+)?(?:answer|result|value|solution)\s*'
  r'(?:is|=|:|equals|was)\s*:?|答案[是为]?\s*:?|答\s*:)\s*'
)
_DIGITS = {
  'two': 2,
  'three': 3,
  'four': 4,
  'five': 5,
  'six': 6,
  'seven': 7,
  'eight': 8,
  'nine': 9,
  'ten': 10,
  'eleven': 11,
  'twelve': 12,
  'sixteen': 16,
}
_CJK = r'[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]'


def normalize(latex: str) -> str:
  """One spelling of what is written in several ways without any meaning."""
  text = answer_text.plain_unicode(latex).translate(_SYMBOLS)
  text = re.sub(r'[€£¥₹₩₽]', lambda m: f'\\text{{{m[0]}}}', text)
  text = answer_text.unwrap(text, ('boxed', 'fbox', 'ensuremath', 'mathop'))
  if '\\begin' not in text:  # `\\\\frac` escaped once too often.
    text = re.sub(r'\\\\(?=[a-zA-Z])', r'\\', text)
  for pattern, by in _REPLACED:
    text = pattern.sub(by, text)
  text = re.sub(rf'\\(?:{_TEXT})\s*\{{', r'\\text{', text)
  text = _texts(text)
  text = _braced(text)
  text = _bases(text)
  text = _repeating(text)
  text = re.sub(r'\s*\u2009\s*', '\u2009', re.sub(r'[^\S\u2009]+', ' ', text))
  return _trimmed(text)


def _trimmed(text: str) -> str:
  while True:
    before = text
    text = text.strip(' \u2009')
    text = re.sub(rf'(?:[.,;:=]|{_BREAK}|\\)+$', '', text)
    text = re.sub(rf'^(?:[=:]|\\approx(?![a-z])|{_BREAK})\s*', '', text)
    text = re.sub(r'^\+\s*(?=[0-9.\\(])', '', text)
    text = _ANNOUNCED.sub('', text)
    if text.startswith('{') and answer_text.closing_brace(text, 1) == (
      len(text) - 1
    ):
      text = text[1:-1]
    if text == before:
      return text


def _texts(text: str) -> str:
  r"""Numbers and formulas out of `\text{}`; words stay in it."""
  written, i = [], 0
  for match in re.finditer(r'\\text\{', text):
    if match.start() < i:
      continue
    end = answer_text.closing_brace(text, match.end())
    if end is None:
      break
    written += [text[i : match.start()], _text(text[match.end() : end])]
    i = end + 1
  text = ''.join(written) + text[i:]
  # `\text{The answer is } 7`; words of scripts without blanks beside digits.
  if match := re.match(r'\\text\{([^{}]*)\}\s*(?=\S)', text):
    if _ANNOUNCED.fullmatch(match[1].strip() + ' '):
      text = text[match.end() :]
  text = re.sub(r'^(?:答案|答)[是为:]?\s*(?=[-0-9\\])', '', text)
  return re.sub(
    rf'(?<=[0-9}}])\s*({_CJK}+)(?![^{{}}]*\}})', r'\\text{\1}', text
  )


def _text(content: str) -> str:
  plain = answer_text.unwrap(content, _TEXT.split('|')).strip()
  announced = _ANNOUNCED.sub('', plain)
  if re.fullmatch(r'[A-Za-z]', plain) and plain in 'ie':
    return plain
  if re.fullmatch(r'[-+]?[0-9.,/ ]*[0-9][0-9.,/ ]*', announced):
    return f' {announced} ' if announced != content else content
  if re.match(r'[-+]?[0-9.]', announced) and (
    not re.search(r'[0-9]:[0-9]|[0-9](?:st|nd|rd|th)\b|-[a-z]', announced)
  ):
    words = re.sub(
      rf'([A-Za-z][A-Za-z.]*(?:[ ]+[A-Za-z.]+)*|{_CJK}+)',
      r'\\text{\1}',
      announced,
    )
    return re.sub(r'\\text\{(or|and|to)\}', r'\\text{ \1 }', words)
  return f'\\text{{{content}}}'


def _braced(text: str) -> str:
  r"""Braces around the operands of `\frac`, `\sqrt` and `\binom`."""
  text = re.sub(r'\\sqrt\s*(\[[^\[\]]*\])?\s*\(', r'\\sqrt\1(', text)
  while match := re.search(r'\\sqrt(\[[^\[\]]*\])?\(', text):
    depth, end = 1, match.end()
    while end < len(text) and depth:
      depth += {'(': 1, ')': -1}.get(text[end], 0)
      end += 1
    if depth:
      break
    text = (
      f'{text[: match.start()]}\\sqrt{match[1] or ""}'
      f'{{{text[match.end() : end - 1]}}}{text[end:]}'
    )
  operand = r'([0-9a-zA-Z]|\\(?:pi|theta|alpha|beta)(?![a-zA-Z])\s?)'
  text = re.sub(r'(\\sqrt\s*\[[^\[\]]*\])\s*' + operand, r'\1{\2}', text)
  text = re.sub(r'\\sqrt\s*([0-9]+(?:\.[0-9]+)?)(?![0-9])', _sqrt, text)
  text = re.sub(r'\\sqrt\s*(?=[a-zA-Z\\])' + operand, r'\\sqrt{\1}', text)
  text = re.sub(r'\\(frac|binom)\s*' + operand, r'\\\1{\2}', text)
  while match := re.search(r'\\(?:frac|binom)\s*\{', text):
    end = answer_text.closing_brace(text, match.end())
    if end is None:
      return text.replace('\ue000', '\\')
    rest = re.sub(r'^\s*' + operand, r'{\1}', text[end + 1 :])
    command = match[0].strip().replace('\\', '\ue000')
    text = text[: match.start()] + command + text[match.end() : end + 1] + rest
  # `\ue000` marks what was done; the brace was taken with the command.
  return text.replace('\ue000', '\\')


def _sqrt(match: re.Match) -> str:
  # TeX's own reading of `\sqrt12` is one digit; `√12` and `sqrt 12` are not.
  digits = match[1]
  return f'\\sqrt{{{digits}}}'


def _bases(text: str) -> str:
  """`132_{five}`, `132 base 5` as `132_{5}`; digits in capitals."""
  text = re.sub(
    r'([0-9][0-9A-Fa-f]*)\s*(?:\\text\{)?\s*\(?(?:in )?base[ -]?(?:\})?\s*'
    r'([0-9]+|[a-z]+)\)?\s*\}?$',
    r'\1_{\2}',
    text,
  )

  def one(match: re.Match) -> str:
    base = match[2].strip().lower()
    if base.isalpha() and base not in _DIGITS:
      return match[0]
    return f'{match[1].upper()}_{{{_DIGITS.get(base, base)}}}'

  return re.sub(
    r'(?<![A-Za-z\\])([0-9][0-9A-Fa-f]*)\s*_\s*'
    r'(?:\{\s*(?:\\text\s*\{)?\s*|\\text\s*\{\s*)?([0-9]+|[a-z]{3,})\s*\}*',
    one,
    text,
  )


def _repeating(text: str) -> str:
  r"""`0.1\overline{6}` and `0.333...` as fractions."""

  def one(match: re.Match) -> str:
    whole, fixed, period = match[1] or '0', match[2], match[3]
    if period is None:
      again = re.search(r'([0-9]+?)\1{2,}$', fixed)
      if again is None:
        return match[0]
      fixed, period = fixed[: again.start()], again[1]
    scale = 10 ** len(fixed)
    value = Fraction(int(whole + fixed), scale)
    value += Fraction(int(period), scale * (10 ** len(period) - 1))
    return f'\\frac{{{value.numerator}}}{{{value.denominator}}}'

  return re.sub(
    r'([0-9]*)\.([0-9]*)(?:\s*\\(?:overline|bar|dot)\s*\{?\s*([0-9]+)\s*\}?'
    r'|(?<=[0-9])\s*\\ldots(?![a-z])\s*$)',
    one,
    text,
  )


def words(text: str) -> str | None:
  r"""The words of `\text{even}`, `Yes`, `June 20`; None for a formula."""
  plain = re.sub(r'\\text\{([^{}]*)\}', r' \1 ', text)
  has_text = plain != text
  plain = re.sub(r'\s+', ' ', plain.replace('\\', '\\ ')).strip(' .\u2009')
  plain = re.sub(r'^\(\s*([A-Za-z])\s*\)$', r'\1', plain)
  if re.search(r'[\\^_=<>+*/{}|\[\]]', plain) or not re.match(
    rf'[A-Za-z\u00c0-\u024f]|{_CJK}', plain
  ):
    return None
  letters = re.sub(r'[^A-Za-z]', '', plain)
  if (
    not has_text
    and len(letters) == 2
    and letters.casefold() != 'no'
    and (not re.search(_CJK, plain))
  ):
    return None  # `xy`: a product.
  if not has_text and (
    len(plain) == 1 or re.search(r'(?:^| )-|[()] ?[0-9a-z]', plain)
  ):
    return plain if len(plain) == 1 else None
  return plain.casefold() if len(plain) > 1 else plain


def number_word(text: str) -> Fraction | None:
  """The value of `five`, `twenty-one`, 五; None for other words."""
  tokens = number_tokens.tokenize(text)
  if len(tokens) == 1 and tokens[0].spelled:
    return tokens[0].value
  return None
