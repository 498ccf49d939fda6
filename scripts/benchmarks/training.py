"""Tokens a second of training on an accelerator, ours and torch's.

Both train float32 weights by AdamW and compute in bfloat16. This project packs
four texts a row and keeps them apart; the peer reads each row as one text,
which is less work for it.
"""

from __future__ import annotations

import statistics
import time

from benchmarks import device, jobs
from benchmarks.shapes import Student

_TURNS = 3
_TEXTS_PER_ROW = 4
_LORA_RANK = 16
_LEARNING_RATE = 1e-5
# Bytes a weight: itself, two moments, a part's gradient and the sum of them in
# float32, a copy in bfloat16. The rest of the memory is for activations.
_BYTES_PER_WEIGHT, _MOST_OF_MEMORY = 22, 0.85


def _adapts(student: Student, memory_gib: float | None) -> bool:
  """Whether all weights would not fit."""
  needed = _BYTES_PER_WEIGHT * student.weights / 2**30
  return memory_gib is not None and needed > _MOST_OF_MEMORY * memory_gib


def ours(say: jobs.Say, student: Student, memory_gib: float | None) -> None:
  """One window of steps, compiled ahead and then run."""
  import jax

  from ioa_jax.runtime import sharding

  window, state, inputs, mesh = make_window(student, memory_gib)
  with jax.set_mesh(mesh):
    start = time.perf_counter()
    compiled = window.lower(state, inputs).compile()
    seconds = time.perf_counter() - start
    expected = device.gib(device.needed_bytes(compiled))

    def turn():
      nonlocal state
      state, metrics = compiled(state, inputs)
      metrics = sharding.fetch(metrics)
      if not metrics['ran'].all():
        raise ValueError('a step has not run')
      return int(metrics['tokens'].sum())

    turn()  # Touches what is allocated late.
    speeds = [_speed(turn) for _ in range(_TURNS)]
  say(
    {
      'student': student.name,
      'side': 'ioa_jax',
      'tokens_per_second': statistics.median(speeds),
      'flops_per_token': student.flops_per_token,
      'trained': _trained(student, memory_gib),
      'remat': student.config.remat,
      'compile_seconds': seconds,
      'expected_gib': expected,
      'peak_gib': device.peak_gib(),
    }
  )


def _speed(turn) -> float:
  start = time.perf_counter()
  tokens = turn()
  return tokens / (time.perf_counter() - start)


def _trained(student, memory_gib) -> str:
  return 'adapters' if _adapts(student, memory_gib) else 'all weights'


def make_window(
  student: Student,
  memory_gib: float | None,
  bank=None,
  num_modules: int = 1,
  **changes,
):
  """`window.make` for a student on rows that are full of lessons.

  Args:
    bank: of probes, of so many modules as there are.
    **changes: of the window's `Shape`.
  """
  import jax
  import jax.numpy as jnp
  import numpy as np

  from benchmarks import window as window_lib
  from ioa_jax.models import decoder, lora
  from ioa_jax.training import packing

  c, adapts = student.config, _adapts(student, memory_gib)
  tx = window_lib.adamw(_LEARNING_RATE)
  rng = np.random.default_rng(0)
  text = student.length // _TEXTS_PER_ROW
  lessons = [
    packing.Example([0], rng.integers(c.vocab_size, size=text).tolist())
    for _ in range(_TEXTS_PER_ROW * student.rows)
  ]
  dtype = jnp.dtype(c.dtype) if adapts else jnp.float32
  make = lambda key: jax.tree.map(
    lambda x: x.astype(dtype), decoder.init(c, key)
  )
  names = [f'module {i}' for i in range(num_modules)]
  shape = {
    'row_length': student.length,
    'batch_rows': student.rows,
    'num_steps': student.steps,
    'microbatches': student.microbatches,
    'lora': lora.LoraSpec(rank=_LORA_RANK, dropout=0.0) if adapts else None,
  }
  return window_lib.make(
    c,
    jax.jit(make)(jax.random.key(0)),
    tx,
    dict.fromkeys(names, lessons),
    window_lib.endless_plan(names, names),
    bank,
    window_lib.Shape(**shape | changes),
  )


def torch_(say: jobs.Say, student: Student, memory_gib: float | None) -> None:
  """The same steps by transformers, with the best attention it has here."""
  import torch

  where = 'cuda' if torch.cuda.is_available() else 'cpu'
  model = peer_model(student, torch.float32, where).train()
  if _adapts(student, memory_gib):
    import peft

    model.requires_grad_(False).to(torch.bfloat16)
    # Else nothing before the first adapter passes a gradient on.
    model.enable_input_require_grads()
    model = peft.get_peft_model(
      model,
      peft.LoraConfig(
        r=_LORA_RANK,
        lora_alpha=32,
        target_modules=['q_proj', 'k_proj', 'v_proj', 'o_proj'],
      ),
    )
  if student.config.remat != 'none':
    model.gradient_checkpointing_enable()
  weights = [p for p in model.parameters() if p.requires_grad]
  rule = torch.optim.AdamW(
    weights, lr=_LEARNING_RATE, betas=(0.9, 0.95), weight_decay=0.01, fused=True
  )
  rows = torch.randint(
    student.config.vocab_size, (student.rows, student.length), device=where
  )

  def turn():
    for _ in range(student.steps):
      for part in rows.chunk(student.microbatches):
        with torch.autocast(where, dtype=torch.bfloat16):
          loss = model(input_ids=part, labels=part, use_cache=False).loss
        (loss / student.microbatches).backward()
      torch.nn.utils.clip_grad_norm_(weights, 1.0)
      rule.step()
      rule.zero_grad()
    if not loss.isfinite():  # Waits for the device.
      raise ValueError('the loss is no number')
    return student.steps * rows.numel()

  turn()
  speeds = [_speed(turn) for _ in range(_TURNS)]
  say(
    {
      'student': student.name,
      'side': 'torch',
      'tokens_per_second': statistics.median(speeds),
      'flops_per_token': student.flops_per_token,
      'trained': _trained(student, memory_gib),
      'attention': getattr(model.config, '_attn_implementation', None),
      'peak_gib': device.gib(torch.cuda.max_memory_allocated())
      if where == 'cuda'
      else None,
    }
  )


def peer_model(student: Student, dtype, where: str):
  """transformers' model of the same sizes, with random weights."""
  import torch
  import transformers

  from ioa_jax.models import config_json

  values = config_json.config_dict(student.config, 'bfloat16')
  config = transformers.AutoConfig.for_model(values.pop('model_type'), **values)
  flash = device.version('flash-attn') is not None
  with torch.device(where):
    return transformers.AutoModelForCausalLM.from_config(
      config,
      dtype=dtype,
      attn_implementation='flash_attention_2' if flash else 'sdpa',
      trust_remote_code=False,
    )
