"""The report in a real browser: nothing fails, fetches, overflows or overlaps.

Skipped without Chromium: every check here is about what a browser does.
"""

from __future__ import annotations

import html
import json
import re
import shutil
import subprocess

import pytest

from ioa_jax.report import page
from tests import report_runs, synthetic_run

CHROMIUM = shutil.which('chromium') or shutil.which('chromium-browser')
pytestmark = [
  pytest.mark.slow,
  pytest.mark.skipif(not CHROMIUM, reason='no chromium on the path'),
]
_CSP = re.compile(r'<meta http-equiv="Content-Security-Policy"[^>]*>')
# Written into the outer document element, so that --dump-dom shows it.
_MEASURE = """<script>
for (const d of document.querySelectorAll('details')) d.open = true;
const width = document.documentElement.clientWidth;
const box = e => e.getBoundingClientRect();
const inScroll = e => e.closest('.scroll') !== null;
const outside = [...document.querySelectorAll('body *')].filter(e => {
  const b = box(e);
  return b.width && !inScroll(e) && (b.right > width + 1 || b.left < -1);
}).map(e => e.tagName + ' ' + e.getAttribute('class'));
const overlaps = [];
for (const svg of document.querySelectorAll('svg')) {
  const texts = [...svg.querySelectorAll(':scope text')];
  for (let i = 0; i < texts.length; i++) for (let j = 0; j < i; j++) {
    const a = box(texts[i]), b = box(texts[j]);
    if (a.left < b.right - 1 && b.left < a.right - 1
        && a.top < b.bottom - 3 && b.top < a.bottom - 3)
      overlaps.push(texts[i].textContent + ' / ' + texts[j].textContent);
  }
}
const squeezed = [...document.querySelectorAll('body *')].filter(e => {
  const b = box(e);
  // The heads of the matrix stand upright on purpose.
  return b.width && b.width < 24 && b.height > 80 && e.textContent.trim()
    && !e.closest('svg, .matrix thead');
}).map(e => e.tagName + ' ' + e.textContent.trim().slice(0, 40));
const small = [...document.querySelectorAll('svg text')].filter(
  e => box(e).width && box(e).height < 9).length;
parent.document.documentElement.dataset.measured = JSON.stringify({
  inner: innerWidth, page: document.documentElement.scrollWidth, width,
  outside, overlaps, squeezed, small, scripts: document.scripts.length});
</script></body>"""


def _chromium(tmp_path, *arguments):
  return subprocess.run(
    [
      CHROMIUM,
      '--headless',
      '--no-sandbox',
      '--disable-gpu',
      '--disable-quic',
      '--no-first-run',
      '--disable-background-networking',
      '--disable-component-update',
      '--disable-sync',
      '--host-resolver-rules=MAP * ~NOTFOUND',
      '--enable-logging=stderr',
      f'--user-data-dir={tmp_path / "profile"}',
      *arguments,
    ],
    capture_output=True,
    text=True,
    timeout=300,
    check=True,
  )


def _measure(tmp_path, report, width):
  text, count = _CSP.subn('', report.read_text(encoding='utf-8'))
  assert count == 1  # The policy forbids the script below, as it should.
  assert text.count('</body>') == 1
  # In a frame, because a browser window cannot be as narrow as a phone.
  inner = html.escape(text.replace('</body>', _MEASURE))
  frame = f'<iframe width={width} height=900 style="border:0" srcdoc="{inner}">'
  copy = tmp_path / 'measured.html'
  copy.write_text(f'<!DOCTYPE html>{frame}</iframe>', encoding='utf-8')
  dom = _chromium(tmp_path, '--dump-dom', copy.as_uri()).stdout
  found = re.search(r'data-measured="([^"]*)"', dom)[1]
  return json.loads(html.unescape(found))


