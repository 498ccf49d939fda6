"""What `accelerator` found, as tables in markdown, and what is wrong in it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
import statistics

Row = Mapping[str, object]
Found = Mapping[str, Mapping[str, Sequence[Row]]]

# Of a device's memory and what was expected of it.
_MEMORY_MAY_DIFFER = 0.1


def wrong(found: Found) -> list[str]:
  """Jobs that failed or found nothing, checks that are wrong or not done."""
  lines = []
  for part, job in _ended_early(found):
    if part == 'correctness' or not _was_cut(job):
      lines.append(f'{part}, {job["job"]}: {job["reason"]}')
  for row in found['correctness']['found']:
    if not row['right']:
      lines.append(f'correctness: {row["check"]} is not right')
  return lines


def _ended_early(found: Found):
  for part, both in found.items():
    for job in both['ended_early']:
      yield part, job


def _was_cut(job: Row) -> bool:
  """Whether its time was over, and it had measured something."""
  return job['found'] > 0 and job['reason'].startswith('not done')


def markdown(found: Found) -> str:
  """The page; every number stands below the name of its device."""
  (facts,) = found['device']['found']
  memory = facts['memory_limit_gib']
  lines = [
    f'# {facts["device"]}',
    '',
    f'{facts["devices"]} device(s), '
    + (f'{memory:.0f} GiB, ' if memory else '')
    + f'{facts["cpu_cores"]} CPU cores; Python {facts["python"]}, '
    + ', '.join(
      f'{name} {facts[name]}'
      for name in ('jax', 'flax', 'torch', 'transformers')
      if facts[name]
    )
    + '.',
    f'Measured: {facts["bf16_matmul_tflops"]:.2f} TFLOP/s of bf16 products, '
    f'{facts["copy_gb_per_second"]:.0f} GB/s of copies.',
  ]
  faults = wrong(found)
  lines += ['', '## Wrong', '']
  lines += [f'- {line}' for line in faults] or ['Nothing.']
  cut = [
    f'- {part}, {job["job"]}'
    for part, job in _ended_early(found)
    if part != 'correctness' and _was_cut(job)
  ]
  if cut:
    lines += ['', 'Cut short, with what they had measured by then:', '', *cut]
  rows = {part: both['found'] for part, both in found.items()}
  peak = facts['bf16_matmul_tflops'] * 1e12
  lines += _section('Correctness', _CORRECTNESS, rows['correctness'])
  lines += _section('Training', _training(peak), _beside(rows['training']))
  lines += _section('Sampling', _SAMPLING, _best(rows['sampling']))
  lines += _section('Gate', _GATE, rows['gate'])
  lines += _section('Runs', _SCIENCE, _means(rows['science']))
  return '\n'.join(lines) + '\n'


def _section(title: str, columns: Mapping[str, Callable], rows) -> list[str]:
  if not rows:
    return ['', f'## {title}', '', 'Nothing was measured.']
  lines = ['', f'## {title}', '', '| ' + ' | '.join(columns) + ' |']
  lines.append('|' + '---|' * len(columns))
  for row in rows:
    cells = [_cell(column(row)) for column in columns.values()]
    lines.append('| ' + ' | '.join(cells) + ' |')
  return lines


def _cell(value) -> str:
  if value is None:
    return '–'
  if isinstance(value, bool):
    return 'yes' if value else 'NO'
  if isinstance(value, float):
    return f'{value:,.0f}' if abs(value) >= 100 else f'{value:.3g}'
  return str(value)


_get = lambda name: lambda row: row.get(name)
_CORRECTNESS = {
  'check': _get('check'),
  'error': lambda r: r.get('error', r.get('retention')),
  'limit': _get('limit'),
  'right': _get('right'),
  'seconds': _get('seconds'),
}
_GATE = {
  'student': _get('student'),
  'probes': _get('probes'),
  'step, s': _get('step_seconds'),
  'round in the step, s': _get('round_seconds'),
  'share of training': _get('share_of_training'),
  'decoded, s': _get('decode_seconds'),
  'decoded / in the step': _get('decode_over_round'),
}
_SCIENCE = {
  'method': _get('method'),
  'steps': _get('steps'),
  'seeds': _get('seeds'),
  'retention': _get('retention'),
  'from': _get('least'),
  'to': _get('most'),
  'seconds a run': _get('seconds'),
}
_SAMPLING = {
  'student': _get('student'),
  'texts': _get('texts'),
  'tokens/s': _get('tokens_per_second'),
  'way': _get('way'),
  'share of bandwidth': _get('share_of_bandwidth'),
  'generate, tokens/s': _get('peer'),
  'its best': _get('peer_way'),
  'ratio': _get('ratio'),
  'GiB': _get('peak_gib'),
}


def _training(peak: float) -> Mapping[str, Callable]:
  def share(row):
    speed = row.get('tokens_per_second')
    return speed and speed * row['flops_per_token'] / peak

  def near(row):
    expected, most = row.get('expected_gib'), row.get('peak_gib')
    if expected is None or most is None:
      return None
    return abs(most / expected - 1) <= _MEMORY_MAY_DIFFER

  return {
    'student': _get('student'),
    'trained': _get('trained'),
    'remat': _get('remat'),
    'tokens/s': _get('tokens_per_second'),
    'share of bf16 peak': share,
    'torch, tokens/s': _get('peer'),
    'ratio': _get('ratio'),
    'compiles in, s': _get('compile_seconds'),
    'GiB expected': _get('expected_gib'),
    'GiB': _get('peak_gib'),
    'within 10 %': near,
  }


def _beside(rows: Sequence[Row]) -> list[dict]:
  """Ours with the peer's speed; the peer alone where ours failed."""
  merged = {}
  for row in rows:
    mine = merged.setdefault(row['student'], {'student': row['student']})
    if row['side'] == 'ioa_jax':
      mine |= row
    else:
      mine['peer'] = row['tokens_per_second']
  return [_with_ratio(row) for row in merged.values()]


def _with_ratio(row: dict) -> dict:
  ours, theirs = row.get('tokens_per_second'), row.get('peer')
  return row | {'ratio': ours / theirs if ours and theirs else None}


def _best(rows: Sequence[Row]) -> list[dict]:
  """The best way of each side."""
  merged = {}
  for row in sorted(rows, key=lambda r: r['tokens_per_second']):
    key = row['student'], row['texts']
    mine = merged.setdefault(key, dict(zip(('student', 'texts'), key)))
    if row['side'] == 'ioa_jax':
      mine |= row
    else:
      mine |= {'peer': row['tokens_per_second'], 'peer_way': row['way']}
  return [_with_ratio(row) for _, row in sorted(merged.items())]


def _means(rows: Sequence[Row]) -> list[dict]:
  groups: dict[tuple, list[Row]] = {}
  for row in rows:
    groups.setdefault((row['steps'], row['method']), []).append(row)
  return [
    {
      'method': method,
      'steps': steps,
      'seeds': len(members),
      'retention': statistics.mean(r['retention'] for r in members),
      'least': min(r['retention'] for r in members),
      'most': max(r['retention'] for r in members),
      'seconds': statistics.mean(r['seconds'] for r in members),
    }
    for (steps, method), members in sorted(groups.items())
  ]
