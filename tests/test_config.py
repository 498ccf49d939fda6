"""Settings: declared once, held to the same checks on every way in."""

import json
import pathlib
import re
import typing

from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
import ml_collections
import pytest

from ioa_jax import config as config_lib
from ioa_jax.adapter import prompts
from ioa_jax.baselines import methods
from ioa_jax.config import describe, people, settings
from ioa_jax.domains import text
from ioa_jax.evaluation import benchmarks, final_answers
from ioa_jax.models import decoder, lora

ROOT = pathlib.Path(__file__).parents[1]
GOLDEN = json.loads((ROOT / 'tests/golden/configs.json').read_text())
FIELDS = config_lib.fields()
# A busy machine is no failure.
UNTIMED = hypothesis_settings(deadline=None)
# A text domain that can be run, as short as one's own configuration is.
OWN = {
  'domain.seeds': 's.jsonl',
  'domain.description': 'to add',
  'teacher.model': 't',
  'student.model': 's',
}


def resolved(config):
  """Dotted field to value, as JSON has it."""
  return config_lib.flatten(json.loads(config_lib.to_json(config)))


@pytest.mark.parametrize('spec', GOLDEN)
def test_the_shipped_values_are_those_that_results_were_measured_with(spec):
  """At 28e09e0, before settings were declared; others may be added."""
  wanted = GOLDEN['smollm2_135m'] if ':' in spec else {}
  got = resolved(config_lib.load(spec))
  for path, value in (wanted | GOLDEN[spec]).items():
    assert (path, got[path]) == (path, value)
    assert type(got[path]) is type(value), path


def test_every_file_that_ships_is_in_that_list():
  names = {p.stem for p in (ROOT / 'configs').glob('*.py')}
  assert names == {spec.partition(':')[0] for spec in GOLDEN}


@pytest.mark.parametrize(
  'name,lines', [('quickstart', 60), ('smollm2_135m', 50)]
)
def test_a_file_says_only_what_differs(name, lines):
  text = (ROOT / f'configs/{name}.py').read_text()
  assert len(text.splitlines()) <= lines


@pytest.mark.parametrize('path', FIELDS)
def test_every_field_says_what_it_is_and_its_default_is_one(path):
  field = FIELDS[path]
  assert field.meaning.endswith('.') and field.wanted
  assert isinstance(field.default, field.kind)
  assert config_lib.get({path: field.default}).to_dict()
  assert config_lib.parse(path, describe.render(field.default).strip("'")) == (
    field.default
  )


@pytest.mark.parametrize(
  'path,table',
  [
    ('method', methods.METHODS),
    ('domain.grader', final_answers.KINDS),
    ('domain.benchmarks', benchmarks.BENCHMARKS),
    ('adapter.strategies', prompts.STRATEGIES),
    ('student.lora.targets', lora.PROJECTIONS),
    ('student.remat', decoder.REMAT_POLICIES),
    ('teacher.remat', decoder.REMAT_POLICIES),
  ],
)
def test_names_are_those_of_the_tables_they_are_looked_up_in(path, table):
  # What is given is looked up nowhere.
  assert set(FIELDS[path].names) - {'given'} == set(table)


def test_columns_and_methods_are_named_alike_everywhere():
  assert set(people.Columns.model_fields) == set(text.COLUMNS)
  method = settings.Settings.model_fields['method'].annotation
  assert set(typing.get_args(method)) == set(config_lib.METHODS)


# Field, value, what the message says of it.
WRONG = [
  ('gate.tau_mastery', 1.5, 'a number in (0, 1]'),
  ('gate.tau_mastery', 0.0, 'a number in (0, 1]'),
  ('gate.tau_mastery', True, 'a number in (0, 1]'),
  ('gate.min_probes', 0, 'a whole number >= 1'),
  ('gate.sequential', 1, 'true or false'),
  ('organizer.zpd', 'both', "one of 'readiness', 'literal'"),
  ('method', 'magic', "one of 'ioa'"),
  ('train.replay_share', 1.0, 'a number in [0, 1)'),
  ('train.total_steps', 1.5, 'a whole number >= 1'),
  ('identifier.target_share', 0.0, 'a number in (0, 1]'),
  ('identifier.panel.learners', 7, '0, or an even number >= 4'),
  ('optimizer.learning_rate', float('nan'), 'a number > 0'),
  ('optimizer.learning_rate', float('inf'), 'a number > 0'),
  ('adapter.strategies', ('shout',), "names of 'concretise'"),
  ('student.lora.targets', (), "names of 'q_proj'"),
  ('student.model', 7, 'text'),
  ('mesh.fsdp', 0, '-1, or a whole number >= 1'),
  ('seed', 2**32, 'in [0, 4294967296)'),
  ('seed', -1, 'in [0, 4294967296)'),
  ('teacher.requests_per_minute', -1, 'a number >= 0'),
  ('teacher.timeout_seconds', 0, 'a number > 0'),
  ('teacher.max_regenerations', -1, 'a whole number >= 0'),
]


