"""Tokenizers and templates as they come: read as meant, or named in a line."""

import ast
import functools
import json
import pathlib

import pytest
import tokenizers

from ioa_jax import config as config_lib
from ioa_jax.models import (
  chat_template,
  decoder,
  huggingface,
  vocabulary,
  weights,
)
from ioa_jax.sampling import streaming
from tests import test_huggingface

transformers = pytest.importorskip('transformers')

TURNS = '{% for m in messages %}h{{ m.content }}{% endfor %}g'
ZEPHYR = (
  '{% for m in messages %}<|{{ m.role }}|>\n{{ m.content }}</s>\n{% endfor %}'
  '{% if add_generation_prompt %}<|assistant|>\n{% endif %}'
)
LLAMA_2 = (
  "{% for m in messages %}{% if m.role == 'user' %}<s>[INST] {{ m.content }} "
  '[/INST]{% else %} {{ m.content }} </s>{% endif %}{% endfor %}'
)
BYTES = [f'<0x{b:02X}>' for b in range(256)]
EXTRA = "0123456789.:' ms"


@pytest.fixture
def directory(tmp_path):
  config = decoder.DecoderConfig(
    vocab_size=64,
    width=8,
    num_layers=1,
    num_heads=2,
    num_kv_heads=2,
    head_width=4,
    mlp_width=8,
  )
  weights.write_json(
    tmp_path / 'config.json',
    huggingface.config_dict(config, 'float32') | {'eos_token_id': 1},
  )
  test_huggingface.write_tokenizer(tmp_path, extra=EXTRA, template=TURNS)
  return tmp_path


def set_template(directory, template):
  test_huggingface.write_tokenizer(directory, extra=EXTRA, template=template)


def codec_fails(directory, message):
  with pytest.raises(huggingface.ModelError, match=message) as e:
    vocabulary.ChatCodec(directory)
  assert str(directory) in str(e.value) and '\n' not in str(e.value)


@pytest.mark.parametrize(
  ('template', 'message'),
  [
    ('{% for m in messages %}', 'chat template fails .*TemplateSyntaxError'),
    ("{{ raise_exception('never') }}", 'TemplateError: never'),
    ('{{ messages[0].nothing.more }}', 'chat template fails .*Undefined'),
    ('{% for i in range(10**9) %}x{% endfor %}', 'chat template fails'),
    ('{{ 1 + "a" }}', "chat template fails on the roles .'user'. .TypeError"),
    ('{{ messages.__class__.mro() }}', 'chat template fails'),
    ('{% macro x() %}{{ x() }}{% endmacro %}{{ x() }}', 'Recursion'),
    ('g', 'leaves out what the user says'),
    (
      "{% for m in messages %}{% if m.role == 'assistant' %}{{ 1 / 0 }}"
      '{% endif %}{{ m.content }}{% endfor %}',
      "on the roles .'user', 'assistant'. .ZeroDivisionError",
    ),
  ],
)
def test_a_broken_template_is_named_at_once(directory, template, message):
  set_template(directory, template)
  codec_fails(directory, message)


@pytest.mark.parametrize(
  'template',
  [
    "{% if messages[0].role == 'system' %}{{ raise_exception('no system') }}"
    '{% endif %}' + TURNS,
    "{% for m in messages if m.role == 'user' %}h{{ m.content }}{% endfor %}g",
    '{% set system = messages[0].content + 1 %}'
    * 0
    + '{% for m in messages %}{{ {"user": "h", "assistant": "h"}[m.role] + '
    'm.content }}{% endfor %}g',
  ],
  ids=['refused', 'dropped', 'fails'],
)
def test_a_system_message_is_heard_by_every_template(directory, template):
  set_template(directory, template)
  codec = vocabulary.ChatCodec(directory)
  # As Gemma's own template does: before the first thing that the user says.
  assert codec.prompt('ab', 'cd') == codec.prompt('cd\n\nab')
  assert codec.prompt('ab') == [9, 2, 3, 8]
  tokenizer = vocabulary.load_tokenizer(directory)
  turns = [
    {'role': 'system', 'content': 'a'},
    {'role': 'user', 'content': 'b'},
    {'role': 'assistant', 'content': 'c'},
    {'role': 'user', 'content': 'd'},
  ]
  merged = [{'role': 'user', 'content': 'a\n\nb'}, *turns[2:]]
  assert vocabulary.chat_tokens(
    tokenizer, directory, turns
  ) == vocabulary.chat_tokens(tokenizer, directory, merged)


