"""The report tells every fact of a run; numbers are worked out here again."""

from __future__ import annotations

from collections import Counter
import contextlib
import dataclasses
import json
import re
import types

import pytest

from ioa_jax.evaluation.intervals import wilson
from ioa_jax.report import charts, graph, page, read, svg
from ioa_jax.teachers.ledger import Ledger
from ioa_jax.teachers.requests import Completion, Request
from tests import report_runs, synthetic_run
from tests.parsed_page import Page


@pytest.fixture(scope='module')
def finished(tmp_path_factory):
  path = tmp_path_factory.mktemp('runs') / 'finished'
  files = synthetic_run.write(path)
  html = page.write(path).read_text(encoding='utf-8')
  return files, html, Page(html)


def _copy(finished, tmp_path, names=tuple(read.FILES), **changes):
  files = {k: v for k, v in finished[0].items() if k in names} | changes
  synthetic_run.save(tmp_path, files)
  return tmp_path


def test_every_element_is_closed_and_every_section_is_there(finished):
  _, _, parsed = finished
  assert parsed.open == []
  assert list(parsed.sections) == [
    'head',
    'gaps',
    'graph',
    'curriculum',
    'mastery',
    'result',
    'forgetting',
    'lessons',
    'costs',
    'config',
  ]
  for name in parsed.sections:
    assert 'Not there yet' not in parsed.text(name)


def test_headline(finished):
  files, _, parsed = finished
  r = files['results.json']
  # 1,021,440 / 86,016 = 11.875 parameters of the teacher for each one.
  kept = 100 * r['student']['score_after'] / r['teacher']['score']
  head = parsed.text('head')
  assert (
    f'The student, 12 times smaller, keeps {kept:.1f} % of what its teacher '
    'knows.'
  ) in head
  for score in (
    r['student']['score_before'],
    r['student']['score_after'],
    r['teacher']['score'],
  ):
    assert f'{100 * score:.1f} %' in head
  stages = [s for s in r['stages'] if s['kind'] == 'teach']
  passed = sum(s['outcome'] == 'mastered' for s in stages)
  assert 0 < passed < len(stages)  # Else the run below shows too little.
  assert f'stages passed {passed} of {len(stages)}' in head
  assert f'{len(stages) - passed} stalled' in head
  rounds = sum(s['remedial_rounds'] for s in stages)
  assert f'{rounds} remedial rounds' in head
  assert '3.3 M' in head and '86 k' in head and '1.02 M' in head
  assert '12 min 31 s' in head  # 751.3 s


def test_gaps_with_intervals_and_wrong_answers(finished):
  files, _, parsed = finished
  text, labels = parsed.text('gaps'), parsed.labels()
  for name, m in files['diagnosis.json']['modules'].items():
    t, s = m['teacher'], m['student']
    low, high = wilson(s['correct'], s['n'])
    assert any(
      label.startswith(f'{name}: student {s["correct"] / s["n"]:.0%}, ')
      and f'interval {low:.0%} to {high:.0%}; teacher' in label
      for label in labels
    ), name
    gap = 100 * (1 - s['correct'] / t['correct'])
    counts = f'{s["correct"]}/{s["n"]}, teacher {t["correct"]}/{t["n"]}'
    assert f'{m["description"]}' in text
    assert f'gap {max(gap, 0):.0f} % {m["status"]} {counts}' in text
  for wrong in files['diagnosis.json']['wrong_answers'].values():
    for w in wrong[:3]:
      row = [w['prompt'], w['student'], w['answer']]
      assert row in parsed.rows


def test_graph_has_every_edge_and_says_where_it_is_from(finished):
  files, _, parsed = finished
  d = files['diagnosis.json']['dependency']
  text = parsed.text('graph')
  assert f'edges: {d["source"]}' in text and d['note'] in text
  assert 'was not measured' in text
  for edge in d['edges']:
    # Once drawn with a title in the wide graph, once said in each label.
    words = f'{edge["to"]} needs {edge["from"]}'
    assert words in text
    assert sum(words in label for label in parsed.labels()) == 2


