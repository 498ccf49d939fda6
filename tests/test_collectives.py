"""Bytes between devices: a hand-made program, and compiled ones."""

import jax
import jax.numpy as jnp
from jax.sharding import NamedSharding, PartitionSpec
import pytest

from ioa_jax.runtime import collectives, sharding

HAND = """
%add (a: f32[], b: f32[]) -> f32[] {
  ROOT %sum = f32[] add(%a, %b)
}

%body (p: (f32[8])) -> (f32[8]) {
  %x = bf16[8,16]{1,0} parameter(0)
  %g = bf16[32,16]{1,0} all-gather(bf16[8,16]{1,0} %x), dimensions={0}
  %y = f32[4] slice(%q)
  %s = (f32[4], f32[16]) all-gather-start(%y), dimensions={0}
  %d = f32[16] all-gather-done((f32[4], f32[16]) %s)
}

%costly (p: f32[8]) -> f32[8] {
  ROOT %r = f32[8] all-reduce(f32[8] %p), to_apply=%add
}

%cheap (p: f32[8]) -> f32[8] {
  ROOT %p = f32[8] parameter(0)
}

%below_three (p: (s32[], f32[8])) -> pred[] {
  %limit = s32[]{:T(128)} constant(3), metadata={op_name="while"}
  ROOT %less = pred[] compare(%i, %limit), direction=LT
}

%fused_start (p: f32[8]) -> f32[64] {
  ROOT %g = f32[64] all-gather(%p), channel_id=7, dimensions={0}
}

%fused_end (p: f32[8]) -> f32[64] {
  ROOT %g = f32[64] all-gather(%p), channel_id=7, dimensions={0}
}

%fuses (p: (s32[], f32[8])) -> (s32[], f32[8]) {
  %a = f32[64] fusion(%p), kind=kCustom, calls=%fused_start
  %b = f32[64] fusion(%a), kind=kCustom, calls=%fused_end
}

%beside (p: f32[8]) -> f32[64] {
  ROOT %g = f32[64] all-gather(%p), channel_id=9, dimensions={0}
}

%works (p: (s32[], f32[8])) -> (s32[], f32[8]) {
  %a = f32[64] fusion(%p), kind=kCustom, calls=%beside
}

ENTRY %main (p: f32[8]) -> f32[8] {
  %w = (f32[8]) while(%t), condition=%cond, body=%body, backend_config={"known_trip_count":{"n":"5"}}
  %v = (s32[], f32[8]) while(%t), condition=%below_three, body=%fuses
  %c = f32[8] conditional(%i, %p, %p), branch_computations={%costly, %cheap}
  %begin = f32[64] fusion(%c), kind=kCustom, calls=%beside
  %u = (s32[], f32[8]) while(%t), condition=%below_three, body=%works
  %two = (f32[3], bf16[4]) all-reduce(%k, %l), channel_id=5, to_apply=%add
  ROOT %rs = f32[2] reduce-scatter(%c), dimensions={0}, to_apply=%add
}
"""  # noqa: E501


def test_a_hand_made_program():
  gathers = 32 * 16 * 2 + 16 * 4
  fused = beside = 64 * 4
  together = 3 * 4 + 4 * 2
  want = 5 * gathers + 3 * fused + 8 * 4 + beside + together + 8 * 4
  assert collectives.total_bytes(HAND) == want


def test_text_that_is_no_program_is_refused():
  with pytest.raises(ValueError, match='no ENTRY computation'):
    collectives.total_bytes('module @jit_f {}')


def test_a_scanned_gather_counts_as_often_as_it_runs():
  mesh = sharding.make_mesh(data=1, fsdp=4, devices=jax.devices()[:4])
  split = NamedSharding(mesh, PartitionSpec(None, 'fsdp', None))
  rows = NamedSharding(mesh, PartitionSpec('fsdp', None))
  layers, width = 6, 32

  def forward(x, kernels):
    return jax.lax.scan(lambda x, w: (jnp.tanh(x @ w), None), x, kernels)[0]

  kernels = jax.ShapeDtypeStruct((layers, width, width), jnp.float32)
  x = jax.ShapeDtypeStruct((8, width), jnp.float32)
  compiled = (
    jax.jit(forward, in_shardings=(rows, split), out_shardings=rows)
    .lower(x, kernels)
    .compile()
  )
  found = collectives.total_bytes(compiled.as_text())
  # Either each layer's kernel is gathered, or its rows are summed.
  assert found in (layers * width * width * 4, layers * 8 * width * 4)