def test_a_system_message_that_is_known_is_left_alone(directory):
  codec = vocabulary.ChatCodec(directory)
  assert codec.prompt('ab', 'cd') == [9, 4, 5, 9, 2, 3, 8]


@pytest.mark.parametrize('clock', ['%S.%f', '%d %m %Y %H:%M:%S.%f', '%f'])
def test_the_clock_of_a_template_stands_still(directory, clock):
  set_template(directory, f"{{{{ strftime_now('{clock}') }}}}" + TURNS)
  codec = vocabulary.ChatCodec(directory)
  first = codec.prompt('ab')
  assert all(codec.prompt('ab') == first for _ in range(50))
  assert vocabulary.ChatCodec(directory).prompt('ab') == first
  # Left alone it would not.
  tokenizer = vocabulary.load_tokenizer(directory)
  turns = [{'role': 'user', 'content': 'ab'}]
  seen = {
    tokenizer.apply_chat_template(turns, tokenize=False) for _ in range(50)
  }
  assert len(seen) > 1


def test_the_day_is_the_one_that_llama_3_writes(directory):
  turns = [{'role': 'user', 'content': 'ab'}]
  for template in (
    '{{ date_string }}' + TURNS,
    "{% if strftime_now is defined %}{{ strftime_now('%d %b %Y') }}{% endif %}"
    + TURNS,
  ):
    set_template(directory, template)
    tokenizer = vocabulary.load_tokenizer(directory)
    text = chat_template.write(tokenizer, directory, turns)
    assert text == '26 Jul 2024habg'


@pytest.mark.parametrize(
  'template',
  [
    "{% set f = '%f' %}{{ strftime_now(f) }}",
    "{% set now = strftime_now %}{{ now('%f') }}",
    "{{ strftime_now('%' ~ 'f') }}",
  ],
)
def test_a_clock_that_cannot_be_stopped_is_named(directory, template):
  set_template(directory, template + TURNS)
  codec_fails(directory, 'asks strftime_now for a format that it makes up')


@pytest.mark.parametrize('file', ['config.json', 'generation_config.json'])
@pytest.mark.parametrize(
  'value',
  [99999, 64, -1, '<eos>', [], [1, None], True, 1.5, {}, [[1]], 1e30],
  ids=str,
)
def test_a_stop_token_that_is_none_is_named(directory, file, value):
  weights.write_json(directory / 'generation_config.json', {})
  test_huggingface.edit_json(directory / file, eos_token_id=value)
  codec_fails(directory, rf'{file}: eos_token_id is .*, wanted ids of tokens')


def test_an_answer_ends_at_any_end_that_a_file_names(directory):
  weights.write_json(
    directory / 'generation_config.json', {'eos_token_id': [4, 5]}
  )
  test_huggingface.edit_json(directory / 'config.json', eos_token_id=3)
  assert vocabulary.stop_tokens(directory) == [4, 5, 3, 1]
  path = directory / 'tokenizer_config.json'
  test_huggingface.edit_json(path, eos_token={'content': 'h'})
  assert vocabulary.stop_tokens(directory) == [4, 5, 3, 9]
  test_huggingface.edit_json(path, eos_token=None)
  (directory / 'generation_config.json').unlink()
  assert vocabulary.stop_tokens(directory) == [3]
  test_huggingface.edit_json(directory / 'config.json', eos_token_id=None)
  with pytest.raises(huggingface.ModelError, match='"eos_token_id" is missing'):
    vocabulary.stop_tokens(directory)


def add_tokens(directory, words=(), special=()):
  path = str(directory / 'tokenizer.json')
  tokenizer = tokenizers.Tokenizer.from_file(path)
  tokenizer.add_tokens(list(words))
  tokenizer.add_special_tokens(list(special))
  tokenizer.save(path)


def test_only_control_tokens_are_control_texts(directory):
  set_template(
    directory, "{% for m in messages %}[T]user{{ m['content'] }}{% endfor %}g"
  )
  add_tokens(
    directory,
    words=['photosynthesis', 'user', 'é', '[T]', 'x_1'],
    special=['<|end|>'],
  )
  codec = vocabulary.ChatCodec(directory)
  assert set(codec.control_texts) == {'<pad>', '<eos>', '<|end|>', '[T]'}
  assert codec.decode(codec.answer('photosynthesis')) == 'photosynthesis'


