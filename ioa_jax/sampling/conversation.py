"""A conversation with one model: prompts to answers, as they are written."""

from __future__ import annotations

from collections.abc import Iterator
import dataclasses
import os

from ioa_jax.models import (
  chat_template,
  checks,
  hub,
  loading,
  lora,
  peft,
  vocabulary,
)
from ioa_jax.sampling import logits as logits_lib
from ioa_jax.sampling import streaming


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
  """How a model is asked.

  Attributes:
    adapter: a PEFT LoRA directory to put over the model.
    system: a system message.
    chat: apply the chat template; None is where there is one.
    max_tokens: of an answer at most.
    temperature: 0 takes the likeliest token.
    top_k: keep the k likeliest tokens; 0 keeps all.
    top_p: keep the smallest set of this probability.
    seed: of sampling; each turn has the next one.
    dtype: of weights and arithmetic.
    thinking: whether it thinks before it answers; the template must have a
      switch for that. None is as a run taught it, and else no.
  """

  adapter: str | None = None
  system: str | None = None
  chat: bool | None = None
  max_tokens: int = 256
  temperature: float = 0.0
  top_k: int = 0
  top_p: float = 1.0
  seed: int = 0
  dtype: str = 'float32'
  thinking: bool | None = None


class Conversation:
  """Holds a model, and what was said so far.

  Args:
    model: a directory, a preset or a hub id.

  Raises:
    ValueError: for a setting, model or adapter that cannot be used, or a
      system message without a chat template.
  """

  def __init__(self, model: str | os.PathLike[str], options: Options):
    self._options = options
    _sampling(options, options.max_tokens)  # Checked before a model is read.
    loaded = loading.load(
      hub.locate(str(model)),
      str(model),
      dtype=options.dtype,
      param_dtype=options.dtype,
    )
    self._directory, self._params = loaded.directory, loaded.params
    self._max_positions = loaded.config.max_positions
    stop_tokens = vocabulary.stop_tokens(self._directory)
    self._tokenizer = vocabulary.load_tokenizer(self._directory)
    self._chat = options.chat
    if options.chat is None:
      self._chat = bool(self._tokenizer.chat_template)
    if options.system is not None and not self._chat:
      raise ValueError('--system needs a chat template, and none is applied.')
    if options.thinking:
      if not self._chat:
        raise ValueError('--thinking needs a chat template; none is applied.')
      chat_template.require_switch(self._tokenizer, self._directory)
    self._streamer = streaming.Streamer(
      loaded.config, stop_tokens=stop_tokens, max_tokens=options.max_tokens
    )
    if options.adapter is not None:
      adapters, spec = peft.load(
        options.adapter, loaded.config.num_layers, self._params
      )
      self._params = lora.merge(self._params, adapters, spec)
    self.restart()

  def restart(self) -> None:
    """Forgets what was said."""
    self._turn = 0
    self._messages: list[dict[str, str]] = []
    if self._options.system is not None:
      self._messages.append({'role': 'system', 'content': self._options.system})

  def say(self, prompt: str) -> Iterator[str]:
    """Yields the answer in pieces; it is remembered when it is whole."""
    if self._chat:
      self._messages.append({'role': 'user', 'content': prompt})
      tokens = vocabulary.chat_tokens(
        self._tokenizer,
        self._directory,
        self._messages,
        thinking=self._options.thinking,
      )
    else:
      tokens = self._tokenizer.encode(prompt)
    checks.length(
      len(tokens) + 1,
      self._max_positions,
      'the prompt with one token of an answer',
      self._directory,
    )
    o = self._options
    left = self._max_positions - len(tokens)
    sampling = _sampling(o, min(left, o.max_tokens))
    seed, self._turn = o.seed + self._turn, self._turn + 1
    answer = ''
    for piece in streaming.text_pieces(
      self._streamer(self._params, tokens, sampling, seed),
      lambda ids: vocabulary.decode(self._tokenizer, ids),
    ):
      yield piece
      answer += piece
    self._messages.append({'role': 'assistant', 'content': answer})


def _sampling(options: Options, max_tokens: int) -> logits_lib.Sampling:
  return logits_lib.Sampling(
    options.temperature, options.top_k, options.top_p, max_tokens
  )