@pytest.mark.parametrize('path,value,wanted', WRONG)
def test_a_wrong_value_is_said_in_the_same_words_on_every_way_in(
  path, value, wanted, tmp_path
):
  message = f'config.{path} is .*, wanted .*{re.escape(wanted)}'
  with pytest.raises(config_lib.ConfigError, match=message):
    config_lib.get(OWN | {path: value})
  file = tmp_path / 'own.py'
  file.write_text(f'inf = nan = 0.0\ndef get_config(): return {OWN!r}')
  with pytest.raises(config_lib.ConfigError, match=message):
    config_lib.load(file, {path: value})
  # An object that never went through `get`.
  nested = config_lib.load(OWN).to_dict()
  group, _, name = path.rpartition('.')
  node = nested
  for part in filter(None, group.split('.')):
    node = node[part]
  node[name] = value
  with pytest.raises(config_lib.ConfigError, match=message):
    config_lib.validate(ml_collections.ConfigDict(nested))
  # On the command line 1 is true, and anything a text.
  if path not in ('gate.sequential', 'student.model') and value is not True:
    text = ','.join(value) if isinstance(value, tuple) else str(value)
    with pytest.raises(config_lib.ConfigError, match=message):
      config_lib.parse(path, text)


def test_unknown_fields_are_refused_with_the_nearest_name():
  message = 'config.gate.tau_mastrey: no such field; .* config.gate.tau_mastery'
  with pytest.raises(config_lib.ConfigError, match=message):
    config_lib.get({'gate.tau_mastrey': 0.9})
  config = ml_collections.ConfigDict(config_lib.load(OWN).to_dict())
  config.gate.tau_mastrey = 0.9
  with pytest.raises(config_lib.ConfigError, match=message):
    config_lib.validate(config)
  assert config_lib.nearest('tau_mastery') == 'gate.tau_mastery'
  with pytest.raises(config_lib.ConfigError, match='teacher is a group of'):
    config_lib.get({'teacher': 'openai'})


def test_a_configuration_that_lacks_a_field_is_not_run():
  config = ml_collections.ConfigDict(config_lib.load(OWN).to_dict())
  del config.gate.reopen
  with pytest.raises(config_lib.ConfigError, match='gate.reopen is missing'):
    config_lib.validate(config)


@pytest.mark.parametrize(
  'changes,message',
  [
    ({'train.total_steps': 1}, 'total_steps is 1 and .*warmup_share 0.03'),
    ({'optimizer.warmup_share': 1.0}, 'rise for 600 steps and none'),
    ({'optimizer.warmup_share': 0.9999}, 'rise for 600 steps and none'),
    (
      {
        'identifier.panel.learners': 4,
        'identifier.panel.snapshots': 1,
        'identifier.panel.steps_per_snapshot': 1,
      },
      r'snapshots \* steps_per_snapshot is 1 and',
    ),
    ({'train.microbatches': 3}, 'microbatches is 3, which does not divide'),
    ({'mesh.fsdp': -1}, 'at most one axis can be -1'),
    ({'domain.seeds': ''}, 'domain.seeds is empty; set it: The file, hub id'),
    ({'domain.description': ' '}, 'domain.description is empty'),
    ({'student.model': ''}, 'student.model is empty'),
    ({'teacher.model': ''}, 'teacher.model is empty'),
    ({'domain.kind': 'arithmetic'}, "teacher.kind is 'openai', wanted 'local'"),
    ({'gate.scoring': 'in_step'}, "gate.scoring is 'in_step', wanted 'graded'"),
    ({'gate.sequential': True}, 'graded in batches'),
    ({'domain.min_probes': 17}, 'max_probes 16 is below'),
    ({'domain.evaluate_on': 'development'}, "wanted 'held_out'"),
    ({'gate.min_probes': 2}, 'min_probes is 2, which says nothing: .* in 20%'),
    ({'gate.min_probes': 6, 'gate.tau_mastery': 0.3}, 'says nothing'),
    (
      {'adapter.confirm_samples': 3, 'teacher.temperature': 0.0},
      'temperature is 0, so several',
    ),
    ({'teacher.kind': 'replay'}, 'teacher.recording is empty'),
    (
      {'method': 'uniform_direct'},
      "method 'uniform_direct' asks for direct answers",
    ),
    (
      {'distillation.on_policy_every_steps': 5},
      'on_policy_every_steps is 5 and divergence is none',
    ),
  ],
)
def test_values_that_do_not_go_together_are_said(changes, message):
  config_lib.load(OWN)
  with pytest.raises(config_lib.ConfigError, match=message):
    config_lib.load(OWN, changes)