def test_a_token_without_a_row_is_named(directory):
  add_tokens(directory, words=[f'w{i}' for i in range(60)])
  codec = vocabulary.ChatCodec(directory)
  with pytest.raises(huggingface.ModelError, match=r"holds 'w\d+' with id \d+"):
    codec.prompt('a w59')
  set_template(directory, 'w59' + TURNS)
  add_tokens(directory, words=[f'w{i}' for i in range(60)])
  codec_fails(directory, "holds 'w59'.*64 rows")


def sentencepiece_like(directory, legacy):
  """A Llama 2 tokenizer in small, in its two manners of marking a start."""
  tokenizer = tokenizers.Tokenizer(
    tokenizers.models.BPE(unk_token='<unk>', byte_fallback=True)
  )
  if legacy:
    tokenizer.normalizer = tokenizers.normalizers.Sequence(
      [
        tokenizers.normalizers.Prepend('▁'),
        tokenizers.normalizers.Replace(' ', '▁'),
      ]
    )
  else:
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.Metaspace(
      replacement='▁', prepend_scheme='first', split=False
    )
  tokenizer.decoder = tokenizers.decoders.Sequence(
    [
      tokenizers.decoders.Replace('▁', ' '),
      tokenizers.decoders.ByteFallback(),
      tokenizers.decoders.Fuse(),
      tokenizers.decoders.Strip(' ', 1, 0),
    ]
  )
  text = (
    'the capital of France is Paris. [INST] x [/INST] <|assistant|> user 42'
  )
  # No piece has a mark in its middle, as in Llama's.
  kept = tokenizer.pre_tokenizer
  tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.Metaspace(
    replacement='▁', prepend_scheme='first', split=True
  )
  tokenizer.train_from_iterator(
    [text, text + ' Paris Paris'],
    tokenizers.trainers.BpeTrainer(
      vocab_size=420,
      show_progress=False,
      special_tokens=['<unk>', '<s>', '</s>', *BYTES],
    ),
  )
  raw = json.loads(tokenizer.to_str())
  raw['pre_tokenizer'] = kept and json.loads(kept.__getstate__())
  # Bytes are pieces like others, and only the three are special.
  raw['added_tokens'] = raw['added_tokens'][:3]
  weights.write_json(directory / 'tokenizer.json', raw)
  test_huggingface.edit_json(
    directory / 'config.json', eos_token_id=2, vocab_size=420
  )


@pytest.mark.parametrize('legacy', [True, False], ids=['legacy', 'first'])
@pytest.mark.parametrize(
  'template', [ZEPHYR, LLAMA_2], ids=['zephyr', 'llama2']
)
@pytest.mark.parametrize(
  'text',
  ['Paris', 'the capital is Paris.', '42', 'x\nParis', 'é', '[/INST] x'],
)
def test_an_answer_begins_as_in_the_conversation(
  directory, legacy, template, text
):
  """SentencePiece marks the start of a text, and an answer is in the middle."""
  sentencepiece_like(directory, legacy)
  weights.write_json(
    directory / 'tokenizer_config.json',
    {
      'tokenizer_class': 'PreTrainedTokenizerFast',
      'eos_token': '</s>',
      'chat_template': template,
    },
  )
  codec = vocabulary.ChatCodec(directory)
  tokenizer = vocabulary.load_tokenizer(directory)
  turns = [
    {'role': 'user', 'content': 'the capital of France'},
    {'role': 'assistant', 'content': text},
  ]
  whole = tokenizer.encode(
    tokenizer.apply_chat_template(turns, tokenize=False),
    add_special_tokens=False,
  )
  *answer, end = codec.answer(text)
  got = [*codec.prompt(turns[0]['content']), *answer]
  assert got == whole[: len(got)]
  assert end == 2 and codec.decode(answer) == text


