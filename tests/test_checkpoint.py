"""Checkpoints: exact, on any mesh, and never restored with another value."""

import pathlib
import random
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ioa_jax.records import Progress
from ioa_jax.runtime import sharding
from ioa_jax.training import checkpoint
from tests import test_step


@pytest.fixture(scope='module')
def saved(tmp_path_factory):
  """Two checkpoints of the same arrays but for the step, and those arrays."""
  path = tmp_path_factory.mktemp('kept') / 'checkpoints'
  _, state, inputs, *_ = test_step.make()
  kept = checkpoint.Checkpoints(path, keep=3)
  for step in (5, 10):
    state = state.replace(step=jnp.int32(step))
    kept.save(state, inputs, Progress(lessons=step))
  kept.close()
  return path, state, inputs


def restore(path, state, inputs):
  said = []
  kept = checkpoint.Checkpoints(path, keep=3)
  try:
    return kept.restore(state, inputs, said.append), said
  finally:
    kept.close()


def test_what_was_saved_comes_back_bit_for_bit(saved, tmp_path):
  path, state, inputs = saved
  (got, got_inputs, progress), said = restore(path, state, inputs)
  test_step.assert_equal(jax.device_get(got), jax.device_get(state))
  test_step.assert_equal(
    jax.device_get(got_inputs.curriculum), jax.device_get(inputs.curriculum)
  )
  assert progress == Progress(lessons=10) and not said
  empty = tmp_path / 'empty'
  assert restore(empty, state, inputs) == (None, [])


@pytest.mark.parametrize(
  ('given', 'wanted'),
  [
    ('gs://bucket/runs/mine', 'gs://bucket/runs/mine'),
    ('s3://bucket/mine', 's3://bucket/mine'),
    ('/mnt/disk/mine', '/mnt/disk/mine'),
    ('mine', f'{pathlib.Path.cwd()}/mine'),
  ],
)
def test_orbax_is_given_the_place_as_it_is(monkeypatch, given, wanted):
  """A bucket's path has no absolute one, and its two slashes stay."""
  places = []
  monkeypatch.setattr(checkpoint, '_require_writable', places.append)
  monkeypatch.setattr(
    checkpoint.ocp,
    'CheckpointManager',
    lambda place, **options: places.append(place),
  )
  checkpoint.Checkpoints(given, keep=3)
  assert [str(p) for p in places] == [wanted] * 2


def test_it_comes_back_on_another_mesh(saved):
  path, state, _ = saved
  _, split, inputs, mesh, _ = test_step.make(
    devices=4, axes={'data': 1, 'fsdp': 2, 'tensor': 2}
  )
  with jax.set_mesh(mesh):
    (got, _, _), said = restore(path, split, inputs)
  assert not said
  test_step.assert_equal(jax.device_get(got), jax.device_get(state))
  kernel = got.params['layers']['q_proj']['kernel']
  assert not kernel.sharding.is_fully_replicated


@pytest.mark.parametrize('trial', range(6))
def test_a_flipped_bit_is_never_restored_as_a_value(saved, tmp_path, trial):
  path, state, inputs = saved
  copy = tmp_path / 'copy'
  shutil.copytree(path, copy)
  rng = random.Random(trial)
  # Files with values; a flip in what only describes them may do no harm.
  files = sorted(
    (p for p in (copy / '10' / 'state').rglob('d/*') if p.is_file()),
    key=lambda p: p.stat().st_size,
  )
  victim = files[-1 - trial % 2]
  data = bytearray(victim.read_bytes())
  data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
  victim.write_bytes(data)
  (got, _, progress), said = restore(copy, state, inputs)
  if said:
    assert 'Checkpoint 10 is damaged' in said[0] and progress.lessons == 5
    state = state.replace(step=jnp.int32(5))
  test_step.assert_equal(jax.device_get(got), jax.device_get(state))


def test_the_fingerprint_sees_every_bit_and_no_layout():
  tree = {
    'a': jnp.arange(24, dtype=jnp.float32).reshape(4, 6),
    'b': jnp.asarray([True, False]),
    'c': jnp.int32(7),
    'd': jnp.ones((2, 2), jnp.bfloat16),
  }
  want = int(checkpoint._fingerprint(tree))
  seen = {want}
  for place in np.ndindex(4, 6):
    for bit in (0, 13, 31):
      a = np.asarray(tree['a']).copy()
      a.view(np.uint32)[place] ^= np.uint32(1) << np.uint32(bit)
      seen.add(int(checkpoint._fingerprint(tree | {'a': jnp.asarray(a)})))
  assert len(seen) == 1 + 24 * 3
  assert int(checkpoint._fingerprint(tree | {'b': ~tree['b']})) != want
  mesh = sharding.make_mesh(data=2, fsdp=2)
  spec = jax.sharding.PartitionSpec('data', 'fsdp')
  split = jax.device_put(tree['a'], jax.sharding.NamedSharding(mesh, spec))
  assert int(checkpoint._fingerprint(tree | {'a': split})) == want


def test_progress_is_vouched_for_as_well(saved, tmp_path):
  path, state, inputs = saved
  copy = tmp_path / 'copy'
  shutil.copytree(path, copy)
  (file,) = (copy / '10' / 'progress').rglob('metadata')
  text = file.read_text()
  assert 'lessons' in text
  file.write_text(text.replace('lessons\\": 10', 'lessons\\": 0'))
  (_, _, progress), said = restore(copy, state, inputs)
  assert progress == Progress(lessons=5)
  assert 'Checkpoint 10 is damaged (its progress is not' in said[0]


def test_a_full_disk_is_one_line(saved, tmp_path, monkeypatch):
  _, state, inputs = saved
  kept = checkpoint.Checkpoints(tmp_path / 'checkpoints', keep=1)

  def full(*args, **kwargs):
    raise OSError(28, 'No space left on device')

  monkeypatch.setattr(kept._manager, 'save', full)
  with pytest.raises(checkpoint.CheckpointError) as raised:
    kept.save(state, inputs, Progress())
  assert 'No space left on device' in str(raised.value)
  assert raised.value.__suppress_context__


def test_a_place_that_cannot_be_written_is_one_line(tmp_path):
  (tmp_path / 'checkpoints').write_text('')
  with pytest.raises(checkpoint.CheckpointError, match='cannot be written'):
    checkpoint.Checkpoints(tmp_path / 'checkpoints', keep=1)