def test_strengths_are_drawn_where_they_are_known(finished, tmp_path):
  diagnosis = json.loads(json.dumps(finished[0]['diagnosis.json']))
  diagnosis['dependency']['edges'][0]['strength'] = 0.43
  diagnosis['dependency']['source'] = 'interventional'
  path = _copy(
    finished, tmp_path, ('diagnosis.json',), **{'diagnosis.json': diagnosis}
  )
  text = Page(page.write(path).read_text(encoding='utf-8')).text('graph')
  assert '0.43' in text and 'edges: interventional' in text
  assert 'was not measured' not in text


def test_long_edges_do_not_pass_behind_modules():
  """a -> d over two levels; b and c each would lie on a straight line."""
  modules = {
    name: types.SimpleNamespace(level=level, status='known', description='')
    for name, level in (('a', 0), ('b', 1), ('c', 2), ('d', 3))
  }
  edges = [
    ('a', 'b', None),
    ('b', 'c', None),
    ('c', 'd', None),
    ('a', 'd', 0.5),
  ]
  columns, chains = graph._columns(modules, edges)
  position = graph._positions(graph._untangle(columns, chains))
  passing = [position[n] for n in chains[3][1:-1]]
  assert len(passing) == 2
  for (_, y), name in zip(passing, 'bc'):
    assert abs(y - position[name][1]) >= graph._NODE_HEIGHT / 2


def test_curriculum_shows_every_decision_and_supply(finished):
  files, html, parsed = finished
  events = files['metrics.jsonl']
  decisions = Counter(e['decision'] for e in events if e['event'] == 'probe')
  assert set(decisions) == {'stay', 'advance', 'remediate', 'stall'}
  supplies = [e for e in events if e['event'] == 'supply']
  # One more of each is the legend.
  for decision, count in decisions.items():
    assert html.count(f'class="gate {decision}"') == count + 1
  assert html.count('class="supply ') == len(supplies) + 3
  text = parsed.text('curriculum')
  assert f'All {decisions.total()} gate decisions' in text
  assert f'All {len(supplies)} supplies of lessons' in text
  for e in events:
    if e['event'] == 'probe':
      row = [
        f'{e["step"]:,}',
        str(e['stage'] + 1),
        str(e['round']),
        e['decision'],
      ]
      assert row in [r[:4] for r in parsed.rows], e
  for check in files['curriculum.json']['zpd']['checks']:
    cells = [f'{100 * check[k]:.0f} %' for k in ('before', 'after')]
    cells += [
      f'{100 * check["limit"]:.1f} %',
      'yes' if check['holds'] else 'no',
    ]
    assert cells in [r[1:] for r in parsed.rows]
  for stage in files['results.json']['stages']:
    assert f'{stage["steps"]} steps' in text
  assert 'not mastered' in text


def test_mastery_curves_and_loss(finished):
  files, _, parsed = finished
  events, labels = files['metrics.jsonl'], parsed.labels()
  for name, m in files['diagnosis.json']['modules'].items():
    probed = [e for e in events if name in e.get('scores', ())]
    last = probed[-1]['scores'][name]
    # The gate's quantity: a share of the teacher's score on the same probes.
    best = m['teacher']['correct']
    end = files['results.json']['modules'][name]
    assert (
      f'{name}: {m["student"]["correct"] / best:.0%} at step 0, '
      f'{last["correct"] / best:.0%} at step {probed[-1]["step"]}; '
      f'mastered from 90%; {end["after"] / end["teacher"]:.0%} at the end, '
      'held-out'
    ) in labels
  losses = [e for e in events if e['event'] == 'train']
  assert f'is {losses[-1]["train/loss"]:.3g}.' in parsed.text('mastery')


def test_result_table(finished):
  files, _, parsed = finished
  for name, m in files['results.json']['modules'].items():
    rows = [r for r in parsed.rows if len(r) == 5 and r[0] == name]
    low, high = (100 * x for x in m['ci95'])
    assert rows == [
      [
        name,
        f'{100 * m["before"]:.0f} %',
        f'{100 * m["after"]:.0f} % {low:.0f} to {high:.0f}',
        f'{100 * m["teacher"]:.0f} %',
        f'{100 * m["after"] / m["teacher"]:.0f} %',
      ]
    ]
  r = files['results.json']
  assert parsed.row('mean')[4] == f'{100 * r["retention"]:.1f} %'


