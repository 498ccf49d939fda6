"""The report of hostile, partial and damaged runs."""

from __future__ import annotations

import json
import re

import pytest

from ioa_jax.report import page, read
from tests import synthetic_run
from tests.parsed_page import Page, plain

PAYLOADS = (
  '<script>alert(1)</script>',
  '"><img src=x onerror=alert(1)>',
  "'><svg onload=alert(1)>",
  '</svg></style></title><iframe srcdoc=x>',
  '</code></pre><!-- {{ 7*7 }} {% raw %} -->',
  '&lt;b&gt; &#60; http://evil.example/?a=1&b=2',
  ' onmouseover="alert(1)" x=\'',
)


@pytest.fixture(scope='module')
def finished(tmp_path_factory):
  path = tmp_path_factory.mktemp('runs') / 'finished'
  return synthetic_run.write(path)


def _copy(finished, tmp_path, names=tuple(read.FILES), **changes):
  files = {k: v for k, v in finished.items() if k in names} | changes
  synthetic_run.save(tmp_path, files)
  return tmp_path


def _hostile(value, add, key=None):
  """Every free text of a file, changed by `add`; numbers and enums stay."""
  enums = {'status', 'decision', 'event', 'outcome', 'config_sha256'}
  if isinstance(value, dict):
    free = set(synthetic_run.NAMES) | {'wrong answer', 'tau_mastery'}
    return {
      add(k) if k in free else k: _hostile(v, add, k) for k, v in value.items()
    }
  if isinstance(value, list):
    return [_hostile(v, add, key) for v in value]
  if value in ('teach', 'consolidate', 'better'):
    return value
  if isinstance(value, str) and key not in enums:
    return add(value)
  return value


def _hostile_page(finished, path, payload):
  files = {
    name: _hostile(value, lambda text: text + payload)
    for name, value in finished.items()
  }
  synthetic_run.save(path, files)
  return page.write(path).read_text(encoding='utf-8')


@pytest.mark.parametrize('payload', PAYLOADS)
def test_text_cannot_become_markup(finished, tmp_path, payload):
  """Hostile text gives the same elements and attributes as harmless text."""
  html = _hostile_page(finished, tmp_path / 'a', payload)
  parsed = Page(html)
  # A name is set in two parts at its last slash, and words make prose: both
  # stay.
  harmless = re.sub(r'[^/\s]', 'x', payload)
  harmless_page = Page(_hostile_page(finished, tmp_path / 'b', harmless))
  names = lambda p: [(t, [k for k, _ in a]) for t, a in p.elements]
  assert names(parsed) == names(harmless_page)
  seen = plain(payload)
  least = {
    'gaps': 60,
    'graph': 40,
    'curriculum': 100,
    'mastery': 12,
    'result': 24,
    'forgetting': 12,
    'lessons': 60,
    'costs': 1,
    'config': 6,
  }
  for section, count in least.items():
    assert parsed.text(section).count(seen) >= count, section
  assert any(seen in plain(label) for label in parsed.labels())


def test_invisible_characters_are_made_visible(finished, tmp_path):
  html = _hostile_page(finished, tmp_path, '\u202e\x00\x1b\u200b')
  assert '\\u202e\\u0000\\u001b\\u200b' in html
  assert not re.search('[\u202e\x00\x1b\u200b]', html)


@pytest.mark.parametrize('only', read.FILES)
def test_one_file_is_enough(finished, tmp_path, only):
  path = _copy(finished, tmp_path, (only,))
  parsed = Page(page.write(path).read_text(encoding='utf-8'))
  head = parsed.text('head')
  for name, when in read.FILES.items():
    assert (f'{name} {when}' in head) == (name != only)


@pytest.mark.parametrize('without', read.FILES)
def test_one_file_may_be_absent(finished, tmp_path, without):
  names = tuple(n for n in read.FILES if n != without)
  path = _copy(finished, tmp_path, names)
  parsed = Page(page.write(path).read_text(encoding='utf-8'))
  everything = ' '.join(parsed.text(s) for s in parsed.sections)
  assert f'Not there yet: {without}' in everything
  section = {
    'diagnosis.json': 'gaps',
    'results.json': 'result',
    'lessons.jsonl': 'lessons',
    'config.json': 'config',
    'metrics.jsonl': 'mastery',
    'curriculum.json': None,
  }[without]
  if section:
    assert f'Not there yet. {without}' in parsed.text(section)


