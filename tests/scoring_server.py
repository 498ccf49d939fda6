"""A server that scores texts over this project's own decoder, as vLLM or SGLang
do: their fields, their limits, and their one entry more than was asked for."""

from __future__ import annotations

from collections.abc import Callable
import json
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ioa_jax.models import decoder
from tests import faulty_server

# A model's own; every text here is shorter.
_LENGTH = 512


class Model:
  """What is served: log-probabilities of texts of token ids.

  Args:
    texts: how each token reads.
  """

  def __init__(self, config, params, texts):
    self.texts = texts
    self._known: dict[tuple[int, ...], np.ndarray] = {}

    @jax.jit
    def log_probs(tokens):
      position = jnp.arange(_LENGTH)[None]
      hidden = decoder.forward(
        config, params, tokens[None], jnp.ones_like(position), position
      )
      logits = decoder.unembed(config, params, hidden)[0]
      return jax.nn.log_softmax(logits.astype(jnp.float32))

    self._log_probs = log_probs

  def likely(self, tokens: tuple[int, ...]) -> np.ndarray:
    """(N, V): log-probabilities behind each token."""
    if tokens not in self._known:
      padded = np.zeros(_LENGTH, np.int32)
      padded[: len(tokens)] = tokens
      found = np.asarray(self._log_probs(padded))
      self._known[tokens] = found[: len(tokens)]
    return self._known[tokens]


class ScoringServer(faulty_server.FaultyServer):
  """As `FaultyServer`, which also scores.

  Args:
    kind: 'vllm', 'sglang', or 'llama.cpp', which has no such thing.
    max_logprobs: more are refused, as vLLM does.
    spoil: changes a reply's JSON; a text or bytes go out as they are.

  Attributes:
    scored: token ids of each text, in order of arrival.
    tried: the address of each request that was to score.
  """

  def __init__(
    self,
    model: Model,
    *,
    kind: str = 'vllm',
    max_logprobs: int = 20,
    spoil: Callable[[dict[str, Any]], Any] = lambda reply: reply,
    **settings,
  ):
    super().__init__(**settings)
    self._model, self._kind = model, kind
    self._max_logprobs, self._spoil = max_logprobs, spoil
    self.scored: list[tuple[int, ...]] = []
    self.tried: list[str] = []

  def handle(self, handler, body):
    if 'messages' in body:
      super().handle(handler, body)
      return
    self.tried.append(handler.path)
    status, reply = self._reply(handler.path, body)
    content = self._spoil(reply) if status == 200 else reply
    if isinstance(content, (dict, list)):
      content = json.dumps(content)
    if isinstance(content, str):
      content = content.encode()
    handler.send(status, content)

  def _reply(self, path, body):
    missing = 404, {'detail': 'Not Found'}
    if path == '/v1/completions':
      k = body.get('prompt_logprobs') or 0
      if self._kind != 'vllm':
        k = 0
      if k > self._max_logprobs:
        message = (
          f'Requested prompt logprobs of {k}, which is greater than max '
          f'allowed: {self._max_logprobs}'
        )
        return 400, {'error': {'message': message, 'code': 400}}
      assert body['max_tokens'] == 1 and body['temperature'] == 1.0
      tokens = tuple(body['prompt'])
      choice = {'index': 0, 'text': 'x', 'finish_reason': 'length'}
      if k:
        self.scored.append(tokens)
        choice['prompt_logprobs'] = self._vllm(tokens, k)
      usage = {'prompt_tokens': len(tokens), 'completion_tokens': 1}
      return 200, {'id': 'cmpl-1', 'choices': [choice], 'usage': usage}
    if path == '/generate' and self._kind == 'sglang':
      assert body['return_logprob'] and body['logprob_start_len'] == 0
      tokens = tuple(body['input_ids'])
      self.scored.append(tokens)
      return 200, self._sglang(tokens, body['top_logprobs_num'])
    return missing

  def _vllm(self, tokens, k):
    places: list[Any] = [None]
    for token, log_probs in zip(tokens[1:], self._model.likely(tokens)):
      order = np.argsort(-log_probs, kind='stable')
      rank = {int(t): 1 + i for i, t in enumerate(order)}
      # The token itself comes first, and is there whatever its rank.
      chosen = dict.fromkeys([token, *map(int, order[:k])])
      places.append(
        {
          str(t): {
            'logprob': float(log_probs[t]),
            'rank': rank[t],
            'decoded_token': self._model.texts[t],
          }
          for t in chosen
        }
      )
    return places

  def _sglang(self, tokens, k):
    text = self._model.texts
    entry = lambda log_prob, t: [log_prob, int(t), text[t]]
    stood, top = [entry(None, tokens[0])], [None]
    for token, log_probs in zip(tokens[1:], self._model.likely(tokens)):
      order = np.argsort(-log_probs, kind='stable')[:k]
      stood.append(entry(float(log_probs[token]), token))
      top.append([entry(float(log_probs[t]), t) for t in order])
    info = {
      'id': 'abc',
      'prompt_tokens': len(tokens),
      'completion_tokens': 1,
      'input_token_logprobs': stood,
      'input_top_logprobs': top,
    }
    return {'text': 'x', 'meta_info': info}