def test_what_it_still_gets_wrong(finished):
  files, _, parsed = finished
  text = ' '.join(parsed.text('result').split())
  cut = files['results.json']['student']
  assert cut['truncated_after'] and cut['truncated_before']
  assert (
    f'{cut["truncated_after"]} of the answers after teaching reached '
    f'student.max_tokens and were cut off ({cut["truncated_before"]} before)'
  ) in text
  for name in files['results.json']['modules']:
    wrong = [
      a
      for a in files['answers.jsonl']
      if a['module'] == name and a['after']['score'] < 1
    ]
    for a in wrong[:3]:
      shown = a['after']['text'] + ' (cut off)' * a['after']['truncated']
      row = [a['prompt'], a['before']['text'], shown, a['answer']]
      assert row in parsed.rows, row
    if len(wrong) > 3:
      assert f'and {len(wrong) - 3} more' in text


def test_a_run_without_answers_says_nothing_of_them(finished, tmp_path):
  text = page.write(_copy(finished, tmp_path)).read_text(encoding='utf-8')
  assert 'What it still gets wrong' not in text


def test_forgetting_matrix(finished):
  files, _, parsed = finished
  names = synthetic_run.NAMES
  students = [m['student'] for m in files['diagnosis.json']['modules'].values()]
  expected = [('before', [s['correct'] / s['n'] for s in students])]
  expected += [
    (f'after stage {f["after_stage"] + 1}', [f['scores'][k] for k in names])
    for f in files['results.json']['forgetting']
  ]
  modules = files['results.json']['modules']
  expected.append(('end, held-out', [modules[k]['after'] for k in names]))
  best = [0.0] * len(names)
  falls = 0
  for label, scores in expected:
    cells = [f'{100 * s:.0f}' for s in scores]
    for i, s in enumerate(scores):
      if best[i] - s >= 0.1:
        cells[i] += '▾ fell'
        falls += 1
      best[i] = max(best[i], s)
    assert parsed.row(label)[1:] == cells
  assert falls  # Else the mark was not tested.


def test_a_fall_is_told_once(finished):
  files, _, parsed = finished
  probes = [e for e in files['metrics.jsonl'] if e['event'] == 'probe']
  opened = [e for e in probes if e['reopened']]
  assert len(opened) > 1  # Told by every event while it is open.
  (name,) = opened[0]['reopened']
  text = ' '.join(parsed.text('forgetting').split())
  assert text.count(f'{name} (step') == 1
  assert f'{name} (step {opened[0]["step"]:,})' in text


def test_lessons_decomposed_beside_direct(finished):
  files, _, parsed = finished
  text = parsed.text('lessons')
  for name in synthetic_run.TARGETS:
    lessons = [l for l in files['lessons.jsonl'] if l['module'] == name]
    shown = [l for l in lessons if l['problem'] in text]
    assert shown, name
    if any(l['adapter_flags']['decomposition'] for l in lessons):
      assert {l['adapter_flags']['decomposition'] for l in shown} == {
        True,
        False,
      }
  first = next(
    l for l in files['lessons.jsonl'] if l['adapter_flags']['decomposition']
  )
  for step in first['solution']['steps']:
    assert step in text
  assert first['solution']['verification'] in text
  assert '✓ decomposed applied' in text and '– concrete not applied' in text


def test_costs_and_configuration(finished):
  files, _, parsed = finished
  r, text = files['results.json'], parsed.text('costs')
  for name, count in r['tokens'].items():
    unit = 'answers' if name == 'teacher_cached' else 'tokens'
    assert not count or f'{count:,} {unit}' in text
  supplies = [e for e in files['metrics.jsonl'] if e['event'] == 'supply']
  thrown = sum(e['rejected']['wrong answer'] for e in supplies)
  assert f'lessons rejected {thrown} ({thrown} wrong answer)' in text
  assert 'training step 1 ' in text and 'synthesise 2 min 2 s' in text
  text = parsed.text('config')
  assert r['config_sha256'] in text and 'seed 7' in text
  assert 'changed' not in text
  assert parsed.row('gate.tau_mastery')[1] == '0.9'
  assert 'not recorded' in text


