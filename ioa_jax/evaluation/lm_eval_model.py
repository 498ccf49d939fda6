"""This project's sampler and likelihoods as a model of lm-evaluation-harness.

  pip install 'ioa_jax[lm_eval]'
  python -m ioa_jax.evaluation.lm_eval_model --model_args \\
    pretrained=RUN/student --tasks ifeval --batch_size 16 --apply_chat_template

takes the flags of `lm_eval`, whose `--model` is 'ioa_jax' by itself. From
Python, importing this module registers the name. Texts, windows and limits are
those of the harness's own class for transformers, `hf`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
import hashlib
import json
import sys
from typing import Any

from lm_eval import utils as lm_eval_utils
from lm_eval.api.model import TemplateLM
from lm_eval.api.registry import register_model
from lm_eval.models.utils import (
  has_bos_prefix,
  normalize_gen_kwargs,
  postprocess_generated_text,
)
import tqdm

from ioa_jax.models import chat_template, decoder, hub, loading, vocabulary
from ioa_jax.sampling import guides, likelihood
from ioa_jax.sampling import logits as logits_lib
from ioa_jax.sampling import sampler as sampler_lib

_MAX_GEN_TOKS = 256
# Of a task's gen_kwargs, what is read; another one changes the distribution.
_READ = ('do_sample', 'temperature', 'top_p', 'top_k', 'until', 'max_gen_toks')
_PROMPT_BUCKET = 64

Pair = tuple[Any, list[int], list[int]]


@register_model('ioa_jax')
class IoaLM(TemplateLM):
  """A model directory that is asked tasks of the harness.

  Args:
    pretrained: a directory, a preset or a hub id.
    dtype: of weights and arithmetic.
    batch_size: texts that are read or written at once.
    max_length: tokens of a text; None is what the model has positions for.
    thinking: whether its chat template lets it think first, where it has a
      switch for that; None is as a run taught it, and else no. What stands
      before `think_end_token` is no answer then.
    max_batch_size, device: the harness's command names them; JAX has its own.

  Raises:
    ValueError: for a model or an argument that cannot be used.
  """

  def __init__(
    self,
    pretrained: str,
    dtype: str = 'float32',
    batch_size: int | str = 16,
    max_length: int | None = None,
    thinking: bool | None = None,
    think_end_token: str = '</think>',
    max_batch_size: int | None = None,
    device: str | None = None,
  ):
    super().__init__()
    del max_batch_size, device
    if not str(batch_size).isdigit() or not int(batch_size):
      raise ValueError(f'batch_size={batch_size!r}, wanted a number above 0.')
    self._name, self._batch_size = pretrained, int(batch_size)
    self._model = loading.load(
      hub.locate(pretrained), pretrained, dtype=dtype, param_dtype=dtype
    )
    self.tokenizer = vocabulary.load_tokenizer(self._model.directory)
    self._stop_tokens = vocabulary.stop_tokens(self._model.directory)
    if thinking:
      chat_template.require_switch(self.tokenizer, self._model.directory)
    if thinking is None:
      thinking = chat_template.thinks(self.tokenizer)
    self._thinking, self._think_end = thinking, think_end_token
    positions = self._model.config.max_positions
    if max_length is not None and not 1 < max_length <= positions:
      raise ValueError(
        f'max_length={max_length}: the model has {positions} positions.'
      )
    self.max_length = max_length or positions
    self._likelihood = likelihood.Likelihood(
      self._model.config, batch_size=self._batch_size
    )
    self._samplers: dict[int, sampler_lib.Sampler] = {}

  @property
  def eot_token_id(self) -> int:
    eos = self.tokenizer.eos_token_id
    return self._stop_tokens[0] if eos is None else eos

  @property
  def prefix_token_id(self) -> int:
    """What stands before a text that nothing stands before."""
    bos = self.tokenizer.bos_token_id
    return self.eot_token_id if bos is None else bos

  @property
  def tokenizer_name(self) -> str:
    return self._name.replace('/', '__')

  def tok_encode(
    self, string: str, add_special_tokens: bool | None = None, **kwargs
  ) -> list[int]:
    """Tokens as the tokenizer makes them; no second beginning of a text."""
    if add_special_tokens is None:
      # Templates write their own.
      prefix = self.tokenizer.decode([self.prefix_token_id])
      add_special_tokens = not has_bos_prefix(string, prefix)
    return self.tokenizer.encode(
      string, add_special_tokens=add_special_tokens, **kwargs
    )

  def apply_chat_template(
    self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True
  ) -> str:
    return chat_template.write(
      self.tokenizer,
      self._model.directory,
      chat_history,
      continued=not add_generation_prompt,
      thinking=self._thinking,
    )

  def _loglikelihood_tokens(
    self, requests: Sequence[Pair], disable_tqdm: bool = False
  ) -> list[tuple[float, bool]]:
    """Sums in nats, of texts that lose their beginning where it is too long."""
    del disable_tqdm  # One call reads all.
    if self._thinking:
      raise ValueError(
        'thinking=True is for answers that are written; a text that is given '
        'has no thoughts before it. Leave it out for such tasks.'
      )
    if not all(0 < len(c) <= self.max_length for _, _, c in requests):
      raise ValueError(
        'a continuation has no tokens, or is longer than the '
        f'{self.max_length} of a text.'
      )
    # A text's last token is predicted and not read.
    prompts = [
      prompt[max(0, len(prompt) + len(c) - self.max_length - 1) :]
      for _, prompt, c in requests
    ]
    found = self._likelihood.scores(
      self._model.params, prompts, [c for _, _, c in requests]
    )
    results = []
    for (text, *_), (log_probs, is_greedy) in zip(requests, found, strict=True):
      results.append((float(log_probs.sum()), is_greedy))
      if text is not None:
        self.cache_hook.add_partial('loglikelihood', text, results[-1])
    return results

  def loglikelihood_rolling(
    self, requests: Sequence[Any], disable_tqdm: bool = False
  ) -> list[float]:
    """Of whole texts, in windows that each predict what none did before."""
    windows: list[Pair] = []
    counts = []
    for (text,) in (r.args for r in requests):
      parts = lm_eval_utils.get_rolling_token_windows(
        token_list=self.tok_encode(text),
        prefix_token=self.prefix_token_id,
        max_seq_len=self.max_length,
        context_len=1,
      )
      parts = [lm_eval_utils.make_disjoint_window(p) for p in parts]
      windows += [(None, *part) for part in parts]
      counts.append(len(parts))
    found = iter(self._loglikelihood_tokens(windows, disable_tqdm))
    totals = []
    for request, count in zip(requests, counts, strict=True):
      totals.append(sum(next(found)[0] for _ in range(count)))
      self.cache_hook.add_partial(
        'loglikelihood_rolling', request.args, totals[-1]
      )
    return totals

  def generate_until(
    self, requests: Sequence[Any], disable_tqdm: bool = False
  ) -> list[str]:
    """Answers up to a stop text, the end of the turn or the limit."""
    asked = [r.args for r in requests]
    settings = [_settings(kwargs) for _, kwargs in asked]
    decode = lambda ids: vocabulary.decode(self.tokenizer, ids)
    # Stop texts in a thought end nothing.
    think_end = self._think_end if self._thinking else None
    watching = [
      guides.StopTexts(decode, () if think_end else stops)
      for _, stops in settings
    ]
    rooms = [_room(sampling, self.max_length) for sampling, _ in settings]
    texts = [self.tok_encode(text) for text, _ in asked]
    prompts = [
      t[-room:] or [self.prefix_token_id] for t, room in zip(texts, rooms)
    ]
    found = [''] * len(asked)
    progress = tqdm.tqdm(total=len(asked), disable=disable_tqdm)
    for ended in self._sampler(settings).finished(
      self._model.params,
      prompts,
      [sampling for sampling, _ in settings],
      _draws(asked),
      watching,
    ):
      for i, generation in ended:
        found[i] = postprocess_generated_text(
          decode(generation.tokens), list(settings[i][1]), think_end
        )
        self.cache_hook.add_partial('generate_until', asked[i], found[i])
        progress.update()
    progress.close()
    return found

  def _sampler(self, settings) -> sampler_lib.Sampler:
    """With room for the longest answer, in powers of two: each compiles."""
    room = _PROMPT_BUCKET
    while room < max((s.max_tokens for s, _ in settings), default=0):
      room *= 2
    if room not in self._samplers:
      self._samplers[room] = sampler_lib.Sampler(
        decoder.for_decoding(self._model.config),
        stop_tokens=self._stop_tokens,
        batch_size=self._batch_size,
        max_new_tokens=room,
        prompt_bucket=_PROMPT_BUCKET,
      )
    return self._samplers[room]


def _room(sampling: logits_lib.Sampling, max_length: int) -> int:
  """Tokens of a prompt; what is too long loses its beginning.

  Raises:
    ValueError: if there is none.
  """
  room = max_length - sampling.max_tokens
  if room < 1:
    raise ValueError(
      f'max_gen_toks is {sampling.max_tokens}, and a text has {max_length} '
      'tokens; ask for fewer (--gen_kwargs max_gen_toks=...).'
    )
  return room


def _settings(
  gen_kwargs: dict[str, Any],
) -> tuple[logits_lib.Sampling, tuple[str, ...]]:
  """A task's `gen_kwargs` as sampling and stop texts.

  Raises:
    ValueError: for one that is not known here.
  """
  kwargs = normalize_gen_kwargs(gen_kwargs, _MAX_GEN_TOKS)
  if unknown := sorted(set(kwargs) - set(_READ)):
    raise ValueError(
      f'gen_kwargs {unknown}: here are {list(_READ)}; leave out the others.'
    )
  until = kwargs.get('until') or []
  return (
    logits_lib.Sampling(
      temperature=float(kwargs['temperature']) if kwargs['do_sample'] else 0.0,
      top_k=int(kwargs.get('top_k') or 0),
      top_p=float(kwargs.get('top_p') or 1.0),
      max_tokens=int(kwargs['max_gen_toks']),
    ),
    tuple(t for t in ([until] if isinstance(until, str) else until) if t),
  )


def _draws(asked: Sequence[tuple[str, dict[str, Any]]]) -> list[int]:
  """A seed for each answer: of its question, and how often it came before."""
  times: Counter[str] = Counter()
  draws = []
  for context, kwargs in asked:
    text = json.dumps([context, kwargs], sort_keys=True, default=str)
    times[text] += 1
    digest = hashlib.sha256(f'{times[text]} {text}'.encode()).digest()
    draws.append(int.from_bytes(digest[:4], 'big'))
  return draws


def main() -> None:
  """The harness's command, with this model where none is named."""
  from lm_eval.__main__ import cli_evaluate

  arguments = sys.argv[1:]
  command = arguments[:1] if arguments[:1] == ['run'] else []
  runs = command or (arguments and arguments[0].startswith('--'))
  named = any(a == '--model' or a.startswith('--model=') for a in arguments)
  if runs and not named and not {'-h', '--help'} & set(arguments):
    rest = arguments[len(command) :]
    sys.argv[1:] = [*command, '--model', 'ioa_jax', *rest]
  cli_evaluate()


if __name__ == '__main__':
  main()
