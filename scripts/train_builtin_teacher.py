r"""Trains the models that ship with the arithmetic domain, from scratch.

The teacher learns every module in both answer formats; the base student learns
generic string tasks and the easy modules only. Neither sees a probe.

  python scripts/train_builtin_teacher.py --role=teacher --output_dir=DIR
  python scripts/train_builtin_teacher.py --role=student --output_dir=DIR
"""

import json
import pathlib
import time

from absl import app
from absl import flags
import jax
import jax.numpy as jnp
import numpy as np
import optax

from ioa_jax.domains import arithmetic
from ioa_jax.domains import tokenizer as tokenizer_lib
from ioa_jax.models import decoder
from ioa_jax.training import losses
from ioa_jax.training import optimizer
from ioa_jax.training import packing

FLAGS = flags.FLAGS
flags.DEFINE_enum('role', None, ['teacher', 'student'], 'Which model to train.')
flags.DEFINE_string('output_dir', None, 'Where to write the model directory.')
flags.DEFINE_integer('seed', 0, 'Seed of weights and data.')
flags.DEFINE_integer(
  'steps', None, 'Optimizer steps; the default is the recipe.'
)
flags.DEFINE_integer('width', None, '')
flags.DEFINE_integer('layers', None, '')
flags.DEFINE_float('direct', 0.1, '')
flags.DEFINE_float('lr', None, '')
flags.DEFINE_string('init', None, '')
flags.DEFINE_string('modules', 'easy', '')
flags.DEFINE_integer('eval_every', 400, '')
flags.mark_flags_as_required(['role', 'output_dir'])

ROW_LENGTH = 64
ROWS = 32


def generic(rng):
  digits = ''.join(str(d) for d in rng.integers(0, 10, rng.integers(1, 7)))
  return (
    ('@' + digits + '=', digits)
    if rng.random() < 0.5
    else ('<' + digits + '=', digits[::-1])
  )


def corpus(rng, modules, direct_share, generic_share, n, weights=None):
  tk = tokenizer_lib.build()
  prompts, completions = [], []
  for _ in range(n):
    if rng.random() < generic_share:
      p, c = generic(rng)
    else:
      name = modules[rng.choice(len(modules), p=weights)]
      problem = arithmetic.training_problem(
        name, rng, 1.0 if rng.random() < 0.8 else rng.random() * 0.9 + 0.1
      )
      fmt = 'direct' if rng.random() < direct_share else 'steps'
      p, c = problem.prompt(fmt), problem.completion(fmt)
    prompts.append(tokenizer_lib.reverse_digits(p))
    completions.append(tokenizer_lib.reverse_digits(c))
  enc = tk.encode_batch(prompts), tk.encode_batch(completions)
  return packing.pack(
    [packing.Example(a.ids, b.ids + [1]) for a, b in zip(*enc)], ROW_LENGTH
  )


def probe_rows(split, fmt):
  tk = tokenizer_lib.build()
  ps = arithmetic.probes(split, fmt)
  r = tokenizer_lib.reverse_digits
  ex = [
    packing.Example(
      tk.encode(r(p.prompt)).ids, tk.encode(r(p.reference)).ids + [1]
    )
    for p in ps
  ]
  rows = packing.empty_rows(len(ex), 64)
  for i, e in enumerate(ex):
    one = packing.pack([e], 64)
    for k in rows:
      rows[k][i] = one[k][0]
  return [p.module for p in ps], rows


