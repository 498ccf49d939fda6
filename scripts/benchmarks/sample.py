"""The sampler beside `transformers.generate`, for `benchmark.py sample`.

Both write the same 64 texts greedily. How long each gets is drawn from a
geometric distribution, as lengths of answers are, and given as its limit;
nothing stops earlier. `generate` pads a batch on the left and runs until its
longest text is done; tokens behind a text's own limit are not counted.

`generate` gets its best batch size in each of two orders: by prompt, which
saves padding, and by limit, which saves steps. The sampler starts long texts
first, so it knows the limits, and the ratio that counts is to the best of both
orders. Lengths that nobody knows beforehand can be sorted by prompt only.
"""

from collections.abc import Callable, Sequence
import functools
import pathlib
import statistics
import tempfile
import time

import jax
import numpy as np

from ioa_jax.models import decoder, huggingface
from ioa_jax.sampling import logits as logits_lib
from ioa_jax.sampling import sampler as sampler_lib

_PEER_BATCHES = (8, 16, 32, 64)
_ORDERS = ('by_prompt', 'by_limit')
_TEXTS, _LONGEST_PROMPT, _MEAN, _LONGEST = 64, 64, 48, 192


def measure(
  *, directory: str | None, slots: int, rounds: int, peer: bool
) -> dict:
  """Useful tokens a second of the sampler, and of `generate` at its best.

  Args:
    directory: of real weights; None makes random ones of 30 M parameters.
    rounds: turns of each; the median counts.
  """
  with tempfile.TemporaryDirectory() as temporary:
    path = pathlib.Path(directory or temporary)
    if directory is None:
      _write_random(path)
    config = huggingface.read_config(path)
    config = decoder.for_decoding(config)
    rng = np.random.default_rng(0)
    prompts = [
      rng.integers(3, config.vocab_size, n).tolist()
      for n in rng.integers(8, _LONGEST_PROMPT + 1, _TEXTS)
    ]
    limits = np.clip(rng.geometric(1 / _MEAN, _TEXTS), 4, _LONGEST)
    sampler = sampler_lib.Sampler(
      config,
      stop_tokens=[],
      batch_size=slots,
      max_new_tokens=_LONGEST,
      prompt_bucket=32,
    )
    params = huggingface.load_params(path, config)
    ways = {'sampler': lambda: ours(sampler, params, prompts, limits)}
    ways['sampler']()  # Compiles.
    if peer:
      model = _peer(path)
      named = {
        f'{order}/{size}': functools.partial(
          theirs, model, prompts, limits, size, order
        )
        for order in _ORDERS
        for size in _PEER_BATCHES
      }
      tried, _ = _in_turns(named, 1)
      best = {
        order: min((w for w in tried if w.startswith(order)), key=tried.get)
        for order in _ORDERS
      }
      ways |= {way: named[way] for way in best.values()}
    seconds, texts = _in_turns(ways, rounds)
  useful = int(limits.sum())
  result = {
    'benchmark': 'sample',
    'model': directory or '27m',
    'slots': slots,
    'useful_tokens': useful,
    'occupancy': sampler.occupancy,
    'compilations': sampler.compilations,
    'tokens_per_second': {
      way: useful / statistics.median(taken) for way, taken in seconds.items()
    },
  }
  if peer:
    result['tried_seconds'] = {way: taken[0] for way, taken in tried.items()}
    ratios = {
      order: statistics.median(
        its / own for own, its in zip(seconds['sampler'], seconds[way])
      )
      for order, way in best.items()
    }
    result['ratio'] = min(ratios.values())
    result |= {f'ratio_{order}': ratio for order, ratio in ratios.items()}
    result['texts_equal'] = {
      way: float(
        np.mean([a == b for a, b in zip(texts['sampler'], texts[way])])
      )
      for way in best.values()
    }
  return result


def _in_turns(ways: dict[str, Callable], rounds: int):
  """The seconds of each way, turn by turn, and what it wrote."""
  seconds, wrote = {name: [] for name in ways}, {}
  for _ in range(rounds):
    for name, way in ways.items():
      start = time.perf_counter()
      wrote[name] = way()
      seconds[name].append(time.perf_counter() - start)
  return seconds, wrote


def ours(
  sampler: sampler_lib.Sampler,
  params: decoder.Params,
  prompts: Sequence[Sequence[int]],
  limits: Sequence[int],
) -> list[list[int]]:
  """What the sampler writes, each text to its limit."""
  settings = [logits_lib.Sampling(max_tokens=int(n)) for n in limits]
  written = sampler(params, prompts, settings, [0] * len(prompts))
  return [list(g.tokens) for g in written]


def _peer(path):
  try:
    import torch
    import transformers
  except ImportError as e:
    raise ValueError(f"--peer=torch: {e}; pip install -e '.[test]'") from None
  model = transformers.AutoModelForCausalLM.from_pretrained(
    path, dtype=torch.float32, trust_remote_code=False
  ).eval()
  model.generation_config.eos_token_id = None
  model.generation_config.pad_token_id = 0
  return model


def theirs(
  model, prompts: Sequence[Sequence[int]], limits, size: int, order: str
) -> list[list[int]]:
  """The same by `generate`, in batches of `size` of one of the orders."""
  import torch

  cost = limits if order == 'by_limit' else list(map(len, prompts))
  longest_first = np.argsort(cost)[::-1]
  texts = {}
  for start in range(0, len(prompts), size):
    at = longest_first[start : start + size]
    width = max(len(prompts[i]) for i in at)
    token, mask = np.zeros((2, len(at), width), np.int64)
    for row, i in enumerate(at):
      token[row, width - len(prompts[i]) :] = prompts[i]
      mask[row, width - len(prompts[i]) :] = 1
    with torch.no_grad():
      out = model.generate(
        torch.tensor(token, device=model.device),
        attention_mask=torch.tensor(mask, device=model.device),
        do_sample=False,
        max_new_tokens=int(limits[at].max()),
      )
    for i, row in zip(at, out):
      texts[i] = row[width : width + limits[i]].tolist()
  return [texts[i] for i in range(len(prompts))]


def _write_random(path):
  config = decoder.DecoderConfig(
    vocab_size=8192,
    width=512,
    num_layers=8,
    num_heads=8,
    num_kv_heads=8,
    head_width=64,
    mlp_width=1376,
  )
  params = jax.jit(decoder.init, static_argnums=0)(config, jax.random.key(0))
  # Wider than at initialisation: near ties would be decided by rounding.
  params = jax.tree.map(lambda x: 2.0 * x, params)
  huggingface.save(
    path, config, params, dtype='float32', eos_token_id=1, pad_token_id=0
  )