def test_a_run_under_way(finished, tmp_path):
  """Cut in the second stage: the events alone tell where it stands."""
  events = [e for e in finished['metrics.jsonl'] if e['step'] <= 275]
  names = [n for n in read.FILES if n != 'results.json']
  path = _copy(finished, tmp_path, names, **{'metrics.jsonl': events})
  parsed = Page(page.write(path).read_text(encoding='utf-8'))
  assert 'step 275 of 2,200' in parsed.text('head')
  assert 'stages passed 1 of 4' in parsed.text('head')
  text = parsed.text('curriculum')
  assert 'running' in text and text.count('not reached') == 3
  after = parsed.row('after stage 1')
  left = next(e for e in events if e.get('decision') == 'advance')
  assert after[0].endswith(f'step {left["step"]}')
  assert f'{1500 * 275:,} tokens' in parsed.text('costs')


def test_an_empty_directory_is_no_run(tmp_path):
  with pytest.raises(
    ValueError, match=r'holds none of config\.json, .* Give the'
  ):
    page.write(tmp_path)


def _set(*path_and_value):
  *path, last, value = path_and_value

  def change(content):
    for key in path:
      content = content[key]
    if value is None:
      del content[last]
    else:
      content[last] = value

  return change


@pytest.mark.parametrize(
  'name, change, message',
  [
    ('config.json', '{"seed": 0', r'config\.json: not JSON .*damaged'),
    ('results.json', b'\xff\xfe', r'results\.json: not UTF-8 text at byte 0'),
    ('metrics.jsonl', '{"event": "tra', r'metrics\.jsonl line 1: not JSON'),
    ('lessons.jsonl', '\n[]\n', r'lessons\.jsonl line 2: the value is \[\]'),
    ('diagnosis.json', '[' * 100_000, r'diagnosis\.json: not JSON'),
    (
      'metrics.jsonl',
      _set(3, 'event', 'oops'),
      r"metrics\.jsonl line 4: event is 'oops', wanted one of 'train', 'probe'",
    ),
    (
      'metrics.jsonl',
      _set(3, 'scores', 'addition/three_digit', 'correct', 99),
      r'line 4: .*scores\.addition/three_digit is .*wanted 0 <= correct <= n',
    ),
    (
      'lessons.jsonl',
      _set(5, 'solution', 'steps', None),
      r'lessons\.jsonl line 6: field solution\.steps is missing',
    ),
    (
      'lessons.jsonl',
      _set(5, 'extra', 1),
      r'lessons\.jsonl line 6: field extra is unknown',
    ),
    (
      'diagnosis.json',
      _set('modules', 'division/long', 'level', 'deep'),
      r"modules\.division/long\.level is 'deep', wanted a valid integer",
    ),
    (
      'diagnosis.json',
      _set('modules', 'division/long', 'gap', float('nan')),
      r'modules\.division/long\.gap is nan, wanted a finite number',
    ),
    (
      'diagnosis.json',
      _set('dependency', 'edges', 2, 'to', 'nowhere'),
      r"dependency\.edges\[2\]\.to is 'nowhere', which is not one of modules",
    ),
    (
      'curriculum.json',
      _set('zpd', 'checks', 0, 'holds', 1),
      r'zpd\.checks\[0\]\.holds is 1, wanted a valid boolean',
    ),
    (
      'results.json',
      _set('modules', 'division/long', 'ci95', [0.9, 0.1]),
      r'ci95 is \[0\.9, 0\.1\], wanted \[low, high\]',
    ),
    (
      'results.json',
      _set('stages', 1, 'outcome', 'fine'),
      r"stages\[1\]\.outcome is .*wanted 'mastered', 'unmastered'",
    ),
  ],
)
def test_damage_is_named(finished, tmp_path, name, change, message):
  content = json.loads(json.dumps(finished[name]))
  path = _copy(finished, tmp_path)
  if callable(change):
    change(content)
    synthetic_run.save(path, {name: content})
  elif isinstance(change, bytes):
    (path / name).write_bytes(change)
  else:
    (path / name).write_text(change)
  with pytest.raises(ValueError, match=message):
    page.write(path)
  assert not (path / 'report.html').exists()


def test_a_step_that_failed_is_left_out_of_the_loss(finished, tmp_path):
  events = json.loads(json.dumps(finished['metrics.jsonl']))
  last = max(i for i, e in enumerate(events) if e['event'] == 'train')
  events[last]['train/loss'] = float('nan')
  path = _copy(finished, tmp_path, **{'metrics.jsonl': events})
  assert 'nan' not in page.write(path).read_text(encoding='utf-8').lower()
