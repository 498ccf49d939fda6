"""Tokenizers and chat templates, and whether two models share a vocabulary."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
import json
import pathlib
from typing import Any, Protocol

import tokenizers

from ioa_jax.models import huggingface, weights

ModelError = weights.ModelError

# Llama 3's template writes the day; another day would be another prompt. This
# is the one that it writes itself where no clock is given.
_DATE = '26 Jul 2024'


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
  import transformers

  try:
    return transformers.AutoTokenizer.from_pretrained(
      directory, local_files_only=True
    )
  except Exception as e:  # Each tokenizer class fails in its own way.
    reason = (str(e).strip() or repr(e)).splitlines()[0][:200]
    raise ModelError(
      f'{directory}: transformers cannot read its tokenizer '
      f'({type(e).__name__}: {reason}).'
    ) from None


def chat_tokens(
  tokenizer: Any,
  directory: str | pathlib.Path,
  messages: Sequence[Mapping[str, str]],
) -> list[int]:
  """Tokens of a conversation, up to where the assistant answers.

  Raises:
    ModelError: if the tokenizer has no chat template.
  """
  if not tokenizer.chat_template:
    raise ModelError(
      f'{pathlib.Path(directory) / "tokenizer_config.json"}: field '
      '"chat_template" is missing, and there is no chat_template.jinja; a '
      'conversation cannot be written without one. Use an instruction-tuned '
      'model, or add its template.'
    )
  text = tokenizer.apply_chat_template(
    list(messages),
    tokenize=False,
    add_generation_prompt=True,
    date_string=_DATE,
    # Lessons are answers. Qwen3 and SmolLM3 would think before each.
    enable_thinking=False,
  )
  # The template writes its own special tokens.
  return tokenizer.encode(text, add_special_tokens=False)


def stop_tokens(directory: str | pathlib.Path) -> list[int]:
  """Ids that end an answer: generation_config.json's, else config.json's.

  Raises:
    ModelError: if neither names one; generation would never stop.
  """
  directory = pathlib.Path(directory)
  for file in ('generation_config.json', 'config.json'):
    if (directory / file).exists():
      ids = weights.read_json(directory / file).get('eos_token_id')
      if ids is not None:
        return list(ids) if isinstance(ids, list) else [ids]
  raise ModelError(f'{directory}/config.json: field "eos_token_id" is missing.')


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

  def answer(self, text: str) -> list[int]:
    """Tokens of a whole answer, its end included."""
    ...

  def decode(self, tokens: Sequence[int]) -> str: ...


class ChatCodec:
  """How an instruction-tuned model reads questions and writes answers.

  Raises:
    ModelError: without a readable tokenizer, a chat template or a stop token.
  """

  prompt_bucket = 64

  def __init__(self, directory: str | pathlib.Path):
    self._directory = directory
    self._tokenizer = load_tokenizer(directory)
    self.stop_tokens = tuple(stop_tokens(directory))
    self.prompt('')  # A missing template shows now.
    self._end = self._end_of_turn()
    # Text that has one would be read as control, whoever wrote it.
    self.control_texts = (
      *self._tokenizer.get_added_vocab(), *self._tokenizer.all_special_tokens
    )  # fmt: skip

  def _end_of_turn(self) -> int:
    """The stop token that the template writes after an answer.

    Llama 3 lists <|end_of_text|> first and ends turns with <|eot_id|>.
    """
    mark = 'ANSWER'
    turns = [('user', 'x'), ('assistant', mark)]
    text = self._tokenizer.apply_chat_template(
      [{'role': role, 'content': content} for role, content in turns],
      tokenize=False, date_string=_DATE,
    )  # fmt: skip
    after = self._tokenizer.encode(
      text.rpartition(mark)[2], add_special_tokens=False
    )
    ends = [t for t in after if t in self.stop_tokens]
    return ends[0] if ends else self.stop_tokens[0]

  def prompt(self, text: str, system: str = '') -> list[int]:
    """Tokens of a conversation up to where the model answers."""
    turns = [{'role': 'system', 'content': system}] if system else []
    turns.append({'role': 'user', 'content': text})
    return chat_tokens(self._tokenizer, self._directory, turns)

  def answer(self, text: str) -> list[int]:
    """Tokens of a whole answer, its end included."""
    tokens = self._tokenizer.encode(text, add_special_tokens=False)
    return [*tokens, self._end]

  def decode(self, tokens: Sequence[int]) -> str:
    return self._tokenizer.decode(list(tokens), skip_special_tokens=True)


def shared_vocabulary(
  first: str | pathlib.Path, second: str | pathlib.Path
) -> int:
  """How many ids two models share, if their tokenizers are the same.

  Published sizes of one family pad the same vocabulary differently (151936 and
  152064). Ids from the returned number on are padding: give it to both as
  `DecoderConfig.num_tokens`.

  Raises:
    ModelError: with the reason, if the tokenizers differ or a model has fewer
      rows than tokens.
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
    raise ModelError(
      f'{names} have different tokenizers: id {i} is {one!r} in the first and '
      f'{other!r} in the second. Their logits cannot be compared; distil '
      'through text instead.'
    )
  for part in ('merges', 'normalizer', 'pre_tokenizer'):
    if a[part] != b[part]:
      raise ModelError(
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
  try:
    tokenizer = tokenizers.Tokenizer.from_file(str(path))
  except Exception as e:  # The package raises bare Exception.
    raise ModelError(f'{path}: not a tokenizer ({e}).') from None
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