def merging(directory):
  """Byte-level BPE: two newlines are one piece, and the prompt ends between."""
  tokenizer = tokenizers.Tokenizer(tokenizers.models.BPE())
  tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(False)
  tokenizer.decoder = tokenizers.decoders.ByteLevel()
  tokenizer.train_from_iterator(
    ['a\n\nb\n\nc'] * 3,
    tokenizers.trainers.BpeTrainer(
      vocab_size=300,
      show_progress=False,
      special_tokens=['</s>'],
      initial_alphabet=tokenizers.pre_tokenizers.ByteLevel.alphabet(),
    ),
  )
  tokenizer.save(str(directory / 'tokenizer.json'))
  weights.write_json(
    directory / 'tokenizer_config.json',
    {
      'tokenizer_class': 'PreTrainedTokenizerFast',
      'eos_token': '</s>',
      'chat_template': ZEPHYR,
    },
  )
  test_huggingface.edit_json(
    directory / 'config.json', eos_token_id=0, vocab_size=300
  )
  return vocabulary.ChatCodec(directory)


def test_an_answer_that_merges_with_the_prompt_stays_whole(directory):
  codec = merging(directory)
  for text in ('\nb', 'b', ' b\n', '\n\nb'):
    assert codec.decode(codec.answer(text)) == text


@pytest.mark.parametrize('text', ['', 'abc', ' a\n\nb ', '\u65e5 \U0001f600'])
def test_the_question_is_found_again_in_its_prompt(directory, text):
  codec = merging(directory)
  assert codec.question(codec.prompt(text)) == text
  with pytest.raises(vocabulary.ModelError, match='is no question in its chat'):
    codec.question(codec.prompt(text)[1:])


def test_spaces_are_not_tidied(directory):
  """As transformers up to 5.3 did where Llama 3's configuration says so."""
  test_huggingface.edit_json(
    directory / 'tokenizer_config.json', clean_up_tokenization_spaces=True
  )
  codec = vocabulary.ChatCodec(directory)
  text = "ab . 'm c 's : a"
  assert codec.decode(codec.answer(text)) == text
  tokenizer = vocabulary.load_tokenizer(directory)
  assert tokenizer.decode(codec.answer(text)) != text  # The trap is there.
  pieces = streaming.text_pieces(
    codec.answer(text), lambda ids: vocabulary.decode(tokenizer, ids)
  )
  assert ''.join(pieces) == text


def test_a_stream_goes_on_after_a_text_that_changed():
  texts = ["I ' ", "I'm", "I'm he", "I'm here."]
  pieces = list(streaming.text_pieces(range(4), lambda s: texts[len(s) - 1]))
  assert pieces[2:4] == [' he', 're.']


EVIL = """
import pathlib, transformers
pathlib.Path({proof!r}).write_text('run')
class Evil(transformers.PreTrainedTokenizerFast): pass
class EvilConfig(transformers.LlamaConfig): pass
"""


@pytest.mark.parametrize(
  'change',
  [
    {},
    {'tokenizer_class': 'EvilTokenizer'},
    {'tokenizer_class': None},
    {'tokenizer_class': None, 'model': 'evil'},
    {'auto_map': {'AutoTokenizer': 'evil.Evil'}},
    {'auto_map': 'evil.Evil', 'tokenizer_class': None},
  ],
  ids=str,
)
def test_no_directory_runs_its_own_code(
  directory, tmp_path_factory, monkeypatch, caplog, change
):
  """Nor asks whether it may."""
  proof = tmp_path_factory.mktemp('proof') / 'file'
  (directory / 'evil.py').write_text(EVIL.format(proof=str(proof)))
  change = {'auto_map': {'AutoTokenizer': ['evil.Evil', 'evil.Evil']}} | change
  if change.pop('model', None):
    test_huggingface.edit_json(
      directory / 'config.json',
      model_type='evil',
      auto_map={'AutoConfig': 'evil.EvilConfig'},
    )
  test_huggingface.edit_json(directory / 'tokenizer_config.json', **change)

  def never(*_):
    raise AssertionError('it asks.')

  monkeypatch.setattr('builtins.input', never)
  for _ in range(2):
    try:
      vocabulary.load_tokenizer(directory)
    except huggingface.ModelError as e:
      assert '\n' not in str(e)
  assert not proof.exists()
  assert caplog.text.count('never run here') == 1


def test_every_reading_by_name_forbids_foreign_code():
  root = pathlib.Path(vocabulary.__file__).parents[2]
  calls = [
    (path.name, node)
    for folder in ('ioa_jax', 'scripts')
    for path in (root / folder).rglob('*.py')
    for node in ast.walk(ast.parse(path.read_text()))
    if isinstance(node, ast.Call)
    and getattr(node.func, 'attr', '') in ('from_pretrained', 'pipeline')
  ]
  assert calls
  for name, call in calls:
    given = {k.arg: ast.unparse(k.value) for k in call.keywords}
    assert given.get('trust_remote_code') == 'False', (name, call.lineno)


