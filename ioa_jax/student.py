"""What a student does for a run: it answers, writes, and reads texts.

A reader only gives likelihoods; a teacher whose weights are here is one too.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
import dataclasses
from typing import NamedTuple

import numpy as np

from ioa_jax.evaluation import scoring
from ioa_jax.models import decoder, loading
from ioa_jax.models.vocabulary import Codec
from ioa_jax.records import Probe
from ioa_jax.runtime.display import Display
from ioa_jax.sampling import likelihood
from ioa_jax.sampling import logits as logits_lib
from ioa_jax.sampling import sampler as sampler_lib
from ioa_jax.training import packing


@dataclasses.dataclass(frozen=True)
class Limits:
  """How much a model reads and writes at once.

  Attributes:
    batch_size: texts.
    max_tokens: of what it writes.
    row_length: tokens of a training row; longer texts are not learned from.
  """

  batch_size: int
  max_tokens: int
  row_length: int


class Written(NamedTuple):
  """What a student wrote; `truncated` if its limit cut it off."""

  text: str
  truncated: bool


class Reader:
  """The likelihoods that one model gives to texts.

  Attributes:
    model: its configuration and weights.
    codec: how it reads and writes text.
  """

  def __init__(
    self,
    model: loading.Model,
    codec: Codec,
    limits: Limits,
    counted: Counter[str],
    as_what: str,
  ):
    """Args:
    counted: tokens by who read them; `as_what` is this model.
    """
    self.model, self.codec, self.limits = model, codec, limits
    self._counted, self._as_what = counted, as_what
    self._likelihood = likelihood.Likelihood(
      model.config, batch_size=limits.batch_size
    )

  def example(self, prompt: str, completion: str) -> packing.Example:
    """Problem and solution as tokens."""
    return packing.Example(
      self.codec.prompt(prompt), self.codec.answer(completion)
    )

  def log_probs(
    self, params: decoder.Params, examples: Sequence[packing.Example]
  ) -> list[np.ndarray]:
    """Of every completion's tokens."""
    # A text's last token is predicted and not read.
    self._counted[self._as_what] += sum(
      len(e.prompt) + len(e.completion) - 1 for e in examples
    )
    return self._likelihood(
      params, [e.prompt for e in examples], [e.completion for e in examples]
    )

  def losses(
    self, params: decoder.Params, probes: Sequence[Probe]
  ) -> list[scoring.Loss | None]:
    """Of each probe's reference answer; None if unknown or over a row."""
    examples = {}
    for i, probe in enumerate(probes):
      if probe.reference:
        example = self.example(probe.prompt, probe.reference)
        size = len(example.prompt) + len(example.completion) - 1
        if size <= self.limits.row_length:
          examples[i] = example
    found = self.log_probs(params, list(examples.values()))
    losses = {
      i: scoring.Loss(-float(log_probs.sum()), len(log_probs))
      for i, log_probs in zip(examples, found, strict=True)
    }
    return [losses.get(i) for i in range(len(probes))]


class Student(Reader):
  """A student before and while it learns; its weights are handed in."""

  def __init__(
    self,
    model: loading.Model,
    codec: Codec,
    limits: Limits,
    counted: Counter[str],
    display: Display,
  ):
    super().__init__(model, codec, limits, counted, 'student_inferred')
    self._display = display
    self._sampler = sampler_lib.Sampler(
      decoder.for_decoding(model.config),
      stop_tokens=codec.stop_tokens,
      batch_size=limits.batch_size,
      max_new_tokens=limits.max_tokens,
      prompt_bucket=codec.prompt_bucket,
    )

  def answers(
    self, params: decoder.Params, probes: Sequence[Probe], phase: str
  ) -> list[Written]:
    """Greedy answers, with progress under the name of `phase`."""
    written = [Written('', False)] * len(probes)
    greedy = logits_lib.Sampling(max_tokens=self.limits.max_tokens)
    prompts = [self.codec.prompt(p.prompt) for p in probes]
    self._display.update(phase=phase, done=0, total=len(probes))
    done = 0
    for ended in self._sampler.finished(
      params, prompts, [greedy] * len(probes), [0] * len(probes)
    ):
      for i, generation in ended:
        self._count(prompts[i], generation)
        text = self.codec.decode(generation.tokens)
        written[i] = Written(text, not generation.stopped)
      done += len(ended)
      self._display.update(done=done)
    return written

  def texts(
    self,
    params: decoder.Params,
    prompts: Sequence[Sequence[int]],
    seeds: Sequence[int],
  ) -> list[packing.Example]:
    """What it writes of itself, as it thinks: no filter, temperature 1.

    No longer than a row. The end of a text that was cut off is not learned.
    """
    fits = self.limits.row_length + 1
    sampling = [
      logits_lib.Sampling(
        temperature=1.0,
        max_tokens=min(self.limits.max_tokens, fits - len(prompt)),
      )
      for prompt in prompts
    ]
    self._display.update(phase='the student writes', done=0, total=len(prompts))
    written = self._sampler(params, prompts, sampling, seeds)
    for prompt, generation in zip(prompts, written, strict=True):
      self._count(prompt, generation)
    # Which stop token does not matter: it is predicted and never read.
    end = self.codec.stop_tokens[:1]
    return [
      packing.Example(prompt, [*g.tokens, *(end if g.stopped else ())])
      for prompt, g in zip(prompts, written, strict=True)
    ]

  def _count(self, prompt, generation: sampler_lib.Generation):
    written = len(generation.tokens) + generation.stopped
    self._counted[self._as_what] += len(prompt) + written