def _visit(tmp_path, report):
  """What the page as it is wrote to the console, and what it asked for."""
  log = tmp_path / 'net.json'
  result = _chromium(
    tmp_path, f'--log-net-log={log}', '--dump-dom', report.as_uri()
  )
  console = [l for l in result.stderr.splitlines() if 'CONSOLE' in l]
  # The browser asks for things of its own; those have no initiating page.
  started = re.findall(
    r'"initiator":"([^"]*)".*?"url":"([^"]*)"', log.read_text()
  )
  asked = [u for by, u in started if by != 'not an origin']
  return console, [u for u in asked if not u.startswith('file:')]


def _finished(path):
  synthetic_run.write(path)
  return page.write(path)


def _only_diagnosis(path):
  files = synthetic_run.write(path / 'whole')
  synthetic_run.save(path, {'diagnosis.json': files['diagnosis.json']})
  return page.write(path)


def _long_and_hostile(path):
  """Unbroken long text and markup wherever a model writes."""
  files = synthetic_run.write(path)
  payload = '"></svg><script>throw 1</script><img src=x onerror=alert(1)>'
  text = payload + 400 * 'w' + payload
  for wrong in files['diagnosis.json']['wrong_answers'].values():
    for w in wrong:
      w |= {'prompt': text, 'student': text, 'answer': text}
  files['diagnosis.json']['dependency']['note'] = text
  for module in files['diagnosis.json']['modules'].values():
    module['description'] = text
  for lesson in files['lessons.jsonl']:
    lesson['problem'] = text
    lesson['difficulty_tag'] = text
    lesson['metadata']['kind'] = text
    lesson['adapter_flags']['cognitive_load'] = {'scale': text, 'notes': text}
    lesson['solution'] = {
      'steps': [text, text],
      'final_answer': text,
      'verification': text,
    }
  for event in files['metrics.jsonl']:
    if event['event'] == 'supply':
      event['rejected'] = {text: 1}
  files['results.json']['teacher']['name'] = text
  synthetic_run.save(path, files)
  return page.write(path)


def _of(make):
  def drawn(path):
    make(path)
    return page.write(path)

  drawn.__name__ = make.__name__
  return drawn


RUNS = [
  _finished,
  _only_diagnosis,
  _long_and_hostile,
  *map(_of, report_runs.KINDS.values()),
]


@pytest.mark.parametrize('make', RUNS)
@pytest.mark.parametrize('width', [390, 768, 1280])
def test_fits_the_window(tmp_path, make, width):
  seen = _measure(tmp_path, make(tmp_path), width)
  assert seen['inner'] == width
  assert seen['page'] <= width
  assert seen['outside'] == []
  assert seen['overlaps'] == []
  assert seen['squeezed'] == []  # No text set one letter a line.
  assert seen['small'] == 0  # No label under 9 pixels high.
  assert seen['scripts'] == 1  # The one that measures.


@pytest.mark.parametrize('make', RUNS)
def test_no_console_message_and_no_request(tmp_path, make):
  assert _visit(tmp_path, make(tmp_path)) == ([], [])


def test_the_checks_above_can_fail(tmp_path):
  """A page that logs, fetches, overflows and overlaps is caught each time."""
  report = _finished(tmp_path)
  good = report.read_text(encoding='utf-8')
  bad = (
    '<div style="width:2000px">x</div><img src="http://127.0.0.1:9/a.png">'
    '<svg><text y="20">one</text><text y="20">two</text></svg>'
    '<script>console.error("oops")</script></main>'
  )
  report.write_text(good.replace('</main>', bad), encoding='utf-8')
  seen = _measure(tmp_path, report, 390)
  assert seen['page'] > 390 and seen['outside'] and seen['overlaps']
  console, asked = _visit(tmp_path, report)
  # The page's own policy stops both and says so.
  assert len(console) == 2 and asked == []
  report.write_text(_CSP.sub('', report.read_text()), encoding='utf-8')
  console, asked = _visit(tmp_path, report)
  assert 'oops' in console[0] and asked == ['http://127.0.0.1:9/a.png']