# The switches of Qwen3's and SmolLM3's templates, and how they say no.
SWITCHES = {
  'qwen3': TURNS + '{% if enable_thinking is defined and enable_thinking is '
  'false %}ff{% endif %}',
  'smollm3': '{%- if enable_thinking is not defined -%}'
  '{%- set enable_thinking = true -%}{%- endif -%}'
  + TURNS
  + '{% if not enable_thinking %}ff{% endif %}',
  # A line break at the beginning is text.
  'late': '\n' + TURNS + '{% if not (enable_thinking | default(true)) %}ff'
  '{% endif %}',
}


@pytest.mark.parametrize('name', SWITCHES)
def test_a_model_thinks_first_only_where_it_is_asked_to(directory, name):
  set_template(directory, SWITCHES[name])
  tokenizer = vocabulary.load_tokenizer(directory)
  turns = [{'role': 'user', 'content': 'ab'}]
  for thinking in (False, True):
    codec = vocabulary.ChatCodec(directory, thinking=thinking)
    text = tokenizer.apply_chat_template(
      turns,
      tokenize=False,
      add_generation_prompt=True,
      enable_thinking=thinking,
    )
    assert text.endswith('ff') != thinking
    assert codec.prompt('ab') == tokenizer.encode(
      text, add_special_tokens=False
    )
    assert codec.prompt('ab') == vocabulary.chat_tokens(
      tokenizer, directory, turns, thinking=thinking
    )
  assert vocabulary.ChatCodec(directory).prompt('ab')[-2:] == [7, 7]


def test_thinking_without_a_switch_is_refused(directory):
  with pytest.raises(huggingface.ModelError, match='no switch for thinking'):
    vocabulary.ChatCodec(directory, thinking=True)
  config = config_lib.get('quickstart', {'student.thinking': True})
  with pytest.raises(ValueError, match='thinking is set, and the domain .arit'):
    config_lib.validate(config)


@pytest.mark.parametrize('name', SWITCHES)
@pytest.mark.parametrize('kept', ['jinja', 'config', 'named'])
def test_an_export_is_asked_as_it_was_taught(directory, name, kept):
  """By transformers, where nobody says anything of thinking."""
  set_template(directory, TURNS)
  path = directory / 'tokenizer_config.json'
  settings = json.loads(path.read_text())
  settings.pop('chat_template', None)
  (directory / 'chat_template.jinja').unlink(missing_ok=True)
  named = [{'name': n, 'template': SWITCHES[name]} for n in ('default', 'x')]
  if kept == 'jinja':
    (directory / 'chat_template.jinja').write_text(SWITCHES[name])
  else:
    settings['chat_template'] = SWITCHES[name] if kept == 'config' else named
  path.write_text(json.dumps(settings))

  def written(**switch):
    tokenizer = transformers.AutoTokenizer.from_pretrained(directory)
    return tokenizer.apply_chat_template(
      [{'role': 'user', 'content': 'ab'}], tokenize=False, **switch
    )

  before = {t: written(enable_thinking=t) for t in (False, True)}
  assert written() == before[True]
  for thinking in (False, True, False):
    vocabulary.set_thinking(directory, thinking)
    assert written() == before[thinking]
    # Here too it is then asked as it was taught.
    tokenizer = vocabulary.load_tokenizer(directory)
    turns = [{'role': 'user', 'content': 'ab'}]
    here = functools.partial(chat_template.write, tokenizer, directory, turns)
    assert here() == here(thinking=thinking)
    assert here(thinking=True) != here(thinking=False)
    assert {t: written(enable_thinking=t) for t in before} == before
  found = [*directory.glob('*.jinja'), path]
  # Set again, and not one before the other.
  assert sum('endif %}{{' in p.read_text() for p in found) == 1


def test_a_template_without_the_switch_is_exported_as_it_is(directory):
  before = {p: p.read_bytes() for p in directory.iterdir()}
  vocabulary.set_thinking(directory, False)
  assert {p: p.read_bytes() for p in directory.iterdir()} == before