def main(_):
  teacher = FLAGS.role == 'teacher'
  w = FLAGS.width or (192 if teacher else 64)
  nl = FLAGS.layers or (4 if teacher else 3)
  config = decoder.DecoderConfig(
    vocab_size=32,
    width=w,
    num_layers=nl,
    num_heads=w // (32 if teacher else 16),
    num_kv_heads=w // (64 if teacher else 16),
    head_width=32 if teacher else 16,
    mlp_width=w * 8 // 3 // 16 * 16,
    scan_unroll=nl,
  )
  params = decoder.init(config, jax.random.key(FLAGS.seed))
  if FLAGS.init:
    from safetensors.flax import load_file
    import flax

    params = flax.traverse_util.unflatten_dict(
      {
        tuple(k.split('/')): v.astype(jnp.float32)
        for k, v in load_file(FLAGS.init).items()
      }
    )
  print('params', decoder.num_params(config))
  steps = FLAGS.steps
  tx, sched = optimizer.make(
    learning_rate=FLAGS.lr or (1.5e-3 if teacher else 4e-3),
    total_steps=steps,
    warmup_share=0.03,
    final_share=0.02,
    weight_decay=0.05 if teacher else 0.01,
    b1=0.9,
    b2=0.98,
    clip_norm=1.0,
  )
  opt = tx.init(params)

  @jax.jit
  def step(params, opt, ema, batch):
    def loss(params):
      h = decoder.forward(
        config, params, batch['token'], batch['segment'], batch['position']
      )
      s, n = losses.cross_entropy(
        decoder.unembed(config, params, h), batch['target'], batch['weight']
      )
      return s / n

    l, g = jax.value_and_grad(loss)(params)
    u, opt = tx.update(g, opt, params)
    params = optax.apply_updates(params, u)
    ema = jax.tree.map(lambda e, p: e + (p - e) * 0.005, ema, params)
    return params, opt, ema, l

  @jax.jit
  def exact(params, rows):
    h = decoder.forward(
      config, params, rows['token'], rows['segment'], rows['position']
    )
    ok = (decoder.unembed(config, params, h).argmax(-1) == rows['target']) | (
      rows['weight'] == 0
    )
    return ok.all(-1)

  easy = list(arithmetic.EASY_MODULES)
  allm = [m.name for m in arithmetic.MODULES]
  modules = allm if (teacher or FLAGS.modules == 'all') else easy
  wts = None
  if teacher:
    wts = np.array([1.5 if m == 'comparison/larger' else 1.0 if m in easy else 3.0 if m == 'multiplication/table' else 2.0 for m in modules])
    wts /= wts.sum()
  rng = np.random.default_rng(FLAGS.seed)
  ema = params
  t0 = time.time()
  tokens = 0
  rows = None
  at = 0
  evals = {f: probe_rows('held_out', f) for f in ('steps', 'direct')}
  for i in range(steps):
    if rows is None or at + ROWS > len(rows['token']):
      rows = corpus(
        rng,
        modules,
        FLAGS.direct if teacher else 0.0,
        0.05 if teacher else 0.3,
        30000,
        wts,
      )
      order = rng.permutation(len(rows['token']))
      at = 0
    batch = {k: v[order[at : at + ROWS]] for k, v in rows.items()}
    at += ROWS
    tokens += int((batch['segment'] > 0).sum())
    params, opt, ema, l = step(params, opt, ema, batch)
    if i % FLAGS.eval_every == FLAGS.eval_every - 1 or i == steps - 1:
      msg = []
      for f, (names, r) in evals.items():
        e = ema if i > 500 else params
        ok = np.asarray(exact(e, r))
        names_ = np.array(names)
        sc = {m: ok[names_ == m].mean() for m in allm}
        msg.append(
          f'{f} mean {np.mean(list(sc.values())):.3f} '
          + ' '.join(
            f'{m.split("/")[0][:3]}/{m.split("/")[1][:7]}={v:.2f}'
            for m, v in sc.items()
          )
        )
      print(
        f'{i + 1} loss {float(l):.4f} tok {tokens / 1e6:.2f}M {tokens / (time.time() - t0):.0f}/s\n  '
        + '\n  '.join(msg),
        flush=True,
      )
      out = pathlib.Path(FLAGS.output_dir)
      out.mkdir(parents=True, exist_ok=True)
      from safetensors.flax import save_file
      import flax

      save_file(
        {
          '/'.join(k): v
          for k, v in flax.traverse_util.flatten_dict(ema).items()
        },
        str(out / 'm.safetensors'),
      )


if __name__ == '__main__':
  app.run(main)