@pytest.mark.parametrize('steps', [2, 3, 40])
def test_the_least_steps_that_pass_have_a_schedule(steps):
  import optax

  c = config_lib.load(OWN, {'train.total_steps': steps}).optimizer
  warmup = max(1, round(c.warmup_share * steps))
  schedule = optax.warmup_cosine_decay_schedule(0, 1, warmup, steps, 0.1)
  assert schedule(warmup) == 1.0 and schedule(steps) == pytest.approx(0.1)


@UNTIMED
@given(st.lists(st.sampled_from(list(FIELDS)), unique=True), st.data())
def test_changes_are_what_is_got_whatever_way_they_are_written(paths, data):
  """Nested, dotted, and as texts of the command line."""
  changes = {p: FIELDS[p].default for p in paths}
  for path in paths:
    if FIELDS[path].names and FIELDS[path].kind is str:
      changes[path] = data.draw(st.sampled_from(FIELDS[path].names))
  config = config_lib.get(changes)
  flat = config_lib.flatten(config)
  assert flat == {k: f.default for k, f in FIELDS.items()} | changes
  assert config_lib.flatten(config_lib.get(config.to_dict())) == flat
  texts = {p: describe.render(v) for p, v in changes.items()}
  parsed = {p: config_lib.parse(p, t.strip("'")) for p, t in texts.items()}
  assert config_lib.flatten(config_lib.get(parsed)) == flat


def test_lists_and_numpy_numbers_are_taken():
  import numpy as np

  config = config_lib.get(
    {'adapter.personas': ['a, b', 'c'], 'seed': np.int64(3)}
  )
  assert config.adapter.personas == ('a, b', 'c')
  assert type(config.seed) is int
  assert config_lib.parse('adapter.personas', "('a, b', 'c')") == ('a, b', 'c')
  assert config_lib.parse('adapter.personas', '') == ()


# A file, what is said of it.
FILES = [
  ('def get_config(:', r'line 1: '),
  ('import nothing_of_that_name', r'No module named .*own.py, line 1\)'),
  ('x = 1', r'own.py: it has no get_config\(\)'),
  ('def get_config(): return None', 'returns NoneType; wanted what'),
  ('def get_config():\n  return 1 / 0', r'ZeroDivisionError in .*line 2\)'),
  ("def get_config(): return {'gate': {'tau': 1.0}}", 'config.gate.tau: no'),
  (
    'from ioa_jax import config\ndef get_config():\n'
    '  c = config.get({})\n  c.gate.tau_mastrey = 1.0\n  return c',
    'tau_mastrey.*line 4',
  ),
  (
    'from ioa_jax import config\ndef get_config():\n'
    "  c = config.get({})\n  c.gate.tau_mastery = 'x'\n  return c",
    'line 4',
  ),
]


@pytest.mark.parametrize('content,message', FILES)
def test_a_file_that_cannot_be_used_is_one_line_with_its_place(
  content, message, tmp_path
):
  file = tmp_path / 'own.py'
  file.write_text(content)
  with pytest.raises(config_lib.ConfigError, match=message):
    config_lib.load(file)


