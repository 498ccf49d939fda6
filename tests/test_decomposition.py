"""A teacher's units and votes: what is taken, and what is not."""

import json
import os
import pathlib
import re
import subprocess
import sys

import pytest
import yaml

from ioa_jax.domains import taxonomy
from ioa_jax.identifier import decomposition
from ioa_jax.records import KnowledgeModule
from ioa_jax.teachers.requests import Completion
from tests import faulty_server

ROOT = pathlib.Path(__file__).parents[1]
MODULES = (
  KnowledgeModule('sums/small', 'small sums', (), 0),
  KnowledgeModule('sums/large', 'large sums', ('sums/small',), 1),
)


def unit(name, *prerequisites):
  return {
    'name': name,
    'description': f'all about\n {name}',
    'prerequisites': list(prerequisites),
  }


def answer(value):
  return Completion(json.dumps(value), 'stop', 1, 1)


def test_units_are_named_alike_merged_and_ordered():
  modules = decomposition.read_units(
    answer(
      {
        'units': [
          unit('Sums / Large', 'sums/SMALL', 'sums/large'),
          unit('sums/small'),
          unit('Sums/Small!'),
        ]
      }
    ),
    (2, 2),
  )
  assert [(m.name, m.prerequisites, m.level) for m in modules] == [
    ('sums/small', (), 0),
    ('sums/large', ('sums/small',), 1),
  ]
  assert modules[0].description == 'all about sums/small'


@pytest.mark.parametrize(
  ('units', 'message'),
  [
    ([unit('a')], '1 different units, wanted 2 to 3'),
    ([unit('a'), unit('A'), unit(' a ')], '1 different units'),
    ([unit('a', 'c'), unit('b')], "stands on 'c'"),
    ([unit('a', 'b'), unit('b', 'a')], 'in a circle'),
    ([{'name': 'a'}, {'name': 'b'}], 'not JSON of the schema'),
  ],
)
def test_units_that_cannot_be_taught_from_are_refused(units, message):
  with pytest.raises(decomposition.BadProposal, match=message):
    decomposition.read_units(answer({'units': units}), (2, 3))


@pytest.mark.parametrize(
  ('votes', 'wanted'),
  [
    (['sums/small', 'Sums/Small'], 'sums/small'),
    (['sums/small', 'sums/large'], None),
    (['none', 'none'], None),
    (['sums/small', 'elsewhere'], None),
  ],
)
def test_a_seed_needs_every_vote(votes, wanted):
  got = decomposition.agreed([answer({'unit': v}) for v in votes], MODULES)
  assert got == wanted
  broken = [answer({'unit': votes[0]}), Completion('', 'length', 1, 1)]
  assert decomposition.agreed(broken, MODULES) is None


def respond(body, headers):
  """Proposes one bad and one good list; sorts by the number in the problem."""
  prompt = next(m['content'] for m in body['messages'] if m['role'] == 'user')
  if 'Cut the following' in prompt:
    respond.proposals += 1
    units = [unit('sums/small'), unit('sums/large', 'sums/small')]
    if respond.proposals == 1:
      units[0]['prerequisites'] = ['sums/large']
    value = {'units': units}
  else:
    number = int(re.search(r'What is (\d+)', prompt)[1])
    name = 'sums/small' if number < 30 else 'sums/large'
    respond.asked[number] = respond.asked.get(number, 0) + 1
    if number == 7 and respond.asked[number] == 2:
      name = 'sums/large'  # It cannot make up its mind.
    value = {'unit': name}
  reply = faulty_server.chat_completion('r', json.dumps(value))
  return 200, {}, reply


def test_untagged_seeds_become_a_domain(tmp_path):
  respond.proposals, respond.asked = 0, {}
  rows = [
    {'problem': f'What is {n} + 1?', 'solution': f'Add.\n#### {n + 1}'}
    for n in range(60)
  ]
  seeds = tmp_path / 'untagged.jsonl'
  seeds.write_text('\n'.join(map(json.dumps, rows)))
  out = tmp_path / 'out'
  command = [
    sys.executable,
    'scripts/map_seeds.py',
    '--config=configs/smollm2_135m.py',
    f'--config.domain.seeds={seeds}',
    '--config.domain.columns.module=',
    '--min_units=2',
    '--max_units=3',
    f'--output_dir={out}',
    '--config.teacher.max_tokens=99',
  ]

  def run(url):
    return subprocess.run(
      [*command, f'--config.teacher.base_url={url}'],
      cwd=ROOT,
      capture_output=True,
      text=True,
      env=os.environ | {'PYTHONPATH': str(ROOT)},
    )

  with faulty_server.FaultyServer(respond=respond) as server:
    done = run(server.url)
    assert done.returncode == 0, done.stderr
    asked = len(server.asked)
    assert asked == 2 + 2 * 60
    assert run(server.url).returncode == 0
    assert len(server.asked) == asked  # All of it was paid for.
  tagged = [
    json.loads(x) for x in (out / 'seeds.jsonl').read_text().splitlines()
  ]
  assert len(tagged) == 59 and {'module', *rows[0]} == set(tagged[0])
  for x in tagged:
    number = int(x['problem'].split()[2])
    assert (x['module'] == 'sums/small') == (number < 30)
  assert '1 left out' in done.stdout
  modules = taxonomy.read(out / 'taxonomy.yaml')
  assert [m.name for m in modules] == ['sums/small', 'sums/large']
  assert yaml.safe_load((out / 'taxonomy.yaml').read_text())['modules'][1][
    'prerequisites'
  ] == ['sums/small']
