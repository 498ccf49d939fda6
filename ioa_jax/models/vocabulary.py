"""Tokenizers and chat templates, and whether two models share a vocabulary."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
import functools
import json
import pathlib
from typing import Any, Protocol

from absl import logging
import tokenizers

from ioa_jax.models import chat_template, checks, huggingface, weights
from ioa_jax.runtime import files

ModelError = weights.ModelError

_EOS = 'eos_token_id'
# A question that no template writes by itself.
_ASKED = 'QUESTION5927'


def load_tokenizer(directory: str | pathlib.Path) -> Any:
  """The directory's tokenizer through transformers, which takes seconds.

  Raises:
    ModelError: if there is none that transformers can read.
  """
  directory = pathlib.Path(directory)
  if not any((directory / f).exists() for f in huggingface.TOKENIZER_FILES):
    raise ModelError(
      f'{directory / "tokenizer.json"}: no such file; copy the tokenizer files '
      'of the model there.'
    )
  _say_that_code_is_not_run(directory)
  import transformers

  try:
    return transformers.AutoTokenizer.from_pretrained(
      directory, local_files_only=True, trust_remote_code=False
    )
  except Exception as e:  # Each tokenizer class fails in its own way.
    raise ModelError(
      f'{directory}: transformers cannot read its tokenizer '
      f'({weights.reason(e)}).'
    ) from None


@functools.cache
def _say_that_code_is_not_run(directory: pathlib.Path) -> None:
  path = directory / 'tokenizer_config.json'
  if path.exists() and weights.read_json(path).get('auto_map'):
    logging.warning(
      '%s: auto_map names Python of its own, which is never run here.', path
    )


def chat_tokens(
  tokenizer: Any,
  directory: str | pathlib.Path,
  messages: Sequence[Mapping[str, str]],
  *,
  thinking: bool | None = None,
) -> list[int]:
  """Tokens of a conversation, up to where the assistant answers.

  Args:
    thinking: see `chat_template.write`.

  Raises:
    ModelError: if the tokenizer has no chat template, or one that fails.
  """
  text = chat_template.write(tokenizer, directory, messages, thinking=thinking)
  # The template writes its own special tokens.
  return tokenizer.encode(text, add_special_tokens=False)


def stop_tokens(directory: str | pathlib.Path) -> list[int]:
  """Ids that end an answer: all that any of the model's files names.

  Published files disagree: config.json ends a text, generation_config.json a
  turn, and the tokenizer one of both. vLLM stops at any of them, too.

  Raises:
    ModelError: if none names one, as generation would never stop, or one that
      is no token's id.
  """
  directory = pathlib.Path(directory)
  rows = huggingface.read_config(directory).vocab_size
  found: list[int] = []
  for file in ('generation_config.json', 'config.json'):
    path = directory / file
    value = weights.read_json(path).get(_EOS) if path.exists() else None
    if value is not None:
      found += checks.ids(value, rows, path, _EOS)
  own = _end_of_text(directory)
  if own is not None:
    found += checks.ids(own, rows, directory / 'tokenizer.json', 'eos_token')
  if not found:
    raise ModelError(
      f'{directory}/config.json: field "eos_token_id" is missing.'
    )
  return list(dict.fromkeys(found))


def _end_of_text(directory: pathlib.Path) -> int | None:
  """The id of the token that tokenizer_config.json calls `eos_token`."""
  path = directory / 'tokenizer_config.json'
  if not path.exists() or not (directory / 'tokenizer.json').exists():
    return None
  token = checks.token_text(weights.read_json(path).get('eos_token'))
  return read_tokenizer(directory).token_to_id(token) if token else None


def read_tokenizer(directory: pathlib.Path) -> tokenizers.Tokenizer:
  """`tokenizer.json` by itself, without its template.

  Raises:
    ModelError: if it is missing or damaged.
  """
  path = directory / 'tokenizer.json'
  if not path.exists():
    raise ModelError(
      f'{path}: no such file; a model directory holds config.json, '
      'tokenizer.json and *.safetensors.'
    )
  try:
    return tokenizers.Tokenizer.from_file(str(path))
  except Exception as e:  # The library raises bare Exception.
    raise ModelError(f'{path}: not a tokenizer ({e}).') from None


class Codec(Protocol):
  """Text to tokens as one model reads and writes it.

  Attributes:
    stop_tokens: ids that end an answer.
    prompt_bucket: prompts are padded to a multiple of this, one program each.
  """

  stop_tokens: Sequence[int]
  prompt_bucket: int

  def prompt(self, text: str, system: str = '') -> list[int]:
    """Tokens of a question up to where the model answers."""
    ...

  def question(self, tokens: Sequence[int]) -> str:
    """The question that `prompt` made these tokens of."""
    ...

  def answer(self, text: str) -> list[int]:
    """Tokens of a whole answer, its end included."""
    ...

  def decode(self, tokens: Sequence[int]) -> str: ...


class ChatCodec:
  """How an instruction-tuned model reads questions and writes answers.

  Args:
    thinking: whether it thinks before it answers, see `chat_template.write`.

  Raises:
    ModelError: without a readable tokenizer, a stop token, or a chat template
      that writes what it is given, or the switch that is asked for; later for
      a text with a token that the model has no row for.
  """

  prompt_bucket = 64

  def __init__(
    self, directory: str | pathlib.Path, *, thinking: bool | None = None
  ):
    self._directory = pathlib.Path(directory)
    self._thinking = thinking
    self._rows = huggingface.read_config(directory).vocab_size
    # First: transformers fails on what is no token's id, and does not say so.
    self.stop_tokens = tuple(stop_tokens(directory))
    self._tokenizer = load_tokenizer(directory)
    if thinking:
      chat_template.require_switch(self._tokenizer, directory)
    # A template that is missing or broken shows now.
    self._opening, self._lead, self._end = self._turn()
    self._opening_tokens = self._encode(self._opening)
    # Text that has one would be read as control, whoever wrote it.
    self.control_texts = self._control_texts()

  def _turn(self) -> tuple[str, str, int]:
    """What comes before an answer, what the template puts in front of it, and
    the stop token that it writes behind.

    Llama 3 lists <|end_of_text|> first and ends turns with <|eot_id|>; Llama 2
    writes a space before the answer.
    """
    mark = 'ANSWER5927'
    turns = [{'role': 'user', 'content': _ASKED}]
    write = self._write
    opening = write(turns)
    if _ASKED not in opening:
      raise ModelError(
        f'{self._directory}: its chat template leaves out what the user says. '
        'Use another, in chat_template.jinja.'
      )
    text = write(
      [*turns, {'role': 'assistant', 'content': mark}], answered=True
    )
    before, found, after = text.rpartition(mark)
    lead = before.removeprefix(opening)
    if not found or not before.startswith(opening) or lead.strip():
      lead = ''
    ids = self._encode(after if found else '')
    ends = [t for t in ids if t in self.stop_tokens]
    return opening, lead, ends[0] if ends else self.stop_tokens[0]

  def _write(self, turns, **kwargs) -> str:
    return chat_template.write(
      self._tokenizer,
      self._directory,
      turns,
      thinking=self._thinking,
      **kwargs,
    )

  def _control_texts(self) -> tuple[str, ...]:
    """Texts of special tokens, and of marks that the template writes.

    An ordinary word that was added to the vocabulary is none.
    """
    tokenizer = self._tokenizer
    written = str(tokenizer.chat_template)
    added = {
      token.content
      for token in tokenizer.added_tokens_decoder.values()
      if token.special
      or (token.content in written and not token.content.strip().isalnum())
    }
    return tuple(sorted(added | set(tokenizer.all_special_tokens)))

  def _encode(self, text: str) -> list[int]:
    tokens = self._tokenizer.encode(text, add_special_tokens=False)
    if tokens and max(tokens) >= self._rows:
      token = self._tokenizer.convert_ids_to_tokens(max(tokens))
      raise ModelError(
        f'{self._directory}: a text holds {token!r} with id {max(tokens)}, and '
        f'the embedding has {self._rows} rows. Resize it, or use the '
        "model's own tokenizer and chat template."
      )
    return tokens

  def prompt(self, text: str, system: str = '') -> list[int]:
    """Tokens of a conversation up to where the model answers."""
    turns = [{'role': 'system', 'content': system}] if system else []
    turns.append({'role': 'user', 'content': text})
    return self._encode(self._write(turns))

  def question(self, tokens: Sequence[int]) -> str:
    """The question that `prompt`, without a system message, made these of.

    Raises:
      ModelError: for tokens of anything else.
    """
    before, _, after = self._read(self._opening_tokens).partition(_ASKED)
    text = self._read(tokens)
    found = text[len(before) : len(text) - len(after)]
    if before + found + after != text:
      raise ModelError(
        f'{self._directory}: {text[:80]!r} is no question in its chat template.'
      )
    return found

  def _read(self, tokens: Sequence[int]) -> str:
    """Text with its control tokens."""
    return self._tokenizer.decode(
      list(tokens), clean_up_tokenization_spaces=False
    )

  def answer(self, text: str) -> list[int]:
    """Tokens of a whole answer as they follow a prompt, its end included."""
    opening = self._opening_tokens
    whole = self._encode(self._opening + self._lead + text)
    if whole[: len(opening)] == opening:
      return [*whole[len(opening) :], self._end]
    # A piece spans both, and a prompt ends before it.
    return [*self._encode(text), self._end]

  def decode(self, tokens: Sequence[int]) -> str:
    return decode(self._tokenizer, tokens)


def set_thinking(directory: str | pathlib.Path, thinking: bool) -> None:
  """What a template with a switch does where nobody sets it, in its files.

  Qwen3 thinks by itself; a student that was taught answers would then be asked
  as it never was. Other templates are left alone.
  """
  directory = pathlib.Path(directory)
  settled = functools.partial(chat_template.with_default, thinking=thinking)
  path = directory / 'chat_template.jinja'
  if path.exists():
    template = files.read_text(path)
    if settled(template) != template:
      files.write_text(path, settled(template))
  path = directory / 'tokenizer_config.json'
  raw = weights.read_json(path) if path.exists() else {}
  templates = raw.get('chat_template')
  if isinstance(templates, str):
    templates = settled(templates)
  elif templates:  # Named ones.
    templates = [t | {'template': settled(t['template'])} for t in templates]
  if templates != raw.get('chat_template'):
    weights.write_json(path, raw | {'chat_template': templates})


def decode(tokenizer: Any, tokens: Sequence[int]) -> str:
  """Text without control tokens, and otherwise as it was written.

  transformers up to 5.3 tidies spaces where tokenizer_config.json says so, as
  Llama 3's does: texts would change, and grow no more at their end only.
  """
  return tokenizer.decode(
    list(tokens), skip_special_tokens=True, clean_up_tokenization_spaces=False
  )


def token_texts(directory: str | pathlib.Path) -> list[str]:
  """How each token reads by itself, by id; '' for ids that no token has.

  Raises:
    ModelError: if the tokenizer cannot be read.
  """
  tokenizer = read_tokenizer(pathlib.Path(directory))
  known = tokenizer.get_vocab(with_added_tokens=True).values()
  texts = [''] * (max(known) + 1)
  ids = sorted(known)
  read = tokenizer.decode_batch([[i] for i in ids], skip_special_tokens=False)
  for i, text in zip(ids, read, strict=True):
    texts[i] = text
  return texts


def ordinary_tokens(directory: str | pathlib.Path) -> list[int]:
  """Ids of the tokens that texts consist of, and not of added ones.

  Raises:
    ModelError: if the tokenizer cannot be read.
  """
  tokenizer = read_tokenizer(pathlib.Path(directory))
  added = tokenizer.get_added_tokens_decoder()
  own = tokenizer.get_vocab(with_added_tokens=False).values()
  return sorted(set(own) - set(added))


class DifferentVocabularies(ModelError):
  """The tokenizers of two models are not the same."""


def shared_vocabulary(
  first: str | pathlib.Path, second: str | pathlib.Path
) -> int:
  """How many ids two models share, if their tokenizers are the same.

  Published sizes of one family pad the same vocabulary differently (151936 and
  152064). Ids from the returned number on are padding: give it to both as
  `DecoderConfig.num_tokens`.

  Raises:
    DifferentVocabularies: with the reason, if the tokenizers differ.
    ModelError: if a model has fewer rows than tokens.
  """
  directories = [pathlib.Path(first), pathlib.Path(second)]
  a, b = (_tokenizer_parts(d) for d in directories)
  names = f'{directories[0]} and {directories[1]}'
  if a['tokens'] != b['tokens']:
    i, one, other = next(
      (i, a['tokens'].get(i), b['tokens'].get(i))
      for i in sorted(a['tokens'].keys() | b['tokens'].keys())
      if a['tokens'].get(i) != b['tokens'].get(i)
    )
    raise DifferentVocabularies(
      f'{names} have different tokenizers: id {i} is {one!r} in the first and '
      f'{other!r} in the second, so their logits cannot be compared.'
    )
  for part in ('merges', 'normalizer', 'pre_tokenizer'):
    if a[part] != b[part]:
      raise DifferentVocabularies(
        f'{names} have the same tokens but another {part} in tokenizer.json, '
        'so they cut text differently.'
      )
  count = max(a['tokens']) + 1
  for directory in directories:
    rows = huggingface.read_config(directory).vocab_size
    if rows < count:
      raise ModelError(
        f'{directory / "config.json"}: vocab_size {rows} is less than the '
        f"tokenizer's {count} tokens."
      )
  return count


def _tokenizer_parts(directory: pathlib.Path) -> dict[str, Any]:
  path = directory / 'tokenizer.json'
  raw = weights.read_json(path)
  tokenizer = read_tokenizer(directory)
  vocabulary = tokenizer.get_vocab(with_added_tokens=True)
  # Merges are written as "a b" by older versions and as ["a", "b"] by newer.
  merges = [
    tuple(m.split(' ', 1)) if isinstance(m, str) else tuple(m)
    for m in raw['model'].get('merges', [])
  ]
  return {
    'tokens': {i: token for token, i in vocabulary.items()},
    'merges': merges,
    'normalizer': json.dumps(raw.get('normalizer'), sort_keys=True),
    'pre_tokenizer': json.dumps(raw.get('pre_tokenizer'), sort_keys=True),
  }