def test_names_that_ship_and_paths_are_told_apart(tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  (tmp_path / 'quickstart').mkdir()
  assert config_lib.load('quickstart').domain.kind == 'arithmetic'
  with pytest.raises(config_lib.ConfigError, match='is a directory; wanted'):
    config_lib.load(tmp_path)
  with pytest.raises(config_lib.ConfigError, match='that ship: domains, quick'):
    config_lib.load('quikstart')


def test_ones_own_file_has_some_fifteen_lines(tmp_path):
  file = tmp_path / 'mine.py'
  file.write_text(
    'from ioa_jax import config as config_lib\n\n\n'
    'def get_config():\n'
    f'  return config_lib.get({OWN!r})\n'
  )
  assert config_lib.load(file) == config_lib.load(OWN)
  # A change to a configuration that ships.
  file.write_text(
    'from ioa_jax import config as config_lib\n\n\n'
    'def get_config():\n'
    "  return config_lib.get('quickstart', {'train.total_steps': 200})\n"
  )
  config = config_lib.load(f'{file}', {'seed': 1})
  assert (config.train.total_steps, config.train.batch_rows) == (200, 16)
  assert config.seed == 1


def before(config):
  """How formats and distillation were settled at 28e09e0."""
  terms = config_lib.METHODS[config.method]
  answer = terms.answer_format or config.adapter.answer_format
  set_here = {k: v for k, v in config.distillation.items() if v}
  if config.distillation.divergence == 'none':
    del set_here['divergence']
  return (
    answer,
    terms.lesson_format or answer,
    {**config.distillation, **terms.distillation, **set_here},
  )


@UNTIMED
@given(
  st.sampled_from(list(config_lib.METHODS)),
  st.sampled_from(['steps', 'direct']),
  st.sampled_from(['none', 'forward_kl', 'jsd']),
  st.sampled_from([0, 7]),
  st.sampled_from([0.0, 0.4]),
)
def test_a_method_is_settled_as_before(method, form, divergence, every, beta):
  config = config_lib.get(
    {
      # Text refused what methods settle otherwise today.
      'domain.kind': 'arithmetic',  # On text all are taught in steps.
      'method': method,
      'adapter.answer_format': form,
      'distillation.divergence': divergence,
      'distillation.on_policy_every_steps': every,
      'distillation.beta': beta,
    }
  )
  got = config_lib.settle(config)
  assert (got.answer_format, got.lesson_format, got.distillation) == (
    before(config)
  )
  assert got.distills == (got.distillation['divergence'] != 'none')


def test_what_may_change_between_starts():
  before = re.compile(
    r'run\.|teacher\.(max_completion_tokens|max_usd|recording|base_url'
    r'|api_key_env|max_concurrency|max_attempts|max_retry_after_seconds|price\.'
    r'|max_unanswered_share)|adapter\.on_no_lessons'
  )
  added = {
    'teacher.requests_per_minute',
    'teacher.tokens_per_minute',
    'teacher.timeout_seconds',
    'teacher.max_regenerations',
    'teacher.max_reply_bytes',
    'teacher.batch',
    'judge.base_url',
    'judge.api_key_env',
    'judge.recording',
    'judge.price.prompt_usd_per_million',
    'judge.price.completion_usd_per_million',
    'judge.max_usd',
    'judge.max_completion_tokens',
  }
  assert {k for k, f in FIELDS.items() if f.changeable} == added | {
    k for k in FIELDS if before.match(k)
  }


def test_a_field_that_came_later_makes_no_other_run():
  old = json.loads(config_lib.to_json(config_lib.load('quickstart')))
  del old['teacher']['reasoning_effort'], old['domain']['seeds']
  new = json.loads(config_lib.to_json(config_lib.load('quickstart')))
  assert not config_lib.difference(old, new)
  new['teacher']['reasoning_effort'] = 'low'
  assert config_lib.difference(old, new) == [
    "teacher.reasoning_effort: '' -> 'low'"
  ]


def test_the_page_of_settings_is_up_to_date():
  page = (ROOT / 'docs/settings.md').read_text()
  command = 'python -m ioa_jax.config > docs/settings.md'
  assert page == describe.markdown(), f'run {command}'
  assert command in page
  for path, field in FIELDS.items():
    (line,) = (x for x in page.splitlines() if x.startswith(f'| `{path}`'))
    assert f'| `{describe.render(field.default)}` |' in line
