"""Teaches SmolLM2-135M a few GSM8K lessons; prints losses and peak memory.

Run by test_smollm2.py in a process of its own: python -m tests.smollm2_step
MODEL_DIR GSM8K_JSONL NUM_STEPS.
"""

import dataclasses
import json
import pathlib
import resource
import sys

import jax
import numpy as np

from ioa_jax.models import huggingface, vocabulary
from ioa_jax.records import Score, Stage
from ioa_jax.runtime import sharding
from ioa_jax.training import curriculum as curriculum_lib
from ioa_jax.training import gate as gate_lib
from ioa_jax.training import optimizer, packing, probing
from ioa_jax.training import step as step_lib
from ioa_jax.training import trainer as trainer_lib

LENGTH, ROWS, NUM_LESSONS = 256, 4, 6
NAMES = ['gsm8k']


def read_lessons(directory, data):
  tokenizer = vocabulary.load_tokenizer(directory)
  lessons = []
  for line in data.read_text().splitlines():
    raw = json.loads(line)
    prompt = vocabulary.chat_tokens(
      tokenizer, directory, [{'role': 'user', 'content': raw['question']}]
    )
    answer = tokenizer.encode(raw['answer'], add_special_tokens=False)
    answer += vocabulary.stop_tokens(directory)[:1]
    if len(prompt) + len(answer) - 1 <= LENGTH:
      lessons.append(packing.Example(prompt, answer))
    if len(lessons) == NUM_LESSONS:
      return lessons
  raise ValueError(f'{data}: fewer than {NUM_LESSONS} short lessons.')


def main(directory, data, num_steps):
  lessons = read_lessons(directory, data)
  mesh = sharding.make_mesh(data=1, devices=jax.devices()[:1])
  rules = gate_lib.Rules(
    tau_mastery=0.9,
    confidence=0.5,
    sequential=False,
    reopen=False,
    min_probes=1,
    max_rounds=0,
    on_stall='advance',
  )
  plan = gate_lib.make_plan(
    [Stage(NAMES, 'teach', 0.0, 100, 1)], NAMES, np.ones(1), rules
  )
  filled = curriculum_lib.add_rows(
    curriculum_lib.allocate([NUM_LESSONS], LENGTH),
    {0: packing.pack(lessons, LENGTH)},
  )
  inputs = trainer_lib.make_inputs(
    filled,
    curriculum_lib.make_mix(
      np.ones(1), [False], weighting='gap', replay_share=0.0, need_floor=0.2
    ),
    plan,
    probing.build([lessons[:2]], LENGTH, 2),
    trainer_lib.Pace(
      seed=0, total_steps=100, probe_every_steps=50, average_decay=0.9
    ),
    mesh,
  )
  # The recipe of full fine-tuning at a rate that shows within a few steps.
  recipe = optimizer.Recipe(
    name='adamw',
    learning_rate=1e-4,
    warmup_share=0.03,
    final_share=0.1,
    weight_decay=0.01,
    b1=0.9,
    b2=0.95,
    clip_norm=1.0,
    momentum_dtype='float32',
  )
  tx, _ = optimizer.make(recipe, total_steps=30)
  config = dataclasses.replace(huggingface.read_config(directory), remat='full')
  params = huggingface.load_params(directory, config)
  state = trainer_lib.make_state(params, tx, [Score(0, 2)], plan, mesh)
  del params  # The state has copied them.
  program = step_lib.Program(config, tx, batch_rows=ROWS)
  window = trainer_lib.make_window(program, state, mesh, num_steps=1)
  losses = []
  with jax.set_mesh(mesh):
    for _ in range(num_steps):
      state, metrics = window(state, inputs)
      losses.append(float(metrics['loss_sum'][0] / metrics['loss_count'][0]))
  peak = 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
  print(json.dumps({'losses': losses, 'peak_bytes': peak}))


if __name__ == '__main__':
  main(pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2]), int(sys.argv[3]))
