"""What a server's model thinks of given texts: a request, a reply, arrays.

A text goes out as token ids, and the k likeliest tokens at each of its
positions come back. Two protocols have that: vLLM's `prompt_logprobs` of
/v1/completions, and SGLang's `input_top_logprobs` of /generate. Both say which
token stood at a position and how it reads, and both are checked.

Shapes: N tokens of a text, T the k tokens that are kept of a distribution.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterator, Sequence
import dataclasses
import json
import math
from typing import Any

import numpy as np

from ioa_jax.teachers.requests import Completion, Request

# Of a text that cannot be compared: a part of a character.
_NO_CHARACTER = '\ufffd'
# Rounding alone lets a log-probability be above 0, or their sum above 1.
_ROUNDING = 1e-3
_FORMAT = 1


class NotOffered(ValueError):
  """The reply has no log-probabilities of the text."""


class Unusable(ValueError):
  """The reply has some, and they are not what was asked for."""


@dataclasses.dataclass(frozen=True)
class _Position:
  """One place of a reply: which token stood there, and what was likely."""

  token: int | None
  text: Any
  likely: list[tuple[Any, Any]]


@dataclasses.dataclass(frozen=True)
class Way:
  """A protocol.

  Attributes:
    url: of a server's base_url.
    body: of a request.
    positions: of a reply's JSON, one for each token that was sent.
  """

  name: str
  url: Callable[[str], str]
  body: Callable[[Request], dict[str, Any]]
  positions: Callable[[Any, Request], Iterator[_Position]]


def request(
  model: str, tokens: Sequence[int], k: int, texts: Sequence[str]
) -> Request:
  """Asks for the k likeliest tokens behind each token but the last.

  Args:
    texts: how each token reads, which the server must agree with.
  """
  return Request(
    model=model,
    prompt=' '.join(map(str, tokens)),
    # What is scored is the model's own distribution, in every version.
    temperature=1.0,
    top_k=0,
    top_p=1.0,
    max_tokens=1,
    score=k,
    token_texts=tuple(texts),
  )


def tokens(asked: Request) -> list[int]:
  return [int(t) for t in asked.prompt.split()]


def read(way: Way, value: Any, asked: Request) -> str:
  """The text of a `Completion`, see `arrays`, of a reply's JSON.

  Raises:
    NotOffered, Unusable: as their names say.
  """
  sent, k = tokens(asked), asked.score
  positions = list(way.positions(value, asked))
  if len(positions) != len(sent):
    raise Unusable(f'{len(positions)} positions for {len(sent)} tokens')
  compared = 0
  token_NxT = np.empty((len(sent) - 1, k), '<i4')
  log_prob_NxT = np.empty((len(sent) - 1, k), '<f4')
  for i in range(1, len(sent)):
    here = positions[i]
    if here.token != sent[i]:
      raise Unusable(
        f'token {sent[i]} was sent at position {i} and '
        f'{here.token if here.token is not None else "another"} came back'
      )
    if i < len(asked.token_texts):
      compared += _same_text(here.text, asked.token_texts[i], sent[i])
    try:
      token_NxT[i - 1], log_prob_NxT[i - 1] = _top(here.likely, k)
    except Unusable as e:
      raise Unusable(f'{e}, at position {i}') from None
  if asked.token_texts and not compared:
    raise Unusable(
      'no token comes with its text, so it is not known whether its tokens are '
      "the student's"
    )
  return json.dumps(
    {
      'format': _FORMAT,
      'top_k': k,
      'tokens': base64.b64encode(token_NxT.tobytes()).decode(),
      'log_probs': base64.b64encode(log_prob_NxT.tobytes()).decode(),
    }
  )


def _same_text(got: Any, wanted: str, token: int) -> bool:
  """Whether there was something to compare, and it was the same."""
  # Some servers read a token where it stands, so blanks differ.
  if not isinstance(got, str) or _NO_CHARACTER in wanted or not wanted.strip():
    return False
  if got.strip() != wanted.strip():
    raise Unusable(
      f'its token {token} is {got[:40]!r} and the student has {wanted[:40]!r} '
      'there: they have different tokenizers'
    )
  return True


def _top(likely: list[tuple[Any, Any]], k: int):
  """The k likeliest, (T,) ids and (T,) log-probabilities, the first ones first.

  A server adds the token that stood there where it is not among them.
  """
  found: dict[int, float] = {}
  for token, log_prob in likely:
    if not isinstance(token, int) or not 0 <= token < 2**31 or token in found:
      raise Unusable(f'{str(token)[:40]!r} is no token, or is there twice')
    if isinstance(log_prob, bool) or not isinstance(log_prob, (int, float)):
      raise Unusable(f'{str(log_prob)[:40]!r} is no log-probability')
    if not (math.isfinite(log_prob) and log_prob <= _ROUNDING):
      raise Unusable(f'{log_prob} is no log-probability')
    found[token] = min(0.0, float(log_prob))
  if len(found) < k:
    raise Unusable(f'{len(found)} tokens where {k} were asked for')
  best = sorted(found.items(), key=lambda item: (-item[1], item[0]))[:k]
  if sum(math.exp(log_prob) for _, log_prob in best) > 1 + 10 * _ROUNDING:
    raise Unusable('probabilities of more than 1 together')
  ids, log_probs = zip(*best)
  return ids, log_probs


def arrays(text: str, asked: Request) -> tuple[np.ndarray, np.ndarray]:
  """Token ids and log-probabilities behind each token but the last.

  Args:
    text: of the `Completion` of `asked`.

  Returns:
    int32 and float32, each (N - 1, T), the likeliest first.

  Raises:
    ValueError: for a text that `read` has not written for this request.
  """
  shape = (len(asked.prompt.split()) - 1, asked.score)
  try:
    value = json.loads(text)
    if (value['format'], value['top_k']) != (_FORMAT, asked.score):
      raise ValueError('another format')
    both = [
      np.frombuffer(base64.b64decode(value[name]), kind).reshape(shape)
      for name, kind in (('tokens', '<i4'), ('log_probs', '<f4'))
    ]
  except (ValueError, TypeError, KeyError) as e:
    raise ValueError(
      f'{asked.describe()}: the stored log-probabilities cannot be read '
      f'({type(e).__name__}). Forget them: python scripts/ledger.py RUN '
      f'--drop --key={asked.key()[:12]}'
    ) from None
  return both[0], both[1]


def _vllm_body(asked: Request) -> dict[str, Any]:
  return {
    'model': asked.model,
    'prompt': tokens(asked),
    'max_tokens': asked.max_tokens,
    'temperature': asked.temperature,
    'prompt_logprobs': asked.score,
  }


def _vllm_positions(value: Any, asked: Request) -> Iterator[_Position]:
  choices = value.get('choices') if isinstance(value, dict) else None
  first = choices[0] if isinstance(choices, list) and choices else None
  found = first.get('prompt_logprobs') if isinstance(first, dict) else None
  # Old versions had them beside the choices.
  if found is None and isinstance(value, dict):
    found = value.get('prompt_logprobs')
  if not isinstance(found, list):
    raise NotOffered('its reply has no prompt_logprobs')
  for sent, place in zip(tokens(asked), [*found, *[None] * len(found)]):
    place = place if isinstance(place, dict) else {}
    read = {_id(k): v if isinstance(v, dict) else {} for k, v in place.items()}
    here = read.get(sent)
    yield _Position(
      None if here is None else sent,
      None if here is None else here.get('decoded_token'),
      [
        (token, v.get('logprob'))
        for token, v in read.items()
        # The token that stood there is more than was asked for.
        if not _is_beyond(v.get('rank'), asked.score)
      ],
    )


def _id(text: str) -> int | str:
  is_id = text.isascii() and text.isdigit() and str(int(text[:20])) == text
  return int(text) if is_id else text


def _is_beyond(rank: Any, k: int) -> bool:
  return isinstance(rank, int) and rank > k


def _sglang_body(asked: Request) -> dict[str, Any]:
  return {
    'input_ids': tokens(asked),
    'sampling_params': {
      'max_new_tokens': asked.max_tokens,
      'temperature': asked.temperature,
    },
    'return_logprob': True,
    'logprob_start_len': 0,
    'top_logprobs_num': asked.score,
    'return_text_in_logprobs': True,
  }


def _sglang_positions(value: Any, asked: Request) -> Iterator[_Position]:
  info = value.get('meta_info') if isinstance(value, dict) else None
  info = info if isinstance(info, dict) else {}
  stood, likely = (
    info.get(name) for name in ('input_token_logprobs', 'input_top_logprobs')
  )
  if not isinstance(stood, list) or not isinstance(likely, list):
    raise NotOffered('its reply has no input_top_logprobs')
  for here, top in zip(stood, likely):
    _, token, text = _triple(here)
    entries = [_triple(x) for x in top] if isinstance(top, list) else []
    yield _Position(token, text, [(t, log_prob) for log_prob, t, _ in entries])


def _triple(entry: Any) -> tuple[Any, Any, Any]:
  """(log-probability, token, text); None for what is not there."""
  entry = entry if isinstance(entry, list) else []
  log_prob, token, text = [*entry, None, None, None][:3]
  return log_prob, token, text


def _native(base_url: str) -> str:
  return base_url.rstrip('/').removesuffix('/v1') + '/generate'


# In the order in which a server is tried.
WAYS = (
  Way(
    'vLLM',
    lambda base_url: base_url.rstrip('/') + '/completions',
    _vllm_body,
    _vllm_positions,
  ),
  Way('SGLang', _native, _sglang_body, _sglang_positions),
)


def completion(value: Any, asked: Request, text: str) -> Completion:
  """An answer of `text`, with the tokens that were paid for.

  Each text is sent as tokens, so how many a server has read is known.
  """
  info = value if isinstance(value, dict) else {}
  meta = info.get('meta_info')
  name = info.get('id') or (isinstance(meta, dict) and meta.get('id')) or ''
  return Completion(
    text=text,
    finish_reason='stop',
    prompt_tokens=len(asked.prompt.split()),
    completion_tokens=asked.max_tokens,
    response_id=str(name)[:200].encode('utf-8', 'replace').decode(),
  )
