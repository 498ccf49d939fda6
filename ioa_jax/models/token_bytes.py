"""The bytes that each token of a vocabulary stands for in a text.

Byte-level vocabularies (GPT-2, Llama 3, Qwen, SmolLM2) write every byte as a
printable character, those in SentencePiece's manner (Llama 2, Mistral, Gemma)
write spaces as U+2581 and lone bytes as <0xE2>, and others write what they are.
A token can be a part of a character, so it has bytes and not text.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
import json
import re
from typing import Any

import tokenizers

_SPACE = '\u2581'
_BYTE = re.compile('<0x([0-9A-F]{2})>')


def is_byte(token: str) -> bool:
  """Whether a token is a lone byte, as SentencePiece writes it."""
  return _BYTE.fullmatch(token) is not None


def pieces(tokenizer: tokenizers.Tokenizer) -> list[bytes | None]:
  """Of every id; None of a control token and of an id that is no token's."""
  read = _reader(json.loads(tokenizer.to_str())['decoder'])
  vocabulary = tokenizer.get_vocab(with_added_tokens=True)
  found: list[bytes | None] = [None] * (max(vocabulary.values()) + 1)
  for token, i in vocabulary.items():
    found[i] = read(token)
  for i, token in tokenizer.get_added_tokens_decoder().items():
    # Added tokens stand as they are written.
    found[i] = None if token.special else token.content.encode()
  return found


def normaliser(tokenizer: tokenizers.Tokenizer) -> Callable[[str], bytes]:
  """What the tokenizer makes of a text before it cuts it into tokens."""
  if tokenizer.normalizer is None:
    return str.encode
  normalise = tokenizer.normalizer.normalize_str
  if _writes_spaces(json.loads(tokenizer.to_str())['decoder']):
    return lambda text: normalise(text).replace(_SPACE, ' ').encode()
  return lambda text: normalise(text).encode()


def _reader(decoder: Any) -> Callable[[str], bytes]:
  if any(part.get('type') == 'ByteLevel' for part in _parts(decoder)):
    # Here, because it takes seconds to load.
    from transformers.convert_slow_tokenizer import bytes_to_unicode

    byte = {character: b for b, character in bytes_to_unicode().items()}

    def byte_level(token):
      if set(token) <= byte.keys():
        return bytes(byte[character] for character in token)
      return token.encode()

    return byte_level
  if _writes_spaces(decoder):

    def sentencepiece(token):
      lone = _BYTE.fullmatch(token)
      if lone:
        return bytes([int(lone[1], 16)])
      return token.replace(_SPACE, ' ').encode()

    return sentencepiece
  return str.encode


def _writes_spaces(decoder: Any) -> bool:
  return any(
    part.get('type') in ('Metaspace', 'ByteFallback')
    or part.get('pattern') == {'String': _SPACE}
    for part in _parts(decoder)
  )


def _parts(decoder: Any) -> Iterator[dict[str, Any]]:
  if decoder:
    yield decoder
    for part in decoder.get('decoders', ()):
      yield from _parts(part)