def test_a_changed_configuration_is_told(finished, tmp_path):
  path = _copy(finished, tmp_path)
  config = path / 'config.json'
  config.write_text(config.read_text().replace('0.9', '0.8'))
  text = Page(page.write(path).read_text(encoding='utf-8')).text('config')
  assert 'config.json has been changed' in text


def test_nothing_is_loaded_from_elsewhere(finished):
  _, html, parsed = finished
  for word in ('http://', 'https://', 'src=', 'url(', '@import', '<script'):
    assert word not in html
  for _, attributes in parsed.elements:
    for name, value in attributes:
      assert not name.startswith('on')
      assert name != 'href' or value.startswith('#')


def test_ticks_are_whole_and_end_inside():
  assert svg.ticks(2200, 5) == [0, 500, 1000, 1500, 2000]
  assert svg.ticks(3, 5) == [0, 1, 2, 3]
  assert svg.ticks(0, 5) == [0]


@pytest.mark.parametrize(
  'kind,fallen,words,never',
  [
    ('worse', ['division/long'], 'is worse than it was before', 'keeps'),
    ('unclear', [], 'It is not clear that the student is better', 'keeps'),
    ('mixed', ['division/long'], 'is worse than before in 1 of', 'not clear'),
  ],
)
def test_a_worse_student_is_never_praised(
  finished, tmp_path, kind, fallen, words, never
):
  results = json.loads(json.dumps(finished[0]['results.json']))
  results['verdict'] |= {'kind': kind, 'fallen': fallen}
  path = _copy(finished, tmp_path, **{'results.json': results})
  head = ' '.join(
    Page(page.write(path).read_text(encoding='utf-8')).text('head').split()
  )
  assert words in head and never not in head
  assert all(name in head for name in fallen)


def _drawn(make, path, **options):
  files = make(path, **options)
  html = page.write(path).read_text(encoding='utf-8')
  return files, html, Page(html)


def _text(parsed, section):
  return ' '.join(parsed.text(section).split())


def test_a_run_can_be_repeated_from_its_report(tmp_path):
  files, _, parsed = _drawn(report_runs.good, tmp_path)
  text = _text(parsed, 'config')
  (start,) = files['starts.jsonl']
  for said in (start['command'], start['commit'], start['devices']):
    assert said in text
  assert '2026-11-28 12:00 UTC' in text
  for name, version in start['versions'].items():
    assert f'{name} {version}' in text


def test_money_by_kind_stage_and_module(tmp_path):
  files, _, parsed = _drawn(report_runs.good, tmp_path)
  text, money = _text(parsed, 'costs'), files['results.json']['money']
  assert f'${money["total_usd"]:,.4f} for the teacher' in text
  sums = Counter()
  for row in money['lessons']:
    sums[f'{row["kind"]} lessons'] += row['usd']
    sums[f'stage {row["stage"] + 1}'] += row['usd']
    sums[row['module']] += row['usd']
  for label, usd in sums.items():
    assert [label, f'${usd:,.4f}'] in parsed.rows
  assert ['probes and all else', '$0.5000'] in parsed.rows
  r = files['results.json']
  speed = r['tokens']['student_train'] / r['seconds']['train']
  assert f'training: {speed:,.0f} tokens a second' in text


def test_without_prices_there_is_no_money(finished):
  assert 'for the teacher' not in finished[2].text('costs')
  assert '$' not in finished[1]


def test_kinds_of_lessons_are_told_apart(tmp_path):
  files, html, parsed = _drawn(report_runs.good, tmp_path)
  kinds = Counter(
    e['kind'] for e in files['metrics.jsonl'] if e['event'] == 'supply'
  )
  assert set(kinds) == {'rehearsal', 'stage', 'bridging', 'remedial'}
  drawn = {}
  for kind, count in kinds.items():
    # One more is the legend.
    assert html.count(f'class="supply {kind}"') == count + 1
    drawn[kind] = str(svg.shape(charts.SUPPLY_FORMS[kind], 0, 5, ''))
  assert len(set(drawn.values())) == len(drawn)
  text = _text(parsed, 'curriculum')
  assert 'bridging lessons' in text and 'rehearsal lessons' in text


