"""Dollars of a run of text, against its ledger."""

from __future__ import annotations

import json
import sqlite3

import pytest

from tests import faulty_server, test_text_pipeline, word_problem_teacher
from tests.test_pipeline import run_config

files = test_text_pipeline.files  # A fixture.
PRICE = {
  'teacher.price.prompt_usd_per_million': 1.0,
  'teacher.price.completion_usd_per_million': 4.0,
}


@pytest.mark.slow
def test_every_dollar_is_accounted_for(files, tmp_path):
  workdir = tmp_path / 'run'
  with faulty_server.FaultyServer(
    respond=word_problem_teacher.respond
  ) as server:
    config = test_text_pipeline.config(files, server.url, **PRICE)
    results, _ = run_config(config, workdir)
  money = results['money']
  with sqlite3.connect(workdir / 'ledger.sqlite') as db:
    calls = db.execute(
      'SELECT prompt_tokens, completion_tokens FROM calls'
    ).fetchall()
  total = sum(p + 4 * c for p, c in calls) / 1e6
  assert money['total_usd'] == pytest.approx(total)
  paid = sum(row['usd'] for row in money['lessons'])
  assert money['other_usd'] == pytest.approx(total - paid) and paid > 0
  lines = (workdir / 'metrics.jsonl').read_text().splitlines()
  asked = {
    (m, e['stage'], e['kind'])
    for e in map(json.loads, lines)
    if e['event'] == 'supply'
    for m in e['modules']
  }
  found = {(r['module'], r['stage'], r['kind']) for r in money['lessons']}
  assert found == asked
  html = (workdir / 'report.html').read_text(encoding='utf-8')
  assert 'What the teacher was asked' in html
  assert f'${total:,.4f} for the teacher' in html
