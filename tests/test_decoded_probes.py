"""Probes that the step decodes, against the host's sampler and grader."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ioa_jax.domains import arithmetic
from ioa_jax.domains import tokenizer as tokenizer_lib
from ioa_jax.models import decoder
from ioa_jax.sampling import logits as logits_lib
from ioa_jax.sampling import sampler as sampler_lib
from ioa_jax.training import decoded_probes, probing
from ioa_jax.training import gate as gate_lib
from tests import test_step
from tests.test_gate import make_plan

CODEC = tokenizer_lib.DigitCodec(tokenizer_lib.build())


@pytest.mark.parametrize(
  'completion,answer',
  [
    ('3+4=7', '7'),
    ('12*3=36;=36', '36'),
    ('12*3=36;=63', '36'),
    ('7', '7'),
    ('3+4=', '7'),
    ('=7=', '7'),
    ('17R3', '17R3'),
    ('2=17R', '17R3'),
    ('=17', '7'),
    ('=7', '17'),
    ('', '7'),
    ('===12', '12'),
  ],
)
def test_agrees_with_the_grader_of_text(completion, answer):
  written = CODEC.span(completion)
  tokens = jnp.asarray([written + [CODEC.answer_marker] * 3])  # Junk behind.
  span = CODEC.span(answer)
  padded = jnp.asarray([span + [-1] * (6 - len(span))])
  got = decoded_probes.ends_in(
    tokens, jnp.asarray([len(written)]), padded, CODEC.answer_marker
  )
  assert bool(got[0]) == arithmetic.is_correct(completion, answer)


def bank_of(count, marker=0):
  return decoded_probes.build(
    [
      [(e.prompt, e.completion[:-1]) for e in test_step.examples(name)[:count]]
      for name in test_step.NAMES
    ],
    marker=marker,
    stop_tokens=[test_step.EOS],
    max_new_tokens=4,
  )


def test_counts_what_the_sampler_and_a_comparison_count():
  state, inputs, _ = test_step.run(test_step.make(total_steps=10))
  params, bank = state.average, bank_of(6)
  probe = jax.jit(functools.partial(probing.probe_modules, test_step.CONFIG))
  correct_K, probed_K, tokens = probe(
    params, bank, jnp.asarray([True, False, True]), inputs.plan
  )
  sampler = sampler_lib.Sampler(
    test_step.CONFIG,
    stop_tokens=[test_step.EOS],
    batch_size=18,
    max_new_tokens=4,
  )
  probes = [e for n in test_step.NAMES for e in test_step.examples(n)[:6]]
  greedy = logits_lib.Sampling(max_tokens=4)
  written = sampler(params, [e.prompt for e in probes], [greedy] * 18, [0] * 18)
  right = np.reshape(
    [list(g.tokens) == e.completion[:-1] for g, e in zip(written, probes)],
    (3, 6),
  ).sum(axis=1)
  np.testing.assert_array_equal(correct_K, right * [1, 0, 1])
  np.testing.assert_array_equal(probed_K, [6, 0, 6])
  asked = [*range(6), *range(12, 18)]
  assert int(tokens) == sum(
    len(probes[i].prompt) + len(written[i].tokens) + written[i].stopped
    for i in asked
  )
  assert 0 < right.sum() < 18  # Neither all wrong nor all right.


def test_a_run_is_gated_by_what_it_decodes_in_one_trace():
  parts = test_step.make(
    total_steps=200, max_steps=100, rounds=0, fresh_window=True
  )
  window, state, inputs, mesh, schedule = parts
  inputs = inputs.replace(bank=jax.device_put(bank_of(6)))
  state, _, metrics = test_step.run((window, state, inputs, mesh, schedule))
  test_step._windows.clear()  # The cached one was made for another bank.
  assert window.compilations == 1
  advanced = np.flatnonzero(metrics['decision'] == gate_lib.ADVANCE)
  assert len(advanced)
  # It left a stage by what it can write: all right, or nearly.
  first = advanced[0]
  assert metrics['correct_K'][first, 0] >= 0.9 * metrics['probed_K'][first, 0]


def test_modules_may_have_unequal_numbers_of_probes():
  params = decoder.init(test_step.CONFIG, jax.random.key(0))
  few = [(p.prompt, p.completion[:-1]) for p in test_step.examples('copy')]
  bank = decoded_probes.build(
    [few[:1], few[:9], []],
    marker=0,
    stop_tokens=[test_step.EOS],
    max_new_tokens=4,
    multiple_of=4,
  )
  # A quarter of the nine, but as many as devices that share them.
  assert bank.chunk == 4 and len(bank.length_Q) == 12
  plan = make_plan([{0}], [1]).replace(teacher_score_K=jnp.ones(3))
  _, probed_K, _ = probing.probe_modules(
    test_step.CONFIG, params, jax.device_put(bank), jnp.ones(3, bool), plan
  )
  np.testing.assert_array_equal(probed_K, [1, 9, 0])
