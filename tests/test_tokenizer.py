"""Text of the built-in domains to tokens and back, numbers last digit first."""

import json
import pathlib
import re

import hypothesis
from hypothesis import strategies as st
import pytest
import tokenizers

from ioa_jax.domains import composition, operations
from ioa_jax.domains import tokenizer as tokenizer_lib
from ioa_jax.sampling import streaming

ASSETS = pathlib.Path(tokenizer_lib.__file__).parents[1] / 'assets'
TOKENIZER = tokenizer_lib.build()
COMPOSITION = composition.build_tokenizer()
KNOWN = '0123456789+-*/=:;|Rx()@<'


def reversed_runs(text):
  """The independent oracle: what the tokenizer should do to runs of digits."""
  return re.sub(
    r'[0-9]+',
    lambda run: run[0][::-1] if len(run[0]) <= 8 else run[0],
    text,
  )


@hypothesis.given(st.text(alphabet=KNOWN, max_size=40))
def test_each_character_is_a_token_and_numbers_are_reversed(text):
  found = TOKENIZER.encode(text)
  assert ''.join(found.tokens) == reversed_runs(text)
  assert TOKENIZER.decode(found.ids) == text


@hypothesis.given(st.integers(0, 10**10), st.integers(0, 10**4))
def test_numbers_of_any_length_come_back(a, b):
  for text in (f'{a}', f'{a}+{b:05}=', f'{b}{a}', f'x{a}{"0" * 9};{b}'):
    assert TOKENIZER.decode(TOKENIZER.encode(text).ids) == text


@hypothesis.given(st.text(max_size=30))
def test_unknown_characters_are_unknown_and_move_nothing(text):
  """A stand-in for a digit that stands in the text is no digit either."""
  hypothesis.assume(not re.search('<(pad|eos|unk)>', text))
  tokens = TOKENIZER.encode(text).tokens
  known = ''.join(c if c in KNOWN else '?' for c in text)
  got = ''.join('?' if t == '<unk>' else t for t in tokens)
  assert got == reversed_runs(known)


def test_a_private_character_is_no_digit():
  assert TOKENIZER.encode('1\ue0052').tokens == ['1', '<unk>', '2']


def test_ids_are_those_that_the_shipped_weights_were_trained_with():
  expected = dict(zip(['<pad>', '<eos>', '<unk>', *KNOWN], range(27)))
  assert TOKENIZER.get_vocab() == expected
  assert TOKENIZER.encode('98*16=1568').ids == [
    expected[c] for c in '89*61=8651'
  ]


@hypothesis.given(st.text(alphabet=KNOWN, min_size=1, max_size=20))
def test_a_text_that_is_shown_as_it_is_written_takes_nothing_back(text):
  ids = TOKENIZER.encode(text).ids
  assert ''.join(streaming.text_pieces(ids, TOKENIZER.decode)) == text


def test_an_operation_is_one_token():
  assert COMPOSITION.encode('octuple 126:').tokens == list(
    ('octuple ', '6', '2', '1', ':')
  )
  for word in operations.WORDS:
    text = f'{word} 12,345:{word} 12=6'
    ids = COMPOSITION.encode(text).ids
    assert COMPOSITION.decode(ids) == text
    assert 2 not in ids and len(ids) == 13


@pytest.mark.parametrize(
  'domain, build',
  [
    ('arithmetic', tokenizer_lib.build),
    ('composition', composition.build_tokenizer),
  ],
)
@pytest.mark.parametrize('role', ['teacher', 'student'])
def test_the_shipped_tokenizer_is_the_one_the_code_builds(domain, build, role):
  path = ASSETS / domain / role / 'tokenizer.json'
  if not path.parent.exists():
    pytest.skip(f'no {role} ships with {domain} yet')
  assert json.loads(path.read_text()) == json.loads(build().to_str())


def test_another_tokenizer_is_refused():
  """What an older version exported would read every number backwards."""
  plain = tokenizers.Tokenizer.from_str(TOKENIZER.to_str())
  plain.normalizer = tokenizers.normalizers.NFC()
  with pytest.raises(ValueError, match='least significant digit first'):
    tokenizer_lib.DigitCodec(plain)


@pytest.mark.parametrize(
  'model, prompt, answer',
  [
    ('arithmetic/student', '52+61=', '113'),
    ('arithmetic/student', '98-39=', '59'),
    ('arithmetic/student', '652|615=', '652'),
    ('composition/teacher', 'pair 59,75:', 'double 59=118;118+75=193'),
    ('composition/teacher', 'octuple 126=', '1008'),
    ('composition/student', '59+75=', '134'),
  ],
)
def test_transformers_alone_gets_the_models_answers(model, prompt, answer):
  transformers = pytest.importorskip('transformers')
  pytest.importorskip('torch')
  directory = ASSETS / model
  tokenizer = transformers.AutoTokenizer.from_pretrained(directory)
  model = transformers.AutoModelForCausalLM.from_pretrained(directory)
  asked = tokenizer(prompt, return_tensors='pt')
  written = model.generate(**asked, max_new_tokens=32, do_sample=False)
  new = written[0][asked['input_ids'].shape[1] :]
  assert tokenizer.decode(new, skip_special_tokens=True) == answer
