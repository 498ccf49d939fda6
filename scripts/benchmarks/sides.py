"""Who is measured: each makes a turn of steps, and a large product to time."""

from __future__ import annotations

import itertools

from benchmarks.work import NUM_LESSONS, PRODUCT, Work


def _jax_product():
  """A large product, compiled, to time."""
  import jax
  import jax.numpy as jnp

  square = jnp.ones((PRODUCT, PRODUCT))
  product = jax.jit(jnp.matmul)
  product(square, square).block_until_ready()
  return lambda: product(square, square).block_until_ready()


def _jax_trainer(work: Work):
  """This project's window of steps, on packed lessons."""
  import jax
  import numpy as np

  from benchmarks import window as window_lib
  from ioa_jax.models import decoder
  from ioa_jax.training import packing

  config = decoder.DecoderConfig(
    vocab_size=work.vocab,
    width=work.width,
    num_layers=work.layers,
    num_heads=work.heads,
    num_kv_heads=work.heads,
    head_width=work.width // work.heads,
    mlp_width=work.mlp,
    scan_unroll=work.layers,
  )
  tx = window_lib.adamw(1e-4)
  rng = np.random.default_rng(0)
  lessons = [
    packing.Example([0], rng.integers(work.vocab, size=n).tolist())
    for n in work.texts()
  ]
  window, state, inputs, mesh = window_lib.make(
    config,
    decoder.init(config, jax.random.key(0)),
    tx,
    {'all': lessons},
    window_lib.endless_plan(['all'], ['all']),
    None,
    window_lib.Shape(
      row_length=work.length, batch_rows=work.rows, num_steps=work.steps
    ),
  )

  def run():
    nonlocal state
    with jax.set_mesh(mesh):
      state, metrics = window(state, inputs)
      assert bool(metrics['ran'].all())
    return int(metrics['tokens'].sum())

  return run, _jax_product()


def _torch_trainer(work: Work):
  """transformers' Llama under torch's AdamW, as its own trainer steps it."""
  import torch
  import transformers

  torch.manual_seed(0)
  model = transformers.LlamaForCausalLM(
    transformers.LlamaConfig(
      vocab_size=work.vocab,
      hidden_size=work.width,
      num_hidden_layers=work.layers,
      num_attention_heads=work.heads,
      num_key_value_heads=work.heads,
      intermediate_size=work.mlp,
      tie_word_embeddings=True,
      max_position_embeddings=work.length,
    )
  )
  rule = torch.optim.AdamW(
    model.parameters(), lr=1e-4, betas=(0.9, 0.95), weight_decay=0.01
  )
  texts = [torch.randint(work.vocab, (n,)) for n in work.texts()]
  turns = itertools.count()

  def padded(texts):
    """To the longest of the batch, as transformers' collators do."""
    pad = lambda rows, value: torch.nn.utils.rnn.pad_sequence(
      rows, batch_first=True, padding_value=value
    )
    batch = {'input_ids': pad(texts, 0), 'labels': pad(texts, -100)}
    if work.lessons:  # Full rows need no mask.
      batch['attention_mask'] = pad([torch.ones_like(t) for t in texts], 0)
    return batch

  def run():
    tokens = 0
    for _ in range(work.steps):
      start = next(turns) * work.rows % len(texts)
      mine = texts[start : start + work.rows]
      tokens += sum(map(len, mine))
      model(**padded(mine)).loss.backward()
      torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
      rule.step()
      rule.zero_grad()
    return tokens

  square = torch.ones((PRODUCT, PRODUCT))
  return run, lambda: square @ square


def _tunix_trainer(work: Work):
  """The step that google-tunix's PeftTrainer compiles, for its own Llama."""
  import numpy as np
  import optax

  try:
    from flax import nnx
    from tunix.models.llama3 import model as model_lib
    from tunix.sft import peft_trainer
    from tunix.sft import utils as tunix_utils
  except ImportError as e:
    raise ValueError(f'--peer=tunix: {e}; pip install google-tunix') from None
  model = model_lib.Llama3(
    model_lib.ModelConfig(
      num_layers=work.layers,
      vocab_size=work.vocab,
      embed_dim=work.width,
      hidden_dim=work.mlp,
      num_heads=work.heads,
      head_dim=work.width // work.heads,
      num_kv_heads=work.heads,
      rope_theta=10_000,
      norm_eps=1e-5,
      weight_tying=True,
    ),
    rngs=nnx.Rngs(0),
  )
  trainer = peft_trainer.PeftTrainer(
    model,
    optax.chain(
      optax.clip_by_global_norm(1.0),
      optax.adamw(1e-4, b1=0.9, b2=0.95, weight_decay=0.01),
    ),
    peft_trainer.TrainingConfig(eval_every_n_steps=10**9),
  ).with_gen_model_input_fn(
    lambda x: {
      'input_tokens': x.input_tokens,
      'input_mask': x.input_mask,
      'positions': tunix_utils.build_positions_from_mask(x.input_mask),
      'attention_mask': tunix_utils.make_causal_attn_mask(x.input_mask),
    }
  )
  step, _ = trainer.jit_train_and_eval_step()
  rng = np.random.default_rng(0)
  token = rng.integers(work.vocab, size=(NUM_LESSONS, work.length)).astype(
    np.int32
  )
  # One work.length for all, as its data pipelines pad: another compiles again.
  mask = np.arange(work.length) < np.array(work.texts())[:, None]
  turns = itertools.count()

  def run():
    tokens = 0
    for _ in range(work.steps):
      start = next(turns) * work.rows % len(token)
      at = slice(start, start + work.rows)
      tokens += int(mask[at].sum())
      loss, *_ = step(peft_trainer.TrainingInput(token[at], mask[at]))
    loss.block_until_ready()
    return tokens

  return run, _jax_product()


SIDES = {
  'ioa_jax': _jax_trainer,
  'torch': _torch_trainer,
  'tunix': _tunix_trainer,
}