def test_nothing_is_said_of_remedial_rounds_where_there_are_none(tmp_path):
  path = tmp_path / 'run'  # The page says its name.
  files = report_runs.good(path)
  files['metrics.jsonl'] = [
    e
    for e in files['metrics.jsonl']
    if e.get('decision') != 'remediate' and e.get('kind') != 'remedial'
  ]
  for stage in files['results.json']['stages']:
    stage['remedial_rounds'] = 0
  money = files['results.json']['money']
  money['lessons'] = [r for r in money['lessons'] if r['kind'] != 'remedial']
  for lesson in files['lessons.jsonl']:
    lesson['metadata']['kind'] = 'stage'
  synthetic_run.save(path, files)
  html = page.write(path).read_text(encoding='utf-8')
  text = Page(re.sub('<style>.*?</style>', '', html, flags=re.DOTALL))
  for section in text.sections:
    words = text.text(section)
    assert 'remed' not in words and 'round' not in words.split(), section


@pytest.mark.parametrize(
  'state,words',
  [
    ('failed', ['The run has failed, at step 475 of', 'could cross max_usd']),
    ('stopped', ['The run was stopped, at step 475', 'SIGTERM, while writing']),
    ('running', ['is being taught: step 475', 'about 21 min 0 s left']),
  ],
)
def test_the_head_says_where_a_run_stands(tmp_path, state, words):
  _, _, parsed = _drawn(report_runs.unfinished, tmp_path, state=state)
  head = _text(parsed, 'head').replace('\u00a0', ' ')
  for word in [*words, '2026-11-28 13:30 UTC', 'after 12 min 31 s']:
    assert word in head, word


def test_a_lesson_stands_with_the_request_that_made_it(tmp_path):
  files = report_runs.good(tmp_path)
  asked = Request('builtin', 'Write <b>one</b> lesson.', 0.0, 0, 1.0, 48)
  asked = dataclasses.replace(asked, system='You teach children.')
  with contextlib.closing(Ledger(tmp_path / 'ledger.sqlite')) as ledger:
    ledger.store([(asked, Completion('7', 'stop', 3, 1))])
  for lesson in files['lessons.jsonl']:
    lesson['metadata']['request'] = asked.key()
  synthetic_run.save(tmp_path, files)
  html = page.write(tmp_path).read_text(encoding='utf-8')
  assert 'What the teacher was asked' in Page(html).text('lessons')
  assert 'You teach children.\n\nWrite &lt;b&gt;one&lt;/b&gt; lesson.' in html


def test_long_texts_are_prose_and_short_ones_code():
  assert page._said('3*4=12') == '<code>3*4=12</code>'
  assert page._said('Take two apples.').startswith('<span class="prose">')
  long = 'word ' * 200
  said = str(page._said(long))
  assert 'more</b></summary>' in said
  assert re.sub('<b>.*?</b>|<[^>]*>', '', said) == long
  assert page._said('a <i>b</i> ' * 80).count('&lt;i&gt;') == 80


def test_a_module_that_beats_its_teacher_stays_in_the_picture(tmp_path):
  files = report_runs.good(tmp_path)
  name = synthetic_run.NAMES[0]
  files['diagnosis.json']['modules'][name]['teacher']['correct'] = 16
  synthetic_run.save(tmp_path, files)
  html = page.write(tmp_path).read_text(encoding='utf-8')
  start = files['diagnosis.json']['modules'][name]['student']['correct'] / 16
  assert start > 1 and f'{name}: {start:.0%} at step 0' in html
  # Nothing is drawn above the frame, which begins at 6.
  assert min(float(y) for y in re.findall(r'cy="([\d.-]+)"[^>]*dot', html)) >= 6


def test_a_second_drawing_is_cheap(tmp_path):
  """Templates are compiled once: a run draws its report many times."""
  report_runs.wide(tmp_path)
  page.write(tmp_path)
  before = page._environment.cache_info().misses
  page.write(tmp_path)
  assert page._environment.cache_info().misses == before
