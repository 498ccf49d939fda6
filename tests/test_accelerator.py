"""`benchmark.py accelerator`: jobs that go wrong, what is said, the whole."""

import json
import os
import pathlib
import re
import subprocess
import sys
import time

import pytest

ROOT = pathlib.Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / 'scripts'))

from benchmarks import accelerator, jobs, shapes, summary  # noqa: E402

from tests import broken_jobs  # noqa: E402


@pytest.mark.parametrize(
  'work,found,reason',
  [
    (broken_jobs.two_things, [1, 2], None),
    (broken_jobs.fails, [1], 'MemoryError: no room at all'),
    (broken_jobs.is_killed, [1], 'its process ended with exit code -9'),
    (broken_jobs.hangs, [1], 'not done after 8 s'),
  ],
)
def test_what_a_job_found_is_kept_however_it_ends(work, found, reason, capfd):
  rows = []
  # Only one of them has to run into its limit, on a busy machine as well.
  limit = 8 if work is broken_jobs.hangs else 120
  start = time.monotonic()
  said = jobs.run(jobs.Job('part', 'name', work, (), 1.0), limit, rows.append)
  assert said == reason
  assert [r['n'] for r in rows] == found
  assert time.monotonic() - start < limit + 60


FACTS = {
  'device': 'Made Up 9',
  'platform': 'gpu',
  'devices': 1,
  'cpu_cores': 4,
  'python': '3.12.1',
  'memory_limit_gib': 80.0,
  'jax': '0.11.2',
  'jaxlib': '0.11.2',
  'flax': '0.12.12',
  'torch': None,
  'transformers': None,
  'bf16_matmul_tflops': 100.0,
  'copy_gb_per_second': 1000.0,
}


def made():
  """A part each of what a device could say."""
  train = {'student': 's', 'flops_per_token': 1e9, 'trained': 'all weights'}
  write = {'student': 's', 'texts': 64}
  rows = {
    'device': [FACTS],
    'correctness': [
      {'check': 'one', 'error': 0.1, 'limit': 0.2, 'right': True},
      {'check': 'two', 'error': float('inf'), 'limit': 0.2, 'right': False},
    ],
    'training': [
      train
      | {
        'side': 'ioa_jax',
        'tokens_per_second': 40_000.0,
        'expected_gib': 50.0,
        'peak_gib': 60.0,
      },
      train | {'side': 'torch', 'tokens_per_second': 20_000.0},
    ],
    'sampling': [
      write | {'side': side, 'way': way, 'tokens_per_second': speed}
      for side, way, speed in (
        ('ioa_jax', 'all', 50.0),
        ('ioa_jax', 'half', 60.0),
        ('torch', 'a', 10.0),
        ('torch', 'b', 12.0),
      )
    ],
    'gate': [],
    'science': [
      {'method': 'm', 'steps': 5, 'seed': n, 'retention': n / 4, 'seconds': 1.0}
      for n in (1, 3)
    ],
  }
  return {k: {'found': v, 'ended_early': []} for k, v in rows.items()}


def _line(text, start):
  (line,) = [x for x in text.splitlines() if x.startswith(f'| {start} |')]
  return [cell.strip() for cell in line.strip('|').split('|')]


def test_the_summary_says_each_number_once():
  text = summary.markdown(made())
  assert text.startswith('# Made Up 9\n')
  assert _line(text, 'one')[-2:] == ['yes', '–']
  assert _line(text, 'two')[-2:] == ['NO', '–']
  # 4e4 tokens of 1e9 operations are 0.4 of 1e14.
  row = _line(text, 's | all weights')
  assert row[3:7] == ['40,000', '0.4', '20,000', '2']
  assert row[-1] == 'NO'  # 60 GiB where 50 were expected.
  # The best of each side counts.
  assert _line(text, 's | 64')[2:8] == ['60', 'half', '–', '12', 'b', '5']
  assert _line(text, 'm | 5')[2:6] == ['2', '0.5', '0.25', '0.75']
  assert text.count('Nothing was measured.') == 1


def test_what_is_wrong_is_said():
  found = made()
  assert summary.wrong(found) == ['correctness: two is not right']
  late = {'job': 'j', 'reason': 'not done after 3 s', 'found': 1}
  for part in found.values():
    part['ended_early'].append(late)
  # What was measured in time counts; checks have all to be done.
  assert summary.wrong(found) == [
    'correctness, j: not done after 3 s',
    'correctness: two is not right',
  ]
  assert 'Cut short' in (text := summary.markdown(found))
  assert '- science, j\n' in text and '- correctness, j\n' not in text
  for changes in ({'found': 0}, {'reason': 'ValueError: x'}):
    found['science']['ended_early'] = [late | changes]
    assert summary.wrong(found)[1].startswith('science, j: ')


def test_every_device_gets_every_part():
  for platform in ('cpu', 'gpu', 'tpu'):
    for peer in (None, '2'):
      facts = FACTS | {
        'platform': platform,
        'torch': peer,
        'transformers': peer,
      }
      todo = list(accelerator._jobs(facts, pathlib.Path('OUT')))
      assert {'device', *(j.part for j in todo)} == set(accelerator.PARTS)
      names = [(j.part, j.name) for j in todo]
      assert len(names) == len(set(names))
      assert any('torch' in name for _, name in names) == (peer is not None)


def test_sizes_are_those_of_the_models():
  """6 N + 12 layers x width x length, by hand for SmolLM2-135M."""
  small, *_, large = shapes.students(on_cpu=False)
  assert small.flops_per_token == 6 * 134_515_008 + 12 * 30 * 576 * 4096
  # Qwen2.5-3B: 36 layers, two heads of 128, keys and values, two bytes.
  assert large.cache_bytes == 36 * 2 * 128 * 2 * 2
  for student in shapes.students(on_cpu=False):
    assert student.rows % student.microbatches == 0


@pytest.mark.slow
def test_the_whole_command_on_cpu(tmp_path):
  """Tiny shapes: it ends in time, and nothing fails but for lack of time."""
  start = time.monotonic()
  done = subprocess.run(
    [
      sys.executable,
      'scripts/benchmark.py',
      'accelerator',
      '--minutes=4',
      f'--output_dir={tmp_path}',
    ],
    cwd=ROOT,
    # Compiling is most of the time.
    env=os.environ
    | {
      'PYTHONPATH': str(ROOT),
      'XLA_FLAGS': '',
      'JAX_DISABLE_MOST_OPTIMIZATIONS': 'true',
    },
    capture_output=True,
    text=True,
  )
  assert time.monotonic() - start < 270
  text = (tmp_path / 'summary.md').read_text()
  assert text in done.stdout, done.stderr
  assert re.match(r'# \w+ CPU, \d+ cores\n', text)
  found = {
    part: json.loads((tmp_path / f'{part}.json').read_text())
    for part in accelerator.PARTS
  }
  for part, both in found.items():
    for job in both['ended_early']:
      assert job['reason'].startswith('not done after'), (part, job)
  assert done.returncode == ('Nothing.' not in text)
  assert all(row['right'] for row in found['correctness']['found'])
  # On a busy machine a part may have had no time; it then says so.
  for part, both in found.items():
    assert both['found'] or both['ended_early'], (part, done.stdout)
  for part in ('device', 'correctness'):
    assert found[part]['found'], (part, done.stdout)
